"""How many components, which trend: candidates with their criteria, and likelihood-ratio tests (METHOD.md 10).

Fits are batched over the leading axis R. `fit_candidates` keeps the log-likelihood from falling when a model grows:
a nested model's optimum is a point of the larger one, so the larger one is also converged from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import chdtrc

from ..backend import Array, Backend
from ..config import MixtureConfig, trend_terms
from ..philox import STREAM_BOOTSTRAP, philox4x32
from ..results import FitStatus, MixtureFit
from .design import Samples, TrendBasis, make_samples, scaled_coordinates
from .fit import fit_samples, refit_samples, responsibilities

Trend = str | tuple[tuple[int, int], ...]

_UNIT = 2.0**-32


@dataclass(frozen=True)
class Candidate:
    """One model, fitted to R sets of samples. icl : (R,), see `icl`."""

    config: MixtureConfig
    fit: MixtureFit
    icl: np.ndarray

    @property
    def trend(self) -> str:
        """Preset or list of monomials, as it was given."""
        return str(self.config.trend)


@dataclass(frozen=True)
class BootstrapTest:
    """Likelihood ratio of K against K + 1 components and its distribution where K is true.

    statistic, p_value : (R,); NaN where a fit of the data failed. null : (R, B), NaN where a bootstrap fit failed.
    """

    statistic: np.ndarray
    null: np.ndarray
    p_value: np.ndarray


def fit_candidates(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    config: MixtureConfig,
    *,
    trends: Iterable[Trend],
    components: Iterable[int],
    valid: Any = None,
    streams: np.ndarray | None = None,
    sigma_floor: float = 1e-6,
    backend: Backend,
    tick: Callable[[], None] | None = None,
) -> list[Candidate]:
    """Fit every trend with every number of components.

    Parameters
    ----------
    values, positions, shape, valid, sigma_floor : as in `fit_mixture`. config : all settings but K and trend.
    streams : (R, largest K) uint32 random words for the k-means++ start. tick : called after each model.

    Returns
    -------
    Candidates, those of the first trend first, K ascending. The log-likelihood falls neither with K (a component
    that finds nothing is reported as dropped) nor with a trend that holds all terms of an earlier or smaller one.
    """
    trends, components = list(trends), sorted(components)
    made: dict[tuple[int, int], Candidate] = {}
    for i in sorted(range(len(trends)), key=lambda i: len(trend_terms(trends[i]))):
        basis = TrendBasis(trend_terms(trends[i]))
        samples = make_samples(values, positions, shape, basis, valid=valid, backend=backend)
        for k in components:
            model = replace(config, n_components=k, trend=trends[i])
            words = None if streams is None else streams[:, :k]
            fit = fit_samples(samples, model, streams=words, sigma_floor=sigma_floor, backend=backend)
            for other in (made[j, k].fit for j in range(len(trends)) if (j, k) in made):
                # Continued only where the starts did worse than the nested model.
                if set(other.terms) <= set(model.terms) and not (fit.log_likelihood >= other.log_likelihood).all():
                    again = refit_samples(samples, other, model, sigma_floor=sigma_floor, backend=backend)
                    fit = better(fit, again)
            if (i, k - 1) in made:
                fit = better(fit, with_empty_component(made[i, k - 1].fit))
            made[i, k] = Candidate(model, fit, icl(samples, fit, backend=backend))
            if tick:
                tick()
    return [made[i, k] for i in range(len(trends)) for k in components]


def better(first: MixtureFit, second: MixtureFit) -> MixtureFit:
    """Per fit the one of higher log-likelihood; `first` where they are equal, a failed one only if both failed."""
    value, other = (np.nan_to_num(fit.log_likelihood, nan=-np.inf) for fit in (first, second))
    worse = value < other
    pairs = zip(first.arrays().items(), second.arrays().values(), strict=True)
    arrays = {
        name: np.where(worse.reshape((-1,) + (1,) * (a.ndim - 1)), b, a).astype(a.dtype) for (name, a), b in pairs
    }
    return MixtureFit.from_arrays(arrays, first.terms)


def with_empty_component(fit: MixtureFit) -> MixtureFit:
    """The same mixture with one more component, which holds nothing: a point of the model with K + 1."""

    def pad(array: np.ndarray, value: float) -> np.ndarray:
        return np.concatenate([array, np.full((len(array), 1), value)], axis=1)

    status = np.where(fit.status < FitStatus.DEGENERATE, FitStatus.DROPPED, fit.status).astype(fit.status.dtype)
    means, sigmas = pad(fit.means, np.nan), pad(fit.sigmas, np.nan)
    return replace(fit, weights=pad(fit.weights, 0.0), means=means, sigmas=sigmas, status=status)


def icl(samples: Samples, fit: MixtureFit, *, backend: Backend) -> np.ndarray:
    """(R,) integrated completed likelihood, smaller is better (Biernacki, Celeux & Govaert 2000).

    BIC plus twice the entropy of the responsibilities: components that share their pixels count against a model.
    """
    xp = backend.xp
    resp = xp.astype(responsibilities(samples, fit, backend=backend), xp.float64)
    logs = xp.log(xp.where(resp > 0, resp, xp.ones_like(resp)))
    entropy = -xp.sum(xp.reshape(resp * logs, (resp.shape[0], -1)), axis=1)
    return fit.bic + 2.0 * backend.to_host(entropy)


def likelihood_ratio_test(small: MixtureFit, large: MixtureFit) -> tuple[np.ndarray, int, np.ndarray]:
    """Statistic (R,), degrees of freedom and p-value (R,) of nested trends with the same K; chi-square (METHOD.md 10).

    NaN where a fit failed. A difference below the tolerance of the fits may come out a little negative; it counts as 0.
    """
    extra = len(large.terms) - len(small.terms)
    if small.n_components != large.n_components or extra < 1 or not set(small.terms) < set(large.terms):
        raise ValueError(f"trend {small.terms} is not nested in {large.terms}, or K differs")
    statistic = np.maximum(2.0 * (large.log_likelihood - small.log_likelihood), 0.0)
    return statistic, extra, chdtrc(extra, statistic)


def bootstrap_components(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    config: MixtureConfig,
    *,
    n_bootstrap: int = 199,
    seed: int = 0,
    valid: Any = None,
    sigma_floor: float = 1e-6,
    backend: Backend,
) -> BootstrapTest:
    """Test K = `config.n_components` against K + 1 by the parametric bootstrap (McLachlan 1987).

    Data are drawn from the mixture fitted with K, at the same pixels; both models are fitted to them exactly as to
    the data, all draws of all R sets in one batch. The p-value is (1 + number of null ratios at least as large as
    the data's) / (1 + B). A pure function of data and `seed`.

    Parameters
    ----------
    values, positions, shape, valid, sigma_floor : as in `fit_mixture`. n_bootstrap : B, draws for each of R.
    """
    values = np.asarray(backend.to_host(values), dtype=np.float64)
    rows, m = values.shape
    positions = np.broadcast_to(np.asarray(backend.to_host(positions)), (rows, m))
    valid = np.ones((rows, m), bool) if valid is None else np.asarray(backend.to_host(valid))

    def ratio(values: Any, positions: np.ndarray, valid: np.ndarray) -> tuple[MixtureFit, np.ndarray]:
        basis = TrendBasis(config.terms)
        samples = make_samples(values, positions, shape, basis, valid=valid, backend=backend)
        return _ratio(samples, config, sigma_floor, backend)

    fit, statistic = ratio(values, positions, valid)
    source = np.repeat(np.arange(rows), n_bootstrap)
    drawn = simulate(fit[source], positions[source], shape, np.arange(source.size), seed=seed, backend=backend)
    null = ratio(drawn, positions[source], valid[source])[1].reshape(rows, n_bootstrap)
    counted = np.isfinite(null).sum(axis=1)
    with np.errstate(invalid="ignore"):
        exceed = (null >= statistic[:, None]).sum(axis=1)
    p_value = np.where(np.isfinite(statistic) & (counted > 0), (1.0 + exceed) / (1.0 + counted), np.nan)
    return BootstrapTest(statistic, null, p_value)


def _ratio(
    samples: Samples, config: MixtureConfig, sigma_floor: float, backend: Backend
) -> tuple[MixtureFit, np.ndarray]:
    """Fits with K components (R) and twice the gain in log-likelihood of one more (R,), never negative."""
    more = replace(config, n_components=config.n_components + 1)
    small = fit_samples(samples, config, sigma_floor=sigma_floor, backend=backend)
    large = fit_samples(samples, more, sigma_floor=sigma_floor, backend=backend)
    large = better(large, with_empty_component(small))
    return small, 2.0 * (large.log_likelihood - small.log_likelihood)


def simulate(
    fit: MixtureFit,
    positions: Any,
    shape: tuple[int, int],
    replicates: np.ndarray,
    *,
    seed: int,
    backend: Backend,
) -> Array:
    """(R, m) intensities, float64, drawn from R mixtures at the pixels `positions` (R, m).

    A pure function of `seed`, replicate number and place in the row; NaN for a fit that failed.
    """
    xp = backend.xp
    m = positions.shape[1]
    counter = (
        backend.asarray(np.arange(m, dtype=np.uint32)[None, :]),
        backend.asarray(np.asarray(replicates, dtype=np.uint32)[:, None]),
        backend.asarray(np.zeros((1, 1), np.uint32)),
        backend.asarray(np.full((1, 1), STREAM_BOOTSTRAP, np.uint32)),
    )
    key = tuple(backend.asarray(np.full((1, 1), word, np.uint32)) for word in (seed & 0xFFFFFFFF, seed >> 32))
    words = philox4x32(counter, key, xp=xp)
    choice, radius, angle = ((xp.astype(word, xp.float64) + 0.5) * _UNIT for word in words[:3])
    normal = xp.sqrt(-2.0 * xp.log(radius)) * xp.cos(2.0 * math.pi * angle)
    mean, sigma = _chosen(fit, choice, backend)
    return mean + sigma * normal + _trend_at(fit, positions, shape, backend)


def _chosen(fit: MixtureFit, choice: Array, backend: Backend) -> tuple[Array, Array]:
    """Mean and sigma (R, m) of the component that uniform numbers (R, m) pick by its weight."""
    xp = backend.xp
    edges = backend.asarray(np.cumsum(fit.weights, axis=1))
    alive = fit.weights > 0
    means, sigmas = (backend.asarray(np.where(alive, a, 0.0 * fit.means[:, :1])) for a in (fit.means, fit.sigmas))
    mean, sigma = (xp.broadcast_to(a[:, :1], choice.shape) for a in (means, sigmas))
    for k in range(1, fit.n_components):
        # The last living one also takes what rounding leaves above the last edge.
        beyond = (choice > edges[:, k - 1 : k]) & backend.asarray(alive[:, k : k + 1])
        mean, sigma = (xp.where(beyond, a[:, k : k + 1], old) for a, old in ((means, mean), (sigmas, sigma)))
    return mean, sigma


def _trend_at(fit: MixtureFit, positions: Any, shape: tuple[int, int], backend: Backend) -> Array:
    """(R, m) trend at flat pixel indices."""
    xp = backend.xp
    x, y = (xp.astype(c, xp.float64) for c in scaled_coordinates(backend.asarray(positions), shape, backend=backend))
    surface = xp.zeros_like(x)
    for j, (a, b) in enumerate(fit.terms):
        surface = surface + backend.asarray(fit.coef[:, j : j + 1]) * x**a * y**b
    return surface


__all__ = [
    "BootstrapTest",
    "Candidate",
    "bootstrap_components",
    "fit_candidates",
    "icl",
    "likelihood_ratio_test",
    "simulate",
]
