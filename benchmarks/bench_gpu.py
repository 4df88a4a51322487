"""Each stage of a block of replicates, by array operations on one core and by the kernels on a GPU.

Groups are stages, so that CPU and GPU are printed one below the other; `samples_per_s` compares them, for the
GPU gets more replicates.
"""

from __future__ import annotations

import numpy as np
import pytest
from gpu.rig import Rig, open_gpu
from gpu.sizes import FULL, TOY, growing_movie
from gpu.stages import STAGES, ArrayStages, Job, KernelStages

from gmrm_gpu.backend import make_backend
from gmrm_gpu.errors import GmrmError


@pytest.fixture(scope="module")
def rig() -> Rig:
    """The GPU."""
    try:
        return open_gpu()
    except GmrmError as error:
        pytest.skip(f"no usable GPU: {error}")


@pytest.fixture(scope="module")
def on_cpu(toy: bool) -> ArrayStages:
    """Two replicates at 10 % of a dozen frames."""
    return ArrayStages(make_backend(np), job(toy, 2))


@pytest.fixture(scope="module")
def on_gpu(rig: Rig, toy: bool) -> KernelStages:
    """A hundred replicates at 10 % of the same frames."""
    return KernelStages(rig, job(toy, 3 if toy else 100))


def job(toy: bool, n: int) -> Job:
    """Of a synthetic movie with the settings of the suite."""
    sizes, side, n_frames = (TOY, 40, 3) if toy else (FULL, 512, 12)
    return Job.make(growing_movie(side, n_frames), sizes.analysis, sizes.rates[0], n)


def run(benchmark, stages: ArrayStages | KernelStages, name: str, rounds: int) -> None:
    """Time one stage."""
    benchmark.group = name
    work, setup = stages.stage(name)
    benchmark.pedantic(work, setup=setup, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["samples"] = stages.job.n_samples
    if benchmark.stats:
        benchmark.extra_info["samples_per_s"] = stages.job.n_samples / benchmark.stats["median"]


@pytest.mark.parametrize("stage", STAGES)
def test_cpu(benchmark, on_cpu, toy, stage):
    """NumPy, one core."""
    run(benchmark, on_cpu, stage, 1 if toy else 3)


@pytest.mark.gpu
@pytest.mark.parametrize("stage", STAGES)
def test_gpu(benchmark, on_gpu, toy, stage):
    """CUDA kernels, until the device is done."""
    run(benchmark, on_gpu, stage, 1 if toy else 20)
