"""The array-API engine: gather, fit and label one frame of R replicates, on any backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..backend import Array, Backend
from ..classify import NOT_VISITED, component_phases, label_samples, movie_foreground
from ..config import CorrectionConfig, MixtureConfig, PhaseConfig
from ..correct import Corrector
from ..mixture.design import TrendBasis, make_samples
from ..mixture.fit import fit_samples
from ..mixture.maps import CellMaps, n_levels
from ..mixture.movie import FIT_SAMPLES, MovieModel
from ..results import FitStatus, MixtureFit, MovieFit
from ..sampling import Draw


@dataclass(frozen=True)
class LabelledMovie:
    """A movie fitted as a whole; see `mixture.movie.MovieLabels`.

    Attributes
    ----------
    fit, foreground : parameters, and (R, K) bool, which components are foreground.
    labels : (R, T, m) uint8 phases, or `NOT_VISITED`. posterior : (R, T, m) of the foreground.
    expected : (R, T, m), expected_mean and expected_weighted : (R, T) on the host, what earlier frames expect.
    """

    fit: MovieFit
    foreground: np.ndarray
    labels: Array
    posterior: Array
    expected: Array
    expected_mean: np.ndarray
    expected_weighted: np.ndarray | None


@dataclass(frozen=True)
class GenericEngine:
    """Runs anywhere the array API does.

    Attributes
    ----------
    backend : where. reason : why this engine. name : ``"generic"``.
    no_kernels : why kernels were not taken although they would be expected, in words that follow "because".
    """

    backend: Backend
    reason: str
    name: str = "generic"
    no_kernels: str = ""

    def fit_and_label(
        self,
        values: Array,
        draw: Draw,
        shape: tuple[int, int],
        mixture: MixtureConfig,
        phases: PhaseConfig,
        *,
        streams: np.ndarray,
        sigma_floor: float,
    ) -> tuple[MixtureFit, Array, np.ndarray]:
        """Fit each replicate's samples of one frame: grey levels (R, m) where `draw` went in a frame of `shape`.

        Returns the fits, the labels (R, m) uint8 on the device, and the mean posterior of the foreground (R,).
        """
        backend, basis = self.backend, TrendBasis(mixture.terms)
        samples = make_samples(values, draw.positions, shape, basis, valid=draw.valid, backend=backend)
        fit = fit_samples(samples, mixture, streams=streams, sigma_floor=sigma_floor, backend=backend)
        m = draw.positions.shape[1]
        labels, posterior = label_samples(samples, fit, phases, m, valid=draw.valid, backend=backend)
        return fit, labels, posterior

    def fit_and_label_movie(
        self,
        values: Array,
        positions: Array,
        valid: Array | None,
        shape: tuple[int, int],
        mixture: MixtureConfig,
        phases: PhaseConfig,
        *,
        allowed: np.ndarray | None,
        streams: np.ndarray,
        sigma_floor: float,
        pixel_weights: Array | None,
        notify: Callable[[float], None] | None = None,
    ) -> LabelledMovie:
        """Fit each replicate's samples of all frames together: values, positions and valid (R, T, m)."""
        xp, backend = self.backend.xp, self.backend
        model = MovieModel(
            values,
            positions,
            shape,
            mixture,
            valid=valid,
            allowed=allowed,
            streams=streams,
            sigma_floor=sigma_floor,
            drift=mixture.drift,
            backend=backend,
        )
        fit = model.fit(notify=notify)
        foreground = movie_foreground(fit, phases)
        found = model.label(foreground, pixel_weights)
        table = backend.asarray(np.ascontiguousarray(component_phases(fit.common, phases, foreground)))
        flat = xp.astype(xp.reshape(found.best, (found.best.shape[0], -1)), xp.int64)
        labels = xp.reshape(xp.take_along_axis(table, flat, axis=1), found.best.shape)
        usable = backend.asarray(fit.common.status < FitStatus.DEGENERATE)[:, None, None]
        seen = usable if valid is None else usable & backend.asarray(valid)
        labels = xp.where(seen, labels, xp.full_like(labels, NOT_VISITED))
        weighted = None if found.expected_weighted is None else backend.to_host(found.expected_weighted)
        mean = backend.to_host(found.expected_mean)
        return LabelledMovie(fit, foreground, labels, found.posterior, found.expected, mean, weighted)

    def movie_bytes(self, m: int, n_frames: int, shape: tuple[int, int], mixture: MixtureConfig) -> int:
        """Memory one replicate of `m` samples in each of `n_frames` takes when fitted as a whole, from above."""
        word = 4 if self.backend.dtype == self.backend.xp.float32 else 8
        k, p = mixture.n_components, len(TrendBasis(mixture.terms).monomials)
        cells = CellMaps(shape, n_levels(min(1.0, m / (shape[0] * shape[1]))), self.backend).n_cells
        fitted = min(m * n_frames, FIT_SAMPLES) * (word * (p + 8 * k + 6) + 60)
        return round(m * n_frames * (24 + 3 * word) + fitted + 8 * n_frames * word * k * cells)

    def corrector(self, shape: tuple[int, int], correction: CorrectionConfig, phases: PhaseConfig) -> Corrector:
        """The spatio-temporal vote over a movie's frames."""
        return Corrector(shape, correction, len(phases.names), phases.foreground_index, self.backend)

    def bytes_per_replicate(self, m: int, mixture: MixtureConfig, corrector: Corrector, n_frames: int) -> int:
        """Memory one replicate of `m` samples a frame takes while its movie is analysed, an estimate from above."""
        word = 4 if self.backend.dtype == self.backend.xp.float32 else 8
        # Values and positions; z, validity and monomials; then what is largest of the arrays that make these, of two
        # compactions of the batch with one pass's arrays over components, and of the indices of the vote.
        n_samples = len(TrendBasis(mixture.terms).monomials) + 2
        make = word * (n_samples + 4) + 3 * 8
        fit = word * (1.3125 * n_samples + 5 * mixture.n_components + 8) + 8
        return round(m * (12 + word * n_samples + max(make, fit, 150))) + corrector.bytes_per_replicate(m, n_frames)
