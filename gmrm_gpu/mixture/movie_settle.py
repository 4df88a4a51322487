"""Iterate movies until their parameters settle; each leaves the batch when it has (METHOD.md 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array
from .design import Samples
from .maps import CellMaps, log_prior, through_time
from .moments import Layout, Moments, join_moments, moments_and_resp
from .movie_steps import MovieParameters, MovieSteps
from .rows import groups

MAX_ITER = 200
"""Most iterations."""
LONGEST = 32.0
"""Longest extrapolation, in steps."""
TOL = 5e-4
"""A movie has settled once no mean and no trend coefficient of any frame moves by more than this part of a sigma."""


@dataclass(frozen=True)
class Settled:
    """R movies that have settled, or had their time.

    Attributes
    ----------
    deposits : (R, T, K, *grid) of the last pass. log_likelihood : (R, T) of the last pass, standardised.
    moved : (R,) what `TOL` was compared with. n_iter : (R,) iterations.
    """

    now: MovieParameters
    deposits: Array
    log_likelihood: Array
    moved: np.ndarray
    n_iter: np.ndarray


class Settler:
    """Movies still on their way, replicates first.

    Parameters
    ----------
    samples, cells : R * T rows; cells (R * T, blocks, n) of `maps`.
    """

    def __init__(self, now: MovieParameters, steps: MovieSteps, samples: Samples, cells: Array, maps: CellMaps) -> None:
        self.now, self.steps, self.samples, self.cells, self.maps = now, steps, samples, cells, maps
        self.backend = steps.backend
        self.layout = Layout(now.means.shape[1], now.coef.shape[1])
        self.index = np.arange(now.means.shape[0])
        self.ended: list[tuple[np.ndarray, Settled]] = []

    def run(self, notify: Callable[[float], None], max_iter: int | None = None) -> Settled:
        """All movies in their order. notify : called with the part of the iterations that is done, 0 to 1."""
        max_iter = max_iter or MAX_ITER
        _, deposits = self._pass(self.steps.theta(self.now, own_weights=True), None)
        before: list[MovieParameters] = []
        for n_iter in range(1, max_iter + 1):
            before.append(self.now)
            theta = self.steps.theta(self.now, own_weights=False)
            sums, deposits = self._pass(theta, deposits)
            self.now = self.steps.refitted(self.steps.reweighted(self.now, sums), sums)
            moved = self._moved(theta)
            # Not "moved > TOL": a fit whose numbers broke down has ended too.
            done = np.ones(moved.shape, dtype=bool) if n_iter == max_iter else ~(moved > TOL)
            if len(before) == 2:
                self.now, before = self._further(before[0], before[1], ~done), []
            if done.any():
                left = self.backend.asarray(np.flatnonzero(~done))
                before = [now.take(left, backend=self.backend) for now in before]
                deposits = self._part(done, sums.log_likelihood, deposits, moved, n_iter)
            notify(n_iter / max_iter)
            if done.all():
                break
        return self._joined()

    def _pass(self, theta: Array, deposits: Array | None) -> tuple[Moments, Array]:
        """Sums and deposits (R, T, K, *grid) with weights from the maps of `deposits`, a few rows at a time."""
        xp, backend, maps = self.backend.xp, self.backend, self.maps
        n_rows, k = theta.shape[0], self.layout.n_components
        made = backend.zeros((n_rows, k, *maps.grid))
        held = None if deposits is None else xp.reshape(through_time(deposits, backend=backend), made.shape)
        weights = xp.reshape(self.now.weights, (n_rows, k))
        sums = []
        for part in groups(n_rows, max(self.cells.shape[1] * self.cells.shape[2], maps.n_cells)):
            samples, cells = self.samples.rows(part.start, part.stop), self.cells[part, ...]
            if held is not None:
                prior = maps.prior(held[part, ...], weights[part, :])
                samples = replace(samples, log_weights=log_prior(maps.at_samples(prior, cells), xp))
            found, resp = moments_and_resp(samples, theta[part, :], self.layout, backend=backend)
            made[part, ...] = maps.deposit(cells, resp)
            sums.append(found)
        shape = (*self.now.weights.shape, *maps.grid)
        return join_moments(sums, backend=backend), xp.reshape(made, shape)

    def _further(self, first: MovieParameters, second: MovieParameters, which: np.ndarray) -> MovieParameters:
        """The common parameters of the movies `which`, extrapolated from three successive iterates (SQUAREM).

        Two components of one phase trade samples along a ridge that plain steps follow for hundreds of iterations.
        Nothing guards a bad extrapolation: the maps, weights and deviations stay as they are and pull it back.
        """
        xp, now, k = self.backend.xp, self.now, self.layout.n_components

        def vector(at: MovieParameters) -> Array:
            return xp.concat([at.means / now.sigmas, xp.log(at.sigmas), at.coef / smallest], axis=1)

        smallest = xp.min(now.sigmas, axis=1, keepdims=True)
        step = vector(second) - vector(first)
        bend = vector(now) - vector(second) - step
        size, turn = (xp.sqrt(xp.sum(a * a, axis=1, keepdims=True)) for a in (step, bend))
        length = xp.clip(size / xp.maximum(turn, xp.full_like(turn, 1e-12)), 1.0, LONGEST)
        far = vector(first) + 2.0 * length * step + length * length * bend
        taken = self.backend.asarray(which) & self._holds(far, now.sigmas, smallest)
        far = xp.where(taken[:, None], far, vector(now))
        means, log_sigmas, coef = far[:, :k] * now.sigmas, far[:, k : 2 * k], far[:, 2 * k :] * smallest
        return replace(now, means=means, sigmas=xp.exp(log_sigmas), coef=coef)

    def _holds(self, far: Array, sigmas: Array, smallest: Array) -> Array:
        """(R,) bool: whether the squares of deviations over variances at `far` are numbers in single precision."""
        xp, k = self.backend.xp, self.layout.n_components
        levels = xp.concat([far[:, :k] * sigmas, far[:, 2 * k :] * smallest], axis=1)
        return xp.all(xp.abs(levels) < 1e6, axis=1) & xp.all(xp.abs(far[:, k : 2 * k]) < 25, axis=1)

    def _moved(self, before: Array) -> np.ndarray:
        """(R,) largest change of a mean or a trend coefficient of any frame, in the smallest sigma."""
        xp, k, alive = self.backend.xp, self.layout.n_components, self.now.alive
        change = xp.abs(self.steps.theta(self.now, own_weights=False) - before)
        change = xp.reshape(change, (*self.now.weights.shape[:2], -1))
        means = xp.where(alive[:, None, :], change[..., k : 2 * k], xp.zeros_like(change[..., :k]))
        both = xp.reshape(xp.concat([means, change[..., 3 * k :]], axis=2), (alive.shape[0], -1))
        sigma = xp.min(xp.where(alive, self.now.sigmas, xp.full_like(self.now.sigmas, np.inf)), axis=1)
        return self.backend.to_host(xp.max(both, axis=1) / sigma)

    def _part(self, done: np.ndarray, log_likelihood: Array, deposits: Array, moved: np.ndarray, n_iter: int) -> Array:
        """Put the movies that are `done` aside; the deposits of the others."""
        backend, xp, n_frames = self.backend, self.backend.xp, self.now.weights.shape[1]
        log_likelihood = xp.reshape(log_likelihood, (done.size, n_frames))
        gone, left = (np.flatnonzero(mask) for mask in (done, ~done))
        rows = backend.asarray(gone)
        ended = Settled(
            self.now.take(rows, backend=backend),
            xp.take(deposits, rows, axis=0),
            xp.take(log_likelihood, rows, axis=0),
            moved[gone],
            np.full(gone.size, n_iter),
        )
        self.ended.append((self.index[gone], ended))
        if left.size:
            rows = backend.asarray(left)
            frames = backend.asarray((left[:, None] * n_frames + np.arange(n_frames)).reshape(-1))
            self.index, self.now, self.steps = (
                self.index[left],
                self.now.take(rows, backend=backend),
                self.steps.take(rows),
            )
            self.samples, self.cells = self.samples.take(frames, backend=backend), xp.take(self.cells, frames, axis=0)
            deposits = xp.take(deposits, rows, axis=0)
        return deposits

    def _joined(self) -> Settled:
        backend, xp = self.backend, self.backend.xp
        parts = [part for _, part in self.ended]
        order = np.argsort(np.concatenate([index for index, _ in self.ended]))
        rows = backend.asarray(order)
        return Settled(
            MovieParameters.join([part.now for part in parts], backend=backend).take(rows, backend=backend),
            xp.take(xp.concat([part.deposits for part in parts], axis=0), rows, axis=0),
            xp.take(xp.concat([part.log_likelihood for part in parts], axis=0), rows, axis=0),
            np.concatenate([part.moved for part in parts])[order],
            np.concatenate([part.n_iter for part in parts])[order],
        )
