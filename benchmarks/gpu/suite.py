"""All parts in order, the important ones first, within a budget of time."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gmrm_gpu.frames import Movie

from .check import check_against_generic
from .others import (
    Deadline,
    measure_cpu,
    measure_eager,
    measure_full_frames,
    measure_growth,
    measure_movie_eager,
    measure_movie_method,
    measure_user_study,
)
from .rig import Rig
from .sizes import Sizes, growing_movie
from .study import Row, check_cut, measure_fit, measure_study, warm_up
from .table import print_rows


def run_suite(
    rig: Rig,
    sizes: Sizes,
    budget_s: float,
    *,
    stamp: dict[str, Any],
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> tuple[list[Row], list[str]]:
    """Check, measure, print.

    Parameters
    ----------
    rig : what is measured. sizes : how much. budget_s : seconds for all of it; parts that find none left are left out.
    stamp : commit, machine and date, put into every row. keep : is given the rows of each part when it is done.

    Returns
    -------
    All rows, and the names of the parts that failed; the others are measured all the same.

    Raises
    ------
    CheckError
        The kernels are wrong; nothing is measured then.
    """
    time_is_up = Deadline(budget_s)
    print(", ".join(f"{key} {value}" for key, value in rig.what.items()), flush=True)
    found: list[Row] = []
    failed: list[str] = []
    common = {**rig.what, **stamp, "trend": sizes.trend, "n_components": sizes.n_components, "side": sizes.side}

    def note(rows: list[Row]) -> None:
        stamped = [common | row for row in rows]
        found.extend(stamped)
        keep(stamped)
        print_rows(rows)

    started = time.perf_counter()
    checked = check_against_generic(rig, sizes)
    note([{"what": "check", **checked, "s": time.perf_counter() - started}])
    movie = growing_movie(sizes.side, sizes.n_frames)
    for name, part in _parts(rig, movie, sizes, time_is_up).items():
        if time_is_up.left() <= 0:
            print(f"{name}: left out, the budget of time is over", flush=True)
            continue
        try:
            note(part())
        except Exception as error:  # what is measured so far, and what comes, must not be lost to it
            traceback.print_exc()
            failed.append(name)
            note([{"what": name, "note": f"failed: {type(error).__name__}: {error}"}])
    note([_summary(found, budget_s - time_is_up.left())])
    return found, failed


def _parts(rig: Rig, movie: Movie, sizes: Sizes, time_is_up: Deadline) -> dict[str, Callable[[], list[Row]]]:
    return {
        "first use": lambda: [warm_up(rig, movie, sizes)],
        "study": lambda: measure_study(rig, movie, sizes),
        "cut": lambda: [check_cut(rig, movie, sizes)],
        "fit": lambda: measure_fit(rig, movie, sizes),
        "eager": lambda: measure_eager(rig, movie, sizes, time_is_up.share(0.15)),
        "cpu": lambda: measure_cpu(movie, sizes, time_is_up.share(0.1)),
        "full frames": lambda: measure_full_frames(rig, sizes, time_is_up.left),
        "growth": lambda: measure_growth(rig, movie, sizes, time_is_up.left),
        "movie method": lambda: measure_movie_method(rig, movie, sizes, time_is_up.share(0.15)),
        "run_study": lambda: measure_user_study(rig, movie, sizes),
        "movie method, eager": lambda: measure_movie_eager(rig, movie, sizes),
    }


def _summary(rows: list[Row], seconds: float) -> Row:
    """The figures that were aimed at."""
    study = next((row for row in rows if row["what"] == "study" and row.get("rate") == "all"), None)
    if study is None:
        return {"what": "summary", "suite_s": seconds}
    out: Row = {"what": "summary", "study_s": study["s"], "bit_equal": study["bit_equal"]}
    for name in ("eager", "cpu"):
        part = [row for row in rows if row["what"] == name and row.get("rate", 1) < 1]
        if part:
            total = sum(row["study_s_scaled"] for row in part)
            out |= {f"{name}_study_s_scaled": total, f"times_faster_than_{name}": total / study["s"]}
    floors = [row["times_the_floor"] for row in rows if "times_the_floor" in row]
    if floors:
        out["fit_times_the_floor_worst"] = max(floors)
    return out | {"suite_s": seconds}


def append_rows(rows: list[Row], path: Path) -> None:
    """One JSON line each."""
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_rounded(row)) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
