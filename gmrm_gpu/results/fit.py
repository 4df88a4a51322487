"""Mixture parameters and how their fits ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np


class FitStatus(IntEnum):
    """Outcome of one fit, the worst that happened. Only the last two have no usable parameters."""

    CONVERGED = 0
    MAX_ITER = 1
    DROPPED = 2
    DEGENERATE = 3
    TOO_FEW = 4

    @property
    def label(self) -> str:
        """The word used in tables."""
        return _STATUS_LABELS[self]

    @property
    def usable(self) -> bool:
        """Whether the parameters (and so the share) mean anything."""
        return self < FitStatus.DEGENERATE


_STATUS_LABELS = {
    FitStatus.CONVERGED: "converged",
    FitStatus.MAX_ITER: "max_iter",
    FitStatus.DROPPED: "dropped components",
    FitStatus.DEGENERATE: "degenerate",
    FitStatus.TOO_FEW: "too few samples",
}


def fit_statuses(status: np.ndarray, *, whole: bool) -> np.ndarray:
    """(..., T) of frames as one a fit: of a movie fitted as a whole, whose frames without samples were no fit."""
    return np.min(status, axis=-1) if whole else np.asarray(status)


def status_counts(status: np.ndarray) -> dict[str, int]:
    """How many fits ended how, as ``{"converged": 990, "max_iter": 10}``; absent outcomes are left out."""
    values, counts = np.unique(np.asarray(status), return_counts=True)
    return {FitStatus(int(v)).label: int(c) for v, c in zip(values, counts, strict=True)}


@dataclass(frozen=True)
class MixtureFit:
    """Parameters of one or many fits; the leading axes (``...``) are frames or replicates.

    Attributes
    ----------
    weights, means, sigmas : (..., K), components in ascending mean; grey levels. A dropped component has weight
        0 and NaN mean and sigma and stands last.
    coef : (..., q), trend coefficients in grey levels, on coordinates scaled to [-1, 1] over the frame.
    log_likelihood : (...), natural log, of the grey levels.
    n_iter : (...), passes over the samples (the starts not counted).
    n_samples : (...), samples the fit saw.
    status : (...), `FitStatus` values.
    terms : exponents (a, b) of the monomials x^a y^b that `coef` multiplies.
    """

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray
    coef: np.ndarray
    log_likelihood: np.ndarray
    n_iter: np.ndarray
    n_samples: np.ndarray
    status: np.ndarray
    terms: tuple[tuple[int, int], ...] = ()

    def __getitem__(self, index: Any) -> MixtureFit:
        """The fits at `index` of the leading axes."""
        return MixtureFit(**{name: getattr(self, name)[index] for name in _FIT_ARRAYS}, terms=self.terms)

    @property
    def n_components(self) -> int:
        """K."""
        return self.weights.shape[-1]

    @property
    def n_parameters(self) -> int:
        """3K - 1 + q."""
        return 3 * self.n_components - 1 + len(self.terms)

    @property
    def n_free(self) -> np.ndarray:
        """(...), parameters that were really fitted: `n_parameters` less three a dropped component."""
        return 3 * (self.weights > 0).sum(axis=-1) - 1 + len(self.terms)

    @property
    def aic(self) -> np.ndarray:
        """Akaike's criterion, smaller is better."""
        return 2 * self.n_free - 2 * self.log_likelihood

    @property
    def bic(self) -> np.ndarray:
        """Schwarz's criterion, smaller is better; spatial correlation makes it favour large K."""
        return self.n_free * np.log(np.maximum(self.n_samples, 1)) - 2 * self.log_likelihood

    def trend(self, shape: tuple[int, int]) -> np.ndarray:
        """The fitted trend surface of one fit (no leading axes), (height, width), grey levels, float64."""
        height, width = shape
        x = np.linspace(-1.0, 1.0, width) if width > 1 else np.zeros(1)
        y = np.linspace(-1.0, 1.0, height) if height > 1 else np.zeros(1)
        surface = np.zeros(shape)
        for coef, (a, b) in zip(self.coef, self.terms, strict=True):
            surface += coef * np.outer(y**b, x**a)
        return surface

    @staticmethod
    def stack(fits: Iterable[MixtureFit]) -> MixtureFit:
        """Join fits of equal shape along a new first axis."""
        items = list(fits)
        arrays = {name: np.stack([getattr(fit, name) for fit in items]) for name in _FIT_ARRAYS}
        return MixtureFit(**arrays, terms=items[0].terms)

    def arrays(self) -> dict[str, np.ndarray]:
        """Field name -> array, for saving."""
        return {name: getattr(self, name) for name in _FIT_ARRAYS}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], terms: Any) -> MixtureFit:
        """Inverse of `arrays`."""
        return MixtureFit(**{n: arrays[n] for n in _FIT_ARRAYS}, terms=tuple((int(a), int(b)) for a, b in terms))


_FIT_ARRAYS = ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter", "n_samples", "status")


@dataclass(frozen=True)
class MovieFit:
    """A movie fitted as a whole (METHOD.md 6): what all frames share, and each frame with its drift put in.

    Attributes
    ----------
    common : (R,) fits: weights pooled over the frames, common means, sigmas and trend.
    frames : (R, T) fits; the weights are those of the frame.
    drift : (R, T, q + 2) deviations of trend coefficients and offset (grey levels) and of the contrast (relative).
    """

    common: MixtureFit
    frames: MixtureFit
    drift: np.ndarray
