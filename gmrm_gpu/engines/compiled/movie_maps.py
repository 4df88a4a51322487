"""Weights that vary over the frame, from what other frames' samples left in cells (`kernels/movie_maps.cuh`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .jit import compiled
from .samples import aligned

if TYPE_CHECKING:
    from .device import Call

COARSEST_SHIFT = 4
"""Cells of the widest level are 2^4 pixels wide."""
REACH = 6
"""Cells to either side that a Gaussian is not cut off at."""
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class Maps(NamedTuple):
    """Nested grids of cells over a frame; of level l, 0 the widest, maps are (K, rows, columns) of its own grid.

    Attributes
    ----------
    n_levels, rows, columns : rows and columns of the finest grid. shift : a finest cell is 2^shift pixels wide.
    purest, shrinkage, floor : see `mixture.maps`. gaussian : (7,) its values 0..6 cells away. All float32.
    """

    n_levels: Any
    rows: Any
    columns: Any
    shift: Any
    purest: Any
    shrinkage: Any
    floor: Any
    gaussian: Any

    @property
    def n_cells(self) -> int:
        """Of the finest grid."""
        return self.rows * self.columns


def make_maps(call: Call, height: int, width: int, n_levels: int, *, guarded: bool = True) -> Maps:
    """Grids over frames; guarded : pure regions follow few samples less readily than mixed ones."""
    coarse, each = 1 << COARSEST_SHIFT, 1 << (n_levels - 1)
    shrinkage, floor, purest = (np.float32(call.constants[name]) for name in ("SHRINKAGE", "PRIOR_FLOOR", "PUREST"))
    words = str(call.constants["GAUSSIAN"]).split(",")
    return Maps(
        n_levels,
        -(-height // coarse) * each,
        -(-width // coarse) * each,
        COARSEST_SHIFT + 1 - n_levels,
        purest if guarded else np.float32(1.0),
        shrinkage,
        floor,
        np.array([word.rstrip("f") for word in words], dtype=np.float32),
    )


class Strip(NamedTuple):
    """Scratch of one thread that makes priors a few rows at a time, float32.

    Rows follow each other in one line with 6 zeros or more in between, so that a Gaussian is the same sum of shifted
    lines everywhere.

    Attributes
    ----------
    padded : the rows and 6 more above and below. down : smoothed along the columns, zeros before and after.
    held, parent : (K, numbers) smoothed in both ways, and the prior of the coarser level. total, worth : (numbers,).
    widest : (K, columns) the widest prior in a row.
    """

    padded: Any
    down: Any
    held: Any
    parent: Any
    total: Any
    worth: Any
    widest: Any


_LEAD = 16  # zeros before the first row; a multiple of it is from row to row: whole cache lines
_STRIP = 2048  # numbers: a strip's lines stay in the second cache, most of them in the first


@compiled
def stride_of(columns):
    """From row to row of a strip."""
    return (columns + REACH + _LEAD - 1) // _LEAD * _LEAD


def make_strip(n_components: int, columns: int) -> Strip:
    """Scratch for rows of at most so many cells."""
    stride = stride_of(columns)
    n = max(_STRIP, stride)
    held, parent = aligned((2, n_components, n))
    total, worth = aligned((2, n))
    padded, down = aligned((n + 2 * REACH * stride,)), aligned((n + 2 * _LEAD,))
    return Strip(padded, down, held, parent, total, worth, aligned((n_components, columns)))


@compiled
def clear(numbers):
    """Fill a line with zeros; an assignment to a slice is not vectorised."""
    for i in range(numbers.size):
        numbers[i] = 0


@compiled
def before(maps, n_components, level):
    """Numbers in the maps of all levels before `level`."""
    finest = maps.n_levels - 1
    return n_components * ((maps.rows >> finest) * (maps.columns >> finest)) * ((4**level - 1) // 3)


@compiled
def level_of_maps(numbers, maps, n_components, level):
    """Maps (K, rows, columns) of one level among those of all, the widest first."""
    rows, columns = maps.rows >> (maps.n_levels - 1 - level), maps.columns >> (maps.n_levels - 1 - level)
    first = before(maps, n_components, level)
    return numbers[first : first + n_components * rows * columns].reshape((n_components, rows, columns))


@compiled
def priors_of(scratch, maps, n_components):
    """The part of a frame's scratch (2 K cells) that holds the priors of all levels."""
    return scratch[before(maps, n_components, maps.n_levels - 1) :]


@compiled
def halve(fine, out, first, last):
    """Rows `first` to `last` of the sums over two by two cells; fine : (K, 2 rows, 2 columns)."""
    for k in range(out.shape[0]):
        for y in range(first, last):
            for x in range(out.shape[2]):
                upper = fine[k, 2 * y, 2 * x] + fine[k, 2 * y, 2 * x + 1]
                out[k, y, x] = (upper + fine[k, 2 * y + 1, 2 * x]) + fine[k, 2 * y + 1, 2 * x + 1]


# Places are unsigned below: an index that may be negative counts from the end, and loops with it are not vectorised.


@compiled
def _put_row(maps, k, y, out, first, n):
    for x in range(n):
        out[first + x] = maps[k, y, x]


@compiled
def _nearest_rows(g, rows, a, b, c, d, e, out, n):
    g0, g1, g2 = g[0], g[1], g[2]
    for i in range(n):
        near = g0 * rows[i + c] + g1 * (rows[i + b] + rows[i + d])
        out[i + np.uint64(_LEAD)] = near + g2 * (rows[i + a] + rows[i + e])


@compiled
def _further_rows(near, far, rows, a, b, c, d, out, n):
    for i in range(n):
        further = far * (rows[i + a] + rows[i + d])
        out[i + np.uint64(_LEAD)] += near * (rows[i + b] + rows[i + c]) + further


@compiled
def _row_place(row, stride):
    return np.uint64(row * stride)


@compiled
def _smooth_down(padded, g, stride, out, n):
    """Smoothed along the columns, peak 1, to out[_LEAD:]; padded : from 6 rows above on."""
    above, below = _row_place(REACH - 1, stride), _row_place(REACH + 1, stride)
    further = _row_place(REACH - 2, stride), _row_place(REACH + 2, stride)
    _nearest_rows(g, padded, further[0], above, _row_place(REACH, stride), below, further[1], out, n)
    for d in (3, 5):
        above, below = _row_place(REACH - d, stride), _row_place(REACH + d, stride)
        further = _row_place(REACH - d - 1, stride), _row_place(REACH + d + 1, stride)
        _further_rows(g[d], g[d + 1], padded, further[0], above, below, further[1], out, n)


@compiled
def _smooth_along(row, g, out, k, n):
    """Smoothed along the rows, peak 1; row : from `_LEAD` numbers before on."""
    g0, g1, g2, g3, g4, g5, g6 = g[0], g[1], g[2], g[3], g[4], g[5], g[6]
    for x in range(n):
        near = g0 * row[x + 16] + g1 * (row[x + 15] + row[x + 17]) + g2 * (row[x + 14] + row[x + 18])
        far = g3 * (row[x + 13] + row[x + 19]) + g4 * (row[x + 12] + row[x + 20])
        out[k, x] = near + (far + g5 * (row[x + 11] + row[x + 21]) + g6 * (row[x + 10] + row[x + 22]))


@compiled
def _spread(coarse, k, y, shift, out, first, n):
    """Row y of a coarser level, each cell 2^shift times."""
    for x in range(n):
        out[k, first + x] = coarse[k, y, x >> shift]


@compiled
def fill(out, k, value, n):
    """The first n numbers of row k."""
    for x in range(n):
        out[k, x] = value


@compiled
def _combine(purest, shrinkage, held, parent, total, worth, n):
    """(held + w parent) / (sum of held + w) to held, w = shrinkage / clip(1 - |parent|^2, purest, 1)."""
    for x in range(n):
        total[x] = worth[x] = _ZERO
    for k in range(held.shape[0]):
        for x in range(n):
            total[x] += held[k, x]
            worth[x] += parent[k, x] * parent[k, x]
    for x in range(n):
        worth[x] = shrinkage / min(max(_ONE - worth[x], purest), _ONE)
        total[x] = _ONE / (total[x] + worth[x])
    for k in range(held.shape[0]):
        for x in range(n):
            held[k, x] = (held[k, x] + worth[x] * parent[k, x]) * total[x]


@compiled
def _take_row(held, k, first, out, y, n):
    for x in range(n):
        out[k, y, x] = held[k, first + x]


@compiled
def _take_mixed(held, k, first, floor, widest, out, y, n):
    for x in range(n):
        out[k, y, x] = (_ONE - floor) * held[k, first + x] + floor * widest[k, x]


@compiled
def _put_zeros(out, first, n):
    for x in range(n):
        out[first + x] = _ZERO


@compiled
def _smooth(g, maps, padded, down, out, first, last):
    """Rows `first` to `last` of maps (K, rows, columns), smoothed in both ways."""
    n_rows, columns, stride = maps.shape[1], np.uint64(maps.shape[2]), stride_of(maps.shape[2])
    for k in range(maps.shape[0]):
        for y in range(first - REACH, last + REACH):
            if 0 <= y < n_rows:
                _put_row(maps, k, y, padded, _row_place(y - first + REACH, stride), columns)
            else:
                _put_zeros(padded, _row_place(y - first + REACH, stride), columns)
        _smooth_down(padded, g, stride, down, np.uint64((last - first) * stride))
        _smooth_along(down, g, out, k, (last - first) * stride)


@compiled
def _put_parents(level, coarser, weights, parent, columns, first, last):
    """Rows `first` to `last` of the prior before, (K, numbers)."""
    stride = stride_of(columns)
    for k in range(weights.size):
        if level == 0:
            fill(parent, k, weights[k], (last - first) * stride)
            continue
        for y in range(first, last):
            _spread(coarser, k, y // 2, np.uint64(1), parent, _row_place(y - first, stride), np.uint64(columns))


@compiled
def _take_rows(held, out, first, last):
    """What stands in a strip (K, numbers) put to rows `first` to `last` of maps (K, rows, columns)."""
    columns, stride = np.uint64(out.shape[2]), stride_of(out.shape[2])
    for k in range(out.shape[0]):
        for y in range(first, last):
            _take_row(held, k, _row_place(y - first, stride), out, y, columns)


@compiled
def _take_mixed_rows(held, floor, shift, widest, line, out, first, last):
    """Likewise, with a part of the widest level's cells, 2^shift times as large; line : (K, columns) of scratch."""
    columns, stride = np.uint64(out.shape[2]), stride_of(out.shape[2])
    for k in range(out.shape[0]):
        for y in range(first, last):
            if y == first or y & ((1 << shift) - 1) == 0:
                _spread(widest, k, y >> shift, np.uint64(shift), line, np.uint64(0), columns)
            _take_mixed(held, k, _row_place(y - first, stride), floor, line, out, y, columns)


@compiled
def correct(maps, level, held, coarser, widest, weights, strip, prior, first, last):
    """Rows `first` to `last` of a level's prior: the coarser one corrected by what this level's Gaussian holds.

    A part of the widest prior is put into the finest.

    Parameters
    ----------
    held, prior : (K, rows, columns). coarser : (K, rows / 2, columns / 2) prior of the level before. widest : prior of
    the widest level. weights : (K,) float32 of the whole frame, before the widest level; 0 for a dropped component.
    """
    # Out of loops: each look into the tuple counts a reference, which costs as much as a row.
    padded, down, found, parent, line = strip.padded, strip.down, strip.held, strip.parent, strip.widest
    columns, stride, finest = held.shape[2], stride_of(held.shape[2]), maps.n_levels - 1
    clear(padded)
    clear(down)
    height = max(1, _STRIP // stride)
    for a in range(first, last, height):
        b = min(a + height, last)
        _smooth(maps.gaussian, held, padded, down, found, a, b)
        _put_parents(level, coarser, weights, parent, columns, a, b)
        _combine(maps.purest, maps.shrinkage, found, parent, strip.total, strip.worth, (b - a) * stride)
        if level == finest and level > 0:
            _take_mixed_rows(found, maps.floor, finest, widest, line, prior, a, b)
        else:
            _take_rows(found, prior, a, b)


@compiled
def make_priors(maps, held, weights, scratch, strip):
    """Weights of the components in every cell of the finest grid.

    Parameters
    ----------
    held : (K, rows, columns) float32, what other frames left. weights : (K,) float32 of the whole frame.
    scratch : (2 K cells,) float32: sums of all levels but the finest, then priors of all levels.

    Returns
    -------
    array
        (K, rows, columns) float32, a part of `scratch`.
    """
    k, finest = held.shape[0], maps.n_levels - 1
    priors = priors_of(scratch, maps, k)
    for level in range(finest - 1, -1, -1):
        sums = level_of_maps(scratch, maps, k, level)
        halve(held if level + 1 == finest else level_of_maps(scratch, maps, k, level + 1), sums, 0, sums.shape[1])
    prior = widest = level_of_maps(priors, maps, k, 0)
    for level in range(maps.n_levels):
        fine = held if level == finest else level_of_maps(scratch, maps, k, level)
        coarser, prior = prior, level_of_maps(priors, maps, k, level)
        correct(maps, level, fine, coarser, widest, weights, strip, prior, 0, fine.shape[1])
    return prior
