"""The answer in sentences: what was found, how well it is known, by which method. Plain text, nothing escaped."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..results import AnalysisResult, StudyResult
from .common import (
    ESTIMATOR_TEXT,
    METHOD_TEXT,
    Result,
    analysis_config,
    count_of,
    everything,
    finite_mean,
    finite_share,
    foreground_name,
    has_interval,
    is_movie,
    is_share_of_frame,
    level_text,
    lowest_rate,
    number,
    percent,
    quantity_name,
    significant,
    stamp,
    unit_text,
    usable_examples,
    visited_text,
)


def headline(result: Result) -> tuple[str, list[str]]:
    """The answer in one sentence, and what to add to it."""
    if isinstance(result, AnalysisResult):
        return _analysis_headline(result)
    return _study_headline(result) if len(result.every) == 1 else _methods_headline(result)


def _peak(result: Result, curve: np.ndarray) -> tuple[int, str] | None:
    if not np.isfinite(curve).any():
        return None
    at = int(np.nanargmax(curve))
    text = f"{number(curve[at])} {unit_text(result)}"
    if is_share_of_frame(result) and result.scale.factor > 0:
        text += f" ({percent(curve[at] / result.scale.factor)} of the frame)"
    return at, text


def _study_headline(study: StudyResult) -> tuple[str, list[str]]:
    first, peak = _reference_sentence(study)
    if peak is None:
        return first, []
    rates = [_rate_sentence(study, row, peak) for row in own_rows(study)]
    return first, rates + _foreground_sentence(study) + _truth_sentence(study)


def _foreground_sentence(study: StudyResult) -> list[str]:
    """What was taken for foreground in the fully sampled movie, where one decision holds for all frames."""
    examples = usable_examples(study)
    if not is_movie(study) or examples is None:
        return []
    chosen = examples.foreground.any(axis=0)
    if not chosen.any():
        return ["No component was taken for foreground."]
    levels = " and ".join(number(finite_mean(examples.fits.means[:, k])) for k in np.flatnonzero(chosen))
    rule = analysis_config(study).phases.rule
    return [f"Taken for {foreground_name(study)} by the rule {rule}: what is at grey level {levels}."]


def own_rows(study: StudyResult) -> list[dict[str, Any]]:
    """The rows of Table 1 of this study's own method."""
    return [row for row in study.table() if row["method"] == study.method]


def _reference_sentence(study: StudyResult) -> tuple[str, float | None]:
    """What all pixels say, and the peak in the unit of the study, None where there is no reference."""
    reference = study.reference * study.scale.factor
    name, quantity = foreground_name(study), quantity_name(study)
    found = _peak(study, reference)
    if found is None:
        return f"No frame could be fitted from {everything(study)}, so there is no reference and no bias.", None
    at, text = found
    peak = float(reference[at])
    if peak == 0:
        return f"{_start(study)}, the movie holds no {name} in any frame.", peak
    if len(reference) == 1:
        return f"{_start(study)}, the {name} {quantity} is {text}.", peak
    return f"{_start(study)}, the {name} {quantity} peaks at {text} at {stamp(study, at)}.", peak


def _start(study: StudyResult) -> str:
    return "With all visited pixels" if study.movie.sampled else "Fully sampled"


def _truth_sentence(study: StudyResult) -> list[str]:
    """How far each method's fully sampled curve is from the known truth."""
    if study.truth is None:
        return []
    truth, unit = study.truth * study.scale.factor, unit_text(study)
    found = []
    for part in study.every:
        errors = finite_share(part.reference * part.scale.factor - truth)
        if errors.size:
            error = float(errors.mean())
            direction = "too high" if error > 0 else "too low" if error < 0 else "off"
            whose = "itself" if len(study.every) == 1 else f"of the method {part.method}"
            found.append(f"{whose} is {number(abs(error))} {unit} {direction}")
    if not found:
        return []
    return [
        f"The truth is known here and peaks at {number(float(np.nanmax(truth)))} {unit}: against it, the fully sampled "
        f"curve {', that '.join(found)} on average."
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


def _methods_headline(study: StudyResult) -> tuple[str, list[str]]:
    """The methods compared at the lowest rate, then each on its own."""
    rate = lowest_rate(study)
    rows = {part.method: next(r for r in own_rows(part) if r["rate"] == rate) for part in study.every}
    more = [_replicates_sentence(study)]
    for part in study.every:
        sentence, peak = _reference_sentence(part)
        lines = [sentence] + ([] if peak is None else [_rate_sentence(part, rows[part.method], peak)])
        lines += _foreground_sentence(part)
        more += [f"Method {part.method}: {text[0].lower() + text[1:]}" for text in lines]
    more += _truth_sentence(study)
    return _widths_sentence(study, rows), more


def _widths_sentence(study: StudyResult, rows: dict[str, dict[str, Any]]) -> str:
    paper, movie = rows["paper"]["avg_width"], rows["movie"]["avg_width"]
    unit, start = unit_text(study), f"With {percent(lowest_rate(study))} of the pixels"
    if not (np.isfinite(paper) and np.isfinite(movie)):
        return f"{start} at least one method has no usable replicate, so their bands cannot be compared."
    ratio = paper / movie if movie > 0 else np.inf
    if ratio > 1.1:
        verdict = "nothing" if not np.isfinite(ratio) else f"{significant(ratio, 2)} times narrower"
    else:
        verdict = "about as wide" if ratio > 0.9 else f"{significant(1 / ratio, 2)} times wider"
    if verdict == "nothing" or paper == movie == 0:
        return f"{start} the band of the method movie has no width; that of paper is {number(paper)} {unit} wide."
    than = "as" if verdict.startswith("about") else "than"
    return (
        f"{start}, the band of the method movie is {number(movie)} {unit} wide on average, {verdict} {than} that of "
        f"the method paper ({number(paper)} {unit})."
    )


def _replicates_sentence(study: StudyResult) -> str:
    def numbers(part: StudyResult) -> str:
        return ", ".join(f"{len(shares):,} at {percent(rate)}" for rate, shares in part.shares.items())

    counts = {part.method: numbers(part) for part in study.every}
    text = "Replicates: " + "; ".join(f"{method} {number}" for method, number in counts.items()) + "."
    if len(set(counts.values())) == 1:
        return text
    return (
        f"{text} Fewer for movie, because each of its replicates fits the whole movie several times over, and because "
        "a narrow band needs fewer to tell it from a wide one."
    )


def _analysis_headline(result: AnalysisResult) -> tuple[str, list[str]]:
    curve = result.quantity
    name, quantity, unit = foreground_name(result), quantity_name(result), unit_text(result)
    found = _peak(result, curve)
    if found is None:
        return "No frame could be fitted, so there is no growth curve.", []
    at, text = found
    made = method_sentences(result)
    if not result.foreground.any():
        return f"No {name} was found in any frame.", made
    if curve[at] == 0:
        return f"No frame holds any {name}.", made
    known = interval_at(result, at)
    known = f"; {level_text(result)} interval {known}" if known else ""
    if len(curve) == 1:
        return f"The {name} {quantity} is {text}{known}.", made
    good = np.flatnonzero(np.isfinite(curve))
    start, end = curve[good[0]], curve[good[-1]]
    course = (
        f"It starts at {number(start)} {unit} and ends at {number(end)} {unit} "
        f"({percent(end / curve[at], 2)} of the peak)."
    )
    return f"The {name} {quantity} peaks at {text} at {stamp(result, at)}{known}.", [course, *made]


def interval_at(result: AnalysisResult, at: int) -> str:
    """``"4,195 to 4,640 px"`` of one frame; empty without an interval."""
    low, high = (float(end[at]) for end in result.quantity_interval)
    if not has_interval(result) or not np.isfinite(low):
        return ""
    return f"{number(low)} to {number(high)} {unit_text(result)}"


def method_sentences(result: AnalysisResult) -> list[str]:
    """How it was measured, what was taken for foreground, and what the interval covers."""
    config = analysis_config(result)
    lines = [
        f"Measured from {visited_text(result)} of {count_of(len(result.frame), 'frame')}. Method {config.method}: "
        f"{METHOD_TEXT[config.method]}. Estimator {result.estimator}: {ESTIMATOR_TEXT[result.estimator]}."
    ]
    decision = result.provenance.get("foreground")
    lines += [str(decision)] if decision else []
    return [*lines, interval_sentence(result)] if result.foreground.any() else lines


def interval_sentence(result: AnalysisResult) -> str:
    """What the interval covers, and what not."""
    config = analysis_config(result)
    if not result.foreground.any():
        return "No component was taken for foreground, so there is nothing that an interval could speak of."
    if result.is_full:
        return (
            "Every pixel was visited, so there is no sampling error and no interval; a wrong model would show in no "
            "interval anyway."
        )
    if not has_interval(result):
        return f"The estimator {result.estimator} has no interval here."
    width = np.subtract(*result.quantity_interval[::-1])
    average = " on average" if len(width) > 1 else ""
    text = (
        f"The {level_text(result)} interval, {number(finite_mean(width))} {unit_text(result)} wide{average}, "
        "is for the value that all pixels would give: it covers the pixels that were not visited, not a wrong model"
    )
    if config.method == "paper":
        text += ", and not the scatter of fits to few pixels, which is often several times larger (a study shows it)"
    return text + "."
