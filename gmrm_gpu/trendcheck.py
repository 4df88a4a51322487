"""Do the starts of a fit end in optima that are equally likely, but differ in the foreground (METHOD.md 10)?

A flexible trend can take up a phase, and the likelihood does not object. Then a second optimum often lies beside the
first, with nearly the same likelihood and another share: which one a fit finds is chance. A spare component, which may
sit on either phase, does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .backend import Backend, get_backend
from .classify import foreground_components
from .config import AnalysisConfig, MixtureConfig, PhaseConfig
from .frames import Movie, MovieView
from .mixture.design import Samples, TrendBasis, make_samples
from .mixture.fit import fit_samples, refit_samples
from .results import MixtureFit
from .results.trend import REMEDIES
from .survey import survey_movie
from .visited import Visited, drawn_values, sampler_of

MAX_SAMPLES = 2**14
"""Pixels of a frame that are looked at, at most."""

EQUAL = 1e-3
"""Optima whose log-likelihoods differ by less than this per pixel are equally likely: neighbouring pixels are alike, so
a frame tells less than its number of pixels says."""

DIFFERENT, RELATIVE = 0.03, 0.25
"""Shares that differ by more than both of these, the second of the larger, are different answers."""

APART = 1.0
"""Sigmas between foreground and the nearest other component, in one of the optima at least: with less in both, two
components share a phase, as they must in a frame without foreground, and how they share it says nothing."""


@dataclass(frozen=True)
class TrendCheck:
    """What the starts of a few frames' fits agree on; F frames, S starts.

    Attributes
    ----------
    frames : (F,), frame numbers.
    starts : names of the starts; ``"no trend"`` begins where the fit without a trend ended.
    shares : (F, S), weight of the foreground in the optimum that each start ends in.
    losses : (F, S), log-likelihood per pixel below the best start's.
    disagree : (F,) bool, whether an equally likely optimum has another share than the best.
    """

    frames: np.ndarray
    starts: tuple[str, ...]
    shares: np.ndarray
    losses: np.ndarray
    disagree: np.ndarray

    @property
    def warning(self) -> str | None:
        """One line for the reader, or None where the starts agree."""
        if not self.disagree.any():
            return None
        equal = self.losses < EQUAL
        low, high = (f(np.where(equal, self.shares, edge), axis=1) for f, edge in ((np.min, 2.0), (np.max, -1.0)))
        worst = int(np.argmax(np.where(self.disagree, high - low, -1.0)))
        return (
            f"In {self.disagree.sum()} of {len(self.frames)} frames looked at, equally likely fits differ in the "
            f"foreground (frame {self.frames[worst]}: {100 * low[worst]:.3g} or {100 * high[worst]:.3g} %): the data "
            f"do not say what is trend and what is phase. Use fewer --components if some are spare, or {REMEDIES}."
        )


def check_trend(
    movie: Movie, config: AnalysisConfig, *, n_frames: int = 5, backend: Backend | None = None
) -> TrendCheck | None:
    """Converge every start on its own in a few frames of a movie; None for a model without a trend.

    Parameters
    ----------
    n_frames : frames to look at, spread evenly over the movie. At most 2^14 pixels of each are used.
    backend : where; None: as `config` says.
    """
    if not config.mixture.n_terms:
        return None
    backend = backend or get_backend(config.compute.device, config.compute.dtype)
    chosen = np.unique(((np.arange(n_frames) + 0.5) * len(movie) / n_frames).astype(int))
    samples = _samples(movie, chosen, config, backend)
    fits = _optima(samples, config.mixture, survey_movie(movie).sigma_floor, backend)
    return _compare(movie.frame_numbers[chosen], (*config.mixture.starts, "no trend"), fits, config.phases)


def _samples(movie: Movie, chosen: np.ndarray, config: AnalysisConfig, backend: Backend) -> Samples:
    """One row of samples a frame."""
    if movie.sampled:
        chosen = np.array([t for t in chosen if movie.visits(int(t)).positions.size])
    numbers, xp = movie.frame_numbers[chosen], backend.xp
    movie = MovieView(movie, index=chosen)
    visited = Visited.of(movie) if movie.sampled else None
    most = MAX_SAMPLES if visited is None else min(MAX_SAMPLES, int(visited.counts.min()))
    sampling = replace(config.sampling, rate=min(1.0, most / movie.n_pixels), scheme="fixed")
    sampler = sampler_of(movie, sampling, visited)
    draws = [sampler.draw(np.array([0]), int(number), backend=backend) for number in numbers]
    values = xp.concat([drawn_values(movie, t, draw, backend=backend) for t, draw in enumerate(draws)], axis=0)
    positions = xp.concat([draw.positions for draw in draws], axis=0)
    return make_samples(values, positions, movie.shape, TrendBasis(config.mixture.terms), backend=backend)


def _optima(samples: Samples, config: MixtureConfig, sigma_floor: float, backend: Backend) -> list[MixtureFit]:
    """The fit from each start alone, and the one that begins without a trend."""
    fits = [
        fit_samples(samples, replace(config, starts=(start,)), sigma_floor=sigma_floor, backend=backend)
        for start in config.starts
    ]
    flat = replace(samples, features=samples.features[:, :, :1, :], basis=TrendBasis(()))
    plain = fit_samples(flat, replace(config, trend="none"), sigma_floor=sigma_floor, backend=backend)
    return [*fits, refit_samples(samples, plain, config, sigma_floor=sigma_floor, backend=backend)]


def _compare(numbers: np.ndarray, starts: tuple[str, ...], fits: list[MixtureFit], phases: PhaseConfig) -> TrendCheck:
    shares = np.stack([_share(fit, phases) for fit in fits], axis=1)
    value = np.stack([fit.log_likelihood / np.maximum(fit.n_samples, 1) for fit in fits], axis=1)
    best = np.argmax(np.where(np.isfinite(value), value, -np.inf), axis=1)
    rows = np.arange(len(best))
    losses = value[rows, best][:, None] - value
    losses = np.where(np.isfinite(losses), losses, np.inf)
    chosen = shares[rows, best][:, None]
    gap = np.abs(shares - chosen)
    other = (losses < EQUAL) & (gap > DIFFERENT) & (gap > RELATIVE * np.maximum(shares, chosen))
    apart = np.stack([_apart(fit, phases) for fit in fits], axis=1)
    distinct = np.maximum(apart, apart[rows, best][:, None]) > APART
    return TrendCheck(numbers, starts, shares, losses, (other & distinct).any(axis=1))


def _foreground(fit: MixtureFit, phases: PhaseConfig) -> np.ndarray:
    """(F, K) bool; with ``separated``, which may find none, the outermost component."""
    if phases.phases == "separated":
        phases = PhaseConfig("darkest" if phases.polarity == "dark" else "brightest")
    return foreground_components(fit, phases)


def _share(fit: MixtureFit, phases: PhaseConfig) -> np.ndarray:
    """(F,) weight of the foreground."""
    return (fit.weights * _foreground(fit, phases)).sum(axis=1)


def _apart(fit: MixtureFit, phases: PhaseConfig) -> np.ndarray:
    """(F,) least distance between a component of the foreground and another, in the larger sigma of the two."""
    fore, alive = _foreground(fit, phases), fit.weights > 0
    pair = fore[:, :, None] & (alive & ~fore)[:, None, :]
    means, sigmas = np.where(alive, fit.means, 0.0), np.where(alive, fit.sigmas, 1.0)
    distance = np.abs(means[:, :, None] - means[:, None, :]) / np.maximum(sigmas[:, :, None], sigmas[:, None, :])
    return np.where(pair, distance, np.inf).min(axis=(1, 2))


__all__ = ["TrendCheck", "check_trend"]
