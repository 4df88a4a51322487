"""What a sample's neighbours, in the past and in its own frame, say of it."""

from __future__ import annotations

import numpy as np

from ..backend import Array, Backend
from .maps import FLOOR, SHRINKAGE, CellMaps


def leave_one_out(levels: list[Array], weights: Array, cells: Array, resp: Array, maps: CellMaps) -> Array:
    """As `CellMaps.combine`, at the samples alone, each without what it has itself laid down; (rows, blocks, K, n).

    levels : with the frame's own samples in. weights : (rows, K). cells : (rows, blocks, n). resp : as the result.
    """
    xp, (rows, _, k, _) = maps.backend.xp, resp.shape
    row = cells // maps.grid[1]
    column = cells - row * maps.grid[1]
    first = maps.backend.arange(rows * k, dtype=xp.int64)
    prior = widest = xp.broadcast_to(xp.astype(weights, maps.backend.dtype)[:, None, :, None], resp.shape)
    for number, level in enumerate(levels):
        coarser = len(levels) - 1 - number
        place = xp.astype((row >> coarser) * level.shape[-1] + (column >> coarser), xp.int64)[:, :, None, :]
        index = place + xp.reshape(first, (rows, 1, k, 1)) * (level.shape[-1] * level.shape[-2])
        held = xp.reshape(xp.take(xp.reshape(level, (-1,)), xp.reshape(index, (-1,))), resp.shape)
        # The Gaussians peak at 1, so that is what a sample adds to its own cell; rounding may leave less than nothing.
        held = xp.maximum(held - resp, xp.zeros_like(resp))
        worth = SHRINKAGE / xp.clip(1.0 - xp.sum(prior * prior, axis=2, keepdims=True), maps.purest, 1.0)
        prior = (held + worth * prior) / (xp.sum(held, axis=2, keepdims=True) + worth)
        widest = widest if number else prior
    return (1.0 - FLOOR) * prior + FLOOR * widest


def placed_evidence(weights: Array, prior: Array, resp: Array, *, backend: Backend) -> np.ndarray:
    """Sums (4, K) for `placed`: what a sample's grey level says against what its neighbours say.

    Each component is weighed against the heaviest other one alone, among the samples of the two: that neither is found
    on a third says nothing. Where two components share the noise of one phase, neighbours tell nothing of a sample.

    weights : (1, K) of the frame. prior : (1, blocks, K, n) by the neighbours. resp : likewise, with grey levels.
    """
    xp = backend.xp
    # The heaviest itself against the next.
    order = np.argsort(-backend.to_host(weights)[0], kind="stable")
    other = np.full(order.size, order[0])
    other[order[0]] = order[min(1, order.size - 1)]
    others = backend.asarray(other.astype(np.int64))
    alone = weights[:, None, :, None] * resp / xp.where(prior > 0, prior, xp.ones_like(prior))

    def against(values: Array) -> tuple[Array, Array]:
        both = values + xp.take(values, others, axis=2)
        return values / xp.where(both > 0, both, xp.ones_like(both)), both

    (grey, _), (near, _), (_, either) = against(alone), against(xp.astype(prior, xp.float64)), against(resp)
    total = xp.sum(either, axis=(1, 3), keepdims=True)
    total = xp.where(total > 0, total, xp.ones_like(total))
    grey, near = (a - xp.sum(a * either, axis=(1, 3), keepdims=True) / total for a in (grey, near))
    sums = [
        grey * near * either,
        grey * grey * either,
        near * near * either,
        (near * either) ** 2 * (xp.sum(grey * grey * either, axis=(1, 3), keepdims=True) / total),
    ]
    return np.stack([backend.to_host(xp.sum(a, axis=(1, 3)))[0] for a in sums])


def placed(evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) correlation of a component's samples with their neighbours, and that in its standard deviations.

    evidence : (4, K) summed over frames. By chance alone the correlation is 0.
    """
    together, grey, near, spread = evidence
    tiny = 1e-300
    return together / np.sqrt(np.maximum(grey * near, tiny)), together / np.sqrt(np.maximum(spread, tiny))
