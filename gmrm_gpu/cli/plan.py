"""`gmrm-gpu plan`: which sampling rate makes the interval as narrow as wanted."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ..config import AnalysisConfig
from ..errors import ConfigError
from ..folders import new_folder
from ..frames import Movie
from ..output import check_extras, fill_plan
from ..planning import plan_sampling
from ..results import UNIT_TEXT
from ..results.planning import INTERVAL_NOTE, PlanRow, SamplingPlan
from ..synthetic.expected import ExpectedPhases
from . import console as say
from .console import Console
from .options import analysis_config
from .select import resolve_auto
from .shared import inputs, note_device, open_given, out_folder, stem


def run_plan(args: argparse.Namespace, console: Console) -> None:
    """The table of widths, and a rate."""
    check_extras(report=not args.no_report)
    movie, config = _subject(args)
    out = out_folder(args, "expected_plan" if args.movie is None else f"{stem(args.movie)}_plan")
    with new_folder(out, overwrite=args.overwrite, inputs=inputs(args)) as folder:
        note_device(config, console)
        config, chosen = resolve_auto(args, config, movie, console)
        with console.progress("planning", "samples") as progress:
            result = plan_sampling(movie, config, progress=progress, **_choices(args))
        result = replace(result, provenance={**result.provenance, "command": args.command_line, **chosen})
        fill_plan(result, folder, picture=not args.no_report)
    print(plan_text(result))
    print(f"written: {out}")
    for text in result.provenance["warnings"]:
        console.note(text)


def _subject(args: argparse.Namespace) -> tuple[Movie, AnalysisConfig]:
    """The movie of the flags, recorded or made up, and the settings."""
    if (args.movie is None) == (args.expect is None):
        raise ConfigError("give either MOVIE or --expect and --sigmas")
    if args.movie is not None:
        for name in ("sigmas", "size", "peak"):
            if getattr(args, name) is not None:
                raise ConfigError(f"--{name} belongs to --expect, which takes the place of MOVIE")
        return open_given(args), analysis_config(args)
    for name in ("frames", "crop", "exclude", "clip", "luminance"):
        if getattr(args, name):
            raise ConfigError(f"--{name} is about reading MOVIE, but --expect takes its place")
    if args.sigmas is None:
        raise ConfigError("--expect needs --sigmas, one standard deviation for each grey level")
    height, width, n_frames = args.size or (256, 256, 60)
    expected = ExpectedPhases(args.expect, args.sigmas, (height, width), n_frames, args.peak)
    defaults = {"mixture__n_components": len(args.expect), "phases__polarity": expected.polarity}
    return expected.movie(), analysis_config(args, **defaults)


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `plan_sampling` from the flags that are given."""
    made = {"width": args.width, "rates": args.rates, "schemes": args.schemes, "n_draws": args.draws}
    return {name: value for name, value in made.items() if value is not None}


def plan_text(result: SamplingPlan) -> str:
    """What the command prints."""
    height, width = result.shape
    head = (
        f"{result.movie}: {say.count(result.n_frames, 'frame')} of {height} x {width}; width of the "
        f"{100 * result.interval:g} % interval of one sub-sampled movie (estimator {result.estimator}), mean over "
        f"frames, in {_unit(result)}"
    )
    parts = [head, _table(result), f"note: {INTERVAL_NOTE}"]
    parts += [f"caution: {text}" for text in result.cautions]
    best = result.recommended
    if best is not None:
        parts.append(f"recommended: --rate {best.rate:g} --scheme {best.scheme}")
    if result.wanted is not None:
        parts.append(f"because: {result.reason}" if best else f"nothing recommended: {result.reason}")
    return "\n".join(parts)


def _unit(result: SamplingPlan) -> str:
    return result.unit if result.unit in UNIT_TEXT else "shares of the frame"


def _table(result: SamplingPlan) -> str:
    header = ("scheme", "rate", "pixels a frame", "width", "dose", "dose saved", "")
    rows = [
        (
            row.scheme,
            f"{100 * row.rate:.3g} %",
            f"{row.n_samples:,.0f}",
            say.number(row.width),
            row.dose_text,
            f"{100 * row.dose_saved:.4g} %",
            _remark(row, result),
        )
        for row in result.rows
    ]
    return "\n".join(line.rstrip() for line in say.table(header, rows).splitlines())


def _remark(row: PlanRow, result: SamplingPlan) -> str:
    if not row.reliable:
        return "not to be trusted"
    return "<- recommended" if row == result.recommended else "enough" if row in result.answers else ""
