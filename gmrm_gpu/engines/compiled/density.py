"""How likely each component makes a sample, from the parameters of a finished fit; port of ``kernels/density.cuh``.

Log2 densities are level - ((z - f.beta - mean) scale)^2, less a constant common to all; means and z are less `centre`,
a whole number. All in float32, rounded as written, since `Densities.slack` bounds that; and in float64 for near ties.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import compiled, exactly
from .sums import BLOCK, NO_COMPONENT

_ROOT_HALF_LOG2_E, _SLACK = 0.849321800288019, 1.0 / 131072.0
MOST_EXPONENT = 4


class Trend(NamedTuple):
    """Exponents of the trend's terms, (Q,) int64 each, and the sides of a frame."""

    power_x: np.ndarray
    power_y: np.ndarray
    height: int
    width: int


class Densities(NamedTuple):
    """A fit as its samples see it, float64.

    level, mean, scale : (K,). coef : (Q,). bounds : (3,), centre, slack and slope: float32 densities that differ by
    more than slack - slope * second, `second` being the smaller, are in their right order.
    """

    level: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    bounds: np.ndarray


class Scratch(NamedTuple):
    """Of one thread, float32, BLOCK numbers a row: values, scaled coordinates and their powers, densities."""

    values: np.ndarray
    of_x: np.ndarray
    of_y: np.ndarray
    density: np.ndarray


@compiled
def make_scratch(n_components):
    """Memory of one thread."""
    of_x, of_y = np.empty((MOST_EXPONENT + 1, BLOCK), np.float32), np.empty((MOST_EXPONENT + 1, BLOCK), np.float32)
    of_x[0], of_y[0] = np.float32(1.0), np.float32(1.0)
    return Scratch(np.empty(BLOCK, np.float32), of_x, of_y, np.empty((n_components, BLOCK), np.float32))


@compiled
def make_densities(weights, means, sigmas, coef):
    """`Densities` of one fit; weights, means, sigmas : (K,), coef : (Q,) in grey levels."""
    k = len(weights)
    out = Densities(np.empty(k), np.empty(k), np.empty(k), coef, np.empty(3))
    centre = np.rint(means[0]) if weights[0] > 0 else 0.0
    bend, reach, top = np.abs(coef).sum(), 0.0, NO_COMPONENT
    for j in range(k):
        present = weights[j] > 0
        out.mean[j] = means[j] - centre if present else 0.0
        out.scale[j] = _ROOT_HALF_LOG2_E / sigmas[j] if present else 0.0
        out.level[j] = np.log2(weights[j] / sigmas[j]) if present else NO_COMPONENT
        reach = max(reach, out.scale[j] * (bend + abs(out.mean[j])))
        top = max(top, out.level[j])
    out.bounds[0], out.bounds[1] = centre, _SLACK * (8.0 + (1.0 + reach) * (1.0 + top))
    out.bounds[2] = _SLACK * (1.0 + reach)
    return out


@exactly
def make_powers(table, n):
    """Rows 2 and up from row 1, coordinates."""
    for power in range(2, MOST_EXPONENT + 1):
        for i in range(n):
            table[power, i] = table[power - 1, i] * table[1, i]


@exactly
def make_log_densities(trend, fit, scratch, n):
    """Log2 densities (K, n) of a block into ``scratch.density``; its values are spent."""
    values, of_x, of_y, density = scratch.values, scratch.of_x, scratch.of_y, scratch.density
    sums = np.zeros(BLOCK, np.float32)
    for j in range(len(fit.coef)):
        _add_term(sums, np.float32(fit.coef[j]), of_x, trend.power_x[j], of_y, trend.power_y[j], n)
    centre = np.float32(fit.bounds[0])
    for i in range(n):
        values[i] = (values[i] - centre) - sums[i]
    for k in range(len(fit.level)):
        level, mean, scale = np.float32(fit.level[k]), np.float32(fit.mean[k]), np.float32(fit.scale[k])
        _log_density(values, level, mean, scale, density, k, n)


@exactly
def _add_term(sums, coef, of_x, a, of_y, b, n):
    for i in range(n):
        sums[i] += coef * (of_x[a, i] * of_y[b, i])


@exactly
def _log_density(residual, level, mean, scale, table, k, n):
    for i in range(n):
        distance = (residual[i] - mean) * scale
        table[k, i] = level - distance * distance


@exactly
def exactly_likeliest(trend, fit, value, x, y):
    """The first component of largest density at pixel (x, y), in float64."""
    u = x * (2.0 / max(trend.width - 1, 1)) - (1.0 if trend.width > 1 else 0.0)
    v = y * (2.0 / max(trend.height - 1, 1)) - (1.0 if trend.height > 1 else 0.0)
    residual = value - fit.bounds[0]
    for j in range(len(fit.coef)):
        residual -= fit.coef[j] * (u ** trend.power_x[j] * v ** trend.power_y[j])
    best, top = 0, -np.inf
    for k in range(len(fit.level)):
        distance = (residual - fit.mean[k]) * fit.scale[k]
        density = fit.level[k] - distance * distance
        if density > top:
            best, top = k, density
    return best
