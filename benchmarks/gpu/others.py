"""The same work by array operations on the GPU and on the CPU, full frames, and how the cost grows with each size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gmrm_gpu.config import ComputeConfig, StudyConfig
from gmrm_gpu.engines import GenericEngine
from gmrm_gpu.engines.compiled import compiled_obstacle
from gmrm_gpu.engines.fused.plan import plan_launches
from gmrm_gpu.frames import Movie, open_movie
from gmrm_gpu.results.throughput import EngineSpec
from gmrm_gpu.runner import Runner
from gmrm_gpu.study import run_study
from gmrm_gpu.throughput import contestant, measure_throughput, processor_name

from .rig import Rig
from .sizes import Sizes, growing_movie
from .study import Row, block_size, blocks_of, fused_runner, run_blocks, settings_with

EAGER_FRAMES = 3
GROWTH = 6.0
"""A measurement is repeated with at most so many times the replicates."""


def _middle(movie: Movie, n_frames: int) -> Movie:
    n = min(n_frames, len(movie))
    first = (len(movie) - n) // 2
    return open_movie(movie, frames=f"{first}:{first + n}")


def measure_eager(rig: Rig, movie: Movie, sizes: Sizes, seconds: float) -> list[Row]:
    """The array-API implementation on the same device: as many replicates in one batch as memory and time allow.

    `study_s` is scaled to all frames and replicates in proportion.
    """
    rows = []
    clip = _middle(movie, EAGER_FRAMES)
    for rate, total in zip(sizes.rates, sizes.replicates, strict=True):
        rig.free()
        runner = Runner(clip, sizes.analysis, rig.backend, GenericEngine(rig.backend, "benchmark"))
        most = int(np.clip(runner.budget // max(runner.bytes_per_replicate(rate), 1), 1, total))
        n, took = _grown(rig, runner, rate, most, seconds / len(sizes.rates))
        scale = total * len(movie) / (n * len(clip))
        row = {"what": "eager", "rate": rate, "replicates": n, "frames": len(clip), "s": took}
        rows.append(row | {"device": rig.backend.name, "study_s_scaled": took * scale, "scaled_by": scale})
        del runner
    return rows


def _grown(rig: Rig, runner: Runner, rate: float, most: int, seconds: float) -> tuple[int, float]:
    """Replicates in one batch, and their seconds, in a measurement that fills the time or is all of them."""
    runner.run(rate, np.arange(1))  # compiles and loads
    n, done = 1, None
    while True:
        try:
            took, _ = rig.timed(lambda n=n: runner.run(rate, np.arange(n)))
        except MemoryError:  # CuPy's OutOfMemoryError is one; what fitted before is the answer then
            if done is None:
                raise
            rig.free()
            return done
        done = (n, took)
        factor = min(GROWTH, 0.6 * seconds / max(took, 1e-9))
        if n == most or took > 0.4 * seconds or factor < 1.5:
            return done
        n = min(most, int(n * factor) + 1)


def measure_cpu(movie: Movie, sizes: Sizes, seconds: float) -> list[Row]:
    """The CPU of the same machine, all cores, on a few frames and replicates; `study_s_scaled` in proportion.

    By compiled functions where Numba is installed; each row says so.
    """
    analysis = replace(sizes.analysis, compute=ComputeConfig(device="cpu"))
    study = StudyConfig(analysis, sizes.rates, sizes.replicates, ("paper",))
    library = "NumPy" if compiled_obstacle() else "Numba"
    spec = EngineSpec("compiled" if library == "Numba" else "cpu", "CPU", processor_name(), library)
    found = measure_throughput(movie, study, seconds=seconds, contestants=[contestant(spec, "cpu", "auto")])
    numbers = dict(zip(sizes.rates, sizes.replicates, strict=True))
    rows = []
    for speed in found.speeds:
        scale = numbers.get(speed.rate, 1) * len(movie) / speed.fits
        row = {"what": "cpu", "rate": speed.rate, "replicates": speed.n_replicates, "frames": speed.n_frames}
        row |= {"s": speed.seconds, "study_s_scaled": scale * speed.seconds, "scaled_by": scale}
        rows.append(row | {"processor": spec.device, "library": library})
    return rows


def measure_full_frames(rig: Rig, sizes: Sizes, left: Callable[[], float]) -> list[Row]:
    """All pixels of frames of growing size: the fits alone, and frames a second from host memory to shares."""
    rows = []
    for side, n_frames in sizes.fulls:
        if left() <= 0:
            rows.append({"what": "full frames", "side": side, "note": "no time was left"})
            continue
        movie = growing_movie(side, n_frames)
        rig.free()
        fused_runner(rig, movie, sizes.analysis)[0].run(1.0, np.array([0]))
        runner, device = fused_runner(rig, movie, sizes.analysis)
        rig.free()
        seconds, _ = rig.timed(lambda runner=runner: runner.run(1.0, np.array([0])))
        stages = device.stages()
        rows.append(
            {
                "what": "full frames",
                "side": side,
                "frames": n_frames,
                "s": seconds,
                "fits_per_s": n_frames / stages["fit"],
                "frames_per_s": n_frames / seconds,
                "stages_s": stages,
                "high_water_bytes": rig.high_water(),
            }
        )
        del runner, device
    return rows


def measure_growth(rig: Rig, movie: Movie, sizes: Sizes, left: Callable[[], float]) -> list[Row]:
    """Fit time with one size at a time multiplied, every fit taking the same number of passes; slopes on logarithms."""
    (replicates, rate), n_frames = sizes.base, max(1, len(movie) // sizes.factors[-1])
    fixed: dict[str, Any] = {"starts": ("quantile",), "tol": 1e-30, "max_iter": sizes.passes}
    cases: dict[str, list[tuple[int, int, int, float, int]]] = {
        "B": [(f, replicates * f, n_frames, rate, sizes.n_components) for f in sizes.factors],
        "T": [(f, replicates, n_frames * f, rate, sizes.n_components) for f in sizes.factors],
        "n": [(f, replicates, n_frames, rate * f, sizes.n_components) for f in sizes.factors],
        "K": [(k, replicates, n_frames, rate, k) for k in sizes.components],
    }
    _prepare(rig, movie, sizes, fixed, [case for found in cases.values() for case in found])
    rows = []
    for name, found in cases.items():
        if left() <= 0:
            rows.append({"what": "growth", "of": name, "note": "no time was left"})
            continue
        points = []
        for x, *case in found:
            stages = _fixed_run(rig, movie, sizes, fixed, *case)
            points.append((x, stages["fit"], sum(stages.values()) - stages.get("upload", 0.0)))
        x, fit, kernels = (np.log(column) for column in np.maximum(np.array(points, float), 1e-9).T)
        row = {"what": "growth", "of": name, "points": points, "passes": sizes.passes}
        slopes = {"slope_fit": float(np.polyfit(x, fit, 1)[0]), "slope_kernels": float(np.polyfit(x, kernels, 1)[0])}
        rows.append(row | slopes)
    return rows


def _prepare(rig: Rig, movie: Movie, sizes: Sizes, fixed: dict[str, Any], cases: list[tuple]) -> None:
    """Compile whatever these runs need side by side."""
    kernels = set()
    for _, replicates, n_frames, rate, k in cases:
        config = settings_with(sizes, **fixed, n_components=k)
        runner, _ = fused_runner(rig, open_movie(movie, frames=f"0:{n_frames}"), config)
        kernels |= {launch.kernel for launch in plan_launches(block_size(runner, rate, replicates), config)}
    rig.prepare(kernels)


def _fixed_run(
    rig: Rig, movie: Movie, sizes: Sizes, fixed: dict[str, Any], replicates: int, n_frames: int, rate: float, k: int
) -> dict[str, float]:
    """Stages of a run, the better of two."""
    config = settings_with(sizes, **fixed, n_components=k)
    runner, device = fused_runner(rig, open_movie(movie, frames=f"0:{n_frames}"), config)
    runner.run(rate, np.arange(1))
    found = []
    for _ in range(2):
        device.forget()
        rig.timed(lambda: runner.run(rate, np.arange(replicates)))
        found.append(device.stages())
    return min(found, key=lambda stages: stages["fit"])


def measure_movie_method(rig: Rig, movie: Movie, sizes: Sizes, seconds: float) -> list[Row]:
    """Movies fitted as a whole, at each rate as many replicates as a study of both methods has, or fewer and scaled.

    `kernels` says whether CUDA kernels did it; where none do yet, it is array operations on the same device.
    """
    whole = StudyConfig(sizes.analysis, sizes.rates, sizes.replicates).of_method("movie")
    rows: list[Row] = []
    for rate, total in zip(whole.rates, whole.n_replicates, strict=True):
        rig.free()
        runner, device = fused_runner(rig, movie, whole.analysis)
        first, _ = rig.timed(lambda runner=runner, rate=rate: runner.run(rate, np.arange(1)))
        device.forget()
        again, _ = rig.timed(lambda runner=runner, rate=rate: runner.run(rate, np.arange(1)))
        n = int(np.clip(0.5 * seconds / len(whole.rates) / max(again, 1e-9), 1, total))
        device.forget()
        took, _ = rig.timed(lambda runner=runner, rate=rate, n=n: run_blocks(runner, blocks_of(runner, rate, n)))
        row = {"what": "movie method", "rate": rate, "replicates": n, "frames": len(movie), "first_s": first, "s": took}
        kernels = [ran.name for ran in device.launches]
        row |= {"study_s_scaled": took * total / n, "scaled_by": total / n, "kernels": bool(kernels)}
        rows.append(row | {"launches": len(kernels), "stages_s": device.stages()})
        del runner, device
    return rows


def measure_movie_eager(rig: Rig, movie: Movie, sizes: Sizes) -> list[Row]:
    """One replicate of a movie as a whole by array operations on the same device, at the lowest rate."""
    whole = StudyConfig(sizes.analysis, sizes.rates, sizes.replicates).of_method("movie")
    rate, total = whole.rates[-1], whole.n_replicates[-1]
    rig.free()
    for part in (_middle(movie, 6), movie):  # a few frames first, which compile and load what the rest needs
        runner = Runner(part, whole.analysis, rig.backend, GenericEngine(rig.backend, "benchmark"))
        took, _ = rig.timed(lambda runner=runner: runner.run(rate, np.array([0])))
    row = {"what": "movie method, eager", "rate": rate, "replicates": 1, "frames": len(movie), "s": took}
    return [row | {"device": rig.backend.name, "study_s_scaled": took * total, "scaled_by": total}]


def measure_user_study(rig: Rig, movie: Movie, sizes: Sizes) -> list[Row]:
    """`run_study` as the command runs it: both methods, the survey, the curves of all pixels, and pictures."""
    if rig.user_device is None:
        return []
    rig.free()
    analysis = replace(sizes.analysis, compute=ComputeConfig(device=rig.user_device))
    study = StudyConfig(analysis, sizes.rates, sizes.replicates)
    seconds, result = rig.timed(lambda: run_study(movie, study))
    by_method = {part.method: part.provenance["wall_s"] for part in result.every}
    engines = {part.method: part.provenance["engine"] for part in result.every}
    row = {"what": "run_study", "s": seconds, "by_method_s": by_method, "engines": engines}
    return [row | {"replicates": sum(sizes.replicates), "frames": len(movie)}]


class Deadline:
    """Seconds that are left of a budget."""

    def __init__(self, seconds: float) -> None:
        self._end, self.seconds = time.perf_counter() + seconds, seconds

    def left(self) -> float:
        """Below 0 when it is over."""
        return self._end - time.perf_counter()

    def share(self, part: float) -> float:
        """So much of the whole, but no more than what is left."""
        return max(0.0, min(part * self.seconds, self.left()))
