"""The picture of a machine's speed: fits a second at each rate, and how long the whole study takes."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ..results.throughput import EngineSpec, Speed, StudyTime, Throughput, duration_text
from . import style
from .common import count_of, number, percent

_COLOURS = {"cpu": style.BLUE, "compiled": style.GREEN, "arrays": style.ORANGE, "kernels": style.VERMILION}
_METHOD_LOOK = {"paper": ("o", "-", 1.0), "movie": ("s", (0, (4, 2)), 0.45)}
"""Marker, line, and the strength of the bar."""


def throughput_figure(result: Throughput) -> Any:
    """Fits a second against the rate, and the time of the whole study, for each engine."""
    figure = style.new_figure(10.8, 5.1)
    rates = style.add_axes(figure, 1.05, 1.2, 3.5, 2.75)
    bars = style.add_axes(figure, 7.75, 1.2, 2.0, 0.25 + 0.62 * len(result.engines))
    _rates(rates, result)
    _study(bars, result)
    _words(figure, result)
    return figure


def _colour(engine: EngineSpec) -> str:
    return _COLOURS.get(engine.key, style.TEXT)


def _rates(axes: Any, result: Throughput) -> None:
    """Speed against rate on logarithms; every engine a colour, every method a line."""
    style.plot_axes(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    shown = sorted(result.rates)
    style.axis_labels(axes, "pixels visited", "fits a second (frames of replicates)", "Speed")
    axes.set_xticks(shown, [percent(rate) for rate in shown])
    axes.set_xlim(shown[0] / 1.5, shown[-1] * 1.3)
    _decades(axes, [s.fits_per_s for s in result.speeds if s.rate in shown])
    axes.minorticks_off()
    ends = []
    for engine in result.engines:
        for method in result.methods:
            found = [s for rate in shown if (s := result.find(engine.key, method, rate)) is not None]
            if found:
                _line(axes, engine, method, found)
                name = f"{engine.label}, {method}" if len(result.methods) > 1 else engine.label
                ends.append((np.array([s.fits_per_s for s in found]), name, _colour(engine)))
    _name_lines(axes, ends)
    for rate in shown:
        _numbers(axes, result, rate)


def _line(axes: Any, engine: EngineSpec, method: str, found: list[Speed]) -> None:
    marker, line, _ = _METHOD_LOOK[method]
    x, y = [s.rate for s in found], [s.fits_per_s for s in found]
    fill = "full" if method == "paper" else "none"
    look = {"marker": marker, "linestyle": line, "linewidth": 1.8, "markersize": 6, "fillstyle": fill}
    axes.plot(x, y, color=_colour(engine), **look)


def _numbers(axes: Any, result: Throughput, rate: float) -> None:
    """The values at one rate: an engine's higher one above its mark, the lower one below, apart where they meet."""
    places, words = [], []
    low, high = np.log(axes.get_ylim())
    for engine in result.engines:
        found = [s.fits_per_s for method in result.methods if (s := result.find(engine.key, method, rate)) is not None]
        for value in found:
            above = value == max(found)
            places.append((np.log(value) - low) / (high - low) + (0.05 if above else -0.05))
            words.append((number(value), style.text_colour(_colour(engine))))
    for place, (text, colour) in zip(style.dodge(places, 0.055, 0.02, 0.98), words, strict=True):
        look = {"ha": "center", "va": "center", "fontsize": 8.5, "color": colour}
        look["path_effects"] = style.outlined(2.0, "white")
        axes.annotate(text, (rate, place), xycoords=("data", "axes fraction"), **look)


def _name_lines(axes: Any, ends: list[tuple[np.ndarray, str, str]]) -> None:
    """Each line's name at its end, to the right of the axes."""
    low, high = np.log(axes.get_ylim())
    places = style.dodge([(np.log(values[-1]) - low) / (high - low) for values, _, _ in ends], 0.065, 0.03, 0.97)
    for (_, text, colour), place in zip(ends, places, strict=True):
        look = {"textcoords": "axes fraction", "fontsize": 9, "va": "center", "annotation_clip": False}
        axes.annotate(
            text, (1, place), (1.02, place), xycoords="axes fraction", color=style.text_colour(colour), **look
        )


def _decades(axes: Any, values: list[float]) -> None:
    """Ticks at 1, 2 and 5 of each decade, or at decades alone where there are many."""
    if not values:
        return
    low, high = min(values) / 2.2, max(values) * 2.2
    steps = (1, 2, 5) if high < 200 * low else (1,)
    ticks = [f * 10.0**e for e in range(-6, 12) for f in steps if low <= f * 10.0**e <= high]
    axes.set_yticks(ticks, [number(tick) for tick in ticks])
    axes.set_ylim(low, high)


def _study(axes: Any, result: Throughput) -> None:
    """A bar an engine, its methods side by side, with the time in words."""
    style.plot_axes(axes)
    axes.grid(False, axis="y")
    times = [(engine, result.study_time(engine.key)) for engine in result.engines]
    divisor, unit = _unit(max((t.seconds for _, t in times if t is not None), default=1.0))
    longest = 0.0
    for row, (engine, time) in enumerate(times):
        width = 0.0 if time is None else _bar(axes, row, engine, time, result.methods, divisor)
        text = "not measured" if time is None else duration_text(time.seconds)
        look = {"textcoords": "offset points", "va": "center", "fontsize": 9.5, "fontweight": "bold"}
        axes.annotate(text, (width, row), (5, 0), color=style.TEXT, annotation_clip=False, **look)
        longest = max(longest, width)
    axes.set_yticks(range(len(times)), [textwrap.fill(engine.label, 16) for engine, _ in times])
    axes.set_ylim(len(times) - 0.45, -0.55)
    axes.set_xlim(0, 1.08 * longest or 1)
    style.axis_labels(axes, f"time ({unit})", "", "The whole study, extrapolated")
    if len(result.methods) > 1:
        text = ", ".join(f"{'full' if method == 'paper' else 'pale'}: {method}" for method in result.methods)
        below = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8.5, "va": "top"}
        axes.annotate(text, (0, 0), (0, -38), color=style.TEXT, annotation_clip=False, **below)


def _bar(axes: Any, row: int, engine: EngineSpec, time: StudyTime, methods: tuple[str, ...], divisor: float) -> float:
    """Draw it; its length."""
    left = 0.0
    for method in methods:
        width = sum(s for (name, _), s in time.parts.items() if name == method) / divisor
        look = {"height": 0.55, "color": _colour(engine), "alpha": _METHOD_LOOK[method][2]}
        axes.barh(row, width, left=left, edgecolor="white", linewidth=1, **look)
        left += width
    return left


def _unit(longest: float) -> tuple[float, str]:
    for divisor, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if longest >= 2 * divisor:
            return divisor, unit
    return 1.0, "seconds"


def _words(figure: Any, result: Throughput) -> None:
    height = figure.get_size_inches()[1]
    frames, size = count_of(result.n_frames, "frame"), f"{result.shape[0]} × {result.shape[1]}"
    about = (
        f"{result.movie}: {frames} of {size}; measured on up to {result.n_measured} of them, from frames in memory to "
        "shares"
    )
    figure.text(0.02, 1 - 0.27 / height, style.plain(headline(result)), fontsize=13, fontweight="bold", va="center")
    figure.text(0.02, 1 - 0.55 / height, style.plain(about), fontsize=9, color=style.TEXT, va="center")
    foot = [f"{engine.label}: {engine.device}" for engine in result.engines]
    foot += [note for note in result.notes if "GPU" in note]
    text = "\n".join(textwrap.wrap(style.plain(". ".join(line.rstrip(".") for line in foot) + "."), 150))
    figure.text(0.02, 0.1 / height, text, fontsize=8.5, color=style.TEXT, va="bottom", linespacing=1.4)


def headline(result: Throughput) -> str:
    """How long the study takes on the fastest engine, and how long on what one would use without it."""
    times = [(engine, time) for engine in result.engines if (time := result.study_time(engine.key)) is not None]
    if not times:
        return "Nothing could be measured"
    engine, best = min(times, key=lambda pair: pair[1].seconds)
    text = f"The whole study of this movie would take about {duration_text(best.seconds)} ({engine.label})"
    key, where = ("cpu", "with array operations") if engine.key == result.cpu else (result.cpu, "on the CPU")
    base = next((time for other, time in times if other.key == key), None)
    if base is None or engine.key == key or not np.isfinite(base.seconds):
        return text
    return f"{text}, {duration_text(base.seconds)} {where}"
