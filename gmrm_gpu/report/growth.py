"""Curves of one analysis: the growth curve with its interval, and the four estimators compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import ESTIMATORS
from ..results import AnalysisResult, FitStatus
from . import style
from .axes import GREY, band, legend_above, line, set_limits, time_ticks, value_label
from .common import (
    analysis_config,
    count_of,
    foreground_name,
    has_interval,
    is_movie,
    is_share_of_frame,
    level_text,
    time_axis,
    unit_text,
)

ESTIMATOR_COLOURS = {
    "count": GREY,
    "posterior": style.GREEN,
    "assisted": style.VERMILION,
    "smoothed": style.BLUE,
}


def growth_figure(result: AnalysisResult) -> Any:
    """The chosen estimate with its interval as a band, the plain count in grey, and what did not converge."""
    x, x_label = time_axis(result)
    value, plain = result.quantity, plain_count(result)
    # Room for one row of the legend, for two where frames are marked.
    top = 0.4 if np.isfinite(value).all() and not _unsure(result).any() else 0.65
    figure = style.new_figure(9.2, top + 3.75)
    axes = style.add_axes(figure, 0.85, top, 8.1, 3.15)
    style.plot_axes(axes)
    drawn = [value] if plain is None else [value, plain[0]]
    set_limits(axes, x, [*drawn, *(result.quantity_interval if has_interval(result) else ())])
    time_ticks(axes, x_label, len(x))
    line(axes, x, value, color=style.BLUE, linewidth=2.0, label=_estimate_name(result), zorder=3)
    if has_interval(result):
        # The method paper fits each frame to its few pixels, and the scatter of that is in no interval.
        what = "for the fully sampled value" if is_movie(result) else "(choice of pixels alone)"
        label = f"{level_text(result)} interval {what}"
        band(axes, x, *result.quantity_interval, style.BLUE, label)
    if plain is not None:
        points = {"color": GREY, "linewidth": 0.8, "marker": "o", "markersize": 3.2 if len(x) < 120 else 1.5}
        axes.plot(x, plain[0], label=plain[1], zorder=2, **points)
    _mark_status(axes, x, value, result)
    style.axis_labels(axes, x_label, value_label(result))
    legend_above(axes)
    if not np.isfinite(value).any():
        axes.text(0.5, 0.5, "no usable fit", transform=axes.transAxes, ha="center", color=style.TEXT, fontsize=10)
    return figure


def plain_count(result: AnalysisResult) -> tuple[np.ndarray, str] | None:
    """The count of labels beside the estimate, with its name; None where it would be the same curve or has no unit."""
    if not is_share_of_frame(result):
        return None
    corrected = analysis_config(result).correction.radius_px > 0
    if result.estimator == "count":
        share, name = result.share_raw, "count before the correction"
    elif result.estimator == "posterior":
        share, name = result.share_raw, f"count{' before the correction' if corrected else ', frame by frame'}"
    else:
        share, name = result.count, f"count, frame by frame{', corrected' if corrected else ''}"
    same = np.allclose(np.nan_to_num(share), np.nan_to_num(result.share), rtol=0, atol=1e-9)
    return None if same or not np.isfinite(share).any() else (share * result.scale.factor, name)


def _estimate_name(result: AnalysisResult) -> str:
    names = {"posterior": "mean posterior", "assisted": "assisted estimate", "smoothed": "smoothed estimate"}
    corrected = ", corrected" if analysis_config(result).correction.radius_px > 0 else ", no correction"
    return names.get(result.estimator, f"count{corrected}")


def _unsure(result: AnalysisResult) -> np.ndarray:
    """(T,) frames whose own fit did not converge or lost a component; a movie has but one fit, so no frame stands out.

    Failed fits are not among them.
    """
    own = result.config.method == "paper"
    return (np.asarray(result.status) != FitStatus.CONVERGED) & np.isfinite(result.quantity) & own


def _mark_status(axes: Any, x: np.ndarray, value: np.ndarray, result: AnalysisResult) -> None:
    """Mark frames without a fit and, where every frame has a fit of its own, those that did not converge."""
    failed, unsure = ~np.isfinite(value), _unsure(result)
    kwargs: dict[str, Any] = {"color": style.VERMILION, "markersize": 7, "linestyle": "none"}
    if unsure.any():
        text = f"{count_of(int(unsure.sum()), 'frame')}: fit not converged or components dropped"
        axes.plot(x[unsure], value[unsure], marker="o", markerfacecolor="none", label=text, **kwargs)
    if failed.any():
        low = np.full(failed.sum(), axes.get_ylim()[0])
        text = f"{count_of(int(failed.sum()), 'frame')}: no usable fit"
        axes.plot(x[failed], low, marker="x", clip_on=False, zorder=5, label=text, **kwargs)


def estimators(result: AnalysisResult) -> list[str]:
    """Names of the estimators that have something to say: a value in some frame, where anything is foreground."""
    if not result.foreground.any():
        return []
    return [name for name in ESTIMATORS if np.isfinite(getattr(result, name)).any()]


def estimators_figure(result: AnalysisResult) -> Any:
    """All estimators on one pair of axes, and the width of each one's interval."""
    x, x_label = time_axis(result)
    names, slab = estimators(result), is_share_of_frame(result)
    factor = result.scale.factor if slab else 100.0
    curves = {name: getattr(result, name) * factor for name in names}
    widths = {name: (result.interval(name)[1] - result.interval(name)[0]) * factor for name in names}
    widths = {name: width for name, width in widths.items() if np.isfinite(width).any() and has_interval(result)}
    unit = unit_text(result) if slab else "% of the frame"
    what = value_label(result) if slab else f"{style.plain(foreground_name(result))} ({unit})"
    panels = [("(a) estimates of the same curve" if widths else "estimates of the same curve", curves, what)]
    if widths:
        panels.append((f"(b) width of the {level_text(result)} interval", widths, f"width ({unit})"))
    figure = style.new_figure(10.3, 3.55)
    for i, (title, values, label) in enumerate(panels):
        axes = style.add_axes(figure, i * 5.1 + 0.8, 0.4, 3.45 if widths else 8.55, 2.55)
        style.plot_axes(axes)
        set_limits(axes, x, list(values.values()))
        time_ticks(axes, x_label, len(x))
        style.axis_labels(axes, x_label, label, title)
        for name, value in values.items():
            line(axes, x, value, color=ESTIMATOR_COLOURS[name], linewidth=2.2 if name == result.estimator else 1.2)
        style.end_labels(axes, x, [(v, name, ESTIMATOR_COLOURS[name]) for name, v in values.items()])
    return figure
