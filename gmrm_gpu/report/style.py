"""The look of the figures: colours, labels, scale bars, saving. matplotlib is imported inside functions only.

Figures are plain `matplotlib.figure.Figure` objects with axes placed in inches: no pyplot and no global state, so
reports can be written from several threads, and no layout engine that could give up on an odd frame shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependencyError, printable

# Okabe and Ito's palette, which stays distinct in the common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
FOREGROUND = ORANGE
REFERENCE, TRUTH = BLACK, PURPLE
RATE_COLOURS = (BLUE, GREEN, VERMILION, SKY, ORANGE)
BACKGROUND_COLOURS = (BLUE, GREEN, PURPLE, SKY, "#666666")
FOREGROUND_COLOURS = (ORANGE, VERMILION, YELLOW)
TEXT = "#222222"
DPI = 150


# The lighter colours are too faint for words on white.
_TEXT_COLOURS = {ORANGE: "#A86A00", SKY: "#1F77AE", YELLOW: "#857A00", PURPLE: "#A8487F", "#FFFFFF": TEXT}


def text_colour(colour: str) -> str:
    """The shade of a colour in which words on white can be read."""
    return _TEXT_COLOURS.get(colour, colour)


def need_plot() -> None:
    """Raise `MissingDependencyError` unless matplotlib and jinja2 can be imported."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"figures and reports need {error.name or 'matplotlib'}: pip install 'gmrm-gpu[plot]'"
        ) from None


def new_figure(width: float, height: float) -> Any:
    """A white figure of this size in inches, free of pyplot."""
    need_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes placed in inches from the left and the top edge."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def save_figure(figure: Any, path: str | Path) -> tuple[Path, Path]:
    """Write `figure` as ``path.png`` (150 dpi) and ``path.svg``; the folder is made if it is missing.

    Parameters
    ----------
    figure : `matplotlib.figure.Figure`.
    path : without a suffix.

    Returns
    -------
    The two paths, PNG first.
    """
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    png, svg = base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")
    figure.savefig(png, dpi=DPI)
    figure.savefig(svg, dpi=DPI, metadata={"Date": None})
    return png, svg


def plain(text: str) -> str:
    """User text for a figure: no mathematics, and no letter that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in printable(text)).replace("$", r"\$")


def plot_axes(axes: Any) -> None:
    """The common look of a graph: no box, light grid, readable ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(labelsize=9, colors=TEXT, width=0.8)
    axes.grid(True, color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)


def axis_labels(axes: Any, x: str, y: str, title: str = "") -> None:
    """Labels and, left-aligned above, the title."""
    axes.set_xlabel(x, fontsize=10, color=TEXT)
    axes.set_ylabel(y, fontsize=10, color=TEXT)
    if title:
        axes.set_title(title, fontsize=10.5, color=TEXT, loc="left", fontweight="bold")


def image_grid(
    n: int, shape: tuple[int, int], *, columns: int, width: float = 10.0, title: float = 0.3, foot: float = 0.0
) -> tuple[Any, list[Any]]:
    """A figure of `n` image panels, each with `title` inches above and `foot` inches below it."""
    gap, margin = 0.12, 0.08
    columns = min(columns, n)
    panel = (width - 2 * margin - (columns - 1) * gap) / columns
    panel = min(panel, 5.0)
    height = panel * float(np.clip(shape[0] / shape[1], 0.2, 1.6))
    rows = -(-n // columns)
    pitch = title + height + foot
    figure = new_figure(2 * margin + columns * panel + (columns - 1) * gap, rows * pitch + margin)
    axes = [
        add_axes(figure, margin + (i % columns) * (panel + gap), title + (i // columns) * pitch, panel, height)
        for i in range(n)
    ]
    return figure, axes


def show(axes: Any, picture: np.ndarray, title: str = "", *, bold: bool = False) -> None:
    """An RGB array, pixels as squares, title left-aligned above."""
    axes.imshow(picture, interpolation="nearest", aspect="equal")
    settle(axes)
    if title:
        axes.set_title(title, fontsize=10, color=TEXT, loc="left", pad=4, fontweight="bold" if bold else "normal")


def settle(axes: Any) -> None:
    """Give an image its final place now, at the left, so that a narrow one leaves its title room to the right."""
    axes.set_axis_off()
    axes.set_anchor("W")
    axes.apply_aspect()


def outlined(linewidth: float = 2.2, colour: str = "black") -> list[Any]:
    """Path effect that keeps text readable on any picture."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=linewidth, foreground=colour)]


def scale_bar(axes: Any, shape: tuple[int, int], pixel_size_um: float | None) -> None:
    """A bar of a round length, about a quarter of the width, at the lower right; nothing without calibration."""
    if pixel_size_um is None or not np.isfinite(pixel_size_um) or pixel_size_um <= 0:
        return
    length = round_length(shape[1] * pixel_size_um / 4)
    bar = length / pixel_size_um / shape[1]
    kwargs = {"transform": axes.transAxes, "path_effects": outlined(4.5), "solid_capstyle": "butt"}
    axes.plot([0.96 - bar, 0.96], [0.05, 0.05], color="white", linewidth=2.6, **kwargs)
    label = length_text(length)
    # Centred on the bar, unless the words would then leave a narrow picture.
    half = 0.5 * 0.6 * 9 / 72 * len(label) / (axes.get_position().width * axes.figure.get_size_inches()[0])
    place, align = (0.96 - bar / 2, "center") if 0.96 - bar / 2 + half < 1 else (0.98, "right")
    text = {"fontsize": 9, "color": "white", "ha": align, "va": "bottom", "path_effects": outlined()}
    axes.text(place, 0.065, label, transform=axes.transAxes, **text)


def round_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max((f * power for f in (1, 2, 5) if f * power <= length * (1 + 1e-9)), default=power))


def length_text(length_um: float) -> str:
    """0.2 -> ``"200 nm"``."""
    for limit, factor, unit in ((1e3, 1e-3, "mm"), (1.0, 1.0, "µm"), (1e-3, 1e3, "nm")):
        if length_um >= limit * (1 - 1e-9):
            return f"{length_um * factor:.4g} {unit}"
    return f"{length_um * 1e6:.4g} pm"


def dodge(positions: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Positions moved as little as a sweep can so that neighbours are `gap` apart, order kept."""
    order = np.argsort(positions, kind="stable")
    out = [float(p) for p in positions]
    floor = low
    for i in order:
        out[i] = max(out[i], floor)
        floor = out[i] + gap
    ceiling = high
    for i in order[::-1]:
        out[i] = min(out[i], ceiling)
        ceiling = out[i] - gap
    return out


def end_labels(axes: Any, x: np.ndarray, entries: Sequence[tuple[np.ndarray, str, str]], size: float = 9) -> None:
    """Name each curve (values, text, colour) at its last finite point, to the right of the axes."""
    ends = []
    for values, text, colour in entries:
        finite = np.flatnonzero(np.isfinite(values) & np.isfinite(x))
        if finite.size:
            ends.append((float(x[finite[-1]]), float(values[finite[-1]]), text, colour))
    if not ends:
        axes.text(0.5, 0.5, "no usable fit", transform=axes.transAxes, ha="center", color=TEXT, fontsize=10)
        return
    low, high = axes.get_ylim()
    height = axes.get_position().height * axes.figure.get_size_inches()[1]
    gap = size * 1.25 / 72 / height
    places = dodge([(y - low) / (high - low) for _, y, _, _ in ends], gap, gap / 2, 1 - gap / 2)
    for (end_x, y, text, colour), place in zip(ends, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.7, "shrinkA": 1, "shrinkB": 1}
        line["relpos"] = (0, 0.5)
        axes.annotate(
            text,
            xy=(end_x, y),
            xytext=(1.035, place),
            textcoords="axes fraction",
            fontsize=size,
            color=text_colour(colour),
            va="center",
            annotation_clip=False,
            arrowprops=line,
        )
