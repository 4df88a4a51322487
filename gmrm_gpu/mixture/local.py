"""The mixture with weights that differ from place to place, to judge a trend by (METHOD.md 10).

Phases are not strewn evenly over a frame. Where the weights are common to all pixels, a trend that follows an electrode
or a patch of Li raises the likelihood by telling where which phase is, and wins every criterion though nothing is
brighter there. With weights of its own in each cell of a coarse grid that gain is gone, and only grey levels count.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ..backend import Array, Backend
from ..results import FitStatus, MixtureFit
from .design import Samples, TrendBasis, scaled_coordinates
from .moments import Layout, Moments, moments
from .steps import m_step

_CELL_SAMPLES = 64
"""Samples in a cell on average, at least."""
_MAX_SIDE = 6
"""Cells along a side of the frame, at most."""
_PSEUDO = 0.5
"""Samples added to every component of every cell."""


@dataclass(frozen=True)
class LocalFit:
    """A fit with weights per cell. fit : (1,), weights averaged over the cells, status `FitStatus`.

    n_cells : cells that hold samples. bic : Schwarz's criterion with K - 1 weights in each of them.
    """

    fit: MixtureFit
    n_cells: int
    bic: float


def fit_local(
    values: np.ndarray,
    positions: np.ndarray,
    shape: tuple[int, int],
    start: MixtureFit,
    *,
    sigma_floor: float,
    tol: float = 1e-6,
    max_iter: int = 500,
    backend: Backend,
) -> LocalFit | None:
    """ECM from `start` with common means, sigmas and trend, and weights per cell of the frame.

    Parameters
    ----------
    values, positions : (m,) grey levels and flat pixel indices, host. start : (1,), the fit with common weights.
    sigma_floor : smallest sigma, grey levels. tol : gain of the log-likelihood per sample that ends it.

    Returns
    -------
    None where `start` failed or lost a component.
    """
    if start.status[0] >= FitStatus.DEGENERATE or not (start.weights > 0).all():
        return None
    centre, scale = float(values.mean()), float(values.std())
    samples = _cells((values - centre) / scale, positions, shape, TrendBasis(start.terms), backend)
    parts = (start.means - centre) / scale, np.log(start.sigmas / scale), start.coef / scale
    common = backend.asarray(np.concatenate([np.log(start.weights), *parts], axis=1))
    layout = Layout(start.n_components, len(start.terms))
    floor = backend.asarray(np.array([sigma_floor / scale]))
    theta, value, status, n_iter = _iterate(samples, common, layout, floor, tol, max_iter, backend)
    host = backend.to_host(theta)
    _, means, log_sigmas, coef = (np.asarray(part)[:1] for part in layout.split(host))
    share = (np.exp(host[:, : layout.n_components]) * backend.to_host(samples.n)[:, None]).sum(axis=0) / values.size
    order = np.argsort(means[0])
    fit = replace(
        start,
        weights=share[None, order],
        means=means[:, order] * scale + centre,
        sigmas=np.exp(log_sigmas[:, order]) * scale,
        coef=coef * scale,
        log_likelihood=np.array([value - values.size * np.log(scale)]),
        n_iter=np.array([n_iter]),
        status=np.array([status], dtype=np.uint8),
    )
    n_cells = samples.z.shape[0]
    n_free = 2 * layout.n_components + layout.n_terms + (layout.n_components - 1) * n_cells
    return LocalFit(fit, n_cells, float(n_free * np.log(values.size) - 2.0 * fit.log_likelihood[0]))


def _iterate(
    samples: Samples, theta: Array, layout: Layout, floor: Array, tol: float, max_iter: int, backend: Backend
) -> tuple[Array, float, FitStatus, int]:
    """Parameters (cells, 3K + q), log-likelihood on the standardised scale, how it ended, passes."""
    xp, k = backend.xp, layout.n_components
    rows = samples.z.shape[0]
    theta = xp.broadcast_to(theta, (rows, theta.shape[1]))
    before, n_iter = -np.inf, 0
    while True:
        sums = moments(samples, theta, layout, backend=backend)
        value, n_iter = float(xp.sum(sums.log_likelihood)), n_iter + 1
        # What an ECM step cannot lower: the pseudo-samples are a prior on the weights.
        objective = value + _PSEUDO * float(xp.sum(theta[:, :k]))
        if objective - before <= tol * float(xp.sum(samples.n)):
            return theta, value, FitStatus.CONVERGED, n_iter
        if n_iter == max_iter:
            return theta, value, FitStatus.MAX_ITER, n_iter
        before = objective
        total = Moments(*(xp.sum(getattr(sums, f.name), axis=0, keepdims=True) for f in fields(Moments)))
        common = m_step(
            total, theta[:1, :], samples.basis, layout=layout, schedule="fast", floor=floor, backend=backend
        )
        count = sums.resp[:, :, 0] + _PSEUDO
        log_weights = xp.log(count / xp.sum(count, axis=1, keepdims=True))
        shared = xp.broadcast_to(common[:, k:], (rows, common.shape[1] - k))
        theta = xp.concat([log_weights, shared], axis=1)


def _cells(
    z: np.ndarray, positions: np.ndarray, shape: tuple[int, int], basis: TrendBasis, backend: Backend
) -> Samples:
    """Standardised samples (m,) as one row per cell of a grid over the frame; cells without samples are left out."""
    side = int(np.clip(np.sqrt(z.size / _CELL_SAMPLES), 1, _MAX_SIDE))
    y, x = positions // shape[1], positions % shape[1]
    cell = (y * side // shape[0]) * side + x * side // shape[1]
    _, cell, count = np.unique(cell, return_inverse=True, return_counts=True)
    order = np.argsort(cell, kind="stable")
    place = np.arange(z.size) - np.repeat(np.cumsum(count) - count, count)
    padded = [np.zeros((count.size, int(count.max())), a.dtype) for a in (z, positions)]
    for target, source in zip(padded, (z, positions), strict=True):
        target[cell[order], place] = source[order]
    valid = np.arange(int(count.max())) < count[:, None]
    columns, rows = scaled_coordinates(backend.asarray(padded[1][:, None, :]), shape, backend=backend)
    features = basis.evaluate(columns, rows, backend=backend)
    n = backend.asarray(count.astype(np.float64))
    blocks = (backend.real(a[:, None, :]) for a in (padded[0], valid))
    z_blocks, valid_blocks = blocks
    one = backend.xp.ones_like(n)
    return Samples(z_blocks, features, valid_blocks, 0.0 * one, one, n, basis)


__all__ = ["LocalFit", "fit_local"]
