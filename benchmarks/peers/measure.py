"""One program on both frames: how long a fit to the same optimum takes, and how good its labels are."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.mixture import fit_mixture

from .classic import detrended
from .density import Mixture, accuracy, dice
from .scenes import LI, REVERSED, START, TERMS, TREND, Data, K, Scene, make_scene

Row = dict[str, Any]
TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
"""Gains of the log-likelihood per pixel and iteration at which a program may stop; the loosest that is good enough."""
SHORT = 1e-6
"""Good enough: so near, per pixel, to the likelihood of the best parameters of the same model. Nats."""
FIXED_TOLERANCE = 1e-8
"""Where the best parameters are not known, because a program maximises something else."""
MAX_ITERATIONS = 20_000
SIGMA_FLOOR = 12**-0.5


@dataclass(frozen=True)
class Sizes:
    """Pixels of the fits, side of the frames, seconds a fit may take, pixels where labels are compared, how often."""

    n: tuple[int, ...] = (2_621, 13_107, 26_214, 262_144)
    side: int = 512
    limit_s: float = 90.0
    compared: int = 26_214
    repeats: int = 5
    warm_up_s: float = 200.0


FULL = Sizes()
QUICK = Sizes(n=(410, 4_096), side=64, limit_s=4.0, compared=410, repeats=1, warm_up_s=150.0)


@dataclass(frozen=True)
class Found:
    """What a program came to: seconds of its fit alone, and parameters, or labels of all pixels where it has none."""

    seconds: float
    mixture: Mixture | None = None
    labels: np.ndarray | None = None
    iterations: int | None = None


@dataclass(frozen=True)
class Peer:
    """A program, and one way to use it.

    Attributes
    ----------
    name : in the tables. fit : data and tolerance (gain per pixel) to what was found.
    missing : why it cannot run here, or None. version : of what was run.
    trend : in words, whether it knows of the trend that all phases share.
    model : whose best likelihood it should reach: ``"trend"``, ``"none"``, ``"flat"`` (no trend, on detrended values);
        None where it has a goal of its own. iterative : whether it stops by a tolerance at all.
    unvisited : whether it does without the pixels that were not visited. whole : whether it is measured on whole frames
        only. batches : whether it fits replicates at once. note : what a reader should know.
    """

    name: str
    fit: Callable[[Data, float], Found]
    missing: Callable[[], str | None] = lambda: None
    version: Callable[[], str] = lambda: ""
    trend: str = "no"
    model: str | None = None
    iterative: bool = True
    unvisited: bool = True
    whole: bool = False
    batches: bool = False
    note: str = ""

    @property
    def words(self) -> Row:
        """What it can do, for the tables."""
        can = {"trend": self.trend, "unvisited": self.unvisited, "batches": self.batches, "note": self.note}
        return {"program": self.name, **can}


class OutOfTime(Exception):
    """A fit took longer than it may."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after so many seconds, once Python runs again. In the main thread of Unix only."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again, for what is raised in a finaliser is lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """A function that tells the seconds since the block began; after it, those of the block."""
    started, ended = time.perf_counter(), []
    yield lambda: (ended[0] if ended else time.perf_counter()) - started
    ended.append(time.perf_counter())


def measure(peer: Peer, sizes: Sizes, say: Callable[[str], None] = lambda text: None) -> Iterator[Row]:
    """Rows of one program, as they come."""
    reason = peer.missing()
    if reason is not None:
        say(f"{peer.name}: skipped: {reason}")
        yield {**peer.words, "skipped": reason}
        return
    warm_up(peer, sizes)
    words, done = {**peer.words, "version": peer.version()}, []
    for scene, n in jobs(peer, sizes, done):
        row = {"scene": scene.name, "n": n}
        if expected_s(done, n) > sizes.limit_s:
            row["left_out"] = f"more than {sizes.limit_s:g} s expected"
        else:
            row |= measured(peer, scene.visited(n), sizes, done)
        done.append(row)
        say(f"{peer.name}: {scene.name} frame, {n:,} pixels: {row.get('left_out') or str(row['fit_s']) + ' s'}")
        yield words | row


def warm_up(peer: Peer, sizes: Sizes) -> None:
    """One fit of a toy frame, so that nothing is loaded or compiled while a fit is timed; a failure shows later."""
    side = min(sizes.side, QUICK.side)
    with suppress(Exception), limited(sizes.warm_up_s):
        peer.fit(make_scene("easy", side).visited(side**2 if peer.whole else side**2 // 4), FIXED_TOLERANCE)


def jobs(peer: Peer, sizes: Sizes, done: list[Row]) -> Iterator[tuple[Scene, int]]:
    """The hard frame at every size, then the others where labels are compared, or at the largest size `done` below."""
    numbers = (sizes.side**2,) if peer.whole else sizes.n
    for n in numbers:
        yield make_scene("hard", sizes.side), n
    compared = numbers[0] if peer.whole else sizes.compared
    largest = max((row["n"] for row in done if "fit_s" in row and row["n"] <= compared), default=compared)
    for name in ("easy", REVERSED):
        yield make_scene(name, sizes.side), largest


def expected_s(done: list[Row], n: int) -> float:
    """Seconds of a fit of `n` pixels, in proportion to the nearest smaller hard one; 0 before the first."""
    before = [row for row in done if row["n"] <= n and row["scene"] == "hard" and "failed" not in row]
    nearest = max(before, key=lambda row: row["n"], default=None)
    return 0.0 if nearest is None else nearest.get("fit_s", np.inf) * n / nearest["n"]


def measured(peer: Peer, data: Data, sizes: Sizes, done: Sequence[Row] = ()) -> Row:
    """Time and scores of one fit, or why there are none; done: rows of fewer pixels, whose tolerance comes first."""
    before = [row["tol"] for row in done if row["scene"] == data.scene.name and row.get("tol") in TOLERANCES]
    first = TOLERANCES.index(before[-1]) if before else 0
    try:
        found, reached = _reach(peer, data, sizes.limit_s, TOLERANCES[first:])
        times = [found.seconds]
        for _ in range(_repeats(found.seconds, sizes.repeats)):
            with limited(sizes.limit_s):
                times.append(peer.fit(data, reached["tol"]).seconds)
    except OutOfTime:
        return {"left_out": f"more than {sizes.limit_s:g} s"}
    except Exception as error:  # whatever a program of others raises is its result
        return {"left_out": f"failed: {type(error).__name__}: {error}", "failed": True}
    seconds = times[1:] or times
    row = {"fit_s": float(f"{np.median(seconds):.4g}"), "repeats": len(seconds), "iterations": found.iterations}
    return row | reached | scores(found, data.scene)


def _repeats(seconds: float, most: int) -> int:
    """How often a fit is timed again; the first time then does not count."""
    return most if seconds < 0.5 else min(most, 2) if seconds < 2 else 0


def _reach(peer: Peer, data: Data, limit_s: float, tolerances: tuple[float, ...]) -> tuple[Found, Row]:
    """The fit with the loosest tolerance that ends within `SHORT` of the optimum of its model, or the best there is."""
    goal = None if peer.model is None else optimum(data, peer.model)
    previous = -np.inf
    for tol in tolerances if goal is not None else (FIXED_TOLERANCE,):
        with limited(limit_s):
            found = peer.fit(data, tol)
        reached: Row = {"tol": tol if peer.iterative else None}
        if found.mixture is not None:
            reached["log_likelihood"] = found.mixture.log_likelihood(data.values, data.basis)
        if goal is not None:
            reached["short"] = goal - reached["log_likelihood"]
            stuck = reached["log_likelihood"] - previous < 0.1 * SHORT and tol <= FIXED_TOLERANCE
            if reached["short"] <= SHORT or stuck:
                break
            previous = reached["log_likelihood"]
    return found, reached


def optimum(data: Data, model: str) -> float:
    """Log-likelihood per pixel at the best parameters that the common start leads to, in float64."""
    values = detrended(data.values, data.positions, data.scene.shape, TERMS) if model == "flat" else data.values
    config = MixtureConfig(
        K, TREND if model == "trend" else "none", starts=(START,), tol=1e-12, max_iter=MAX_ITERATIONS
    )
    found = fit_mixture(
        values[None],
        data.positions[None],
        data.scene.shape,
        config,
        sigma_floor=SIGMA_FLOOR,
        backend=make_backend(np, dtype="float64"),
    )
    slopes = found.coef[0] if model == "trend" else np.zeros(len(TERMS))
    mixture = Mixture(found.weights[0], found.means[0], found.sigmas[0], slopes)
    return mixture.log_likelihood(values, data.basis)


def scores(found: Found, scene: Scene) -> Row:
    """Label accuracy of all pixels, visited or not, and Dice of Li."""
    labels = found.labels
    if found.mixture is not None:
        whole = scene.visited(scene.image.size)
        labels = found.mixture.labels(whole.values, whole.basis).reshape(scene.shape)
    return {"label_accuracy": accuracy(labels, scene.truth), "dice": dice(labels == LI, scene.truth == LI)}
