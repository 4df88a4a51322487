"""Rows of measurements as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gmrm_gpu.cli.console import number, table

Row = dict[str, Any]
PASSES_NOTE = "ps: picoseconds of one pixel, component and pass; floor: computed from instructions and issue slots"


def print_rows(rows: list[Row]) -> None:
    """One part: its table, or lines where it has no columns."""
    for what in dict.fromkeys(row["what"] for row in rows):
        part = [row for row in rows if row["what"] == what]
        for row in part:
            if "note" in row:
                print(f"{what}: {row.get('side', row.get('of', row.get('rate', '')))}: {row['note']}")
        part = [row for row in part if "note" not in row]
        if part:
            _PRINT.get(what, _lines)(part)
    print(flush=True)


def _lines(rows: list[Row]) -> None:
    for row in rows:
        words = [f"{key} {_text(value)}" for key, value in row.items() if key != "what"]
        print(f"{row['what']}: {', '.join(words)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return number(value) if isinstance(value, float | int) else str(value)


def _percent(rate: Any) -> str:
    return rate if isinstance(rate, str) else f"{100 * rate:g} %"


def _bytes(value: Any) -> str:
    return "-" if value is None else f"{value / 1e9:.2f} GB"


def _study(rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row["stages_s"]))
    header = ("study", "replicates", "end to end, s", *names, "rest", "launches: planned, run")
    cells = [
        (
            _percent(row["rate"]),
            f"{row['replicates']:,}",
            f"{row['s']:.4g}",
            *(f"{row['stages_s'].get(name, 0.0):.3g}" for name in names),
            f"{row['s'] - sum(row['stages_s'].values()):.3g}",
            f"{row['launches_planned']}, {row['launches']}{'' if row['as_planned'] else ' NOT AS PLANNED'}",
        )
        for row in rows
    ]
    print(table(header, cells))
    whole = rows[-1]
    spread = " to ".join(f"{s:.4g}" for s in whole["spread_s"])
    print(
        f"repeated studies took {spread} s; the same bits each time: {_text(whole['bit_equal'])}; "
        f"memory high-water: {_bytes(whole['high_water_bytes'])}"
    )


def _fit(rows: list[Row]) -> None:
    header = ("fit kernel", "fits", "passes: mean, most", "s", "ps", "floor, computed", "times the floor")
    cells = [
        (
            _percent(row["rate"]),
            f"{row['replicates'] * row['frames']:,}",
            f"{row['passes_mean']:.1f}, {row['passes_max']}",
            f"{row['fit_s']:.4g}",
            f"{row['ps_per_pixel_component_pass']:.4g}",
            f"{row['floor_ps_computed']:.4g}" if "floor_ps_computed" in row else "-",
            f"{row['times_the_floor']:.2f}" if "times_the_floor" in row else "-",
        )
        for row in rows
    ]
    print(table(header, cells))
    print(PASSES_NOTE)
    for row in rows:
        if "floor_ps_computed" in row:
            hz = row["clock_hz_during_the_run"]
            during = "not known" if hz is None else f"{hz / 1e6:.0f} MHz"
            print(
                f"  {_percent(row['rate'])}: {row['instructions_a_pixel']:.0f} instructions a pixel and pass (from "
                f"{row['instructions_from']}) at the highest clock, {row['clock_hz'] / 1e6:.0f} MHz (during the run: "
                f"{during}); the design's prototype: {row['floor_ps_design_computed']:.4g} ps"
            )


def _scaled(rows: list[Row]) -> None:
    header = ("", "rate", "measured: replicates x frames", "s", "whole study's part, s (scaled)", "by")
    cells = [
        (
            row["what"],
            _percent(row["rate"]),
            f"{row['replicates']:,} x {row['frames']}",
            f"{row['s']:.4g}",
            f"{row['study_s_scaled']:.4g}",
            f"{row['scaled_by']:.4g}",
        )
        for row in rows
    ]
    print(table(header, cells))


def _movie_method(rows: list[Row]) -> None:
    _scaled(rows)
    for row in rows:
        stages = ", ".join(f"{name} {s:.3g} s" for name, s in row["stages_s"].items())
        made_by = (
            f"{row['launches']} launches: {stages}" if row["kernels"] else "array operations: no kernel was launched"
        )
        print(f"  {_percent(row['rate'])}: {made_by}")


def _full_frames(rows: list[Row]) -> None:
    header = ("full frames", "frames", "fits/s", "frames/s, end to end", "memory high-water")
    cells = [
        (
            f"{row['side']} x {row['side']}",
            str(row["frames"]),
            number(row["fits_per_s"]),
            number(row["frames_per_s"]),
            _bytes(row["high_water_bytes"]),
        )
        for row in rows
    ]
    print(table(header, cells))


def _growth(rows: list[Row]) -> None:
    header = ("cost against", "values", "fit, s", "slope: fit", "all kernels")
    names = {"B": "B, replicates (factor)", "T": "T, frames (factor)", "n": "n, pixels (factor)", "K": "K, components"}
    cells = [
        (
            names[row["of"]],
            ", ".join(f"{x:g}" for x, _, _ in row["points"]),
            ", ".join(f"{s:.3g}" for _, s, _ in row["points"]),
            f"{row['slope_fit']:.2f}",
            f"{row['slope_kernels']:.2f}",
        )
        for row in rows
    ]
    print(table(header, cells))
    print(f"slopes on logarithms; 1 is linear. Every fit takes {rows[0]['passes']} passes.")


_PRINT: dict[str, Callable[[list[Row]], None]] = {
    "study": _study,
    "fit": _fit,
    "eager": _scaled,
    "cpu": _scaled,
    "movie method": _movie_method,
    "movie method, eager": _scaled,
    "full frames": _full_frames,
    "growth": _growth,
}
