"""Fits many mixtures, each from its starts to convergence (METHOD.md 2-4), the twin of `kernels/fit.cu`.

Each thread takes a fit at a time. Of large fits that are too few to keep all threads busy, the threads share every
pass instead. Either way a sum is that of the chunks of a fit in their order, so bits depend neither on the way nor on
the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ...results import FitStatus
from .cycle import (
    DEGENERATE,
    RUNNING,
    Settings,
    advance,
    begin_cycles,
    copy_point,
    make_fit,
    short_step,
    write_fit,
)
from .histogram import Histogram, count_parts, find_extent, make_histogram, settle
from .jit import compiled, exactly
from .philox import START, stream_words
from .samples import aligned, differ, make_units, squares_of, standardise, total_of, unpack
from .starts import start_means, start_theta, take_subset
from .sums import Model, make_densities, make_model, make_work, n_sums, sum_samples

if TYPE_CHECKING:
    from .device import Call

T = TypeVar("T")
Step = Callable[[Any, Any, Any], None]
"""Work on chunks first..last - 1 with a thread's scratch."""
FIRST = np.int64(0)
FITS_A_THREAD = 4
"""Threads share the passes of large fits of which there are fewer for each."""
PARTS_A_THREAD = 4
"""Of a shared pass: few, for each is a call; several, for threads are not equally fast."""
TOO_FEW = np.int64(FitStatus.TOO_FEW)


class Chunks(NamedTuple):
    """The samples of a fit; those of chunk c of its words begin at c * size.

    Attributes
    ----------
    z, x, y : (m,) float32, values (standardised by `prepare`) and coordinates. counts : (chunks,) int64, samples.
    totals : (chunks,) float64, room. sums : (chunks, N_SUMS). size : words of a chunk.
    """

    z: Any
    x: Any
    y: Any
    counts: Any
    totals: Any
    sums: Any
    size: Any


class Room(NamedTuple):
    """What a thread fits with.

    Attributes
    ----------
    chunks, fit, work : see there. words : (subset,) of the starts. z, x, y : (subset,) of its samples. mass : (subset,)
        float64. means : (starts, K). stream : (8,) uint32, random words of a fit.
    """

    chunks: Any
    fit: Any
    work: Any
    words: Any
    z: Any
    x: Any
    y: Any
    mass: Any
    means: Any
    stream: Any


def make_room(model: Model, m: int, chunk: int, subset: int, n_starts: int, word: Any) -> Room:
    """Room for fits of `m` places in chunks of `chunk`, with starts compared on `subset` of them."""
    n_chunks = -(-m // chunk)
    by_chunk = np.zeros(n_chunks, np.int64), np.zeros(n_chunks), np.zeros((n_chunks, n_sums(model)))
    return Room(
        chunks=Chunks(aligned((m,)), aligned((m,)), aligned((m,)), *by_chunk, chunk),
        fit=make_fit(model),
        work=make_work(model),
        words=np.zeros(subset, word),
        z=aligned((subset,)),
        x=aligned((subset,)),
        y=aligned((subset,)),
        mass=np.zeros(subset),
        means=np.zeros((n_starts, model.k)),
        stream=np.zeros(8, np.uint32),
    )


@compiled
def load(first, last, words, settings, chunks):
    """Unpack chunks first..last - 1 of a fit's words; their sums of values to chunks.totals."""
    for c in range(first, last):
        a = c * chunks.size
        mine = words[a : a + chunks.size]
        b = a + mine.size
        n = unpack(mine, settings.height, settings.width, chunks.z[a:b], chunks.x[a:b], chunks.y[a:b])
        chunks.counts[c], chunks.totals[c] = n, total_of(chunks.z[a : a + n])


@compiled
def square(first, last, chunks, fit):
    """Sums of squared deviations from the centre to chunks.totals."""
    for c in range(first, last):
        a = c * chunks.size
        chunks.totals[c] = squares_of(chunks.z[a : a + chunks.counts[c]], fit.state[0].centre)


@compiled
def scale(first, last, chunks, fit):
    """Standardise the values."""
    units = make_units(fit.state[0].centre, fit.state[0].scale)
    for c in range(first, last):
        a = c * chunks.size
        standardise(chunks.z[a : a + chunks.counts[c]], units)


@compiled
def add_up(first, last, model, fit, chunks, work):
    """A pass over chunks first..last - 1, to chunks.sums."""
    for c in range(first, last):
        a = c * chunks.size
        b = a + chunks.counts[c]
        sum_samples(chunks.z[a:b], chunks.x[a:b], chunks.y[a:b], model, fit.densities, work, chunks.sums[c])


@exactly
def _varies(chunks):
    reference, met = np.float32(0.0), False
    for c in range(chunks.counts.size):
        a, n = c * chunks.size, chunks.counts[c]
        if n and not met:
            reference, met = chunks.z[a], True
        if differ(chunks.z[a : a + n], reference):
            return True
    return False


@exactly
def find_centre(chunks, model, fit):
    """After `load`: number and centre; the status is `RUNNING` where there is something to fit."""
    state = fit.state[0]
    state.n, total = 0.0, 0.0
    for c in range(chunks.counts.size):
        state.n += chunks.counts[c]
        total += chunks.totals[c]
    state.centre = total / max(state.n, 1.0)
    state.n_iter, state.status = 0, RUNNING
    if state.n <= 3 * model.k - 1 + model.q:
        state.status = TOO_FEW
    elif not (_varies(chunks) and np.isfinite(state.centre)):
        state.status = DEGENERATE


@exactly
def find_scale(chunks, settings, fit):
    """After `square`: scale, floor of the sigmas, prior of the trend."""
    state, total = fit.state[0], 0.0
    for c in range(chunks.counts.size):
        total += chunks.totals[c]
    state.scale = np.sqrt(total / state.n)
    state.floor = settings.sigma_floor / state.scale
    state.pull = (state.scale / settings.trend_prior) ** 2 if settings.trend_prior > 0.0 else 0.0


@exactly
def load_subset(words, settings, room):
    """The samples that starts are compared on, standardised, to room.z, x and y; returns how many there are."""
    n = unpack(room.words[: take_subset(words, room.words)], settings.height, settings.width, room.z, room.x, room.y)
    standardise(room.z[:n], make_units(room.fit.state[0].centre, room.fit.state[0].scale))
    return n


@exactly
def prepare(words, settings, model, room):
    """Count, standardise and take the starts' subset, whose size is returned; 0 where there is nothing to fit."""
    chunks, fit = room.chunks, room.fit
    n = chunks.counts.size
    load(FIRST, n, words, settings, chunks)
    find_centre(chunks, model, fit)
    if fit.state[0].status != RUNNING:
        return 0
    square(FIRST, n, chunks, fit)
    find_scale(chunks, settings, fit)
    scale(FIRST, n, chunks, fit)
    return load_subset(words, settings, room)


@exactly
def choose_start(ascending, kinds, settings, model, room):
    """Run every start a few passes on the subset; fit.theta is then the best point seen by any of them.

    ascending : (n,) float32, the subset's values. kinds : (starts,), see `starts`.
    """
    fit, n = room.fit, ascending.size
    fit.state[0].best_value = -1.7e308
    for s in range(kinds.size):
        start_means(kinds[s], ascending, room.stream, room.mass[:n], room.means[s])
    for s in range(kinds.size):
        start_theta(room.means[s], fit.theta)
        if kinds.size == 1:
            return
        make_densities(fit.theta, model, fit.densities)
        for i in range(settings.n_start_iter):
            sum_samples(room.z[:n], room.x[:n], room.y[:n], model, fit.densities, room.work, fit.sums)
            short_step(i, fit, model)
    copy_point(fit.best, fit.theta)


@exactly
def after_pass(chunks, settings, model, fit):
    """Sums of a fit from those of its chunks, and its next point."""
    for s in range(fit.sums.size):
        fit.sums[s] = 0.0
        for c in range(chunks.counts.size):
            fit.sums[s] += chunks.sums[c, s]
    advance(fit, settings, model)


@exactly
def converge(settings, model, room):
    """A fit from its start to its end."""
    begin_cycles(room.fit, model)
    while room.fit.state[0].status == RUNNING:
        add_up(FIRST, room.chunks.counts.size, model, room.fit, room.chunks, room.work)
        after_pass(room.chunks, settings, model, room.fit)


@dataclass
class _Job:
    """The fits of one call.

    Attributes
    ----------
    words : (F, m). kinds : (starts,) int64. seed : (3,) uint32; replicates, frames : numbers; see `engines.fused.fit`.
    out : the arrays of `write_fit`. subset : places of the starts' subset. rooms, works, histograms : those not in use.
    """

    call: Call
    words: np.ndarray
    model: Model
    settings: Settings
    seed: np.ndarray
    replicates: np.ndarray
    frames: np.ndarray
    out: tuple[np.ndarray, ...]
    subset: int
    kinds: np.ndarray = field(init=False)
    n_bins: int = field(init=False)
    rooms: list[Room] = field(default_factory=list)
    works: list[Any] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kinds = self.call.integers("STARTS")
        self.n_bins = int(self.call.constants["HISTOGRAM"])

    @contextmanager
    def room(self, f: int) -> Iterator[Room]:
        """Room for fit f, with its random words."""
        room = _one_of(self.rooms, self._new_room)
        replicate, frame = divmod(f, len(self.frames))
        stream_words(self.seed, self.replicates[replicate], self.frames[frame], START, room.stream)
        yield room
        self.rooms.append(room)

    def _new_room(self) -> Room:
        m, chunk = self.words.shape[1], int(self.call.constants["CHUNK"])
        return make_room(self.model, m, chunk, self.subset, len(self.kinds), self.words.dtype)

    def fit_alone(self, f: int) -> None:
        """By the calling thread."""
        with self.room(f) as room:
            n = prepare(self.words[f], self.settings, self.model, room)
            if _runs(room):
                choose_start(np.sort(room.z[:n]), self.kinds, self.settings, self.model, room)
                if self.n_bins:
                    self._converge(room, self._all_chunks)
                else:
                    converge(self.settings, self.model, room)
            write_fit(f, room.fit, self.model, *self.out)

    def fit_together(self, f: int) -> None:
        """By all threads, chunk by chunk."""
        with self.room(f) as room:
            self._prepare(self.words[f], room)
            if _runs(room):
                n = load_subset(self.words[f], self.settings, room)
                choose_start(np.sort(room.z[:n]), self.kinds, self.settings, self.model, room)
                self._converge(room, self._each)
            write_fit(f, room.fit, self.model, *self.out)

    def _converge(self, room: Room, every: Callable[[Room, Step], None]) -> None:
        """A fit from its start to its end; every : calls a step for all of its chunks."""
        fit, histogram = room.fit, self._histogram(room)
        begin_cycles(fit, self.model)
        while _runs(room):
            every(room, lambda a, b, work: add_up(a, b, self.model, fit, room.chunks, work))
            if histogram is None:
                after_pass(room.chunks, self.settings, self.model, fit)
                continue
            copy_point(fit.theta, histogram.here)
            after_pass(room.chunks, self.settings, self.model, fit)
            settle(
                fit,
                self.settings.tol,
                self.model,
                histogram,
                lambda: every(room, lambda a, b, work: count_parts(a, b, self.model, room.chunks, histogram, work)),
            )
        if histogram is not None:
            self.histograms.append(histogram)

    def _histogram(self, room: Room) -> Histogram | None:
        """Of a fit whose values are standardised."""
        if not self.n_bins:
            return None
        n_chunks = len(room.chunks.counts)
        found = _one_of(self.histograms, lambda: make_histogram(self.model, n_chunks, self.n_bins))
        find_extent(room.chunks, found.grid)
        return found

    def _prepare(self, words: np.ndarray, room: Room) -> None:
        chunks, fit = room.chunks, room.fit
        self._each(room, lambda a, b, _: load(a, b, words, self.settings, chunks))
        find_centre(chunks, self.model, fit)
        if _runs(room):
            self._each(room, lambda a, b, _: square(a, b, chunks, fit))
            find_scale(chunks, self.settings, fit)
            self._each(room, lambda a, b, _: scale(a, b, chunks, fit))

    def _all_chunks(self, room: Room, step: Step) -> None:
        """By the calling thread."""
        step(FIRST, len(room.chunks.counts), room.work)

    def _each(self, room: Room, step: Step) -> None:
        """By all threads, some chunks at a time."""
        n, pool = len(room.chunks.counts), self.call.pool
        size = max(1, n // (PARTS_A_THREAD * pool.workers))

        def some(i: int) -> None:
            work = _one_of(self.works, lambda: make_work(self.model))
            step(i * size, min((i + 1) * size, n), work)
            self.works.append(work)

        pool.run(some, -(-n // size))


def _one_of(kept: list[T], make: Callable[[], T]) -> T:
    """One that is not in use, or a new one; another thread may take the last between a look and a pop."""
    try:
        return kept.pop()
    except IndexError:
        return make()


def _runs(room: Room) -> bool:
    return bool(room.fit.state["status"][0] == RUNNING)


def fit(call: Call, words: np.ndarray, n_fits: Any, m: Any, *args: Any) -> None:
    """The kernel, with the arguments of `kernels/fit.cu`; rooms and teams of CUDA blocks mean nothing here."""
    height, width, low, high, rate, replicates, frames, _, *rest = args
    sigma_floor, trend_prior, tol, max_iter, n_start_iter, joint, subset, _, _, _, _, *out = rest
    reals = float(sigma_floor), float(trend_prior), float(tol)
    settings = Settings(int(height), int(width), *reals, int(max_iter), int(n_start_iter), bool(joint))
    seed = np.array([low, high, rate], dtype=np.uint32)
    shaped = words.reshape(int(n_fits), int(m))
    job = _Job(call, shaped, make_model(call), settings, seed, replicates, frames, tuple(out), int(subset))
    pool = call.pool
    if call.constants["TEAM"] and n_fits < FITS_A_THREAD * pool.workers and pool.workers > 1:
        for f in range(len(shaped)):
            job.fit_together(f)
            pool.tell((f + 1) / len(shaped))
    else:
        pool.run(job.fit_alone, len(shaped), tell=True)
