"""M-steps from one pass's moments, and SQUAREM extrapolation (METHOD.md 2, 3).

Both schedules read the same moments. `reference` is CM1, CM2, CM3 of the paper in this order. `fast` solves means
and trend jointly, then takes sigma at the *new* parameters, which the moments give exactly; so it too is an ECM
step and the log-likelihood cannot fall.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, Backend
from .design import Samples, TrendBasis
from .moments import NO_COMPONENT, Layout, Moments

MIN_COUNT = 2.0
"""A component that holds fewer samples than this is dropped."""


def m_step(
    moments: Moments,
    theta: Array,
    basis: TrendBasis,
    *,
    layout: Layout,
    schedule: str,
    floor: Array,
    pull: Array | None = None,
    backend: Backend,
) -> Array:
    """Next parameters (R, 3K + q).

    floor : (R,) smallest sigma, standardised. pull : (R,) precision of the trend coefficients' prior, standardised.
    """
    xp = backend.xp
    log_weights, means, log_sigmas, coef = layout.split(theta)
    count = moments.resp[:, :, 0]
    alive = (count >= MIN_COUNT) & (log_weights > 0.5 * NO_COMPONENT)
    all_alive = bool(xp.all(alive))
    safe = count if all_alive else xp.where(alive, count, xp.ones_like(count))
    shift = moments.dev[:, :, 0] / safe
    step = coef * 0.0
    if basis.n_terms:
        precision = xp.where(alive, xp.exp(-2.0 * log_sigmas), xp.zeros_like(safe))
        joint = schedule == "fast"
        step = _trend_step(moments, precision, shift, safe, coef, basis, joint=joint, pull=pull, backend=backend)
        if joint:
            first = moments.resp[:, :, 1 : basis.n_terms + 1]
            shift = shift - xp.matmul(first, step[:, :, None])[:, :, 0] / safe
    if not all_alive:
        shift = xp.where(alive, shift, xp.zeros_like(shift))
    variance = xp.maximum(new_square(moments, shift, step, basis, backend) / safe, floor[:, None] ** 2)
    held = xp.where(alive, count, xp.zeros_like(count))
    total = xp.maximum(xp.sum(held, axis=1), xp.ones_like(floor))[:, None]
    return xp.concat(
        [
            xp.where(alive, xp.log(safe / total), xp.full_like(safe, NO_COMPONENT)),
            means + shift,
            xp.where(alive, 0.5 * xp.log(variance), log_sigmas),
            coef + step,
        ],
        axis=1,
    )


def _trend_step(
    moments: Moments,
    precision: Array,
    shift: Array,
    safe: Array,
    coef: Array,
    basis: TrendBasis,
    *,
    joint: bool,
    pull: Array | None,
    backend: Backend,
) -> Array:
    """Change of the trend coefficients, (R, q): weighted least squares given the means, or jointly with them."""
    xp = backend.xp
    q = basis.n_terms
    pair = backend.asarray(basis.pair.reshape(-1), dtype=xp.int64)
    row = precision[:, None, :]
    first = moments.resp[:, :, 1 : q + 1]
    second = xp.matmul(row, moments.resp)[:, 0, :]
    normal = xp.reshape(xp.take(second, pair, axis=1), (-1, q, q))
    right = xp.matmul(row, moments.dev[:, :, 1:] - shift[:, :, None] * first)[:, 0, :]
    if joint:  # Schur complement of the means: only variation within components is left
        normal = normal - xp.matmul(xp.matrix_transpose(first * (precision / safe)[:, :, None]), first)
    if pull is not None:
        normal = normal + pull[:, None, None] * xp.eye(q, dtype=xp.float64, device=backend.device)
        right = right - pull[:, None] * coef
    return solve_normal(normal, right, backend=backend)


def trend_pull(samples: Samples, prior: float | None) -> Array | None:
    """Precision of the prior of a trend coefficient, standardised: (R,), or (R, C) for channels; None: no prior.

    prior : its standard deviation in grey levels.
    """
    return None if prior is None else (samples.scale / prior) ** 2


def log_prior(coef: Array, pull: Array | None, *, backend: Backend) -> Array:
    """(R,) log density of the trend coefficients (R, q) or (R, C, q) under their prior, constants left out."""
    xp = backend.xp
    each = xp.vecdot(coef, coef)
    each = each * 0.0 if pull is None else -0.5 * pull * each
    return xp.sum(xp.reshape(each, (coef.shape[0], -1)), axis=1)


def solve_normal(normal: Array, right: Array, *, backend: Backend) -> Array:
    """Solution (R, q) of the normal equations (R, q, q), (R, q) of a trend step; zero where they say nothing."""
    # A ridge above the rounding of the sums keeps a term that the samples cannot see (all in one column, say) from
    # running away. It shortens steps, it does not move the fixed point.
    xp, q = backend.xp, right.shape[1]
    eye = xp.eye(q, dtype=xp.float64, device=backend.device)
    scale = xp.max(xp.reshape(xp.abs(normal), (-1, q * q)), axis=1)
    usable = (scale > 0) & (scale < 1e300)
    scale = xp.where(usable, scale, xp.ones_like(scale))[:, None, None]
    normal = xp.where(usable[:, None, None], normal / scale, eye[None, :, :]) + 64 * xp.finfo(backend.dtype).eps * eye
    return xp.linalg.solve(normal, right[:, :, None] / scale)[:, :, 0]


def new_square(moments: Moments, shift: Array, step: Array, basis: TrendBasis, backend: Backend) -> Array:
    """Sum of w (d - shift - f.step)^2, (R, K): the squared deviations at the new means and trend."""
    xp = backend.xp
    q = basis.n_terms
    square = moments.square + shift * (shift * moments.resp[:, :, 0] - 2.0 * moments.dev[:, :, 0])
    if q == 0:
        return square
    pair = backend.asarray(basis.pair.reshape(-1), dtype=xp.int64)
    products = xp.reshape(step[:, :, None] * step[:, None, :], (-1, q * q, 1))
    square = square + xp.matmul(xp.take(moments.resp, pair, axis=2), products)[:, :, 0]
    linear = shift[:, :, None] * moments.resp[:, :, 1 : q + 1] - moments.dev[:, :, 1:]
    return square + 2.0 * xp.matmul(linear, step[:, :, None])[:, :, 0]


def moved(moments: Moments, shift: Array, step: Array, basis: TrendBasis, *, backend: Backend) -> Moments:
    """The sums about means (R, K) moved by `shift` and a trend moved by `step` (R, q), same responsibilities."""
    xp, q = backend.xp, basis.n_terms
    dev = moments.dev - shift[:, :, None] * moments.resp[:, :, : q + 1]
    if q:
        pair = backend.asarray(np.concatenate([np.arange(1, q + 1), basis.pair.reshape(-1)]), dtype=xp.int64)
        products = xp.reshape(xp.take(moments.resp, pair, axis=2), (*dev.shape, q))
        dev = dev - xp.matmul(products, step[:, None, :, None])[..., 0]
    square = new_square(moments, shift, step, basis, backend)
    return Moments(moments.log_likelihood, moments.resp, dev, square)


def extrapolate(
    first: Array, second: Array, third: Array, limit: Array, *, layout: Layout, floor: Array, backend: Backend
) -> tuple[Array, Array]:
    """SQUAREM from three successive iterates (Varadhan & Roland 2008, scheme S3), and the step length (R,).

    limit : (R,) largest step length allowed; length 1 gives `third` itself. floor : (R,) smallest sigma, standardised;
    below it the likelihood could rise without bound, and the next M-step would have to let it fall again.
    """
    xp = backend.xp
    jump, length = squarem(first, second, third, limit, backend=backend)
    log_weights, means, log_sigmas, coef = layout.split(jump)
    log_weights = proper_weights(log_weights, layout.split(third)[0], backend=backend)
    log_sigmas = xp.clip(xp.maximum(log_sigmas, xp.log(floor)[:, None]), -40.0, 40.0)
    return xp.concat([log_weights, means, log_sigmas, coef], axis=1), length


def squarem(first: Array, second: Array, third: Array, limit: Array, *, backend: Backend) -> tuple[Array, Array]:
    """The extrapolated parameters (R, n), under no constraint yet, and the step length (R,)."""
    xp = backend.xp
    change = second - first
    curvature = third - second - change
    length = xp.sqrt(xp.vecdot(change, change) / (xp.vecdot(curvature, curvature) + 1e-300))
    length = xp.minimum(xp.maximum(length, xp.ones_like(length)), limit)
    a = length[:, None]
    return first + 2.0 * a * change + a * a * curvature, length


def proper_weights(log_weights: Array, before: Array, *, backend: Backend) -> Array:
    """Extrapolated log weights (R, K) that sum to one again; a component dropped in `before` stays dropped."""
    xp = backend.xp
    dropped = before < 0.5 * NO_COMPONENT
    log_weights = xp.where(dropped, xp.full_like(log_weights, NO_COMPONENT), log_weights)
    top = xp.max(log_weights, axis=1)[:, None]
    total = top + xp.log(xp.sum(xp.exp(log_weights - top), axis=1))[:, None]
    return xp.where(dropped, log_weights, log_weights - total)
