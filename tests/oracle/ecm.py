"""Gaussian mixture regression in plain float64: METHOD.md 1 and 2 written out, and direct maximisation beside it.

Positions are flat pixel indices y * W + x. Nothing is shared with the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize


class Params(NamedTuple):
    """Weights, means, sigmas (K,) and trend coefficients (q,), grey levels."""

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray
    coef: np.ndarray


def params(weights, means, sigmas, coef=()):
    """`Params` of float64 arrays."""
    return Params(*(np.array(a, dtype=np.float64).reshape(-1) for a in (weights, means, sigmas, coef)))


def design(positions, shape, terms):
    """(n, q) monomials x^a y^b on coordinates scaled to [-1, 1] over the whole frame, by a loop over pixels."""
    height, width = shape
    rows = []
    for p in np.asarray(positions).tolist():
        y, x = divmod(p, width)
        u = 2.0 * x / (width - 1) - 1.0 if width > 1 else 0.0
        v = 2.0 * y / (height - 1) - 1.0 if height > 1 else 0.0
        rows.append([u**a * v**b for a, b in terms])
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(terms))


def _log_joint(z, f, par):
    """(n, K) log(p_k N(z_i; f_i.beta + delta_k, sigma_k))."""
    residual = z - f @ par.coef
    columns = []
    for p, delta, sigma in zip(par.weights, par.means, par.sigmas, strict=True):
        log_p = math.log(p) if p > 0 else -math.inf
        columns.append(log_p - math.log(sigma) - 0.5 * math.log(2 * math.pi) - 0.5 * ((residual - delta) / sigma) ** 2)
    return np.stack(columns, axis=1)


def log_likelihood(z, f, par):
    """Observed-data log-likelihood."""
    joint = _log_joint(z, f, par)
    top = joint.max(axis=1)
    return float(np.sum(top + np.log(np.exp(joint - top[:, None]).sum(axis=1))))


def log_likelihood_scalar(z, f, par):
    """The same by a loop over pixels and components, without any array arithmetic."""
    total = []
    for i in range(len(z)):
        trend = sum(f[i, j] * par.coef[j] for j in range(f.shape[1]))
        terms = []
        for p, delta, sigma in zip(par.weights, par.means, par.sigmas, strict=True):
            d = (z[i] - trend - delta) / sigma
            terms.append(math.log(p) - math.log(sigma) - 0.5 * math.log(2 * math.pi) - 0.5 * d * d)
        top = max(terms)
        total.append(top + math.log(sum(math.exp(t - top) for t in terms)))
    return math.fsum(total)


def responsibilities(z, f, par):
    """(n, K) posterior of each component."""
    joint = _log_joint(z, f, par)
    e = np.exp(joint - joint.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_prior(coef, prior):
    """Log density of trend coefficients that are independently Normal(0, prior^2) but for constants; 0 without one."""
    return 0.0 if prior is None else -0.5 * math.fsum((float(b) / prior) ** 2 for b in coef)


def ecm_step(z, f, par, sigma_floor=0.0, prior=None):
    """One reference step: E, CM1 (p, delta), CM2 (beta), CM3 (sigma), in METHOD.md's order.

    prior : standard deviation of a zero-mean normal prior on every trend coefficient; None: none.
    """
    n, q = f.shape
    n_components = len(par.weights)
    w = responsibilities(z, f, par)
    weights, means = np.empty(n_components), np.empty(n_components)
    trend = f @ par.coef
    for k in range(n_components):
        total = w[:, k].sum()
        weights[k] = total / n
        means[k] = (w[:, k] * (z - trend)).sum() / total
    coef = par.coef
    if q:
        lhs, rhs = np.zeros((q, q)), np.zeros(q)
        for k in range(n_components):
            a = w[:, k] / par.sigmas[k] ** 2
            for j in range(q):
                rhs[j] += (f[:, j] * a * (z - means[k])).sum()
                for m in range(q):
                    lhs[j, m] += (f[:, j] * a * f[:, m]).sum()
        if prior is not None:
            lhs += np.eye(q) / prior**2
        coef = np.linalg.solve(lhs, rhs)
    residual = z - f @ coef
    sigmas = np.empty(n_components)
    for k in range(n_components):
        variance = (w[:, k] * (residual - means[k]) ** 2).sum() / w[:, k].sum()
        sigmas[k] = max(math.sqrt(variance), sigma_floor)
    return Params(weights, means, sigmas, coef)


def ecm(z, f, start, *, tol=1e-12, max_iter=20000, sigma_floor=0.0):
    """Reference steps until the relative gain is below `tol`; returns (params, log-likelihood of every step)."""
    par, trace = start, [log_likelihood(z, f, start)]
    for _ in range(max_iter):
        par = ecm_step(z, f, par, sigma_floor)
        trace.append(log_likelihood(z, f, par))
        if trace[-1] - trace[-2] < tol * abs(trace[-1]):
            break
    return par, trace


def to_theta(par):
    """(logit p_k - logit p_K for k < K, means, log sigmas, coef): unconstrained, 3K - 1 + q numbers."""
    log_p = np.log(par.weights)
    return np.concatenate([log_p[:-1] - log_p[-1], par.means, np.log(par.sigmas), par.coef])


def from_theta(theta, n_components):
    """Inverse of `to_theta`."""
    k = n_components
    logits = np.append(theta[: k - 1], 0.0)
    e = np.exp(logits - logits.max())
    return Params(e / e.sum(), theta[k - 1 : 2 * k - 1], np.exp(theta[2 * k - 1 : 3 * k - 1]), theta[3 * k - 1 :])


def gradient(z, f, theta, n_components, prior=None):
    """Analytic gradient of the log-likelihood, and log prior, in theta."""
    par = from_theta(theta, n_components)
    w = responsibilities(z, f, par)
    residual = z - f @ par.coef
    d_logit = w.sum(axis=0) - len(z) * par.weights
    scaled = (residual[:, None] - par.means) / par.sigmas
    pull = w * scaled / par.sigmas
    d_coef = f.T @ pull.sum(axis=1) - (0.0 if prior is None else par.coef / prior**2)
    return np.concatenate([d_logit[:-1], pull.sum(axis=0), (w * (scaled**2 - 1)).sum(axis=0), d_coef])


def hessian(z, f, theta, n_components, prior=None):
    """Hessian of the log-likelihood, and log prior: central differences of the gradient (relative error about 1e-9)."""
    size = len(theta)
    out = np.empty((size, size))
    for j in range(size):
        h = 1e-5 * max(1.0, abs(theta[j]))
        step = np.zeros(size)
        step[j] = h
        up, down = (gradient(z, f, theta + s * step, n_components, prior) for s in (1, -1))
        out[j] = (up - down) / (2 * h)
    return 0.5 * (out + out.T)


def maximise(z, f, start, prior=None):
    """Direct maximisation: L-BFGS-B on standardised data, then Newton steps. Returns (params, log-likelihood).

    Shares only the log-likelihood with the ECM above: no E step, no closed-form update. With a prior (see `ecm_step`)
    the log-likelihood has the log prior in it.
    """
    k, n = len(start.weights), len(z)
    shift, scale = float(np.mean(z)), float(np.std(z))
    unit, pull = (z - shift) / scale, None if prior is None else prior / scale
    first = Params(start.weights, (start.means - shift) / scale, start.sigmas / scale, start.coef / scale)

    def objective(theta):
        par = from_theta(theta, k)
        return log_likelihood(unit, f, par) + log_prior(par.coef, pull)

    found = optimize.minimize(
        lambda t: -objective(t) / n,
        to_theta(first),
        jac=lambda t: -gradient(unit, f, t, k, pull) / n,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 20000, "maxcor": 30},
    )
    theta = found.x
    best = objective(theta)
    for _ in range(5):
        trial = theta - np.linalg.solve(hessian(unit, f, theta, k, pull), gradient(unit, f, theta, k, pull))
        value = objective(trial)
        if not value >= best:
            break
        theta, best = trial, value
    par = from_theta(theta, k)
    order = np.argsort(par.means)
    means, sigmas = par.means[order] * scale + shift, par.sigmas[order] * scale
    back = Params(par.weights[order], means, sigmas, par.coef * scale)
    return back, log_likelihood(z, f, back) + log_prior(back.coef, prior)


def information(z, f, par, prior=None):
    """Observed Fisher information in theta, (3K - 1 + q, 3K - 1 + q), that of the prior added."""
    return -hessian(z, f, to_theta(par), len(par.weights), prior)


def standard_errors(z, f, par, prior=None):
    """Standard errors of theta from the observed information."""
    return np.sqrt(np.diag(np.linalg.inv(information(z, f, par, prior))))


def draw(rng, n, par, shape, terms):
    """A seeded sample: (values, positions, design) of n distinct pixels with the mixture's own component draws."""
    positions = np.sort(rng.choice(shape[0] * shape[1], size=n, replace=False))
    f = design(positions, shape, terms)
    k = rng.choice(len(par.weights), size=n, p=par.weights / par.weights.sum())
    z = f @ par.coef + par.means[k] + par.sigmas[k] * rng.standard_normal(n)
    return z, positions, f
