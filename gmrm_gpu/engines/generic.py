"""The array-API engine: gather, fit and label one frame of R replicates, on any backend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, Backend
from ..classify import label_samples
from ..config import CorrectionConfig, MixtureConfig, PhaseConfig
from ..correct import Corrector
from ..mixture.design import TrendBasis, make_samples
from ..mixture.fit import fit_samples
from ..results import MixtureFit
from ..sampling import Draw


@dataclass(frozen=True)
class GenericEngine:
    """Runs anywhere the array API does.

    Attributes
    ----------
    backend : where. reason : why this engine. name : ``"generic"``.
    """

    backend: Backend
    reason: str
    name: str = "generic"

    def fit_and_label(
        self,
        frame: np.ndarray,
        draw: Draw,
        mixture: MixtureConfig,
        phases: PhaseConfig,
        *,
        streams: np.ndarray,
        sigma_floor: float,
    ) -> tuple[MixtureFit, Array, np.ndarray]:
        """Fit each replicate's samples of one frame.

        Returns the fits, the labels (R, m) uint8 on the device, and the mean posterior of the foreground (R,).
        """
        backend, xp = self.backend, self.backend.xp
        image = backend.asarray(np.ascontiguousarray(frame).reshape(-1))
        values = xp.reshape(xp.take(image, xp.reshape(draw.positions, (-1,))), draw.positions.shape)
        basis = TrendBasis(mixture.terms)
        samples = make_samples(values, draw.positions, frame.shape, basis, valid=draw.valid, backend=backend)
        fit = fit_samples(samples, mixture, streams=streams, sigma_floor=sigma_floor, backend=backend)
        m = draw.positions.shape[1]
        labels, posterior = label_samples(samples, fit, phases, m, valid=draw.valid, backend=backend)
        return fit, labels, posterior

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
