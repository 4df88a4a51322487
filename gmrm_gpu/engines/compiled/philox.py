"""Counter-based random numbers and the keyed permutation, the same bits as `gmrm_gpu.philox`."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from ...philox import N_FEISTEL_ROUNDS, STREAM_LAYOUT, STREAM_SAMPLE, STREAM_START
from .jit import compiled, inlined

BLOCK = 512
"""Numbers that are made together: few enough for the first-level cache, enough to hide what a block costs."""
LAYOUT, SAMPLE, START = np.uint32(STREAM_LAYOUT), np.uint32(STREAM_SAMPLE), np.uint32(STREAM_START)
_M0, _M1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HALF_WORD, _WORD = np.uint32(15), np.uint64(32)


@inlined
def high_product(a, b):
    """The upper 32 bits of the product of two uint32."""
    return np.uint32((np.uint64(a) * np.uint64(b)) >> _WORD)


@intrinsic
def shifted(typing, value, by):
    """A uint32 >> by < 32, by not known beforehand; Numba would take 64 bits for it, at half the speed."""
    return types.uint32(types.uint32, types.uint32), lambda _, builder, __, args: builder.lshr(*args)


@inlined
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10: four uint32 from four counter words and two key words, all uint32."""
    for _ in range(10):
        high0, high1 = high_product(c0, _M0), high_product(c2, _M1)
        low0, low1 = np.uint32(c0 * _M0), np.uint32(c2 * _M1)
        c0, c1, c2, c3 = np.uint32(high1 ^ c1 ^ k0), low1, np.uint32(high0 ^ c3 ^ k1), low0
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return c0, c1, c2, c3


@compiled
def stream_words(seed, replicate, frame, stream, out):
    """Fill `out` (uint32, a multiple of four) as `gmrm_gpu.philox.stream_words`.

    seed : (3,) uint32, the two halves of the seed and the rate's word.
    """
    for block in range(len(out) // 4):
        number = np.uint32(stream + np.uint32(block))
        words = philox4x32(np.uint32(frame), np.uint32(replicate), seed[2], number, seed[0], seed[1])
        out[4 * block], out[4 * block + 1], out[4 * block + 2], out[4 * block + 3] = words


@inlined
def _mix(value, key, shift):
    """A keyed hash of 32 bits, less its lowest `shift`."""
    mixed = np.uint32((value ^ key) * _M0)
    mixed = np.uint32(mixed ^ (mixed >> _HALF_WORD))
    return shifted(np.uint32(mixed * _M1), shift)


@compiled
def _feistel(values, n, bits, keys):
    """The first `n` of `values` through the network, in place."""
    low_bits, mask = np.uint32(bits // 2), np.uint32((1 << bits // 2) - 1)
    to_low, to_high = np.uint32(32 - bits // 2), np.uint32(32 - (bits - bits // 2))
    k0, k1, k2, k3, k4, k5, k6, k7 = keys[0], keys[1], keys[2], keys[3], keys[4], keys[5], keys[6], keys[7]
    for i in range(n):
        high, low = shifted(values[i], low_bits), np.uint32(values[i] & mask)
        high ^= _mix(low, k0, to_high)
        low ^= _mix(high, k1, to_low)
        high ^= _mix(low, k2, to_high)
        low ^= _mix(high, k3, to_low)
        high ^= _mix(low, k4, to_high)
        low ^= _mix(high, k5, to_low)
        high ^= _mix(low, k6, to_high)
        low ^= _mix(high, k7, to_low)
        values[i] = np.uint32(high << low_bits) | low


@compiled
def permute(values, n, size, bits, keys, walking, place):
    """Put the places of the first `n` of `values` under the keyed permutation of 0..size-1 in their stead.

    What falls outside is gathered and goes through the network again, so that every walk is taken in step with others.

    Parameters
    ----------
    values : (BLOCK,) uint32. bits : of the network. keys : (N_FEISTEL_ROUNDS,) uint32.
    walking : (BLOCK,) uint32 and place : (BLOCK,) int32, room.
    """
    _feistel(values, n, bits, keys)
    if size == 1 << bits:
        return
    left = 0
    for i in range(n):
        walking[left], place[left] = values[i], i
        left += values[i] >= size
    while left > 0:
        _feistel(walking, left, bits, keys)
        outside = 0
        for i in range(left):
            value, where = walking[i], place[i]
            values[where] = value
            walking[outside], place[outside] = value, where
            outside += value >= size
        left = outside


__all__ = [
    "BLOCK",
    "LAYOUT",
    "N_FEISTEL_ROUNDS",
    "SAMPLE",
    "START",
    "high_product",
    "permute",
    "philox4x32",
    "stream_words",
]
