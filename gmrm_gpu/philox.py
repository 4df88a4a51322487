"""Counter-based random numbers and a keyed permutation, the same bits on every backend.

Philox4x32-10 is from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A draw is a pure
function of its counter and key: nothing is stored, nothing depends on the order or size of batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Array, Backend, host_namespace

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
N_FEISTEL_ROUNDS = 8

# The fourth counter word tells apart what a number is used for, so that no two uses share bits.
STREAM_SAMPLE = 0x5A000000
STREAM_LAYOUT = 0x5B000000
STREAM_START = 0x5C000000
STREAM_BOOTSTRAP = 0x5E000000


def philox4x32(counter: tuple[Array, ...], key: tuple[Array, Array], *, xp: Any = host_namespace) -> tuple[Array, ...]:
    """Philox4x32-10: four uint32 arrays from four counter words and two key words (uint32, broadcastable)."""
    c0, c1, c2, c3 = (xp.astype(c, xp.uint64) for c in counter)
    k0, k1 = (xp.astype(k, xp.uint64) for k in key)
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return tuple(xp.astype(c, xp.uint32) for c in (c0, c1, c2, c3))


def stream_words(seed: int, rate: float, replicates: np.ndarray, frame: int, stream: int, n_words: int) -> np.ndarray:
    """(R, n_words) uint32 on the host, a pure function of seed, rate, replicate, frame and stream."""
    replicates = np.asarray(replicates, dtype=np.uint32)
    key = (_word(seed & _MASK), _word(seed >> 32))
    rate_word = _word(min(round(rate * 2**32), _MASK))
    blocks = []
    for block in range(-(-n_words // 4)):
        counter = (_word(frame), replicates, rate_word, _word(stream + block))
        blocks += list(philox4x32(np.broadcast_arrays(*counter), key))
    return np.stack(blocks[:n_words], axis=-1)


def _word(value: int) -> np.ndarray:
    return np.array([value], dtype=np.uint32)


def uniform(words: np.ndarray) -> np.ndarray:
    """uint32 words as float64 in the open interval (0, 1)."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def permute(index: Array, n: int, keys: Array, *, backend: Backend) -> Array:
    """Positions of `index` under keyed pseudo-random permutations of 0..n-1.

    An alternating Feistel network on ceil(log2 n) bits whose round function is two multiplications by Philox's
    constants, walked along its cycle until the value falls below n (Black & Rogaway 2002), so every n works.

    Parameters
    ----------
    index : (m,) uint32, values below n. keys : (R, 8) uint32, one key a round and permutation.

    Returns
    -------
    (R, m) int32.
    """
    xp = backend.xp
    # Below six bits the network is visibly uneven; walking the cycle of a larger one costs little there.
    bits = max(6, (n - 1).bit_length())
    out = _feistel(index[None, :], bits, [keys[:, i : i + 1] for i in range(N_FEISTEL_ROUNDS)])
    if n == 1 << bits:
        return xp.astype(out, xp.int32)
    shape = out.shape
    rows = xp.reshape(xp.broadcast_to(backend.arange(shape[0])[:, None], shape), (-1,))
    flat = xp.reshape(out, (-1,))
    outside = xp.nonzero(flat >= n)[0]
    while outside.shape[0]:
        row = xp.take(rows, outside)
        walked = _feistel(xp.take(flat, outside), bits, [xp.take(keys[:, i], row) for i in range(N_FEISTEL_ROUNDS)])
        flat = backend.put(flat, outside, walked)
        outside = xp.take(outside, xp.nonzero(walked >= n)[0])
    return xp.astype(xp.reshape(flat, shape), xp.int32)


def _feistel(value: Array, bits: int, keys: list[Array]) -> Array:
    low_bits = bits // 2
    high_bits = bits - low_bits
    high, low = value >> low_bits, value & ((1 << low_bits) - 1)
    for i in range(0, N_FEISTEL_ROUNDS, 2):
        high = high ^ _mix(low, keys[i], high_bits)
        low = low ^ _mix(high, keys[i + 1], low_bits)
    return (high << low_bits) | low


def _mix(value: Array, key: Array, bits: int) -> Array:
    """The top `bits` of a keyed 32-bit hash; uint32 multiplication wraps in every array library."""
    mixed = (value ^ key) * _M0
    mixed ^= mixed >> 15
    mixed *= _M1
    return mixed >> (32 - bits)
