"""`gmrm-gpu live`: frames analysed while they are recorded."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..claim import claim
from ..config import AnalysisConfig
from ..errors import ConfigError, InputError, OutputError
from ..folders import check_new_folder, new_folder
from ..live.analysis import LiveAnalysis
from ..live.finish import result_of
from ..live.journal import (
    SUFFIX,
    Journal,
    Subject,
    read_files,
    read_labels,
    read_records,
    read_subject,
    saved_state,
)
from ..live.page import LivePage, check_port
from ..live.run import LiveRun, Plan
from ..live.sources import SIMULATION, Arrival, Source, open_source
from ..live.update import LiveFrame, LiveState
from ..output import check_extras, fill_analysis
from ..results import AnalysisResult
from . import console as say
from .console import Console
from .options import analysis_config
from .shared import inputs, note
from .values import AUTO

_READING = ("crop", "exclude", "clip", "luminance", "signal", "visited", "unvisited")
_STATUS_S = 0.5


def run_live_command(args: argparse.Namespace, console: Console) -> None:
    """A live run, from its source to its files."""
    check_extras(labels=True, report=not args.no_report)
    if args.frames is not None and args.frames < 0:
        raise ConfigError(f"--frames is {args.frames}; it must be 0 or more")
    if not args.no_page:
        check_port(args.port)  # not when the first frame has come, which may be hours later
    plan, journal = _resumed(args) if args.resume else (_planned(args), None)
    known = {"overwrite": args.overwrite, "inputs": [*_input_files(args), plan.journal]}
    check_new_folder(plan.out, **known)
    source = _open(plan, journal)
    shown = _Shown(args, console)
    run = LiveRun(
        source,
        plan,
        new_analysis=_new_analysis(plan.config),
        load_analysis=LiveAnalysis.load,
        new_page=shown.page,
        say=shown.say,
        watch=shown.watch,
        journal=journal,
    )
    started = time.perf_counter()
    try:
        with _stoppable(run, shown):
            shown.waiting(source)
            journal = run.run()
        with claim(plan.journal) if journal else nullcontext(), new_folder(plan.out, **known) as folder:
            result, failure = _written(journal, source, folder, run, started, args)
    except BaseException:
        shown.close(f"The run has stopped, and its results are not written; {_kept(run) or 'no frame was analysed'}.")
        _tell_what_is_kept(run)
        raise
    shown.close(f"The run has ended; its results are in {plan.out}.")
    shutil.rmtree(plan.journal)
    _print(result, plan.out, failure, args, console)


# -- what is to be done -----------------------------------------------------------------------------------------------


def _planned(args: argparse.Namespace) -> Plan:
    if args.movie is None:
        raise ConfigError("give SOURCE: a folder, a movie file, zmq, or simulation; or --resume FOLDER")
    if AUTO in (vars(args).get("mixture.n_components"), vars(args).get("mixture.trend")):
        raise ConfigError("auto needs a whole movie; run select on an earlier one, then give --components and --trend")
    defaults = {"mixture__n_components": 3} if args.movie == SIMULATION else {}
    config = analysis_config(args, **defaults)
    if config.quantity.geometry == "revolution":
        raise ConfigError("live has no volume of revolution; use --geometry slab, and analyze once it is recorded")
    LiveAnalysis((256, 256), np.dtype(np.uint8), config)  # refuses settings that only whole movies have, at once
    out = Path(args.out or f"{_stem(args.movie)}_live").expanduser()
    journal = out.with_name(out.name + SUFFIX)
    if journal.exists():
        raise OutputError(f"{journal} is an unfinished live run; go on with --resume {journal}, or remove it")
    opening = {
        "fps": args.simulate,
        "reading": {name: _absolute(getattr(args, name)) for name in _READING},
        "new_only": args.new_only,
        "size": args.size,
        "seed": config.sampling.seed if args.movie == SIMULATION else 0,
    }
    return Plan(_absolute(args.movie), config, journal, out, args.frames, args.idle, opening=opening)


def _absolute(value: Any) -> Any:
    """The path of a file or folder as it is seen from everywhere; anything else as it is."""
    if isinstance(value, str) and value not in ("zmq", SIMULATION) and Path(value).expanduser().exists():
        return str(Path(value).expanduser().resolve())
    return value


def _resumed(args: argparse.Namespace) -> tuple[Plan, Journal]:
    own = ("movie", "config", "simulate", "size", "new_only", *_READING)
    given = [key.partition(".")[2] for key in vars(args) if "." in key]
    given += [name for name in own if getattr(args, name) not in (None, False)]
    if given:
        raise ConfigError(f"--resume goes on with the source and settings of its run; leave out {', '.join(given)}")
    folder = Path(args.resume).expanduser()
    subject, _ = read_subject(folder)
    out = folder.with_name(folder.name.removesuffix(SUFFIX)) if args.out is None else Path(args.out).expanduser()
    if out == folder:
        out = folder.with_name(f"{folder.name}_results")
    journal = Journal.resume(folder)
    plan = Plan(subject.source, subject.config, folder, out, args.frames, args.idle, opening=subject.opening)
    return plan, journal


def _open(plan: Plan, journal: Journal | None) -> Source:
    if plan.most_frames == 0:
        return _Nothing()
    after, taken = None, []
    if journal is not None and journal.n_frames:
        records = read_records(journal.folder, journal.subject)
        saved = saved_state(journal.folder, records)
        after = None if saved is None else int(records["number"][saved[1] - 1])
        taken = read_files(journal.folder, records)
    return open_source(plan.source, **plan.opening, taken=taken, after=after)


class _Nothing(Source):
    """No frames: the results of what is there."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def _new_analysis(config: AnalysisConfig) -> Any:
    def make(arrival: Arrival, source: Source) -> LiveAnalysis:
        return LiveAnalysis(arrival.shape, arrival.dtype, config, acquisition=source.acquisition, valid=source.valid)

    return make


def _stem(source: str) -> str:
    """The default name of what is written."""
    if source.startswith("zmq"):
        return "zmq"
    path = Path(source).expanduser()
    return re.sub(r"[^\w.-]", "_", path.resolve().name if path.is_dir() else path.stem) or "stream"


def _input_files(args: argparse.Namespace) -> list[str]:
    return [name for name in inputs(args) if Path(name).expanduser().exists()]


# -- what is shown ----------------------------------------------------------------------------------------------------


class _Shown:
    """The page, and a line in the terminal."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self._args, self._quiet = args, console.quiet
        self._terminal = sys.stderr.isatty() and not console.quiet
        self._page: LivePage | None = None
        self._share = float("nan")
        self._shown_at = 0.0

    def waiting(self, source: Source) -> None:
        """Say where frames are expected from."""
        if not self._quiet:
            print(f"waiting for frames from {source.name}; Ctrl-C stops and writes the results", flush=True)

    def page(self, subject: Subject, run: LiveRun) -> LivePage | None:
        """Open the page and print its address."""
        if self._args.no_page:
            return None
        config = subject.config
        self._page = LivePage(
            title=subject.name,
            shape=subject.shape,
            phase_names=config.phases.names,
            foreground=config.phases.foreground_index,
            unit=subject.scale.unit,
            factor=subject.scale.factor,
            port=self._args.port,
            pixel_size_um=subject.pixel_size_um,
            interval=config.quantity.interval,
        )
        if run.journal is not None and run.journal.n_frames:
            records = read_records(run.journal.folder, subject)
            self._page.recall(*(records[name] for name in ("number", "time_s", "share", "share_sd")))
        print(f"page: {self._page.url}", flush=True)
        return self._page

    def say(self, text: str) -> None:
        """A sentence, at once, above the line of status."""
        if not self._quiet:
            clear = "\r\x1b[K" if self._terminal else ""
            print(f"{clear}gmrm-gpu: {text}", file=sys.stderr, flush=True)

    def watch(self, frame: LiveFrame | None, state: LiveState) -> None:
        """Renew the line of status, twice a second."""
        if frame is not None:
            self._share = frame.share
        now = time.monotonic()
        if not self._terminal or now - self._shown_at < _STATUS_S:
            return
        self._shown_at = now
        print(f"\r\x1b[K{status_text(state, self._share)}", end="", file=sys.stderr, flush=True)

    def close(self, message: str) -> None:
        """Take the line away; tell those who watch the page how it ended."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if self._page is not None:
            with suppress(Exception):  # a browser must not cost results
                self._page.end(message)
                self._page.close()
            self._page = None


def status_text(state: LiveState, share: float) -> str:
    """``"120 frames, foreground 12.3 %, 8.1 ms a frame (95 %: 9.9), 0 dropped"``."""
    middle, high = state.latency_ms
    return (
        f"{say.count(state.n_frames, 'frame')}, foreground {100 * share:.3g} %, {middle:.3g} ms a frame "
        f"(95 %: {high:.3g}), {state.n_dropped} dropped, {state.waiting} waiting"
    )


@contextmanager
def _stoppable(run: LiveRun, shown: _Shown) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops the run and lets it write; the second interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if seen.is_set():
            raise KeyboardInterrupt
        seen.set()
        run.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if seen.is_set():
        shown.say("stopped; writing the results")


# -- what is written --------------------------------------------------------------------------------------------------


def _written(
    journal: Journal | None, source: Source, folder: Path, run: LiveRun, started: float, args: argparse.Namespace
) -> tuple[AnalysisResult, str | None]:
    if journal is None or journal.n_frames == 0:
        reasons = "; ".join(list(run.notices.texts)[-3:]) or "the stream ended, or was stopped, before the first"
        raise InputError(f"no frame of {source.name} could be analysed ({reasons}); nothing was written")
    remarks = {
        "command": args.command_line,
        "dropped": run.n_dropped,
        "notices": run.notices.n_all,
        "warnings": _warnings(run),
        "wall_s": round(time.perf_counter() - started, 3),
    }
    result = result_of(journal.folder, remarks)
    records = read_records(journal.folder, journal.subject)
    labels = read_labels(journal.folder, journal.subject, records)
    for name in ("alarms.csv", "notices.txt"):
        shutil.copyfile(journal.folder / name, folder / name)
    return result, fill_analysis(result, folder, report=not args.no_report, labels=labels)


def _warnings(run: LiveRun) -> list[str]:
    if not run.n_dropped:
        return []
    was = "was" if run.n_dropped == 1 else "were"
    return [f"{say.count(run.n_dropped, 'frame')} {was} lost, dropped or left out; notices.txt says which and why."]


def _tell_what_is_kept(run: LiveRun) -> None:
    journal = run.journal
    if journal is None:
        return
    if journal.n_frames == 0:
        shutil.rmtree(journal.folder, ignore_errors=True)
        return
    cure = f"gmrm-gpu live --resume {journal.folder} goes on, with --frames 0 it only writes the results"
    print(f"gmrm-gpu: {_kept(run)}; {cure}", file=sys.stderr)


def _kept(run: LiveRun) -> str | None:
    """What there is of a run that did not come to its results; None where there is nothing."""
    if run.journal is None or run.journal.n_frames == 0:
        return None
    n = run.journal.n_frames
    return f"{say.count(n, 'frame')} analysed so far {'is' if n == 1 else 'are'} kept in {run.journal.folder}"


def _print(result: AnalysisResult, out: Path, failure: str | None, args: argparse.Namespace, console: Console) -> None:
    if np.isfinite(result.share).any():
        print(say.growth(result))
    else:
        console.note("no frame could be fitted; use fewer --components or a simpler --trend")
    if failure is not None:
        raise OutputError(f"the report could not be written ({failure}); all numbers are in {out}")
    print(f"written: {out}")
    if not args.no_report:
        print(f"report: {(out / 'report.html').resolve()}")
    note(console, say.fit_note(result.status))
    for warning in result.provenance["warnings"]:
        console.note(warning)
    note(console, say.calibration_note(result.scale, result.time_s, result.config))


__all__ = ["run_live_command", "status_text"]
