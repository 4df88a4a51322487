"""A settled movie in grey levels, components in ascending mean, with a status (METHOD.md 2, 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..results.fit import FitStatus, MixtureFit, MovieFit
from .movie_settle import TOL, Settled
from .movie_steps import MovieSteps


def component_order(settled: Settled, steps: MovieSteps) -> np.ndarray:
    """(R, K): which component stands where in the results; dropped ones are last."""
    host = steps.backend.to_host
    means = np.where(host(settled.now.alive), host(settled.now.means), np.inf)
    return np.argsort(means, axis=1, kind="stable")


@dataclass(frozen=True)
class _Units:
    """How (R, n, ...) arrays of the settled movies become results."""

    order: np.ndarray
    alive: np.ndarray
    status: np.ndarray
    n_iter: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    terms: tuple[tuple[int, int], ...]

    def fit(
        self,
        weights: np.ndarray,
        means: np.ndarray,
        log_sigmas: np.ndarray,
        coef: np.ndarray,
        log_likelihood: np.ndarray,
        n_samples: np.ndarray,
    ) -> MixtureFit:
        """Parameters (R, n, K), (R, n, q); log-likelihood in standardised units and samples (R, n)."""
        place, alive = (np.broadcast_to(a[:, None, :], means.shape) for a in (self.order, self.alive))
        weights, means, log_sigmas = (np.take_along_axis(a, place, axis=2) for a in (weights, means, log_sigmas))
        usable = (self.status < FitStatus.DEGENERATE)[:, None]
        scale, centre = self.scale[:, None, None], self.centre[:, None, None]
        return MixtureFit(
            weights=np.where(alive, weights, 0.0),
            means=np.where(alive, means * scale + centre, np.nan),
            sigmas=np.where(alive, np.exp(log_sigmas) * scale, np.nan),
            coef=np.where(usable[..., None], coef * scale, np.nan),
            log_likelihood=np.where(usable, log_likelihood - n_samples * np.log(self.scale)[:, None], np.nan),
            n_iter=np.repeat(self.n_iter[:, None], means.shape[1], axis=1),
            n_samples=n_samples.astype(np.int64),
            status=np.repeat(self.status[:, None], means.shape[1], axis=1),
            terms=self.terms,
        )


def movie_fit(
    settled: Settled,
    steps: MovieSteps,
    start_status: np.ndarray,
    n_samples: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
) -> MovieFit:
    """In the units of the samples.

    Parameters
    ----------
    start_status : (R,) of the pooled fits. n_samples : (R, T) that the fits saw. centre, scale : (R,) grey levels.
    """
    host, now = steps.backend.to_host, settled.now
    (rows, n_frames, k), q = now.weights.shape, steps.basis.n_terms
    status = _status(settled, host(now.alive), host(now.sigmas), start_status)
    order = component_order(settled, steps)
    alive = np.take_along_axis(host(now.alive), order, axis=1) & (status < FitStatus.DEGENERATE)[:, None]
    units = _Units(order, alive, status, settled.n_iter, centre, scale, steps.basis.terms)
    theta = host(steps.theta(now, own_weights=False)).reshape(rows, n_frames, -1)
    weights, log_likelihood = host(now.weights), host(settled.log_likelihood)
    frames = units.fit(
        weights, theta[..., k : 2 * k], theta[..., 2 * k : 3 * k], theta[..., 3 * k :], log_likelihood, n_samples
    )
    common = units.fit(
        weights.mean(axis=1, keepdims=True),
        host(now.means)[:, None, :],
        np.log(host(now.sigmas))[:, None, :],
        host(now.coef)[:, None, :],
        log_likelihood.sum(axis=1, keepdims=True),
        n_samples.sum(axis=1, keepdims=True),
    )
    grey = np.concatenate([np.repeat(scale[:, None], q + 1, axis=1), np.ones((rows, 1))], axis=1)
    return MovieFit(common[:, 0], frames, host(now.drift) * grey[:, None, :])


def _status(settled: Settled, alive: np.ndarray, sigmas: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(R,) that of a pooled fit without parameters, else how the movie settled."""
    status = np.where(settled.moved <= TOL, FitStatus.CONVERGED, FitStatus.MAX_ITER)
    status = np.where(alive.all(axis=1), status, FitStatus.DROPPED)
    broken = ~np.isfinite(np.where(alive, sigmas, 1.0)).all(axis=1) | ~alive.any(axis=1)
    status = np.where(broken, FitStatus.DEGENERATE, status)
    return np.where(start < FitStatus.DEGENERATE, status, start).astype(np.uint8)
