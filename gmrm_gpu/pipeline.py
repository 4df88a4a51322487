"""One movie analysed: the only place that joins reading and numerics.

`Runner.run` is the core: R replicates of one sampling rate over all frames of a movie, frame by frame. An analysis is
one replicate whose fits and labels are kept; a study is many whose shares are kept.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from . import __version__
from .backend import Backend, free_memory, get_backend
from .classify import foreground_components
from .config import AnalysisConfig
from .correct import Corrected, Corrector
from .engines import GenericEngine, select_engine
from .errors import InputError, MemoryBudgetError
from .frames import Movie, open_movie
from .philox import STREAM_START, stream_words
from .quantify import count_share, make_scale, volume_weights, weighted_share
from .recorder import Observer, Recorder, example_settings
from .results import AnalysisResult, MixtureFit, MovieInfo
from .sampling import Sampler
from .survey import check_movie, count_of, survey_movie

Progress = Callable[[int, int], None]
FEW_SAMPLES = 5
"""Samples per parameter below which a fit is warned about."""


@dataclass(frozen=True)
class Curves:
    """Per replicate and frame, (R, T) host arrays. share, volume_share, share_raw, posterior : see AnalysisResult."""

    share: np.ndarray
    volume_share: np.ndarray
    share_raw: np.ndarray
    posterior: np.ndarray
    n_samples: np.ndarray
    without_neighbours: np.ndarray
    status: np.ndarray

    @staticmethod
    def empty(n_replicates: int, n_frames: int) -> Curves:
        """All NaN and zero."""
        shape = (n_replicates, n_frames)
        share, volume_share, share_raw, posterior = (np.full(shape, np.nan) for _ in range(4))
        n_samples, lonely = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        status = np.zeros(shape, np.uint8)
        return Curves(share, volume_share, share_raw, posterior, n_samples, lonely, status)


class Runner:
    """Everything a run over one movie needs, made once: backend, engine, calibration, checks."""

    def __init__(self, movie: Movie, config: AnalysisConfig, backend: Backend | None = None) -> None:
        self.movie, self.config = movie, config
        self.backend = backend or get_backend(config.compute.device, config.compute.dtype)
        self.engine: GenericEngine = select_engine(self.backend)
        size = movie.pixel_size_um
        n_pixels = movie.shape[0] * movie.shape[1] if movie.valid is None else int(movie.valid.sum())
        self.scale = make_scale(config.quantity, n_pixels, size)
        weights = volume_weights(movie.shape, config.quantity, size)
        self.volume_weights = None if weights is None else self.backend.asarray(weights)
        self.survey = survey_movie(movie)
        check_movie(movie, self.survey, config.mixture)

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
        needed = self.config.mixture.n_parameters + 1
        if sampler.capacity < needed:
            raise InputError(
                f"rate {rate:g} gives {count_of(sampler.capacity, 'sample')} a frame, but the model has {needed - 1} "
                f"parameters; use a rate of at least {needed / sampler.n_pixels:.2g} or a smaller model"
            )
        return sampler

    def corrector(self) -> Corrector:
        """A fresh vote with the configured settings."""
        return self.engine.corrector(self.movie.shape, self.config.correction, self.config.phases)

    def bytes_per_replicate(self, rate: float) -> int:
        """Memory one replicate takes at `rate`."""
        m, n_frames = self.sampler(rate).capacity, len(self.movie)
        return self.engine.bytes_per_replicate(m, self.config.mixture, self.corrector(), n_frames)

    def run(
        self,
        rate: float,
        replicates: np.ndarray,
        *,
        observer: Observer | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Curves:
        """Analyse `replicates` (R,) at `rate` over all frames; `tick` is called after each frame."""
        sampler, corrector = self.sampler(rate), self.corrector()
        curves = Curves.empty(len(replicates), len(self.movie))
        observer = observer or Observer()
        for t in range(len(self.movie)):
            self._one_frame(t, rate, replicates, sampler, corrector, curves, observer)
            if tick:
                tick()
        for done in corrector.flush():
            self._tally(done, curves, observer)
        return curves

    def _one_frame(
        self,
        t: int,
        rate: float,
        replicates: np.ndarray,
        sampler: Sampler,
        corrector: Corrector,
        curves: Curves,
        observer: Observer,
    ) -> None:
        config, number = self.config, int(self.movie.frame_numbers[t])
        frame = self.movie.frame(t)
        draw = sampler.draw(replicates, number, backend=self.backend)
        n_words = config.mixture.n_components
        streams = stream_words(config.sampling.seed, rate, replicates, number, STREAM_START, n_words)
        fit, labels, posterior = self.engine.fit_and_label(
            frame, draw, config.mixture, config.phases, streams=streams, sigma_floor=self.survey.sigma_floor
        )
        curves.posterior[:, t] = posterior
        curves.n_samples[:, t] = draw.n_samples
        curves.status[:, t] = fit.status
        curves.share_raw[:, t] = count_share(labels, config.phases.foreground_index, backend=self.backend)
        observer.fitted(t, frame, fit, draw.positions, labels)
        for done in corrector.push(draw.positions, labels):
            self._tally(done, curves, observer)

    def _tally(self, done: Corrected, curves: Curves, observer: Observer) -> None:
        t, foreground = done.frame, self.config.phases.foreground_index
        curves.without_neighbours[:, t] = done.without_neighbours
        count = count_share(done.labels, foreground, backend=self.backend)
        curves.share[:, t] = curves.posterior[:, t] if self.config.quantity.estimator == "posterior" else count
        curves.volume_share[:, t] = curves.share[:, t]
        if self.volume_weights is not None:
            curves.volume_share[:, t] = weighted_share(
                done.labels, done.positions, foreground, self.volume_weights, backend=self.backend
            )
        observer.corrected(done)

    def warnings(self, rates: tuple[float, ...]) -> list[str]:
        """What a reader of the results should know beforehand."""
        config, found = self.config, [] if self.survey.outliers is None else [self.survey.outliers]
        for rate in rates:
            samples, parameters = self.sampler(rate).capacity, config.mixture.n_parameters
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
            "engine": self.engine.name,
            "engine_reason": self.engine.reason,
            "seed": self.config.sampling.seed,
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
    config = replace(config, correction=replace(config.correction, radius=0.0))
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
    check_memory(runner.bytes_per_replicate(rate) + n_labels, memory_budget(config, runner.backend))
    settings = example_settings(config.correction, runner.movie.shape)
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
        share_raw=curves.share_raw[0],
        posterior=curves.posterior[0],
        n_samples=curves.n_samples[0],
        n_without_neighbours=curves.without_neighbours[0],
        status=curves.status[0],
        fits=fits,
        foreground=foreground_components(fits, config.phases),
        labels=recorder.labels,
        examples=recorder.examples(rate),
        provenance=runner.provenance(started, (rate,)),
    )


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
