"""M-steps from one pass's sums, and SQUAREM (METHOD.md 2, 3), float64; the twin of `kernels/step.cuh`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .jit import exactly
from .sums import NO_COMPONENT, Model

MIN_COUNT = 2.0
"""A component that holds fewer samples is dropped."""
_LEAST_RIDGE = 64 * 1.1920928955078125e-07


class StepWork(NamedTuple):
    """Scratch of a step, float64: count, precision, shift (K,), normal (q, q + 1), the right-hand side last."""

    count: Any
    precision: Any
    shift: Any
    normal: Any


def make_step_work(model: Model) -> StepWork:
    """Scratch for `model`."""
    count, precision, shift = np.zeros((3, model.k))
    return StepWork(count, precision, shift, np.zeros((model.q, model.q + 1)))


@exactly
def normal_equations(sums, theta, joint, pull, model, work):
    """Those of the trend step: given the means, or jointly with them by the Schur complement."""
    k_all, q, p = model.k, model.q, model.p
    for i in range(q):
        for j in range(q + 1):
            work.normal[i, j] = 0.0
    for k in range(k_all):
        at, precision = k * (p + q + 2), work.precision[k]
        for i in range(q):
            first = sums[at + 1 + i]
            for j in range(q):
                total = sums[at + model.pair[i, j]]
                if joint:
                    total -= first * sums[at + 1 + j] / work.count[k]
                work.normal[i, j] += precision * total
            work.normal[i, q] += precision * (sums[at + p + 1 + i] - work.shift[k] * first)
    for i in range(q):
        work.normal[i, i] += pull
        work.normal[i, q] -= pull * theta[3 * k_all + i]


@exactly
def solve_normal(normal):
    """Solve them in place: the step is then the last column.

    A ridge above the rounding of the sums keeps a term that the samples cannot see from running away; it shortens
    steps, it does not move the fixed point.
    """
    q = normal.shape[0]
    largest = 0.0
    for i in range(q):
        for j in range(q):
            largest = max(largest, abs(normal[i, j]))
    usable = 0.0 < largest < 1e300
    for i in range(q):
        for j in range(q + 1):
            if usable:
                normal[i, j] /= largest
            elif j < q:
                normal[i, j] = i == j
        normal[i, i] += _LEAST_RIDGE
    for c in range(q):  # Gauss-Jordan; positive definite, so no pivoting
        inverse = 1.0 / normal[c, c]
        for j in range(q + 1):
            normal[c, j] *= inverse
        for i in range(q):
            if i != c:
                factor = normal[i, c]
                for j in range(q + 1):
                    normal[i, j] -= factor * normal[c, j]


@exactly
def trend_part(sums, at, shift, model, normal):
    """What the change of the trend adds to a component's sum of squares; its sums begin at `at`."""
    q, part = model.q, 0.0
    for i in range(q):
        total = 2.0 * (shift * sums[at + 1 + i] - sums[at + model.p + 1 + i])
        for j in range(q):
            total += sums[at + model.pair[i, j]] * normal[j, q]
        part += total * normal[i, q]
    return part


@exactly
def _begin(sums, theta, model, work):
    """Counts, precisions and mean shifts of the components; returns how many samples those alive hold."""
    held = 0.0
    for k in range(model.k):
        at = k * (model.p + model.q + 2)
        alive = sums[at] >= MIN_COUNT and theta[k] > 0.5 * NO_COMPONENT
        work.count[k] = sums[at] if alive else 1.0
        work.precision[k] = np.exp(-2.0 * theta[2 * model.k + k]) if alive else 0.0
        work.shift[k] = sums[at + model.p] / work.count[k]
        held += sums[at] if alive else 0.0
    return held


@exactly
def m_step(sums, theta, joint, floor, pull, model, work, out):
    """The next parameters, into `out`; `theta` and `out` as in `sums.Model`.

    Parameters
    ----------
    joint : means and trend together (the fast schedule), or one after the other. floor : smallest sigma, pull :
        precision of the trend's prior, both standardised.
    """
    k_all, q = model.k, model.q
    held = _begin(sums, theta, model, work)
    if q:
        normal_equations(sums, theta, joint, pull, model, work)
        solve_normal(work.normal)
    # Steps start from the float32 values that the deviations were taken from.
    for i in range(q):
        out[3 * k_all + i] = np.float64(np.float32(theta[3 * k_all + i])) + work.normal[i, q]
    for k in range(k_all):
        at, shift, count = k * (model.p + q + 2), work.shift[k], work.count[k]
        alive = work.precision[k] > 0.0
        if joint:
            for i in range(q):
                shift -= sums[at + 1 + i] * work.normal[i, q] / count
        shift = shift if alive else 0.0
        square = sums[at + model.p + q + 1] + shift * (shift * sums[at] - 2.0 * sums[at + model.p])
        variance = (square + trend_part(sums, at, shift, model, work.normal)) / count
        variance = floor * floor if variance <= floor * floor else variance  # NaN stays NaN
        out[k] = np.log(count / max(held, 1.0)) if alive else NO_COMPONENT
        out[k_all + k] = np.float64(np.float32(theta[k_all + k])) + shift
        out[2 * k_all + k] = 0.5 * np.log(variance) if alive else theta[2 * k_all + k]


@exactly
def extrapolate(first, second, third, limit, floor, model, out):
    """SQUAREM from three successive iterates (Varadhan & Roland 2008, scheme S3), into `out`.

    limit : largest length allowed; length 1 gives `third` itself. floor : log sigmas stay above its logarithm.

    Returns
    -------
    float
        The step length.
    """
    changes = curvatures = 0.0
    for i in range(first.size):
        changes += (second[i] - first[i]) ** 2
        curvatures += (third[i] - second[i] - (second[i] - first[i])) ** 2
    length = min(max(np.sqrt(changes / (curvatures + 1e-300)), 1.0), limit)
    for i in range(first.size):
        change = second[i] - first[i]
        out[i] = first[i] + 2.0 * length * change + length * length * (third[i] - second[i] - change)
    _normalise_weights(out, third, model.k)
    for i in range(2 * model.k, 3 * model.k):
        lowest = np.log(floor)
        value = lowest if out[i] < lowest else out[i]
        out[i] = min(max(value, -40.0), 40.0)
    return length


@exactly
def _normalise_weights(log_weights, before, n):
    """Log weights so that the weights sum to 1; components dropped in `before` stay so."""
    top, total = NO_COMPONENT, 0.0
    for k in range(n):
        if before[k] >= 0.5 * NO_COMPONENT:
            top = max(top, log_weights[k])
    for k in range(n):
        if before[k] >= 0.5 * NO_COMPONENT:
            total += np.exp(log_weights[k] - top)
    for k in range(n):
        log_weights[k] = log_weights[k] - (top + np.log(total)) if before[k] >= 0.5 * NO_COMPONENT else NO_COMPONENT
