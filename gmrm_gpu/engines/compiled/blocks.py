"""Blocks of samples dealt to threads."""

from __future__ import annotations

from collections.abc import Callable

from .pool import Pool

_SAMPLES = 1 << 17
"""Of a task: some tenths of a millisecond, so that what a call costs does not matter."""


def run_blocks(pool: Pool, work: Callable[[int, int], None], n: int, samples: int) -> None:
    """Call ``work(start, stop)`` for parts of 0..n-1, blocks of `samples` samples each, on all threads."""
    size = max(1, min(_SAMPLES // max(samples, 1), -(-n // pool.workers)))
    pool.run(lambda i: work(i * size, min((i + 1) * size, n)), -(-n // size))
