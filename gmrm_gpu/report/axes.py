"""Axes over time that growth curves and studies share: limits, ticks, lines, bands, legends."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import style
from .common import Result, finite_share, foreground_name, quantity_name, unit_text

GREY = "#777777"


def value_label(result: Result) -> str:
    """What the vertical axis shows."""
    return f"{style.plain(foreground_name(result))} {quantity_name(result)} ({unit_text(result)})"


def line(axes: Any, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
    """A curve; a line needs two points, so with few of them each is marked."""
    if len(x) <= 3:
        kwargs.setdefault("marker", "o")
        kwargs.setdefault("markersize", 5)
    axes.plot(x, y, **kwargs)


def band(axes: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, label: str = "") -> None:
    """The area between two curves; a bar where there is one frame only."""
    if len(x) == 1:
        spread = np.abs(np.stack([high - low, high - low])) / 2
        axes.errorbar(x, (low + high) / 2, yerr=spread, fmt="none", color=colour, capsize=7, linewidth=1.5, label=label)
        return
    axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, label=label)


def set_limits(axes: Any, x: np.ndarray, values: list[np.ndarray]) -> None:
    """Limits that hold every curve, from zero if none is negative."""
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


def time_ticks(axes: Any, label: str, n_points: int) -> None:
    """Few ticks; whole numbers where frames are counted."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=label == "frame"))
    if n_points == 1:
        axes.set_xticks([axes.get_xlim()[0] + 0.5])


def legend_above(axes: Any, columns: int = 3) -> None:
    """What each line is, above the axes, in the order in which they were named."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "borderaxespad": 0.2, "columnspacing": 1.6}
        axes.legend(handles, labels, ncols=columns, frameon=False, fontsize=9, labelcolor=style.TEXT, **place)
