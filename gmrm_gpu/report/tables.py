"""What the report says in words and tables: the answer, Table 1, settings. Plain text, nothing escaped."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..results import AnalysisResult, FitStatus, StudyResult, status_counts
from .common import (
    Result,
    analysis_config,
    finite_share,
    foreground_name,
    is_share_of_frame,
    number,
    percent,
    pixel_size,
    quantity_name,
    significant,
    stamp,
    term_text,
    unit_text,
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
    """Bias and width per rate; with a truth, bias and RMSE against it; the paper's own numbers last."""
    unit = unit_text(study)
    head = ["Rate", "Replicates", f"Avg. bias, {unit}", f"Avg. width, {unit}", f"Avg. |bias|, {unit}"]
    if study.truth is not None:
        head += [f"Bias to truth, {unit}", f"RMSE to truth, {unit}"]
    head += ["Failed fits", "Paper: avg. bias, µm³", "Paper: avg. width, µm³"]
    rows = []
    for row in study.table():
        cells = [percent(row["rate"]), f"{row['n_replicates']:,}"]
        cells += [number(row[key]) for key in ("avg_bias", "avg_width", "avg_abs_bias")]
        if study.truth is not None:
            cells += [number(row["avg_bias_truth"]), number(row["rmse_truth"])]
        paper = paper_row(row["rate"])
        cells += [f"{row['n_failed']:,}"] + (["–", "–"] if paper is None else [f"{v:.3f}" for v in paper[1:]])
        rows.append(cells)
    return Table(head, rows)


def shape_table(study: StudyResult) -> Table | None:
    """Bias and width as multiples of those at the highest rate, here and in the paper; None below two rates."""
    rows = [row for row in study.table() if paper_row(row["rate"]) is not None]
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


def headline(result: Result) -> tuple[str, list[str]]:
    """The answer in one sentence, and what to add to it."""
    return _study_headline(result) if isinstance(result, StudyResult) else _analysis_headline(result)


def _peak(result: Result, curve: np.ndarray) -> tuple[int, str] | None:
    if not np.isfinite(curve).any():
        return None
    at = int(np.nanargmax(curve))
    text = f"{number(curve[at])} {unit_text(result)}"
    if is_share_of_frame(result) and result.scale.factor > 0:
        text += f" ({percent(curve[at] / result.scale.factor)} of the frame)"
    return at, text


def _study_headline(study: StudyResult) -> tuple[str, list[str]]:
    reference = study.reference * study.scale.factor
    name, quantity = foreground_name(study), quantity_name(study)
    found = _peak(study, reference)
    if found is None:
        return "No frame of the fully sampled movie could be fitted, so there is no reference and no bias.", []
    at, text = found
    if reference[at] == 0:
        first = f"The fully sampled movie holds no {name} in any frame."
    elif len(reference) == 1:
        first = f"Fully sampled, the {name} {quantity} is {text}."
    else:
        first = f"Fully sampled, the {name} {quantity} peaks at {text} at {stamp(study, at)}."
    more = [_rate_sentence(study, row, float(reference[at])) for row in study.table()]
    return first, more + _truth_sentence(study, reference)


def _truth_sentence(study: StudyResult, reference: np.ndarray) -> list[str]:
    if study.truth is None:
        return []
    truth = study.truth * study.scale.factor
    errors = finite_share(reference - truth)
    if errors.size == 0:
        return []
    error, peak = float(errors.mean()), float(np.nanmax(truth))
    direction = "too high" if error > 0 else "too low" if error < 0 else "off"
    return [
        f"The truth is known here and peaks at {number(peak)} {unit_text(study)}: against it, the fully sampled curve "
        f"itself is {number(abs(error))} {unit_text(study)} {direction} on average."
    ]


def _rate_sentence(study: StudyResult, row: dict[str, Any], peak: float) -> str:
    unit, bias, width = unit_text(study), row["avg_bias"], row["avg_width"]
    start = f"With {percent(row['rate'])} of the pixels"
    if not np.isfinite(bias):
        return f"{start} there is no usable replicate."
    part = f" ({percent(abs(bias) / peak, 2)} of the peak)" if peak > 0 else ""
    part_width = f" ({percent(width / peak, 2)})" if peak > 0 else ""
    direction = "too high" if bias > 0 else "too low" if bias < 0 else "off"
    middle = f"the curve is {number(abs(bias))} {unit}{part} {direction} on average"
    band = f"80 % of the {row['n_replicates']:,} replicates lie in a band {number(width)} {unit}{part_width} wide"
    return f"{start}, {middle}; {band}."


def _analysis_headline(result: AnalysisResult) -> tuple[str, list[str]]:
    curve = result.quantity
    name, quantity, unit = foreground_name(result), quantity_name(result), unit_text(result)
    found = _peak(result, curve)
    if found is None:
        return "No frame could be fitted, so there is no growth curve.", []
    at, text = found
    if curve[at] == 0:
        return f"No frame holds any {name}.", []
    few = _sampled_sentence(result)
    if len(curve) == 1:
        return f"The {name} {quantity} is {text}.", few
    good = np.flatnonzero(np.isfinite(curve))
    lines = [
        f"It starts at {number(curve[good[0]])} {unit} and ends at {number(curve[good[-1]])} {unit} "
        f"({percent(curve[good[-1]] / curve[at], 2)} of the peak)."
    ]
    return f"The {name} {quantity} peaks at {text} at {stamp(result, at)}.", lines + few


def _sampled_sentence(result: AnalysisResult) -> list[str]:
    rate = result.config.sampling.rate
    return [] if rate >= 1 else [f"It was measured from {percent(rate)} of the pixels of each frame."]


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
        rows.append(("Samples per frame", _range(result.n_samples)))
    else:
        rows.append(("Study", "; ".join(f"{percent(r)}: {len(s):,} replicates" for r, s in result.shares.items())))
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


def settings(result: Result) -> list[tuple[str, str, str]]:
    """(setting, value, what it does), in the order in which the data flow."""
    config = analysis_config(result)
    mixture, phases, vote, sampling = config.mixture, config.phases, config.correction, config.sampling
    rule = phases.phases
    if rule == "separated":
        rule += f" (c = {phases.contrast:g}, {phases.polarity})"
    elif phases.is_named:
        rule += f"; foreground {phases.names[phases.foreground_index]}"
    trend = term_text(mixture.terms)
    trend += "" if mixture.trend_prior is None else f"; prior {mixture.trend_prior:g} grey levels"
    off = vote.radius == 0
    rates = ", ".join(map(percent, result.rates if isinstance(result, StudyResult) else [sampling.rate]))
    return [
        ("Method", config.method, "paper: every frame is fitted by itself"),
        ("Components", str(mixture.n_components), "Gaussian components of the grey levels in each frame"),
        ("Trend", trend, "terms of the intensity trend, fitted together with the components"),
        ("Fit", f"{mixture.schedule} schedule, tolerance {mixture.tol:g}, at most {mixture.max_iter} passes", "ECM"),
        ("Starts", ", ".join(mixture.starts), "each fit starts in several ways; the most likely is kept"),
        ("Phases", rule, "which components are the foreground"),
        (
            "Correction radius r",
            "off" if off else f"{vote.radius:g} px, {vote.metric.upper()}",
            "size of the neighbourhood",
        ),
        ("Correction γ", "off" if off else f"{vote.gamma:g}", "foreground stays with this share of such neighbours"),
        (
            "Correction window",
            f"{vote.window}, {vote.sides}, {vote.time_scale:g} px per frame",
            "where neighbours may lie; past leaves the first frame as it is",
        ),
        ("Sampling", f"{sampling.scheme}, {rates} of the pixels", "how the visited pixels are drawn"),
        ("Seed", str(sampling.seed), "the same seed draws the same pixels on every machine"),
        ("Estimator", config.quantity.estimator, "count: share of labels; posterior: mean probability"),
        ("Precision", config.compute.dtype, "sums are kept in float64"),
    ]


def status_table(result: Result) -> Table:
    """How many fits ended how, one row a rate (or one for the movie)."""
    if isinstance(result, StudyResult):
        parts = [("all pixels", result.reference_status)] + [(percent(r), s) for r, s in result.status.items()]
    else:
        parts = [("this movie", result.status)]
    counts = [(name, status_counts(status)) for name, status in parts]
    labels = [s.label for s in FitStatus if any(s.label in c for _, c in counts)]
    head = ["Sampling", "Fits", *(label.replace("max_iter", "pass limit reached") for label in labels)]
    rows = [[name, f"{sum(c.values()):,}", *(f"{c.get(label, 0):,}" for label in labels)] for name, c in counts]
    return Table(head, rows)


def provenance_rows(result: Result) -> list[tuple[str, str]]:
    """Versions, device and the rest of the provenance as (name, text), nested names joined by a space."""
    hidden = {"command", "warnings"}
    return [row for key, value in result.provenance.items() if key not in hidden for row in _flat(str(key), value)]


_PLAIN_NAMES = {"gmrm_gpu": "gmrm_gpu", "wall_s": "wall time, s", "n_workers": "workers", "n_blocks": "blocks"}


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in _flat(f"{name} {key}", part)]
    if value is None:
        return []
    shown = _PLAIN_NAMES.get(name, name.replace("_", " "))
    if isinstance(value, (list, tuple)):
        return [(shown, ", ".join(map(str, value)))]
    return [(shown, number(value) if isinstance(value, float) else str(value))]
