"""The commands and their help."""

from __future__ import annotations

import argparse
from typing import Any

from .. import __version__
from ..config import parse_length_um, parse_time_s, parse_width
from . import options as o
from . import values as v
from .examples import EXAMPLES

_CALIBRATION = tuple(s for s in o.QUANTITY if s.flag in ("--pixel-size", "--frame-time"))
# The choices of the simulation, repeated so that --help need not load NumPy; a test compares them.
SCENARIOS = ("battery", "nanoparticles")
DIFFICULTIES = ("easy", "mid", "hard")

_ARGUMENTS = {
    "simulate": "[SCENARIO] ",
    "fit": "MOVIE --frame N ",
    "report": "FOLDER ",
    "status": "DIR ",
    "live": "SOURCE ",
    "plan": "[MOVIE] ",
    "bench": "[MOVIE] ",
    "manifest": "MOVIE ... ",
    **dict.fromkeys(("info", "select", "thin", "analyze", "study"), "MOVIE "),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `gmrm-gpu`; its commands carry ``run``, the place of the function that does them."""
    parser = o.Parser(
        prog="gmrm-gpu",
        description="Quantities straight from sub-sampled operando (S)TEM movies.",
        epilog="examples:\n  gmrm-gpu demo --quick\n  gmrm-gpu analyze movie.tif --components 3\n\n"
        "gmrm-gpu COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"gmrm-gpu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    first = (_simulate, _info, _select, _fit, _analyze, _study, _status, _plan, _thin, _manifest)
    for add in (*first, _live, _report, _demo, _bench, _doctor):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: str, summary: str, text: str) -> argparse.ArgumentParser:
    examples = "\n".join(f"  {line}" for line in EXAMPLES[name].splitlines())
    usage = f"gmrm-gpu {name} {_ARGUMENTS.get(name, '')}[options]"
    parser = commands.add_parser(name, usage=usage, help=summary, description=text, epilog=f"examples:\n{examples}")
    o.add_common(parser)
    parser.set_defaults(run=run)
    return parser


def _simulate(commands: Any) -> None:
    parser = _command(
        commands,
        "simulate",
        ".commands:run_simulate",
        "make a synthetic movie with known truth",
        "Make a synthetic operando movie. Writes the movie, truth (0 electrolyte or background, 1 electrode,\n"
        "2 Li or particle) and simulation.json, which says how it was made.",
    )
    parser.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        choices=SCENARIOS,
        default=SCENARIOS[0],
        help="battery (default) or nanoparticles",
    )
    add = parser.add_argument
    add("--size", type=v.size, default=(256, 256, 60), metavar="HxWxT", help="height, width, frames (256x256x60)")
    add("--difficulty", choices=DIFFICULTIES, default="easy", help="separation of the phases (default easy)")
    add("--bits", type=int, choices=(8, 16), default=8, help="of a grey level (default 8)")
    add("--seed", type=v.whole, default=0, metavar="N", help="the same seed gives the same movie (default 0)")
    add("--format", choices=("tif", "npy"), default="tif", help="tif keeps the calibration (default tif)")
    length, time = v.quoted(parse_length_um), v.quoted(parse_time_s)
    add("--pixel-size", type=length, default=0.01, metavar="10nm", help="written into the file (default 10nm)")
    add("--frame-time", type=time, default=0.5, metavar="0.5s", help="written into the file (default 0.5s)")
    add("--set", action="append", metavar="NAME=VALUE", help="any other option of the scenario, such as n_empty=10")
    o.add_output(parser, "SCENARIO_simulation", report=False)


def _info(commands: Any) -> None:
    parser = _command(
        commands,
        "info",
        ".commands:run_info",
        "what a movie holds",
        "Show the frames, size, type, grey levels and calibration of a movie, and the memory an analysis takes.",
    )
    o.add_movie(parser)
    o.add_config(parser)
    o.add_settings(parser, "settings", (*o.MODEL[:2], *_CALIBRATION, o.COMPUTE[1]))


def _select(commands: Any) -> None:
    parser = _command(
        commands,
        "select",
        ".select:run_select",
        "how many components, which trend",
        "Compare models on a few thousand pixels spread over the movie. Prints the table, tests and a recommendation;\n"
        "writes selection.json, selection.csv and selection.png. analyze, study and fit take --components auto and\n"
        "--trend auto, which do the same without the tests.",
    )
    o.add_movie(parser)
    group = parser.add_argument_group("what is compared")
    add = group.add_argument
    add("--components", type=v.numbers(int), metavar="K,K", help="numbers of components (default 1,2,3,4,5,6)")
    add(
        "--trend",
        action="append",
        dest="trends",
        metavar="TREND",
        help="a trend; may be repeated (default all presets)",
    )
    add("--n-frames", type=v.whole, metavar="N", help="frames looked at (default 8)")
    add("--max-samples", type=v.whole, metavar="N", help="pixels in all (default 4000)")
    add("--bootstrap", type=v.whole, metavar="B", help="draws of the test for K; 0: no test (default 199)")
    o.add_config(parser)
    rate = o.Setting("--rate", "sampling", "rate", "share of the pixels that may be looked at", v.real, metavar="R")
    o.add_settings(parser, "sampling", (rate, *o.SAMPLING, o.SEED))
    o.add_settings(parser, "computing", o.COMPUTE)
    o.add_output(parser, "MOVIE_selection")


def _fit(commands: Any) -> None:
    parser = _command(
        commands,
        "fit",
        ".commands:run_fit",
        "fit one frame: table and picture",
        "Fit one full frame. Prints the parameters; writes fit.json, fits.csv and fit.png. Try this first, to\n"
        "choose components, trend and phases.",
    )
    o.add_movie(parser, frames=False)
    parser.add_argument("--frame", type=v.whole, default=0, metavar="N", help="frame number, from 0 (default 0)")
    o.add_config(parser)
    o.add_settings(parser, "model", o.MODEL)
    o.add_settings(parser, "phases", o.PHASES)
    o.add_settings(parser, "other settings", (o.SEED, *_CALIBRATION, *o.COMPUTE))
    o.add_output(parser, "MOVIE_fit")


def _analyze(commands: Any) -> None:
    parser = _command(
        commands,
        "analyze",
        ".commands:run_analyze",
        "growth curve of a movie, or of one sub-sampling of it",
        "Fit, classify, correct and quantify every frame. Writes growth.csv, fits.csv, labels.tif, analysis.json,\n"
        "figures/ and report.html.",
    )
    o.add_movie(parser)
    rate = o.Setting("--rate", "sampling", "rate", "share of the pixels that is looked at", v.real, metavar="R")
    _all_settings(parser, (rate, *o.SAMPLING, o.SEED))
    o.add_method(parser)
    o.add_output(parser, "MOVIE_analysis")


def _study(commands: Any) -> None:
    parser = _command(
        commands,
        "study",
        ".commands:run_study_command",
        "replicates at several sampling rates: Table 1 and Figure 4",
        "Sub-sample a movie many times at several rates and compare with all pixels. Writes study.json,\n"
        "replicates.npz, curves.csv, table1.csv, examples.npz, shards/, figures/ and report.html.\n\n"
        "What is done is kept in DIR.part until all is: a study that was killed goes on with --resume.",
    )
    o.add_movie(parser)
    group = parser.add_argument_group("design")
    add = group.add_argument
    add("--rates", type=v.numbers(float), metavar="R,R", help="sampling rates (default 0.1,0.05,0.01)")
    add("--replicates", type=v.numbers(int), metavar="B,B", help="per rate (default 10 / rate: 100,200,1000)")
    add("--truth", metavar="LABELS", help="stack of true labels, of the size of the movie")
    add("--truth-value", type=v.whole, metavar="N", help="label of the foreground in it (default 2)")
    _all_settings(parser, (*o.SAMPLING, o.SEED))
    o.add_method(parser, both=True)
    add = parser.add_argument_group("several processes or machines (extra cluster)").add_argument
    add("--workers", type=v.whole, metavar="N", help="share the work among N processes of this machine")
    add("--scheduler", metavar="ADDRESS", help="send it to a Dask cluster, such as tcp://host:8786")
    o.add_output(parser, "MOVIE_study", resume=True)


def _status(commands: Any) -> None:
    parser = _command(
        commands,
        "status",
        ".status:run_status",
        "how far a study is, from another terminal",
        "Show how much of a study is done, who works on it, and when it will be finished.",
    )
    parser.add_argument("folder", metavar="DIR", help="what study was given as --out; it may be unfinished")
    parser.add_argument("--follow", action="store_true", help="go on showing it until the study ends")
    parser.add_argument("--check", action="store_true", help="read every shard and compare its check sum")


def _plan(commands: Any) -> None:
    parser = _command(
        commands,
        "plan",
        ".plan:run_plan",
        "the sampling rate that a wanted width of the interval needs",
        "Analyse sub-samplings of a fully or well sampled movie, or of a synthetic one with the phases you expect, at\n"
        "rising rates. Prints how wide the interval of one sub-sampled movie is, and the smallest rate that reaches\n"
        "--width, with the dose saved. Writes plan.json, plan.csv and plan.png.",
    )
    o.add_movie(parser, optional=True)
    add = parser.add_argument_group("design").add_argument
    width = v.quoted(lambda text: parse_width(text) and text)
    add("--width", type=width, metavar="W", help="wanted, mean over frames: 0.5um3, 0.2um2, 500px, 1%% or 0.01")
    add("--rates", type=v.numbers(float), metavar="R,R", help="tried (default 0.005,0.01,0.02,0.05,0.1,0.2,0.5)")
    add("--schemes", type=v.words, metavar="A,B", help="tried (default fixed,stratified)")
    add("--draws", type=v.whole, metavar="N", help="sub-samplings at each rate (default 2)")
    add = parser.add_argument_group("in place of MOVIE").add_argument
    levels = "expected grey levels: background,particle or electrode,electrolyte,Li; --components is then 2 or 3"
    add("--expect", type=v.numbers(float), metavar="G,G,G", help=levels)
    add("--sigmas", type=v.numbers(float), metavar="S,S,S", help="their standard deviations")
    add("--size", type=v.size, metavar="HxWxT", help="height, width, frames (default 256x256x60)")
    add("--peak", type=v.real, metavar="P", help="share of the frame that the last phase covers at most")
    _all_settings(parser, (*o.SAMPLING[1:], o.SEED))
    o.add_output(parser, "MOVIE_plan")


def _live(commands: Any) -> None:
    parser = _command(
        commands,
        "live",
        ".live:run_live_command",
        "analyse frames while they are recorded, with a page to watch",
        "Analyse every frame as it comes, from itself and those before, and show it on a page that only this computer\n"
        "can open. Everything is on the disk at once, in OUT.live; when the stream ends, or at Ctrl-C, the files that\n"
        "analyze writes are written into OUT, with alarms.csv and notices.txt.",
    )
    kinds = "a folder that images are written into; zmq, zmq:PORT or zmq-sub:ADDRESS; a movie file; or simulation"
    o.add_movie(parser, frames=False, optional=True, name="SOURCE", kinds=kinds)
    add = parser.add_argument_group("the run").add_argument
    add(
        "--simulate", type=v.frame_rate, metavar="25fps", help="play a movie at this rate (default: as fast as it goes)"
    )
    add("--size", type=v.frame_size, metavar="HxW", help="of the simulation (default 256x256)")
    add("--new-only", action="store_true", help="leave out the files that are in the folder already")
    add("--frames", type=v.whole, metavar="N", help="stop after so many frames (default: at the end, or at Ctrl-C)")
    add("--idle", type=v.quoted(parse_time_s), metavar="60s", help="stop where no frame comes for so long")
    add("--port", type=v.whole, default=0, metavar="N", help="of the page (default: any that is free)")
    add("--no-page", action="store_true", help="no page")
    add(
        "--resume", metavar="FOLDER", help="go on with the unfinished run in FOLDER; --frames 0 only writes its results"
    )
    rate = o.Setting("--rate", "sampling", "rate", "share of the pixels that is looked at", v.real, metavar="R")
    _all_settings(parser, (rate, *o.SAMPLING, o.SEED))
    o.add_output(parser, "SOURCE_live")


def _all_settings(parser: argparse.ArgumentParser, sampling: tuple[o.Setting, ...]) -> None:
    o.add_config(parser)
    o.add_settings(parser, "model", o.MODEL)
    o.add_settings(parser, "phases", o.PHASES)
    o.add_settings(parser, "spatio-temporal correction", o.CORRECTION)
    o.add_settings(parser, "sampling", sampling)
    o.add_settings(parser, "quantity and calibration", o.QUANTITY)
    o.add_settings(parser, "computing", o.COMPUTE)


def _thin(commands: Any) -> None:
    parser = _command(
        commands,
        "thin",
        ".thin:run_thin",
        "keep only some pixels of a movie, in a small file",
        "Write the pixels that analyze looks at with the same --rate, --scheme and --seed to one .npz file, which\n"
        "every command reads as a sub-sampled movie. Without --rate all visits of a sub-sampled movie are written.",
    )
    o.add_movie(parser)
    rate = o.Setting("--rate", "sampling", "rate", "share of the pixels that is kept", v.real, metavar="R")
    o.add_settings(parser, "sampling", (rate, *o.SAMPLING, o.SEED))
    group = parser.add_argument_group("output")
    group.add_argument("--out", metavar="FILE", help="file to write (default MOVIE_thin.npz, in the current folder)")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def _manifest(commands: Any) -> None:
    parser = _command(
        commands,
        "manifest",
        ".manifest:run_manifest",
        "check sums of a movie, so that damage to it is found",
        "Write the SHA-256 of every file of a movie, a mask or a truth into MOVIE.sha256 beside it. Every command\n"
        "then refuses the movie if a file differs, is missing or is one too many. sha256sum -c reads the list too.",
    )
    parser.add_argument("movies", nargs="+", metavar="MOVIE", help="files or folders; of a folder all files are listed")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the list that is there")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier list")


def _report(commands: Any) -> None:
    parser = _command(
        commands,
        "report",
        ".commands:run_report",
        "draw the report of a finished study again",
        "Draw figures/ and report.html of a finished study again, from its numbers.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="what study or demo wrote")


def _demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        ".commands:run_demo",
        "the whole study on a synthetic movie",
        "Make a synthetic 256 x 256 x 30 battery movie, study it with 100, 200 and 1,000 replicates at 10, 5 and\n"
        "1 %, and write the report. Takes about two minutes on two cores; --quick a few seconds.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="128 x 128 x 20 and a fifth of the replicates")
    add("--size", type=v.size, metavar="HxWxT", help="height, width, frames (default 256x256x30)")
    add("--difficulty", choices=DIFFICULTIES, default="easy", help="separation of the phases (default easy)")
    o.add_settings(parser, "settings", (o.SEED, *o.COMPUTE))
    o.add_output(parser, "gmrm_demo", resume=True)


def _bench(commands: Any) -> None:
    parser = _command(
        commands,
        "bench",
        ".bench:run_bench",
        "how fast this machine is, CPU and GPU, and how long a study takes",
        "Time every engine of this machine at each rate on a few frames of a movie, by default of a synthetic one of\n"
        "512 x 512 x 300, and extrapolate to the whole study. Takes about a minute. Prints fits and pixels a second\n"
        "and the gain over the CPU; with --out writes bench.json, bench.png and bench.svg.",
    )
    o.add_movie(parser, optional=True)
    group = parser.add_argument_group("design")
    add = group.add_argument
    add("--size", type=v.size, metavar="HxWxT", help="without MOVIE: height, width, frames (default 512x512x300)")
    add("--rates", type=v.numbers(float), metavar="R,R", help="of the study (default 0.1,0.05,0.01)")
    add("--replicates", type=v.numbers(int), metavar="B,B", help="of the study (default 10 / rate: 100,200,1000)")
    add("--seconds", type=v.real, metavar="S", help="that the measurements take, roughly (default 60)")
    add("--quick", action="store_true", help="10 seconds instead: rougher numbers")
    o.add_config(parser)
    o.add_settings(parser, "model", o.MODEL)
    o.add_settings(parser, "spatio-temporal correction", o.CORRECTION)
    o.add_settings(parser, "other settings", (*o.SAMPLING, o.SEED, *o.COMPUTE[:4]))
    o.add_method(parser, both=True)
    group = parser.add_argument_group("output")
    group.add_argument("--out", metavar="DIR", help="folder to write (default: nothing is written)")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier output folder")
    group.add_argument("--no-report", action="store_true", help="numbers only: no picture")


def _doctor(commands: Any) -> None:
    _command(
        commands,
        "doctor",
        ".doctor:run_doctor",
        "versions, devices, and why there is no GPU",
        "Show versions, cores, memory and devices, why no GPU is used, and how to install what is missing. On each GPU "
        "a kernel is compiled and run.",
    )
