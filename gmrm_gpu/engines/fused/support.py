"""Whether the kernels can do an analysis: a pure function of settings and sizes."""

from __future__ import annotations

import numpy as np

from ...config import AnalysisConfig
from .draw import draw_obstacle
from .model import MOST_TERMS
from .movie_plan import movie_obstacle


def fused_obstacle(
    config: AnalysisConfig, shape: tuple[int, int], dtype: np.dtype, *, sampled: bool = False
) -> str | None:
    """Why the kernels, CUDA's or the CPU's, cannot do an analysis, in words that follow "because of"; None: they can.

    Parameters
    ----------
    config : resolved settings. shape, dtype : of the frames. sampled : whether the movie is sub-sampled.
    """
    if config.compute.dtype != "float32":
        return f"the precision {config.compute.dtype}; the kernels work in float32 with float64 sums"
    if config.mixture.n_terms > MOST_TERMS:
        return f"{config.mixture.n_terms} trend terms; the kernels take {MOST_TERMS}"
    if config.method == "paper" and config.quantity.geometry != "slab":
        return f"the geometry {config.quantity.geometry}, whose volume weighs each pixel"
    if config.method == "paper" and sampled:
        return "a sub-sampled movie, whose frames the method paper fits by arrays"
    too_large = movie_obstacle(shape, config.mixture) if config.method == "movie" else None
    return draw_obstacle(shape, dtype) or too_large
