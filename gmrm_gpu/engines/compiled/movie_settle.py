"""Movies fitted as a whole until their parameters settle (`kernels/movie_settle.cu`, METHOD.md 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .device import Call
from .jit import compiled
from .movie_crew import Crew, each_replicate
from .movie_deposits import through_time
from .movie_maps import Maps, make_maps
from .movie_pass import make_scratch, pass_frames
from .movie_pool import take_even
from .movie_steps import Common, Movie, common_at, leap, refit, write_theta
from .movie_walk import Tie, make_tie
from .samples import Units, make_units, unpack
from .sums import BLOCK, Model, make_model, n_sums


@dataclass(frozen=True)
class Settling:
    """One replicate on its way.

    Attributes
    ----------
    words : (T, n) samples that the fit sees. made : (T, K cells) int32 deposits. held : (T, K cells) float32.
    floor, pull : of sigmas and of the trend, standardised. decay : of maps, a frame.
    """

    call: Call
    crew: Crew
    model: Model
    maps: Maps
    shape: tuple[int, int]
    words: np.ndarray
    units: Units
    common: Common
    movie: Movie
    tie: Tie
    floor: float
    pull: float
    made: np.ndarray
    held: np.ndarray

    def settle(self) -> tuple[float, int]:
        """From the start to the end: the last move, and the iterations."""
        decay, longest = (np.float32(self.call.constants["DECAY"]), float(self.call.constants["LONGEST"]))
        tolerance, most = float(self.call.constants["TOL"]), int(self.call.constants["MAX_ITER"])
        before: list[Common] = []
        write_theta(self.common, self.movie)
        self.look(mapped=False)
        for n_iter in range(1, most + 1):
            self.crew.share(lambda a, b, _: through_time(self.made, self.held, decay, a, b), self.made.shape[1])
            self.look(mapped=True)
            before.append(Common(*(part.copy() for part in self.common)))
            moved = refit(self.movie, self.common, self.floor, self.pull, self.tie, self.model)
            # Not "moved > tolerance": a fit whose numbers broke down has ended too.
            if n_iter == most or not moved > tolerance:
                break
            if len(before) == 2:
                leap(self.common, *before, longest)
                before = []
            write_theta(self.common, self.movie)
        return moved, n_iter

    def look(self, *, mapped: bool) -> None:
        """The E-step of every frame, with weights from the maps, or from the frames alone."""
        numbers = (self.words, self.shape, self.units, self.maps, mapped, self.held, self.movie.weights, self.model)
        self.crew.share(lambda a, b, mine: pass_frames(a, b, *numbers, self.made, self.movie, mine), len(self.words))


@compiled
def measure(words, unit):
    """Centre and scale (2,) of samples (n,)."""
    values, x, y = np.empty((3, BLOCK), np.float32)
    for moment in range(2):
        total, count = 0.0, 0
        for first in range(0, words.size, BLOCK):
            n = unpack(words[first : min(first + BLOCK, words.size)], 1, 1, values, x, y)
            for i in range(n):
                value = np.float64(values[i]) - (unit[0] if moment else 0.0)
                total += value * value if moment else value
            count += n
        total /= max(count, 1)
        unit[moment] = np.sqrt(total) if moment else total


def begin(
    job: Settling, weights: np.ndarray, means: np.ndarray, sigmas: np.ndarray, coef: np.ndarray, unit: Any
) -> None:
    """Where the pooled fit ended; grey levels: weights, means, sigmas (K,), coef (q,)."""
    alive, common, (centre, scale) = weights > 0.0, job.common, unit
    common.alive[:] = alive
    common.means[:] = np.where(alive, (means - centre) / scale, 0.0)
    common.sigmas[:] = np.where(alive, sigmas / scale, 1.0)
    common.coef[:] = coef / scale if coef.size else 0.0
    common.pivot[:] = 0.0
    job.movie.weights[:] = np.where(alive, weights, 0.0)
    job.movie.drift[:] = 0.0


def movie_settle(
    call: Call,
    words: np.ndarray,
    pooled: np.ndarray,
    n_pooled: int,
    n_replicates: int,
    n_frames: int,
    m: int,
    n: int,
    stride: int,
    height: int,
    width: int,
    n_levels: int,
    start_status: np.ndarray,
    broken: np.ndarray,
    start_weights: np.ndarray,
    start_means: np.ndarray,
    start_sigmas: np.ndarray,
    start_coef: np.ndarray,
    sigma_floor: float,
    trend_prior: float,
    strength: float,
    team_size: int,
    units: np.ndarray,
    common: np.ndarray,
    weights: np.ndarray,
    drift: np.ndarray,
    log_likelihood: np.ndarray,
    moved: np.ndarray,
    n_iter: np.ndarray,
    n_seen: np.ndarray,
    made: np.ndarray,
    subset: np.ndarray,
    held: np.ndarray,
    numbers: np.ndarray,
    scratch: np.ndarray,
    board: np.ndarray,
) -> None:
    """Arguments as of the CUDA kernel."""
    model = make_model(call)
    maps = make_maps(call, int(height), int(width), int(n_levels))
    tie = make_tie(call, model.q, float(strength))
    size, frames = model.k * maps.n_cells, int(n_frames)
    by_team = held.reshape(-1, frames, size)
    subsets = subset.reshape(len(by_team), frames, -1) if n < m else None
    sheets = numbers.reshape(len(by_team), -1)
    scratches = [make_scratch(model, maps.columns, part) for part in scratch.reshape(-1, 2 * size)]

    def work(r: int, team: int, crew: Crew) -> None:
        mine, unit = words[r].reshape(frames, -1), units[r]
        measure(pooled[r].reshape(-1), unit)
        if subsets is not None:
            take_even(mine, int(stride), subsets[team])
            mine = subsets[team]
        n_seen[r] = np.count_nonzero(mine != ~mine.dtype.type(0), axis=1)
        usable = start_status[r] < int(call.constants["UNUSABLE"]) and not broken[r]
        floor = sigma_floor / unit[1] if usable else 1.0
        pull = (unit[1] / trend_prior) ** 2 if trend_prior > 0.0 else 0.0
        movie = movie_at(sheets[team], weights[r], drift[r], model)
        made_here = made[r].reshape(frames, size).view(np.int32)
        job = Settling(
            *(call, crew, model, maps, (int(height), int(width)), mine, make_units(*unit)),
            *(common_at(common[r], model.k), movie, tie, floor, pull, made_here, by_team[team]),
        )
        if usable:
            begin(job, start_weights[r], start_means[r], start_sigmas[r], start_coef[r], unit)
            moved[r], n_iter[r] = job.settle()
        else:
            leave_unfitted(job)
            moved[r], n_iter[r] = 0.0, 1
        log_likelihood[r] = movie.sums[:, -1]

    each_replicate(call.pool, int(n_replicates), len(by_team), scratches, work, tell=True)


def movie_at(numbers: np.ndarray, weights: np.ndarray, drift: np.ndarray, model: Model) -> Movie:
    """Views of a team's numbers: (T, 3 K + q), (T, N_SUMS), (T, (q + 2) (q + 3))."""
    n_frames, n_theta, total, d = len(weights), 3 * model.k + model.q, n_sums(model), model.q + 2
    theta, sums, walk = np.split(numbers, [n_frames * n_theta, n_frames * (n_theta + total)])
    walk = walk.reshape(n_frames, d, d + 1)
    return Movie(weights, drift, theta.reshape(n_frames, -1), sums.reshape(n_frames, -1), walk)


def leave_unfitted(job: Settling) -> None:
    """What a replicate without parameters leaves: components dropped, no deviations."""
    for part in (*job.common, job.movie.weights, job.movie.drift):
        part[:] = 0.0
    job.common.sigmas[:] = 1.0
    job.movie.sums[:, -1] = 0.0
