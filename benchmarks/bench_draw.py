"""The draw: nanoseconds a sample, positions and values, in compiled functions and by array operations."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from common import paper_like_frame

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import SCHEMES, SamplingConfig
from gmrm_gpu.engines.fused.draw import DrawJob, prepare_draw, run_draw
from gmrm_gpu.sampling import Sampler


@pytest.mark.parametrize("shape", [(512, 512), (400, 500)], ids=["512x512", "400x500"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_draw(benchmark, toy, scheme, shape):
    """Sixteen replicates of two frames at 10 %; the permutation walks where the pixels are no power of two."""
    pytest.importorskip("numba")
    from gmrm_gpu.engines.compiled.device import CompiledDevice

    n_replicates = 2 if toy else 16
    movie = np.stack([paper_like_frame(512, seed)[: shape[0], : shape[1]] for seed in range(2)])
    sampler = Sampler(shape, SamplingConfig(rate=0.1, scheme=scheme))
    replicates, device, backend = np.arange(n_replicates, dtype=np.uint32), CompiledDevice(1), make_backend(np)
    job = DrawJob(sampler, replicates, np.arange(2, dtype=np.uint32), movie.dtype)
    drawn = prepare_draw(job, device)

    def by_arrays() -> np.ndarray:
        for t, frame in enumerate(movie):
            found = sampler.draw(replicates, t, backend=backend)
            values = frame.reshape(-1)[found.positions]
        return values if found.valid is None else np.where(found.valid, values, 255)

    rounds = 1 if toy else 30
    benchmark.pedantic(run_draw, (drawn, movie, 0, device), rounds=1, warmup_rounds=1)
    np.testing.assert_array_equal(drawn.samples[:, -1] >> 24, by_arrays())
    n = 2 * n_replicates * sampler.capacity
    ours = best_seconds(lambda: run_draw(drawn, movie, 0, device), rounds) / n
    generic = best_seconds(by_arrays, -(-rounds // 6)) / n
    benchmark.extra_info["ns_a_sample"] = {"compiled": 1e9 * ours, "generic": 1e9 * generic}
    benchmark.extra_info["times_faster"] = generic / ours


def best_seconds(function: Callable[[], object], rounds: int) -> float:
    """The least of several times, by this thread's own clock, which other programs do not disturb."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return min(seconds)
