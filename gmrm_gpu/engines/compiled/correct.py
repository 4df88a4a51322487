"""The spatio-temporal vote of METHOD.md 7 (``kernels/correct.cu``), in whole numbers, as `gmrm_gpu.correct` decides it.

A part is some successive frames of a replicate. The maps of the frames within reach are kept in a ring of planes, and a
pixel's neighbours are counted 512 at a time: tiles of words under masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...classify import NOT_VISITED
from .ball import fill_planes, make_ball
from .blocks import run_blocks
from .jit import compiled, exactly
from .lanes import N_LANES, add_set_bits, load, total_of, zeros
from .words import as_words, column, row

if TYPE_CHECKING:
    from .device import Call

_FEWEST_FRAMES = 16
_BAND_BITS = 5
"""Samples of 32 columns and 32 rows are asked after each other: what they look at stays in the first cache."""
_NOT_VISITED = np.uint8(NOT_VISITED)


class Queue(NamedTuple):
    """Samples that are asked: as they come, the word and band they are in; in order of these, and their words; ends."""

    asked: np.ndarray
    keys: np.ndarray
    order: np.ndarray
    words: np.ndarray
    ends: np.ndarray


class Work(NamedTuple):
    """Of a thread: planes of the frames within reach, places of tiles in them and of their masks, counts, a queue."""

    ring: np.ndarray
    where: np.ndarray
    which: np.ndarray
    counts: np.ndarray
    queue: Queue


class Vote(NamedTuple):
    """foreground : its label. both : background is visited too. own : a pixel is in its own neighbourhood."""

    foreground: int
    both: bool
    own: bool
    gamma: float


def correct(
    call: Call,
    samples,
    labels,
    maps,
    rows,
    without,
    n_rows,
    reach,
    n_frames,
    m,
    length,
    chunks,
    height,
    width,
    *vote,
) -> None:
    """See ``correct.cu``; vote : foreground, both, own, gamma."""
    foreground, both, own, gamma = (number.item() for number in vote)
    asked = Vote(foreground, both != 0, own != 0, gamma)
    window = int(call.constants["WINDOW"])
    ball, plane = make_ball(ball_rows(rows[:n_rows], window), int(height), int(width))
    t, wide = int(n_frames), samples.itemsize == 8
    # The rings of parts that are corrected at the same time take half as much memory as the maps, or less.
    each = max(2 * (ball.last - ball.first + 1), _FEWEST_FRAMES)
    words, out = as_words(samples).reshape(-1, t, int(m) * (1 + wide)), labels.reshape(-1, t, int(m))
    images, n_replicates = maps.reshape(-1, t, plane.words, plane.height, int(call.constants["N_PHASES"])), len(out)

    def work(start: int, stop: int) -> None:
        _correct_parts(start, stop, each, words, wide, out, images, ball, plane, asked, without.reshape(-1, t))

    run_blocks(call.pool, work, n_replicates * -(-t // each), min(each, t) * int(m))


def ball_rows(rows: np.ndarray, window: int) -> np.ndarray:
    """(n, 3) int64 from the kernel's rows: frames and rows from the pixel's, half width."""
    offsets = np.stack([rows[:, 0] & 0xFFFF, rows[:, 0] >> 16], axis=1).astype(np.uint16).view(np.int16)
    half = rows[:, 1]
    if window:
        half = (np.unpackbits(rows[:, 1 : 1 + window].copy().view(np.uint8), axis=1).sum(axis=1) - 1) // 2
    return np.column_stack([offsets, half]).astype(np.int64)


@compiled
def _correct_parts(start, stop, each, words, wide, labels, maps, ball, plane, vote, without):
    """Parts of `each` frames of replicates' (R, T, m) labels, in place; neighbours are read from the maps."""
    n_frames, n_phases, n_tiles = maps.shape[1], maps.shape[4], len(ball.dt)
    n_parts, n_slots = (n_frames - 1) // each + 1, ball.last - ball.first + 1
    ring = np.zeros(n_slots * n_phases * plane.size, np.uint32)
    where, which = np.empty(n_tiles, np.int64), np.empty(n_tiles, np.int64)
    work = Work(ring, where, which, np.zeros(n_phases, np.int64), _make_queue(labels.shape[2], plane))
    for part in range(start, stop):
        r, first = part // n_parts, part % n_parts * each
        last = min(first + each, n_frames)
        _correct_frames(words[r], wide, labels[r], maps[r], ball, plane, vote, first, last, work, without[r])


@compiled
def _correct_frames(words, wide, labels, maps, ball, plane, vote, first, stop, work, without):
    """Correct frames first .. stop - 1 of a replicate's (T, m) labels."""
    ring, where, which, counts, queue = work
    n_frames, size = maps.shape[0], len(counts) * plane.size
    n_slots = len(ring) // size
    known = max(0, first + ball.first)
    for t in range(first, stop):
        while known < min(t + ball.last + 1, n_frames):
            at = known % n_slots * size
            fill_planes(maps[known], plane, ring[at : at + size])
            known += 1
        n = 0
        for tile in range(len(ball.dt)):
            if 0 <= t + ball.dt[tile] < n_frames:
                where[n] = (t + ball.dt[tile]) % n_slots * size + ball.offset[tile]
                which[n] = tile * N_LANES
                n += 1
        without[t] += _correct_frame(
            words[t], wide, labels[t], ring, where[:n], which, ball, plane, vote, queue, counts
        )


@compiled
def _correct_frame(words, wide, labels, ring, where, which, ball, plane, vote, queue, counts):
    """Correct a frame; returns how many of the visited samples have no neighbours."""
    alone = 0
    for i in range(_line_up(words, wide, labels, ball, plane, vote, queue)):
        j, word = queue.order[i], queue.words[i]
        x, y = np.int64(column(word, wide)) - ball.reach, np.int64(row(word, wide))
        place = ((x >> 5) + plane.left) * plane.column + plane.top + y
        for phase in range(len(counts)):
            at = phase * plane.size + place
            counts[phase] = _count(ring, at, plane.column, np.uint32(x & 31), where, which, ball.masks)
        labels[j], lonely = _voted(vote, labels[j], counts)
        alone += lonely
    return alone


@compiled
def _line_up(words, wide, labels, ball, plane, vote, queue):
    """Put the samples that are asked in order, neighbours next to each other; returns how many there are."""
    asked, keys, order, own, ends = queue
    ends[:] = 0
    n, bands = 0, (plane.height >> _BAND_BITS) + 1
    for j in range(len(labels)):
        asked[n] = j
        n += (labels[j] == vote.foreground) | (vote.both & (labels[j] != _NOT_VISITED))
    for i in range(n):
        word = words[asked[i] * (1 + wide)]
        x, y = np.int64(column(word, wide)) - ball.reach, np.int64(row(word, wide))
        keys[i] = ((x >> 5) + plane.left) * bands + (y >> _BAND_BITS)
        ends[keys[i] + 1] += 1
    for key in range(len(ends) - 1):
        ends[key + 1] += ends[key]
    for i in range(n):
        at = ends[keys[i]]
        order[at], own[at] = asked[i], words[asked[i] * (1 + wide)]
        ends[keys[i]] = at + 1
    return n


@compiled
def _make_queue(m, plane):
    asked, keys, order = np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m, np.int32)
    n_keys = (plane.left + plane.words) * ((plane.height >> _BAND_BITS) + 1)
    return Queue(asked, keys, order, np.empty(m, np.uint32), np.empty(n_keys + 1, np.int32))


@compiled
def _count(ring, place, column, shift, where, which, masks):
    """Pixels of a phase within all tiles."""
    found = zeros()
    for k in range(len(where)):
        at = where[k] + place
        found = add_set_bits(found, load(ring, at), load(ring, at + column), shift, load(masks, which[k]))
    return total_of(found)


@exactly
def _voted(vote, label, counts):
    """The new label, and whether there were no neighbours. Shares are compared as quotients, exact at ties."""
    if vote.own:
        counts[label] -= 1
    total, commonest = 0, 0
    for phase in range(len(counts)):
        total += counts[phase]
        if counts[phase] > counts[commonest]:
            commonest = phase
    if total == 0:
        return label, True
    with_ = counts[vote.foreground]
    if label == vote.foreground:
        return np.uint8(commonest) if with_ / total < vote.gamma else label, False
    return np.uint8(vote.foreground) if (total - with_) / total < vote.gamma else label, False
