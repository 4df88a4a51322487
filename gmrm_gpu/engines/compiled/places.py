"""Which pixel sample j of a replicate and frame is: the positions and validity of `gmrm_gpu.sampling`, bit for bit.

Port of ``kernels/places.cuh``; places are made in blocks, so that the permutation is taken many at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import compiled, inlined
from .philox import BLOCK, LAYOUT, N_FEISTEL_ROUNDS, SAMPLE, high_product, permute, philox4x32, stream_words

FULL, FIXED, BERNOULLI, STRATIFIED, LINES = range(5)
_ZERO, _ONE, _LARGEST = np.uint32(0), np.uint32(1), np.uint32(0xFFFFFFFF)


class DrawPlan(NamedTuple):
    """A draw as the host lays it out (``fused/draw.py``); see ``places.cuh``."""

    height: int
    width: int
    m: int
    n_replicates: int
    n_frames: int
    n: int
    bits: int
    rows: int
    columns: int
    first_count: int
    n_thresholds: int


class Tables(NamedTuple):
    """What does not fit a few numbers, each empty where it is not needed.

    seed : (3,) uint32. thresholds : uint64, of the count. positions : int32 positions of the allowed pixels.
    allowed : uint8, whether a pixel is.
    """

    seed: np.ndarray
    thresholds: np.ndarray
    positions: np.ndarray
    allowed: np.ndarray


class Room(NamedTuple):
    """Where a block of places is made: coordinates and validity, and what the permutation needs; (BLOCK,) each."""

    x: np.ndarray
    y: np.ndarray
    valid: np.ndarray
    walking: np.ndarray
    where: np.ndarray
    keys: np.ndarray
    layout: np.ndarray


@compiled
def make_room():
    """Memory of one thread."""
    x, y, walking = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    valid, where = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.int32)
    return Room(x, y, valid, walking, where, np.empty(N_FEISTEL_ROUNDS, np.uint32), np.empty(4, np.uint32))


@compiled
def make_keys(room, tables, replicate, frame):
    """Keys of a replicate and frame (their numbers, uint32)."""
    stream_words(tables.seed, replicate, frame, SAMPLE, room.keys)
    stream_words(tables.seed, replicate, frame, LAYOUT, room.layout)


@compiled
def n_valid(scheme, plan, tables, room):
    """Places that count, those that may be excluded included: with ``bernoulli`` a random number, else all."""
    if scheme != BERNOULLI:
        return plan.m
    return plan.first_count + np.searchsorted(tables.thresholds, np.uint64(room.layout[0]), side="right")


@inlined
def quotient(value, by, inverse):
    """value // by, uint32; inverse = (2^32 - 1) // by makes an estimate that is at most one too small."""
    estimate = high_product(value, inverse)
    return np.uint32(estimate + np.uint32(np.uint32(value - np.uint32(estimate * by)) >= by))


@inlined
def position(y, width, x):
    """The flat index of a pixel, all uint32; unsigned, so that it is not looked at from the end."""
    return np.uint32(np.uint32(y * width) + x)


@compiled
def make_places(scheme, plan, tables, room, start, n, count):
    """Places start .. start + n - 1, n <= BLOCK, into the first n of ``room.x``, ``y`` and ``valid``."""
    if scheme == STRATIFIED:
        _in_grid(plan, room, start, n)
    elif scheme == LINES:
        _in_lines(plan, room, start, n)
    else:
        _in_permutation(scheme, plan, tables.positions, room, start, n, count)
        return
    width = np.uint32(plan.width)
    if len(tables.allowed):
        for i in range(n):
            room.valid[i] &= tables.allowed[position(room.y[i], width, room.x[i])]


@compiled
def _in_permutation(scheme, plan, index, room, start, n, count):
    x, y, valid = room.x, room.y, room.valid
    for i in range(n):
        x[i] = np.uint32(start + i)
        valid[i] = start + i < count
    if scheme != FULL:
        permute(x, n, plan.n, plan.bits, room.keys, room.walking, room.where)
    if len(index):
        for i in range(n):
            x[i] = np.uint32(index[x[i]])
    width = np.uint32(plan.width)
    inverse = np.uint32(_LARGEST // width)
    for i in range(n):
        row = quotient(x[i], width, inverse)
        y[i] = row
        x[i] = np.uint32(x[i] - np.uint32(row * width))


@inlined
def _in_block(block, blocks, inverse, size, offset, word):
    """Where `word` falls in block number `block` of `blocks` along a side of `size` pixels shifted by `offset`."""
    begin = np.uint32(np.uint32(block * size) + offset)
    first = quotient(begin, blocks, inverse)
    length = np.uint32(quotient(np.uint32(begin + size), blocks, inverse) - first)
    place = np.uint32(first + high_product(word, length))
    return np.uint32(place - size) if place >= size else place


@compiled
def _in_grid(plan, room, start, n):
    """One pixel at random a block of a grid that is shifted, cyclically, at random."""
    x, y, valid, layout = room.x, room.y, room.valid, room.layout
    height, width = np.uint32(plan.height), np.uint32(plan.width)
    rows, columns = np.uint32(plan.rows), np.uint32(plan.columns)
    a_row, a_column = np.uint32(_LARGEST // rows), np.uint32(_LARGEST // columns)
    shift_y, shift_x = high_product(layout[0], height), high_product(layout[1], width)
    key0, key1 = layout[2], layout[3]
    for i in range(n):
        y[i], x[i], _, _ = philox4x32(np.uint32(start + i), _ZERO, _ZERO, SAMPLE, key0, key1)
    for i in range(n):
        row = quotient(np.uint32(start + i), columns, a_column)
        column = np.uint32(np.uint32(start + i) - np.uint32(row * columns))
        y[i] = _in_block(row, rows, a_row, height, shift_y, y[i])
        x[i] = _in_block(column, columns, a_column, width, shift_x, x[i])
        valid[i] = 1


@compiled
def _in_lines(plan, room, start, n):
    """Steps of the row segments that stand at successive places of a permutation of all segments."""
    length, columns, width = plan.rows, np.uint32(plan.columns), np.uint32(plan.width)
    inverse, shift = np.uint32(_LARGEST // columns), high_product(room.layout[0], width)
    first = start // length
    n_segments = (start + n - 1) // length + 1 - first
    segments = np.empty(BLOCK, np.uint32)
    for i in range(n_segments):
        segments[i] = np.uint32(first + i)
    permute(segments, n_segments, plan.n, plan.bits, room.keys, room.walking, room.where)
    for i in range(n_segments):
        row = quotient(segments[i], columns, inverse)
        begin = np.uint32(np.uint32(segments[i] - np.uint32(row * columns)) * width + shift)
        at = quotient(begin, columns, inverse)
        inside = np.int64(quotient(np.uint32(begin + width), columns, inverse)) - np.int64(at)
        skipped = (first + i) * length - start
        for step in range(max(0, -skipped), min(length, n - skipped)):
            here, j = np.int64(at) + (step if step < inside else 0), np.uint32(skipped + step)
            room.x[j] = np.uint32(here - plan.width if here >= plan.width else here)
            room.y[j], room.valid[j] = row, step < inside
