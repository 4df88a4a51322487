"""Fit many mixtures at once: several starts, then the best converged by ECM (METHOD.md 2-4).

Replicates are the leading axis. Each fit carries its own place in the SQUAREM cycle, one pass over the samples
serves all, and a fit that has converged leaves the batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results import FitStatus, MixtureFit
from .design import Samples, TrendBasis, make_samples, unblock
from .moments import NO_COMPONENT, Layout, e_step, moments
from .starts import start_thetas
from .steps import extrapolate, m_step

_START_BLOCKS = 4
"""Starts are compared on about this many blocks of 512 samples, an even subset."""

_START_STEP = 4.0
"""Longest extrapolation in the short runs that compare starts."""

_QUIET_CYCLES = 2
"""Cycles in a row that must gain too little before a fit counts as converged. One is not enough: on a flat ridge of
the likelihood a short cycle is often followed by one that gains a hundred times more."""

_COMPACT = 0.75
"""Finished fits are taken out of the arrays once no more than this share is still active."""


def fit_mixture(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    config: MixtureConfig,
    *,
    valid: Any = None,
    streams: np.ndarray | None = None,
    sigma_floor: float = 1e-6,
    backend: Backend,
    trace: list | None = None,
) -> MixtureFit:
    """Fit R mixtures, one per row of samples.

    Parameters
    ----------
    values : (R, m) intensities, grey levels. positions : (m,) or (R, m) flat pixel indices y * W + x.
    shape : (height, width) of the frame the positions refer to.
    valid : (R, m) bool, False for padding. streams : (R, K) uint32 random words for the k-means++ start.
    sigma_floor : smallest sigma, grey levels; used where `config.sigma_floor` is None.
    trace : receives (indices, log_likelihood) of the fits evaluated in each pass, on the standardised scale.

    Returns
    -------
    MixtureFit with leading axis R. Trouble in one fit is its status; the others go on.
    """
    samples = make_samples(values, positions, shape, TrendBasis(config.terms), valid=valid, backend=backend)
    return fit_samples(samples, config, streams=streams, sigma_floor=sigma_floor, backend=backend, trace=trace)


def fit_samples(
    samples: Samples,
    config: MixtureConfig,
    *,
    streams: np.ndarray | None = None,
    sigma_floor: float = 1e-6,
    backend: Backend,
    trace: list | None = None,
) -> MixtureFit:
    """`fit_mixture` on samples that are already blocked."""
    floor_grey = sigma_floor if config.sigma_floor is None else config.sigma_floor
    floor = floor_grey / samples.scale
    theta = _best_start(samples, config, streams, floor, backend)
    return _Driver(samples, config, floor, backend, trace).run(theta)


def refit_samples(
    samples: Samples, fit: MixtureFit, config: MixtureConfig, *, sigma_floor: float = 1e-6, backend: Backend
) -> MixtureFit:
    """ECM from the parameters of `fit` instead of starts, so that the log-likelihood cannot end below that of `fit`.

    Terms of `config` that `fit` lacks begin at zero; all of its own must be among them. A dropped component stays so.
    """
    floor = (sigma_floor if config.sigma_floor is None else config.sigma_floor) / samples.scale
    coef = np.zeros((len(fit.weights), config.n_terms))
    coef[:, [config.terms.index(term) for term in fit.terms]] = fit.coef
    theta = _theta_of(replace(fit, coef=coef, terms=config.terms), samples, backend)
    return _Driver(samples, config, floor, backend, None).run(theta)


def posterior(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    fit: MixtureFit,
    *,
    valid: Any = None,
    backend: Backend,
) -> Array:
    """Responsibilities (R, K, m) of fitted components; NaN for fits without usable parameters."""
    samples = make_samples(values, positions, shape, TrendBasis(fit.terms), valid=valid, backend=backend)
    resp = unblock(responsibilities(samples, fit, backend=backend), values.shape[-1], backend=backend)
    usable = backend.asarray(fit.status < FitStatus.DEGENERATE)[:, None, None]
    return backend.xp.where(usable, resp, backend.xp.full_like(resp, np.nan))


def responsibilities(samples: Samples, fit: MixtureFit, *, backend: Backend) -> Array:
    """(R, K, blocks, n) responsibilities of a finished fit."""
    theta = _theta_of(fit, samples, backend)
    _, _, resp = e_step(samples, theta, Layout(fit.n_components, len(fit.terms)), backend=backend)
    return backend.xp.permute_dims(resp, (0, 2, 1, 3))


def _theta_of(fit: MixtureFit, samples: Samples, backend: Backend) -> Array:
    """(R, 3K + q) parameters of a finished fit on the standardised scale of its samples."""
    centre, scale = backend.to_host(samples.centre), backend.to_host(samples.scale)
    dead = ~(fit.weights > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weights = np.where(dead, NO_COMPONENT, np.log(fit.weights))
        log_sigmas = np.where(dead, 0.0, np.log(fit.sigmas / scale[:, None]))
    means = np.where(dead, 0.0, (fit.means - centre[:, None]) / scale[:, None])
    coef = np.nan_to_num(fit.coef / scale[:, None])
    return backend.asarray(np.concatenate([log_weights, means, log_sigmas, coef], axis=1))


def _best_start(
    samples: Samples, config: MixtureConfig, streams: np.ndarray | None, floor: Array, backend: Backend
) -> Array:
    """Run every start a few passes on an even subset; per fit, the best point seen by any of them."""
    xp = backend.xp
    subset = samples.subset(_START_BLOCKS)
    starts = start_thetas(subset, config, streams, backend=backend)
    if len(starts) == 1:
        return starts[0]
    best, best_value = _short_run(subset, starts[0], config, floor, backend)
    for start in starts[1:]:
        theta, value = _short_run(subset, start, config, floor, backend)
        best = xp.where((value > best_value)[:, None], theta, best)
        best_value = xp.maximum(value, best_value)
    return best


def _short_run(
    samples: Samples, theta: Array, config: MixtureConfig, floor: Array, backend: Backend
) -> tuple[Array, Array]:
    """The best point, and its log-likelihood, of `config.n_start_iter` passes, every third an extrapolation.

    Nothing guards an extrapolation here: a bad one is simply not the best point.
    """
    xp = backend.xp
    layout = Layout(config.n_components, config.n_terms)
    best, best_value, path = theta, None, []
    for _ in range(config.n_start_iter):
        sums = moments(samples, theta, layout, backend=backend)
        value = sums.log_likelihood
        value = xp.where(xp.isfinite(value), value, xp.full_like(value, -1e300))
        best = theta if best_value is None else xp.where((value > best_value)[:, None], theta, best)
        best_value = value if best_value is None else xp.maximum(value, best_value)
        path.append(theta)
        theta = m_step(sums, theta, samples.basis, layout=layout, schedule="fast", floor=floor, backend=backend)
        if len(path) == 2:
            limit = xp.full_like(value, _START_STEP)
            theta, _ = extrapolate(path[0], path[1], theta, limit, layout=layout, floor=floor, backend=backend)
            path = []
    return best, best_value


class _Driver:
    """Iterates the active fits to convergence; every array has the active fits as its first axis.

    A SQUAREM cycle evaluates the likelihood at its first iterate (phase 0), at the second (phase 1), and at the
    extrapolated point (phase 2), which is either accepted as the next cycle's first, or replaced by the third
    iterate if the likelihood fell. So each fit's accepted log-likelihoods never fall.
    """

    def __init__(
        self, samples: Samples, config: MixtureConfig, floor: Array, backend: Backend, trace: list | None
    ) -> None:
        self.samples, self.config, self.floor, self.backend, self.trace = samples, config, floor, backend, trace
        xp, rows, k = backend.xp, samples.z.shape[0], config.n_components
        self.layout = Layout(k, config.n_terms)
        self.offset = samples.n * xp.log(samples.scale)
        self.index = np.arange(rows)
        few = samples.n <= config.n_parameters
        constant = ~xp.any(xp.reshape(samples.z, (rows, -1)) != 0, axis=1)
        self.done = few | constant
        self.out = MixtureFit(
            weights=np.zeros((rows, k)),
            means=np.full((rows, k), np.nan),
            sigmas=np.full((rows, k), np.nan),
            coef=np.full((rows, config.n_terms), np.nan),
            log_likelihood=np.full(rows, np.nan),
            n_iter=np.zeros(rows, dtype=np.int64),
            n_samples=backend.to_host(samples.n).astype(np.int64),
            status=np.where(backend.to_host(few), FitStatus.TOO_FEW, FitStatus.DEGENERATE).astype(np.uint8),
            terms=config.terms,
        )

    def run(self, theta: Array) -> MixtureFit:
        xp, backend = self.backend.xp, self.backend
        rows = self.index.size
        never = xp.full((rows,), -1e300, dtype=xp.float64, device=backend.device)
        self.state: dict[str, Array] = {
            "theta": theta,
            "first": theta,
            "fallback": theta,
            "second": theta,
            "last": theta,
            "last_value": never,
            "phase": backend.zeros((rows,), xp.int64),
            "quiet": backend.zeros((rows,), xp.int64),
            "limit": backend.zeros((rows,), xp.float64) + 4.0,
            "length": backend.zeros((rows,), xp.float64),
            "first_value": never,
            "second_value": never,
        }
        for n_iter in range(1, self.config.max_iter + 1):
            self._compact()
            if self.index.size == 0:
                return self.out
            self._pass(n_iter)
        last, value = self.state["last"], self.state["last_value"]
        self._finish(last, value, ~self.done, self.config.max_iter, FitStatus.MAX_ITER)
        return self.out

    def _pass(self, n_iter: int) -> None:
        """One pass over the samples, then each fit's next place in its cycle."""
        theta = self.state["theta"]
        sums = moments(self.samples, theta, self.layout, backend=self.backend)
        value = sums.log_likelihood
        self._record(value)
        # A wild extrapolation is taken back below; anywhere else there is nothing to go back to.
        broken = ~self.backend.xp.isfinite(value) & (self.state["phase"] != 2)
        self._finish(theta, value, broken, n_iter, FitStatus.DEGENERATE)
        follow = m_step(
            sums,
            theta,
            self.samples.basis,
            layout=self.layout,
            schedule=self.config.schedule,
            floor=self.floor,
            backend=self.backend,
        )
        if self.config.schedule == "fast":
            self._advance(theta, value, follow, n_iter)
            return
        converged = self._gain_is_small(value, self.state["first_value"])
        self._finish(theta, value, converged, n_iter, FitStatus.CONVERGED)
        self.state.update(first_value=value, theta=follow, last=theta, last_value=value)

    def _advance(self, theta: Array, value: Array, follow: Array, n_iter: int) -> None:
        """Where each fit goes from `theta`, whose log-likelihood is `value` and whose M-step gives `follow`."""
        xp, state = self.backend.xp, self.state
        phase = state["phase"]
        second, jumped = phase == 1, phase == 2
        fell = jumped & ~(value >= state["second_value"])
        begins = ~second & ~fell
        small = self._gain_is_small(value, state["first_value"])
        quiet = xp.where(begins, xp.where(small, state["quiet"] + 1, xp.zeros_like(phase)), state["quiet"])
        self._finish(theta, value, quiet >= _QUIET_CYCLES, n_iter, FitStatus.CONVERGED)

        limit = xp.where(begins & jumped & (state["length"] >= state["limit"]), 4.0 * state["limit"], state["limit"])
        limit = xp.where(fell, xp.clip(0.5 * limit, 1.0, 1e6), limit)
        jump, length = extrapolate(
            state["first"], theta, follow, limit, layout=self.layout, floor=self.floor, backend=self.backend
        )
        after = xp.where(second[:, None], jump, follow)
        zero = xp.zeros_like(phase)
        state.update(
            theta=xp.where(fell[:, None], state["fallback"], after),
            fallback=xp.where(second[:, None], follow, state["fallback"]),
            first=xp.where(begins[:, None], theta, state["first"]),
            first_value=xp.where(begins, value, state["first_value"]),
            second=xp.where(second[:, None], theta, state["second"]),
            last=xp.where(fell[:, None], state["second"], theta),
            last_value=xp.where(fell, state["second_value"], value),
            second_value=xp.where(second, value, state["second_value"]),
            limit=limit,
            length=xp.where(second, length, state["length"]),
            quiet=quiet,
            phase=xp.where(fell, zero, xp.where(second, zero + 2, zero + 1)),
        )

    def _gain_is_small(self, value: Array, before: Array) -> Array:
        # Per sample, not relative to the log-likelihood: that shifts, even through zero, with the unit of the data.
        return value - before <= self.config.tol * self.samples.n

    def _record(self, value: Array) -> None:
        if self.trace is not None:
            active = ~self.backend.to_host(self.done)
            self.trace.append((self.index[active], self.backend.to_host(value)[active]))

    def _compact(self) -> None:
        """Take finished fits out of the arrays once enough have finished."""
        xp, backend = self.backend.xp, self.backend
        active = np.flatnonzero(~backend.to_host(self.done))
        if active.size > _COMPACT * self.index.size:
            return
        self.index = self.index[active]
        if active.size == 0:
            return
        rows = backend.asarray(active.astype(np.int64))
        self.samples = self.samples.take(rows, backend=backend)
        self.floor, self.done, self.offset = (xp.take(a, rows) for a in (self.floor, self.done, self.offset))
        self.state = {name: xp.take(value, rows, axis=0) for name, value in self.state.items()}

    def _finish(self, theta: Array, value: Array, which: Array, n_iter: int, status: FitStatus) -> None:
        """Write the fits of mask `which` that are still active to the result."""
        backend = self.backend
        mask = backend.to_host(which & ~self.done)
        if not mask.any():
            return
        self.done = self.done | which
        rows = self.index[mask]
        log_likelihood = backend.to_host(value - self.offset)[mask]
        scale, centre = (backend.to_host(a)[mask, None] for a in (self.samples.scale, self.samples.centre))
        parts = [backend.to_host(part)[mask] for part in self.layout.split(theta)]
        self.out.n_iter[rows] = n_iter
        _write_fits(self.out, rows, parts, log_likelihood, status, scale, centre)


def _write_fits(
    out: MixtureFit,
    rows: np.ndarray,
    parts: list[np.ndarray],
    log_likelihood: np.ndarray,
    ended: FitStatus,
    scale: np.ndarray,
    centre: np.ndarray,
) -> None:
    """Store finished fits in grey levels, components in ascending mean, dropped ones last; unusable ones as NaN."""
    log_weights, means, log_sigmas, coef = parts
    dropped = log_weights < 0.5 * NO_COMPONENT
    status = np.where(dropped.all(axis=1), FitStatus.DEGENERATE, ended)
    status = np.where(dropped.any(axis=1) & (status == FitStatus.CONVERGED), FitStatus.DROPPED, status)
    bad = (status == FitStatus.DEGENERATE)[:, None]
    means = np.where(dropped | bad, np.nan, means * scale + centre)
    order = np.argsort(means, axis=1, kind="stable")
    out.weights[rows] = np.take_along_axis(np.where(dropped | bad, 0.0, np.exp(log_weights)), order, axis=1)
    out.means[rows] = np.take_along_axis(means, order, axis=1)
    out.sigmas[rows] = np.take_along_axis(np.where(dropped | bad, np.nan, np.exp(log_sigmas) * scale), order, axis=1)
    out.coef[rows] = np.where(bad, np.nan, coef * scale)
    out.log_likelihood[rows] = np.where(bad[:, 0], np.nan, log_likelihood)
    out.status[rows] = status


__all__ = ["fit_mixture", "fit_samples", "posterior", "refit_samples", "responsibilities"]
