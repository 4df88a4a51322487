"""Fit many mixtures of one number a pixel at once, and read responsibilities from them (METHOD.md 2-4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results import FitStatus, MixtureFit
from .design import Samples, TrendBasis, make_samples, unblock
from .driver import Driver, best_start
from .histogram import Histogram
from .moments import NO_COMPONENT, Layout, Moments, e_step, moments
from .starts import start_thetas
from .steps import extrapolate, log_prior, m_step, trend_pull


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
    trace : receives (indices, log-likelihood plus log prior of the trend) of the fits evaluated in each pass, on the
        standardised scale.

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
    model = RegressionModel(config, backend)
    return Driver(model, samples, floor, trace).run(best_start(model, samples, streams, floor))


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
    return Driver(RegressionModel(config, backend), samples, floor, None).run(theta)


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


@dataclass(frozen=True)
class RegressionModel:
    """The mixture of one number a pixel as `Driver` wants it; see `driver.Model`."""

    config: MixtureConfig
    backend: Backend

    @property
    def layout(self) -> Layout:
        """Where the parameters stand."""
        return Layout(self.config.n_components, self.config.n_terms)

    @property
    def n_parameters(self) -> int:
        """3K - 1 + q."""
        return self.config.n_parameters

    @property
    def histogram(self) -> Histogram | None:
        """What settles the components of a trend."""
        return Histogram(self.config, self.backend) if self.config.histogram else None

    def starts(self, samples: Samples, streams: np.ndarray | None) -> list[Array]:
        """Every start of the configuration."""
        return start_thetas(samples, self.config, streams, backend=self.backend)

    def evaluate(self, samples: Samples, theta: Array) -> tuple[Array, Moments]:
        """Log-likelihood and sums of one pass."""
        sums = moments(samples, theta, self.layout, backend=self.backend)
        return sums.log_likelihood, sums

    def log_prior(self, samples: Samples, theta: Array) -> Array:
        """Of the trend coefficients."""
        coef = self.layout.split(theta)[3]
        return log_prior(coef, trend_pull(samples, self.config.trend_prior), backend=self.backend)

    def step(self, samples: Samples, sums: Moments, theta: Array, floor: Array, schedule: str) -> Array:
        """The M-step."""
        return m_step(
            sums,
            theta,
            samples.basis,
            layout=self.layout,
            schedule=schedule,
            floor=floor,
            pull=trend_pull(samples, self.config.trend_prior),
            backend=self.backend,
        )

    def extrapolate(self, first: Array, second: Array, third: Array, limit: Array, floor: Array) -> tuple[Array, Array]:
        """SQUAREM."""
        return extrapolate(first, second, third, limit, layout=self.layout, floor=floor, backend=self.backend)

    def empty(self, n_samples: np.ndarray, status: np.ndarray) -> MixtureFit:
        """Fits without parameters."""
        rows, k = len(status), self.config.n_components
        return MixtureFit(
            weights=np.zeros((rows, k)),
            means=np.full((rows, k), np.nan),
            sigmas=np.full((rows, k), np.nan),
            coef=np.full((rows, self.config.n_terms), np.nan),
            log_likelihood=np.full(rows, np.nan),
            n_iter=np.zeros(rows, dtype=np.int64),
            n_samples=n_samples,
            status=status,
            terms=self.config.terms,
        )

    def write(
        self,
        out: MixtureFit,
        rows: np.ndarray,
        theta: np.ndarray,
        log_likelihood: np.ndarray,
        ended: FitStatus,
        units: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Store finished fits in grey levels, components in ascending mean, dropped ones last; unusable ones as NaN."""
        centre, scale = (a[:, None] for a in units)
        log_weights, means, log_sigmas, coef = self.layout.split(theta)
        dropped = log_weights < 0.5 * NO_COMPONENT
        status = np.where(dropped.all(axis=1), FitStatus.DEGENERATE, ended)
        status = np.where(dropped.any(axis=1) & (status == FitStatus.CONVERGED), FitStatus.DROPPED, status)
        bad = (status == FitStatus.DEGENERATE)[:, None]
        means = np.where(dropped | bad, np.nan, means * scale + centre)
        order = np.argsort(means, axis=1, kind="stable")
        out.weights[rows] = np.take_along_axis(np.where(dropped | bad, 0.0, np.exp(log_weights)), order, axis=1)
        out.means[rows] = np.take_along_axis(means, order, axis=1)
        out.sigmas[rows] = np.take_along_axis(
            np.where(dropped | bad, np.nan, np.exp(log_sigmas) * scale), order, axis=1
        )
        out.coef[rows] = np.where(bad, np.nan, coef * scale)
        out.log_likelihood[rows] = np.where(bad[:, 0], np.nan, log_likelihood)
        out.status[rows] = status


__all__ = ["RegressionModel", "fit_mixture", "fit_samples", "posterior", "refit_samples", "responsibilities"]
