"""One movie analysed, or its full frames fitted: what most users call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .config import ESTIMATORS, AnalysisConfig
from .frames import open_movie
from .recorder import Recorder, example_settings
from .results import AnalysisResult, MixtureFit
from .runner import Progress, Runner, check_memory, memory_budget


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
    rate = config.sampling.rate
    runner = Runner(open_movie(movie), config, largest_rate=rate)
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
        visited_share=runner.visited_shares(rate, curves.n_samples[0]),
        status=curves.status[0],
        fits=fits,
        foreground=np.concatenate(recorder.foregrounds),
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


__all__ = ["analyze", "fit_frames"]
