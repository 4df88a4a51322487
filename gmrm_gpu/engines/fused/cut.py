"""How the samples of a fit are dealt to blocks of threads; a function of their number alone."""

from __future__ import annotations

from dataclasses import dataclass

THREADS = 256
"""Threads of a block, N_THREADS of the kernels."""
MOST_A_BLOCK = 4096
"""Samples of a block: enough to amortise its start, few enough that one fit of a large frame fills the device."""
WARP = 32


@dataclass(frozen=True)
class Cut:
    """`chunks` blocks a fit, each of `length` samples, a multiple of a warp; the last may have fewer."""

    chunks: int
    length: int


def cut_samples(m: int) -> Cut:
    """Even parts of `m` samples."""
    parts = -(-m // MOST_A_BLOCK)
    length = -(-m // (parts * WARP)) * WARP
    return Cut(-(-m // length), length)
