"""A look at a few frames before the work starts: can the model describe this movie, and what would spoil it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import MixtureConfig
from .errors import InputError
from .frames import Movie

_MANY_ZEROS = 0.2
"""Part of a frame that may be exactly 0 without a question whether it was visited at all."""
_FAR = 5.0
"""Outliers lie this many times the range of 99.6 % of the pixels beyond it; no phase or saturation does."""


@dataclass(frozen=True)
class Survey:
    """What the first, middle and last frame hold.

    Attributes
    ----------
    n_distinct : the most distinct grey levels in one of them.
    sigma_floor : smallest sigma the data can show, grey levels: the quantisation step / sqrt(12) of integers, a
        thousandth of the spread of real numbers.
    outliers : a sentence about hot or dead pixels, or None. zeros : one about pixels that seem not visited.
    """

    n_distinct: int
    sigma_floor: float
    outliers: str | None
    zeros: str | None = None


def survey_movie(movie: Movie) -> Survey:
    """Read three frames and sum them up."""
    n_distinct, spreads, outliers, zeros = 0, [], None, None
    for t in sorted({0, len(movie) // 2, len(movie) - 1}):
        values = movie.visits(t).values
        if values.size == 0:
            continue
        n_distinct = max(n_distinct, np.unique(values).size)
        low, high = np.quantile(values, (0.002, 0.998))
        spreads.append(float(high - low))
        outliers = outliers or _outliers(values, low, high, int(movie.frame_numbers[t]))
        zeros = zeros or (None if movie.sampled else _zeros(values, int(movie.frame_numbers[t])))
    if movie.dtype.kind in "iub":
        return Survey(n_distinct, 1.0 / 12**0.5, outliers, zeros)
    widest = max(spreads, default=0.0)
    return Survey(n_distinct, 2.5e-4 * widest if widest > 0 else 1e-12, outliers, zeros)


def _zeros(values: np.ndarray, number: int) -> str | None:
    part = np.count_nonzero(values == 0) / values.size
    if part <= _MANY_ZEROS:
        return None
    return (
        f"Frame {number} is exactly 0 in {100 * part:.3g} % of its pixels. If the beam did not go there, say so with "
        "--unvisited 0 or --visited MASK; as it stands they count as dark pixels."
    )


def _outliers(values: np.ndarray, low: float, high: float, number: int) -> str | None:
    least, most = float(values.min()), float(values.max())
    reach = _FAR * (float(high) - float(low))
    if reach == 0 or (most <= high + reach and least >= low - reach):
        return None
    return (
        f"Frame {number} reaches from {least:g} to {most:g} though nearly all of its pixels lie between {low:g} and "
        f"{high:g}: a few hot or dead pixels can spoil every fit. Cut them off with --clip {low:g},{high:g} (a little "
        "wider than the phases), or exclude them with a mask."
    )


def check_movie(movie: Movie, survey: Survey, mixture: MixtureConfig) -> None:
    """Refuse a movie that the model cannot describe at all."""
    a, b = (max((term[i] for term in mixture.terms), default=0) for i in (0, 1))
    # Rows and columns with a pixel that is not excluded.
    height, width = movie.shape if movie.valid is None else (int(movie.valid.any(axis=i).sum()) for i in (1, 0))
    if width <= a or height <= b:
        raise InputError(
            f"frames of {height} x {width} usable rows and columns are too small for a trend with x^{a} and y^{b}; "
            "use --trend none or linear, or larger frames"
        )
    n_pixels = movie.n_pixels
    if n_pixels <= mixture.n_parameters:
        raise InputError(f"frames have {n_pixels} usable pixels, but the model has {mixture.n_parameters} parameters")
    if survey.n_distinct < mixture.n_components:
        suspect = "enough pixels were visited" if movie.sampled else "this is the recorded movie and not a mask"
        raise InputError(
            f"{movie.name} has only {count_of(survey.n_distinct, 'distinct grey level')}, but {mixture.n_components} "
            f"components were asked for; use fewer --components, or check that {suspect}"
        )


def count_of(n: int, thing: str) -> str:
    """``count_of(1, "sample")`` -> ``"1 sample"``, with an s for any other number."""
    return f"{n} {thing}" + ("" if n == 1 else "s")
