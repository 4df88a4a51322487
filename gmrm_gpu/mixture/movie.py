"""All frames of a movie fitted together: common phases, weights that vary over the frame, small drifts (METHOD.md 6).

One ECM. Its E-step takes each sample's weights from the maps that the other frames' samples make (`maps`); its
M-steps (`movie_steps`) are the common means and trend, each frame's deviation, and the common sigmas, all from the
sums of one pass. Replicates are the leading axis; each sees its own samples only, and its answer does not depend on
what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results.fit import FitStatus, MixtureFit, MovieFit
from .design import TrendBasis, make_samples
from .fit import fit_samples
from .maps import CellMaps, n_levels
from .movie_labels import MovieLabels, Reader
from .movie_result import component_order, movie_fit
from .movie_settle import Settler
from .movie_steps import MovieParameters, MovieSteps
from .rows import FrameRows
from .steps import trend_pull

START_SAMPLES = 2**15
"""The start is fitted to an even subset of about this many samples of all frames."""
FIT_SAMPLES = 2**17
"""The parameters are fitted to an even subset of about this many samples."""
FIT_LEVELS = 3
"""Levels of the maps that parameters are fitted with; the finer ones serve the labels alone: they hold so few samples
that what they say repeats the labels they were made from, and parameters fitted with them would be too sure of those.
"""
N_REMAP = 3
"""Passes in which the finest maps settle."""


class MovieModel:
    """R replicates of a movie of T frames; `fit`, then `label`.

    Parameters
    ----------
    values : (R, T, m) intensities, any real dtype. positions : (R, T, m) int32 flat pixel indices.
    shape : (height, width). valid : (R, T, m) bool, False for padding, whose value may be anything.
    allowed : (height, width) bool, pixels that are not excluded.
    streams : (R, K) uint32 words for the k-means++ start. sigma_floor : grey levels.
    drift : scale of the random walk of each frame's deviation; 0: none.
    """

    def __init__(
        self,
        values: Array,
        positions: Array,
        shape: tuple[int, int],
        config: MixtureConfig,
        *,
        valid: Array | None = None,
        allowed: np.ndarray | None = None,
        streams: np.ndarray | None = None,
        sigma_floor: float = 1e-6,
        drift: float = 1.0,
        backend: Backend,
    ) -> None:
        self.config, self.backend, self.shape, self.allowed = config, backend, shape, allowed
        self.n_replicates, self.n_frames, m = values.shape
        rows = FrameRows.of_movies(values, positions, valid, shape, TrendBasis(config.terms), backend)
        n_pixels = shape[0] * shape[1] if allowed is None else int(allowed.sum())
        # From the places, not the samples: the answer must not depend on what else is in the batch.
        self.rate = min(1.0, m / n_pixels)
        self._start(rows, streams, sigma_floor if config.sigma_floor is None else config.sigma_floor, drift)

    def _start(self, rows: FrameRows, streams: np.ndarray | None, floor: float, drift: float) -> None:
        """Common parameters of all frames without maps, from a pooled fit to a subset."""
        backend, config = self.backend, self.config
        values, positions, valid = rows.even(-(-START_SAMPLES // self.n_frames)).pooled()
        pooled = make_samples(values, positions, self.shape, rows.basis, valid=valid, backend=backend)
        fit = fit_samples(pooled, replace(config, histogram=False), streams=streams, sigma_floor=floor, backend=backend)
        finite = backend.to_host(rows.finite())
        self.start_status = np.where(finite, fit.status, np.uint8(FitStatus.DEGENERATE))
        self.usable = self.start_status < FitStatus.DEGENERATE
        self.centre = np.where(self.usable, backend.to_host(pooled.centre), 0.0)
        self.scale = np.where(self.usable, backend.to_host(pooled.scale), 1.0)
        self.rows = rows.standardised(self.centre, np.where(self.usable, self.scale, 0.0))
        self.now = self._first_parameters(fit)
        self.steps = MovieSteps(
            basis=rows.basis,
            floor=backend.asarray(floor / self.scale[:, None]),
            pull=trend_pull(pooled, config.trend_prior),
            strength=drift,
            backend=backend,
        )

    def _first_parameters(self, fit: MixtureFit) -> MovieParameters:
        backend, xp, usable = self.backend, self.backend.xp, self.usable[:, None]
        centre, scale = self.centre[:, None], self.scale[:, None]
        alive = (fit.weights > 0) & usable
        weights = np.where(alive, fit.weights, 0.0)[:, None, :]
        return MovieParameters(
            alive=backend.asarray(alive),
            weights=backend.asarray(np.repeat(weights, self.n_frames, axis=1)),
            means=backend.asarray(np.where(alive, (fit.means - centre) / scale, 0.0)),
            sigmas=backend.asarray(np.where(alive, fit.sigmas / scale, 1.0)),
            coef=backend.asarray(np.where(usable, fit.coef / scale, 0.0)),
            pivot=backend.zeros((self.n_replicates, 1), xp.float64),
            drift=backend.zeros((self.n_replicates, self.n_frames, self.config.n_terms + 2), xp.float64),
        )

    def fit(self, *, notify: Callable[[float], None] | None = None, max_iter: int | None = None) -> MovieFit:
        """Parameters from an even subset of the samples, then the finest maps that all samples allow.

        notify : called with the part of the work that is done, 0 to 1. max_iter : most iterations; None: all.
        """
        notify = notify or (lambda fraction: None)
        rows, everything = self.rows.even(-(-FIT_SAMPLES // self.n_frames)), slice(None)
        maps = CellMaps(self.shape, min(n_levels(self.rate * rows.m / self.rows.m), FIT_LEVELS), self.backend)
        samples = rows.samples(everything, len(rows.basis.monomials))
        cells = maps.cells(rows.place_blocks(everything))
        settled = Settler(self.now, self.steps, samples, cells, maps).run(lambda part: notify(0.7 * part), max_iter)
        self.reader = Reader(self.rows, settled.now, self.steps, maps, settled.deposits)
        self.order = component_order(settled, self.steps)
        finest = CellMaps(self.shape, n_levels(self.rate), self.backend)
        if rows.m < self.rows.m or finest.n_levels > maps.n_levels:
            for number in range(N_REMAP):
                self.reader.remap(finest)
                notify(0.7 + 0.3 * (number + 1) / N_REMAP)
        notify(1.0)
        n_samples = self.backend.to_host(rows.counts())
        return movie_fit(settled, self.steps, self.start_status, n_samples, self.centre, self.scale)

    def label(self, foreground: np.ndarray, pixel_weights: Array | None = None) -> MovieLabels:
        """Labels after `fit`.

        Parameters
        ----------
        foreground : (R, K) bool, components in ascending mean as in the fit.
        pixel_weights : (height * width,) float64, what each pixel counts, for `MovieLabels.expected_weighted`.
        """
        backend = self.backend
        # The fit reports components in ascending mean, the parameters keep the order of the start.
        rank = np.argsort(self.order, axis=1)
        mine = np.where(self.usable[:, None], np.take_along_axis(foreground, rank, axis=1), np.nan)
        chosen = backend.real(np.repeat(mine, self.n_frames, axis=0))
        labels = backend.asarray(np.repeat(rank.astype(np.uint8), self.n_frames, axis=0))
        best, posterior = self.reader.two_sided(chosen, labels)
        ways = [None] if pixel_weights is None else [None, backend.to_host(pixel_weights)]
        shares = np.stack([self.reader.past_maps.pixel_shares(self.allowed, way) for way in ways], axis=1)
        expected, means = self.reader.from_the_past(chosen, backend.asarray(shares))
        weighted = None if pixel_weights is None else means[:, :, 1]
        return MovieLabels(best, posterior, expected, means[:, :, 0], weighted)
