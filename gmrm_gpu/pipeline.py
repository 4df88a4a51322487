"""One movie analysed: the only place that joins reading and numerics.

`Runner.run` is the core: R replicates of one sampling rate over all frames of a movie, fitted together or one by one.
An analysis is one replicate whose fits and labels are kept; a study is many whose shares are kept.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from . import __version__
from .backend import Array, Backend, free_memory, get_backend
from .classify import explain_foreground, foreground_components
from .config import ESTIMATORS, AnalysisConfig
from .correct import Corrected, Corrector
from .engines import Counted, Engine, FusedEngine, GenericEngine, Kept, MovieFrames, select_engine
from .engines.device import describe_gpu
from .errors import InputError, MemoryBudgetError
from .frames import Movie, open_movie
from .philox import STREAM_START, stream_words
from .quantify import make_scale, volume_weights
from .recorder import Observer, Recorder, example_settings
from .results import AnalysisResult, MixtureFit, MovieInfo
from .sampling import Draw, Sampler
from .survey import check_movie, count_of, survey_movie
from .tally import Curves, Expected, Tally, TallySettings, curves_of_counts

Progress = Callable[[int, int], None]
FEW_SAMPLES = 5
"""Samples per parameter below which a fit is warned about."""
LEAST_A_FRAME = 10
"""Samples of a frame below which the method ``movie`` refuses: no interval from so few can be believed."""


class Runner:
    """Everything a run over one movie needs, made once: backend, engine, calibration, checks."""

    def __init__(
        self, movie: Movie, config: AnalysisConfig, backend: Backend | None = None, engine: Engine | None = None
    ) -> None:
        self.movie, self.config = movie, config.resolved
        config = self.config
        self.backend = backend or get_backend(config.compute.device, config.compute.dtype)
        first = movie.frame(0)
        self.frames = MovieFrames(movie.frame, movie.frame_numbers, movie.shape, first.dtype)
        self.engine: Engine = engine or select_engine(self.backend, config, movie.shape, first.dtype)
        size = movie.pixel_size_um
        n_pixels = movie.shape[0] * movie.shape[1] if movie.valid is None else int(movie.valid.sum())
        self.scale = make_scale(config.quantity, n_pixels, size)
        weights = volume_weights(movie.shape, config.quantity, size)
        self.volume_weights = None if weights is None else self.backend.asarray(weights)
        self.survey = survey_movie(movie)
        check_movie(movie, self.survey, config.mixture)
        self.decision: str | None = None

    @property
    def frame_time_s(self) -> float | None:
        """Seconds from frame to frame: the user's, else the file's, else None."""
        return self.config.quantity.frame_time_s or self.movie.frame_time_s

    @property
    def time_s(self) -> np.ndarray | None:
        """(T,) time of each frame since frame number 0."""
        return None if self.frame_time_s is None else self.movie.frame_numbers * self.frame_time_s

    @property
    def info(self) -> MovieInfo:
        """What the results remember of the movie."""
        movie = self.movie
        return MovieInfo(
            name=movie.name,
            n_frames=len(movie),
            shape=movie.shape,
            dtype=str(movie.dtype),
            n_pixels=self.scale.n_pixels,
            pixel_size_um=self.config.quantity.pixel_size_um or movie.pixel_size_um,
            frame_time_s=self.frame_time_s,
            frame_numbers=tuple(int(n) for n in movie.frame_numbers),
        )

    def sampler(self, rate: float) -> Sampler:
        """Draws at `rate`; refuses a rate that gives a fit fewer samples than parameters."""
        sampler = Sampler(self.movie.shape, replace(self.config.sampling, rate=rate), self.movie.valid)
        held, where = self._samples_of_a_fit(sampler)
        needed = self.config.mixture.n_parameters + 1
        enough = needed * sampler.capacity / held / sampler.n_pixels
        if held < needed:
            raise InputError(
                f"rate {rate:g} gives {count_of(held, 'sample')} {where}, but the model has {needed - 1} "
                f"parameters; use a rate of at least {enough:.2g} or a smaller model"
            )
        if self.config.method == "movie" and sampler.capacity < min(LEAST_A_FRAME, sampler.n_pixels):
            raise InputError(
                f"rate {rate:g} gives {count_of(sampler.capacity, 'sample')} a frame, which says nothing of a frame; "
                f"use a rate of at least {LEAST_A_FRAME / sampler.n_pixels:.2g}"
            )
        return sampler

    def _samples_of_a_fit(self, sampler: Sampler) -> tuple[int, str]:
        """How many samples share one fit's parameters, and of what."""
        if self.config.method == "movie":
            return sampler.capacity * len(self.movie), "in all"
        return sampler.capacity, "a frame"

    def corrector(self) -> Corrector:
        """A fresh vote with the configured settings."""
        return self.engine.corrector(self.movie.shape, self.config.correction, self.config.phases)

    def bytes_per_replicate(self, rate: float) -> int:
        """Memory one replicate takes at `rate`."""
        m, n_frames = self.sampler(rate).capacity, len(self.movie)
        if self.config.method == "movie":
            whole = self.engine.movie_bytes(m, n_frames, self.movie.shape, self.config.mixture)
            return whole + self.corrector().bytes_per_replicate(m, n_frames)
        if isinstance(self.engine, FusedEngine):
            return self.engine.block_bytes(self.frames, self.sampler(rate), self.config, self.budget)[1]
        return self.engine.bytes_per_replicate(m, self.config.mixture, self.corrector(), n_frames)

    @property
    def at_once(self) -> bool:
        """Whether kernels take all frames of a block of replicates at once."""
        return self.config.method == "paper" and isinstance(self.engine, FusedEngine)

    @property
    def fixed_bytes(self) -> int:
        """Memory that a block takes beside its replicates."""
        if not self.at_once or not isinstance(self.engine, FusedEngine):
            return 0
        return self.engine.block_bytes(self.frames, self.sampler(1.0), self.config, self.budget)[0]

    @cached_property
    def budget(self) -> int:
        """Bytes the analysis may take."""
        return memory_budget(self.config, self.backend)

    def run(
        self,
        rate: float,
        replicates: np.ndarray,
        *,
        observer: Observer | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Curves:
        """Analyse `replicates` (R,) at `rate` over all frames; `tick` is called as often as there are frames."""
        tick = tick or (lambda: None)
        if self.config.method == "paper" and isinstance(self.engine, FusedEngine):
            return self._at_once(self.engine, rate, replicates, observer, tick)
        observer = observer or Observer()
        tally = Tally(self.tally_settings(rate), len(replicates), observer)
        if self.config.method == "movie":
            self._whole_movie(rate, replicates, tally, tick)
        else:
            self._frame_by_frame(rate, replicates, tally, tick)
        return tally.finish()

    def tally_settings(self, rate: float) -> TallySettings:
        """What the curves of a run at `rate` are made with."""
        return TallySettings(
            n_frames=len(self.movie),
            n_pixels=self.scale.n_pixels,
            sampler=self.sampler(rate),
            estimator=self.config.estimator,
            foreground=self.config.phases.foreground_index,
            corrector=self.corrector(),
            weights=self.volume_weights,
            backend=self.backend,
        )

    def _streams(self, rate: float, replicates: np.ndarray, number: int) -> np.ndarray:
        n_words = self.config.mixture.n_components
        return stream_words(self.config.sampling.seed, rate, replicates, number, STREAM_START, n_words)

    def _frame_by_frame(self, rate: float, replicates: np.ndarray, tally: Tally, tick: Callable[[], None]) -> None:
        """The method ``paper``: every frame is fitted by itself."""
        assert isinstance(self.engine, GenericEngine)
        config, sampler = self.config, tally.settings.sampler
        for t, number in enumerate(map(int, self.movie.frame_numbers)):
            draw = sampler.draw(replicates, number, backend=self.backend)
            fit, labels, posterior = self.engine.fit_and_label(
                self.movie.frame(t),
                draw,
                config.mixture,
                config.phases,
                streams=self._streams(rate, replicates, number),
                sigma_floor=self.survey.sigma_floor,
            )
            tally.observer.fitted(t, fit, foreground_components(fit, config.phases), draw.positions, labels)
            tally.push(t, draw, labels, fit.status, posterior_mean=posterior)
            tick()

    def _at_once(
        self, engine: FusedEngine, rate: float, replicates: np.ndarray, observer: Observer | None, tick: Callable
    ) -> Curves:
        """The method ``paper`` in a few launches; the observer sees the frames when they are done."""
        sampler = self.sampler(rate)
        found, kept = engine.run(
            self.frames,
            sampler,
            replicates,
            self.config,
            sigma_floor=self.survey.sigma_floor,
            budget=self.budget,
            keep=observer is not None,
        )
        if observer is not None and kept is not None:
            self._show(observer, sampler, replicates, found, kept)
        for _ in range(len(self.movie)):
            tick()
        return curves_of_counts(found, self.config.estimator, self.scale.n_pixels)

    def _show(self, observer: Observer, sampler: Sampler, replicates: np.ndarray, found: Counted, kept: Kept) -> None:
        """Let the observer see every frame, raw and corrected."""
        for t, number in enumerate(map(int, self.movie.frame_numbers)):
            places, fit = sampler.draw(replicates, number, backend=self.backend).positions, kept.fits[:, t]
            observer.fitted(t, fit, foreground_components(fit, self.config.phases), places, kept.raw[:, t, :])
            observer.corrected(Corrected(t, places, kept.labels[:, t, :], found.without_neighbours[:, t]))

    def _whole_movie(self, rate: float, replicates: np.ndarray, tally: Tally, tick: Callable[[], None]) -> None:
        """The method ``movie``: all frames together, then their labels frame by frame."""
        config, sampler, n_frames = self.config, tally.settings.sampler, len(self.movie)
        draws, values, positions, valid = self._all_samples(sampler, replicates)
        ticks = _Ticks(tick, n_frames)
        found = self.engine.fit_and_label_movie(
            values,
            positions,
            valid,
            self.movie.shape,
            config.mixture,
            config.phases,
            allowed=self.movie.valid,
            streams=self._streams(rate, replicates, 0),
            sigma_floor=self.survey.sigma_floor,
            pixel_weights=self.volume_weights,
            notify=ticks.reach,
        )
        # The first run's: of an analysis the only one, of a study that of all pixels.
        self.decision = self.decision or explain_foreground(found.fit, config.phases)
        for t, draw in enumerate(draws):
            labels, fit = found.labels[:, t, :], found.fit.frames[:, t]
            tally.observer.fitted(t, fit, found.foreground, draw.positions, labels)
            weighted = None if found.expected_weighted is None else found.expected_weighted[:, t]
            expected = Expected(found.expected[:, t, :], found.expected_mean[:, t], weighted)
            tally.push(t, draw, labels, fit.status, posterior=found.posterior[:, t, :], expected=expected)
        ticks.reach(1.0)

    def _all_samples(self, sampler: Sampler, replicates: np.ndarray) -> tuple[list[Draw], Array, Array, Array | None]:
        """The draws of every frame, and their values, positions and validity (R, T, m)."""
        xp, backend = self.backend.xp, self.backend
        draws, values = [], []
        for t, number in enumerate(map(int, self.movie.frame_numbers)):
            draw = sampler.draw(replicates, number, backend=backend)
            image = backend.asarray(np.ascontiguousarray(self.movie.frame(t)).reshape(-1))
            values.append(xp.reshape(xp.take(image, xp.reshape(draw.positions, (-1,))), draw.positions.shape))
            draws.append(draw)
        valid = None if draws[0].valid is None else xp.stack([draw.valid for draw in draws], axis=1)
        return draws, xp.stack(values, axis=1), xp.stack([draw.positions for draw in draws], axis=1), valid

    def warnings(self, rates: tuple[float, ...]) -> list[str]:
        """What a reader of the results should know beforehand."""
        config, found = self.config, [] if self.survey.outliers is None else [self.survey.outliers]
        for rate in rates:
            samples, parameters = self._samples_of_a_fit(self.sampler(rate))[0], config.mixture.n_parameters
            if samples < FEW_SAMPLES * parameters:
                found.append(
                    f"At {100 * rate:g} % a fit has {samples} samples for {parameters} parameters: its labels are "
                    "little more than noise. Use a higher rate or a smaller model."
                )
        axis, position = config.quantity.axis_position
        size = self.movie.shape[1 if axis == "x" else 0]
        if config.quantity.geometry == "revolution" and not 0 <= position <= size - 1:
            found.append(
                f"The axis of revolution {axis} = {position:g} lies outside the frame ({axis} from 0 to {size - 1})."
            )
        return found

    def provenance(self, started: float, rates: tuple[float, ...]) -> dict[str, Any]:
        """Versions, device, engine, warnings about `rates` and settings, and seconds since `started`."""
        return {
            "gmrm_gpu": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "array-api-compat")},
            "platform": platform.platform(),
            "device": self.backend.name,
            "device_reason": self.backend.reason,
            **({"gpu": describe_gpu(self.backend.number)} if self.backend.name == "cupy" else {}),
            "engine": self.engine.name,
            "engine_reason": self.engine.reason,
            "seed": self.config.sampling.seed,
            "foreground": self.decision,
            "warnings": self.warnings(rates),
            "wall_s": round(time.perf_counter() - started, 3),
        }


def memory_budget(config: AnalysisConfig, backend: Backend) -> int:
    """Bytes an analysis may take: `--memory`, or half of what is free."""
    return config.compute.memory_bytes or free_memory(backend) // 2


def check_memory(needed: int, budget: int) -> None:
    """Raise `MemoryBudgetError` where one replicate does not fit."""
    if needed > budget:
        raise MemoryBudgetError(
            f"one replicate needs {needed / 1e6:.3g} MB, the budget is {budget / 1e6:.3g} MB; "
            "raise --memory, lower --radius, or crop the movie"
        )


def fit_frames(
    movie: Any,
    config: AnalysisConfig | None = None,
    *,
    frames: Any = None,
    progress: Progress | None = None,
) -> MixtureFit:
    """Fit the full frames of a movie, each on its own.

    Parameters
    ----------
    movie : Movie, array (T, height, width) or (height, width), or a path.
    config : settings; `AnalysisConfig()` by default. frames : selection as in `open_movie`, for example ``"0:10"``.
    progress : called with (frames done, frames in all).

    Returns
    -------
    MixtureFit with leading axis T.
    """
    config = config or AnalysisConfig()
    config = replace(config, correction=replace(config.correction, radius=0.0)).with_method("paper")
    runner = Runner(open_movie(movie, frames=frames), config)
    recorder = Recorder(runner.movie, runner.config, runner.engine)
    total = len(runner.movie)
    runner.run(1.0, np.array([0]), observer=recorder, tick=_ticker(progress, total))
    return MixtureFit.stack(recorder.fits)


def analyze(
    movie: Any,
    config: AnalysisConfig | None = None,
    *,
    rate: float | None = None,
    progress: Progress | None = None,
) -> AnalysisResult:
    """One growth curve from one movie: fit, classify, correct, quantify.

    Parameters
    ----------
    movie : Movie, array (T, height, width), or a path.
    config : settings; `AnalysisConfig()` by default.
    rate : sub-sample the movie once at this rate, in (0, 1]; overrides ``config.sampling.rate``.
    progress : called with (frames done, frames in all).

    Returns
    -------
    AnalysisResult, with labels and pictures for a report. A frame whose fit failed has a NaN share and a status.

    Raises
    ------
    InputError
        The movie cannot carry the model (too small, too few grey levels, too few samples).
    """
    started = time.perf_counter()
    config = config or AnalysisConfig()
    config = config if rate is None else config.with_rate(rate)
    runner = Runner(open_movie(movie), config)
    rate = config.sampling.rate
    n_labels = len(runner.movie) * runner.movie.shape[0] * runner.movie.shape[1]
    check_memory(
        runner.fixed_bytes + runner.bytes_per_replicate(rate) + n_labels, memory_budget(config, runner.backend)
    )
    settings = example_settings(runner.config.correction, runner.movie.shape)
    recorder = Recorder(runner.movie, config, runner.engine, labels=True, settings=settings)
    total = len(runner.movie)
    curves = runner.run(rate, np.array([0]), observer=recorder, tick=_ticker(progress, total))
    fits = MixtureFit.stack(recorder.fits)
    return AnalysisResult(
        movie=runner.info,
        config=config,
        scale=runner.scale,
        frame=runner.movie.frame_numbers,
        time_s=runner.time_s,
        share=curves.share[0],
        volume_share=curves.volume_share[0],
        share_sd=curves.share_sd[0],
        volume_share_sd=curves.volume_share_sd[0],
        share_raw=curves.share_raw[0],
        **{name: getattr(curves, name)[0] for name in ESTIMATORS},
        **{f"{name}_sd": getattr(curves, f"{name}_sd")[0] for name in ESTIMATORS},
        n_samples=curves.n_samples[0],
        n_without_neighbours=curves.without_neighbours[0],
        status=curves.status[0],
        fits=fits,
        foreground=np.concatenate(recorder.foregrounds),
        labels=recorder.labels,
        examples=recorder.examples(rate),
        provenance=runner.provenance(started, (rate,)),
    )


class _Ticks:
    """Turns a fraction done into so many calls."""

    def __init__(self, tick: Callable[[], None], total: int) -> None:
        self._tick, self._total, self._done = tick, total, 0

    def reach(self, fraction: float) -> None:
        """Call until `fraction` (0 to 1) of all calls are made."""
        while self._done < min(int(fraction * self._total), self._total):
            self._done += 1
            self._tick()


def _ticker(progress: Progress | None, total: int) -> Callable[[], None] | None:
    if progress is None:
        return None
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return tick


__all__ = ["Curves", "Runner", "analyze", "fit_frames"]
