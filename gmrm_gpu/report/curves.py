"""Curves of a study: the paper's Figure 4, bias and width, the methods side by side. Each returns a Figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..results import StudyResult
from . import style
from .axes import band, legend_above, line, set_limits, time_ticks, value_label
from .common import everything, lowest_rate, percent, time_axis, unit_text

METHOD_COLOURS = {"paper": style.VERMILION, "movie": style.BLUE}


def rate_colours(study: StudyResult) -> dict[float, str]:
    """One colour a rate, the same in every figure."""
    return {rate: style.RATE_COLOURS[i % len(style.RATE_COLOURS)] for i, rate in enumerate(study.rates)}


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
        set_limits(axes, x, everything)
        time_ticks(axes, x_label, len(x))
        fixed = [(reference, "reference", style.REFERENCE)] + ([] if truth is None else [(truth, "truth", style.TRUTH)])
        if i == 0:
            style.axis_labels(axes, x_label, value_label(study), "(a) mean of the replicates")
            entries = _mean_curves(axes, x, curves, rate_colours(study))
        else:
            rate = study.rates[i - 1]
            title = f"({'abcdefghij'[i]}) {percent(rate)}, {len(study.shares[rate]):,} replicates"
            style.axis_labels(axes, x_label, value_label(study), title)
            entries = _band(axes, x, curves[rate], rate_colours(study)[rate])
        line(axes, x, reference, color=style.REFERENCE, linewidth=1.3, linestyle=(0, (5, 2)))
        if truth is not None:
            line(axes, x, truth, color=style.TRUTH, linewidth=1.8, linestyle=(0, (1, 1.2)))
        style.end_labels(axes, x, [*entries, *fixed], size=8.5)
    return figure


def _mean_curves(axes: Any, x: np.ndarray, curves: dict, colours: dict[float, str]) -> list:
    entries = []
    for rate, curve in curves.items():
        line(axes, x, curve["mean"], color=colours[rate], linewidth=1.8)
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
        line(axes, x, curve[name], color=colour, linewidth=0.9)
    line(axes, x, curve["p50"], color=colour, linewidth=2.0)
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
        set_limits(axes, x, [*values.values(), np.zeros(1)])
        time_ticks(axes, x_label, len(x))
        style.axis_labels(axes, x_label, f"{name} ({unit_text(study)})", title)
        if name == "bias":
            axes.axhline(0, color="#666666", linewidth=0.9)
        for rate, value in values.items():
            line(axes, x, value, color=colours[rate], linewidth=1.8)
        style.end_labels(axes, x, [(v, percent(r), colours[r]) for r, v in values.items()])
    return figure


def comparison_figure(study: StudyResult) -> Any:
    """The methods at the lowest rate on one pair of axes: mean and band of the replicates, references, truth."""
    x, x_label = time_axis(study)
    rate, factor = lowest_rate(study), study.scale.factor
    curves = {part.method: part.curves(rate) for part in study.every}
    truth = None if study.truth is None else study.truth * factor
    figure = style.new_figure(10.1, 4.45)
    axes = style.add_axes(figure, 0.85, 0.65, 9.0, 3.25)
    style.plot_axes(axes)
    drawn = [curve[name] for curve in curves.values() for name in ("mean", "p10", "p90")]
    drawn += [part.reference * factor for part in study.every] + ([] if truth is None else [truth])
    set_limits(axes, x, drawn)
    time_ticks(axes, x_label, len(x))
    style.axis_labels(axes, x_label, value_label(study))
    for part in study.every:
        curve, colour = curves[part.method], METHOD_COLOURS[part.method]
        n = len(part.shares[rate])
        band(axes, x, curve["p10"], curve["p90"], colour)
        name = f"{part.method}: mean and 80 % band of {n:,} replicates"
        line(axes, x, curve["mean"], color=colour, linewidth=1.9, label=name)
        reference = {"color": colour, "linewidth": 1.3, "linestyle": (0, (5, 2))}
        line(axes, x, part.reference * factor, **reference, label=f"{part.method}: reference, {everything(part)}")
    if truth is not None:
        line(axes, x, truth, color=style.BLACK, linewidth=1.8, linestyle=(0, (1, 1.2)), label="truth")
    legend_above(axes)
    return figure
