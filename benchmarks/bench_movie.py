"""One movie analysed as a whole, estimators and intervals included, and what a replicate costs in a batch."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from common import all_cores

import gmrm_gpu as gg
from gmrm_gpu.config import AnalysisConfig, ComputeConfig, MixtureConfig
from gmrm_gpu.runner import Runner
from gmrm_gpu.synthetic import Simulation

CONFIG = AnalysisConfig(MixtureConfig(n_components=3))


def movie_of(side: int, n_frames: int) -> Simulation:
    """A battery movie of mid difficulty."""
    return gg.simulate("battery", shape=(side, side), n_frames=n_frames, seed=0, difficulty="mid")


@pytest.mark.parametrize(
    ("side", "n_frames", "rate"), [(256, 60, 0.01), (256, 60, 0.1), (512, 300, 0.01), (512, 300, 0.1)]
)
def test_one_movie(benchmark, toy, side, n_frames, rate):
    """Seconds from frames in memory to curves with intervals; the aims are 3, -, 60 and 480 s."""
    simulation = movie_of(48, 6) if toy else movie_of(side, n_frames)
    rounds = 1 if toy or side > 256 else 5
    result = benchmark.pedantic(
        gg.analyze, (simulation.movie, CONFIG), {"rate": 0.1 if toy else rate}, rounds=rounds, warmup_rounds=1
    )
    error = (result.share - simulation.truth_share) / simulation.truth_share.max()
    benchmark.extra_info["device"] = all_cores()
    benchmark.extra_info["rmse_percent_of_peak"] = float(100 * np.sqrt((error**2).mean()))


@pytest.mark.parametrize(("side", "n_frames", "rate"), [(256, 60, 0.01), (512, 300, 0.01), (512, 300, 0.1)])
def test_compiled_against_arrays(benchmark, toy, side, n_frames, rate):
    """One replicate in compiled functions, from frames in memory to curves, against NumPy; the aim is 5x."""
    pytest.importorskip("numba", reason="Numba is not installed")
    simulation, rate = (movie_of(48, 6), 0.1) if toy else (movie_of(side, n_frames), rate)
    first, rounds = np.array([0]), 1 if toy else 5
    arrays, compiled = (
        Runner(simulation.movie, replace(CONFIG, compute=ComputeConfig(engine=name)))
        for name in ("generic", "compiled")
    )
    seconds = []
    for _ in range(1 if toy or side > 256 else rounds):
        start = time.perf_counter()
        arrays.run(rate, first)
        seconds.append(time.perf_counter() - start)
    benchmark.pedantic(compiled.run, (rate, first), rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["device"] = all_cores()
    benchmark.extra_info["arrays_s"] = min(seconds)
    if benchmark.stats:
        benchmark.extra_info["times_faster"] = min(seconds) / benchmark.stats["min"]


def test_replicates_in_a_batch(benchmark, toy):
    """Eight replicates of a 256 x 256 x 60 movie at 1 %, against eight times one."""
    simulation, n = (movie_of(48, 6), 2) if toy else (movie_of(256, 60), 8)
    rate = 0.1 if toy else 0.01
    runner = Runner(simulation.movie, CONFIG)
    runner.run(rate, np.array([0]))
    start = time.perf_counter()
    for replicate in range(n):
        runner.run(rate, np.array([replicate]))
    alone = time.perf_counter() - start
    benchmark.pedantic(runner.run, (rate, np.arange(n)), rounds=1 if toy else 3)
    benchmark.extra_info["device"] = all_cores()
    benchmark.extra_info["one_by_one_s"] = alone
    if benchmark.stats:
        benchmark.extra_info["times_faster"] = alone / benchmark.stats["median"]
