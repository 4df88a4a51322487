"""Weights that vary over the frame, from what other frames' samples left in cells (`kernels/movie_maps.cuh`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import compiled
from .samples import aligned

if TYPE_CHECKING:
    from .device import Call

COARSEST_SHIFT = 4
"""Cells of the widest level are 2^4 pixels wide."""
REACH = 6
"""Cells to either side that a Gaussian is not cut off at."""
DEPOSIT_STEPS = np.float32(65536.0)
"""Responsibilities are deposited in whole multiples of its inverse."""
_SEGMENT = 16  # frames whose deposits are gone through at a time, forwards and back
_PLACES = 256  # of a map, likewise: they stay in the first cache
_ZERO, _ONE, _A_STEP = np.float32(0.0), np.float32(1.0), np.float32(2.0**-16)


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


class Lines(NamedTuple):
    """Scratch of one thread that makes priors row by row, float32.

    Attributes
    ----------
    padded : (columns + 12,) a row smoothed along columns, zeros at both ends.
    held, parent, widest : (K, columns) a row smoothed in both ways, and the priors of coarser levels beside it.
    total, worth : (columns,).
    """

    padded: Any
    held: Any
    parent: Any
    widest: Any
    total: Any
    worth: Any


def make_lines(n_components: int, columns: int) -> Lines:
    """Scratch for rows of so many cells."""
    rows = aligned((3, n_components, columns))
    return Lines(aligned((columns + 2 * REACH,)), *rows, *aligned((2, columns)))


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


@compiled
def _inside(y, rows, value):
    """A row that exists, and the weight of row y, which is 0 if it does not."""
    return (y, value) if 0 <= y < rows else (0, _ZERO)


@compiled
def _smooth_down(maps, k, y, gaussian, out):
    """Row y of a map smoothed along the columns, peak 1, to out[REACH:]."""
    rows, n = maps.shape[1], maps.shape[2]
    for x in range(n):
        out[REACH + x] = gaussian[0] * maps[k, y, x]
    for d in range(1, REACH + 1, 2):
        a, ga = _inside(y - d, rows, gaussian[d])
        b, gb = _inside(y + d, rows, gaussian[d])
        c, gc = _inside(y - d - 1, rows, gaussian[d + 1])
        e, ge = _inside(y + d + 1, rows, gaussian[d + 1])
        for x in range(n):
            near = ga * maps[k, a, x] + gb * maps[k, b, x]
            out[REACH + x] += near + (gc * maps[k, c, x] + ge * maps[k, e, x])


@compiled
def _smooth_along(padded, g, out, k, n):
    """Smoothed along a row, peak 1; padded : 6 zeros at both ends."""
    g0, g1, g2, g3, g4, g5, g6 = g[0], g[1], g[2], g[3], g[4], g[5], g[6]
    for x in range(n):
        near = g0 * padded[x + 6] + g1 * (padded[x + 5] + padded[x + 7]) + g2 * (padded[x + 4] + padded[x + 8])
        far = g3 * (padded[x + 3] + padded[x + 9]) + g4 * (padded[x + 2] + padded[x + 10])
        out[k, x] = near + (far + g5 * (padded[x + 1] + padded[x + 11]) + g6 * (padded[x] + padded[x + 12]))


@compiled
def _correct_row(maps, lines, prior, y):
    """(held + w parent) / (sum of held + w), w = shrinkage / clip(1 - |parent|^2, purest, 1)."""
    n, held, parent, total, worth = prior.shape[2], lines.held, lines.parent, lines.total, lines.worth
    for x in range(n):
        total[x] = worth[x] = _ZERO
    for k in range(prior.shape[0]):
        for x in range(n):
            total[x] += held[k, x]
            worth[x] += parent[k, x] * parent[k, x]
    for x in range(n):
        worth[x] = maps.shrinkage / min(max(_ONE - worth[x], maps.purest), _ONE)
        total[x] = _ONE / (total[x] + worth[x])
    for k in range(prior.shape[0]):
        for x in range(n):
            prior[k, y, x] = (held[k, x] + worth[x] * parent[k, x]) * total[x]


@compiled
def _spread(coarse, k, y, shift, out, n):
    """Row y of a coarser level, each cell 2^shift times."""
    for x in range(n):
        out[k, x] = coarse[k, y, x >> shift]


@compiled
def _fill(out, k, value, n):
    for x in range(n):
        out[k, x] = value


@compiled
def correct(maps, level, held, coarser, weights, lines, prior, first, last):
    """Rows `first` to `last` of a level's prior: the coarser one corrected by what this level's Gaussian holds.

    Parameters
    ----------
    held, prior : (K, rows, columns). coarser : (K, rows / 2, columns / 2) prior of the level before.
    weights : (K,) float32 of the whole frame, before the widest level; 0 for a dropped component.
    """
    n, padded = held.shape[2], lines.padded
    for x in range(REACH):
        padded[x] = padded[REACH + n + x] = _ZERO
    for y in range(first, last):
        for k in range(held.shape[0]):
            if level == 0:
                _fill(lines.parent, k, weights[k], n)
            elif y == first or y % 2 == 0:
                _spread(coarser, k, y // 2, 1, lines.parent, n)
            _smooth_down(held, k, y, maps.gaussian, padded)
            _smooth_along(padded, maps.gaussian, lines.held, k, n)
        _correct_row(maps, lines, prior, y)


@compiled
def add_floor(maps, widest, lines, prior, first, last):
    """A part of the widest prior put into rows `first` to `last` of the finest, which may be the same."""
    finest, n = maps.n_levels - 1, prior.shape[2]
    if finest == 0:
        return
    for y in range(first, last):
        for k in range(prior.shape[0]):
            if y == first or y & ((1 << finest) - 1) == 0:
                _spread(widest, k, y >> finest, finest, lines.widest, n)
            for x in range(n):
                prior[k, y, x] = (_ONE - maps.floor) * prior[k, y, x] + maps.floor * lines.widest[k, x]


@compiled
def make_priors(maps, held, weights, scratch, lines):
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
    for level in range(maps.n_levels):
        fine = held if level == finest else level_of_maps(scratch, maps, k, level)
        coarser = level_of_maps(priors, maps, k, max(level - 1, 0))
        correct(maps, level, fine, coarser, weights, lines, level_of_maps(priors, maps, k, level), 0, fine.shape[1])
    prior = level_of_maps(priors, maps, k, finest)
    add_floor(maps, level_of_maps(priors, maps, k, 0), lines, prior, 0, maps.rows)
    return prior


# Places are unsigned below: an index that may be negative counts from the end, and loops with it are not vectorised.


@compiled
def _back(made, t, first, n, decay, future, after, row):
    """What comes from later frames, as frame t finds it, and as it leaves it to those before."""
    for i in range(n):
        after[row, i] = future[i]
        future[i] = decay * (future[i] + np.float32(made[t, first + i]) * _A_STEP)


@compiled
def _forward(made, t, first, n, decay, past, after, row, held):
    for i in range(n):
        held[t, first + i] = past[i] + after[row, i]
        past[i] = decay * (past[i] + np.float32(made[t, first + i]) * _A_STEP)


@compiled
def _keep(future, held, t, first, n):
    for i in range(n):
        held[t, first + i] = future[i]


@compiled
def _fetch(held, t, first, n, future):
    for i in range(n):
        future[i] = held[t, first + i]


@compiled
def through_time(made, held, decay, first, last):
    """What the other frames leave to each, fading with their distance in time, at places `first` to `last`.

    Back through time, keeping only what enters each segment of frames from the future, then forward, segment by
    segment: `held` is written once, and what is worked on stays in the first cache.

    Parameters
    ----------
    made : (T, places) int32 deposits. held : (T, places) float32.
    """
    n_frames, after = made.shape[0], np.empty((_SEGMENT, _PLACES), np.float32)
    past, future = np.empty(_PLACES, np.float32), np.empty(_PLACES, np.float32)
    for place in range(first, last, _PLACES):
        a, n = np.uint64(place), np.uint64(min(_PLACES, last - place))
        past[:] = _ZERO
        future[:] = _ZERO
        for start in range((n_frames - 1) // _SEGMENT * _SEGMENT, -1, -_SEGMENT):
            _keep(future, held, start, a, n)
            for t in range(min(start + _SEGMENT, n_frames) - 1, start - 1, -1):
                _back(made, t, a, n, decay, future, after, 0)
        for start in range(0, n_frames, _SEGMENT):
            stop = min(start + _SEGMENT, n_frames)
            _fetch(held, start, a, n, future)
            for t in range(stop - 1, start - 1, -1):
                _back(made, t, a, n, decay, future, after, t - start)
            for t in range(start, stop):
                _forward(made, t, a, n, decay, past, after, t - start, held)


@compiled
def deposit(resp, k, cells, n, made):
    """Responsibilities of component k of n samples added to their cells; made : (K, cells) int32, in whole steps."""
    for i in range(n):
        share = resp[k, i] if resp[k, i] > _ZERO else _ZERO
        made[k, cells[i]] += np.int32(np.rint(share * DEPOSIT_STEPS))


@intrinsic
def _add_atomically(typing: Any, array: Any, i: Any, j: Any, value: Any) -> Any:
    """array[i, j] += value, also while other threads do."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        place = cgutils.get_item_pointer(
            context,
            builder,
            kind,
            context.make_array(kind)(context, builder, args[0]),
            list(args[1:3]),
            wraparound=False,
        )
        builder.atomic_rmw("add", place, args[3], "monotonic")
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.int32), generate


@compiled
def deposit_together(resp, k, cells, n, made):
    """As `deposit`, while other threads deposit too: whole steps add up to the same in any order."""
    for i in range(n):
        if resp[k, i] > _ZERO:
            steps = np.int32(np.rint(resp[k, i] * DEPOSIT_STEPS))
            if steps:
                _add_atomically(made, k, cells[i], steps)
