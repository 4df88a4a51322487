"""The report page: one self-contained HTML file, pictures inlined, every word from outside escaped."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..results import StudyResult
from . import tables
from .cautions import cautions
from .common import (
    Result,
    analysis_config,
    foreground_name,
    quantity_name,
    unit_text,
    usable_examples,
)
from .figures import example_text


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
    fore, unit = foreground_name(result), unit_text(result)
    texts = {
        "figure4": (
            "Growth at each sampling rate",
            "(a) Mean of the replicates at each rate beside the curve from all pixels (dashed); the other panels show, "
            "per rate, the band that holds 80 % of the replicates and their median, so a good rate has a narrow band "
            f"around the dashed line. Values in {unit}"
            + ("; dotted: the known truth." if isinstance(result, StudyResult) and result.truth is not None else "."),
        ),
        "bias_width": (
            "Bias and width over time",
            "A curve at zero in (a) means that sub-sampling does not shift the answer; a low curve in (b) means that "
            "it hardly matters which pixels were drawn.",
        ),
        "growth": (
            "Growth curve",
            f"The {fore} {quantity_name(result)} in each frame in {unit}: {_two_curves(result)}",
        ),
    }
    if usable_examples(result) is not None:
        texts |= _example_captions(result, fore)
    return texts


def _two_curves(result: Result) -> str:
    """What the two lines of the growth curve are; the posterior mean never sees the correction."""
    if analysis_config(result).quantity.estimator == "posterior":
        return (
            "the mean posterior probability, which the correction does not touch, and in grey the plain count of the "
            "labels before the correction. Where they part, the labels are unsure. The pictures below show corrected "
            "labels, so their shares may differ from the curve."
        )
    return (
        "the estimate, and in grey the plain count of the labels before the spatio-temporal correction; the distance "
        "between them is what the correction did."
    )


def _example_captions(result: Result, fore: str) -> dict[str, tuple[str, str]]:
    quoted = example_text(result)
    return {
        "frames_labels": (
            "What was called foreground",
            f"Frames with the pixels classified as {fore} (after the correction) {quoted['mark']} in orange, and "
            f"their share of the frame; black to white spans grey levels {quoted['window']} in every frame. If the "
            "orange does not follow what you see, distrust everything below.",
        ),
        "subsampled": (
            f"The same frames from {quoted['rate']} of the pixels",
            f"Only the visited pixels are shown: orange if classified as {fore}, grey if not, black where nothing was "
            "measured.",
        ),
        "histogram": (
            "Grey levels and fitted components",
            f"Grey levels of {quoted['frame']} with the trend taken out (grey area), each fitted component with its "
            "mean ± standard deviation and its share of the pixels, and their sum (dashed), which should follow the "
            "grey area.",
        ),
        "trend": ("Intensity trend", _trend_caption(result, quoted["frame"])),
        "correction": ("Effect of the spatio-temporal correction", _correction_caption(result, fore, quoted)),
    }


def _trend_caption(result: Result, frame: str) -> str:
    if not analysis_config(result).mixture.terms:
        return "These settings have no trend (--trend none), so nothing was taken out."
    return (
        f"The slow intensity trend fitted to {frame}, in grey levels (contour lines; its level is arbitrary); it "
        "should be smooth and should not show the shape of the specimen. The outer panels share one grey window."
    )


def _correction_caption(result: Result, fore: str, quoted: dict[str, str]) -> str:
    added = ", white ones were added" if analysis_config(result).correction.sides == "both" else ""
    return (
        f"Labels of {quoted['detail']}{quoted['corrected']} over the dimmed frame: orange pixels stay {fore}, "
        f"blue ones were removed because too few of their neighbours agree{added}; good settings remove specks and "
        "leave real features. The numbers count pixels."
    )


def _sentence(text: str) -> Any:
    """Escaped text whose numbers keep their unit and whose options do not break across lines."""
    from markupsafe import Markup, escape

    escaped = str(escape(text)).replace(" %", "\u00a0%").replace(" µ", "\u00a0µ")
    return Markup(re.sub(r"(?<!\S)(--[a-z][a-z-]*)", r"<code>\1</code>", escaped))


def render(result: Result, pictures: dict[str, Path]) -> str:
    """The page as text; `pictures` maps figure names to PNG files, in the order of the page."""
    from jinja2 import Environment

    study = isinstance(result, StudyResult)
    texts = titles_and_captions(result)
    first = ("figure4", "bias_width", "growth")
    shown = [Picture(name, *texts[name], data_uri(path, smooth=name == "trend")) for name, path in pictures.items()]
    sentence, more = tables.headline(result)
    template = files(__package__).joinpath("template.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["sentence"] = _sentence
    return environment.from_string(template).render(
        study=study,
        movie=result.movie.name,
        headline=sentence,
        headline_more=more,
        cautions=cautions(result),
        status=tables.status_table(result),
        facts=tables.facts(result),
        settings=tables.settings(result),
        answer=[p for p in shown if p.name in first],
        evidence=[p for p in shown if p.name not in first],
        table1=tables.table1(result) if isinstance(result, StudyResult) else None,
        shape=tables.shape_table(result) if isinstance(result, StudyResult) else None,
        truth=isinstance(result, StudyResult) and result.truth is not None,
        provenance=tables.provenance_rows(result),
        command=result.provenance.get("command"),
        **_words(result),
    )


def _words(result: Result) -> dict[str, Any]:
    config = analysis_config(result)
    return {
        "foreground": foreground_name(result),
        "unit": unit_text(result),
        "rule": config.phases.phases,
        "seed": config.sampling.seed,
        "n_fits": _total_fits(result),
    }


def _total_fits(result: Result) -> str:
    if not isinstance(result, StudyResult):
        return f"{len(result.status):,}"
    return f"{sum(s.size for s in result.status.values()) + len(result.reference_status):,}"


__all__ = ["Picture", "data_uri", "render", "titles_and_captions"]
