"""Everything that runs over one movie share: backend, engine, calibration, checks, memory, records."""

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
from .backend import Backend, free_memory, get_backend, ran_out_of_memory, release_memory
from .config import AnalysisConfig
from .correct import Corrector
from .engines import Engine, FusedEngine, GenericEngine, MovieFrames, instead_of_kernels, select_engine
from .engines.device import describe_gpu
from .errors import InputError, MemoryBudgetError
from .frames import Movie
from .frames.cache import CachedMovie
from .philox import STREAM_START, stream_words
from .quantify import make_scale, volume_weights
from .recorder import Observer
from .results import MovieInfo
from .runs import Ticks, run_replicates
from .sampling import Sampler
from .survey import check_movie, count_of, survey_movie
from .tally import Curves, TallySettings
from .visited import Visited, sampler_of

Progress = Callable[[int, int], None]
CPU_BLOCK_SAMPLES = 2**26
"""Samples of all frames that a block of replicates has at most on the CPU."""
FEW_SAMPLES = 5
"""Samples per parameter below which a fit is warned about."""
LEAST_A_FRAME = 10
"""Samples of a frame below which the method ``movie`` refuses: no interval from so few can be believed."""


class Runner:
    """Everything a run over one movie needs, made once: backend, engine, calibration, checks.

    Parameters
    ----------
    backend, engine : by default what `config` asks for. largest_rate : the highest sampling rate that will be run, for
        the choice of the engine.
    """

    def __init__(
        self,
        movie: Movie,
        config: AnalysisConfig,
        backend: Backend | None = None,
        engine: Engine | None = None,
        *,
        largest_rate: float = 1.0,
    ) -> None:
        self.movie, self.config = movie, config.resolved
        config = self.config
        self.backend = backend or get_backend(config.compute.device, config.compute.dtype)
        self.visited = Visited.of(movie) if movie.sampled else None
        self.frames = MovieFrames(movie.frame, movie.frame_numbers, movie.shape, movie.dtype)
        self.engine: Engine = engine or select_engine(
            self.backend, config, movie.shape, movie.dtype, sampled=movie.sampled
        )
        size = movie.pixel_size_um
        self.scale = make_scale(config.quantity, movie.n_pixels, size)
        weights = volume_weights(movie.shape, config.quantity, size)
        self.host_weights = weights
        self.volume_weights = None if weights is None else self.backend.asarray(weights)
        self.survey = survey_movie(movie)
        check_movie(movie, self.survey, config.mixture)
        self.decision: str | None = None
        if engine is None and config.compute.engine == "auto" and isinstance(self.engine, FusedEngine):
            self.engine = self._kernels_or_arrays(self.engine, largest_rate)

    def _kernels_or_arrays(self, kernels: FusedEngine, rate: float) -> Engine:
        """`kernels`; or arrays, where all frames at once are more than there is room for and arrays take less."""
        needed, room = self.fixed_bytes + self.bytes_per_replicate(rate), self.budget * 3 // 4
        if needed <= room:
            return kernels
        why = f"all frames at once need {needed / 1e6:.3g} MB, of {room / 1e6:.3g} MB there are"
        self.engine = instead_of_kernels(kernels.generic, why, warn=True)
        return self.engine if self.bytes_per_replicate(rate) <= room else kernels

    @property
    def frame_time_s(self) -> float | None:
        """Seconds from frame to frame: the user's, else the file's, else None."""
        return self.config.quantity.frame_time_s or self.movie.frame_time_s

    @property
    def time_s(self) -> np.ndarray | None:
        """(T,) time of each frame since frame number 0, or as the file has it."""
        times = self.movie.acquisition.times_s
        if times is not None and self.config.quantity.frame_time_s is None:
            return times
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
            detector=movie.acquisition.detector,
            bit_depth=movie.acquisition.bit_depth,
            sampled=movie.sampled,
        )

    def visited_shares(self, rate: float, n_samples: np.ndarray) -> np.ndarray:
        """(T,) part of each frame's pixels that a run at `rate` with `n_samples` (T,) sees."""
        if self.visited is not None and rate >= 1:
            return self.visited.shares
        return np.minimum(1.0, n_samples / self.scale.n_pixels)

    def sampler(self, rate: float) -> Sampler:
        """Draws at `rate`; refuses a rate that gives a fit fewer samples than parameters."""
        sampler = sampler_of(self.movie, replace(self.config.sampling, rate=rate), self.visited)
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
            return sampler.total(len(self.movie)), "in all"
        return sampler.capacity, "a frame"

    def corrector(self) -> Corrector:
        """A fresh vote with the configured settings."""
        vote = self.engine.corrector(self.movie.shape, self.config.correction, self.config.phases)
        repeats = self.visited is not None and bool(self.visited.n_repeats.any())
        return replace(vote, repeats=repeats)

    def bytes_per_replicate(self, rate: float) -> int:
        """Memory one replicate takes at `rate`."""
        m, n_frames = self.sampler(rate).capacity, len(self.movie)
        if isinstance(self.engine, FusedEngine):
            return self.engine.block_bytes(self.frames, self.sampler(rate), self.config, self.budget)[1]
        if self.config.method == "movie":
            whole = self.engine.movie_bytes(m, n_frames, self.movie.shape, self.config.mixture)
            return whole + self.corrector().bytes_per_replicate(m, n_frames)
        return self.engine.bytes_per_replicate(m, self.config.mixture, self.corrector(), n_frames)

    @property
    def at_once(self) -> bool:
        """Whether kernels take all frames of a block of replicates at once."""
        return isinstance(self.engine, FusedEngine)

    @property
    def most_samples(self) -> int | None:
        """Samples, of all frames, that a block should have at most; None: what memory holds.

        On the CPU more gain nothing, and fewer could leave cores waiting for the last fits of a block.
        """
        return CPU_BLOCK_SAMPLES if self.engine.name == "compiled" else None

    @property
    def n_threads(self) -> int | None:
        """Threads of the engine itself; None: it works in its caller's."""
        return self.engine.n_threads if isinstance(self.engine, FusedEngine) else None

    @property
    def fixed_bytes(self) -> int:
        """Memory that a block takes beside its replicates."""
        if not isinstance(self.engine, FusedEngine):
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
        """Analyse `replicates` (R,) at `rate` over all frames; `tick` is called as often as there are frames.

        Where memory runs out, in halves; with an observer, which is to see all replicates of a frame, once more.

        Raises
        ------
        MemoryBudgetError
            One replicate alone does not fit.
        """
        ticks = Ticks(tick or (lambda: None), len(self.movie))
        curves = self._run(rate, replicates, observer, ticks)
        ticks.reach(1.0)
        return curves

    def _run(self, rate: float, replicates: np.ndarray, observer: Observer | None, ticks: Ticks) -> Curves:
        curves, _ = self._attempt(rate, replicates, observer, ticks)
        if curves is not None:
            return curves
        self._free()
        if len(replicates) > 1 and observer is None:
            half = len(replicates) // 2
            parts = replicates[:half], replicates[half:]
            return Curves.join([self._run(rate, part, observer, ticks) for part in parts])
        if observer is not None:
            observer.restarted()
        # Other programs and threads may have let go of memory since.
        curves, why = self._attempt(rate, replicates, observer, ticks)
        if curves is None:
            raise self._too_large(rate, len(replicates), why)
        return curves

    def _attempt(
        self, rate: float, replicates: np.ndarray, observer: Observer | None, ticks: Ticks
    ) -> tuple[Curves | None, str]:
        """The curves; None where memory ran out, and in which words."""
        try:
            return run_replicates(self, rate, replicates, observer, ticks), ""
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            # Not the error itself: its traceback keeps the arrays of the attempt.
            return None, str(error)

    def _free(self) -> None:
        """Let go of all that is kept only to save time."""
        if isinstance(self.engine, FusedEngine):
            self.engine.forget()
        if isinstance(self.movie, CachedMovie) and self.backend.name != "cupy":
            self.movie.forget()
        release_memory(self.backend)

    def _too_large(self, rate: float, n_replicates: int, why: str) -> MemoryBudgetError:
        device = self.engine.device if isinstance(self.engine, FusedEngine) else None
        needed = self.fixed_bytes + n_replicates * self.bytes_per_replicate(rate)
        free = free_memory(self.backend) if device is None else device.free_bytes()
        where = "on the GPU" if self.engine.name == "fused" or self.backend.name == "cupy" else "of memory"
        who = "one replicate needs" if n_replicates == 1 else f"{n_replicates} replicates need"
        return MemoryBudgetError(
            f"{who} {needed / 1e6:.4g} MB {where}, {free / 1e6:.4g} MB are free; close other programs that use it, "
            f"lower --radius, or crop the movie (seen: {why or 'out of memory'})"
        )

    def tally_settings(self, rate: float) -> TallySettings:
        """What the curves of a run at `rate` are made with."""
        return TallySettings(
            numbers=self.movie.frame_numbers,
            n_pixels=self.scale.n_pixels,
            sampler=self.sampler(rate),
            estimator=self.config.estimator,
            foreground=self.config.phases.foreground_index,
            corrector=self.corrector(),
            weights=self.volume_weights,
            backend=self.backend,
        )

    def streams(self, rate: float, replicates: np.ndarray, number: int) -> np.ndarray:
        """(R, K) random words of the k-means++ start of the frame of that number."""
        n_words = self.config.mixture.n_components
        return stream_words(self.config.sampling.seed, rate, replicates, number, STREAM_START, n_words)

    def warnings(self, rates: tuple[float, ...]) -> list[str]:
        """What a reader of the results should know beforehand."""
        config, found = self.config, list(self.movie.acquisition.sentences)
        found += [text for text in (self.survey.outliers, self.survey.zeros) if text is not None]
        found += [] if self.visited is None else self.visited.remarks(config.sampling.scheme)
        if isinstance(self.engine, GenericEngine) and self.engine.no_kernels:
            where = "GPU works without the fused kernels" if self.backend.name == "cupy" else "CPU works by arrays"
            found.append(f"The {where} because {self.engine.no_kernels}. Results are as good, but take longer.")
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
            **({"numba": version("numba")} if self.engine.name == "compiled" else {}),
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


__all__ = ["Curves", "Progress", "Runner", "check_memory", "memory_budget"]
