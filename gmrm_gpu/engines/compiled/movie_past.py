"""What earlier frames alone expect of the foreground, going forward in time (`kernels/movie_past.cu`, METHOD.md 6, 8).

Nothing of a frame's own samples enters its expectation, so frames follow each other; threads share a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .device import Call
from .jit import compiled
from .movie_crew import Crew, each_replicate
from .movie_deposits import A_STEP, deposit, deposit_together
from .movie_label import add_counts, place
from .movie_maps import (
    Maps,
    correct,
    halve,
    level_of_maps,
    make_maps,
    priors_of,
)
from .movie_pass import Scratch, make_scratch, read_block
from .movie_steps import Common, common_at, frame_theta, frame_weights
from .samples import Units, make_units
from .sums import BLOCK, Model, make_densities, make_model

_ZERO = np.float32(0.0)
_PART = 2 * BLOCK  # samples whose responsibilities are summed at a time
_LARGE, _MANY = 1 << 15, 1 << 13  # cells of a level, and samples, that are worth waking other threads for


@compiled
def go_on(first, last, held, made, decay, coarser):
    """The maps (K, rows, columns) of the next frame, and rows `first` to `last` of sums over two by two cells."""
    for k in range(held.shape[0]):
        for y in range(2 * first, 2 * last):
            for x in range(held.shape[2]):
                held[k, y, x] = decay * (held[k, y, x] + np.float32(made[k, y, x]) * A_STEP)
                made[k, y, x] = 0
    halve(held, coarser, first, last)


@compiled
def halve_further(maps, n_components, scratch):
    """Sums of all levels but the two finest."""
    for level in range(maps.n_levels - 3, -1, -1):
        out = level_of_maps(scratch, maps, n_components, level)
        halve(level_of_maps(scratch, maps, n_components, level + 1), out, 0, out.shape[1])


@compiled
def expect_rows(first, last, prior, foreground, pixel_shares, rows):
    """Rows `first` to `last` of rows (rows, ways) float64: the expectation in their cells, weighed in each way.

    prior : (K, rows, columns). pixel_shares : (cells, ways).
    """
    n = prior.shape[2]
    for y in range(first, last):
        for way in range(rows.shape[1]):
            total = 0.0
            for k in range(prior.shape[0]):
                if foreground[k]:
                    for x in range(n):
                        total += np.float64(prior[k, y, x]) * pixel_shares[y * n + x, way]
            rows[y, way] = total


@compiled
def _expect(prior, cells, n, foreground, probability):
    for i in range(n):
        probability[i] = _ZERO
    for k in range(prior.shape[0]):
        if foreground[k]:
            for i in range(n):
                probability[i] += prior[k, cells[i]]


@compiled
def read_parts(
    first, last, words, shape, units, maps, prior, theta, model, foreground, expected, made, counts, together, scratch
):
    """Parts `first` to `last` of a frame's samples.

    Parameters
    ----------
    words, expected : (m,). prior, made : (K, cells). counts : (parts, K) float64 sums of responsibilities.
    together : whether other threads deposit too.
    """
    make_densities(theta, model, scratch.densities)
    for part in range(first, last):
        counts[part, :] = 0.0
        for a in range(part * _PART, min((part + 1) * _PART, words.size), BLOCK):
            b = min(a + BLOCK, words.size)
            n, _ = read_block(words[a:b], shape[0], shape[1], units, maps, prior, model, scratch)
            add_counts(scratch.work.resp, n, counts[part])
            for k in range(model.k):
                if together:
                    deposit_together(scratch.work.resp, k, scratch.cells, n, made)
                else:
                    deposit(scratch.work.resp, k, scratch.cells, n, made)
            _expect(prior, scratch.cells, n, foreground, scratch.work.top)
            place(words[a:b], scratch.work.top, _ZERO, expected[a:b])


@dataclass(frozen=True)
class Past:
    """One replicate, frame by frame.

    Attributes
    ----------
    held, made : (K, rows, columns) float32, int32. numbers : (2 K cells,) float32 scratch of the levels.
    counts : (parts, K) float64. rows : (rows, ways) float64.
    """

    crew: Crew
    model: Model
    maps: Maps
    shape: tuple[int, int]
    units: Units
    common: Common
    foreground: np.ndarray
    pixel_shares: np.ndarray
    decay: np.float32
    held: np.ndarray
    made: np.ndarray
    numbers: np.ndarray
    counts: np.ndarray
    rows: np.ndarray

    def run(self, words: np.ndarray, drift: np.ndarray, expected: np.ndarray, means: np.ndarray) -> None:
        """words, expected (T, m), drift (T, q + 2), means (T, ways)."""
        k = self.model.k
        count, weights, theta = np.zeros(k), np.empty(k), np.empty(3 * k + self.model.q)
        self.held[:] = self.made[:] = 0
        for t in range(len(words)):
            frame_weights(count, self.common.alive, weights)
            frame_theta(self.common, drift[t], theta)
            prior = self.make_priors(weights.astype(np.float32))
            np.sum(self.rows, axis=0, out=means[t])
            self.read(words[t], prior.reshape(k, -1), theta, expected[t])
            np.sum(self.counts, axis=0, out=count)

    def make_priors(self, weights: np.ndarray) -> np.ndarray:
        """The frame's weights in every cell; their sums in every row."""
        maps, k, finest, share = self.maps, self.model.k, self.maps.n_levels - 1, self.crew.share
        level_of = level_of_maps.py_func
        sums = level_of(self.numbers, maps, k, finest - 1)
        numbers = priors_of(self.numbers, maps, k)
        small = self.held[0].size < _LARGE
        share(lambda a, b, _: go_on(a, b, self.held, self.made, self.decay, sums), sums.shape[1], alone=small)
        halve_further(maps, k, self.numbers)
        prior = coarser = widest = level_of(numbers, maps, k, 0)
        for level in range(finest + 1):
            fine = self.held if level == finest else level_of(self.numbers, maps, k, level)
            prior = level_of(numbers, maps, k, level)

            def work(a: int, b: int, mine: Scratch) -> None:
                correct(maps, level, fine, coarser, widest, weights, mine.strip, prior, a, b)  # noqa: B023
                if level == finest:  # noqa: B023
                    expect_rows(a, b, prior, self.foreground, self.pixel_shares, self.rows)  # noqa: B023

            share(work, fine.shape[1], alone=fine[0].size < _LARGE)
            coarser = prior
        return prior

    def read(self, words: np.ndarray, prior: np.ndarray, theta: np.ndarray, expected: np.ndarray) -> None:
        """Expectations at the samples, their deposits and counts."""
        made, alone = self.made.reshape(prior.shape), self.crew.is_one or words.size < _MANY

        def work(first: int, last: int, mine: Scratch) -> None:
            of_frame = (words, self.shape, self.units, self.maps, prior, theta, self.model, self.foreground)
            read_parts(first, last, *of_frame, expected, made, self.counts, not alone, mine)

        self.crew.share(work, len(self.counts), alone=alone)


def movie_past(
    call: Call,
    words: np.ndarray,
    n_replicates: int,
    n_frames: int,
    m: int,
    height: int,
    width: int,
    n_levels: int,
    usable: np.ndarray,
    units: np.ndarray,
    common: np.ndarray,
    drift: np.ndarray,
    foreground: np.ndarray,
    pixel_shares: np.ndarray,
    team_size: int,
    expected: np.ndarray,
    means: np.ndarray,
    made: np.ndarray,
    held: np.ndarray,
    scratch: np.ndarray,
    parts: np.ndarray,
    board: np.ndarray,
) -> None:
    """Arguments as of the CUDA kernel."""
    model, shape = make_model(call), (int(height), int(width))
    maps, decay = make_maps(call, *shape, int(n_levels), guarded=False), np.float32(call.constants["DECAY_PAST"])
    grid, n_parts = (model.k, maps.rows, maps.columns), -(-int(m) // _PART)
    made, held = (array.reshape(-1, *grid) for array in (made.view(np.int32), held))
    scratch, parts = scratch.reshape(len(held), -1), parts.reshape(len(held), -1)
    nothing = np.empty(0, np.float32)
    threads = [make_scratch(model, maps.columns, nothing) for _ in range(max(call.pool.workers, len(held)))]

    def work(r: int, team: int, crew: Crew) -> None:
        if not usable[r]:
            expected[r], means[r] = np.nan, np.nan
            return
        counts, rows = parts[team, : n_parts * model.k].reshape(n_parts, -1), np.empty((maps.rows, means.shape[2]))
        of_replicate = (make_units(*units[r]), common_at(common[r], model.k), foreground[r], pixel_shares, decay)
        job = Past(crew, model, maps, shape, *of_replicate, held[team], made[team], scratch[team], counts, rows)
        job.run(words[r], drift[r], expected[r], means[r])

    each_replicate(call.pool, int(n_replicates), len(held), threads, work)
