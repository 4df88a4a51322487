"""Starting values (METHOD.md 4): several, since one that puts no component on a rare phase never finds it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..philox import uniform
from .design import Samples


def start_thetas(
    samples: Samples, config: MixtureConfig, streams: np.ndarray | None, *, backend: Backend
) -> list[Array]:
    """Parameters (R, 3K + q) per start named in `config.starts`.

    streams : (R, K) uint32 random words for ``"kmeans++"``; None: the same fixed words for every fit.
    """
    xp = backend.xp
    k = config.n_components
    values, count = _sorted_values(samples, backend)
    rows = values.shape[0]
    if streams is None:
        streams = np.broadcast_to(np.linspace(0, 2**32 - 1, k + 2)[1:-1].astype(np.uint32), (rows, k))

    def at(levels: Array) -> Array:
        index = xp.astype(xp.clip(levels * count[:, None], 0, np.inf), xp.int64)
        index = xp.minimum(index, xp.astype(xp.clip(count - 1, 0, np.inf), xp.int64)[:, None])
        found = xp.take_along_axis(values, index, axis=1)
        return xp.where(xp.isfinite(found), found, xp.zeros_like(found))

    steps = (backend.arange(k, dtype=xp.float64) + 0.5) / k
    makers = {
        "quantile": lambda: at(xp.broadcast_to(steps[None, :], (rows, k))),
        "spread": lambda: _spread(at, rows, k, backend),
        "kmeans++": lambda: _kmeans(values, count, uniform(np.asarray(streams)), k, backend),
    }
    return [_theta(makers[name](), config, backend) for name in config.starts]


def _sorted_values(samples: Samples, backend: Backend) -> tuple[Array, Array]:
    """Standardised samples in ascending order (R, m), padding last as +inf, and how many there are (R,)."""
    xp = backend.xp
    z = xp.astype(samples.z, xp.float64)
    infinite = xp.full_like(z, np.inf)
    z = xp.where(xp.broadcast_to(samples.valid, z.shape) > 0, z, infinite)
    values = xp.sort(xp.reshape(z, (z.shape[0], -1)), axis=1)
    return values, xp.sum(xp.astype(xp.isfinite(values), xp.float64), axis=1)


def _spread(at: Callable[[Array], Array], rows: int, k: int, backend: Backend) -> Array:
    """Equal spacing between the 0.2 % and 99.8 % quantiles."""
    xp = backend.xp
    ends = at(xp.broadcast_to(backend.asarray(np.array([[0.002, 0.998]])), (rows, 2)))
    fraction = (backend.arange(k, dtype=xp.float64) + 0.5) / k
    return ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * fraction[None, :]


def _kmeans(values: Array, count: Array, random: np.ndarray, k: int, backend: Backend) -> Array:
    """k-means++ seeding (Arthur & Vassilvitskii 2007): each centre drawn with the squared distance to the nearest."""
    xp = backend.xp
    u = backend.asarray(random)
    present = xp.isfinite(values)
    finite = xp.where(present, values, xp.zeros_like(values))
    mass = xp.astype(present, xp.float64)
    centres: list[Array] = []
    for j in range(k):
        cumulative = xp.cumulative_sum(mass, axis=1)
        target = u[:, j : j + 1] * cumulative[:, -1:]
        index = xp.sum(xp.astype(cumulative < target, xp.int64), axis=1)
        index = xp.minimum(index, xp.astype(xp.clip(count - 1, 0, np.inf), xp.int64))
        centre = xp.take_along_axis(finite, index[:, None], axis=1)
        centres.append(centre)
        distance = (finite - centre) ** 2
        mass = xp.where(present, distance if j == 0 else xp.minimum(mass, distance), xp.zeros_like(mass))
    return xp.sort(xp.concat(centres, axis=1), axis=1)


def _theta(means: Array, config: MixtureConfig, backend: Backend) -> Array:
    xp = backend.xp
    rows, k = means.shape
    spacing = (xp.max(means, axis=1) - xp.min(means, axis=1)) / (2 * max(k - 1, 1))
    sigma = xp.clip(spacing, 0.1, 1.0) if k > 1 else xp.ones_like(spacing)
    log_weights = xp.full((rows, k), -math.log(k), dtype=xp.float64, device=backend.device)
    log_sigmas = xp.broadcast_to(xp.log(sigma)[:, None], (rows, k))
    coef = xp.zeros((rows, config.n_terms), dtype=xp.float64, device=backend.device)
    return xp.concat([log_weights, means, log_sigmas, coef], axis=1)
