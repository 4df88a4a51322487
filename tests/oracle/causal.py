"""The causal fit in plain float64 loops: what neighbours say of a sample, and a frame's deviation from the common."""

import math

import numpy as np


def neighbour_weights(held, weights, cells, resp, *, grid, n_levels, per_sd=1.5, shrinkage=0.1, purest=1.0, floor=0.01):
    """(n, K) weights of each sample from maps `held` (K, rows, columns) and from all other samples of its frame.

    cells : (n,) finest cell. resp : (n, K). weights : (K,).
    """
    n, k = resp.shape
    out = np.zeros((n, k))
    for i in range(n):
        prior = widest = np.asarray(weights, dtype=float)
        for level in range(n_levels):
            coarser = n_levels - 1 - level
            y, x = divmod(int(cells[i]), grid[1])
            here = (y >> coarser, x >> coarser)
            total = np.zeros(k)
            for row in range(grid[0]):
                for column in range(grid[1]):
                    total += held[:, row, column] * _bell(here, (row >> coarser, column >> coarser), per_sd)
            for j in range(n):
                if j != i:
                    v, u = divmod(int(cells[j]), grid[1])
                    total += resp[j] * _bell(here, (v >> coarser, u >> coarser), per_sd)
            impurity = 1 - sum(p * p for p in prior)
            worth = shrinkage / min(max(impurity, purest), 1.0)
            prior = (total + worth * prior) / (total.sum() + worth)
            if level == 0:
                widest = prior
        out[i] = (1 - floor) * prior + floor * widest
    return out


def _bell(a, b, per_sd):
    dy, dx = abs(a[0] - b[0]) / per_sd, abs(a[1] - b[1]) / per_sd
    return math.exp(-0.5 * (dy * dy + dx * dx)) if dy <= 4 and dx <= 4 else 0.0


def deviation(values, features, mean, sigma, coef, before, variance, step):
    """Deviation (b_1..b_q, o) of a frame of one component: Bayesian regression on its samples.

    values : (n,). features : (n, q). before : (q + 1,) the deviation predicted, with `variance` (q + 1, q + 1) of the
    frame before and `step` (q + 1,) variances of the walk.
    """
    n, q = features.shape
    precision = np.linalg.inv(np.asarray(variance) + np.diag(step))
    information, right = precision.copy(), precision @ before
    for i in range(n):
        design = np.append(features[i], 1.0)
        target = values[i] - mean - sum(coef[j] * features[i, j] for j in range(q))
        information += np.outer(design, design) / sigma**2
        right += design * target / sigma**2
    return np.linalg.solve(information, right), np.linalg.inv(information)
