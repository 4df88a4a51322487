"""Packed samples as the fits read them (`kernels/samples.cuh`): float32 values and scaled coordinates, gaps closed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .jit import compiled, exactly, float_of_bits

ALIGNMENT = 64
"""Bytes that a row of numbers begins at a multiple of, so that no vector lies on two cache lines."""


class Units(NamedTuple):
    """From grey levels to the standardised scale, float32: z = ((value - whole) - part) * inverse.

    The centre is whole + part, whole an integer, so that value - whole is exact for grey levels.
    """

    whole: Any
    part: Any
    inverse: Any


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An array of zeros that begins at a multiple of `ALIGNMENT`."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + n_bytes].view(dtype).reshape(shape)


@compiled
def unpack(words, height, width, values, x, y):
    """The samples among `words`, in their order.

    Parameters
    ----------
    words : (n,) uint32 or uint64, see samples.cuh. height, width : of the frame.
    values, x, y : (n,) float32, filled from their beginning: grey levels, coordinates from -1 to 1.

    Returns
    -------
    int
        How many samples there are.
    """
    wide = words.itemsize == 8
    bits, side = (16, 0xFFFF) if wide else (12, 0xFFF)
    no_sample = ~words.dtype.type(0)
    step_x, step_y = np.float32(2.0 / max(width - 1, 1)), np.float32(2.0 / max(height - 1, 1))
    first_x, first_y = np.float32(-1.0 if width > 1 else 0.0), np.float32(-1.0 if height > 1 else 0.0)
    n = 0
    for i in range(words.size):
        word = words[i]
        values[n] = float_of_bits(np.int32(word >> 32)) if wide else np.float32(word >> 24)
        x[n] = np.float32(np.int32(word & side)) * step_x + first_x
        y[n] = np.float32(np.int32((word >> bits) & side)) * step_y + first_y
        n += word != no_sample
    return n


@compiled
def total_of(values):
    """Sum of float32 values, float64."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i])
    return total


@compiled
def squares_of(values, centre):
    """Sum of (value - centre)^2, float64."""
    total = 0.0
    for i in range(values.size):
        deviation = np.float64(values[i]) - centre
        total += deviation * deviation
    return total


@compiled
def differ(values, reference):
    """Whether any value differs from `reference`."""
    for i in range(values.size):
        if values[i] != reference:
            return True
    return False


@exactly
def make_units(centre, scale):
    """`Units` of a centre and a scale, float64."""
    whole = np.rint(centre)
    return Units(np.float32(whole), np.float32(centre - whole), np.float32(1.0 / scale))


@exactly
def standardise(values, units):
    """Grey levels to the standardised scale, in place. In another order the differences would round."""
    for i in range(values.size):
        values[i] = ((values[i] - units.whole) - units.part) * units.inverse
