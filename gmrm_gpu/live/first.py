"""A look at the first frame of a stream: can the model describe it, and what would spoil it?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..config import AnalysisConfig
from ..errors import InputError
from ..frames.movie import ArrayMovie, Visits
from ..runner import LEAST_A_FRAME
from ..sampling import Sampler
from ..survey import check_movie, count_of, survey_movie
from .sources import Arrival


def look_at_first(arrival: Arrival, valid: np.ndarray | None, config: AnalysisConfig) -> list[str]:
    """Sentences about what the frame lacks; later frames may have it.

    Raises
    ------
    InputError
        Frames of this size, or so few visits, cannot carry the model.
    """
    if isinstance(arrival.content, Visits):
        n, more = arrival.content.positions.size, "visit more pixels"
        n_pixels = arrival.shape[0] * arrival.shape[1]
        remarks = []
    else:
        sampler = Sampler(arrival.shape, config.sampling, valid)
        n, n_pixels = sampler.capacity, sampler.n_pixels
        more = f"use a --rate of at least {LEAST_A_FRAME / n_pixels:.2g}"
        remarks = _remarks(arrival.content, arrival.number, valid, config)
    if n < min(LEAST_A_FRAME, n_pixels):
        raise InputError(f"frame {arrival.number} has {count_of(n, 'sample')}, which says nothing of a frame; {more}")
    return remarks


def _remarks(pixels: np.ndarray, number: int, valid: np.ndarray | None, config: AnalysisConfig) -> list[str]:
    k = config.mixture.n_components
    finite = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.True_
    if not finite.all():
        return []  # told when it is analysed
    movie = ArrayMovie(pixels, name="the stream", valid=valid, frame_numbers=np.array([number]))
    survey = survey_movie(movie)
    check_movie(movie, replace(survey, n_distinct=k), config.mixture)
    remarks = [text for text in (survey.outliers, survey.zeros) if text is not None]
    if survey.n_distinct < k:
        levels = count_of(survey.n_distinct, "distinct grey level")
        remarks.append(f"frame {number} has only {levels} for {k} components: is the beam on?")
    return remarks


__all__ = ["look_at_first"]
