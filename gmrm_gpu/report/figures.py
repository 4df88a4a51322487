"""Pictures of frames: labels over frames, histogram, trend, correction, sampled pixels (the paper's Figures 1-3).

Every function takes a result with examples and returns a `matplotlib.figure.Figure`; `frame_figure` needs one
fitted frame only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results import Examples, MixtureFit
from . import raster, style
from .common import (
    Result,
    analysis_config,
    component_names,
    is_movie,
    number,
    percent,
    pixel_size,
    split_frames,
    stamp,
    usable_examples,
)
from .histogram import draw_histogram, usable_trend
from .style import save_figure

__all__ = [
    "correction_figure",
    "frame_figure",
    "frames_labels_figure",
    "histogram_figure",
    "save_figure",
    "subsampled_figure",
    "trend_figure",
]

_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}


@dataclass(frozen=True)
class _View:
    """How frames of one size are drawn: reduction, grey window, excluded pixels, pixel size once reduced."""

    step: int
    limits: tuple[float, float]
    valid: np.ndarray | None
    pixel_size_um: float | None

    @staticmethod
    def of(images: np.ndarray, valid: np.ndarray | None, pixel_size_um: float | None) -> _View:
        step = raster.reduction((images.shape[-2], images.shape[-1]))
        small = None if valid is None else raster.reduce_mask(valid, step)
        scaled = None if pixel_size_um is None else pixel_size_um * step
        return _View(step, raster.grey_range(images, valid), small, scaled)

    def grey(self, image: np.ndarray, brightness: float = 1.0) -> np.ndarray:
        return raster.grey(raster.enlarge(raster.reduce_image(image, self.step)), self.limits, brightness)

    def mask(self, mask: np.ndarray, *, any_pixel: bool = False) -> np.ndarray:
        return raster.reduce_mask(mask, self.step, any_pixel=any_pixel)

    def finish(self, axes: Any, picture: np.ndarray, title: str, *, bold: bool = False) -> None:
        raster.hatch(picture, self.valid)
        style.show(axes, picture, title, bold=bold)
        style.scale_bar(axes, (picture.shape[0], picture.shape[1]), self.pixel_size_um)


def _view(examples: Examples, result: Result) -> _View:
    return _View.of(examples.images, examples.valid, pixel_size(result))


def _overlay(view: _View, image: np.ndarray, labels: np.ndarray, code: int) -> np.ndarray:
    """The frame with label `code` outlined and tinted; sparsely labelled frames show each label."""
    picture = view.grey(image)
    sparse = _sparse(labels)
    mask = view.mask(labels == code, any_pixel=sparse)
    if sparse:
        mask = _as_large_as_drawn(mask, raster.reduce_image(image, view.step))
    raster.paint(picture, mask, style.FOREGROUND, 0.9 if sparse else 0.22)
    if not sparse:
        raster.paint(picture, raster.outline(mask), style.FOREGROUND)
    return picture


def _as_large_as_drawn(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Single pixels that can be seen: as a sub-sampled frame is drawn, or with their neighbours."""
    if np.isfinite(image).all():
        return raster.thicken(mask)
    return raster.enlarge(np.where(np.isfinite(image), mask, np.nan)) > 0


def _sparse(labels: np.ndarray) -> bool:
    return bool(np.count_nonzero(labels) < 0.5 * labels.size)


def _share_text(labels: np.ndarray, code: int) -> str:
    visited = np.count_nonzero(labels)
    return percent(np.count_nonzero(labels == code) / visited) if visited else "–"


def _main_example(examples: Examples) -> int:
    """The example with most foreground before the correction, if possible one where it is a phase of its own."""
    counts = np.array([(labels == _code(examples)).sum() for labels in examples.labels_raw])
    split = split_frames(examples.fits, examples.foreground)
    return int(np.argmax(np.where(split, counts - counts.max() - 1, counts)))


def _corrected_example(result: Result, examples: Examples) -> int:
    """The main example, but not a first frame that has no past to be corrected by, where there is another."""
    vote, first = analysis_config(result).correction, np.asarray(examples.frames) == 0
    if vote.window != "past" or not first.any() or first.all():
        return _main_example(examples)
    others = np.flatnonzero(~first)
    counts = [(examples.labels_raw[i] == _code(examples)).sum() for i in others]
    main = _main_example(examples)
    return int(others[np.argmax(counts)]) if first[main] else main


def _code(examples: Examples) -> int:
    return examples.foreground_index + 1


def _short(examples: Examples) -> str:
    """The foreground's name, cut to fit above a panel."""
    name = examples.phase_names[examples.foreground_index]
    return style.plain(name if len(name) <= 16 else name[:15] + "…")


def _names(result: Result, examples: Examples, index: int) -> list[str]:
    given = analysis_config(result).phases.component_names
    return component_names(examples.foreground[index], examples.phase_names, examples.foreground_index, given)


def _visited(labels: np.ndarray, valid: np.ndarray | None) -> np.ndarray | None:
    if valid is not None:
        return valid
    return labels > 0 if (labels > 0).any() else None


def _examples(result: Result) -> Examples:
    examples = usable_examples(result)
    if examples is None:
        raise ValueError("this result holds no example frames; nothing to draw")
    return examples


def frames_labels_figure(result: Result) -> Any:
    """Up to six frames with the foreground, after the correction, outlined; one grey window for all of them."""
    examples = _examples(result)
    n = min(6, len(examples.frames))
    view = _view(examples, result)
    figure, panels = style.image_grid(n, examples.images.shape[1:], columns=_COLUMNS.get(n, 3))
    for i, axes in enumerate(panels):
        picture = _overlay(view, examples.images[i], examples.labels[i], _code(examples))
        share = _share_text(examples.labels[i], _code(examples))
        title = f"{stamp(result, int(examples.frames[i]))}: {_short(examples)} {share}"
        view.finish(axes, picture, title)
    return figure


def subsampled_figure(result: Result) -> Any:
    """The paper's Figure 3: the visited pixels alone, foreground bright."""
    examples = _examples(result)
    n = min(6, len(examples.frames))
    view = _view(examples, result)
    figure, panels = style.image_grid(n, examples.images.shape[1:], columns=_COLUMNS.get(n, 3))
    for i, axes in enumerate(panels):
        labels = examples.labels_sampled[i]
        picture = np.zeros((*view.mask(labels > 0).shape, 3))
        raster.paint(picture, view.mask(labels > 0, any_pixel=True), "#6E6E6E")
        raster.paint(picture, view.mask(labels == _code(examples), any_pixel=True), style.FOREGROUND)
        title = f"{stamp(result, int(examples.frames[i]))}: {_short(examples)} {_share_text(labels, _code(examples))}"
        view.finish(axes, picture, title)
    return figure


def histogram_figure(result: Result) -> Any:
    """The paper's Figure 2b for the example with most foreground, or of all examples where they share their fit."""
    examples = _examples(result)
    i = _main_example(examples)
    shown = np.arange(len(examples.frames)) if is_movie(result) else np.array([i])
    figure = style.new_figure(8.0, 4.2)
    axes = style.add_axes(figure, 0.85, 0.4, 6.95, 3.2)
    masks = [_visited(examples.labels_raw[j], examples.valid) for j in shown]
    frames = (examples.images[shown], examples.fits[shown], masks)
    draw_histogram(axes, frames, examples.foreground[i], _names(result, examples, i))
    axes.set_title(_histogram_title(result, examples, i), loc="left", fontsize=10.5, fontweight="bold")
    return figure


def _histogram_title(result: Result, examples: Examples, index: int) -> str:
    n = len(examples.frames)
    return f"{n} frames together" if is_movie(result) and n > 1 else stamp(result, int(examples.frames[index]))


def trend_figure(result: Result) -> Any:
    """The paper's Figure 2c: raw frame, fitted trend, and the frame with the trend taken out."""
    examples = _examples(result)
    i = _main_example(examples)
    image = np.asarray(examples.images[i], dtype=float)
    view = _View.of(image, examples.valid, pixel_size(result))
    figure, (raw, surface, flat) = style.image_grid(3, image.shape, columns=3, width=11.0, foot=0.35)
    view.finish(raw, view.grey(image), f"{stamp(result, int(examples.frames[i]))}, as recorded")
    trend = usable_trend(examples.fits[i], image.shape)
    draw_trend(surface, trend, image.shape, "fitted trend (grey levels)")
    view.finish(flat, view.grey(image if trend is None else image - trend), "trend taken out")
    return figure


def draw_trend(axes: Any, trend: np.ndarray | None, shape: tuple[int, ...], title: str) -> None:
    """The trend surface with contour lines and a colour bar below, in grey levels; a note where there is none."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10, color=style.TEXT, loc="left", pad=4)
    if trend is None:
        axes.text(0.5, 0.5, "no trend in this model", ha="center", va="center", transform=axes.transAxes, fontsize=10)
        axes.set_axis_off()
        return
    step = raster.reduction((shape[0], shape[1]))
    small = raster.reduce_image(trend, step)
    span = max(float(np.abs(small).max()), 1e-6)
    drawn = axes.imshow(small, cmap="PuOr_r", vmin=-span, vmax=span, interpolation="nearest", aspect="equal")
    style.settle(axes)
    levels = [v for v in MaxNLocator(7).tick_values(small.min(), small.max()) if small.min() < v < small.max()]
    if levels and min(small.shape) > 1:
        lines = axes.contour(small, levels=levels, colors=style.TEXT, linewidths=0.8, linestyles="solid")
        axes.clabel(lines, fontsize=8, fmt=lambda v: f"{v:g}".replace("-", "−"), colors=style.TEXT)
    _colour_bar(axes, drawn)


def _colour_bar(axes: Any, drawn: Any) -> None:
    figure, box = axes.figure, axes.get_position()
    height = figure.get_size_inches()[1]
    bar = figure.add_axes((box.x0, box.y0 - 0.19 / height, box.width, 0.11 / height))
    figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=8, length=2, pad=1.5)


def correction_figure(result: Result) -> Any:
    """The paper's Figures 2f-h: labels before the correction, and what each setting takes away.

    Of a large frame a detail around the foreground is shown, since single pixels are what the correction is about.
    """
    examples = _examples(result)
    i, code = _corrected_example(result, examples), _code(examples)
    used = analysis_config(result).correction
    after = [
        (f"{'used here: ' if (r, g) == (used.radius_px, used.gamma) else ''}r = {r:g}, γ = {g:g}", labels[i])
        for (r, g), labels in zip(examples.settings, examples.labels_settings, strict=True)
    ]
    if used.radius_px > 0 and (used.radius_px, used.gamma) not in [tuple(s) for s in examples.settings]:
        after.append((f"used here: r = {used.radius_px:g}, γ = {used.gamma:g}", examples.labels[i]))
    before = examples.labels_raw[i] == code
    window = raster.detail(before)
    valid = None if examples.valid is None else examples.valid[window]
    view = _View(1, raster.grey_range(examples.images, examples.valid), valid, pixel_size(result))
    dim = view.grey(examples.images[i][window], 0.45)
    n = 1 + len(after)
    columns = 2 if n == 4 else min(n, 3)
    figure, panels = style.image_grid(n, dim.shape[:2], columns=columns, width=9.0, foot=0.25)
    picture = dim.copy()
    raster.paint(picture, before[window], style.FOREGROUND)
    view.finish(panels[0], picture, f"before correction, {stamp(result, int(examples.frames[i]))}")
    _note(panels[0], [(f"{before[window].sum():,} pixels", style.FOREGROUND)])
    for axes, (title, labels) in zip(panels[1:], after, strict=True):
        _corrected_panel(axes, view, dim.copy(), title, (before[window], labels[window] == code))
    return figure


def _corrected_panel(axes: Any, view: _View, picture: np.ndarray, title: str, masks: tuple) -> None:
    before, now = masks
    removed, added = before & ~now, now & ~before
    raster.paint(picture, now, style.FOREGROUND)
    raster.paint(picture, removed, style.SKY)
    raster.paint(picture, added, "#FFFFFF")
    view.finish(axes, picture, title)
    share = f" ({percent(removed.sum() / before.sum(), 2)})" if before.any() else ""
    notes = [(f"kept {(now & before).sum():,}", style.FOREGROUND), (f"removed {removed.sum():,}{share}", style.SKY)]
    if added.any():
        notes.append((f"added {added.sum():,}", "#FFFFFF"))
    _note(axes, notes)


def _note(axes: Any, parts: list[tuple[str, str]]) -> None:
    """Coloured words below a panel, from left to right, each after a square of its colour."""
    width_in = axes.get_position().width * axes.figure.get_size_inches()[0]
    height_in = axes.get_position().height * axes.figure.get_size_inches()[1]
    x, y = 0.0, -0.12 / height_in
    for text, colour in parts:
        kwargs = {"transform": axes.transAxes, "va": "center", "clip_on": False}
        edge = style.outlined(1.2, "#888888") if colour == "#FFFFFF" else []
        axes.text(x, y, "■", color=colour, fontsize=9, path_effects=edge, **kwargs)
        axes.text(x + 0.14 / width_in, y, text, color=style.text_colour(colour), fontsize=8.5, **kwargs)
        x += (0.3 + 0.064 * len(text)) / width_in


def frame_figure(
    image: np.ndarray,
    fit: MixtureFit,
    labels: np.ndarray,
    foreground: np.ndarray,
    *,
    phase_names: tuple[str, ...],
    pixel_size_um: float | None = None,
    foreground_index: int | None = None,
    component_phases: tuple[str, ...] = (),
    valid: np.ndarray | None = None,
) -> Any:
    """One fitted frame at a glance: foreground over the frame, histogram with components, trend surface.

    Parameters
    ----------
    image : (height, width), as recorded.
    fit : the fit of this frame (no leading axes).
    labels : (height, width) uint8; 0: not visited, p + 1: phase p of `phase_names`.
    foreground : (K,) bool, components that are foreground.
    phase_names : in label order.
    pixel_size_um : micrometres per pixel; None: no scale bar.
    foreground_index : index into `phase_names` of the phase that is outlined; None: the last.
    component_phases : one phase name per component in ascending mean, where the user gave them.
    valid : (height, width) bool, False where a pixel is excluded; None: all are used.

    Returns
    -------
    `matplotlib.figure.Figure`; write it with `save_figure`.

    Raises
    ------
    MissingDependencyError : without matplotlib.
    """
    image = np.asarray(image)
    index = len(phase_names) - 1 if foreground_index is None else foreground_index
    view = _View.of(image, valid, pixel_size_um)
    panel = 3.6
    height = panel * float(np.clip(image.shape[0] / image.shape[1], 0.5, 1.4))
    figure = style.new_figure(13.4, height + 1.0)
    picture = style.add_axes(figure, 0.1, 0.35, panel, height)
    graph = style.add_axes(figure, 4.6, 0.35, 4.9, height)
    surface = style.add_axes(figure, 9.7, 0.35, panel, height)
    name = style.plain(phase_names[index])
    title = f"{name}: {_share_text(labels, index + 1)} of the pixels"
    view.finish(picture, _overlay(view, image, labels, index + 1), title)
    names = component_names(foreground, phase_names, index, component_phases)
    frames = (image[None], MixtureFit.stack([fit]), [_visited(labels, valid)])
    draw_histogram(graph, frames, foreground, names)
    graph.set_title("histogram and fitted components", fontsize=10, loc="left", pad=4)
    draw_trend(surface, usable_trend(fit, (image.shape[0], image.shape[1])), image.shape, "fitted trend (grey levels)")
    return figure


def example_text(result: Result) -> dict[str, str]:
    """Numbers of the pictured frame that captions quote: frame, grey window."""
    examples = _examples(result)
    i = _main_example(examples)
    low, high = raster.grey_range(examples.images, examples.valid)
    return {
        "frame": stamp(result, int(examples.frames[i])),
        "histogram": _histogram_title(result, examples, i),
        "corrected": stamp(result, int(examples.frames[_corrected_example(result, examples)])),
        "window": f"{number(low)} to {number(high)}",
        "rate": percent(examples.sampled_rate),
        "share_of": "visited pixels" if _sparse(examples.labels) else "frame",
        "mark": "marked" if _sparse(examples.labels) else "outlined and tinted",
        "detail": "a detail of " if raster.is_detail(examples.images.shape[1:]) else "",
    }
