"""One pass over the samples: responsibilities, log-likelihood and the sums that an M-step needs (METHOD.md 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..backend import Array, Backend
from .design import ONE_THREAD, Samples

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
GROUP_SAMPLES = 32768
"""Samples visited at a time: K working-precision arrays of this size stay in a core's second-level cache."""
NO_COMPONENT = -1e30  # log-density of a dropped component: finite, so that no difference of infinities arises


@dataclass(frozen=True)
class Layout:
    """Where the parameters of one fit stand in its row of an (R, 3K + q) float64 array, on the standardised scale.

    Columns: log weights, means, log sigmas (K each), trend coefficients (q). A dropped component has log weight
    -1e30. One array, so that acceleration and bookkeeping are single operations.
    """

    n_components: int
    n_terms: int

    def split(self, theta: Array) -> tuple[Array, Array, Array, Array]:
        """log_weights (R, K), means (R, K), log_sigmas (R, K), coef (R, q)."""
        k = self.n_components
        return theta[:, :k], theta[:, k : 2 * k], theta[:, 2 * k : 3 * k], theta[:, 3 * k :]


@dataclass
class Moments:
    """Sums over samples, float64, of deviations d = z - f.beta - delta_k at the current parameters.

    log_likelihood : (R,).
    resp : (R, K, P) sum of w times each monomial (the first is the constant: sum of w).
    dev : (R, K, 1 + q) sum of w d times (1, f_1..f_q). square : (R, K) sum of w d^2.
    """

    log_likelihood: Array
    resp: Array
    dev: Array
    square: Array


def residuals(samples: Samples, coef: Array, *, backend: Backend) -> Array:
    """(R, blocks, n) z - f.beta of trend coefficients (R, q), working precision."""
    xp, q = backend.xp, coef.shape[1]
    if q == 0:
        return samples.z
    trend = xp.matmul(xp.astype(coef, backend.dtype)[:, None, None, :], samples.features[:, :, 1 : q + 1, :])
    return samples.z - trend[:, :, 0, :]


def e_step(samples: Samples, theta: Array, layout: Layout, *, backend: Backend) -> tuple[Array, Array, Array]:
    """Log-likelihood (R,) float64, deviations and responsibilities (R, blocks, K, n) by log-sum-exp.

    Responsibilities of padding are 0.
    """
    xp = backend.xp
    log_weights, means, log_sigmas, coef = layout.split(theta)

    def per_component(values: Array) -> Array:
        return xp.astype(values, backend.dtype)[:, None, :, None]

    deviation = residuals(samples, coef, backend=backend)[:, :, None, :] - per_component(means)
    density = deviation * deviation
    density *= per_component(-0.5 * xp.exp(-2.0 * log_sigmas))
    log_scale = log_weights - log_sigmas - _HALF_LOG_2PI
    density += per_component(xp.maximum(log_scale, xp.full_like(log_scale, NO_COMPONENT)))
    if samples.log_weights is not None:  # the rows' own log weights are 0, or NO_COMPONENT
        density += samples.log_weights
    top = xp.max(density, axis=2)
    density -= top[:, :, None, :]
    density = xp.exp(density)
    total = xp.sum(density, axis=2)
    log_density = xp.log(total)
    log_density += top
    log_density *= samples.valid
    log_likelihood = xp.sum(xp.sum(xp.astype(log_density, xp.float64), axis=2), axis=1)
    density *= (samples.valid / total)[:, :, None, :]
    return log_likelihood, deviation, density


def moments(samples: Samples, theta: Array, layout: Layout, *, backend: Backend) -> Moments:
    """All sums of one pass; products in the working precision within a block, blocks added in float64.

    The fits are visited in groups whose arrays fit the cache of a core; the sums do not depend on the grouping.
    """
    rows, n_blocks, n = samples.z.shape
    group = max(1, GROUP_SAMPLES // (n_blocks * n))
    if rows <= group:
        return moments_and_resp(samples, theta, layout, backend=backend)[0]
    edges = [(i, min(i + group, rows)) for i in range(0, rows, group)]
    parts = [moments_and_resp(samples.rows(i, j), theta[i:j, :], layout, backend=backend)[0] for i, j in edges]
    return join_moments(parts, backend=backend)


def join_moments(parts: list[Moments], *, backend: Backend) -> Moments:
    """The sums of successive groups of fits."""
    return Moments(*(backend.xp.concat([getattr(p, f.name) for p in parts], axis=0) for f in fields(Moments)))


def moments_and_resp(samples: Samples, theta: Array, layout: Layout, *, backend: Backend) -> tuple[Moments, Array]:
    """The sums of a few fits, and the responsibilities (R, blocks, K, n) they are made of."""
    xp = backend.xp
    log_likelihood, deviation, resp = e_step(samples, theta, layout, backend=backend)
    k, q = layout.n_components, layout.n_terms

    def add_blocks(array: Array) -> Array:
        return xp.sum(xp.astype(array, xp.float64), axis=1)

    weighted = resp * deviation
    # One product for both; on the CPU, BLAS is up to twice as fast with a multiple of four columns.
    padding = [] if k % 2 == 0 else [resp, weighted] if k == 1 else [resp[:, :, :2, :]]
    columns = xp.matrix_transpose(xp.concat([resp, weighted, *padding], axis=2))
    sums = xp.matrix_transpose(add_blocks(_products(samples.features, columns, backend)))
    square = add_blocks(xp.vecdot(weighted, deviation))
    return Moments(log_likelihood, sums[:, :k, :], sums[:, k : 2 * k, : q + 1], square), resp


def _products(features: Array, columns: Array, backend: Backend) -> Array:
    """(R, blocks, P, columns) of features (R, blocks, P, n); on the CPU in parts that stay on the caller's thread."""
    xp, (*_, n_monomials, n) = backend.xp, features.shape
    step = max(1, ONE_THREAD // (n * columns.shape[-1]))
    if n_monomials <= step or backend.name == "cupy":
        return xp.matmul(features, columns)
    parts = [xp.matmul(features[..., i : i + step, :], columns) for i in range(0, n_monomials, step)]
    return xp.concat(parts, axis=-2)
