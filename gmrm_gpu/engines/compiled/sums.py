"""One pass over samples: responsibilities, log-likelihood, and the sums an M-step needs (METHOD.md 2).

The functions of a block follow each other as `sum_block` calls them; all work in the rows of a `Work`, where a block's
numbers stay in the processor's first cache. float32 within a block, float64 beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .jit import bits_of_float, compiled, exp2, float_of_bits
from .samples import aligned

if TYPE_CHECKING:
    from .device import Call

BLOCK = 512
"""Samples that are worked on at a time."""
TILE = 8
"""Sums that one sweep over a block carries in registers; tables of monomials have so many rows to spare."""

NO_COMPONENT = -1e30
"""Log density of a dropped component: finite, so that no difference of infinities arises."""
LOG2_E, LN_2, HALF_LOG_2PI = 1.4426950408889634, 0.6931471805599453, 0.9189385332046727

_ZERO, _ONE, _LOWEST_LEVEL = np.float32(0.0), np.float32(1.0), np.float32(NO_COMPONENT)
# Smaller shares of a sample change no sum, and stay far from subnormal numbers, which are slow on some processors.
_LEAST_LOG2 = np.float32(-100.0)
_FIRST = np.int64(0)  # a number of NumPy's: for one of Python's, Numba would compile a function anew
_MANTISSA_BITS, _BIAS, _MANTISSA, _BITS_OF_ONE = (np.int32(n) for n in (23, 127, 0x7FFFFF, 0x3F800000))


class Model(NamedTuple):
    """Sizes and monomials of a mixture (METHOD.md 1), for compiled functions.

    Parameters of a fit are float64, standardised: log weights, means, log sigmas (K each), coefficients (q).
    Densities are float32 in the same places: level, mean, sharpness, coefficients; the log2 density of component k
    is level - sharpness * (residual - mean)^2.
    Sums are float64: per component the sum of w times each monomial (P), the sums of w d times (1, f_1..f_q), the sum
    of w d^2; last the log-likelihood. w are responsibilities, d = z - f.beta - delta_k.

    Attributes
    ----------
    k, q, p : components, terms, monomials: 1, the terms, and the further products of two of them.
    steps : (steps, 3) int64: which row of a table is which row before it times x (0) or y (1); rows from p on are only
        on the way to others. n_rows : of such a table. pair : (q, q) int64, the monomial that is the product of two
        terms.
    """

    k: Any
    q: Any
    p: Any
    steps: Any
    n_rows: Any
    pair: Any


def make_model(call: Call) -> Model:
    """The model that a kernel's constants describe."""
    powers = list(zip(*(call.integers(name).tolist() for name in ("MONOMIAL_X", "MONOMIAL_Y")), strict=True))
    k, q, p = (int(call.constants[name]) for name in ("N_COMPONENTS", "N_TERMS", "N_MONOMIALS"))
    for a, b in powers:  # those added on the way are visited too
        if (a, b) != (0, 0) and not {(a - 1, b), (a, b - 1)} & set(powers):
            powers.append((a - 1, b) if a else (a, b - 1))
    row = {power: i for i, power in enumerate(powers)}
    steps = [
        (row[a, b], row[a - 1, b], 0) if (a - 1, b) in row else (row[a, b], row[a, b - 1], 1)
        for a, b in sorted(powers, key=sum)
        if (a, b) != (0, 0)
    ]
    pair = call.integers("PAIR_OF_TERMS")[: q * q].reshape(q, q)
    return Model(k, q, p, np.array(steps, dtype=np.int64).reshape(-1, 3), len(powers), pair)


class Work(NamedTuple):
    """Scratch of one thread, float32; `BLOCK` numbers a row.

    Attributes
    ----------
    basis : (rows, BLOCK) monomials. resp : (K, BLOCK) log2 densities, then responsibilities. residual, top, total :
        (BLOCK,). weighted : (1, BLOCK).
    """

    basis: Any
    resp: Any
    residual: Any
    top: Any
    total: Any
    weighted: Any


def make_work(model: Model) -> Work:
    """Scratch for `model`."""
    n_rows = max(model.n_rows, -(-model.p // TILE) * TILE, -(-(model.q + 1) // TILE) * TILE, model.q + 2)
    basis, resp = aligned((n_rows, BLOCK)), aligned((model.k, BLOCK))
    basis[0] = 1.0
    residual, top, total = aligned((3, BLOCK))
    return Work(basis, resp, residual, top, total, aligned((1, BLOCK)))


def n_sums(model: Model) -> int:
    """Float64 sums of a pass."""
    return model.k * (model.p + model.q + 2) + 1


@compiled
def level_of(theta, model, k):
    """Log2 density of component k at its mean; a dropped one's is `NO_COMPONENT`."""
    level = LOG2_E * (theta[k] - theta[2 * model.k + k] - HALF_LOG_2PI)
    return level if level > NO_COMPONENT else NO_COMPONENT


@compiled
def sharpness_of(theta, model, k):
    """What the log2 density of component k loses at a distance of 1."""
    return 0.5 * LOG2_E * np.exp(-2.0 * theta[2 * model.k + k])


@compiled
def make_densities(theta, model, densities):
    """The parameters as the samples see them, see `Model`; densities : (3 K + q,) float32."""
    for i in range(theta.size):
        densities[i] = np.float32(theta[i])
    for k in range(model.k):
        densities[k] = np.float32(level_of(theta, model, k))
        densities[2 * model.k + k] = np.float32(sharpness_of(theta, model, k))


@compiled
def rounding_of(theta, sums, model):
    """What the rounding of parameters to float32 took from the log-likelihood, to first order.

    Its derivatives are sums that are there already. Without it the log-likelihood is noisy by 1e-7 a sample.
    """
    lost = 0.0
    means, coef = theta[model.k : 2 * model.k], theta[3 * model.k :]
    for k in range(model.k):
        level, sharpness = level_of(theta, model, k), sharpness_of(theta, model, k)
        if level <= 0.5 * NO_COMPONENT:
            continue
        at = k * (model.p + model.q + 2)
        devs, square = sums[at + model.p :], sums[at + model.p + model.q + 1]
        lost += (level - np.float32(level)) * sums[at] - (sharpness - np.float32(sharpness)) * square
        lost += 2.0 * sharpness * (means[k] - np.float32(means[k])) * devs[0]
        for j in range(model.q):
            lost += 2.0 * sharpness * (coef[j] - np.float32(coef[j])) * devs[1 + j]
    return LN_2 * lost


# Rows are chosen by their number within the loops: a view of a row would be counted as a reference, which costs as
# much as the loop.


@compiled
def make_basis(x, y, model, basis):
    """All monomials at a block's coordinates; row 0 of `basis` is 1."""
    for s in range(model.steps.shape[0]):
        row, parent = model.steps[s, 0], model.steps[s, 1]
        if model.steps[s, 2]:
            _multiply(basis, parent, y, row)
        else:
            _multiply(basis, parent, x, row)


@compiled
def _multiply(table, row, factors, out):
    for i in range(factors.size):
        table[out, i] = table[row, i] * factors[i]


@compiled
def make_residuals(z, model, densities, work):
    """z - f.beta. The trend is small beside z: summed by itself it rounds less."""
    basis, residual = work.basis, work.residual
    for i in range(z.size):
        residual[i] = _ZERO
    for j in range(0, model.q - 1, 2):
        _add_two(densities[3 * model.k + j], densities[3 * model.k + j + 1], basis, 1 + j, residual, z.size)
    if model.q % 2:
        _add_two(densities[3 * model.k + model.q - 1], _ZERO, basis, model.q, residual, z.size)
    for i in range(z.size):
        residual[i] = z[i] - residual[i]


@compiled
def _add_two(c, d, table, row, out, n):
    for i in range(n):
        out[i] += c * table[row, i] + d * table[row + 1, i]


@compiled
def make_log_densities(model, densities, work, n):
    """Log2 densities of all components into work.resp."""
    residual, resp = work.residual, work.resp
    for k in range(model.k):
        _log_density(residual, densities[k], densities[model.k + k], densities[2 * model.k + k], resp, k, n)


@compiled
def _log_density(residual, level, mean, sharpness, table, row, n):
    for i in range(n):
        deviation = residual[i] - mean
        table[row, i] = level - sharpness * (deviation * deviation)


@compiled
def normalise(model, work, n):
    """Log2 densities in work.resp to responsibilities; returns the sum of the samples' log2 densities."""
    find_top(model, work, n)
    for k in range(model.k):
        _powers(work.resp, k, work.top, work.total, n)
    return share_out(model, work, n)


@compiled
def find_top(model, work, n):
    """The highest log2 densities into work.top; work.total is set to 0."""
    resp, top, total = work.resp, work.top, work.total
    for i in range(n):
        top[i] = _LOWEST_LEVEL
        total[i] = _ZERO
    for k in range(model.k):
        _highest(resp, k, top, n)


@compiled
def share_out(model, work, n):
    """Relative densities in work.resp divided by work.total, their sum.

    Returns
    -------
    float
        The sum of the samples' log2 densities.
    """
    resp, top, total = work.resp, work.top, work.total
    logs = _sum_of_log2(top, total, n)
    for i in range(n):
        total[i] = _ONE / total[i]
    for k in range(model.k):
        _scale(resp, k, total, n)
    return logs


@compiled
def _highest(table, row, top, n):
    for i in range(n):
        top[i] = max(table[row, i], top[i])


@compiled
def _powers(table, row, top, total, n):
    for i in range(n):
        below = table[row, i] - top[i]
        power = exp2(_LEAST_LOG2 if below < _LEAST_LOG2 else below)  # NaN stays NaN
        table[row, i] = power
        total[i] += power


@compiled
def _scale(table, row, factors, n):
    for i in range(n):
        table[row, i] *= factors[i]


@compiled
def _sum_of_log2(top, total, n):
    """Sum of top + log2(total), float64: one logarithm, of the product of up to 1,023 mantissas, each in [1, 2)."""
    tops, exponents, product, check = 0.0, 0, 1.0, _ZERO
    for i in range(n):
        bits = bits_of_float(total[i])
        exponents += (bits >> _MANTISSA_BITS) - _BIAS
        product *= np.float64(float_of_bits((bits & _MANTISSA) | _BITS_OF_ONE))
        tops += np.float64(top[i])
        check += total[i]
    return tops + exponents + np.log2(product) if check == check else np.nan


@compiled
def add_moments(model, densities, work, n, sums):
    """Add a block's sums, all but the log-likelihood, see `Model`."""
    basis, resp, residual, weighted = work.basis, work.resp, work.residual, work.weighted
    for k in range(model.k):
        at = k * (model.p + model.q + 2)
        square = _weigh_deviations(resp, k, residual, densities[model.k + k], weighted, n)
        add_products(resp, k, basis, model.p, n, sums, at)
        add_products(weighted, _FIRST, basis, model.q + 1, n, sums, at + model.p)
        sums[at + model.p + model.q + 1] += square


@compiled
def _weigh_deviations(resp, k, residual, mean, out, n):
    """out = w d; returns the sum of w d^2."""
    total = _ZERO
    for i in range(n):
        deviation = residual[i] - mean
        weighted = resp[k, i] * deviation
        out[0, i] = weighted
        total += weighted * deviation
    return total


@compiled
def add_products(weights, k, table, n_rows, n, sums, at):
    """sums[at + j] += the sum of weights[k] times row j of a table, j < n_rows.

    A sweep takes eight rows; some of the last ones may be to spare.
    """
    first = _FIRST
    while n_rows - first > 4:
        _eight_sums(weights, k, table, first, n, sums, at + first, min(TILE, n_rows - first))
        first += TILE
    if n_rows - first == 1:
        _one_sum(weights, k, table, first, n, sums, at + first)
    elif n_rows > first:
        _four_sums(weights, k, table, first, n, sums, at + first, n_rows - first)


@compiled
def _one_sum(w, k, f, j, n, sums, at):
    total = _ZERO
    for i in range(n):
        total += w[k, i] * f[j, i]
    sums[at] += total


@compiled
def _four_sums(w, k, f, j, n, sums, at, wanted):
    a = b = c = d = _ZERO
    for i in range(n):
        a += w[k, i] * f[j, i]
        b += w[k, i] * f[j + 1, i]
        c += w[k, i] * f[j + 2, i]
        d += w[k, i] * f[j + 3, i]
    found = (a, b, c, d)
    for m in range(wanted):
        sums[at + m] += found[m]


@compiled
def _eight_sums(w, k, rows, j, n, sums, at, wanted):
    a = b = c = d = e = f = g = h = _ZERO
    for i in range(n):
        a += w[k, i] * rows[j, i]
        b += w[k, i] * rows[j + 1, i]
        c += w[k, i] * rows[j + 2, i]
        d += w[k, i] * rows[j + 3, i]
        e += w[k, i] * rows[j + 4, i]
        f += w[k, i] * rows[j + 5, i]
        g += w[k, i] * rows[j + 6, i]
        h += w[k, i] * rows[j + 7, i]
    found = (a, b, c, d, e, f, g, h)
    for m in range(wanted):
        sums[at + m] += found[m]


@compiled
def sum_block(z, x, y, model, densities, work, sums):
    """Add the sums of at most `BLOCK` samples."""
    n = z.size
    make_basis(x, y, model, work.basis)
    make_residuals(z, model, densities, work)
    make_log_densities(model, densities, work, n)
    sums[-1] += LN_2 * normalise(model, work, n)
    add_moments(model, densities, work, n, sums)


@compiled
def sum_samples(z, x, y, model, densities, work, sums):
    """All sums of samples.

    Parameters
    ----------
    z, x, y : (n,) float32, standardised values and coordinates. densities : see `make_densities`.
    sums : (N_SUMS,) float64, overwritten.
    """
    for s in range(sums.size):
        sums[s] = 0.0
    for first in range(0, z.size, BLOCK):
        last = min(first + BLOCK, z.size)
        sum_block(z[first:last], x[first:last], y[first:last], model, densities, work, sums)
