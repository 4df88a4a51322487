"""One pass and one M-step for samples that are vectors, one number a channel (METHOD.md 2 with full covariances).

    z_i ~ sum_k p_k Normal( delta_k + B f_i, Sigma_k ),   z_i and delta_k (C,), B (C, q), Sigma_k (C, C)

With S_k = Sigma_k^-1 and d_ik = z_i - delta_k - B f_i, the gradient of the expected log-likelihood in B is
sum_k S_k sum_i w_ik d_ik f_i^T. It vanishes after the step E that solves

    sum_k S_k E M_k = sum_k S_k D_k,   M_k = sum_i w_ik f_i f_i^T,   D_k = sum_i w_ik d_ik f_i^T,

that is, with the rows of E one after the other, ( sum_k S_k (x) M_k ) vec(E) = vec( sum_k S_k D_k ): C q unknowns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from ..backend import Array, Backend
from .design import Samples, TrendBasis
from .moments import GROUP_SAMPLES, NO_COMPONENT
from .steps import proper_weights, solve_normal, squarem

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_TINY = 1e-100  # smallest pivot of a covariance: far below the floor, above the underflow of its inverse


@dataclass(frozen=True)
class ChannelLayout:
    """Where the parameters of one fit stand in its row of an (R, size) float64 array, on the standardised scale.

    Columns: log weights (K); means (K C); then Sigma_k = T D^2 T^T with T unit lower triangular and D diagonal: log D
    (K C) and T below its diagonal, row by row (K C (C - 1) / 2); trend coefficients B (C q). Any numbers there are a
    proper covariance, so extrapolation needs no care, and with C = 1 the columns are those of `moments.Layout`.
    """

    n_components: int
    n_channels: int
    n_terms: int

    @property
    def n_lower(self) -> int:
        """Entries of T below its diagonal."""
        return self.n_channels * (self.n_channels - 1) // 2

    def split(self, theta: Array, *, backend: Backend) -> tuple[Array, Array, Array, Array, Array]:
        """log_weights (R, K), means and log_scales (R, K, C), lower (R, K, n_lower), coef (R, C, q)."""
        k, c, q = self.n_components, self.n_channels, self.n_terms
        shapes = ((k,), (k, c), (k, c), (k, self.n_lower), (c, q))
        parts, start = [], 0
        for shape in shapes:
            stop = start + math.prod(shape)
            parts.append(backend.xp.reshape(theta[:, start:stop], (theta.shape[0], *shape)))
            start = stop
        return tuple(parts)

    def join(self, *parts: Array, backend: Backend) -> Array:
        """Inverse of `split`."""
        xp = backend.xp
        rows = parts[0].shape[0]
        return xp.concat([xp.reshape(p, (rows, math.prod(p.shape[1:]))) for p in parts], axis=1)


def lower_index(row: int, column: int) -> int:
    """Place of T[row, column], row > column, among the entries below the diagonal."""
    return row * (row - 1) // 2 + column


def factor(covariance: Array, *, backend: Backend) -> tuple[Array, Array]:
    """log_scales (R, K, C) and lower (R, K, n_lower) of covariances (R, K, C, C). Never fails: pivots have a floor."""
    xp = backend.xp
    c = covariance.shape[-1]
    square: list[Array] = []
    t: dict[tuple[int, int], Array] = {}
    for j in range(c):
        pivot = covariance[:, :, j, j]
        for m in range(j):
            pivot = pivot - t[j, m] * t[j, m] * square[m]
        square.append(xp.maximum(pivot, xp.full_like(pivot, _TINY)))
        for i in range(j + 1, c):
            entry = covariance[:, :, i, j]
            for m in range(j):
                entry = entry - t[i, m] * t[j, m] * square[m]
            t[i, j] = entry / square[j]
    below = [t[i, j] for i in range(c) for j in range(i)]
    lower = xp.stack(below, axis=2) if below else covariance[:, :, 0, :0]
    return 0.5 * xp.log(xp.stack(square, axis=2)), lower


def covariances(log_scales: Array, lower: Array, *, backend: Backend) -> Array:
    """(R, K, C, C) from the parameters; inverse of `factor`."""
    xp = backend.xp
    c = log_scales.shape[2]
    one, zero = xp.ones_like(log_scales[:, :, 0]), xp.zeros_like(log_scales[:, :, 0])
    rows = [
        xp.stack([lower[:, :, lower_index(i, j)] if j < i else one if j == i else zero for j in range(c)], axis=2)
        for i in range(c)
    ]
    root = xp.stack(rows, axis=2) * xp.exp(log_scales)[:, :, None, :]
    return xp.matmul(root, xp.matrix_transpose(root))


def whitening(log_scales: Array, lower: Array, *, backend: Backend) -> Array:
    """(R, K, C, C) lower triangular W = D^-1 T^-1, so that Sigma^-1 = W^T W."""
    xp = backend.xp
    c = log_scales.shape[2]
    eye = xp.eye(c, dtype=xp.float64, device=backend.device)
    solved: list[Array] = []
    for i in range(c):
        row = xp.broadcast_to(eye[i, :], log_scales.shape)
        for j in range(i):
            row = row - lower[:, :, lower_index(i, j)][:, :, None] * solved[j]
        solved.append(row)
    return xp.stack(solved, axis=2) * xp.exp(-log_scales)[:, :, :, None]


def above_floor(covariance: Array, floor: Array, *, backend: Backend) -> Array:
    """The likeliest covariances (R, K, C, C) whose variance is nowhere below the floor (R, C).

    In units of the floor, eigenvalues below 1 are raised to 1: the constrained maximum, so the likelihood still
    cannot fall. For one channel it is the larger of variance and squared floor.
    """
    xp = backend.xp
    unit = (floor[:, :, None] * floor[:, None, :])[:, None, :, :]
    scaled = covariance / unit
    sound = xp.all(xp.all(xp.isfinite(scaled), axis=3), axis=2)[:, :, None, None]
    eye = xp.eye(covariance.shape[3], dtype=xp.float64, device=backend.device)
    values, vectors = xp.linalg.eigh(xp.where(sound, scaled, eye[None, None, :, :]))
    lack = xp.maximum(1.0 - values, xp.zeros_like(values))
    raised = xp.matmul(vectors * lack[:, :, None, :], xp.matrix_transpose(vectors))
    return covariance + unit * raised


@dataclass
class ChannelMoments:
    """Sums over samples, float64, of deviations d = z - B f - delta_k at the current parameters.

    log_likelihood : (R,). resp : (R, K, P) sum of w times each monomial (the first is the constant: sum of w).
    dev : (R, K, C, 1 + q) sum of w d times (1, f_1..f_q). square : (R, K, C, C) sum of w d d^T.
    """

    log_likelihood: Array
    resp: Array
    dev: Array
    square: Array


def e_step(samples: Samples, theta: Array, layout: ChannelLayout, *, backend: Backend) -> tuple[Array, Array, Array]:
    """Log-likelihood (R,) float64, deviations (R, blocks, K, C, n) and responsibilities (R, blocks, K, n).

    Responsibilities of padding are 0.
    """
    xp = backend.xp
    log_weights, means, log_scales, lower, coef = layout.split(theta, backend=backend)
    q = layout.n_terms
    residual = samples.z
    if q:
        residual = residual - xp.matmul(backend.real(coef)[:, None, :, :], samples.features[:, :, 1 : q + 1, :])
    deviation = residual[:, :, None, :, :] - backend.real(means)[:, None, :, :, None]
    density = -0.5 * _distance(deviation, log_scales, lower, backend)
    log_scale = log_weights - xp.sum(log_scales, axis=2) - layout.n_channels * _HALF_LOG_2PI
    density += backend.real(xp.maximum(log_scale, xp.full_like(log_scale, NO_COMPONENT)))[:, None, :, None]
    top = xp.max(density, axis=2)
    density = xp.exp(density - top[:, :, None, :])
    total = xp.sum(density, axis=2)
    log_density = (xp.log(total) + top) * samples.valid
    log_likelihood = xp.sum(xp.sum(xp.astype(log_density, xp.float64), axis=2), axis=1)
    return log_likelihood, deviation, density * (samples.valid / total)[:, :, None, :]


def _distance(deviation: Array, log_scales: Array, lower: Array, backend: Backend) -> Array:
    """(R, blocks, K, n) squared Mahalanobis distance: forward substitution, channel by channel."""

    def per_component(values: Array) -> Array:
        return backend.real(values)[:, None, :, None]

    inverse = backend.xp.exp(-2.0 * log_scales)
    solved: list[Array] = []
    distance = None
    for i in range(log_scales.shape[2]):
        y = deviation[:, :, :, i, :]
        for j in range(i):
            y = y - per_component(lower[:, :, lower_index(i, j)]) * solved[j]
        solved.append(y)
        term = y * y * per_component(inverse[:, :, i])
        distance = term if distance is None else distance + term
    return distance


def moments(samples: Samples, theta: Array, layout: ChannelLayout, *, backend: Backend) -> ChannelMoments:
    """All sums of one pass; products in the working precision within a block, blocks added in float64."""
    rows, n_blocks, channels, n = samples.z.shape
    group = max(1, GROUP_SAMPLES // (n_blocks * n * channels))
    edges = [(i, min(i + group, rows)) for i in range(0, rows, group)]
    parts = [_moments(samples.rows(i, j), theta[i:j, :], layout, backend) for i, j in edges]
    if len(parts) == 1:
        return parts[0]
    return ChannelMoments(
        *(backend.xp.concat([getattr(p, f.name) for p in parts], axis=0) for f in fields(ChannelMoments))
    )


def _moments(samples: Samples, theta: Array, layout: ChannelLayout, backend: Backend) -> ChannelMoments:
    xp = backend.xp
    log_likelihood, deviation, resp = e_step(samples, theta, layout, backend=backend)
    rows, n_blocks, k, c, n = deviation.shape

    def add_blocks(array: Array) -> Array:
        return xp.sum(xp.astype(array, xp.float64), axis=1)

    weighted = resp[:, :, :, None, :] * deviation
    columns = xp.concat([resp, xp.reshape(weighted, (rows, n_blocks, k * c, n))], axis=2)
    sums = xp.matrix_transpose(add_blocks(xp.matmul(samples.features, xp.matrix_transpose(columns))))
    return ChannelMoments(
        log_likelihood,
        sums[:, :k, :],
        xp.reshape(sums[:, k:, : layout.n_terms + 1], (rows, k, c, layout.n_terms + 1)),
        add_blocks(xp.matmul(weighted, xp.matrix_transpose(deviation))),
    )


def min_count(layout: ChannelLayout) -> float:
    """A component that holds fewer samples than this is dropped: they cannot span a covariance."""
    return layout.n_channels + 1.0


def m_step(
    sums: ChannelMoments,
    theta: Array,
    basis: TrendBasis,
    *,
    layout: ChannelLayout,
    schedule: str,
    floor: Array,
    pull: Array | None,
    backend: Backend,
) -> Array:
    """Next parameters (R, size).

    floor : (R, C) smallest standard deviation, pull : (R, C) precision of the trend coefficients' prior, standardised.
    """
    xp = backend.xp
    log_weights, means, log_scales, lower, coef = layout.split(theta, backend=backend)
    count = sums.resp[:, :, 0]
    alive = (count >= min_count(layout)) & (log_weights > 0.5 * NO_COMPONENT)
    safe = xp.where(alive, count, xp.ones_like(count))
    shift, step = sums.dev[:, :, :, 0] / safe[:, :, None], coef * 0.0
    if basis.n_terms:
        precision = _precision(log_scales, lower, alive, backend)
        joint = schedule == "fast"
        step = _trend_step(sums, precision, shift, safe, coef, basis, joint=joint, pull=pull, backend=backend)
        shift = shift - _carried(sums, step, safe, backend) if joint else shift
    living = alive[:, :, None]
    shift = xp.where(living, shift, xp.zeros_like(shift))
    square = _new_square(sums, shift, step, basis, backend) / safe[:, :, None, None]
    scales, below = factor(above_floor(square, floor, backend=backend), backend=backend)
    held = xp.where(alive, count, xp.zeros_like(count))
    total = xp.maximum(xp.sum(held, axis=1), xp.ones_like(held[:, 0]))[:, None]
    return layout.join(
        xp.where(alive, xp.log(safe / total), xp.full_like(safe, NO_COMPONENT)),
        means + shift,
        xp.where(living, scales, log_scales),
        xp.where(living, below, lower),
        coef + step,
        backend=backend,
    )


def _carried(sums: ChannelMoments, step: Array, safe: Array, backend: Backend) -> Array:
    """(R, K, C) what a change of the trend takes from the means."""
    xp = backend.xp
    first = sums.resp[:, :, 1 : step.shape[2] + 1]
    return xp.matmul(first, xp.matrix_transpose(step)) / safe[:, :, None]


def _precision(log_scales: Array, lower: Array, alive: Array, backend: Backend) -> Array:
    """S_k (R, K, C, C), zero for dropped components."""
    xp = backend.xp
    root = whitening(log_scales, lower, backend=backend)
    inverse = xp.matmul(xp.matrix_transpose(root), root)
    return xp.where(alive[:, :, None, None], inverse, xp.zeros_like(inverse))


def _trend_step(
    sums: ChannelMoments,
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
    """E (R, C, q): the change of B, given the means or jointly with them; see the equations at the top."""
    xp = backend.xp
    rows, c, q = coef.shape
    first = sums.resp[:, :, 1 : q + 1]
    gram = xp.take(sums.resp, backend.asarray(basis.pair.reshape(-1)), axis=2)
    gram = xp.reshape(gram, (*gram.shape[:2], q, q))
    cross = sums.dev[:, :, :, 1:] - shift[:, :, :, None] * first[:, :, None, :]
    if joint:  # Schur complement of the means: only variation within components is left
        gram = gram - first[:, :, :, None] * (first / safe[:, :, None])[:, :, None, :]
    normal = xp.sum(precision[:, :, :, None, :, None] * gram[:, :, None, :, None, :], axis=1)
    normal = xp.reshape(normal, (rows, c * q, c * q))
    right = xp.reshape(xp.sum(xp.matmul(precision, cross), axis=1), (rows, c * q))
    if pull is not None:
        each = xp.reshape(xp.broadcast_to(pull[:, :, None], coef.shape), (rows, c * q))
        normal = normal + each[:, :, None] * xp.eye(c * q, dtype=xp.float64, device=backend.device)
        right = right - each * xp.reshape(coef, (rows, c * q))
    return xp.reshape(solve_normal(normal, right, backend=backend), (rows, c, q))


def _new_square(sums: ChannelMoments, shift: Array, step: Array, basis: TrendBasis, backend: Backend) -> Array:
    """Sum of w e e^T, (R, K, C, C), of the deviations e = d - shift - E f at the new means and trend."""
    xp = backend.xp
    q = basis.n_terms
    # With g = (1, f) and G = (shift, E) the sum is that of w (d - G g)(d - G g)^T.
    pair = np.pad(basis.pair.reshape(q, q), ((1, 0), (1, 0)))
    pair[0, :] = pair[:, 0] = np.arange(q + 1)
    gram = xp.take(sums.resp, backend.asarray(pair.reshape(-1)), axis=2)
    gram = xp.reshape(gram, (*gram.shape[:2], q + 1, q + 1))
    move = xp.broadcast_to(step[:, None, :, :], (*shift.shape, q))
    move = xp.concat([shift[:, :, :, None], move], axis=3)
    linear = xp.matmul(sums.dev, xp.matrix_transpose(move))
    quadratic = xp.matmul(xp.matmul(move, gram), xp.matrix_transpose(move))
    return sums.square - linear - xp.matrix_transpose(linear) + quadratic


def extrapolate(
    first: Array,
    second: Array,
    third: Array,
    limit: Array,
    *,
    layout: ChannelLayout,
    floor: Array,
    backend: Backend,
) -> tuple[Array, Array]:
    """As `steps.extrapolate`; the covariances of the result stay above the floor (R, C)."""
    xp = backend.xp
    jump, length = squarem(first, second, third, limit, backend=backend)
    log_weights, means, log_scales, lower, coef = layout.split(jump, backend=backend)
    log_weights = proper_weights(log_weights, layout.split(third, backend=backend)[0], backend=backend)
    square = covariances(xp.clip(log_scales, -40.0, 40.0), xp.clip(lower, -1e6, 1e6), backend=backend)
    log_scales, lower = factor(above_floor(square, floor, backend=backend), backend=backend)
    return layout.join(log_weights, means, log_scales, lower, coef, backend=backend), length
