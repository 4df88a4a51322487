"""One shard of a study, computed: the same on this machine and on a worker far away."""

from __future__ import annotations

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from threading import Event, Lock
from typing import Any, Protocol

import numpy as np

from .. import __version__
from ..backend import Backend, get_backend
from ..config import StudyConfig
from ..engines.device import describe_gpu
from ..frames import Movie
from ..frames.cache import CachedMovie
from ..recorder import Recorder, example_settings
from ..results import Examples
from ..runner import Curves, Runner, check_memory, memory_budget
from .plan import Block, cut_blocks, threads_within
from .shards import Shard, plan_shards, replicate_cost

CURVES = ("volume_share", "status", "without_neighbours")
"""What a study keeps of the curves of each replicate, (R, T)."""
EXAMPLE = "example_"
"""Beginning of the names of a reference's pictures among its arrays."""

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Part:
    """A shard, computed.

    arrays : `CURVES`; of a reference the arrays of its `Examples` too. record : device, engine, versions; nothing that
    differs between two runs on one machine.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]


class Source(Protocol):
    """Whatever can open the movie of a job, perhaps in another process or on another machine."""

    def open(self) -> Movie:
        """The movie."""


@dataclass(frozen=True)
class Job:
    """What a process needs to compute any shard of a study; it can be pickled if its source can."""

    source: Source
    config: StudyConfig
    fingerprint: str

    def workplace(self) -> Workplace:
        """This process's, made at the first call; it keeps that of one job."""
        with _lock:
            if self.fingerprint not in _workplaces:
                _workplaces.clear()
                _workplaces[self.fingerprint] = Workplace(self.source.open(), self.config)
            return _workplaces[self.fingerprint]


_workplaces: dict[str, Workplace] = {}
_lock = Lock()


def compute(job: Job, shard: Shard) -> Part:
    """Compute a shard of a job in this process."""
    return job.workplace().compute(shard)


class Workplace:
    """The movie and the methods of a study in this process; what can be refused is refused when it is made.

    Parameters
    ----------
    movie : read once, and kept as far as there is memory. config : the study.
    computes : False where others compute: then it need not have the memory for it.
    """

    def __init__(self, movie: Movie, config: StudyConfig, *, computes: bool = True) -> None:
        compute = config.analysis.compute
        self.config = config
        self.backend = get_backend(compute.device, compute.dtype)
        cached = CachedMovie(movie, memory_budget(config.analysis, get_backend("cpu")) // 4)  # on the host
        self.benches = {method: Bench(cached, config.of_method(method), self.backend) for method in config.methods}
        if computes:
            for bench in self.benches.values():
                bench.check_memory()
        self.movie = cached

    def shards(self, device: str) -> list[Shard]:
        """All shards of the study, for a device that may be another one than this process's."""
        runner = self.benches[self.config.methods[0]].runner
        return plan_shards(self.config, len(self.movie), lambda rate: runner.sampler(rate).capacity, device)

    @property
    def engines(self) -> dict[str, str]:
        """method -> name of its engine."""
        return {method: bench.runner.engine.name for method, bench in self.benches.items()}

    def cost(self, shard: Shard) -> int:
        """Work of a shard, in samples."""
        runner, one = self.benches[shard.method].runner, shard.stop - shard.start
        rates = (shard.rate, 1.0) if shard.reference else (shard.rate,)
        return sum(one * replicate_cost(shard.method, len(self.movie), runner.sampler(r).capacity) for r in rates)

    def compute(self, shard: Shard, *, tick: Tick | None = None) -> Part:
        """Compute a shard; `tick` is called from time to time with the samples done since."""
        bench = self.benches[shard.method]
        examples: dict[str, np.ndarray] = {}
        if shard.reference:
            curves, pictures = bench.reference(shard, tick)
            examples = {EXAMPLE + name: array for name, array in pictures.arrays().items()}
        else:
            curves = bench.replicates(shard, tick)
        arrays = {name: getattr(curves, name) for name in CURVES} | examples
        decision = {"decision": bench.decision} if shard.reference else {}
        return Part(arrays, self._record(bench.runner) | decision)

    def _record(self, runner: Runner) -> dict[str, Any]:
        names = ["numpy", "scipy", "array-api-compat", *(["numba"] if runner.engine.name == "compiled" else [])]
        versions = {"gmrm_gpu": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in names}
        known: dict[str, Any] = {"device": self.backend.name, "engine": runner.engine.name, "versions": versions}
        return known | ({"gpu": describe_gpu(self.backend.number)} if self.backend.name == "cupy" else {})


class Bench:
    """One method's part of a workplace."""

    def __init__(self, movie: Movie, config: StudyConfig, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.decision: str | None = None
        self.runner = Runner(movie, config.analysis, backend)
        self._limit = memory_budget(config.analysis, backend)
        self.budget = self._limit * 3 // 4
        self.n_threads = threads_within(self.runner, config, self.budget)
        for rate in config.rates:
            self.runner.sampler(rate)

    def check_memory(self) -> None:
        """Raise `MemoryBudgetError` where a replicate, or the reference, does not fit."""
        runner = self.runner
        check_memory(runner.fixed_bytes + runner.bytes_per_replicate(1.0), self._limit)
        for rate in self.config.rates:
            cut_blocks(runner, Block(rate, 0, 1), self.budget, self.n_threads)

    def reference(self, shard: Shard, tick: Tick | None) -> tuple[Curves, Examples]:
        """The curve of all pixels, and pictures of it and of the first replicate."""
        runner = self.runner
        settings = example_settings(runner.config.correction, runner.movie.shape)
        whole = Recorder(runner.movie, runner.config, runner.engine, settings=settings)
        runner.decision = None  # what is told is how the foreground of all pixels was found
        curve = runner.run(1.0, np.array([0]), observer=whole, tick=self._frames(1.0, 1, tick))
        self.decision = runner.decision
        sampled = Recorder(runner.movie, runner.config, runner.engine)
        runner.run(shard.rate, np.array([0]), observer=sampled, tick=self._frames(shard.rate, 1, tick))
        return curve, whole.examples(shard.rate, sampled)

    def replicates(self, shard: Shard, tick: Tick | None) -> Curves:
        """Its blocks on a pool of threads (NumPy and compiled code release the interpreter lock)."""
        runner, stop = self.runner, Event()
        blocks = cut_blocks(runner, Block(shard.rate, shard.start, shard.stop), self.budget, self.n_threads)

        def work(block: Block) -> Curves:
            frames = self._frames(block.rate, block.stop - block.start, tick, stop)
            return runner.run(block.rate, block.replicates, tick=frames)

        with ThreadPoolExecutor(self.n_threads, initializer=self.backend.activate) as pool:
            futures = [pool.submit(work, block) for block in blocks]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                # Also on Ctrl-C: let the running blocks end at their next frame instead of keeping the user waiting.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return Curves.join([future.result() for future in futures])

    def _frames(self, rate: float, n: int, tick: Tick | None, stop: Event | None = None) -> Callable[[], None]:
        """To be called once a frame."""
        samples = n * replicate_cost(self.config.methods[0], 1, self.runner.sampler(rate).capacity)

        def done() -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            if tick is not None:
                tick(samples)

        return done


class _Stopped(Exception):
    """Another block failed."""


__all__ = ["CURVES", "EXAMPLE", "Bench", "Job", "Part", "Source", "Workplace", "compute"]
