"""Packed samples (``kernels/samples.cuh``) as uint32: one a sample, or two, the position first."""

from __future__ import annotations

import numpy as np

from .jit import inlined

NO_SAMPLE = np.uint32(0xFFFFFFFF)
"""Of a place without a sample: its only uint32, or the first, since no side has 65,536 pixels."""


def as_words(samples: np.ndarray) -> np.ndarray:
    """Samples (R, T, m) as (R T, m) or (R T, 2 m) uint32."""
    words = samples.view(np.uint32)
    return words.reshape(-1, words.shape[-1])


@inlined
def column(word, wide):
    """x of a sample."""
    return word & np.uint32(0xFFFF if wide else 0xFFF)


@inlined
def row(word, wide):
    """y of a sample."""
    return word >> np.uint32(16) if wide else (word >> np.uint32(12)) & np.uint32(0xFFF)
