"""Mixture parameters of several channels recorded at the same pixels, and two movies labelled together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .fit import MixtureFit


@dataclass(frozen=True)
class ChannelFit:
    """Parameters of one or many fits of C channels; the leading axes (``...``) are frames or replicates.

    Attributes
    ----------
    weights : (..., K), components in ascending mean of the first channel. A dropped component has weight 0 and NaN
        mean and covariance and stands last.
    means : (..., K, C), grey levels. covariances : (..., K, C, C), squared grey levels.
    coef : (..., C, q), trend coefficients in grey levels, on coordinates scaled to [-1, 1] over the frame.
    log_likelihood : (...), natural log, of the grey levels.
    n_iter : (...), passes over the samples (the starts not counted).
    n_samples : (...), pixels the fit saw. status : (...), `FitStatus` values.
    terms : exponents (a, b) of the monomials x^a y^b that `coef` multiplies.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    coef: np.ndarray
    log_likelihood: np.ndarray
    n_iter: np.ndarray
    n_samples: np.ndarray
    status: np.ndarray
    terms: tuple[tuple[int, int], ...] = ()

    def __getitem__(self, index: Any) -> ChannelFit:
        """The fits at `index` of the leading axes."""
        return ChannelFit(**{name: getattr(self, name)[index] for name in _FIT_ARRAYS}, terms=self.terms)

    @property
    def n_components(self) -> int:
        """K."""
        return self.weights.shape[-1]

    @property
    def n_channels(self) -> int:
        """C."""
        return self.means.shape[-1]

    @property
    def n_parameters(self) -> int:
        """K - 1 weights, K C means, K C (C + 1) / 2 covariances, C q trend coefficients."""
        return channel_parameters(self.n_components, self.n_channels, len(self.terms))

    @property
    def n_free(self) -> np.ndarray:
        """(...), parameters that were really fitted: `n_parameters` less those of dropped components."""
        each = channel_parameters(2, self.n_channels, 0) - channel_parameters(1, self.n_channels, 0)
        return self.n_parameters - each * (~(self.weights > 0)).sum(axis=-1)

    @property
    def aic(self) -> np.ndarray:
        """Akaike's criterion, smaller is better."""
        return 2 * self.n_free - 2 * self.log_likelihood

    @property
    def bic(self) -> np.ndarray:
        """Schwarz's criterion, smaller is better; spatial correlation makes it favour large K."""
        return self.n_free * np.log(np.maximum(self.n_samples, 1)) - 2 * self.log_likelihood

    def channel(self, c: int) -> MixtureFit:
        """What the fit says of channel `c` alone, its marginal; the log-likelihood stays that of all channels."""
        sigmas = np.sqrt(self.covariances[..., c, c])
        rest = {name: getattr(self, name) for name in ("log_likelihood", "n_iter", "n_samples", "status", "terms")}
        return MixtureFit(self.weights, self.means[..., c], sigmas, self.coef[..., c, :], **rest)

    @staticmethod
    def stack(fits: Iterable[ChannelFit]) -> ChannelFit:
        """Join fits of equal shape along a new first axis."""
        items = list(fits)
        arrays = {name: np.stack([getattr(fit, name) for fit in items]) for name in _FIT_ARRAYS}
        return ChannelFit(**arrays, terms=items[0].terms)


@dataclass(frozen=True)
class ChannelResult:
    """Two movies of the same pixels, labelled together.

    Attributes
    ----------
    frame : (T,), frame numbers of the first movie.
    share : (T,), share of the visited pixels whose likeliest component is foreground; NaN where the fit failed.
    posterior : (T,), mean posterior of the foreground.
    fits : (T,) fits; foreground : (T, K) bool, by the rule of the phases on the first channel.
    labels : (T, height, width) uint8; 0 not visited, p + 1 phase p of `PhaseConfig.names`.
    """

    frame: np.ndarray
    share: np.ndarray
    posterior: np.ndarray
    fits: ChannelFit
    foreground: np.ndarray
    labels: np.ndarray


def channel_parameters(n_components: int, n_channels: int, n_terms: int) -> int:
    """Free parameters of a mixture of K components in C channels with q trend terms each."""
    each = 1 + n_channels + n_channels * (n_channels + 1) // 2
    return n_components * each - 1 + n_channels * n_terms


_FIT_ARRAYS = ("weights", "means", "covariances", "coef", "log_likelihood", "n_iter", "n_samples", "status")
