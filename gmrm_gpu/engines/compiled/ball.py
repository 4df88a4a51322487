"""The neighbourhood of the vote as tiles of 16 rows by 32 pixels, and the frames' bit maps as tiles can be read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import compiled
from .lanes import N_LANES
from .samples import aligned

_BITS = 32


class Ball(NamedTuple):
    """Tiles of the neighbourhood of a pixel; a window of whole words holds every row of it.

    offset, dt : (n,) int64, from the pixel's place in a plane to the tile's first word; frames from the pixel's.
    masks : (16 n,) uint32, which pixels of the tile are within the ball. reach : pixels left of the window's middle.
    first, last : of all dt.
    """

    offset: np.ndarray
    dt: np.ndarray
    masks: np.ndarray
    reach: int
    first: int
    last: int


class Plane(NamedTuple):
    """A bit map with nothing around it, so that no tile has to look where it ends.

    As in ``maps.cuh`` columns of words, but each phase by itself. left, top : columns and rows before the frame.
    column : words of a column. size : of a plane. height, words : of the frame.
    """

    left: int
    top: int
    column: int
    size: int
    height: int
    words: int


def make_ball(rows: np.ndarray, height: int, width: int) -> tuple[Ball, Plane]:
    """Tiles and planes for frames of a size; rows : (n, 3) int64, dt, dy and half width, dy ascending."""
    rows = rows[np.abs(rows[:, 1]) < height]
    half = np.minimum(rows[:, 2], width - 1)
    reach, top = int(half.max(initial=0)), int(np.abs(rows[:, 1]).max(initial=0))
    n_words, words, left = -(-(2 * reach + 1) // _BITS), -(-width // _BITS), -(-reach // _BITS)
    column = top + height + top + N_LANES
    n_columns = left + max(words, (width - 1 - reach) // _BITS + n_words + 1)
    tiles: dict[tuple[int, int, int], np.ndarray] = {}
    lowest: dict[int, int] = {}
    for dt, dy, wide in zip(rows[:, 0].tolist(), rows[:, 1].tolist(), half.tolist(), strict=True):
        span = ((2 << 2 * wide) - 1) << (reach - wide)
        lane = (dy - lowest.setdefault(dt, dy)) % N_LANES
        for i in range(n_words):
            if part := span >> _BITS * i & 0xFFFFFFFF:
                tiles.setdefault((dt, dy - lane, i), np.zeros(N_LANES, np.uint32))[lane] = part
    places = np.array(list(tiles), dtype=np.int64).reshape(-1, 3)
    offset, dt = places[:, 1] + column * places[:, 2], places[:, 0].copy()
    masks = aligned((N_LANES * len(dt),), np.uint32)
    masks[:] = np.concatenate([*tiles.values(), masks[:0]])
    first, last = (int(dt.min()), int(dt.max())) if len(dt) else (0, 0)
    ball = Ball(offset, dt, masks, reach, first, last)
    return ball, Plane(left, top, column, n_columns * column, height, words)


@compiled
def fill_planes(maps, plane, planes):
    """The maps (words, height, phases) of a frame into `planes` (phases * size,)."""
    n_phases = len(planes) // plane.size
    for phase in range(n_phases):
        for word in range(plane.words):
            begin = phase * plane.size + (plane.left + word) * plane.column + plane.top
            column = planes[begin : begin + plane.height]
            for y in range(plane.height):
                column[y] = maps[word, y, phase]
