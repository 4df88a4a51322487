"""The picture of a plan: how wide the interval is at each rate, and where it is as narrow as wanted."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ..results import UNIT_TEXT
from ..results.planning import INTERVAL_NOTE, PlanRow, SamplingPlan
from . import style
from .common import count_of, number, percent

_MARKERS = "osD^"


def plan_figure(result: SamplingPlan) -> Any:
    """Width against rate for each scheme, on logarithms, with the wanted width and the recommended rate."""
    figure = style.new_figure(8.6, 6.0)
    axes = style.add_axes(figure, 0.95, 1.35, 6.1, 3.4)
    style.plot_axes(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _limits(axes, result)
    style.axis_labels(
        axes, "pixels visited (part of the dose of all pixels)", f"width of the interval ({_unit(result)})"
    )
    _curves(axes, result)
    _target(axes, result)
    _ticks(axes, result)
    _words(figure, result)
    return figure


def _unit(result: SamplingPlan) -> str:
    return UNIT_TEXT.get(result.unit, "share of the frame")


def _colour(result: SamplingPlan, scheme: str) -> str:
    return style.RATE_COLOURS[result.schemes.index(scheme) % len(style.RATE_COLOURS)]


def _limits(axes: Any, result: SamplingPlan) -> None:
    rates = [row.rate for row in result.rows]
    widths = [row.width for row in result.rows if np.isfinite(row.width)] + ([result.wanted] if result.wanted else [])
    axes.set_xlim(min(rates) / 1.25, max(rates) * 1.25)
    axes.set_ylim(min(widths) / 1.35, max(widths) * 1.35)


def _curves(axes: Any, result: SamplingPlan) -> None:
    """A line through what can be trusted; hollow marks for what cannot."""
    for i, scheme in enumerate(result.schemes):
        colour, marker = _colour(result, scheme), _MARKERS[i % len(_MARKERS)]
        sound = [row for row in result.of_scheme(scheme) if row.reliable]
        doubtful = [row for row in result.of_scheme(scheme) if not row.reliable and np.isfinite(row.width)]
        axes.plot(*_points(sound), color=colour, marker=marker, markersize=5.5, linewidth=1.8, label=scheme)
        axes.plot(*_points(doubtful), color=colour, marker=marker, markersize=6, linestyle="none", fillstyle="none")
    look = {"fontsize": 9.5, "title_fontsize": 9.5, "frameon": False, "alignment": "left"}
    # The wanted width is named on the same side, at its height.
    low, high = np.log(axes.get_ylim())
    above = result.wanted is None or (np.log(result.wanted) - low) / (high - low) < 0.6
    place, anchor = ("upper left", (1.03, 1.0)) if above else ("lower left", (1.03, 0.0))
    axes.legend(title="scheme", loc=place, bbox_to_anchor=anchor, **look)


def _points(rows: list[PlanRow]) -> tuple[list[float], list[float]]:
    return [row.rate for row in rows], [row.width for row in rows]


def _target(axes: Any, result: SamplingPlan) -> None:
    if result.wanted is None:
        return
    axes.axhline(result.wanted, color=style.BLACK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.5)
    text = f"wanted: {number(result.wanted)}"
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (1, result.wanted), (6, 0), fontsize=9.5, color=style.TEXT, annotation_clip=False, **place)
    best = result.recommended
    if best is None:
        return
    axes.plot(
        [best.rate, best.rate],
        [axes.get_ylim()[0], best.width],
        color="#666666",
        linewidth=1.1,
        linestyle=(0, (1, 1.5)),
    )
    axes.plot(best.rate, best.width, "o", markersize=14, fillstyle="none", color=style.BLACK, markeredgewidth=1.8)
    axes.annotate(
        percent(best.rate),
        (best.rate, axes.get_ylim()[0]),
        (5, 6),
        textcoords="offset points",
        fontsize=10,
        fontweight="bold",
        color=style.TEXT,
    )


def _ticks(axes: Any, result: SamplingPlan) -> None:
    """Rates below, the dose that they save above."""
    rates = sorted({row.rate for row in result.rows if not row.is_check})
    axes.set_xticks(rates, [percent(rate) for rate in rates])
    low, high = axes.get_ylim()
    factors = (1, 1.5, 2, 3, 5, 7) if high < 12 * low else (1, 2, 5) if high < 300 * low else (1,)
    steps = [f * 10.0**e for e in range(-15, 16) for f in factors]
    shown = [step for step in steps if low <= step <= high]
    axes.set_yticks(shown, [number(step) for step in shown])
    axes.minorticks_off()
    top = axes.secondary_xaxis("top")
    top.set_xticks(rates, [percent(1 - rate) for rate in rates])
    top.minorticks_off()
    top.tick_params(labelsize=9, colors=style.TEXT, width=0.8, length=0)
    top.spines["top"].set_visible(False)
    top.set_xlabel("dose saved", fontsize=10, color=style.TEXT)


def _words(figure: Any, result: SamplingPlan) -> None:
    best = result.recommended
    if best is not None:
        head = f"Visit {percent(best.rate)} of the pixels ({best.scheme}): {percent(best.dose_saved)} of the dose saved"
    elif not any(row.reliable for row in result.rows):
        head = "No interval can be believed"
    else:
        head = "How wide is the interval?" if result.wanted is None else "No rate that was tried is enough"
    height, width = result.shape
    about = (
        f"{result.movie}: {count_of(result.n_frames, 'frame')} of {height} × {width}; "
        f"{percent(result.interval)} interval of one sub-sampled movie (estimator {result.estimator}), mean over frames"
    )
    figure.text(0.03, 0.955, style.plain(head), fontsize=13, fontweight="bold", color=style.TEXT, va="center")
    about = textwrap.fill(style.plain(about), 120)
    figure.text(0.03, 0.922, about, fontsize=9, color=style.TEXT, va="top", linespacing=1.4)
    doubt = "" if all(row.reliable for row in result.rows) else " Hollow marks: not to be trusted."
    foot = (result.reason if result.wanted is not None else "") + doubt
    lines = [
        *textwrap.wrap(style.plain(foot.replace(" %", "\N{NO-BREAK SPACE}%")), 128),
        *textwrap.wrap(INTERVAL_NOTE, 128),
    ]
    figure.text(0.03, 0.025, "\n".join(lines), fontsize=8.5, color=style.TEXT, va="bottom", linespacing=1.4)
