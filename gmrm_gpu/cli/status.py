"""`gmrm-gpu status`: how far a study is, while another program works on it."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..claim import Holder, holder
from ..config import METHODS
from ..errors import InputError
from ..folders import SHARDS, UNFINISHED
from ..results.throughput import duration_text
from ..study.store import PLAN, WHOLE, Store, read_plan
from . import console as say
from .console import Console

POLL_S = 1.0


@dataclass(frozen=True)
class _Planned:
    """A shard as the plan of its study has it."""

    name: str
    method: str
    rate: float
    n_replicates: int
    reference: bool
    cost: int
    finished: float | None
    """When its record was written, seconds since the epoch; None: not yet."""


@dataclass(frozen=True)
class _State:
    """A study at one moment; it has no shards before the movie was read.

    finished : its results are written. planned : when the program that works on it wrote the plan, seconds since the
    epoch.
    """

    folder: Path
    finished: bool
    holder: Holder | None
    planned: float
    shards: tuple[_Planned, ...]

    @property
    def share(self) -> float:
        """Part of the work that is done."""
        return self._work(done=True) / max(1, sum(shard.cost for shard in self.shards))

    def _work(self, *, done: bool) -> int:
        return sum(s.cost for s in self.shards if (s.finished is not None) == done)

    def seconds_left(self) -> float | None:
        """By the pace since the plan was written, that is, the movie read; None where nothing can be said yet."""
        done = [s for s in self.shards if s.finished is not None and s.finished >= self.planned]
        if self.holder is None or all(shard.reference for shard in done):  # a reference is slow for its size
            return None
        latest = max(s.finished for s in done if s.finished is not None)
        left = self._work(done=False) * (latest - self.planned) / max(1, sum(s.cost for s in done))
        return max(0.0, left - (time.time() - latest))


def run_status(args: argparse.Namespace, console: Console) -> None:
    """How much of a study is done, who works on it, when it will be finished."""
    state = _look(args.folder)
    print(_text(state))
    while args.follow and not state.finished and state.holder is not None:
        time.sleep(POLL_S)
        latest = _look(args.folder)
        if latest != state:
            print(_line(latest), flush=True)
        state = latest
    if args.check and state.shards:
        _check(state)


def _look(given: str) -> _State:
    target = Path(given).expanduser()
    part = Path(f"{target.resolve()}{UNFINISHED}")  # beside what a link leads to, where study has it
    for folder in (part, target):
        plan = folder / SHARDS / PLAN
        worker = holder(folder) if folder.is_dir() else None
        if not plan.exists() and worker is not None and folder.name.endswith(UNFINISHED):
            return _State(folder, False, worker, 0.0, ())
        try:
            finished = folder == target and (folder / "study.json").exists()
            state = _State(folder, finished, worker, plan.stat().st_mtime, _read(folder))
        except FileNotFoundError:
            continue
        except InputError:
            if plan.exists():
                raise
            continue
        if plan.exists():  # otherwise it took its final name just now
            return state
    what = "holds no shards of a study" if target.exists() or part.exists() else "is not there, nor is it with .part"
    raise InputError(f"{given} {what}; give the folder that study was given as --out")


def _read(folder: Path) -> tuple[_Planned, ...]:
    plan = read_plan(folder / SHARDS)
    try:
        return tuple(_planned(folder, shard) for shard in plan["shards"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{folder / SHARDS / PLAN} lists no shards of a study; give a folder that study wrote"
        ) from None


def _planned(folder: Path, shard: dict[str, Any]) -> _Planned:
    if Path(shard["name"]).name != shard["name"] or shard["method"] not in METHODS:
        raise ValueError  # a name that leads out of the folder, or is not for a terminal
    try:
        finished = (folder / SHARDS / f"{shard['name']}.json").stat().st_mtime
    except FileNotFoundError:
        finished = None
    count = shard["stop"] - shard["start"]
    about = (shard["name"], shard["method"], shard["rate"], count, shard["reference"], shard["cost"])
    return _Planned(*about, finished)


def _text(state: _State) -> str:
    if not state.shards:
        return _line(state)
    groups: dict[tuple[str, str], list[_Planned]] = {}
    for shard in state.shards:
        what = "reference" if shard.reference else f"{100 * shard.rate:g} %"
        groups.setdefault((shard.method, what), []).append(shard)
    rows = []
    for (method, what), held in groups.items():
        done = [shard for shard in held if shard.finished is not None]
        replicates = f"{sum(s.n_replicates for s in done):,} of {sum(s.n_replicates for s in held):,}"
        rows.append([method, what, f"{len(done)} of {len(held)}", "" if held[0].reference else replicates])
    return say.table(["method", "rate", "shards", "replicates"], rows) + "\n" + _line(state)


def _line(state: _State) -> str:
    if not state.shards:
        return f"running: it begins with reading the movie ({state.holder})"
    done = sum(shard.finished is not None for shard in state.shards)
    counts = f"{done} of {say.count(len(state.shards), 'shard')} done, {100 * state.share:.0f} % of the work"
    if state.finished:
        return f"finished: {counts}; results in {state.folder}"
    if state.holder is None:
        return f"nobody works on it: {counts}; study with the same settings and --resume goes on"
    left = state.seconds_left()
    until = "" if left is None else f", about {duration_text(left)} left"
    return f"running: {counts}{until} ({state.holder})"


def _check(state: _State) -> None:
    store = Store(state.folder / SHARDS, read_plan(state.folder / SHARDS)["fingerprint"])
    done = [shard for shard in state.shards if state.finished or shard.finished is not None]
    found = [(shard.name, store.state(shard)) for shard in done]
    bad = [(name, what) for name, what in found if what != WHOLE]
    for name, what in bad:
        print(f"shard {name} is {what}")
    print(f"{say.count(len(found) - len(bad), 'shard')} as written, {len(bad)} damaged")
    if bad:
        raise InputError(
            f"{say.count(len(bad), 'shard')} of {state.folder.name} cannot be used; study with the same settings and "
            "--resume computes them again"
        )
