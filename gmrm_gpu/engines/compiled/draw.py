"""Draws the pixels of every replicate and frame of a slab of a movie and fetches their values (``kernels/draw.cu``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .blocks import run_blocks
from .jit import bits_of_float, compiled, float_of_bits, inlined
from .philox import BLOCK
from .places import DrawPlan, Tables, make_keys, make_places, make_room, n_valid, position

if TYPE_CHECKING:
    from .device import Call

_N_PLAN = len(DrawPlan._fields)
_NO_SAMPLE = np.uint32(0xFFFFFFFF)
_SIGN, _REST, _SUBNORMAL, _INFINITE = (np.uint32(n) for n in (0x8000, 0x7FFF, 0x400, 0x7C00))
_BIAS, _LARGEST_BIAS, _SMALLEST = np.uint32(112 << 23), np.uint32(224 << 23), np.float32(2.0**-24)


def draw(
    call: Call, plan, movie, table, thresholds, replicates, frames, samples, n_samples, first, length, chunks
) -> None:
    """See ``draw.cu``: blocks of `length` places, `chunks` a frame, the replicates of a frame after each other."""
    own = DrawPlan(*(int(number) for number in plan[:_N_PLAN]))
    given = () if table is None else table.reshape(-1)
    tables = Tables(
        plan[_N_PLAN:],
        np.zeros(0, np.uint64) if thresholds is None else thresholds,
        *(np.ascontiguousarray(given if getattr(table, "dtype", None) == t else (), t) for t in (np.int32, np.uint8)),
    )
    scheme, half, wide = (int(call.constants[name]) for name in ("SCHEME", "HALF", "WIDE"))
    words = samples.view(np.uint32).reshape(-1, own.m * (1 + wide))
    pixels = movie.reshape(movie.shape[0], -1)
    found = np.zeros((movie.shape[0], own.n_replicates, chunks), np.int32)
    sizes, numbers, at = (int(first), int(length), int(chunks)), found.reshape(-1), (scheme, half == 1, wide == 1)

    def work(start: int, stop: int) -> None:
        _draw_blocks(start, stop, at, own, tables, pixels, replicates, frames, words, sizes, numbers)

    run_blocks(call.pool, work, found.size, min(own.m, int(length)))
    n_samples[:, first : first + len(movie)] += found.sum(axis=2, dtype=np.int32).T


@compiled
def _draw_blocks(start, stop, kind, plan, tables, movie, replicates, frames, words, sizes, found):
    (scheme, half, wide), (first, length, chunks) = kind, sizes
    room, values = make_room(), np.empty(BLOCK, np.float32)
    for block in range(start, stop):
        r, in_slab = block // chunks % plan.n_replicates, block // chunks // plan.n_replicates
        begin, fit = block % chunks * length, r * plan.n_frames + first + in_slab
        make_keys(room, tables, replicates[r], frames[first + in_slab])
        count = n_valid(scheme, plan, tables, room)
        for at in range(begin, min(begin + length, plan.m), BLOCK):
            n = min(BLOCK, min(begin + length, plan.m) - at)
            make_places(scheme, plan, tables, room, at, n, count)
            if half:
                _fetch_halves(movie, in_slab, plan.width, room, n, values)
            else:
                _fetch(movie, in_slab, plan.width, room, n, values)
            if wide:
                found[block] += _pack_wide(room, values, n, words, fit, 2 * at)
            else:
                found[block] += _pack(room, values, n, words, fit, at)


@compiled
def _fetch(movie, t, width, room, n, values):
    x, y, side = room.x, room.y, np.uint32(width)
    for i in range(n):
        values[i] = np.float32(movie[t, position(y[i], side, x[i])])


@compiled
def _fetch_halves(movie, t, width, room, n, values):
    """As `_fetch`, of pixels that are the bits of float16."""
    x, y, side = room.x, room.y, np.uint32(width)
    for i in range(n):
        values[i] = _of_half(np.uint32(movie[t, position(y[i], side, x[i])]))


@inlined
def _of_half(bits):
    """The float32 that a float16 is; infinity and NaN keep the largest exponent."""
    rest = np.uint32(bits & _REST)
    tiny = np.float32(rest) * _SMALLEST
    bias = _BIAS if rest < _INFINITE else _LARGEST_BIAS
    usual = float_of_bits(np.int32(np.uint32((rest << np.uint32(13)) + bias)))
    size = tiny if rest < _SUBNORMAL else usual
    return -size if bits & _SIGN else size


@compiled
def _pack(room, values, n, words, fit, at):
    """Samples of 4 bytes, see ``samples.cuh``; returns how many there are."""
    x, y, valid, found, out = room.x, room.y, room.valid, 0, words[fit, at : at + n]
    for i in range(n):
        word = np.uint32(np.int32(values[i])) << np.uint32(24) | y[i] << np.uint32(12) | x[i]
        out[i] = word if valid[i] else _NO_SAMPLE
        found += valid[i]
    return found


@compiled
def _pack_wide(room, values, n, words, fit, at):
    """Samples of 8 bytes, the position first."""
    x, y, valid, found, out = room.x, room.y, room.valid, 0, words[fit, at : at + 2 * n]
    for i in range(n):
        out[np.uint32(2 * i)] = y[i] << np.uint32(16) | x[i] if valid[i] else _NO_SAMPLE
        out[np.uint32(2 * i + 1)] = np.uint32(bits_of_float(values[i])) if valid[i] else _NO_SAMPLE
        found += valid[i]
    return found
