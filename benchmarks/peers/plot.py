"""The picture of a comparison: a row for each program, how long a fit takes and how good its labels are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gmrm_gpu.report import style

from .ceiling import NAME as CEILING
from .scenes import REVERSED
from .table import OURS, Results, Row, seconds_text

ROW, WIDTH, TOP, FOOT = 0.29, 11.7, 1.12, 0.72
NAMES, ABLE, GAP, TIMES, SCORE = 2.55, 0.3, 0.55, 3.6, 1.55
GREY = "#777777"
TOO_SHORT = 1e-5
"""Of log-likelihood per pixel, ten times what a fit to the same optimum may lack."""
SCENES = (("hard", "full"), (REVERSED, "none"))


def draw(rows: Iterable[Row], path: Path) -> None:
    """Write a PNG of the rows of one run."""
    results = Results.of(rows)
    names = order(results)
    height = ROW * len(names)
    figure = style.new_figure(WIDTH, TOP + height + FOOT)
    left = NAMES + 0.1
    able = style.add_axes(figure, left, TOP, 3 * ABLE, height)
    left += 3 * ABLE + GAP
    times = style.add_axes(figure, left, TOP, TIMES, height)
    scores = [style.add_axes(figure, left + TIMES + 0.3 + i * (SCORE + 0.3), TOP, SCORE, height) for i in range(2)]
    for axes in (able, times, *scores):
        _rows(axes, names)
    _name(able, names, results)
    _able(able, names, results)
    _times(times, names, results)
    for axes, key, title in zip(scores, ("label_accuracy", "dice"), ("Labels right", "Dice of Li"), strict=True):
        _scores(axes, names, results, key, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def order(results: Results) -> list[str]:
    """Programs with labels, the fastest fit of the hard frame first; of ours not every variant."""

    def seconds(name: str) -> float:
        best = results.best(name, "hard")
        return np.inf if best is None else best["fit_s"] * max(1.0, results.compared / best["n"])

    left_out = {CEILING, *(f"{ours}, histogram" for ours in OURS)}
    if results.reference == OURS[0]:
        left_out.add(f"{OURS[1]}, no trend")
    shown = [name for name in results.measured if name not in left_out and results.best(name, "hard")]
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
    axes.annotate(title, (0, 1), (0, 32), fontsize=10.5, fontweight="bold", color=style.TEXT, **look)
    axes.annotate(below, (0, 1), (0, 18), fontsize=8.5, color=GREY, **look)


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
            colour = _colour(name, results) if able else "#C8C8C8"
            axes.plot(j, i, "o", markersize=5.5, markerfacecolor=colour if able else "none", markeredgecolor=colour)
    for j, word in enumerate(("shared trend", "unvisited pixels", "batches")):
        look = {"rotation": 40, "ha": "left", "va": "bottom", "fontsize": 8.5, "color": style.TEXT}
        axes.annotate(word, (j, -0.5), (-3, 3), textcoords="offset points", annotation_clip=False, **look)


def _times(axes: Any, names: list[str], results: Results) -> None:
    """Seconds of a fit on a logarithmic scale, a disc for each number of pixels."""
    axes.set_xscale("log")
    seen = [seconds for i, name in enumerate(names) for seconds in _discs(axes, i, name, results)]
    powers = np.arange(np.floor(np.log10(min(seen))), np.ceil(np.log10(max(seen))) + 0.5)
    axes.set_xlim(10 ** powers[0] / 1.3, 10 ** powers[-1] * 1.3)
    axes.set_xticks(10**powers, [seconds_text(tick).replace(".0", "") for tick in 10**powers])
    axes.minorticks_off()
    axes.set_xlabel("one fit of the hard frame, one thread", fontsize=9.5, color=style.TEXT)
    sizes = f"{results.sizes[0]:,} to {results.sizes[-1]:,} pixels, {results.compared:,} in words"
    _head(axes, "Time to the same optimum", f"{sizes}; crosses: short of it")


def _discs(axes: Any, place: int, name: str, results: Results) -> list[float]:
    """One row of times, which are returned; the compared one in words."""
    colour, sizes = _colour(name, results), results.sizes
    rows = [row for n in sizes if (row := results.measured[name].get(("hard", n))) and row.get("fit_s")]
    seconds = [row["fit_s"] for row in rows]
    axes.plot(seconds, [place] * len(rows), color=colour, linewidth=1.2, alpha=0.45)
    for row in rows:
        short = (row.get("short") or 0.0) > TOO_SHORT
        size = 4.0 + 1.5 * sizes.index(row["n"])
        look = {"marker": "X" if short else "o", "color": colour, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axes.plot(row["fit_s"], place, markersize=size, **look)
        if row["n"] == results.compared or len(rows) == 1:
            words = {"fontsize": 7, "color": style.text_colour(colour), "path_effects": style.outlined(2, "white")}
            offset = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
            axes.annotate(seconds_text(row["fit_s"]), (row["fit_s"], place), (0, 4.5), **offset, **words)
    return seconds


def _scores(axes: Any, names: list[str], results: Results, key: str, title: str) -> None:
    """A score on the hard frame, as it is and with the opposite trend; the one of the true parameters as a line."""
    lowest = 1.0
    for i, name in enumerate(names):
        colour = _colour(name, results)
        found = [(row[key], fill) for scene, fill in SCENES if (row := results.best(name, scene)) is not None]
        lowest = min([lowest, *(value for value, _ in found)])
        axes.plot([value for value, _ in found], [i] * len(found), color=colour, linewidth=1.2, alpha=0.45)
        for value, fill in found:
            edge = {"markerfacecolor": colour if fill == "full" else "white", "markeredgecolor": colour}
            axes.plot(value, i, "o", markersize=5.5, markeredgewidth=1.3, **edge)
    if CEILING in results.measured and (best := results.best(CEILING, "hard")) is not None:
        axes.axvline(best[key], color=style.TEXT, linestyle=(0, (3, 2)), linewidth=1)
    low = max(0.0, np.floor(5 * lowest - 0.05) / 5)
    axes.set_xlim(low, 1.02)
    axes.set_xticks(np.linspace(low, 1, round((1 - low) / 0.2) + 1))
    axes.set_xlabel("against the truth", fontsize=9.5, color=style.TEXT)
    _head(axes, title, "open: trend reversed" if key == "dice" else "dashes: true parameters")
