"""Two detectors that saw the same pixels, such as HAADF and BF, fitted and labelled together frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Backend, get_backend
from .classify import component_phases, foreground_components
from .config import AnalysisConfig
from .errors import InputError
from .frames import Movie, open_movie
from .mixture.channels import channel_posterior, fit_channels
from .philox import STREAM_START, stream_words
from .results import ChannelFit, ChannelResult, FitStatus
from .results.channels import channel_parameters
from .sampling import Sampler
from .survey import check_movie, survey_movie


def fit_two_channels(
    movie_a: Any,
    movie_b: Any,
    config: AnalysisConfig | None = None,
    *,
    frames: Any = None,
    rate: float | None = None,
) -> ChannelResult:
    """Fit each frame of two movies of the same pixels as one mixture of 2-vectors, and label the visited pixels.

    Parameters
    ----------
    movie_a, movie_b : Movie, array (T, height, width) or path, of equal length and size; a pixel that either
        excludes is not used.
    config : settings; `AnalysisConfig()` by default. Model, phases, sampling and computing are used; phases go by
        the first channel's means. Labels are those of the mixture: there is no spatio-temporal correction.
    frames : selection as in `open_movie`, for example ``"0:10"``.
    rate : sub-sample both at the same pixels, in (0, 1]; overrides ``config.sampling.rate``.

    Returns
    -------
    ChannelResult. A frame whose fit failed has a NaN share, a status, and no labels.

    Raises
    ------
    InputError
        The movies differ in size or length, or cannot carry the model.
    """
    config = config or AnalysisConfig()
    config = config if rate is None else config.with_rate(rate)
    pair = _Pair.open(movie_a, movie_b, config, frames)
    done = [pair.frame(t) for t in range(len(pair.movies[0]))]
    fits = ChannelFit.stack(fit for fit, _, _ in done)
    return ChannelResult(
        frame=pair.movies[0].frame_numbers,
        share=np.array([_share(labels, config.phases.foreground_index + 1) for _, labels, _ in done]),
        posterior=np.array([posterior for _, _, posterior in done]),
        fits=fits,
        foreground=foreground_components(fits.channel(0), config.phases),
        labels=np.stack([labels for _, labels, _ in done]),
    )


def _share(labels: np.ndarray, value: int) -> float:
    """Part of the visited pixels with this label; NaN where none was labelled."""
    visited = int((labels > 0).sum())
    return float((labels == value).sum() / visited) if visited else float("nan")


@dataclass(frozen=True)
class _Pair:
    """Two movies of the same pixels, and how they are drawn and fitted."""

    movies: tuple[Movie, Movie]
    config: AnalysisConfig
    sampler: Sampler
    sigma_floor: tuple[float, ...]
    backend: Backend

    @staticmethod
    def open(movie_a: Any, movie_b: Any, config: AnalysisConfig, frames: Any) -> _Pair:
        movies = open_movie(movie_a, frames=frames), open_movie(movie_b, frames=frames)
        sizes = [f"{len(m)} frames of {m.shape[0]} x {m.shape[1]}" for m in movies]
        if sizes[0] != sizes[1]:
            raise InputError(f"the movies have {sizes[0]} and {sizes[1]}; give two detectors of one scan")
        masks = [m.valid for m in movies if m.valid is not None]
        sampler = Sampler(movies[0].shape, config.sampling, np.logical_and.reduce(masks) if masks else None)
        needed = channel_parameters(config.mixture.n_components, 2, config.mixture.n_terms) + 1
        if sampler.capacity < needed:
            raise InputError(
                f"rate {config.sampling.rate:g} gives {sampler.capacity} samples a frame, but the model of two "
                f"channels has {needed - 1} parameters; use a higher rate or a smaller model"
            )
        surveys = [survey_movie(m) for m in movies]
        for movie, survey in zip(movies, surveys, strict=True):
            check_movie(movie, survey, config.mixture)
        backend = get_backend(config.compute.device, config.compute.dtype)
        return _Pair(movies, config, sampler, tuple(s.sigma_floor for s in surveys), backend)

    def frame(self, t: int) -> tuple[ChannelFit, np.ndarray, float]:
        """Fit, labels (height, width) uint8, and mean posterior of the foreground of frame `t`."""
        config, backend = self.config, self.backend
        number, rate = int(self.movies[0].frame_numbers[t]), config.sampling.rate
        draw = self.sampler.draw(np.array([0]), number, backend=backend)
        positions = backend.to_host(draw.positions)[0]
        valid = None if draw.valid is None else backend.to_host(draw.valid)[0]
        values = np.stack([movie.frame(t).reshape(-1)[positions].astype(np.float64) for movie in self.movies])
        words = stream_words(
            config.sampling.seed, rate, np.array([0]), number, STREAM_START, config.mixture.n_components
        )
        shape = self.movies[0].shape
        fit = fit_channels(
            values,
            positions,
            shape,
            config.mixture,
            valid=valid,
            streams=words,
            sigma_floor=self.sigma_floor,
            backend=backend,
        )
        resp = backend.to_host(channel_posterior(values, positions, shape, fit, valid=valid, backend=backend))
        used = np.ones(len(positions), bool) if valid is None else valid
        return fit, self._labels(fit, resp, positions, used), self._posterior(fit, resp, used)

    def _labels(self, fit: ChannelFit, resp: np.ndarray, positions: np.ndarray, used: np.ndarray) -> np.ndarray:
        """0 not visited, p + 1 phase p of the likeliest component."""
        shape = self.movies[0].shape
        labels = np.zeros(shape[0] * shape[1], dtype=np.uint8)
        if FitStatus(int(fit.status)).usable:
            phase = component_phases(fit.channel(0)[np.newaxis], self.config.phases)[0]
            labels[positions[used]] = phase[np.argmax(resp[:, used], axis=0)] + 1
        return labels.reshape(shape)

    def _posterior(self, fit: ChannelFit, resp: np.ndarray, used: np.ndarray) -> float:
        chosen = foreground_components(fit.channel(0)[np.newaxis], self.config.phases)[0]
        usable = FitStatus(int(fit.status)).usable
        return float(resp[chosen][:, used].sum() / used.sum()) if usable else float("nan")


__all__ = ["fit_two_channels"]
