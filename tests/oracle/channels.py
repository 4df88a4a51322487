"""Gaussian mixture regression of vectors in plain float64: likelihood and one ECM step, loops over pixels.

    z_i ~ sum_k p_k Normal( delta_k + B f_i, Sigma_k )

The trend is found by generalised least squares on the stacked, whitened samples: no Kronecker products, no normal
equations. Nothing is shared with the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Params(NamedTuple):
    """weights (K,), means (K, C), covariances (K, C, C), coef (C, q), grey levels."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    coef: np.ndarray


def log_density(d, covariance):
    """log Normal(d; 0, covariance) of one vector."""
    _, log_det = np.linalg.slogdet(covariance)
    return -0.5 * (len(d) * math.log(2 * math.pi) + log_det + float(d @ np.linalg.solve(covariance, d)))


def _log_joint(z, f, par):
    """(n, K) of samples z (n, C) with design f (n, q)."""
    out = np.empty((len(z), len(par.weights)))
    for i in range(len(z)):
        residual = z[i] - par.coef @ f[i]
        for k in range(len(par.weights)):
            out[i, k] = math.log(par.weights[k]) + log_density(residual - par.means[k], par.covariances[k])
    return out


def log_likelihood(z, f, par):
    """Observed-data log-likelihood."""
    joint = _log_joint(z, f, par)
    return math.fsum(max(row) + math.log(sum(math.exp(v - max(row)) for v in row)) for row in joint.tolist())


def responsibilities(z, f, par):
    """(n, K) posterior of each component."""
    joint = _log_joint(z, f, par)
    e = np.exp(joint - joint.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def ecm_step(z, f, par, prior=None):
    """E, then weights and means, then the trend, then the covariances.

    prior : standard deviation of a zero-mean normal prior on every trend coefficient, None: none.
    """
    n, c = z.shape
    k, q = len(par.weights), f.shape[1]
    w = responsibilities(z, f, par)
    means = np.array([sum(w[i, j] * (z[i] - par.coef @ f[i]) for i in range(n)) / w[:, j].sum() for j in range(k)])
    coef = par.coef
    if q:
        roots = [np.linalg.inv(np.linalg.cholesky(s)) for s in par.covariances]
        rows, right = [], []
        for i in range(n):
            design = np.zeros((c, c * q))  # B f_i = design vec(B)
            for a in range(c):
                design[a, a * q : (a + 1) * q] = f[i]
            for j in range(k):
                weight = math.sqrt(w[i, j])
                rows.append(weight * roots[j] @ design)
                right.append(weight * roots[j] @ (z[i] - means[j]))
        if prior is not None:
            rows.append(np.eye(c * q) / prior)
            right.append(np.zeros(c * q))
        coef = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0].reshape(c, q)
    covariances = np.zeros((k, c, c))
    for j in range(k):
        for i in range(n):
            d = z[i] - coef @ f[i] - means[j]
            covariances[j] += w[i, j] * np.outer(d, d)
        covariances[j] /= w[:, j].sum()
    return Params(w.mean(axis=0), means, covariances, coef)


def log_prior(coef, prior):
    """Log density of the trend's prior, constants left out."""
    return -0.5 * sum(float(b) ** 2 for b in np.ravel(coef)) / prior**2


def draw(rng, n, par, shape, design):
    """A seeded sample: values (C, n), positions (n,) of distinct pixels, component of each; `design(positions)`."""
    positions = np.sort(rng.choice(shape[0] * shape[1], size=n, replace=False))
    f = design(positions)
    k = rng.choice(len(par.weights), size=n, p=par.weights)
    roots = [np.linalg.cholesky(s) for s in par.covariances]
    z = np.array([par.coef @ f[i] + par.means[k[i]] + roots[k[i]] @ rng.standard_normal(z_dim(par)) for i in range(n)])
    return z.T, positions, k


def z_dim(par):
    """C."""
    return par.means.shape[1]
