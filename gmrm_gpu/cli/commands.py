"""What each command does: flags to settings, the work, files, and a few lines of result."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..backend import free_memory, make_backend
from ..config import AnalysisConfig, CorrectionConfig, StudyConfig
from ..errors import ConfigError, GmrmError, InputError, MissingDependencyError
from ..folders import SHARDS, new_folder, resumable_folder
from ..frames import ArrayMovie, Movie, open_labels, open_movie, save_movie
from ..output import check_extras, fill_analysis, fill_fit, fill_study, finished, load_study, renew_report, write_json
from ..pipeline import analyze
from ..results import AnalysisResult, FitStatus, StudyResult, fit_statuses, status_counts, trend_warning
from ..runner import Runner
from ..study import run_study
from ..synthetic import simulate
from ..trendcheck import check_trend
from ..visited import Visited
from . import console as say
from .console import Console
from .options import analysis_config, study_config
from .select import resolve_auto
from .shared import inputs, note, note_device, open_given, out_folder, stem, study_executor

LOOKED_AT = 200
"""Frames that `info` reads at most."""
QUICK = ((128, 128, 20), (20, 40, 200))
FULL_SIZE = (256, 256, 30)

FOREGROUND_LABEL = 2
"""Label of the foreground in --truth, unless --truth-value says otherwise; that of the synthetic movies."""

R = TypeVar("R", AnalysisResult, StudyResult)


def run_simulate(args: argparse.Namespace, console: Console) -> None:
    """A synthetic movie with its truth, as files."""
    _check_format(args.format)
    height, width, n_frames = args.size
    out = out_folder(args, f"{args.scenario}_simulation")
    with new_folder(out, overwrite=args.overwrite) as folder:
        simulation = simulate(
            args.scenario,
            shape=(height, width),
            n_frames=n_frames,
            seed=args.seed,
            bits=args.bits,
            difficulty=args.difficulty,
            pixel_size_um=args.pixel_size,
            frame_time_s=args.frame_time,
            **dict(_assignment(text) for text in args.set or ()),
        )
        movie = simulation.movie
        calibration = (movie.pixel_size_um, movie.frame_time_s)
        truth = ArrayMovie(simulation.truth, pixel_size_um=calibration[0], frame_time_s=calibration[1])
        save_movie(movie, folder / f"movie.{args.format}")
        save_movie(truth, folder / f"truth.{args.format}")
        described = {
            "scenario": simulation.scenario,
            "foreground_value": simulation.foreground_value,
            "pixel_size_um": calibration[0],
            "frame_time_s": calibration[1],
            "parameters": simulation.parameters,
            "truth_share": simulation.truth_share,
            "command": args.command_line,
        }
        write_json(folder / "simulation.json", described)
    share = simulation.truth_share
    print(f"{movie.name}: {say.count(len(movie), 'frame')} of {height} x {width}, {movie.dtype}")
    print(f"foreground (label {simulation.foreground_value}): up to {100 * share.max():.3g} % of the frame")
    for name in (f"movie.{args.format}", f"truth.{args.format}", "simulation.json"):
        print(f"written: {out / name}")


def _check_format(kind: str) -> None:
    try:
        check_extras(labels=kind == "tif")
    except MissingDependencyError as error:
        cure = str(error).partition(": ")[2]
        raise MissingDependencyError(f"movie.tif needs tifffile: {cure}, or give --format npy") from None


def run_info(args: argparse.Namespace, console: Console) -> None:
    """What a movie holds and what its analysis would take."""
    movie = open_given(args)
    config, _ = resolve_auto(args, analysis_config(args), movie, console)
    chosen = np.unique(np.linspace(0, len(movie) - 1, LOOKED_AT).round().astype(int))
    low, high, total, count, distinct = math.inf, -math.inf, 0.0, 0, 0
    with console.progress("reading", "frames") as progress:
        for done, t in enumerate(chosen, 1):
            values = movie.visits(int(t)).values
            if values.size == 0:
                continue
            low, high = min(low, values.min()), max(high, values.max())
            total, count = total + float(values.sum(dtype=np.float64)), count + values.size
            distinct = max(distinct, np.unique(values).size) if t in (chosen[0], chosen[-1]) else distinct
            if progress:
                progress(done, len(chosen))
    part = "" if len(chosen) == len(movie) else f" (from {len(chosen)} frames)"
    height, width = movie.shape
    size = config.quantity.pixel_size_um or movie.pixel_size_um
    interval = config.quantity.frame_time_s or movie.frame_time_s
    print(f"movie        {movie.name}")
    print(f"frames       {len(movie)} (numbers {movie.frame_numbers[0]} to {movie.frame_numbers[-1]})")
    print(f"size         {height} x {width} pixels (height x width), {height * width - movie.n_pixels:,} excluded")
    print(f"type         {movie.dtype}{_type_text(movie)}")
    if movie.sampled:
        print(f"visited      {say.visited_text(Visited.of(movie).shares)}")
    levels = f"{say.number(low)} to {say.number(high)}, mean {say.number(total / count)}"
    print(f"grey levels  {levels}, {distinct} distinct in one frame{part}")
    print(f"pixel size   {'unknown; give --pixel-size' if size is None else f'{size:g} um'}")
    print(f"frame time   {'unknown; give --frame-time' if interval is None else f'{interval:g} s'}")
    for text in movie.acquisition.sentences:
        print(f"note         {text}")
    _print_memory(movie, config)


def _type_text(movie: Movie) -> str:
    """Size, bit depth and detector, as far as they are known."""
    stored = len(movie) * movie.shape[0] * movie.shape[1] * movie.dtype.itemsize
    text = "" if movie.sampled else f", {stored / 1e6:,.1f} MB in all"
    known = movie.acquisition
    text += "" if known.bit_depth is None else f", {known.bit_depth} bits"
    return text + ("" if known.detector is None else f", detector {known.detector}")


def _print_memory(movie: Movie, config: AnalysisConfig) -> None:
    backend = make_backend(np, dtype=config.compute.dtype)
    labels = len(movie) * movie.shape[0] * movie.shape[1]
    print(f"memory       {free_memory(backend) / 1e6:,.0f} MB free, labels of all frames {labels / 1e6:,.1f} MB")
    try:
        runner = Runner(movie, config, backend)
        most = 1.0 if runner.visited is None else float(runner.visited.counts.min()) / movie.n_pixels
        rates = (1.0, *(rate for rate in StudyConfig().rates if rate <= most))
        needs = [(rate, runner.bytes_per_replicate(rate)) for rate in rates]
    except GmrmError as error:
        print(f"analysis     not with these settings: {error}")
        return
    for text in (runner.survey.outliers, runner.survey.zeros):
        if text is not None:
            print(f"caution      {text}")
    whole = "with every visit" if movie.sampled else "at 100 %"
    texts = [f"{n / 1e6:,.1f} MB {whole if rate == 1 else f'at {100 * rate:g} %'}" for rate, n in needs]
    print("one fit      " + ", ".join(texts))


def run_fit(args: argparse.Namespace, console: Console) -> None:
    """One frame: parameters, table, picture."""
    config = analysis_config(args)
    # A single frame has no past, so the correction could only report samples without neighbours.
    config = replace(config, correction=CorrectionConfig(radius=0)).with_rate(1.0).with_method("paper")
    check_extras(report=not args.no_report)
    whole = open_given(args)
    if not -len(whole) <= args.frame < len(whole):
        raise InputError(f"--frame {args.frame} does not exist; the movie has frames 0 to {len(whole) - 1}")
    movie = open_movie(whole, frames=[args.frame])
    out = out_folder(args, f"{stem(args.movie)}_fit")
    with new_folder(out, overwrite=args.overwrite, inputs=inputs(args)) as folder:
        note_device(config, console)
        config, chosen = resolve_auto(args, config, movie, console)
        result = _with_starts(_stamped(analyze(movie, config), args, **chosen), movie)
        _refuse_failure(result.status)
        fill_fit(result, folder)
        if not args.no_report:
            _draw_fit(result, movie, folder)
    print(say.fit_table(result))
    print(f"written: {out}")
    _note_result(console, result.status, result.provenance)
    _note_trend(console, result)


def _with_starts(result: AnalysisResult, movie: Movie) -> AnalysisResult:
    """With a warning where the starts of a few frames end in equally likely fits with other shares.

    The method ``movie`` fits no frame by itself, and so is not asked.
    """
    if result.config.method == "movie":
        return result
    check = check_trend(movie, result.config.resolved, n_frames=3)
    if check is None or check.warning is None:
        return result
    warnings = [*result.provenance["warnings"], check.warning]
    return replace(result, provenance={**result.provenance, "warnings": warnings})


def _draw_fit(result: AnalysisResult, movie: Movie, folder: Path) -> None:
    from ..report import save_figure
    from ..report.figures import frame_figure

    assert result.labels is not None
    phases = result.config.phases
    figure = frame_figure(
        movie.picture(0),
        result.fits[0],
        result.labels[0],
        result.foreground[0],
        phase_names=phases.names,
        pixel_size_um=result.movie.pixel_size_um,
        foreground_index=phases.foreground_index,
        component_phases=phases.component_names,
        valid=movie.valid,
    )
    save_figure(figure, folder / "fit")


def run_analyze(args: argparse.Namespace, console: Console) -> None:
    """One movie, or one sub-sampling of it."""
    config = analysis_config(args)
    check_extras(labels=True, report=not args.no_report)
    movie = open_given(args)
    out = out_folder(args, f"{stem(args.movie)}_analysis")
    with new_folder(out, overwrite=args.overwrite, inputs=inputs(args)) as folder:
        note_device(config, console)
        config, chosen = resolve_auto(args, config, movie, console)
        with console.progress("analysing", "frames") as progress:
            result = _stamped(analyze(movie, config, progress=progress), args, **chosen)
        _refuse_failure(result.status)
        result = _with_starts(result, movie)
        failure = fill_analysis(result, folder, report=not args.no_report)
    print(say.growth(result))
    _close_run(out, failure, args)
    _note_result(console, fit_statuses(result.status, whole=result.config.method == "movie"), result.provenance)
    _note_trend(console, result)
    note(console, say.calibration_note(result.scale, result.time_s, result.config))


def run_study_command(args: argparse.Namespace, console: Console) -> None:
    """Replicates at several rates."""
    config = study_config(args, analysis_config(args))
    if args.truth is None and args.truth_value is not None:
        raise ConfigError(f"--truth-value {args.truth_value} is a label of --truth; give that file too")
    check_extras(report=not args.no_report)
    movie = open_given(args)
    truth = None if args.truth is None else truth_share(args, movie, config.analysis)
    out = out_folder(args, f"{stem(args.movie)}_study")
    result = _study(args, console, movie, config, truth, out)
    note(console, say.calibration_note(result.scale, result.time_s, result.config.analysis))


def run_demo(args: argparse.Namespace, console: Console) -> None:
    """A synthetic movie through the whole study."""
    check_extras(report=not args.no_report)
    height, width, n_frames = args.size or (QUICK[0] if args.quick else FULL_SIZE)
    analysis = analysis_config(args, mixture__n_components=3, quantity__thickness_um=0.5)
    config = StudyConfig(analysis=analysis, n_replicates=QUICK[1]) if args.quick else StudyConfig(analysis=analysis)
    seed = analysis.sampling.seed
    # Li in every frame, as in the paper's movie: in a frame without, `brightest` calls any component Li.
    simulation = simulate(
        "battery", shape=(height, width), n_frames=n_frames, seed=seed, difficulty=args.difficulty, n_empty=0
    )
    counts = ", ".join(f"{n:,} at {100 * r:g} %" for n, r in zip(config.n_replicates, config.rates, strict=True))
    kind = "quick demo" if args.quick else "demo"
    text = f"{kind}: synthetic {height} x {width} x {n_frames} movie, replicates {counts}"
    if args.quick:
        full = " x ".join(str(n) for n in FULL_SIZE)
        text += f"; the full design is {full} and 100, 200 and 1,000 replicates, so these numbers are rough"
    print(text, flush=True)
    _study(args, console, simulation.movie, config, simulation.truth_share, out_folder(args, "gmrm_demo"), demo=text)


def _study(
    args: argparse.Namespace,
    console: Console,
    movie: Movie,
    config: StudyConfig,
    truth: np.ndarray | None,
    out: Path,
    **remarks: str,
) -> StudyResult:
    with (
        resumable_folder(out, resume=args.resume, overwrite=args.overwrite, inputs=inputs(args)) as folder,
        study_executor(args, console) as executor,
    ):
        if executor is None:
            note_device(config.analysis, console)
        analysis, chosen = resolve_auto(args, config.analysis, movie, console)
        config = replace(config, analysis=analysis)
        with console.progress("studying", "samples") as progress:
            result = run_study(movie, config, truth=truth, progress=progress, store=folder / SHARDS, executor=executor)
        result = _stamped(result, args, **remarks, **chosen)
        _refuse_failure(result.reference_status)
        failure = fill_study(result, folder, report=not args.no_report)
    print(say.table1(result))
    _close_run(out, failure, args)
    for part in result.every:
        every = [part.reference_status, *part.status.values()]
        found = [fit_statuses(status, whole=part.method == "movie").reshape(-1) for status in every]
        _note_result(console, np.concatenate(found), part.provenance)
    _note_trend(console, result)
    return result


def run_report(args: argparse.Namespace, console: Console) -> None:
    """Figures and page of a finished study, again."""
    result = load_study(args.folder)
    page = renew_report(result, args.folder)
    print(say.table1(result))
    print(f"report: {page}")


def truth_share(args: argparse.Namespace, movie: Movie, config: AnalysisConfig) -> np.ndarray:
    """(T,) true share of the foreground in the frames and pixels used, from the label stack of --truth.

    The stack has the size of the movie before or after --frames and --crop. For a volume of revolution the pixels
    are weighted as the analysis weights them.
    """
    labels = open_labels(args.truth)
    source = open_movie(args.movie, luminance=args.luminance)
    if labels.shape == (len(source), *source.shape):
        used = open_movie(labels, frames=args.frames, crop=args.crop)
    elif labels.shape == (len(movie), *movie.shape):
        used = open_movie(labels)
    else:
        raise InputError(
            f"--truth has {' x '.join(map(str, labels.shape))} (frames, height, width), the movie "
            f"{len(source)} x {source.shape[0]} x {source.shape[1]}; give one label per pixel of the movie"
        )
    value = FOREGROUND_LABEL if args.truth_value is None else args.truth_value
    if not (labels == value).any():
        found = ", ".join(str(n) for n in np.unique(labels)[:8])
        raise InputError(f"--truth has no label {value}, only {found}; give --truth-value")
    runner = Runner(movie, config)
    weights = np.ones(movie.shape)
    if runner.volume_weights is not None:
        weights = runner.backend.to_host(runner.volume_weights).reshape(movie.shape)
    valid = np.ones(movie.shape, bool) if movie.valid is None else movie.valid
    return np.array([((used.frame(t) == value) * weights)[valid].mean() for t in range(len(used))])


def _stamped(result: R, args: argparse.Namespace, **remarks: Any) -> R:
    return replace(result, provenance={**result.provenance, "command": args.command_line, **remarks})


def _refuse_failure(status: np.ndarray) -> None:
    """Raise where not one fit of the full movie gave a value: there is nothing to write."""
    if (np.asarray(status) >= FitStatus.DEGENERATE).all():
        counts = ", ".join(f"{n} {text}" for text, n in status_counts(status).items())
        raise InputError(
            f"no frame could be fitted ({counts}); use fewer --components, a simpler --trend, or look at info"
        )


def _close_run(out: Path, failure: str | None, args: argparse.Namespace) -> None:
    print(f"written: {finished(out, failure)}")
    if not args.no_report:
        print(f"report: {(out / 'report.html').resolve()}")


def _note_result(console: Console, status: np.ndarray, provenance: dict[str, Any]) -> None:
    """How the fits ended, and what the analysis itself warns of."""
    note(console, say.fit_note(status))
    for warning in provenance.get("warnings", ()):
        note(console, warning)


def _note_trend(console: Console, result: AnalysisResult | StudyResult) -> None:
    """Whether the trend may have taken up a phase; of a study, in its fully sampled example frames."""
    source = result if isinstance(result, AnalysisResult) else result.examples
    # Without a foreground spare components share a phase, and any trend is larger than what separates them.
    if source is not None and source.foreground.any():
        valid = None if result.examples is None else result.examples.valid
        note(console, trend_warning(source.fits, result.movie.shape, valid))


def _assignment(text: str) -> tuple[str, Any]:
    """``"feature_px=4"`` -> ("feature_px", 4); a value that is no number or list stays text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text!r} is not NAME=VALUE, such as feature_px=4")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
