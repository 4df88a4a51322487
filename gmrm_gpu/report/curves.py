"""Curves over time: the growth curve, the paper's Figure 4, bias and width. Each returns a matplotlib Figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..results import AnalysisResult, FitStatus, StudyResult
from . import style
from .common import (
    Result,
    count_of,
    finite_share,
    foreground_name,
    is_share_of_frame,
    percent,
    quantity_name,
    time_axis,
    unit_text,
)


def rate_colours(study: StudyResult) -> dict[float, str]:
    """One colour a rate, the same in every figure."""
    return {rate: style.RATE_COLOURS[i % len(style.RATE_COLOURS)] for i, rate in enumerate(study.rates)}


def _value_label(result: Result) -> str:
    return f"{style.plain(foreground_name(result))} {quantity_name(result)} ({unit_text(result)})"


def _line(axes: Any, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
    # A line needs two points; with few of them each is marked.
    if len(x) <= 3:
        kwargs.setdefault("marker", "o")
        kwargs.setdefault("markersize", 5)
    axes.plot(x, y, **kwargs)


def _set_limits(axes: Any, x: np.ndarray, values: list[np.ndarray]) -> None:
    finite_x, flat = finite_share(x), finite_share(np.concatenate([np.ravel(v) for v in values]))
    low_x, high_x = (float(finite_x.min()), float(finite_x.max())) if finite_x.size else (0.0, 1.0)
    pad = 0.01 * (high_x - low_x) if high_x > low_x else 0.5
    axes.set_xlim(low_x - pad, high_x + pad)
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    if low >= 0:
        low = 0.0
    if not high > low:
        high = low + 1.0
    margin = 0.05 * (high - low)
    axes.set_ylim(low - (0 if low == 0 else margin), high + margin)
    if high - low >= 5000:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace("-", "−"))


def _time_ticks(axes: Any, label: str, n_points: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=label == "frame"))
    if n_points == 1:
        axes.set_xticks([axes.get_xlim()[0] + 0.5])


def figure4(study: StudyResult) -> Any:
    """The paper's Figure 4: mean curves of all rates (a), then 10th, 50th, 90th percentiles of each rate."""
    n = 1 + len(study.rates)
    columns = {2: 2, 3: 3, 4: 2}.get(n, 3)
    width = 5.0 if columns == 2 else 4.2
    rows = -(-n // columns)
    figure = style.new_figure(columns * width + 0.15, rows * 3.25 + 0.1)
    x, x_label = time_axis(study)
    curves = {rate: study.curves(rate) for rate in study.rates}
    reference = study.reference * study.scale.factor
    truth = None if study.truth is None else study.truth * study.scale.factor
    everything = [reference, *(c for curve in curves.values() for c in curve.values())]
    everything += [] if truth is None else [truth]
    for i in range(n):
        axes = style.add_axes(figure, (i % columns) * width + 0.75, (i // columns) * 3.25 + 0.35, width - 1.75, 2.4)
        style.plot_axes(axes)
        _set_limits(axes, x, everything)
        _time_ticks(axes, x_label, len(x))
        fixed = [(reference, "reference", style.REFERENCE)] + ([] if truth is None else [(truth, "truth", style.TRUTH)])
        if i == 0:
            style.axis_labels(axes, x_label, _value_label(study), "(a) mean of the replicates")
            entries = _mean_curves(axes, x, curves, rate_colours(study))
        else:
            rate = study.rates[i - 1]
            title = f"({'abcdefghij'[i]}) {percent(rate)}, {len(study.shares[rate]):,} replicates"
            style.axis_labels(axes, x_label, _value_label(study), title)
            entries = _band(axes, x, curves[rate], rate_colours(study)[rate])
        _line(axes, x, reference, color=style.REFERENCE, linewidth=1.3, linestyle=(0, (5, 2)))
        if truth is not None:
            _line(axes, x, truth, color=style.TRUTH, linewidth=1.8, linestyle=(0, (1, 1.2)))
        style.end_labels(axes, x, [*entries, *fixed], size=8.5)
    return figure


def _mean_curves(axes: Any, x: np.ndarray, curves: dict, colours: dict[float, str]) -> list:
    entries = []
    for rate, curve in curves.items():
        _line(axes, x, curve["mean"], color=colours[rate], linewidth=1.8)
        entries.append((curve["mean"], percent(rate), colours[rate]))
    return entries


def _band(axes: Any, x: np.ndarray, curve: dict[str, np.ndarray], colour: str) -> list:
    if len(x) == 1 and np.isfinite(curve["p50"][0]):
        spread = np.abs([curve["p50"] - curve["p10"], curve["p90"] - curve["p50"]])
        axes.errorbar(x, curve["p50"], yerr=spread, color=colour, capsize=6, linewidth=1.5)
    if not np.isfinite(curve["p50"]).any():
        axes.text(0.5, 0.5, "no usable replicate", transform=axes.transAxes, ha="center", fontsize=10)
        return []
    axes.fill_between(x, curve["p10"], curve["p90"], color=colour, alpha=0.22, linewidth=0)
    for name in ("p10", "p90"):
        _line(axes, x, curve[name], color=colour, linewidth=0.9)
    _line(axes, x, curve["p50"], color=colour, linewidth=2.0)
    names = (("p90", "90th percentile"), ("p50", "median"), ("p10", "10th percentile"))
    return [(curve[key], name, colour) for key, name in names]


def bias_width_figure(study: StudyResult) -> Any:
    """Bias (mean less reference) and width (90th less 10th percentile) of every rate against time."""
    x, x_label = time_axis(study)
    colours = rate_colours(study)
    reference = study.reference * study.scale.factor
    figure = style.new_figure(10.1, 3.35)
    curves = {rate: study.curves(rate) for rate in study.rates}
    panels = (
        ("bias", "(a) bias: mean − reference", {r: c["mean"] - reference for r, c in curves.items()}),
        ("width", "(b) width: 90th − 10th percentile", {r: c["p90"] - c["p10"] for r, c in curves.items()}),
    )
    for i, (name, title, values) in enumerate(panels):
        axes = style.add_axes(figure, i * 5.0 + 0.8, 0.35, 3.4, 2.45)
        style.plot_axes(axes)
        _set_limits(axes, x, [*values.values(), np.zeros(1)])
        _time_ticks(axes, x_label, len(x))
        style.axis_labels(axes, x_label, f"{name} ({unit_text(study)})", title)
        if name == "bias":
            axes.axhline(0, color="#666666", linewidth=0.9)
        for rate, value in values.items():
            _line(axes, x, value, color=colours[rate], linewidth=1.8)
        style.end_labels(axes, x, [(v, percent(r), colours[r]) for r, v in values.items()])
    return figure


def growth_figure(result: AnalysisResult) -> Any:
    """The growth curve before and after the correction; frames whose fit did not converge are marked."""
    x, x_label = time_axis(result)
    value = result.quantity
    figure = style.new_figure(9.2, 4.2)
    axes = style.add_axes(figure, 0.85, 0.35, 6.4, 3.2)
    style.plot_axes(axes)
    entries = [(value, _estimate_name(result), style.BLUE)]
    if is_share_of_frame(result):
        raw = result.share_raw * result.scale.factor
        entries.append((raw, "count, before correction", "#777777"))
    _set_limits(axes, x, [values for values, _, _ in entries])
    _time_ticks(axes, x_label, len(x))
    for values, _, colour in entries[::-1]:
        _line(axes, x, values, color=colour, linewidth=2.0 if colour == style.BLUE else 1.2)
    marked = _mark_status(axes, x, value, result.status)
    style.axis_labels(axes, x_label, _value_label(result))
    if marked:
        axes.text(0, 1.03, marked, transform=axes.transAxes, fontsize=8.5, color=style.VERMILION, va="bottom")
    style.end_labels(axes, x, entries)
    return figure


def _estimate_name(result: AnalysisResult) -> str:
    if result.config.quantity.estimator == "posterior":
        return "posterior mean"
    return "count, corrected" if result.config.correction.radius > 0 else "count, no correction"


def _mark_status(axes: Any, x: np.ndarray, value: np.ndarray, status: np.ndarray) -> str:
    """Mark what did not converge; returns the words that explain the marks."""
    status = np.asarray(status)
    failed = ~np.isfinite(value)
    unsure = (status != FitStatus.CONVERGED) & ~failed
    words = []
    if unsure.any():
        style_of = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}
        axes.plot(x[unsure], value[unsure], color=style.VERMILION, **style_of)
        words.append(f"○ {count_of(int(unsure.sum()), 'frame')}: fit not converged or components dropped")
    if failed.any():
        low = axes.get_ylim()[0]
        kwargs = {"marker": "x", "markersize": 7, "linestyle": "none", "clip_on": False, "zorder": 5}
        axes.plot(x[failed], np.full(failed.sum(), low), color=style.VERMILION, **kwargs)
        words.append(f"× {count_of(int(failed.sum()), 'frame')}: no usable fit")
    return "     ".join(words)
