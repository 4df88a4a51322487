"""Criteria, chi-square tail and the mixture with local weights in plain float64; nothing shared with the package."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate

from . import ecm


def criteria(z, f, par):
    """Log-likelihood, AIC, BIC and ICL of parameters, the entropy by a loop over samples."""
    value = ecm.log_likelihood(z, f, par)
    n_free = 3 * len(par.weights) - 1 + len(par.coef)
    entropy = 0.0
    for row in ecm.responsibilities(z, f, par):
        entropy -= sum(w * math.log(w) for w in row.tolist() if w > 0)
    bic = n_free * math.log(len(z)) - 2 * value
    return value, 2 * n_free - 2 * value, bic, bic + 2 * entropy


def chi_square_tail(x, df):
    """P(chi-square with `df` degrees of freedom > x), by integration of the density."""
    norm = 2 ** (df / 2) * math.gamma(df / 2)
    return integrate.quad(lambda t: t ** (df / 2 - 1) * math.exp(-t / 2) / norm, x, np.inf, epsabs=1e-14)[0]


def local_log_likelihood(z, f, cell, weights, par):
    """Log-likelihood with the weights (cells, K) of each sample's cell."""
    total = 0.0
    for c in np.unique(cell):
        inside = cell == c
        total += ecm.log_likelihood(z[inside], f[inside], par._replace(weights=weights[c]))
    return total


def local_step(z, f, cell, weights, par, pseudo=0.5):
    """One ECM step with common means, sigmas and trend; means and trend jointly, by least squares on the joint design.

    Weights of a cell have `pseudo` samples added to each component.
    """
    n, k = len(z), len(par.means)
    resp = np.empty((n, k))
    for c in np.unique(cell):
        inside = cell == c
        resp[inside] = ecm.responsibilities(z[inside], f[inside], par._replace(weights=weights[c]))
    rows, right = [], []
    for i in range(n):
        for j in range(k):
            root = math.sqrt(resp[i, j]) / par.sigmas[j]
            rows.append(root * np.concatenate([np.eye(k)[j], f[i]]))
            right.append(root * z[i])
    solution = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    means, coef = solution[:k], solution[k:]
    square = (z[:, None] - (f @ coef)[:, None] - means) ** 2
    sigmas = np.sqrt((resp * square).sum(axis=0) / resp.sum(axis=0))
    new = np.empty_like(weights)
    for c in range(len(weights)):
        count = resp[cell == c].sum(axis=0) + pseudo
        new[c] = count / count.sum()
    return new, par._replace(means=means, sigmas=sigmas, coef=coef)
