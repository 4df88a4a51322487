"""How single frames of a movie fitted as a whole deviate from it: trend, offset, contrast (METHOD.md 6, step 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..results import AnalysisResult, MixtureFit
from . import style
from .axes import line, set_limits, time_ticks
from .common import analysis_config, time_axis

_GRID = (33, 33)
"""Trend surfaces are smooth: so many points show their extent."""


class Drift(NamedTuple):
    """Deviations of the frames from their mean, (T,) each.

    trend : largest deviation of the trend surface anywhere in the frame, grey levels. offset : of the commonest
    component's mean, grey levels. contrast : of the distance between the outermost components, relative; None with
    fewer than two components.
    """

    trend: np.ndarray
    offset: np.ndarray
    contrast: np.ndarray | None


def drift_of(result: AnalysisResult) -> Drift | None:
    """The drift of a movie fitted as a whole; None for other methods, one frame, no drift, or no usable fit."""
    config, fits = analysis_config(result), result.fits
    kept = np.isfinite(fits.means).all(axis=0)
    if config.method != "movie" or config.mixture.drift == 0 or len(result.frame) < 2 or not kept.any():
        return None
    means = fits.means[:, kept]
    commonest = means[:, int(np.argmax(np.mean(fits.weights[:, kept], axis=0)))]
    contrast = None
    if means.shape[1] > 1:
        span = means.max(axis=1) - means.min(axis=1)
        contrast = span / span.mean() - 1
    return Drift(_trend_deviation(fits), commonest - commonest.mean(), contrast)


def _trend_deviation(fits: MixtureFit) -> np.ndarray:
    surfaces = np.stack([fits[t].trend(_GRID) for t in range(len(fits.status))])
    return np.abs(surfaces - surfaces.mean(axis=0)).max(axis=(1, 2))


def drift_figure(result: AnalysisResult) -> Any:
    """Trend, offset and contrast of each frame against the movie's."""
    drift = drift_of(result)
    if drift is None:
        raise ValueError("this result has no drift; nothing to draw")
    x, x_label = time_axis(result)
    panels = [
        ("(a) trend: largest deviation", "grey levels", drift.trend, style.GREEN),
        ("(b) offset", "grey levels", drift.offset, style.BLUE),
    ]
    if drift.contrast is not None:
        panels.append(("(c) contrast", "%", 100 * drift.contrast, style.VERMILION))
    figure = style.new_figure(0.4 + 3.35 * len(panels), 2.9)
    for i, (title, unit, values, colour) in enumerate(panels):
        axes = style.add_axes(figure, 3.35 * i + 0.75, 0.4, 2.5, 1.9)
        style.plot_axes(axes)
        # Not less than half a grey level or per cent: what is smaller should look small.
        least = 0.5 * (np.array([0.0, 1.0]) if values is drift.trend else np.array([-1.0, 1.0]))
        set_limits(axes, x, [values, least])
        time_ticks(axes, x_label, len(x))
        style.axis_labels(axes, x_label, unit, title)
        if values is not drift.trend:
            axes.axhline(0, color="#666666", linewidth=0.9)
        line(axes, x, values, color=colour, linewidth=1.6)
    return figure
