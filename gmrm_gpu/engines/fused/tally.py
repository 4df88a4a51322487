"""The share of the foreground and its variance, from whole-number sums over the final labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ...backend import Array
from ...sampling import Sampler
from ..source import KernelSource
from .cut import THREADS, cut_samples
from .launch import Device, Launch

N_SUMS = 5
_DESIGNS = {"stratified": 1, "lines": 2}


def tally_source(scheme: str) -> KernelSource:
    """The kernel's instance for a sampling scheme."""
    return KernelSource("tally", "tally.cu", (("DESIGN", _DESIGNS.get(scheme, 0)),))


def plan_tally(n_fits: int, sampler: Sampler) -> Launch:
    """The launch that sums `n_fits` frames."""
    cut = cut_samples(sampler.capacity // sampler.cluster_length)
    return Launch(tally_source(sampler.config.scheme), n_fits * cut.chunks, THREADS)


def run_tally(labels: Array, sampler: Sampler, foreground: int, *, device: Device) -> Array:
    """(R, T, N_SUMS) uint64 sums of the labels (R, T, m), see tally.cu; `foreground` is the foreground's label."""
    replicates, frames, m = labels.shape
    sums = device.zeros((replicates, frames, N_SUMS), np.uint64)
    size = sampler.cluster_length
    cut = cut_samples(m // size)
    sizes = (np.int32(n) for n in (m, size, cut.length, cut.chunks, foreground))
    plan_tally(replicates * frames, sampler).run(device, (labels, sums, *sizes))
    return sums


def share_and_variance(sums: np.ndarray, sampler: Sampler) -> tuple[np.ndarray, np.ndarray]:
    """Share of the foreground and its variance by the design, (R, T) each, as `estimate.sample_mean` has them.

    Parameters
    ----------
    sums : (R, T, N_SUMS) of `run_tally`, on the host. NaN where nothing was visited.
    """
    n, with_, *rest = (sums[..., i].astype(np.float64) for i in range(N_SUMS))
    seen = np.maximum(n, 1)
    mean = np.where(n > 0, with_ / seen, np.nan)
    unseen = np.where(n > 0, np.maximum(0.0, 1 - n / sampler.n_pixels), np.nan)
    scheme, m = sampler.config.scheme, sampler.capacity
    if scheme == "lines":
        # Sum over segments of (s - share n)^2 = (a - share b) / n, where a and b are whole numbers.
        share, n_segments = with_ / seen, m // sampler.cluster_length
        a, b = (n * first - with_ * second for first, second in pairwise(rest))
        squares = np.maximum(a - share * b, 0.0) / seen
        spread = squares / seen**2 * n_segments / max(n_segments - 1, 1)
    elif scheme == "stratified" and m > 1:
        spread = 0.5 * rest[1] / np.maximum(rest[0], 1) / seen
    else:
        spread = with_ * (n - with_) / seen / np.maximum(n - 1, 1) / seen
    return mean, unseen * spread
