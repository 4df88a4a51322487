"""One pass over the samples: responsibilities, log-likelihood and the sums that an M-step needs (METHOD.md 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backend import Array, Backend
from .design import Samples

_NO_COMPONENT = -1e30  # log-density of a dropped component: finite, so that no difference of infinities arises


@dataclass
class Theta:
    """Parameters on the standardised scale, float64. log_weights, means, log_sigmas : (R, K); coef : (R, q).

    A dropped component has log weight -1e30.
    """

    log_weights: Array
    means: Array
    log_sigmas: Array
    coef: Array

    def map(self, function, *others: Theta) -> Theta:  # type: ignore[no-untyped-def]
        """Apply `function` field by field."""
        names = ("log_weights", "means", "log_sigmas", "coef")
        return Theta(*(function(*(getattr(theta, name) for theta in (self, *others))) for name in names))


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


def e_step(samples: Samples, theta: Theta, *, backend: Backend) -> tuple[Array, Array, Array]:
    """Log-likelihood (R,) float64, deviations and responsibilities (R, blocks, K, n) by log-sum-exp.

    Responsibilities of padding are 0.
    """
    xp = backend.xp

    def per_component(values: Array) -> Array:
        return xp.astype(values, backend.dtype)[:, None, :, None]

    residual = samples.z
    q = samples.basis.n_terms
    if q:
        trend = xp.matmul(xp.astype(theta.coef, backend.dtype)[:, None, None, :], samples.features[:, :, 1 : q + 1, :])
        residual = residual - trend[:, :, 0, :]
    deviation = residual[:, :, None, :] - per_component(theta.means)
    density = deviation * deviation
    density *= per_component(-0.5 * xp.exp(-2.0 * theta.log_sigmas))
    log_scale = theta.log_weights - theta.log_sigmas - 0.5 * math.log(2 * math.pi)
    density += per_component(xp.clip(log_scale, _NO_COMPONENT, -_NO_COMPONENT))
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


def moments(samples: Samples, theta: Theta, *, backend: Backend) -> Moments:
    """All sums of one pass; products in the working precision within a block, blocks added in float64."""
    xp = backend.xp
    log_likelihood, deviation, resp = e_step(samples, theta, backend=backend)
    features = xp.matrix_transpose(samples.features)

    def add_blocks(array: Array) -> Array:
        return xp.sum(xp.astype(array, xp.float64), axis=1)

    weighted = resp * deviation
    return Moments(
        log_likelihood,
        add_blocks(xp.matmul(resp, features)),
        add_blocks(xp.matmul(weighted, features[..., : samples.basis.n_terms + 1])),
        add_blocks(xp.vecdot(weighted, deviation)),
    )
