"""The picture of a model selection: how many components, which trend, and what the recommended model looks like."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ..results.selection import LOCAL_NOTE, ModelSelection
from . import style
from .common import count_of, number
from .histogram import bin_edges, draw_components

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.VERMILION)
_MARKERS = "osD^v"
_LINEAR = 30.0
"""Differences of BIC up to this are drawn to scale, larger ones on a logarithm: what matters lies near zero."""


def selection_figure(result: ModelSelection) -> Any:
    """Three panels: BIC against K for each trend, the trends at the recommended K, histogram with components."""
    figure = style.new_figure(13.0, 5.95)
    _components_panel(style.add_axes(figure, 0.85, 0.95, 3.6, 3.15), result)
    _trends_panel(style.add_axes(figure, 6.2, 0.95, 1.85, 3.15), result)
    _histogram_panel(style.add_axes(figure, 8.95, 0.95, 3.85, 3.15), result)
    verdict = "Recommended" if result.decided else "Nothing could be decided; fallback"
    text = f"{verdict}: {count_of(result.n_components, 'component')}, trend {style.plain(result.trend)}"
    figure.text(0.03, 0.955, text, fontsize=13, fontweight="bold", color=style.TEXT, va="center")
    reason = textwrap.fill(style.plain(f"{result.reason} {LOCAL_NOTE}"), 185)
    figure.text(0.03, 0.025, reason, fontsize=9, color=style.TEXT, va="bottom", linespacing=1.4)
    pixels = f"{result.n_samples:,} pixels of {count_of(len(result.frames), 'frame')} of {result.movie}"
    figure.text(0.97, 0.955, style.plain(pixels), fontsize=9, color=style.TEXT, ha="right", va="center")
    return figure


def _components_panel(axes: Any, result: ModelSelection) -> None:
    style.plot_axes(axes)
    style.axis_labels(axes, "number of components K", "BIC above the best (lower is better)", "How many components?")
    # BIC with local weights decides; where there is none, the ordinary one.
    shown = {id(row): row.bic_local for row in result.rows}
    if not np.isfinite(list(shown.values())).any():
        shown = {id(row): row.bic for row in result.rows}
    values = np.array(list(shown.values()))
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no model could be fitted", transform=axes.transAxes, ha="center", fontsize=10)
        return
    least = float(np.nanmin(values))
    for i, trend in enumerate(dict.fromkeys(row.trend for row in result.rows)):
        rows = [row for row in result.rows if row.trend == trend]
        axes.plot(
            [row.n_components for row in rows],
            [shown[id(row)] - least for row in rows],
            color=_COLOURS[i % len(_COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            linewidth=1.4,
            label=style.plain(trend),
        )
    chosen = result.row(result.trend, result.n_components)
    if chosen is not None and np.isfinite(shown[id(chosen)]):
        place = (chosen.n_components, shown[id(chosen)] - least)
        axes.plot(*place, "o", markersize=15, markerfacecolor="none", markeredgecolor=style.BLACK, markeredgewidth=1.8)
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=1.0)
    axes.set_ylim(-4, 3 * max(float(np.nanmax(values)) - least, _LINEAR))
    ticks = [0, 10, 20, *(10.0**e for e in range(2, 8) if 10**e < axes.get_ylim()[1])]
    axes.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xticks(sorted({row.n_components for row in result.rows if np.isfinite(shown[id(row)])}))
    axes.legend(
        title="trend (ring: recommended)",
        fontsize=8.5,
        title_fontsize=8.5,
        frameon=False,
        ncols=3,
        loc="upper left",
        bbox_to_anchor=(-0.14, -0.15),
        columnspacing=1.2,
        handlelength=1.6,
    )


def _trends_panel(axes: Any, result: ModelSelection) -> None:
    style.plot_axes(axes)
    rows = [row for row in result.rows if row.n_components == result.n_components]
    values = np.array([row.bic_halves for row in rows])
    title = f"Which trend, for K = {result.n_components}?"
    style.axis_labels(axes, "BIC above the best", "", title)
    axes.set_yticks(range(len(rows)), [style.plain(row.trend) for row in rows])
    axes.invert_yaxis()
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "not compared", transform=axes.transAxes, ha="center", fontsize=10)
        return
    above = values - np.nanmin(values)
    axes.set_xscale("symlog", linthresh=_LINEAR)
    axes.set_xlim(0, 6 * max(float(np.nanmax(above)), _LINEAR))
    ticks = [0, 10, *(10.0**e for e in range(2, 8) if 10**e < axes.get_xlim()[1])]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(False, axis="y")
    for i, (row, value) in enumerate(zip(rows, above, strict=True)):
        chosen = row.trend == result.trend
        if np.isfinite(value):
            axes.barh(i, value, height=0.55, color=_COLOURS[i % len(_COLOURS)], alpha=1.0 if chosen else 0.55)
            text = number(round(value)) + ("  recommended" if chosen else "")
            weight = "bold" if chosen else "normal"
            axes.annotate(
                text,
                (value, i),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=style.TEXT,
                fontweight=weight,
            )


def _histogram_panel(axes: Any, result: ModelSelection) -> None:
    style.plot_axes(axes)
    fit = result.fit
    trend = "" if fit is None or not fit.terms else " minus trend"
    style.axis_labels(axes, f"grey level{trend}", "pixels per grey level", "Does the sum follow the histogram?")
    values = result.values
    if values.size == 0:
        axes.text(0.5, 0.5, "no pixels", transform=axes.transAxes, ha="center", fontsize=10)
        return
    if fit is not None:
        values = values - fit.trend(result.shape).reshape(-1)[result.positions]
    # Fewer bins than for a whole frame: a few thousand pixels make a ragged histogram.
    edges = bin_edges(values, whole=False)[::2]
    density = np.histogram(values, edges)[0] / np.diff(edges)
    axes.stairs(density, edges, fill=True, color="#D5D5D5", linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.5 * max(float(density.max()), 1e-12))
    if fit is not None:
        names = [f"component {i + 1}" for i in range(fit.n_components)]
        colours = (style.BACKGROUND_COLOURS * 2)[: fit.n_components]
        draw_components(axes, fit, list(zip(names, colours, strict=True)), (edges, values.size))
