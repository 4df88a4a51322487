"""`gmrm-gpu select`, and the word auto for --components and --trend."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from ..config import AnalysisConfig
from ..folders import new_folder
from ..frames import Movie
from ..output import check_extras, fill_selection
from ..results.selection import BIC_NOTE, COMPONENTS, TREND_LOCAL, ModelSelection
from ..selection import select_model
from . import console as say
from .console import Console
from .options import analysis_config
from .shared import inputs, note_device, open_given, out_folder, stem
from .values import AUTO


def run_select(args: argparse.Namespace, console: Console) -> None:
    """The table of models, the tests, and a recommendation."""
    config = analysis_config(args)
    check_extras(report=not args.no_report)
    movie = open_given(args)
    out = out_folder(args, f"{stem(args.movie)}_selection")
    with new_folder(out, overwrite=args.overwrite, inputs=inputs(args)) as folder:
        note_device(config, console)
        result = _chosen(movie, config, console, **_choices(args))
        result = replace(result, provenance={**result.provenance, "command": args.command_line})
        fill_selection(result, folder, picture=not args.no_report)
    print(selection_text(result))
    print(f"written: {out}")


def resolve_auto(
    args: argparse.Namespace, config: AnalysisConfig, movie: Movie, console: Console
) -> tuple[AnalysisConfig, dict[str, Any]]:
    """`config` with K and trend chosen where the flags say auto, and what provenance keeps of that; prints one line."""
    given = vars(args)
    auto_k, auto_trend = (given.get(f"mixture.{name}") == AUTO for name in ("n_components", "trend"))
    if not auto_k and not auto_trend:
        return config, {}
    choices: dict[str, Any] = {"n_bootstrap": 0}
    if not auto_k or config.phases.is_named:
        choices["components"] = (config.mixture.n_components,)
    if not auto_trend:
        choices["trends"] = (config.mixture.trend,)
    result = _chosen(movie, config, console, **choices)
    print(f"auto: K = {result.n_components}, trend {result.trend}. {result.reason}", flush=True)
    for caution in result.cautions:
        console.note(caution)
    names = ("n_components", "trend", "decided", "reason", "cautions", "frames", "n_samples")
    return result.apply(config), {"auto": {name: getattr(result, name) for name in names}}


def _chosen(movie: Movie, config: AnalysisConfig, console: Console, **choices: Any) -> ModelSelection:
    with console.progress("choosing the model", "fits") as progress:
        return select_model(movie, config, progress=progress, **choices)


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `select_model` from the flags that are given."""
    made = {
        "components": args.components,
        "trends": args.trends,
        "n_frames": args.n_frames,
        "max_samples": args.max_samples,
        "n_bootstrap": args.bootstrap,
    }
    return {name: value for name, value in made.items() if value is not None}


def selection_text(result: ModelSelection) -> str:
    """What the command prints."""
    height, width = result.shape
    frames = say.count(len(result.frames), "frame")
    rate = "" if result.rate >= 1 else f" drawn at {100 * result.rate:g} %"
    head = f"{result.movie}: {result.n_samples:,} pixels{rate} of {frames} of {height} x {width}"
    local = (
        "local: BIC that lets every part of the frame have weights of its own, by which K is chosen; "
        "halves: the same for each half of the movie by itself, by which the trend is chosen"
    )
    parts = [head, _table(result), local, f"note: {BIC_NOTE}"]
    if tests := _test_lines(result):
        parts += ["likelihood-ratio tests (small p: the larger model fits better than chance allows):", *tests]
    parts += [f"caution: {text}" for text in result.cautions]
    noun = "recommended" if result.decided else "not decided"
    parts.append(f"{noun}: --components {result.n_components} --trend {result.trend}")
    parts.append(f"because: {result.reason}")
    return "\n".join(parts)


def _table(result: ModelSelection) -> str:
    header = ("trend", "K", "parameters", "log-likelihood", "AIC", "BIC", "ICL", "local", "halves", "status", "")
    chosen = (result.trend, result.n_components)
    rows = [
        (
            row.trend,
            str(row.n_components),
            str(row.n_parameters),
            *(_one_decimal(v) for v in (row.log_likelihood, row.aic, row.bic, row.icl, row.bic_local, row.bic_halves)),
            row.status,
            "<- recommended" if (row.trend, row.n_components) == chosen else "",
        )
        for row in result.rows
    ]
    return "\n".join(line.rstrip() for line in say.table(header, rows).splitlines())


def _one_decimal(value: float) -> str:
    return f"{value:,.1f}" if np.isfinite(value) else "-"


def _test_lines(result: ModelSelection) -> list[str]:
    """One line a pair of trends at the recommended K, with both kinds of weights, and one a test for K."""
    lines: dict[str, list[str]] = {}
    for test in result.tests:
        ratio = f"{say.number(test.statistic)}, p = {test.p_value:.2g}"
        if test.kind == COMPONENTS:
            what = f"  K = {test.n_components} against {test.larger_n_components}: ratio"
            lines[what] = [f"{ratio} (bootstrap of {test.n_bootstrap})"]
        elif test.n_components == result.n_components:
            what = f"  trend {test.trend} against {test.larger_trend}: chi-square with {test.df} df:"
            lines.setdefault(what, []).append(ratio + (" (local)" if test.kind == TREND_LOCAL else ""))
    return [f"{what} {'; '.join(found)}" for what, found in lines.items()]
