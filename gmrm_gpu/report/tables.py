"""The tables of the report: Table 1, settings, how the fits ended, provenance. Plain text, nothing escaped."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..config import CorrectionConfig
from ..results import AnalysisResult, FitStatus, StudyResult, fit_statuses, status_counts
from .common import (
    ESTIMATOR_TEXT,
    METHOD_TEXT,
    Result,
    analysis_config,
    everything,
    is_movie,
    level_text,
    number,
    percent,
    pixel_size,
    significant,
    term_text,
    unit_text,
    visited_text,
)

# The paper's Table 1 (METHOD.md 9): rate -> replicates, average bias, average width in um^3, of another movie.
PAPER_TABLE1 = {0.1: (100, 0.094, 0.703), 0.05: (200, 0.332, 1.121), 0.01: (1000, 2.012, 6.001)}


class Table(NamedTuple):
    """Headings and rows of text."""

    head: list[str]
    rows: list[list[str]]


def paper_row(rate: float) -> tuple[int, float, float] | None:
    """The paper's replicates, bias and width at `rate`, if it has that rate."""
    return next((row for known, row in PAPER_TABLE1.items() if np.isclose(rate, known)), None)


def table1(study: StudyResult) -> Table:
    """Bias and width per method and rate; with a truth, bias and RMSE against it; the paper's own numbers last."""
    unit = unit_text(study)
    head = ["Method", "Rate", "Replicates", f"Avg. bias, {unit}", f"Avg. width, {unit}", f"Avg. |bias|, {unit}"]
    if study.truth is not None:
        head += [f"Bias to truth, {unit}", f"RMSE to truth, {unit}"]
    head += ["Failed fits", "Paper: avg. bias, µm³", "Paper: avg. width, µm³"]
    rows = []
    for row in study.table():
        cells = [row["method"], percent(row["rate"]), f"{row['n_replicates']:,}"]
        cells += [number(row[key]) for key in ("avg_bias", "avg_width", "avg_abs_bias")]
        if study.truth is not None:
            cells += [number(row["avg_bias_truth"]), number(row["rmse_truth"])]
        paper = paper_row(row["rate"]) if row["method"] == "paper" else None
        cells += [f"{row['n_failed']:,}"] + (["–", "–"] if paper is None else [f"{v:.3f}" for v in paper[1:]])
        rows.append(cells)
    return Table(head, rows)


def shape_table(study: StudyResult) -> Table | None:
    """Bias and width of the method paper as multiples of those at the highest rate, here and in the paper.

    None below two rates.
    """
    rows = [row for row in study.table() if row["method"] == "paper" and paper_row(row["rate"]) is not None]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: -row["rate"])
    first, paper_first = rows[0], PAPER_TABLE1[min(PAPER_TABLE1, key=lambda r: abs(r - rows[0]["rate"]))]
    base = percent(first["rate"])
    head = ["Rate", f"|Bias| ÷ that at {base}", "Paper", f"Width ÷ that at {base}", "Paper"]
    cells = []
    for row in rows:
        paper = paper_row(row["rate"]) or paper_first
        ours = [_ratio(row[key], first[key]) for key in ("avg_bias", "avg_width")]
        cells.append(
            [
                percent(row["rate"]),
                ours[0],
                _ratio(paper[1], paper_first[1]),
                ours[1],
                _ratio(paper[2], paper_first[2]),
            ]
        )
    return Table(head, cells)


def _ratio(value: float, base: float) -> str:
    return "–" if not np.isfinite(value) or not abs(base) > 0 else f"{significant(abs(value / base), 2)} ×"


def facts(result: Result) -> list[tuple[str, str]]:
    """What was analysed: movie, size, frames, calibration."""
    movie, quantity = result.movie, analysis_config(result).quantity
    height, width = movie.shape
    size = pixel_size(result)
    rows = [
        ("Movie", movie.name),
        ("Frames", f"{movie.n_frames:,} of {width} × {height} pixels (width × height), {movie.dtype}"),
    ]
    if movie.n_pixels < height * width:
        excluded = height * width - movie.n_pixels
        rows.append(
            ("Pixels used", f"{movie.n_pixels:,}; {excluded:,} excluded ({percent(excluded / height / width)})")
        )
    if movie.detector is not None:
        rows.append(("Detector", movie.detector))
    if movie.bit_depth is not None:
        rows.append(("Bit depth", str(movie.bit_depth)))
    rows.append(("Pixel size", "unknown" if size is None else f"{number(size * 1000)} nm"))
    if quantity.geometry == "slab":
        thickness = quantity.thickness_um
        rows.append(("Thickness", "unknown" if thickness is None else f"{number(thickness)} µm"))
    else:
        rows.append(
            ("Geometry", f"solid of revolution about {quantity.axis}, {percent(quantity.wedge_fraction)} of a turn")
        )
    rows.append(("Time", "frame numbers only" if result.time_s is None else _frame_time(result)))
    if isinstance(result, AnalysisResult):
        saved = "" if result.is_full else f"; {percent(1 - float(result.visited_share.mean()))} of the dose saved"
        rows.append(("Visited in a frame", f"{visited_text(result)}{saved}"))
        rows.append(("Samples per frame", _range(result.n_samples)))
    else:
        for study in result.every:
            text = "; ".join(f"{percent(r)}: {len(s):,} replicates" for r, s in study.shares.items())
            rows.append((f"Replicates, method {study.method}", text))
    if result.scale.unit != "um3":
        rows.append(("Unit of the results", uncalibrated(result)))
    return rows


def _frame_time(result: Result) -> str:
    step = result.movie.frame_time_s or analysis_config(result).quantity.frame_time_s
    return "from the file" if step is None else f"{number(step)} s per frame"


def _range(values: np.ndarray) -> str:
    low, high = int(np.min(values)), int(np.max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def uncalibrated(result: Result) -> str:
    """Why the curve is not in um^3, and which option would make it so."""
    if result.scale.unit == "px":
        return "uncalibrated: reported in pixels; give --pixel-size and --thickness for µm³"
    return "no thickness: reported as area; give --thickness for µm³"


_SETTINGS = (
    *("Method", "Components", "Trend", "Fit", "Starts", "Drift", "Phases"),
    *("Correction radius r", "Correction γ", "Correction window"),
    *("Sampling", "Seed", "Estimator", "Interval", "Precision"),
)


def settings(result: Result) -> Table:
    """Each setting with its value, one column a method, and what it does, in the order in which the data flow."""
    parts: tuple[Result, ...] = result.every if isinstance(result, StudyResult) else (result,)
    columns = [_settings(part) for part in parts]
    meaning = {name: text for column in columns for name, (_, text) in column.items()}
    order = sorted(meaning, key=_SETTINGS.index)
    values = ["Value"] if len(parts) == 1 else [f"Method {analysis_config(part).method}" for part in parts]
    rows = [[name, *(column.get(name, ("–", ""))[0] for column in columns), meaning[name]] for name in order]
    return Table(["Setting", *values, "What it does"], rows)


def _settings(result: Result) -> dict[str, tuple[str, str]]:
    """Name -> value and meaning."""
    config = analysis_config(result)
    mixture, phases, vote, sampling = config.mixture, config.phases, config.correction, config.sampling
    whole = config.method == "movie"
    rule = phases.rule
    if rule == "separated":
        rule += f" (c = {phases.contrast:g}, {phases.polarity})"
    elif rule == "auto":
        rule += f" ({phases.polarity})"
    elif phases.is_named:
        rule += f"; foreground {phases.names[phases.foreground_index]}"
    trend = term_text(mixture.terms)
    trend += "" if mixture.trend_prior is None else f"; prior {mixture.trend_prior:g} grey levels"
    rates = ", ".join(map(percent, result.rates if isinstance(result, StudyResult) else [sampling.rate]))
    histogram = " with a residual histogram" if mixture.histogram and not whole else ""
    fit = f"{mixture.schedule} schedule{histogram}, tolerance {mixture.tol:g}, at most {mixture.max_iter} passes"
    found = {
        "Method": (config.method, "; ".join(f"{name}: {text}" for name, text in METHOD_TEXT.items())),
        "Components": (
            str(mixture.n_components),
            "Gaussian components of the grey levels; method movie: common to all frames",
        ),
        "Trend": (trend, "terms of the intensity trend, fitted together with the components"),
        "Fit": (fit, "ECM" + ("; of the method movie these settings hold for the start" if whole else "")),
        "Starts": (", ".join(mixture.starts), "each fit starts in several ways; the most likely is kept"),
    }
    if whole:
        drift = "off" if mixture.drift == 0 else f"{mixture.drift:g}"
        found["Drift"] = (drift, "how freely trend, offset and contrast of a frame may move away from the movie's")
    found |= {"Phases": (rule, "which components are the foreground")} | _vote_settings(vote)
    found |= {
        "Sampling": _sampling(result, f"{sampling.scheme}, {rates} of the pixels"),
        "Seed": (str(sampling.seed), "the same seed draws the same pixels on every machine"),
        "Estimator": (config.estimator, "; ".join(f"{name}: {text}" for name, text in ESTIMATOR_TEXT.items())),
    }
    if isinstance(result, AnalysisResult):
        found["Interval"] = (level_text(result), "how often it should hold the value that all pixels would give")
    return found | {"Precision": (config.compute.dtype, "sums are kept in float64")}


def _sampling(result: Result, drawn: str) -> tuple[str, str]:
    if not result.movie.sampled:
        return drawn, "how the visited pixels are drawn"
    scheme = analysis_config(result).sampling.scheme
    if isinstance(result, AnalysisResult) and analysis_config(result).sampling.rate >= 1:
        drawn = f"as recorded; errors counted as of {scheme} pixels"
    return drawn, "which of the pixels that the beam visited are used"


def _vote_settings(vote: CorrectionConfig) -> dict[str, tuple[str, str]]:
    if vote.radius_px == 0:
        return {"Correction radius r": ("off", "labels are used as they are, no vote of the neighbours")}
    return {
        "Correction radius r": (f"{vote.radius_px:g} px, {vote.metric.upper()}", "size of the neighbourhood"),
        "Correction γ": (f"{vote.gamma:g}", "foreground stays with this share of such neighbours"),
        "Correction window": (
            f"{vote.window}, {vote.sides}, {vote.time_scale:g} px per frame",
            "where neighbours may lie; past leaves the first frame as it is",
        ),
    }


def status_table(result: Result) -> Table:
    """How many fits ended how, one row a method and rate (or one for the movie)."""
    if isinstance(result, StudyResult):
        parts = []
        for study in result.every:
            whole, name = is_movie(study), f"{study.method}, " if result.others else ""
            parts.append((f"{name}{everything(study)}", fit_statuses(study.reference_status, whole=whole)))
            parts += [(f"{name}{percent(r)}", fit_statuses(s, whole=whole)) for r, s in study.status.items()]
    else:
        parts = [("this movie", fit_statuses(result.status, whole=is_movie(result)))]
    counts = [(name, status_counts(status)) for name, status in parts]
    labels = [s.label for s in FitStatus if any(s.label in c for _, c in counts)]
    head = ["Sampling", "Fits", *(label.replace("max_iter", "pass limit reached") for label in labels)]
    rows = [[name, f"{sum(c.values()):,}", *(f"{c.get(label, 0):,}" for label in labels)] for name, c in counts]
    return Table(head, rows)


def provenance_rows(result: Result) -> list[tuple[str, str]]:
    """Versions, device and the rest of the provenance as (name, text), nested names joined by a space."""
    hidden = {"command", "warnings", "foreground"}
    return [row for key, value in result.provenance.items() if key not in hidden for row in _flat(str(key), value)]


_PLAIN_NAMES = {"gmrm_gpu": "gmrm_gpu", "wall_s": "wall time, s", "n_threads": "threads", "n_shards": "shards"}


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in _flat(f"{name} {key}", part)]
    if value is None:
        return []
    shown = _PLAIN_NAMES.get(name, name.replace("_", " "))
    if isinstance(value, (list, tuple)):
        return [(shown, ", ".join(map(str, value)))]
    return [(shown, number(value) if isinstance(value, float) else str(value))]
