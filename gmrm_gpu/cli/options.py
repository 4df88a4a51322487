"""Flags, and from flags and a settings file to a configuration. A flag that is not given leaves the file's value."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..config import (
    DTYPES,
    ENGINES,
    ESTIMATORS,
    GEOMETRIES,
    METHODS,
    METRICS,
    POLARITIES,
    SCHEDULES,
    SCHEMES,
    SIDES,
    STARTS,
    TREND_PRESETS,
    WINDOWS,
    AnalysisConfig,
    StudyConfig,
    analysis_config_from_json,
    analysis_from_dict,
    config_to_dict,
    load_toml,
    parse_bytes,
    parse_length_um,
    parse_time_s,
)
from ..errors import printable
from .values import AUTO, quoted, real, whole, whole_or_auto, words

SAMPLES_PER_RATE = 10
"""Replicates x rate of the paper's design: 100 at 10 %, 200 at 5 %, 1,000 at 1 %."""


class Parser(argparse.ArgumentParser):
    """Complains in one line, and takes no abbreviated flags: a script must not change meaning with a new option."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2."""
        line = printable(" ".join(message.split()))
        if line.endswith("expected one argument"):
            line += "; before a value that starts with a minus write --option=-1"
        self.exit(2, f"gmrm-gpu: error: {line} (see {self.prog} --help)\n")


@dataclass(frozen=True)
class Setting:
    """A flag for one field of one section of `AnalysisConfig`."""

    flag: str
    section: str
    name: str
    help: str
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    metavar: str | None = None

    def add(self, group: Any) -> None:
        """Add the flag; its help ends with the default."""
        default = getattr(getattr(AnalysisConfig(), self.section), self.name)
        shown = {False: "off", True: "on"}[default] if isinstance(default, bool) else default
        shown = ",".join(default) if isinstance(default, tuple) else shown
        text = self.help if default is None else f"{self.help} (default {shown})"
        more: dict[str, Any] = {"metavar": self.metavar, "type": self.type}
        if self.choices:
            more = {"choices": self.choices}
        elif isinstance(default, bool):
            more = {"action": argparse.BooleanOptionalAction}
        dest = f"{self.section}.{self.name}"
        group.add_argument(self.flag, dest=dest, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **more)


MODEL = (
    Setting(
        "--components",
        "mixture",
        "n_components",
        "K, Gaussian components, 1 to 6, or auto: what select recommends",
        whole_or_auto,
        metavar="K",
    ),
    Setting(
        "--trend",
        "mixture",
        "trend",
        f"{', '.join(TREND_PRESETS)}, monomials such as x,y,x2y, or auto",
        metavar="TREND",
    ),
    Setting(
        "--trend-prior", "mixture", "trend_prior", "prior sd of its terms, grey levels; 0.2 is stiff", real, metavar="G"
    ),
    Setting("--schedule", "mixture", "schedule", "fast, or the plain ECM; both end at the same fit", choices=SCHEDULES),
    Setting(
        "--histogram",
        "mixture",
        "histogram",
        "fast schedule, method paper: components settle on a histogram of residuals; the same fit, for large frames",
    ),
    Setting("--starts", "mixture", "starts", f"starts tried, some of {', '.join(STARTS)}", words, metavar="A,B"),
    Setting("--tol", "mixture", "tol", "gain per sample at which a fit has converged", real, metavar="TOL"),
    Setting(
        "--drift",
        "mixture",
        "drift",
        "how far single frames' trend, offset and contrast may drift (method movie); 0: not at all",
        real,
        metavar="S",
    ),
    Setting("--max-iter", "mixture", "max_iter", "passes before a fit is given up", whole, metavar="N"),
)
PHASES = (
    Setting(
        "--phases",
        "phases",
        "phases",
        "auto, brightest, darkest, separated, or a name per component from dark to bright: anode,electrolyte,li "
        "(default auto; with --method paper: brightest)",
        metavar="RULE",
    ),
    Setting("--foreground", "phases", "foreground", "with names: which one is measured; else the last", metavar="NAME"),
    Setting("--contrast", "phases", "contrast", "separated: foreground is beyond C sigma", real, metavar="C"),
    Setting("--polarity", "phases", "polarity", "auto and separated: on which side", choices=POLARITIES),
)
CORRECTION = (
    Setting("--metric", "correction", "metric", "ball of the neighbours", choices=METRICS),
    Setting(
        "--radius",
        "correction",
        "radius",
        "its radius in pixels; 0: no correction (default 0; with --method paper: 10)",
        real,
        metavar="R",
    ),
    Setting("--gamma", "correction", "gamma", "share of foreground neighbours a pixel needs", real, metavar="G"),
    Setting("--window", "correction", "window", "frames that neighbours come from", choices=WINDOWS),
    Setting("--sides", "correction", "sides", "which pixels may change", choices=SIDES),
    Setting("--time-scale", "correction", "time_scale", "pixels that one frame counts as", real, metavar="S"),
)
SAMPLING = (
    Setting("--scheme", "sampling", "scheme", "how pixels are drawn", choices=SCHEMES),
    Setting("--line-length", "sampling", "line_length", "pixels per segment of the scheme lines", whole, metavar="N"),
)
SEED = Setting("--seed", "sampling", "seed", "the same seed gives the same numbers", whole, metavar="N")
QUANTITY = (
    Setting(
        "--estimator",
        "quantity",
        "estimator",
        "what share is reported (default: smoothed; with --method paper: count)",
        choices=ESTIMATORS,
    ),
    Setting("--interval", "quantity", "interval", "part of the cases the interval should hold", real, metavar="P"),
    Setting(
        "--pixel-size",
        "quantity",
        "pixel_size_um",
        "side of a pixel, such as 5nm; else the file's",
        quoted(parse_length_um),
        metavar="5nm",
    ),
    Setting(
        "--thickness",
        "quantity",
        "thickness_um",
        "specimen thickness, such as 0.5um, for volumes",
        quoted(parse_length_um),
        metavar="0.5um",
    ),
    Setting(
        "--frame-time",
        "quantity",
        "frame_time_s",
        "time per frame, such as 0.5s; else the file's",
        quoted(parse_time_s),
        metavar="0.5s",
    ),
    Setting("--geometry", "quantity", "geometry", "area x thickness, or solid of revolution", choices=GEOMETRIES),
    Setting("--axis", "quantity", "axis", "revolution: x=COLUMN or y=ROW, in pixels", metavar="AXIS"),
    Setting("--wedge-fraction", "quantity", "wedge_fraction", "revolution: part of the full turn", real, metavar="F"),
)
COMPUTE = (
    Setting("--device", "compute", "device", "auto, cpu, gpu, or gpu:1", metavar="DEVICE"),
    Setting("--dtype", "compute", "dtype", "precision of the fit; sums are float64", choices=DTYPES),
    Setting(
        "--memory",
        "compute",
        "memory_bytes",
        "memory to use at most, such as 2GB; else half of what is free",
        quoted(parse_bytes),
        metavar="2GB",
    ),
    Setting("--threads", "compute", "n_threads", "threads; else one per core", whole, metavar="N"),
    Setting(
        "--engine",
        "compute",
        "engine",
        "fused CUDA kernels, compiled CPU functions, or array operations",
        choices=ENGINES,
    ),
)


def add_settings(parser: argparse.ArgumentParser, title: str, settings: Iterable[Setting]) -> None:
    """A titled group of settings in the help."""
    group = parser.add_argument_group(title)
    for setting in settings:
        setting.add(group)


MOVIE_KINDS = ".npy .npz .tif .avi .mp4 .gif, or a folder of images"


def add_movie(
    parser: argparse.ArgumentParser,
    *,
    frames: bool = True,
    optional: bool = False,
    name: str = "MOVIE",
    kinds: str = MOVIE_KINDS,
) -> None:
    """The movie and what is read of it; `name` and `kinds` where it may be something else too."""
    parser.add_argument("movie", metavar=name, nargs="?" if optional else None, help=kinds)
    group = parser.add_argument_group("reading the movie")
    if frames:
        group.add_argument("--frames", metavar="A:B:STEP", help="frames to use, such as 10:200:2 (default all)")
    group.add_argument("--crop", metavar="Y0:Y1,X0:X1", help="pixels to use (default all)")
    group.add_argument("--exclude", metavar="MASK", help="image whose nonzero pixels are not used (labels, scale bar)")
    group.add_argument("--clip", metavar="LOW,HIGH", help="set grey levels beyond to these (hot and dead pixels)")
    group.add_argument("--luminance", action="store_true", help="turn colour into grey")
    group.add_argument("--signal", type=whole, metavar="N", help="which one, of a file that holds several, from 0")
    group.add_argument("--visited", metavar="MASK", help="nonzero where the beam went: an image, or one a frame")
    group.add_argument("--unvisited", type=real, metavar="LEVEL", help="grey level of pixels not visited, such as nan")


def add_output(parser: argparse.ArgumentParser, default: str, *, report: bool = True, resume: bool = False) -> None:
    """The folder that is written; `resume` where work goes on in an unfinished one."""
    group = parser.add_argument_group("output")
    group.add_argument("--out", metavar="DIR", help=f"folder to write (default {default}, in the current folder)")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier output folder")
    if resume:
        group.add_argument("--resume", action="store_true", help="compute only what DIR.part or DIR does not hold yet")
    if report:
        group.add_argument("--no-report", action="store_true", help="numbers only: no figures, no report.html")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags of every command."""
    parser.add_argument("--quiet", action="store_true", help="no progress and no notes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_config(parser: argparse.ArgumentParser) -> None:
    """The settings file."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings: a .toml, or an earlier analysis.json or study.json; flags given here win",
    )


def add_method(parser: argparse.ArgumentParser, *, both: bool = False) -> None:
    """How frames are fitted."""
    choices = ("both", *METHODS) if both else METHODS
    text = "movie: all frames together; paper: each by itself"
    text += " (default both, side by side)" if both else " (default movie)"
    parser.add_argument_group("method").add_argument("--method", choices=choices, default=None, help=text)


def analysis_config(args: argparse.Namespace, **defaults: Any) -> AnalysisConfig:
    """Settings of the file given with --config (else the defaults), with the flags on top.

    `defaults` are ``section__name`` values of the command itself, which flags and file override.
    """
    given = {key: value for key, value in vars(args).items() if "." in key}
    base = config_to_dict(AnalysisConfig())
    for key, value in defaults.items():
        section, _, name = key.partition("__")
        base[section][name] = value
    if getattr(args, "config", None):
        base = config_to_dict(_load(Path(args.config).expanduser()))
    for key, value in given.items():
        section, _, name = key.partition(".")
        if value != AUTO or section != "mixture":
            base[section][name] = value
    if given.get("mixture.n_components") == AUTO and "," in (base["phases"]["phases"] or ""):
        # Named phases already say how many components there are.
        base["mixture"]["n_components"] = base["phases"]["phases"].count(",") + 1
    method = getattr(args, "method", None)
    if method in METHODS:
        base["method"] = method
        if method == "paper":
            base = _without_movie_settings(base, given)
    if "phases.phases" in given and "phases.foreground" not in given:
        base["phases"]["foreground"] = None  # the file's foreground belongs to the file's names
    return analysis_from_dict(base)


def _without_movie_settings(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a settings file says for the method ``movie`` alone must not stop the other; flags may."""
    if base["phases"]["phases"] == "auto" and "phases.phases" not in given:
        base["phases"]["phases"] = None
    if base["quantity"]["estimator"] in ("assisted", "smoothed") and "quantity.estimator" not in given:
        base["quantity"]["estimator"] = None
    return base


def _load(path: Path) -> AnalysisConfig:
    return analysis_config_from_json(path) if path.suffix == ".json" else load_toml(path)


def study_config(args: argparse.Namespace, analysis: AnalysisConfig) -> StudyConfig:
    """--rates and --replicates; without the latter as many that replicates x rate = 10."""
    rates = args.rates or StudyConfig().rates
    replicates = args.replicates or tuple(max(1, round(SAMPLES_PER_RATE / r)) if r > 0 else 1 for r in rates)
    method = getattr(args, "method", None)
    methods = (method,) if method in METHODS else StudyConfig().methods
    return StudyConfig(analysis=analysis, rates=rates, n_replicates=replicates, methods=methods)
