"""Kernels and launches of the tests of the harness itself."""

from __future__ import annotations

import numpy as np

from gmrm_gpu.engines.source import flattened

from .device import HostDevice, RawSource

SCHEDULES = ["order", "reverse", "random:1", "random:2"]
SANITIZERS = ["plain", "asan", "tsan"]
THREADS = 64


def source(body, parameters="const int* x, int* out", name="kernel"):
    return RawSource(
        name, flattened("common.cuh") + f'extern "C" __global__ void {name}({parameters}) {{\n{body}\n}}\n'
    )


def launch(kernel, *args, device=None, blocks=1, threads=THREADS, shared=0, cooperative=False):
    (device or HostDevice()).kernel(kernel, cooperative=cooperative)((blocks,), (threads,), args, shared_mem=shared)


def run(body, sanitize="plain", schedule="order", **sizes):
    """Output of a kernel that gets 0, 1, ... in `x` and may write `out`, 64 integers each."""
    device = HostDevice(sanitize, schedule)
    out = device.empty((THREADS,), np.int32)
    launch(source(body), device.asarray(np.arange(THREADS, dtype=np.int32)), out, device=device, **sizes)
    return device.to_host(out).tolist()


GRID_BARRIER = """
    if (threadIdx.x == 0) out[blockIdx.x] = blockIdx.x + 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        FENCE
        atomicAdd(arrived, 1);
        while (atomicAdd(arrived, 0) < int(gridDim.x)) __nanosleep(100);
        __threadfence();
    }
    __syncthreads();
    int sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += out[b];
    if (threadIdx.x == 1) out[gridDim.x + blockIdx.x] = sum;"""


def grid_barrier(device, fence="__threadfence();", cooperative=True):
    kernel = source(GRID_BARRIER.replace("FENCE", fence), "int* arrived, int* out")
    out = device.empty((6,), np.int32)
    launch(kernel, device.zeros((1,), np.int32), out, device=device, blocks=3, threads=64, cooperative=cooperative)
    return device.to_host(out)[3:].tolist()
