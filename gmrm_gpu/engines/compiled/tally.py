"""Whole-number sums behind the share of the foreground and its variance by the design (``kernels/tally.cu``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...classify import NOT_VISITED
from .blocks import run_blocks
from .jit import compiled

if TYPE_CHECKING:
    from .device import Call

_PAIRS, _CLUSTERS = 1, 2
_NOT_VISITED = np.uint8(NOT_VISITED)
_SPAN = 1 << 15
"""Labels that are counted in int32."""


def tally(call: Call, labels, sums, m, size, length, chunks, foreground) -> None:
    """See ``tally.cu``; `size` successive samples belong together."""
    rows, totals, design = (
        labels.reshape(-1, labels.shape[-1]),
        sums.reshape(-1, sums.shape[-1]),
        call.constants["DESIGN"],
    )
    each, wanted = int(size), np.uint8(foreground)
    run_blocks(call.pool, lambda a, b: _sums(a, b, rows, totals, design, each, wanted), len(rows), int(m))


@compiled
def _sums(start, stop, labels, sums, design, size, foreground):
    for fit in range(start, stop):
        for at in range(0, labels.shape[1], _SPAN):
            # Pairs reach one sample into the next span.
            own, more = labels[fit, at : at + _SPAN], labels[fit, at + 1 : at + _SPAN + 1]
            n, with_ = _counts(own, foreground)
            sums[fit, 0] += np.uint64(n)
            sums[fit, 1] += np.uint64(with_)
            if design == _PAIRS:
                pairs, unlike = _pairs(own, more, foreground)
                sums[fit, 2] += np.uint64(pairs)
                sums[fit, 3] += np.uint64(unlike)
        if design == _CLUSTERS:
            _add_clusters(labels[fit], size, foreground, sums[fit])


@compiled
def _counts(labels, foreground):
    """Visited and foreground samples."""
    n = with_ = np.int32(0)
    for i in range(len(labels)):
        n += np.int32(labels[i] != _NOT_VISITED)
        with_ += np.int32(labels[i] == foreground)
    return n, with_


@compiled
def _pairs(first, second, foreground):
    """Pairs both of which were visited, and those of them of which one alone is foreground."""
    pairs = unlike = np.int32(0)
    for i in range(len(second)):
        both = (first[i] != _NOT_VISITED) & (second[i] != _NOT_VISITED)
        pairs += np.int32(both)
        unlike += np.int32(both & ((first[i] == foreground) != (second[i] == foreground)))
    return pairs, unlike


@compiled
def _add_clusters(labels, size, foreground, sums):
    """Sums over units of s^2, s n and n^2, s and n being the unit's foreground and visited samples."""
    for first in range(0, len(labels) - size + 1, size):
        n, with_ = _counts(labels[first : first + size], foreground)
        sums[2] += np.uint64(np.int64(with_) * np.int64(with_))
        sums[3] += np.uint64(np.int64(with_) * np.int64(n))
        sums[4] += np.uint64(np.int64(n) * np.int64(n))
