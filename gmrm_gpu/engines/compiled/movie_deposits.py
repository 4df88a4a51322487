"""What samples leave in cells, and what of it other frames find there (`kernels/movie_maps.cuh`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import compiled

DEPOSIT_STEPS, A_STEP = np.float32(65536.0), np.float32(2.0**-16)
"""Responsibilities are deposited in whole steps of 2^-16: such sums do not depend on their order."""
_SEGMENT = 16  # frames whose deposits are gone through at a time, forwards and back
_PLACES = 256  # of a map, likewise: they stay in the first cache
_ZERO = np.float32(0.0)


# Places are unsigned below: an index that may be negative counts from the end, and loops with it are not vectorised.


@compiled
def _back(made, t, first, n, decay, future, after, row):
    """What comes from later frames, as frame t finds it, and as it leaves it to those before."""
    for i in range(n):
        after[row, i] = future[i]
        future[i] = decay * (future[i] + np.float32(made[t, first + i]) * A_STEP)


@compiled
def _forward(made, t, first, n, decay, past, after, row, held):
    for i in range(n):
        held[t, first + i] = past[i] + after[row, i]
        past[i] = decay * (past[i] + np.float32(made[t, first + i]) * A_STEP)


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
