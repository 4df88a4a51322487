"""The draw: nanoseconds a sample, positions and values, in compiled functions and by array operations."""

from __future__ import annotations

import time

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
    benchmark.pedantic(run_draw, (drawn, movie, 0, device), rounds=1 if toy else 30, warmup_rounds=1)
    seconds = []
    for _ in range(1 if toy else 5):
        start = time.perf_counter()
        for t, frame in enumerate(movie):
            found = sampler.draw(replicates, t, backend=backend)
            values = frame.reshape(-1)[found.positions]
        seconds.append(time.perf_counter() - start)
    used = np.ones(values.shape, bool) if found.valid is None else found.valid
    np.testing.assert_array_equal((drawn.samples[:, -1] >> 24)[used], values[used])
    n = 2 * n_replicates * sampler.capacity
    benchmark.extra_info["generic_ns_a_sample"] = 1e9 * min(seconds) / n
    if benchmark.stats:
        benchmark.extra_info["compiled_ns_a_sample"] = 1e9 * benchmark.stats["min"] / n
        benchmark.extra_info["times_faster"] = min(seconds) / benchmark.stats["min"]
