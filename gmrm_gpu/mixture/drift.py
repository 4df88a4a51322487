"""How single frames of a movie differ from its common parameters: trend, offset and contrast (METHOD.md 6, step 4).

A frame's deviation is u = (b_1..b_q, o, g): its trend coefficients are beta + b, its means
delta_k + o + g (delta_k - c) with c the mean of the commonest component, its sigmas sigma_k (1 + g). The deviations of
successive frames are tied by a random walk of stated step: what is left to a single frame by itself swallows the
foreground.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, Backend
from .design import TrendBasis
from .moments import Moments

STEP = (0.006, 0.003, 0.0025)
"""Standard deviation of one frame's change of trend coefficients and offset (in standard deviations of the movie's
grey levels), and of the contrast (relative)."""
FIRST = (0.3, 0.3, 0.2)
"""The same of the first frame's deviation from the common parameters."""
MOST_CONTRAST = 2.0
"""A frame's contrast is at most this times the movie's, and at least the inverse."""


def walk_precision(n_terms: int, strength: float, backend: Backend) -> tuple[Array, Array]:
    """Diagonals (q + 2,) of the inverse variances of a step and of the first deviation; `strength` scales the step."""

    def diagonal(sizes: tuple[float, float, float], scale: float) -> Array:
        sd = np.array([sizes[0]] * n_terms + [sizes[1], sizes[2]]) * scale
        return backend.asarray(1.0 / sd**2)

    return diagonal(STEP, strength), diagonal(FIRST, 1.0)


def normal_equations(
    moments: Moments, precision: Array, contrast: Array, basis: TrendBasis, backend: Backend
) -> tuple[Array, Array]:
    """Each frame's information about its own deviation.

    Parameters
    ----------
    moments : sums of the rows (frames). precision : (rows, K) 1 / sigma^2. contrast : (rows, K) delta_k - c.

    Returns
    -------
    information : (rows, q + 2, q + 2). pull : (rows, q + 2), the same times the step that the data alone would take.
    """
    xp = backend.xp
    q = basis.n_terms
    # Moments of (f_1..f_q, 1), one row a component.
    order = backend.asarray(np.array([*range(1, q + 1), 0]), dtype=xp.int64)
    first = xp.take(moments.resp, order, axis=2) * precision[:, :, None]
    dev = xp.take(moments.dev, order, axis=2) * precision[:, :, None]
    place = np.zeros((q + 1, q + 1), dtype=np.int64)
    place[:q, :q] = basis.pair
    place[q, :q] = place[:q, q] = np.arange(1, q + 1)
    pair = backend.asarray(place.reshape(-1))
    weighted = xp.matmul(precision[:, None, :], moments.resp)[:, 0, :]
    block = xp.reshape(xp.take(weighted, pair, axis=1), (-1, q + 1, q + 1))
    side = xp.sum(first * contrast[:, :, None], axis=1)
    corner = xp.sum(contrast * contrast * precision * moments.resp[:, :, 0], axis=1)
    top = xp.concat([block, side[:, :, None]], axis=2)
    bottom = xp.concat([side, corner[:, None]], axis=1)[:, None, :]
    pull = xp.concat([xp.sum(dev, axis=1), xp.sum(contrast * dev[:, :, q], axis=1)[:, None]], axis=1)
    return xp.concat([top, bottom], axis=1), pull


def smooth_walk(information: Array, pull: Array, step: Array, first: Array, *, backend: Backend) -> Array:
    """The likeliest deviations (R, T, n) of a random walk observed with `information` (R, T, n, n).

    Minimises the sum over frames of u'Nu/2 - pull'u, plus the walk's increments and its first value weighed by their
    inverse variances (n,): a block tridiagonal system, solved forwards and back.
    """
    xp = backend.xp
    n_frames, n = pull.shape[1], pull.shape[2]
    eye = xp.eye(n, dtype=xp.float64, device=backend.device)
    tie = eye * step[None, :]
    # Terms that the samples cannot tell apart, known so well that the walk is below their rounding: as `solve_normal`.
    largest = xp.max(xp.reshape(xp.abs(information), (*pull.shape[:2], n * n)), axis=2)
    information = information + 64 * xp.finfo(xp.float64).eps * largest[..., None, None] * eye
    diagonals: list[Array] = []
    rights: list[Array] = []
    for t in range(n_frames):
        links = (t > 0) + (t < n_frames - 1)
        diagonal = information[:, t, ...] + float(links) * tie + (eye * first[None, :] if t == 0 else 0.0)
        right = pull[:, t, :]
        if t:
            solved = xp.linalg.solve(diagonals[-1], xp.concat([tie + 0.0 * diagonal, rights[-1][..., None]], axis=2))
            diagonal = diagonal - step[:, None] * solved[..., :n]
            right = right + step * solved[..., n]
        diagonals.append(diagonal)
        rights.append(right)
    found = [xp.linalg.solve(diagonals[-1], rights[-1][..., None])[..., 0]]
    for t in range(n_frames - 2, -1, -1):
        right = rights[t] + step * found[-1]
        found.append(xp.linalg.solve(diagonals[t], right[..., None])[..., 0])
    return xp.stack(found[::-1], axis=1)
