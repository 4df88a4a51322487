"""`gmrm-gpu bench`: how fast this machine is, and how long a study of the user's movie would take on it."""

from __future__ import annotations

import argparse
import math

from ..config import AnalysisConfig
from ..errors import ConfigError
from ..folders import new_folder
from ..frames import Movie
from ..output import check_extras, fill_bench
from ..results.throughput import ALL_PIXELS, EngineSpec, Speed, Throughput, duration_text
from ..synthetic import simulate
from ..throughput import MOST_FRAMES, measure_throughput
from . import console as say
from .console import Console
from .options import analysis_config, study_config
from .shared import inputs, open_given, out_folder

PAPER_SIZE = (512, 512, 300)
"""Height, width and frames where no movie is given: the paper's."""
SECONDS, QUICK_SECONDS = 60.0, 10.0


def run_bench(args: argparse.Namespace, console: Console) -> None:
    """The table of speeds, and the time of a study."""
    writes = args.out is not None
    check_extras(report=writes and not args.no_report)
    # A synthetic movie has three phases; what a fit of four does there says nothing of a real one.
    defaults = {"mixture__n_components": 3} if args.movie is None else {}
    config = study_config(args, analysis_config(args, **defaults))
    seconds = args.seconds if args.seconds is not None else QUICK_SECONDS if args.quick else SECONDS
    if not math.isfinite(seconds) or seconds <= 0:
        raise ConfigError(f"--seconds is {seconds:g}; it must be above 0")
    movie, n_frames = _subject(args, config.analysis)
    with console.progress("measuring", "measurements") as progress:
        result = measure_throughput(movie, config, n_frames=n_frames, seconds=seconds, progress=progress)
    if writes:
        out = out_folder(args, "")
        with new_folder(out, overwrite=args.overwrite, inputs=inputs(args)) as folder:
            fill_bench(result, folder, command=args.command_line, picture=not args.no_report)
    print(bench_text(result))
    if writes:
        print(f"written: {out}")


def _subject(args: argparse.Namespace, analysis: AnalysisConfig) -> tuple[Movie, int]:
    """The movie of the flags, recorded or made up, and the frames that a study of it would have."""
    if args.movie is not None:
        if args.size is not None:
            raise ConfigError("--size takes the place of MOVIE; give one of them")
        movie = open_given(args)
        return movie, len(movie)
    for name in ("frames", "crop", "exclude", "clip", "luminance"):
        if getattr(args, name):
            raise ConfigError(f"--{name} is about reading MOVIE, and none was given")
    height, width, n_frames = args.size or PAPER_SIZE
    shown = min(n_frames, MOST_FRAMES)
    seed = analysis.sampling.seed
    return simulate("battery", shape=(height, width), n_frames=shown, seed=seed, n_empty=0).movie, n_frames


def bench_text(result: Throughput) -> str:
    """What the command prints."""
    height, width = result.shape
    lines = [
        f"{result.movie}: {say.count(result.n_frames, 'frame')} of {height} x {width}, {result.dtype}; measured on "
        f"{result.n_measured} of them at most, from frames in memory to shares"
    ]
    lines += [f"{engine.label}: {engine.device}, {engine.library}" for engine in result.engines]
    lines.append(_table(result))
    lines.append(_study_lines(result))
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines)


def _table(result: Throughput) -> str:
    header = ("method", "rate", "pixels a frame", "engine", "fits/s", "pixels/s", "times the CPU", "measured on")
    rows = [
        _row(result, engine, speed)
        for method in result.methods
        for rate in (*result.rates, ALL_PIXELS)
        for engine in result.engines
        if (speed := result.find(engine.key, method, rate)) is not None
    ]
    return say.table(header, rows) if rows else "nothing could be measured"


def _row(result: Throughput, engine: EngineSpec, speed: Speed) -> tuple[str, ...]:
    ratio = result.speed_up(speed)
    return (
        speed.method,
        f"{100 * speed.rate:g} %",
        f"{speed.n_pixels:,}",
        engine.label,
        say.number(speed.fits_per_s),
        f"{speed.pixels_per_s:.3g}",
        "-" if engine.key == result.cpu or not math.isfinite(ratio) else f"{ratio:.3g}",
        f"{speed.n_replicates} x {say.count(speed.n_frames, 'frame')}, {speed.seconds:.2g} s",
    )


def _study_lines(result: Throughput) -> str:
    """The time of the whole study on each engine, extrapolated, and from what."""
    numbers = {(part.method, part.rate): part.n_replicates for part in result.study}
    designs = [
        f"{method}: "
        + ", ".join(f"{numbers[method, rate]:,} at {100 * rate:g} %" for rate in result.rates)
        + ", all pixels once"
        for method in result.methods
    ]
    lines = [
        f"the whole study of {say.count(result.n_frames, 'frame')} ({'; '.join(designs)}), extrapolated from these:"
    ]
    for engine in result.engines:
        time = result.study_time(engine.key)
        if time is None:
            lines.append(f"  {engine.label}: not known")
            continue
        text = f"  {engine.label}: {duration_text(time.seconds)}"
        if time.guessed:
            parts = ", ".join(f"{method} at {100 * rate:g} %" for method, rate in time.guessed)
            text += f" ({parts} not measured: in proportion to the pixels)"
        lines.append(text)
    return "\n".join(lines)
