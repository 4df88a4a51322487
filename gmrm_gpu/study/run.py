"""Run a study on this machine: the reference curve, then blocks of replicates on a few threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from threading import Event, Lock
from typing import Any

import numpy as np

from ..backend import Backend, get_backend
from ..config import StudyConfig
from ..errors import InputError
from ..frames import open_movie
from ..frames.cache import CachedMovie
from ..recorder import Recorder, example_settings
from ..results import Examples, StudyResult
from ..runner import Curves, Progress, Runner, check_memory, memory_budget
from .plan import Block, plan_blocks, threads_within


def run_study(
    movie: Any,
    config: StudyConfig | None = None,
    *,
    truth: np.ndarray | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Analyse a movie many times at several sampling rates, and once on all pixels as the reference.

    Parameters
    ----------
    movie : Movie, array (T, height, width), or a path.
    config : settings; by default 100, 200 and 1,000 replicates at 10, 5 and 1 %, with the method of the paper, and a
        part of them with the method ``"movie"``.
    truth : (T,) true share of the foreground where it is known.
    progress : called with (work done, work in all), in samples fitted.

    Returns
    -------
    StudyResult of the first method, the others in its `others`. It is a pure function of the movie, the settings
    and the seed: not of memory, workers or device
    (up to rounding between devices).
    """
    config = config or StudyConfig()
    movie = open_movie(movie)
    truth = None if truth is None else _checked_truth(truth, len(movie))
    backend = get_backend(config.analysis.compute.device, config.analysis.compute.dtype)
    cached = CachedMovie(movie, memory_budget(config.analysis, get_backend("cpu")) // 4)  # on the host
    plans = [_Plan(cached, config.of_method(method), backend) for method in config.methods]
    report = _Progress(plans, progress)
    results = [_run_method(plan, truth, report) for plan in plans]
    return replace(results[0], others=tuple(results[1:]))


class _Plan:
    """One method's part of a study: everything that can be refused is refused here, before any work."""

    def __init__(self, movie: CachedMovie, config: StudyConfig, backend: Backend) -> None:
        self.config = config
        self.runner = Runner(movie, config.analysis, backend)
        budget = memory_budget(config.analysis, backend)
        check_memory(self.runner.fixed_bytes + self.runner.bytes_per_replicate(1.0), budget)
        left = budget * 3 // 4
        self.n_threads = threads_within(self.runner, config, left)
        self.blocks = plan_blocks(self.runner, config, left, self.n_threads)


def _run_method(plan: _Plan, truth: np.ndarray | None, report: _Progress) -> StudyResult:
    started = time.perf_counter()
    runner, config = plan.runner, plan.config
    curve, examples = _run_reference(runner, config, report)
    results = _run_blocks(plan, report)
    provenance = runner.provenance(started, config.rates)
    return StudyResult(
        movie=runner.info,
        config=config,
        scale=runner.scale,
        frame=runner.movie.frame_numbers,
        time_s=runner.time_s,
        shares={rate: curves.volume_share for rate, curves in results.items()},
        status={rate: curves.status for rate, curves in results.items()},
        without_neighbours={rate: curves.without_neighbours for rate, curves in results.items()},
        reference=curve.volume_share[0],
        reference_status=curve.status[0],
        truth=truth,
        examples=examples,
        provenance=provenance | {"n_threads": runner.n_threads or plan.n_threads, "n_blocks": len(plan.blocks)},
    )


def _checked_truth(truth: np.ndarray, n_frames: int) -> np.ndarray:
    truth = np.asarray(truth, dtype=np.float64)
    if truth.shape != (n_frames,):
        raise InputError(f"truth has shape {truth.shape}, but the movie has {n_frames} frames; give one share each")
    return truth


def _run_reference(runner: Runner, config: StudyConfig, report: _Progress) -> tuple[Curves, Examples]:
    """The curve of all pixels, and pictures of it and of the first replicate."""
    settings = example_settings(runner.config.correction, runner.movie.shape)
    reference = Recorder(runner.movie, runner.config, runner.engine, settings=settings)
    curve = runner.run(1.0, np.array([0]), observer=reference, tick=report.ticker(runner, 1.0, 1))
    sampled = Recorder(runner.movie, runner.config, runner.engine)
    rate = config.rates[0]
    runner.run(rate, np.array([0]), observer=sampled, tick=report.ticker(runner, rate, 1))
    return curve, reference.examples(rate, sampled)


def _run_blocks(plan: _Plan, report: _Progress) -> dict[float, Curves]:
    """Every block on a pool of threads (NumPy releases the interpreter lock), merged by rate."""
    runner, config = plan.runner, plan.config
    n_frames = len(runner.movie)
    out = {rate: Curves.empty(total, n_frames) for rate, total in zip(config.rates, config.n_replicates, strict=True)}
    stop = Event()

    def work(block: Block) -> tuple[Block, Curves]:
        tick = report.ticker(runner, block.rate, block.stop - block.start, stop)
        return block, runner.run(block.rate, block.replicates, tick=tick)

    with ThreadPoolExecutor(plan.n_threads, initializer=runner.backend.activate) as pool:
        futures = [pool.submit(work, block) for block in plan.blocks]
        try:
            for future in as_completed(futures):
                block, curves = future.result()
                _merge(out[block.rate], curves, slice(block.start, block.stop))
        except BaseException:
            # Also on Ctrl-C: let the running blocks end at their next frame instead of keeping the user waiting.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return out


def _merge(target: Curves, part: Curves, rows: slice) -> None:
    for name in target.__dataclass_fields__:
        getattr(target, name)[rows] = getattr(part, name)


class _Stopped(Exception):
    """Another block failed."""


class _Progress:
    """Adds up samples fitted over the threads and hands them on."""

    def __init__(self, plans: list[_Plan], progress: Progress | None) -> None:
        self._progress, self._lock, self._done = progress, Lock(), 0
        self._total = 0
        for plan in plans:
            sizes = [(block.rate, block.stop - block.start) for block in plan.blocks]
            sizes += [(1.0, 1), (plan.config.rates[0], 1)]
            self._total += len(plan.runner.movie) * sum(_samples(plan.runner, rate, n) for rate, n in sizes)

    def ticker(self, runner: Runner, rate: float, n_replicates: int, stop: Event | None = None) -> Callable[[], None]:
        samples = _samples(runner, rate, n_replicates)

        def tick() -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            if self._progress is None:
                return
            with self._lock:
                self._done += samples
                self._progress(self._done, self._total)

        return tick


def _samples(runner: Runner, rate: float, n_replicates: int) -> int:
    """Samples a frame; the method ``movie`` looks at each some ten times as often."""
    return runner.sampler(rate).capacity * n_replicates * (10 if runner.config.method == "movie" else 1)


__all__ = ["run_study"]
