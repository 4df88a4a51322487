"""M-steps from one pass's moments, and SQUAREM extrapolation (METHOD.md 2, 3).

Both schedules read the same moments. `reference` is CM1, CM2, CM3 of the paper in this order. `fast` solves means
and trend jointly, then takes sigma at the *new* parameters, which the moments give exactly; so it too is an ECM
step and the log-likelihood cannot fall.
"""

from __future__ import annotations

import math

from ..backend import Array, Backend
from .design import TrendBasis
from .moments import Moments, Theta

MIN_COUNT = 2.0
"""A component that holds fewer samples than this is dropped."""

_DROPPED = -1e30


def m_step(
    moments: Moments, theta: Theta, basis: TrendBasis, *, schedule: str, floor: Array, backend: Backend
) -> Theta:
    """Next parameters. floor : (R,) smallest sigma, standardised."""
    xp = backend.xp
    count = moments.resp[:, :, 0]
    alive = (count >= MIN_COUNT) & (theta.log_weights > 0.5 * _DROPPED)
    safe = xp.where(alive, count, xp.ones_like(count))
    shift = moments.dev[:, :, 0] / safe
    step = xp.zeros_like(theta.coef)
    if basis.n_terms:
        step = _trend_step(moments, theta, basis, alive, safe, joint=schedule == "fast", backend=backend)
        if schedule == "fast":
            shift = shift - xp.sum(moments.resp[:, :, 1 : basis.n_terms + 1] * step[:, None, :], axis=2) / safe
    shift = xp.where(alive, shift, xp.zeros_like(shift))
    variance = _new_square(moments, shift, step, basis, backend) / safe
    least = floor[:, None] ** 2
    variance = xp.where(variance > least, variance, xp.broadcast_to(least, variance.shape))
    total = xp.sum(xp.where(alive, count, xp.zeros_like(count)), axis=1)
    weights = safe / xp.where(total > 0, total, xp.ones_like(total))[:, None]
    return Theta(
        xp.where(alive, xp.log(weights), xp.full_like(weights, _DROPPED)),
        theta.means + shift,
        xp.where(alive, 0.5 * xp.log(variance), theta.log_sigmas),
        theta.coef + step,
    )


def _trend_step(
    moments: Moments, theta: Theta, basis: TrendBasis, alive: Array, safe: Array, *, joint: bool, backend: Backend
) -> Array:
    """Change of the trend coefficients, (R, q): weighted least squares given the means, or jointly with them."""
    xp = backend.xp
    q = basis.n_terms
    precision = xp.where(alive, xp.exp(-2.0 * theta.log_sigmas), xp.zeros_like(safe))
    first = moments.resp[:, :, 1 : q + 1]
    pair = backend.asarray(basis.pair.reshape(-1), dtype=xp.int64)
    second = xp.sum(precision[:, :, None] * moments.resp, axis=1)
    normal = xp.reshape(xp.take(second, pair, axis=1), (-1, q, q))
    right = xp.sum(precision[:, :, None] * moments.dev[:, :, 1:], axis=1)
    right = right - xp.sum((precision * moments.dev[:, :, 0] / safe)[:, :, None] * first, axis=1)
    if joint:  # Schur complement of the means: only variation within components is left
        scaled = first * (precision / safe)[:, :, None]
        normal = normal - xp.matmul(xp.matrix_transpose(scaled), first)
    # A term that the samples cannot see (all in one column, say) gets a tiny ridge and so a zero step.
    diagonal = xp.eye(q, dtype=xp.float64, device=backend.device)[None, :, :]
    scale = xp.max(xp.max(xp.abs(normal), axis=2), axis=1)[:, None, None]
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    finite = xp.all(xp.all(xp.isfinite(normal), axis=2), axis=1)[:, None, None]
    normal = xp.where(finite, normal / scale, diagonal) + 1e-12 * diagonal
    return xp.linalg.solve(normal, right[:, :, None] / scale)[:, :, 0]


def _new_square(moments: Moments, shift: Array, step: Array, basis: TrendBasis, backend: Backend) -> Array:
    """Sum of w (d - shift - f.step)^2, (R, K): the squared deviations at the new means and trend."""
    xp = backend.xp
    q = basis.n_terms
    square = moments.square + shift * (shift * moments.resp[:, :, 0] - 2.0 * moments.dev[:, :, 0])
    if q == 0:
        return square
    pair = backend.asarray(basis.pair.reshape(-1), dtype=xp.int64)
    products = xp.reshape(step[:, :, None] * step[:, None, :], (-1, 1, q * q))
    quadratic = xp.sum(xp.take(moments.resp, pair, axis=2) * products, axis=2)
    linear = 2.0 * shift[:, :, None] * moments.resp[:, :, 1 : q + 1] - 2.0 * moments.dev[:, :, 1:]
    return square + quadratic + xp.sum(linear * step[:, None, :], axis=2)


def extrapolate(first: Theta, second: Theta, third: Theta, limit: Array, *, backend: Backend) -> tuple[Theta, Array]:
    """SQUAREM from three successive iterates (Varadhan & Roland 2008, scheme S3), and the step length (R,).

    limit : (R,) largest step length allowed; length 1 gives `third` itself.
    """
    xp = backend.xp
    change = second.map(lambda b, a: b - a, first)
    curvature = third.map(lambda c, b, r: (c - b) - r, second, change)
    length = xp.sqrt(_norm2(change, backend) / xp.clip(_norm2(curvature, backend), 1e-300, math.inf))
    length = xp.where(xp.isfinite(length), length, xp.ones_like(length))
    length = xp.minimum(xp.maximum(length, xp.ones_like(length)), limit)
    a = length[:, None]
    jump = first.map(lambda t, r, v: t + 2.0 * a * r + a * a * v, change, curvature)
    # Weights must sum to one again; a dropped component stays dropped.
    alive = third.log_weights > 0.5 * _DROPPED
    log_weights = xp.where(alive, xp.clip(jump.log_weights, -700.0, 50.0), third.log_weights)
    top = xp.max(log_weights, axis=1)[:, None]
    total = top + xp.log(xp.sum(xp.exp(log_weights - top), axis=1))[:, None]
    jump.log_weights = xp.where(alive, log_weights - total, third.log_weights)
    jump.log_sigmas = xp.clip(jump.log_sigmas, -40.0, 40.0)
    return jump, length


def _norm2(theta: Theta, backend: Backend) -> Array:
    xp = backend.xp
    total = xp.sum(theta.log_weights**2, axis=1) + xp.sum(theta.means**2, axis=1) + xp.sum(theta.log_sigmas**2, axis=1)
    return total + xp.sum(theta.coef**2, axis=1)
