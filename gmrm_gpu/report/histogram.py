"""The grey-level histogram of one frame, trend taken out, with the fitted components (the paper's Figure 2b)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ..results import FitStatus, MixtureFit
from . import style
from .common import number


def usable_trend(fit: MixtureFit, shape: tuple[int, int]) -> np.ndarray | None:
    """The trend surface of one fit, None if there is none: no terms, or a fit that failed."""
    if not fit.terms or not np.isfinite(fit.coef).all():
        return None
    return fit.trend(shape)


def residual_values(image: np.ndarray, fit: MixtureFit, mask: np.ndarray | None) -> np.ndarray:
    """Grey levels less the trend of the pixels in `mask`, finite ones only, flat."""
    values = np.asarray(image, dtype=float)
    trend = usable_trend(fit, values.shape)
    if trend is not None:
        values = values - trend
    values = values.ravel() if mask is None else values[mask]
    return values[np.isfinite(values)]


def bin_edges(values: np.ndarray, *, whole: bool) -> np.ndarray:
    """Up to 120 bins over the bulk of the values, fewer of few values; whole grey levels for integer images.

    Other bins would beat with the grey levels.
    """
    low, high = np.percentile(values, (0.05, 99.95))
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    n_bins = int(np.clip(2 * np.sqrt(values.size), 20, 120))
    if whole:
        width = max(1.0, float(np.ceil((high - low) / n_bins)))
        low = np.floor(low) - 0.5
        return low + width * np.arange(int(np.ceil((high - low) / width)) + 2)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, n_bins + 1)


def component_colours(foreground: np.ndarray) -> list[str]:
    """Orange and its kin for the foreground, blue and green for the rest."""
    fore, back = iter(style.FOREGROUND_COLOURS * 2), iter(style.BACKGROUND_COLOURS * 2)
    return [next(fore) if flag else next(back) for flag in foreground]


Frames: TypeAlias = tuple[np.ndarray, MixtureFit, list[np.ndarray | None]]
"""Images (F, height, width), their fits (F,), and the pixels to show of each (None: all)."""


def draw_histogram(axes: Any, frames: Frames, foreground: np.ndarray, names: list[str]) -> None:
    """Histogram of frames, each less its trend; the fitted components with their names, and their sum.

    Several frames are shown as one, with the mean of their parameters.
    """
    images, fits, masks = frames
    style.plot_axes(axes)
    trend = "" if usable_trend(fits[0], images.shape[1:]) is None else " minus trend"
    style.axis_labels(axes, f"grey level{trend}", "pixels per grey level")
    each = [residual_values(image, fits[i], masks[i]) for i, image in enumerate(images)]
    values = np.concatenate(each)
    if values.size == 0:
        axes.text(0.5, 0.5, "no pixels", transform=axes.transAxes, ha="center", fontsize=10)
        return
    edges = bin_edges(values, whole=np.issubdtype(images.dtype, np.integer))
    density = np.histogram(values, edges)[0] / np.diff(edges)
    axes.stairs(density, edges, fill=True, color="#D5D5D5", linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.5 * max(float(density.max()), 1e-12))
    sizes = np.array([part.size for part in each]) / values.size
    draw_components(axes, _mean_fit(fits, sizes), style_pairs(foreground, names), (edges, values.size))


def _mean_fit(fits: MixtureFit, sizes: np.ndarray) -> MixtureFit:
    """One fit: the mean of several, each frame with its part of the pixels."""
    if len(sizes) == 1:
        return fits[0]
    mean: dict[str, Any] = {
        name: np.tensordot(sizes, getattr(fits, name), 1) for name in ("weights", "means", "sigmas")
    }
    return replace(fits[0], **mean)


def style_pairs(foreground: np.ndarray, names: list[str]) -> list[tuple[str, str]]:
    """Name and colour of each component."""
    return list(zip(names, component_colours(foreground), strict=True))


def draw_components(axes: Any, fit: MixtureFit, pairs: list[tuple[str, str]], counted: tuple[np.ndarray, int]) -> None:
    """Components with their names, and their sum; pairs : (name, colour) each; counted : bin edges, pixels in all."""
    edges, n = counted
    kept = np.isfinite(fit.means) & np.isfinite(fit.sigmas) & (fit.weights > 0) & (fit.sigmas > 0)
    if not kept.any():
        label = FitStatus(int(fit.status)).label
        axes.text(0.5, 0.9, f"no usable fit: {label}", transform=axes.transAxes, ha="center", fontsize=10)
        return
    grid = np.unique(np.concatenate([np.linspace(edges[0], edges[-1], 600), fit.means[kept]]))
    total = np.zeros_like(grid)
    peaks = []
    for k in np.flatnonzero(kept):
        name, colour = pairs[k]
        sigma = float(fit.sigmas[k])
        z = (grid - fit.means[k]) / sigma
        curve = n * fit.weights[k] / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * z * z)
        axes.plot(grid, curve, color=colour, linewidth=2.4)
        total += curve
        share = 100 * fit.weights[k]
        text = f"{style.plain(name)}\n{number(fit.means[k])} ± {number(sigma)}\n{share:.3g} %"
        peaks.append((float(fit.means[k]), float(curve.max()), text, colour))
    axes.plot(grid, total, color=style.BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
    low, high = axes.get_ylim()
    axes.set_ylim(low, max(high, 1.5 * float(total.max())))
    _peak_labels(axes, peaks, (grid, total))
    axes.text(0.99, 0.985, "dashed: sum of components", transform=axes.transAxes, ha="right", va="top", fontsize=8.5)


def _peak_labels(axes: Any, peaks: list[tuple[float, float, str, str]], total: tuple[np.ndarray, np.ndarray]) -> None:
    """Name each component above the curves at its peak; the graph grows upwards until no label lies on another."""
    peaks, size = sorted(peaks), 8.5
    low, high = axes.get_xlim()
    for _ in range(12):
        places, tall = _label_places(axes, peaks, total, size)
        if max(y for _, y in places) + tall <= 0.95:
            break
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    # From the top down, each on white: the line of a label higher up then runs behind those below.
    for (mean, peak, text, colour), (x, y) in sorted(zip(peaks, places, strict=True), key=lambda pair: -pair[1][1]):
        axes.annotate(
            text,
            xy=(float(np.clip(mean, low, high)), peak),
            xytext=(x, min(y, 0.95 - tall)),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
            path_effects=style.outlined(2.0, "white"),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
            ha="center",
            va="bottom",
            fontsize=size,
            color=style.text_colour(colour),
            linespacing=1.15,
        )


def _label_places(
    axes: Any, peaks: list[tuple[float, float, str, str]], total: tuple[np.ndarray, np.ndarray], size: float
) -> tuple[list[tuple[float, float]], float]:
    """Place (x, y) of each label and their common height, as parts of the axes; labels in the way are climbed over."""
    low, high = axes.get_xlim()
    width_in, height_in = axes.figure.get_size_inches() * axes.get_position().size
    tall = 3 * 1.25 * size / 72 / height_in
    across, heights = (total[0] - low) / (high - low), total[1] / axes.get_ylim()[1]
    placed: list[tuple[float, float, float]] = []
    for mean, _, text, _ in peaks:
        half = 0.5 * 0.56 * size / 72 * max(len(line) for line in text.split("\n")) / width_in
        x = float(np.clip((mean - low) / (high - low), half, 1 - half))
        y = float(heights[np.abs(across - x) <= half].max(initial=0)) + 0.02
        for other_x, other_y, other_half in sorted(placed, key=lambda box: box[1]):
            if abs(other_x - x) < half + other_half and abs(other_y - y) < tall:
                y = other_y + 1.08 * tall
        placed.append((x, y, half))
    return [(x, y) for x, y, _ in placed], tall
