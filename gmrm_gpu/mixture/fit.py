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
from .moments import Moments, Theta, e_step, moments
from .starts import start_thetas
from .steps import extrapolate, m_step

_START_BLOCKS = 4
"""Starts are compared on about this many blocks of 512 samples, an even subset."""

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
    samples = make_samples(
        backend.asarray(values),
        backend.asarray(positions),
        shape,
        TrendBasis(config.terms),
        valid=None if valid is None else backend.asarray(valid),
        backend=backend,
    )
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
    few = samples.n <= config.n_parameters
    theta = _best_start(samples, config, streams, floor, backend)
    return _Driver(samples, config, floor, few, backend, trace).run(theta)


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
    samples = make_samples(
        backend.asarray(values),
        backend.asarray(positions),
        shape,
        TrendBasis(fit.terms),
        valid=None if valid is None else backend.asarray(valid),
        backend=backend,
    )
    return unblock(responsibilities(samples, fit, backend=backend), values.shape[-1], backend=backend)


def responsibilities(samples: Samples, fit: MixtureFit, *, backend: Backend) -> Array:
    """(R, K, blocks, n) responsibilities of a finished fit."""
    centre, scale = backend.to_host(samples.centre), backend.to_host(samples.scale)
    dead = ~(fit.weights > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weights = np.where(dead, -1e30, np.log(fit.weights))
        log_sigmas = np.where(dead, 0.0, np.log(fit.sigmas / scale[:, None]))
    means = np.where(dead, 0.0, (fit.means - centre[:, None]) / scale[:, None])
    coef = np.nan_to_num(fit.coef / scale[:, None])
    theta = Theta(*(backend.asarray(part) for part in (log_weights, means, log_sigmas, coef)))
    _, _, resp = e_step(samples, theta, backend=backend)
    return backend.xp.permute_dims(resp, (0, 2, 1, 3))


def _best_start(
    samples: Samples, config: MixtureConfig, streams: np.ndarray | None, floor: Array, backend: Backend
) -> Theta:
    """Run every start a few passes on an even subset and keep, per fit, the one of best log-likelihood."""
    xp = backend.xp
    subset = samples.subset(_START_BLOCKS)
    starts = start_thetas(subset, config, streams, backend=backend)
    best, best_value = starts[0], None
    for theta in starts if len(starts) > 1 else ():
        theta = _cycles(subset, theta, config, floor, backend)
        value, _, _ = e_step(subset, theta, backend=backend)
        value = xp.where(xp.isfinite(value), value, xp.full_like(value, -1e300))
        if best_value is None:
            best, best_value = theta, value
            continue
        better = (value > best_value)[:, None]
        best = best.map(lambda old, new, better=better: xp.where(better, new, old), theta)
        best_value = xp.maximum(value, best_value)
    return best


def _cycles(samples: Samples, theta: Theta, config: MixtureConfig, floor: Array, backend: Backend) -> Theta:
    """A fixed number of plain passes, ended by one extrapolation if it pays."""
    for _ in range(config.n_start_iter - 1):
        sums = moments(samples, theta, backend=backend)
        theta = m_step(sums, theta, samples.basis, schedule="fast", floor=floor, backend=backend)
    return theta


class _Driver:
    """Iterates the active fits to convergence; every array has the active fits as its first axis.

    A SQUAREM cycle evaluates the likelihood at its first iterate (phase 0), at the second (phase 1), and at the
    extrapolated point (phase 2), which is either accepted as the next cycle's first, or replaced by the third
    iterate if the likelihood fell. So each fit's accepted log-likelihoods never fall.
    """

    def __init__(
        self, samples: Samples, config: MixtureConfig, floor: Array, few: Array, backend: Backend, trace: list | None
    ) -> None:
        self.samples, self.config, self.floor, self.backend, self.trace = samples, config, floor, backend, trace
        rows, k = samples.z.shape[0], config.n_components
        self.index = np.arange(rows)
        self.done = few
        self.out = MixtureFit(
            weights=np.zeros((rows, k)),
            means=np.full((rows, k), np.nan),
            sigmas=np.full((rows, k), np.nan),
            coef=np.full((rows, config.n_terms), np.nan),
            log_likelihood=np.full(rows, np.nan),
            n_iter=np.zeros(rows, dtype=np.int64),
            n_samples=backend.to_host(samples.n).astype(np.int64),
            status=np.full(rows, FitStatus.TOO_FEW, dtype=np.uint8),
            terms=config.terms,
        )

    def run(self, theta: Theta) -> MixtureFit:
        xp, backend = self.backend.xp, self.backend
        rows = self.index.size
        state: dict[str, Any] = {
            "theta": theta,
            "first": theta,
            "second": theta,
            "fallback": theta,
            "phase": backend.zeros((rows,), xp.int64),
            "limit": backend.zeros((rows,), xp.float64) + 4.0,
            "length": backend.zeros((rows,), xp.float64),
            "first_value": backend.zeros((rows,), xp.float64) - 1e300,
            "second_value": backend.zeros((rows,), xp.float64) - 1e300,
        }
        for n_iter in range(1, self.config.max_iter + 1):
            state = self._compact(state)
            if self.index.size == 0:
                return self.out
            self._pass(state, n_iter)
        self._finish(state["theta"], state["value"], ~self.done, self.config.max_iter, FitStatus.MAX_ITER)
        return self.out

    def _pass(self, state: dict[str, Any], n_iter: int) -> None:
        """One pass over the samples and each fit's next place in its cycle."""
        xp, backend = self.backend.xp, self.backend
        theta = state["theta"]
        sums = moments(self.samples, theta, backend=backend)
        state["value"] = value = sums.log_likelihood
        self._record(value)
        broken = ~xp.isfinite(value) & ~self.done
        self._finish(theta, value, broken, n_iter, FitStatus.DEGENERATE)
        follow = self._step(sums, theta)
        if self.config.schedule == "reference":
            converged = self._gain_is_small(value, state["first_value"])
            state["first_value"] = value
            self._finish(theta, value, converged, n_iter, FitStatus.CONVERGED)
            state["theta"] = follow
            return
        self._advance(state, follow, n_iter)

    def _advance(self, state: dict[str, Any], follow: Theta, n_iter: int) -> None:
        xp, value, phase = self.backend.xp, state["value"], state["phase"]
        theta = state["theta"]
        fell = (phase == 2) & ~(value >= state["second_value"])
        begins = ((phase == 0) | (phase == 2)) & ~fell
        converged = begins & self._gain_is_small(value, state["first_value"])
        self._finish(theta, value, converged, n_iter, FitStatus.CONVERGED)

        at_limit = state["length"] >= state["limit"]
        grown = xp.where(begins & (phase == 2) & at_limit, 4.0 * state["limit"], state["limit"])
        state["limit"] = xp.where(fell, xp.clip(0.5 * state["limit"], 1.0, 1e6), grown)

        second = phase == 1
        jump, length = extrapolate(state["first"], theta, follow, state["limit"], backend=self.backend)
        state["length"] = xp.where(second, length, state["length"])
        state["fallback"] = _choose(xp, second, follow, state["fallback"])
        state["second_value"] = xp.where(second, value, state["second_value"])
        state["first"] = _choose(xp, begins, theta, state["first"])
        state["first_value"] = xp.where(begins, value, state["first_value"])
        after = _choose(xp, second, jump, follow)
        state["theta"] = _choose(xp, fell, state["fallback"], after)
        zero = xp.zeros_like(phase)
        state["phase"] = xp.where(fell, zero, xp.where(second, zero + 2, zero + 1))

    def _step(self, sums: Moments, theta: Theta) -> Theta:
        return m_step(
            sums,
            theta,
            self.samples.basis,
            schedule=self.config.schedule,
            floor=self.floor,
            backend=self.backend,
        )

    def _gain_is_small(self, value: Array, before: Array) -> Array:
        # Relative to the log-likelihood of the grey levels, which is n log(scale) below the standardised one.
        xp = self.backend.xp
        size = xp.abs(value - self.samples.n * xp.log(self.samples.scale))
        return value - before <= self.config.tol * size

    def _record(self, value: Array) -> None:
        if self.trace is not None:
            active = ~self.backend.to_host(self.done)
            self.trace.append((self.index[active], self.backend.to_host(value)[active]))

    def _compact(self, state: dict[str, Any]) -> dict[str, Any]:
        """Take finished fits out of the arrays once enough have finished."""
        xp, backend = self.backend.xp, self.backend
        active = np.flatnonzero(~backend.to_host(self.done))
        if active.size > _COMPACT * self.index.size and active.size:
            return state
        self.index = self.index[active]
        if active.size == 0:
            return state
        rows = backend.asarray(active.astype(np.int64))

        def take(value: Any) -> Any:
            return value.map(lambda a: xp.take(a, rows, axis=0)) if isinstance(value, Theta) else xp.take(value, rows)

        self.samples = self.samples.take(rows, backend=backend)
        self.floor = xp.take(self.floor, rows)
        self.done = xp.take(self.done, rows)
        return {name: take(value) for name, value in state.items()}

    def _finish(self, theta: Theta, value: Array, which: Array, n_iter: int, status: FitStatus) -> None:
        """Write the fits of mask `which` (still active) to the result, sorted by mean, in grey levels."""
        backend = self.backend
        mask = backend.to_host(which & ~self.done)
        if not mask.any():
            return
        self.done = self.done | which
        rows = self.index[mask]
        self.out.n_iter[rows] = n_iter
        scale, centre = (backend.to_host(a)[mask, None] for a in (self.samples.scale, self.samples.centre))
        log_w, means, log_s, coef = (
            backend.to_host(a)[mask] for a in (theta.log_weights, theta.means, theta.log_sigmas, theta.coef)
        )
        dead = log_w < -1e29
        flat = backend.to_host(self.samples.z)[mask].reshape(len(rows), -1)
        constant = np.ptp(flat, axis=1) == 0
        bad = constant | dead.all(axis=1) | (status == FitStatus.DEGENERATE)
        final = np.where(bad, FitStatus.DEGENERATE, np.where(dead.any(axis=1), max(status, FitStatus.DROPPED), status))
        if status == FitStatus.MAX_ITER:
            final = np.where(bad, FitStatus.DEGENERATE, FitStatus.MAX_ITER)
        self.out.status[rows] = final
        grey = np.where(dead, np.nan, means * scale + centre)
        order = np.argsort(grey, axis=1, kind="stable")
        hide = bad[:, None]
        for target, part in (
            (self.out.weights, np.where(dead, 0.0, np.exp(log_w))),
            (self.out.means, grey),
            (self.out.sigmas, np.where(dead, np.nan, np.exp(log_s) * scale)),
        ):
            ordered = np.take_along_axis(part, order, axis=1)
            target[rows] = np.where(hide, 0.0 if target is self.out.weights else np.nan, ordered)
        self.out.coef[rows] = np.where(hide, np.nan, coef * scale)
        n = backend.to_host(self.samples.n)[mask]
        log_likelihood = backend.to_host(value)[mask] - n * np.log(scale[:, 0])
        self.out.log_likelihood[rows] = np.where(bad, np.nan, log_likelihood)


def _choose(xp: Any, mask: Array, yes: Theta, no: Theta) -> Theta:
    return yes.map(lambda a, b: xp.where(mask[:, None], a, b), no)


__all__ = ["fit_mixture", "fit_samples", "posterior", "replace", "responsibilities"]
