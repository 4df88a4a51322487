"""What the start of a movie is fitted to, and whether every sample is a finite number (`kernels/movie_pool.cu`)."""

from __future__ import annotations

import numpy as np

from .device import Call
from .jit import compiled, float_of_bits


@compiled
def take_even(words, stride, taken):
    """An even subset of words (T, m), another in each frame: `mixture.rows.FrameRows.even`; taken : (T, n)."""
    n_frames, n = taken.shape
    m = words.shape[1]
    for t in range(n_frames):
        for i in range(n):
            taken[t, i] = words[t, (t * n + i) % m * stride % m]


@compiled
def is_broken(words):
    """Whether a sample of words (n,) uint64 is infinite or not a number."""
    no_sample = ~words.dtype.type(0)
    for i in range(words.size):
        if words[i] != no_sample and not np.isfinite(float_of_bits(np.int32(words[i] >> 32))):
            return True
    return False


def movie_pool(
    call: Call,
    words: np.ndarray,
    n_replicates: int,
    n_frames: int,
    m: int,
    n: int,
    stride: int,
    pooled: np.ndarray | None,
    broken: np.ndarray,
) -> None:
    """Arguments as of the CUDA kernel."""

    def work(r: int) -> None:
        if pooled is not None:
            take_even(words[r], int(stride), pooled[r].reshape(int(n_frames), int(n)))
        if words.dtype == np.uint64:
            broken[r] = is_broken(words[r].reshape(-1))

    call.pool.run(work, int(n_replicates))
