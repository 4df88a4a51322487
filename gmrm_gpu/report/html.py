"""The report page: one self-contained HTML file, pictures inlined, every word from outside escaped."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import printable
from ..results import AnalysisResult, StudyResult, separation
from . import tables
from .cautions import cautions
from .common import (
    ESTIMATOR_TEXT,
    METHOD_TEXT,
    Result,
    analysis_config,
    everything,
    figure_name,
    finite_mean,
    foreground_name,
    has_interval,
    is_movie,
    level_text,
    lowest_rate,
    number,
    percent,
    quantity_name,
    unit_text,
    usable_examples,
)
from .drift import drift_of
from .figures import example_text
from .growth import estimators, plain_count
from .headline import headline, interval_sentence


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    name: str
    title: str
    caption: str
    uri: str


def data_uri(png: Path, *, smooth: bool = False) -> str:
    """A PNG as a data address; unless it is `smooth`, with 256 colours: a third of the size, the same to the eye."""
    from PIL import Image

    if smooth:
        return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")
    with Image.open(png) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def titles_and_captions(result: Result) -> dict[str, tuple[str, str]]:
    """Figure name -> title and one sentence on how to read it."""
    if isinstance(result, AnalysisResult):
        return _growth_texts(result) | _example_texts(result)
    texts = {"comparison": _comparison_text(result)} if result.others else {}
    for part in result.every:
        title_end = f": method {part.method}" if result.others else ""
        own = _study_texts(part) | _example_texts(part)
        texts |= {figure_name(name, part): (title + title_end, caption) for name, (title, caption) in own.items()}
    return texts


def _study_texts(study: StudyResult) -> dict[str, tuple[str, str]]:
    return {
        "figure4": (
            "Growth at each sampling rate",
            f"(a) Mean of the replicates at each rate beside the curve from {everything(study)} (dashed); the other "
            "panels show, per rate, the band that holds 80 % of the replicates and their median, so a good rate has a "
            f"narrow band around the dashed line. Values in {unit_text(study)}"
            + ("." if study.truth is None else "; dotted: the known truth."),
        ),
        "bias_width": (
            "Bias and width over time",
            "A curve at zero in (a) means that sub-sampling does not shift the answer; a low curve in (b) means that "
            "it hardly matters which pixels were drawn.",
        ),
    }


def _comparison_text(study: StudyResult) -> tuple[str, str]:
    rate = percent(lowest_rate(study))
    return (
        f"Both methods at {rate} of the pixels",
        "Mean of the replicates (lines) and the band that holds 80 % of them, for the lowest rate of the study, with "
        f"what each method finds on {everything(study)} (dashed). "
        + (
            "The references are not the truth: where they differ, at least one method is wrong. "
            if study.truth is None
            else "Dotted: the known truth; the method whose dashed line lies on it classifies rightly. "
        )
        + "A narrow band says that the choice of pixels hardly matters.",
    )


def _growth_texts(result: AnalysisResult) -> dict[str, tuple[str, str]]:
    drift = drift_of(result)
    texts = {
        "growth": (
            "Growth curve",
            f"The {foreground_name(result)} {quantity_name(result)} in each frame in {unit_text(result)}: "
            f"{_growth_caption(result)}",
        ),
        "estimators": (
            "The estimators compared",
            _estimators_caption(result)
            + "; ".join(f"{name}: {ESTIMATOR_TEXT[name]}" for name in estimators(result))
            + ".",
        ),
    }
    if drift is not None:
        gap = finite_mean(separation(result.fits))
        distance = f"{number(gap)} grey levels, the distance between components" if np.isfinite(gap) else "the noise"
        texts["drift"] = (
            "How single frames deviate from the movie",
            "All frames share their grey levels and trend; each may deviate a little, tied to its neighbours in time. "
            f"Smooth, small curves are an instrument that drifts. Compare them with {distance}: a deviation of that "
            "size, or one that follows the growth curve, may have taken up part of a phase: then set a "
            "lower drift, or 0, under [mixture] in a --config file.",
        )
    return texts


def _estimators_caption(result: AnalysisResult) -> str:
    if not has_interval(result):
        all_pixels = "; with all pixels visited, count, assisted and smoothed are one" if is_movie(result) else ""
        return f"What each estimator makes of the same labels; thick: the one used{all_pixels}. "
    return (
        f"(a) What each estimator makes of the same labels; thick: the one used. (b) How wide its {level_text(result)} "
        "interval is. Where the curves part by more than their intervals, distrust the labels rather than the pixels. "
    )


def _growth_caption(result: AnalysisResult) -> str:
    """What the lines of the growth curve are."""
    plain, vote = plain_count(result), analysis_config(result).correction.radius_px > 0
    text = f"the estimate ({result.estimator}: {ESTIMATOR_TEXT[result.estimator]})"
    if has_interval(result):
        text += f" with its {level_text(result)} interval"
    if plain is None:
        return text + "."
    if result.estimator == "count":
        return (
            f"{text}, and in grey the plain count of the labels before the spatio-temporal correction; the distance "
            "between them is what the correction did."
        )
    text += f", and in grey the plain count of the labels{' before the correction' if vote else ''}"
    if result.estimator == "posterior":
        text += ". Where they part, the labels are unsure"
        return text + (
            ". The correction does not touch the posterior; the pictures below show corrected labels, so their shares "
            "may differ from the curve."
            if vote
            else "."
        )
    return f"{text}, which scatters with the pixels that each frame happened to visit."


def _example_texts(result: Result) -> dict[str, tuple[str, str]]:
    if usable_examples(result) is None:
        return {}
    fore, quoted = foreground_name(result), example_text(result)
    voted = " (after the correction)" if analysis_config(result).correction.radius_px > 0 else ""
    return {
        "frames_labels": (
            "What was called foreground",
            f"Frames with the pixels classified as {fore}{voted} {quoted['mark']} in orange, and "
            f"their share of the {quoted['share_of']}; black to white spans grey levels {quoted['window']} in every "
            f"frame. {_unvisited(result)}If the orange does not follow what you see, distrust everything else here.",
        ),
        "subsampled": (
            f"The same frames from {quoted['rate']} of the pixels",
            f"Only the visited pixels are shown: orange if classified as {fore}, grey if not, black where nothing was "
            "measured.",
        ),
        "histogram": ("Grey levels and fitted components", _histogram_caption(result, quoted["histogram"])),
        "trend": ("Intensity trend", _trend_caption(result, quoted["frame"])),
        "correction": ("Effect of the spatio-temporal correction", _correction_caption(result, fore, quoted)),
    }


def _histogram_caption(result: Result, frame: str) -> str:
    whose, share = "fitted component", "its share of the pixels"
    if is_movie(result):
        whose, share = "component of the movie", "its mean share of these pixels"
    return (
        f"Grey levels of {frame} with the trend taken out (grey area), each {whose} with its mean ± standard deviation "
        f"and {share}, and their sum (dashed), which should follow the grey area."
    )


def _trend_caption(result: Result, frame: str) -> str:
    if not analysis_config(result).mixture.terms:
        return "These settings have no trend (--trend none), so nothing was taken out."
    fitted = f"of the movie, as it is in {frame}" if is_movie(result) else f"fitted to {frame}"
    return (
        f"The slow intensity trend {fitted}, in grey levels (contour lines; its level is arbitrary); it "
        "should be smooth and should not show the shape of the specimen. The outer panels share one grey window. "
        f"{_unvisited(result)}"
    ).rstrip()


def _unvisited(result: Result) -> str:
    if not result.movie.sampled:
        return ""
    return "Where the beam never went is blue, and visited pixels are drawn larger than they are. "


def _correction_caption(result: Result, fore: str, quoted: dict[str, str]) -> str:
    vote = analysis_config(result).correction
    added = ", white ones were added" if vote.sides == "both" else ""
    off = "The correction is off here; this is what it would do. " if vote.radius_px == 0 else ""
    return (
        f"{off}Labels of {quoted['detail']}{quoted['corrected']} over the dimmed frame: orange pixels stay {fore}, "
        f"blue ones were removed because too few of their neighbours agree{added}; good settings remove specks and "
        "leave real features. The numbers count pixels."
    )


def _sentence(text: str) -> Any:
    """Escaped text whose numbers keep their unit and whose options do not break across lines."""
    from markupsafe import Markup, escape

    escaped = re.sub(r"(?<=\d) (?=(?:%|µm|px|nm|s|min|h|×)(?![a-z]))", "\u00a0", str(escape(printable(text))))
    return Markup(re.sub(r"(?<!\S)(--[a-z][a-z-]*)", r"<code>\1</code>", escaped))


def _seen(value: Any) -> Any:
    """What a field of the page becomes: HTML bears marks that turn the order of what is read, so these are shown."""
    return printable(value) if type(value) is str else value


_ANSWER = ("comparison", "figure4", "bias_width", "growth")


def render(result: Result, pictures: dict[str, Path]) -> str:
    """The page as text; `pictures` maps figure names to PNG files, in the order of the page."""
    from jinja2 import Environment

    texts = titles_and_captions(result)
    shown = [
        Picture(name, *texts[name], data_uri(path, smooth=name.startswith("trend"))) for name, path in pictures.items()
    ]
    sentence, more = headline(result)
    template = files(__package__).joinpath("template.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_seen)
    environment.filters["sentence"] = _sentence
    return environment.from_string(template).render(
        movie=result.movie.name,
        headline=sentence,
        headline_more=more,
        cautions=cautions(result),
        status=tables.status_table(result),
        facts=tables.facts(result),
        settings=tables.settings(result),
        answer=[p for p in shown if p.name.startswith(_ANSWER)],
        evidence=_evidence(result, [p for p in shown if not p.name.startswith(_ANSWER)]),
        provenance=tables.provenance_rows(result),
        command=result.provenance.get("command"),
        **_words(result),
    )


def _evidence(result: Result, pictures: list[Picture]) -> list[tuple[str, list[Picture]]]:
    """(heading, pictures), one group a method."""
    if isinstance(result, AnalysisResult) or not result.others:
        return [("The evidence", pictures)] if pictures else []
    groups = []
    for part in result.every:
        own = [p for p in pictures if p.name.endswith("_movie") == is_movie(part)]
        groups += [(f"The evidence: method {part.method}", own)] if own else []
    return groups


def _words(result: Result) -> dict[str, Any]:
    """Numbers and switches of the page's own sentences."""
    config = analysis_config(result)
    study = result if isinstance(result, StudyResult) else None
    methods = [part.method for part in study.every] if study else [config.method]
    return {
        "study": study is not None,
        "table1": tables.table1(study) if study else None,
        "shape": tables.shape_table(study) if study else None,
        "truth": study is not None and study.truth is not None,
        "methods": methods,
        "method_text": METHOD_TEXT,
        "interval": interval_sentence(result) if isinstance(result, AnalysisResult) else "",
        "foreground": foreground_name(result),
        "unit": unit_text(result),
        "rules": {part.method: analysis_config(part).phases.rule for part in study.every}
        if study
        else {config.method: config.phases.rule},
        "seed": config.sampling.seed,
        "n_fits": _total_fits(result),
    }


def _total_fits(result: Result) -> str:
    total = sum(int(row[1].replace(",", "")) for row in tables.status_table(result).rows)
    return "The fit converged" if total == 1 else f"All {total:,} fits converged"


__all__ = ["Picture", "data_uri", "render", "titles_and_captions"]
