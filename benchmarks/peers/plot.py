"""The picture of a comparison: a row for each program, how long a fit takes and how much of the Li it finds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gmrm_gpu.report import style

from .ceiling import NAME as CEILING
from .scenes import REVERSED
from .table import Results, Row, seconds_text

ROW, WIDTH, TOP, FOOT = 0.29, 10.6, 0.95, 0.72
NAMES, ABLE, TIMES, DICE = 2.35, 0.3, 4.1, 2.3
GREY = "#777777"
SCENES = (("hard", "full"), (REVERSED, "none"))


def draw(rows: Iterable[Row], path: Path) -> None:
    """Write a PNG of the rows of one run."""
    results = Results.of(rows)
    names = order(results)
    height = ROW * len(names)
    figure = style.new_figure(WIDTH, TOP + height + FOOT)
    left = NAMES + 0.1
    able = style.add_axes(figure, left, TOP, 3 * ABLE, height)
    times = style.add_axes(figure, left + 3 * ABLE + 0.2, TOP, TIMES, height)
    dice = style.add_axes(figure, left + 3 * ABLE + 0.2 + TIMES + 0.3, TOP, DICE, height)
    for axes in (able, times, dice):
        _rows(axes, names)
    _name(able, names, results)
    _able(able, names, results)
    _times(times, names, results)
    _dice(dice, names, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def order(results: Results) -> list[str]:
    """Programs with labels, the fastest fit of the hard frame first."""

    def seconds(name: str) -> float:
        best = results.best(name, "hard")
        return np.inf if best is None else best["fit_s"] * max(1.0, results.compared / best["n"])

    shown = [name for name in results.measured if name != CEILING and results.best(name, "hard")]
    return sorted(shown, key=lambda name: (not _is_ours(name), seconds(name)))


def _is_ours(name: str) -> bool:
    return name.startswith("gmrm_gpu")


def _colour(name: str, results: Results) -> str:
    """Ours, others that fit the shared trend, the rest."""
    if _is_ours(name):
        return style.VERMILION
    return style.BLUE if next(iter(results.measured[name].values()))["trend"] == "yes" else "#4D4D4D"


def _rows(axes: Any, names: list[str]) -> None:
    """Stripes in place of a grid of rows, programs from top to bottom."""
    style.plot_axes(axes)
    axes.grid(False, axis="y")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for i in range(0, len(names), 2):
        axes.axhspan(i - 0.5, i + 0.5, color="#F4F4F4", zorder=0, linewidth=0)


def _head(axes: Any, title: str, below: str = "") -> None:
    """Title and a line below it, above the rows."""
    look = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "ha": "left"}
    axes.annotate(title, (0, 1), (0, 22), fontsize=10.5, fontweight="bold", color=style.TEXT, **look)
    axes.annotate(below, (0, 1), (0, 8), fontsize=8.5, color=GREY, **look)


def _name(axes: Any, names: list[str], results: Results) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, pad=8, labelsize=9.5)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(style.text_colour(_colour(name, results)))
        label.set_fontweight("bold" if _is_ours(name) else "normal")


def _able(axes: Any, names: list[str], results: Results) -> None:
    """What each can do: a disc, or nothing."""
    axes.grid(False)
    axes.set_xlim(-0.5, 2.5)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for i, name in enumerate(names):
        row = next(iter(results.measured[name].values()))
        for j, able in enumerate((row["trend"] == "yes", row["unvisited"], row["batches"])):
            fill = _colour(name, results) if able else "none"
            axes.plot(
                j, i, "o", markersize=5.5, color=fill, markeredgecolor=_colour(name, results) if able else "#C8C8C8"
            )
    for j, word in enumerate(("shared trend", "unvisited pixels", "batches")):
        look = {"rotation": 40, "ha": "left", "va": "bottom", "fontsize": 8.5, "color": style.TEXT}
        axes.annotate(word, (j, -0.5), (-3, 3), textcoords="offset points", annotation_clip=False, **look)


def _times(axes: Any, names: list[str], results: Results) -> None:
    """Seconds of a fit on a logarithmic scale, a disc for each number of pixels."""
    axes.set_xscale("log")
    sizes = results.sizes
    seen = []
    for i, name in enumerate(names):
        colour = _colour(name, results)
        found = [
            (n, row["fit_s"]) for n in sizes if (row := results.measured[name].get(("hard", n))) and row.get("fit_s")
        ]
        seen += [seconds for _, seconds in found]
        axes.plot([s for _, s in found], [i] * len(found), color=colour, linewidth=1.2, alpha=0.45)
        for n, seconds in found:
            axes.plot(
                seconds, i, "o", color=colour, markersize=_size(n, sizes), markeredgecolor="white", markeredgewidth=0.6
            )
        at = dict(found).get(results.compared)
        if at is not None:
            axes.annotate(
                seconds_text(at),
                (at, i),
                (0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                color=style.text_colour(colour),
                path_effects=style.outlined(2, "white"),
            )
    low, high = 10 ** np.floor(np.log10(min(seen))), 10 ** np.ceil(np.log10(max(seen)))
    ticks = 10.0 ** np.arange(np.log10(low), np.log10(high) + 0.5)
    axes.set_xlim(low / 1.3, high * 1.3)
    axes.set_xticks(ticks, [seconds_text(tick).replace(".0", "") for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("one fit to the same optimum, one thread", fontsize=9.5, color=style.TEXT)
    _head(axes, "Time", f"discs, small to large: {', '.join(f'{n:,}' for n in sizes)} pixels")


def _size(n: int, sizes: list[int]) -> float:
    return 4.0 + 2.2 * sizes.index(n)


def _dice(axes: Any, names: list[str], results: Results) -> None:
    """Dice of Li on the hard frame, as it is and with the opposite trend."""
    for i, name in enumerate(names):
        colour = _colour(name, results)
        found = [(row["dice"], fill) for scene, fill in SCENES if (row := results.best(name, scene)) is not None]
        axes.plot([value for value, _ in found], [i] * len(found), color=colour, linewidth=1.2, alpha=0.45)
        for value, fill in found:
            edge = {"markerfacecolor": colour if fill == "full" else "white", "markeredgecolor": colour}
            axes.plot(value, i, "o", markersize=6, markeredgewidth=1.3, **edge)
    best = [row["dice"] for scene, _ in SCENES if CEILING in results.measured and (row := results.best(CEILING, scene))]
    if best:
        axes.axvline(max(best), color=style.TEXT, linestyle=(0, (3, 2)), linewidth=1)
        look = {"ha": "right", "va": "bottom", "fontsize": 8, "color": GREY, "annotation_clip": False}
        axes.annotate("true parameters", (max(best), len(names) - 0.5), (-3, 3), textcoords="offset points", **look)
    axes.set_xlim(0, 1)
    axes.set_xlabel("Dice of Li against the truth", fontsize=9.5, color=style.TEXT)
    _head(axes, "Labels", "filled: hard frame; open: trend reversed")
