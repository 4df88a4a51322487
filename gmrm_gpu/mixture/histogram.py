"""The residual histogram: weights, means and sigmas settle at a given trend, the samples unseen (METHOD.md 3).

At a fixed trend the samples are a mixture of one number, their residual, and a histogram of it tells nearly all. What
it does not tell is made up for: a pass over the samples gives the sums of its M-step exactly, and what the sums over
the bins lack there, at the same parameters, is added to the sums over the bins everywhere. Where a pass finds nothing
to change, neither does the histogram: the fixed point is the exact one, whatever the width of the bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results import FitStatus
from .design import Samples, TrendBasis
from .driver import Driver
from .moments import GROUP_SAMPLES, NO_COMPONENT, Layout, Moments, moments, residuals
from .steps import extrapolate, m_step

BINS = 512
"""Half a grey level each where 8-bit data fill their range."""

_PARTS = 64
"""A sample is shared between the two bins beside it in whole parts, which add up to the same in any order."""

_REACH = 6.0
"""The bins end so many sigmas beyond the means; what lies farther out counts in the last ones."""

_COARSE = 0.5
"""Bins wider than this part of the smallest sigma tell too little."""

_MOST_STEPS = 300
"""Steps on the bins for one on the samples."""

_NO_TREND = TrendBasis(())
_NAMES = ("centres", "counts")


@dataclass
class Bins(Samples):
    """The bins of R fits: samples without trend, `valid` (R, 1, BINS) times each.

    Attributes
    ----------
    missing : (R, 3, K) what the sums of w, w r and w r^2 over the bins lack, r the standardised residual.
    """

    missing: Array = None

    def take(self, rows: Array, *, backend: Backend) -> Bins:
        """The fits at `rows` (int64)."""
        taken: Any = super().take(rows, backend=backend)
        return replace(taken, missing=backend.xp.take(self.missing, rows, axis=0))


@dataclass(frozen=True)
class Histogram:
    """Settles fits on their residual histograms; sums in float64, bins as exact as `backend`'s residuals."""

    config: MixtureConfig
    backend: Backend

    @property
    def _exact(self) -> Backend:
        return replace(self.backend, dtype=self.backend.xp.float64)

    def settle(
        self,
        samples: Samples,
        sums: Moments,
        theta: Array,
        state: dict[str, Array],
        floor: Array,
        wanted: Array,
    ) -> dict[str, Array]:
        """Settle the fits that are wanted, (R,) bool, at the trends of the points they go to, ``state["theta"]``.

        Parameters
        ----------
        sums : of the pass at `theta` (R, 3K + q). floor : (R,) smallest sigma, standardised.
        state : of the driver, with the arrays of `bins_of`, which are those at `theta` where ``state["settled"]``.

        Returns
        -------
        What changes of `state`. A fit that is not wanted, or has too coarse bins, keeps its point.
        """
        xp, target, known = self.backend.xp, state["theta"], state["settled"]
        own = self._binned(samples, theta, wanted & ~known)
        here = [xp.where(known[:, None], state[name], array) for name, array in zip(_NAMES, own, strict=False)]
        *there, fine = self._binned(samples, target, wanted & (known | own[2]))
        new = dict(zip(_NAMES, there, strict=True)) | {"settled": fine}
        rows = self.backend.asarray(np.flatnonzero(self.backend.to_host(fine)).astype(np.int64))
        if rows.shape[0] == 0:
            return new

        def pick(array: Array) -> Array:
            return xp.take(array, rows, axis=0)

        n, k = pick(samples.n), self.config.n_components
        exact = (sums.log_likelihood, sums.resp[:, :, :1], sums.dev[:, :, :1], sums.square)
        missing = self._missing(
            self._bins(pick(here[0]), pick(here[1]), n), Moments(*map(pick, exact)), pick(theta)[:, : 3 * k]
        )
        bins = replace(self._bins(pick(there[0]), pick(there[1]), n), missing=missing)
        found = self._converged(bins, pick(target)[:, : 3 * k], pick(floor))
        place = xp.clip(xp.cumulative_sum(xp.astype(fine, xp.int64)) - 1, 0, rows.shape[0] - 1)
        settled = xp.where(fine[:, None], xp.take(found, place, axis=0), target[:, : 3 * k])
        return new | {"theta": xp.concat([settled, target[:, 3 * k :]], axis=1)}

    def bins_of(self, rows: int) -> dict[str, Array]:
        """Room for the bins of so many fits: centres and counts (R, BINS)."""
        return {name: self.backend.zeros((rows, BINS), self.backend.xp.float64) for name in _NAMES}

    def _converged(self, bins: Bins, theta: Array, floor: Array) -> Array:
        """Parameters (R, 3K) that the bins settle at, from theta; theta itself where they would drop a component.

        Only a step on the samples may do that.
        """
        xp = self.backend.xp
        config = replace(
            self.config,
            trend="none",
            trend_prior=None,
            histogram=False,
            max_iter=_MOST_STEPS,
            tol=0.01 * self.config.tol,
        )
        found = self.backend.asarray(Driver(BinModel(config, self._exact), bins, floor, None).run(theta).theta)
        before, after = (a[:, : self.config.n_components] > 0.5 * NO_COMPONENT for a in (theta, found))
        sound = xp.all(xp.isfinite(found), axis=1) & xp.all(after | ~before, axis=1)
        return xp.where(sound[:, None], found, theta)

    def _missing(self, bins: Bins, exact: Moments, theta: Array) -> Array:
        """(R, 3, K) what sums over the bins lack at the parameters theta (R, 3K), about zero instead of the means."""
        layout = Layout(self.config.n_components, 0)
        binned = moments(bins, theta, layout, backend=self._exact)
        means = layout.split(theta)[1]
        count, dev = ((a - b)[:, :, 0] for a, b in ((exact.resp, binned.resp), (exact.dev, binned.dev)))
        square = exact.square - binned.square
        about_zero = [count, dev + means * count, square + means * (2.0 * dev + means * count)]
        return self.backend.xp.stack(about_zero, axis=1)

    def _bins(self, centres: Array, counts: Array, n: Array) -> Bins:
        xp = self.backend.xp
        one = xp.ones_like(n)
        features = self._exact.zeros((1, 1, 1, BINS)) + 1.0
        return Bins(centres[:, None, :], features, counts[:, None, :], 0.0 * one, one, n, _NO_TREND)

    def _binned(self, samples: Samples, theta: Array, wanted: Array) -> tuple[Array, Array, Array]:
        """Centres and counts (R, BINS) of the bins at the trend of theta, zero where not wanted or too coarse."""
        xp, rows = self.backend.xp, theta.shape[0]
        low, width, fine = self._grid(samples, theta)
        wanted = wanted & fine
        low, width = (xp.where(wanted, a, b) for a, b in ((low, 0.0 * samples.n), (width, 0.0 * samples.n + 1.0)))
        parts = [
            self._counts(samples.rows(i, j), theta[i:j, :], low[i:j], width[i:j], wanted[i:j])
            for i, j in _groups(rows, samples.z.shape[1] * samples.z.shape[2])
        ]
        counts = xp.where(wanted[:, None], xp.concat(parts, axis=0), 0.0 * low[:, None])
        centres = low[:, None] + width[:, None] * self.backend.arange(BINS, dtype=xp.float64)[None, :]
        return centres, counts, wanted

    def _grid(self, samples: Samples, theta: Array) -> tuple[Array, Array, Array]:
        """First centre, width of the bins (R,), and whether they are fine enough."""
        xp = self.backend.xp
        log_weights, means, log_sigmas, coef = Layout(self.config.n_components, self.config.n_terms).split(theta)
        alive, sigmas = log_weights > 0.5 * NO_COMPONENT, xp.exp(log_sigmas)
        far = xp.full_like(means, 1e300)
        bend = xp.sum(xp.abs(coef), axis=1)  # no term is larger than one
        values = xp.astype(samples.z, xp.float64)
        low = xp.min(xp.where(alive, means - _REACH * sigmas, far), axis=1)
        high = xp.max(xp.where(alive, means + _REACH * sigmas, -far), axis=1)
        low = xp.maximum(low, xp.min(values, axis=(1, 2)) - bend)
        high = xp.minimum(high, xp.max(values, axis=(1, 2)) + bend)
        width = (high - low) / (BINS - 1)
        least = xp.min(xp.where(alive, sigmas, far), axis=1)
        return low, width, (width > 0) & (width <= _COARSE * least)

    def _counts(self, samples: Samples, theta: Array, low: Array, width: Array, wanted: Array) -> Array:
        """(R, BINS) float64: how often each bin counts, a sample shared between the two bins beside it."""
        backend, xp, rows = self.backend, self.backend.xp, theta.shape[0]
        if not bool(xp.any(wanted)):
            return backend.zeros((rows, BINS), xp.float64)
        residual = residuals(samples, theta[:, 3 * self.config.n_components :], backend=backend)
        first, inverse = (xp.astype(a, backend.dtype)[:, None, None] for a in (low, 1.0 / width))
        place = (residual - first) * inverse
        place = xp.where(place > 0, place, xp.zeros_like(place))  # so is what is no number
        place = xp.minimum(place, xp.full_like(place, BINS - 1.0))
        left = xp.astype(xp.minimum(place, xp.full_like(place, BINS - 2.0)), xp.int64)
        upper = xp.round((xp.astype(place, xp.float64) - xp.astype(left, xp.float64)) * _PARTS)
        times = xp.astype(samples.valid, xp.float64)
        index = left + (backend.arange(rows, dtype=xp.int64) * BINS)[:, None, None]

        def counted(index: Array, parts: Array) -> Array:
            return backend.count(xp.reshape(index, (-1,)), xp.reshape(times * parts, (-1,)), rows * BINS)

        return xp.reshape(counted(index, _PARTS - upper) + counted(index + 1, upper), (rows, BINS)) / _PARTS


def _groups(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Fits start..stop - 1 of `size` samples each that fit the cache of a core."""
    step = max(1, GROUP_SAMPLES // size)
    return ((i, min(i + step, rows)) for i in range(0, rows, step))


@dataclass
class Settled:
    """theta (R, 3K) float64 and n_iter (R,), on the host."""

    theta: np.ndarray
    n_iter: np.ndarray


@dataclass(frozen=True)
class BinModel:
    """The mixture of `Bins` as `Driver` wants it; see `driver.Model`.

    It maximises the log-likelihood of the bins plus that of what they lack, in the sense of complete data: the sums
    that an M-step takes are then both together, and no step lets it fall.
    """

    config: MixtureConfig
    backend: Backend

    @property
    def layout(self) -> Layout:
        """Where the parameters stand."""
        return Layout(self.config.n_components, 0)

    @property
    def n_parameters(self) -> int:
        """3K - 1."""
        return self.config.n_parameters

    @property
    def histogram(self) -> None:
        """A histogram has none of its own."""
        return None

    def starts(self, samples: Samples, streams: np.ndarray | None) -> list[Array]:
        """It has none: it begins where it is told."""
        raise NotImplementedError

    def evaluate(self, samples: Any, theta: Array) -> tuple[Array, Moments]:
        """What is maximised (R,), and the sums, of `Bins`."""
        xp = self.backend.xp
        sums = moments(samples, theta, self.layout, backend=self.backend)
        log_weights, means, log_sigmas, _ = self.layout.split(theta)
        count = samples.missing[:, 0, :]
        dev = samples.missing[:, 1, :] - means * count
        square = samples.missing[:, 2, :] - means * (samples.missing[:, 1, :] + dev)
        value = count * (log_weights - log_sigmas) - 0.5 * xp.exp(-2.0 * log_sigmas) * square
        value = xp.sum(xp.where(log_weights > 0.5 * NO_COMPONENT, value, 0.0 * value), axis=1)
        resp, dev = sums.resp + count[:, :, None], sums.dev + dev[:, :, None]
        return sums.log_likelihood + value, Moments(sums.log_likelihood, resp, dev, sums.square + square)

    def log_prior(self, samples: Samples, theta: Array) -> Array:
        """None: the trend is fixed."""
        return 0.0 * theta[:, 0]

    def step(self, samples: Samples, sums: Moments, theta: Array, floor: Array, schedule: str) -> Array:
        """The M-step."""
        return m_step(sums, theta, _NO_TREND, layout=self.layout, schedule=schedule, floor=floor, backend=self.backend)

    def extrapolate(self, first: Array, second: Array, third: Array, limit: Array, floor: Array) -> tuple[Array, Array]:
        """SQUAREM."""
        return extrapolate(first, second, third, limit, layout=self.layout, floor=floor, backend=self.backend)

    def empty(self, n_samples: np.ndarray, status: np.ndarray) -> Settled:
        """Parameters that are no numbers."""
        rows = len(status)
        return Settled(np.full((rows, 3 * self.config.n_components), np.nan), np.zeros(rows, dtype=np.int64))

    def write(
        self,
        out: Settled,
        rows: np.ndarray,
        theta: np.ndarray,
        log_likelihood: np.ndarray,
        ended: FitStatus,
        units: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Keep the parameters, however they ended."""
        out.theta[rows] = theta
