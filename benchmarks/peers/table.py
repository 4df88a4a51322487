"""Rows of measurements as two tables: what the programs can do and how well, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .scenes import REVERSED

Row = dict[str, Any]
OURS = ("gmrm_gpu, compiled", "gmrm_gpu, NumPy")
"""What others are compared with: the first of these that was measured."""


@dataclass(frozen=True)
class Results:
    """The rows of one run, by program in the order they came; of two alike the later.

    Attributes
    ----------
    measured : program to rows by (scene, n). skipped : program to reason.
    """

    measured: dict[str, dict[tuple[str, int], Row]]
    skipped: dict[str, str]

    @staticmethod
    def of(rows: Iterable[Row]) -> Results:
        """Sort rows of `measure`."""
        measured: dict[str, dict[tuple[str, int], Row]] = {}
        skipped = {}
        for row in rows:
            if "skipped" in row:
                skipped[row["program"]] = row["skipped"]
            else:
                measured.setdefault(row["program"], {})[row["scene"], row["n"]] = row
        return Results(measured, {name: why for name, why in skipped.items() if name not in measured})

    @property
    def sizes(self) -> list[int]:
        """Numbers of pixels on the hard frame, ascending."""
        return sorted({n for found in self.measured.values() for scene, n in found if scene == "hard"})

    @property
    def compared(self) -> int:
        """Pixels of the fits whose labels are compared: those that our easy frame has, or else anybody's."""
        names = [self.reference] if self.reference else list(self.measured)
        return max((n for name in names for scene, n in self.measured[name] if scene == "easy"), default=0)

    def best(self, name: str, scene: str) -> Row | None:
        """The fit whose labels count: of the compared pixels, else of the most below, else of the fewest above."""
        found = [row for (where, _), row in self.measured[name].items() if where == scene and "fit_s" in row]
        below = [row for row in found if row["n"] <= self.compared]
        return max(below, key=_pixels) if below else min(found, key=_pixels, default=None)

    @property
    def reference(self) -> str | None:
        """Which of ours others are compared with."""
        return next((name for name in OURS if name in self.measured), None)

    def times_ours(self, name: str, scene: str, n: int) -> float | None:
        """How many times as long as ours a fit takes: both with as many pixels of the same frame."""
        rows = [self.measured.get(key or "", {}).get((scene, n), {}) for key in (name, self.reference)]
        mine, ours = (row.get("fit_s") for row in rows)
        return mine / ours if mine and ours else None


def _pixels(row: Row) -> int:
    return row["n"]


def text_table(rows: Iterable[Row]) -> str:
    """Both tables with aligned columns, what was skipped, and how to read them."""
    results = Results.of(rows)
    parts = [_aligned(*quality(results)), _aligned(*speed(results))] if results.measured else []
    return "\n\n".join([*parts, "\n".join(notes(results))])


def markdown_table(rows: Iterable[Row]) -> str:
    """The same for README.md."""
    results = Results.of(rows)
    parts = [_piped(*quality(results)), _piped(*speed(results))] if results.measured else []
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes(results))])


def quality(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and cells: what each program can do, its likelihood, and its labels against the truth."""
    header = ["program", "knows the trend", "unvisited pixels", "batches", "log-lik. a pixel, hard"]
    header += ["labels right: easy", "hard", "Dice of Li: easy", "hard", "hard, reversed"]
    rows = []
    for name, found in results.measured.items():
        any_row = next(iter(found.values()))
        best = {scene: results.best(name, scene) or {} for scene in ("easy", "hard", REVERSED)}
        cells = [name, any_row["trend"], *("yes" if any_row[key] else "no" for key in ("unvisited", "batches"))]
        cells.append(_number(best["hard"].get("log_likelihood"), ".4f"))
        cells += [_number(best[scene].get("label_accuracy"), ".4f") for scene in ("easy", "hard")]
        cells += [_number(best[scene].get("dice"), ".3f") for scene in best]
        rows.append(cells)
    return header, rows


def speed(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and cells: seconds a fit at each size, in brackets how many times ours; iterations of the compared one."""
    n, sizes = results.compared, results.sizes
    header = ["program", *(f"hard, {size:,} px" for size in sizes), f"easy, {n:,} px"]
    header += ["iterations", "short of the optimum"]
    rows = []
    for name, found in results.measured.items():
        if not any(row.get("fit_s") for row in found.values()):
            continue
        at = found.get(("hard", n), {})
        cells = [_seconds(results, name, "hard", size) for size in sizes] + [_seconds(results, name, "easy", n)]
        rows.append([name, *cells, _number(at.get("iterations"), ",d"), _short(at.get("short"))])
    return header, rows


def notes(results: Results) -> list[str]:
    """What was left out or skipped, and remarks on single programs."""
    lines = [] if results.reference is None else [f"in brackets: times {results.reference}"]
    for name, found in results.measured.items():
        remarks = [next(iter(found.values()))["note"]]
        best = results.best(name, "hard")
        if best is not None and best["n"] < results.compared:
            remarks.append(f"labels and likelihood of {best['n']:,} px")
        left = [(f"{scene}, {n:,} px", row["left_out"]) for (scene, n), row in found.items() if "left_out" in row]
        for reason in dict.fromkeys(reason for _, reason in left):
            remarks.append(f"{' and '.join(where for where, why in left if why == reason)}: {reason}")
        if any(remarks):
            lines.append(f"{name}: {'; '.join(remark for remark in remarks if remark)}")
    return lines + [f"{name}: skipped: {reason}" for name, reason in results.skipped.items()]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(results: Results, name: str, scene: str, n: int) -> str:
    row = results.measured[name].get((scene, n))
    if row is None or row.get("fit_s") == 0:
        return "-"
    if "fit_s" not in row:
        return "left out"
    times = results.times_ours(name, scene, n)
    return seconds_text(row["fit_s"]) + ("" if times is None or name == results.reference else f" ({_times(times)})")


def seconds_text(seconds: float) -> str:
    """Two significant digits: ``"3.1 ms"``, ``"12 s"``."""
    for limit, factor, unit in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")):
        if seconds >= 0.9995 * limit:
            value = seconds * factor
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    raise ValueError(seconds)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{max(value, 0.0):.0e}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two blanks apart, the first aligned on the left."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    place: list[Callable[[str, int], str]] = [str.ljust, *([str.rjust] * (len(header) - 1))]
    return "\n".join("  ".join(p(c, w) for p, c, w in zip(place, line, widths, strict=True)).rstrip() for line in lines)


def _piped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
