"""How fast this machine is: every engine it has, timed on a few frames of a movie, and what a whole study would take.

>>> import gmrm_gpu as gg
>>> movie = gg.simulate("battery", shape=(48, 48), n_frames=3, seed=1).movie
>>> study = gg.StudyConfig(rates=(0.2,), n_replicates=(4,), methods=("paper",))
>>> found = gg.measure_throughput(movie, study, seconds=0.1)
>>> found.find("cpu", "paper", 0.2).fits_per_s > 0
True
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from . import __version__
from .backend import n_cores, probe_gpu
from .config import AnalysisConfig, StudyConfig
from .errors import DeviceError, GmrmError
from .frames import ArrayMovie, Movie, open_movie
from .results.throughput import ALL_PIXELS, EngineSpec, Speed, StudyPart, Throughput
from .runner import Progress, Runner, memory_budget
from .study.plan import BLOCK_SAMPLES, Block, plan_blocks, threads_within

MOST_FRAMES = 24
"""Frames that are looked at: more would not change the time of each."""
LEAST_FRAMES = {"movie": 4, "paper": 3}
"""Frames a measurement takes at least, for the work to be what is meant: a vote among frames, a fit of all of them."""
PATIENCE = 2.0
"""Times its seconds that a measurement's first look may be expected to take; also the whole, before it is cut short."""
MOST_GROWTH = 8
"""A measurement that was too short is repeated with at most so many times the replicates."""

Maker = Callable[[Movie, AnalysisConfig], Runner]


@dataclass(frozen=True)
class Contestant:
    """An engine, and how an analysis by it is made."""

    spec: EngineSpec
    make: Maker


def measure_throughput(
    movie: Any,
    config: StudyConfig | None = None,
    *,
    n_frames: int | None = None,
    seconds: float = 60.0,
    progress: Progress | None = None,
    contestants: Sequence[Contestant] | None = None,
) -> Throughput:
    """Time every engine of this machine at every rate of a study, and extrapolate to the whole of it.

    A measurement goes from frames in memory to the shares: drawing, fitting, labelling, voting and counting. It uses
    the cores, blocks and memory that the study would use, as many frames and replicates as the time allows, and the
    second call, so that nothing is compiled or loaded in it.

    Parameters
    ----------
    movie : Movie, array (T, height, width) or a path; at most `MOST_FRAMES` of its frames are looked at.
    config : the study; by default 100, 200 and 1,000 replicates at 10, 5 and 1 %, by both methods. Its device is
        ``"cpu"`` for the CPU alone, ``"auto"`` for a GPU too where there is one, ``"gpu"`` where there must be one.
    n_frames : of the study whose time is extrapolated; None: those of the movie.
    seconds : that the measurements should take in all, roughly.
    progress : called with (work done, work in all).
    contestants : what is measured; None: whatever this machine has.

    Returns
    -------
    Throughput. What could not be measured is missing from it, and its notes say why.

    Raises
    ------
    DeviceError
        A GPU was asked for and cannot be used.
    """
    started = time.perf_counter()
    config = config or StudyConfig()
    movie = open_movie(movie)
    clips, read_s = _clips(movie)
    notes: list[str] = []
    if contestants is None:
        contestants, notes = find_contestants(clips["paper"], config.analysis)
    study = study_parts(config)
    report = _Report(len(contestants) * len(study), progress)
    speeds: list[Speed] = []
    deadline = _Deadline(PATIENCE * seconds)
    for one in contestants:
        for method in config.methods:
            parts = [part for part in study if part.method == method]
            each = seconds / max(len(contestants) * len(study), 1)
            timing = _Timing(one, clips[method], config.analysis.with_method(method), each, deadline)
            speeds += timing.measure(parts, report, notes)
    return Throughput(
        movie=movie.name,
        shape=movie.shape,
        n_frames=n_frames or len(movie),
        dtype=str(movie.dtype),
        n_measured=len(clips["paper"]),
        engines=tuple(one.spec for one in contestants),
        speeds=tuple(speeds),
        study=study,
        notes=tuple(dict.fromkeys(notes)),
        read_s=read_s,
        provenance=_provenance(config, started),
    )


def study_parts(config: StudyConfig) -> tuple[StudyPart, ...]:
    """What a study runs: the replicates, one more of the first rate for its pictures, and once all pixels."""
    parts = []
    for method in config.methods:
        own = config.of_method(method)
        numbers = dict(zip(own.rates, own.n_replicates, strict=True))
        numbers[own.rates[0]] += 1
        numbers[ALL_PIXELS] = numbers.get(ALL_PIXELS, 0) + 1
        parts += [StudyPart(method, rate, n) for rate, n in sorted(numbers.items())]
    return tuple(parts)


def find_contestants(movie: Movie, analysis: AnalysisConfig) -> tuple[list[Contestant], list[str]]:
    """The engines of this machine, and why one is not among them."""
    found, notes = _of_cpu(movie, analysis)
    more, why_not = _of_gpu(movie, analysis)
    return found + more, notes + why_not


def _of_cpu(movie: Movie, analysis: AnalysisConfig) -> tuple[list[Contestant], list[str]]:
    cores = n_cores()
    processor = f"{processor_name()}, {cores} core{'s' * (cores > 1)}"
    arrays = contestant(EngineSpec("cpu", "CPU, array operations", processor, "NumPy"), "cpu", "generic")
    compiled = contestant(EngineSpec("compiled", "CPU, compiled", processor, "Numba"), "cpu", "auto")
    engine = compiled.make(movie, analysis.with_method("paper")).engine
    if engine.name == "compiled":
        return [arrays, compiled], []
    return [arrays], [f"The compiled functions were not measured: {engine.reason}."]


def _of_gpu(movie: Movie, analysis: AnalysisConfig) -> tuple[list[Contestant], list[str]]:
    kind, _, number = analysis.compute.device.partition(":")
    if kind == "cpu":
        return [], ["The CPU alone was asked for, so no GPU was looked for."]
    usable, reason = probe_gpu(int(number or 0))
    if not usable:
        if kind == "gpu":
            raise DeviceError(f"no usable GPU: {reason}")
        return [], [f"No GPU was measured: {reason}."]
    device, gpu = f"gpu:{number or 0}", reason.partition(":")[0]
    arrays = contestant(EngineSpec("arrays", "GPU, array operations", gpu, "CuPy"), device, "generic")
    kernels = contestant(EngineSpec("kernels", "GPU, kernels", gpu, "CUDA"), device, "auto")
    engine = kernels.make(movie, analysis.with_method("paper")).engine
    if engine.name == "fused":
        return [arrays, kernels], []
    return [arrays], [f"The CUDA kernels were not measured: {engine.reason}."]


def contestant(spec: EngineSpec, device: str, engine: str) -> Contestant:
    """An engine of this package on a device, both as in `ComputeConfig`."""

    def make(movie: Movie, analysis: AnalysisConfig) -> Runner:
        return Runner(movie, replace(analysis, compute=replace(analysis.compute, device=device, engine=engine)))

    return Contestant(spec, make)


def processor_name() -> str:
    """As the system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _clips(movie: Movie) -> tuple[dict[str, Movie], float]:
    """The frames to look at, in memory, for each method; and the seconds that reading one took.

    Frames that are fitted together are a run from the middle; others come from everywhere, for some fits take longer.
    """
    n = min(MOST_FRAMES, len(movie))
    first = (len(movie) - n) // 2
    started = time.perf_counter()
    clips = {"movie": _in_memory(movie, np.arange(first, first + n)), "paper": _in_memory(movie, _spread(n, movie))}
    return clips, (time.perf_counter() - started) / (2 * n)


def _spread(n: int, movie: Movie) -> np.ndarray:
    """Positions of n frames from the whole movie."""
    return ((np.arange(n) + 0.5) / n * len(movie)).astype(int)


def _in_memory(movie: Movie, index: np.ndarray) -> Movie:
    view = open_movie(movie, frames=index)
    return ArrayMovie(
        np.stack([view.frame(t) for t in range(len(view))]),
        name=view.name,
        pixel_size_um=view.pixel_size_um,
        frame_time_s=view.frame_time_s,
        frame_numbers=view.frame_numbers,
        valid=view.valid,
    )


class _Report:
    """Counts measurements done and hands them on."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def step(self) -> None:
        """One more."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Deadline:
    """Seconds until nothing more is begun."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    @property
    def is_over(self) -> bool:
        """Whether they have passed."""
        return time.perf_counter() > self._end

    def extend(self, seconds: float) -> None:
        """Time that was no measurement's: compiling kernels for the first time takes longer than any of them."""
        self._end += seconds


class _Timing:
    """The measurements of one engine and method, each of about `seconds`."""

    def __init__(
        self, contestant: Contestant, clip: Movie, analysis: AnalysisConfig, seconds: float, deadline: _Deadline
    ) -> None:
        self.contestant, self.clip, self.analysis = contestant, clip, analysis
        self.seconds, self.deadline = seconds, deadline
        self.least = min(LEAST_FRAMES[analysis.method], len(clip))
        self.runners: dict[int, Runner] = {}
        self.a_pixel = 0.0

    def measure(self, parts: Sequence[StudyPart], report: _Report, notes: list[str]) -> list[Speed]:
        """The cheapest part first: it tells how many frames the next ones may take."""
        found = []
        for part in sorted(parts, key=lambda part: part.rate):
            try:
                speed = self._measure(part)
            except GmrmError as error:
                speed = None
                notes.append(f"{self._name(part)}: not measured, {error}.")
            else:
                if speed is None:
                    notes.append(f"{self._name(part)}: not measured, it would have taken too long.")
            if speed is not None:
                found.append(speed)
            report.step()
        return found

    def _name(self, part: StudyPart) -> str:
        return f"{self.contestant.spec.label}, {part.method} at {100 * part.rate:g} %"

    def _measure(self, part: StudyPart) -> Speed | None:
        runner = self._runner(self.least)
        n_pixels = runner.sampler(part.rate).capacity
        one = self.least * n_pixels * self.a_pixel  # seconds of one replicate, as far as lower rates tell
        if one > PATIENCE * self.seconds or self.deadline.is_over:
            return None
        n = min(self._busy(runner, part), max(1, int(0.5 * self.seconds / max(one, 1e-9))))
        first = again = self._time(runner, part, n)
        if self.compiles or first < 0.5 * self.seconds:
            again = self._time(runner, part, n)  # now without what had to be compiled and loaded
            self.deadline.extend(max(0.0, first - again))
        self.a_pixel = again / (n * self.least * n_pixels)
        if again > 0.5 * self.seconds:
            return self._speed(part, n, self.least, n_pixels, again, first)
        return self._grow(part, n, n_pixels, first)

    @property
    def compiles(self) -> bool:
        """Whether a first call compiles or loads more than Python modules."""
        return self.contestant.spec.key != "cpu"

    def _busy(self, runner: Runner, part: StudyPart) -> int:
        """Replicates that keep every core busy; a quarter of a full batch a core shows what each fit of it costs."""
        n_threads = threads_within(runner, self._study(part), self._budget(runner))
        n_pixels = runner.sampler(part.rate).capacity
        block = 1 if runner.config.method == "movie" else max(1, BLOCK_SAMPLES // n_pixels // 4)
        return runner.n_threads or 1 if runner.at_once else min(part.n_replicates, n_threads * block)

    def _grow(self, part: StudyPart, n: int, n_pixels: int, first: float) -> Speed:
        """More frames, then more replicates, until a measurement takes half of the time or is the whole study's."""
        wanted = 0.5 * self.seconds / (self.a_pixel * n_pixels * n)
        n_frames = int(np.clip(wanted, self.least, len(self.clip)))
        runner = self._runner(n_frames)
        if self.compiles:
            self._time(runner, part, n)  # a new runner loads its kernels, and the movie, once
        while True:
            took = self._time(runner, part, n)
            self.a_pixel = took / (n * n_frames * n_pixels)
            factor = min(MOST_GROWTH, 0.75 * self.seconds / took)
            if n == part.n_replicates or took > 0.5 * self.seconds or factor < 1.5:
                return self._speed(part, n, n_frames, n_pixels, took, first)
            n = min(part.n_replicates, round(n * factor))

    def _runner(self, n_frames: int) -> Runner:
        if n_frames not in self.runners:
            whole = self.analysis.method == "movie"
            index = np.arange(n_frames) if whole else _spread(n_frames, self.clip)
            frames = open_movie(self.clip, frames=index)
            self.runners[n_frames] = self.contestant.make(frames, self.analysis)
        return self.runners[n_frames]

    def _study(self, part: StudyPart) -> StudyConfig:
        return StudyConfig(self.analysis, (part.rate,), (part.n_replicates,), (part.method,))

    @staticmethod
    def _budget(runner: Runner) -> int:
        return memory_budget(runner.config, runner.backend) * 3 // 4

    def _time(self, runner: Runner, part: StudyPart, n: int) -> float:
        """Seconds for n replicates, on the threads that a study has and in blocks no larger than its own."""
        study, budget = self._study(replace(part, n_replicates=n)), self._budget(runner)
        n_threads = threads_within(runner, study, budget)
        blocks = plan_blocks(runner, study, budget, n_threads)
        if len(blocks) < min(n_threads, n):
            edges = np.linspace(0, n, min(n_threads, n) + 1).round().astype(int)
            blocks = [Block(part.rate, int(a), int(b)) for a, b in pairwise(edges)]

        def work(block: Block) -> None:
            runner.run(block.rate, block.replicates)

        with ThreadPoolExecutor(n_threads, initializer=runner.backend.activate) as pool:
            started = time.perf_counter()
            for _ in pool.map(work, blocks):
                pass
            return max(time.perf_counter() - started, 1e-9)

    def _speed(self, part: StudyPart, n: int, n_frames: int, n_pixels: int, took: float, first: float) -> Speed:
        return Speed(self.contestant.spec.key, part.method, part.rate, n, n_frames, n_pixels, took, first)


def _provenance(config: StudyConfig, started: float) -> dict[str, Any]:
    mixture = config.analysis.mixture
    return {
        "gmrm_gpu": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "n_components": mixture.n_components,
        "trend": mixture.trend,
        "dtype": config.analysis.compute.dtype,
        "wall_s": round(time.perf_counter() - started, 3),
    }


__all__ = [
    "Contestant",
    "EngineSpec",
    "contestant",
    "find_contestants",
    "measure_throughput",
    "processor_name",
    "study_parts",
]
