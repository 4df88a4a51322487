"""Iterate many fits at once to convergence, whatever the mixture (METHOD.md 2-4).

Replicates are the leading axis. Each fit carries its own place in the SQUAREM cycle, one pass over the samples
serves all, and a fit that has converged leaves the batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results import FitStatus
from .design import Samples
from .moments import NO_COMPONENT

_START_BLOCKS = 4
"""Starts are compared on about this many blocks of 512 samples, an even subset."""

_START_STEP = 4.0
"""Longest extrapolation in the short runs that compare starts."""

_QUIET_CYCLES = 2
"""Cycles in a row that must gain too little before a fit counts as converged. One is not enough: on a flat ridge of
the likelihood a short cycle is often followed by one that gains a hundred times more."""

_MOST_REFUSED = 3
"""So often a histogram may lead downhill before its fit goes on without."""

_NEVER = -1e300
"""An objective below any other."""

_COMPACT = 0.75
"""Finished fits are taken out of the arrays once no more than this share is still active."""


class Model(Protocol):
    """A mixture as the driver sees it: theta is one row of numbers a fit, on the standardised scale."""

    @property
    def config(self) -> MixtureConfig:
        """How the fits are made."""

    @property
    def backend(self) -> Backend:
        """Where."""

    @property
    def n_parameters(self) -> int:
        """Free parameters of one fit, which needs more samples than that."""

    @property
    def histogram(self) -> Any:
        """What settles the components at a trend, see `histogram.Histogram`; None: nothing does."""

    def starts(self, samples: Samples, streams: np.ndarray | None) -> list[Array]:
        """Starting values (R, ...) of each start."""

    def evaluate(self, samples: Samples, theta: Array) -> tuple[Array, Any]:
        """Log-likelihood (R,) of one pass, and the sums that `step` needs."""

    def log_prior(self, samples: Samples, theta: Array) -> Array:
        """(R,) what is maximised beyond the log-likelihood."""

    def step(self, samples: Samples, sums: Any, theta: Array, floor: Array, schedule: str) -> Array:
        """The M-step."""

    def extrapolate(self, first: Array, second: Array, third: Array, limit: Array, floor: Array) -> tuple[Array, Array]:
        """SQUAREM from three successive iterates, at most `limit` (R,) long, and the length (R,)."""

    def empty(self, n_samples: np.ndarray, status: np.ndarray) -> Any:
        """A result of as many fits, all without parameters."""

    def write(
        self,
        out: Any,
        rows: np.ndarray,
        theta: np.ndarray,
        log_likelihood: np.ndarray,
        ended: FitStatus,
        units: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Store finished fits at `rows` of `out`, in grey levels; units : centre and scale of these fits."""


def best_start(model: Model, samples: Samples, streams: np.ndarray | None, floor: Array) -> Array:
    """Run every start a few passes on an even subset; per fit, the best point seen by any of them."""
    xp = model.backend.xp
    subset = samples.subset(_START_BLOCKS)
    starts = model.starts(subset, streams)
    if len(starts) == 1:
        return starts[0]
    best, best_value = _short_run(model, subset, starts[0], floor)
    for start in starts[1:]:
        theta, value = _short_run(model, subset, start, floor)
        best = xp.where((value > best_value)[:, None], theta, best)
        best_value = xp.maximum(value, best_value)
    return best


def _short_run(model: Model, samples: Samples, theta: Array, floor: Array) -> tuple[Array, Array]:
    """The best point, and its objective, of `n_start_iter` passes, every third an extrapolation.

    Nothing guards an extrapolation here: a bad one is simply not the best point.
    """
    xp = model.backend.xp
    best, best_value, path = theta, None, []
    for _ in range(model.config.n_start_iter):
        value, sums = model.evaluate(samples, theta)
        value = value + model.log_prior(samples, theta)
        value = xp.where(xp.isfinite(value), value, xp.full_like(value, -1e300))
        best = theta if best_value is None else xp.where((value > best_value)[:, None], theta, best)
        best_value = value if best_value is None else xp.maximum(value, best_value)
        path.append(theta)
        theta = model.step(samples, sums, theta, floor, "fast")
        if len(path) == 2:
            limit = xp.full_like(value, _START_STEP)
            theta, _ = model.extrapolate(path[0], path[1], theta, limit, floor)
            path = []
    return best, best_value


class Driver:
    """Iterates the active fits to convergence; every array has the active fits as its first axis.

    A SQUAREM cycle evaluates the objective (log-likelihood and log prior) at its first iterate (phase 0), at the
    second (phase 1), and at the extrapolated point (phase 2), which is either accepted as the next cycle's first, or
    replaced by the third iterate if the objective fell. So each fit's accepted objectives never fall.

    With a histogram the second iterate and the extrapolated point are settled before they are evaluated, and the second
    too is replaced, by the plain step, if the objective fell. After a quiet cycle comes one without: fits end with
    exact steps.

    Parameters
    ----------
    floor : smallest standard deviation, standardised; (R,), or (R, C) for channels.
    trace : receives (indices, objective) of the fits evaluated in each pass, on the standardised scale.
    """

    def __init__(self, model: Model, samples: Samples, floor: Array, trace: list | None) -> None:
        self.model, self.samples, self.floor, self.trace = model, samples, floor, trace
        self.config, self.backend, self.histogram = model.config, model.backend, model.histogram
        xp, rows = self.backend.xp, samples.z.shape[0]
        self.offset = samples.n * _row_sum(xp.log(samples.scale), xp)
        self.index = np.arange(rows)
        few = samples.n <= model.n_parameters
        varies = xp.reshape(xp.any(samples.z != 0, axis=(1, -1)), (rows, -1))
        self.done = few | ~xp.all(varies, axis=1)
        status = np.where(self.backend.to_host(few), FitStatus.TOO_FEW, FitStatus.DEGENERATE).astype(np.uint8)
        self.out = model.empty(self.backend.to_host(samples.n).astype(np.int64), status)

    def run(self, theta: Array) -> Any:
        """Converge every fit from its `theta`; the result that `Model.empty` made."""
        xp, backend = self.backend.xp, self.backend
        rows = self.index.size
        never = xp.full((rows,), _NEVER, dtype=xp.float64, device=backend.device)
        self.state: dict[str, Array] = {
            "theta": theta,
            "first": theta,
            "fallback": theta,
            "last": theta,
            "last_value": never,
            "phase": backend.zeros((rows,), xp.int64),
            "quiet": backend.zeros((rows,), xp.int64),
            "limit": backend.zeros((rows,), xp.float64) + 4.0,
            "length": backend.zeros((rows,), xp.float64),
            "first_value": never,
            "settled": backend.zeros((rows,), xp.bool),
            "refused": backend.zeros((rows,), xp.int64),
        }
        if self.histogram:
            self.state |= self.histogram.bins_of(rows)
        for n_iter in range(1, self.config.max_iter + 1):
            self._compact()
            if self.index.size == 0:
                return self.out
            self._pass(n_iter)
        last, value = self.state["last"], self.state["last_value"]
        self._finish(last, value, ~self.done, self.config.max_iter, FitStatus.MAX_ITER)
        return self.out

    def _pass(self, n_iter: int) -> None:
        """One pass over the samples, then each fit's next place in its cycle."""
        xp, theta, samples = self.backend.xp, self.state["theta"], self.samples
        value, sums = self.model.evaluate(samples, theta)
        value = value + self.model.log_prior(samples, theta)
        self._record(value)
        # A wild extrapolation is taken back below; anywhere else there is nothing to go back to.
        broken = ~xp.isfinite(value) & (self.state["phase"] != 2) & ~self.state["settled"]
        self._finish(theta, value, broken, n_iter, FitStatus.DEGENERATE)
        follow = self.model.step(samples, sums, theta, self.floor, self.config.schedule)
        if self.config.schedule == "fast":
            self._advance(theta, value, follow, n_iter)
            if self.histogram:
                self._settle(theta, sums)
            return
        converged = self._gain_is_small(value, self.state["first_value"])
        self._finish(theta, value, converged, n_iter, FitStatus.CONVERGED)
        first = xp.where(self._drops(theta, follow), xp.full_like(value, _NEVER), value)
        self.state.update(first_value=first, theta=follow, last=theta, last_value=value)

    def _advance(self, theta: Array, value: Array, follow: Array, n_iter: int) -> None:
        """Where each fit goes from `theta`, whose objective is `value` and whose M-step gives `follow`."""
        xp, state = self.backend.xp, self.state
        phase, settled = state["phase"], state["settled"]
        jumped = phase == 2
        fell = (jumped | settled) & ~(value >= state["last_value"])
        second = (phase == 1) & ~fell
        begins = ~second & ~fell
        small = self._gain_is_small(value, state["first_value"])
        quiet = xp.where(begins, xp.where(small, state["quiet"] + 1, xp.zeros_like(phase)), state["quiet"])
        self._finish(theta, value, quiet >= _QUIET_CYCLES, n_iter, FitStatus.CONVERGED)

        anew = self._drops(theta, follow) & ~fell
        # The highest, not the latest: rounding could make the latest rise and fall for ever.
        highest = xp.where(begins, xp.maximum(value, state["first_value"]), state["first_value"])
        limit = xp.where(begins & jumped & (state["length"] >= state["limit"]), 4.0 * state["limit"], state["limit"])
        limit = xp.where(fell & jumped, xp.clip(0.5 * limit, 1.0, 1e6), limit)
        jump, length = self.model.extrapolate(state["first"], theta, follow, limit, self.floor)
        after = xp.where(second[:, None], jump, follow)
        zero = xp.zeros_like(phase)
        state.update(
            theta=xp.where(fell[:, None], state["fallback"], after),
            fallback=xp.where(fell[:, None], state["fallback"], follow),
            first=xp.where(begins[:, None], theta, state["first"]),
            first_value=xp.where(anew, xp.full_like(value, _NEVER), highest),
            last=xp.where(fell[:, None], state["last"], theta),
            last_value=xp.where(fell, state["last_value"], value),
            limit=limit,
            length=xp.where(second, length, state["length"]),
            quiet=xp.where(anew, zero, quiet),
            refused=state["refused"] + xp.astype(fell & settled, xp.int64),
            phase=xp.where(fell, zero, xp.where(second, zero + 2, zero + 1)),
        )

    def _settle(self, theta: Array, sums: Any) -> None:
        """Settle the next points of the fits that gain, except a plain step that replaces a refused point."""
        xp, state = self.backend.xp, self.state
        wanted = (state["phase"] != 0) & (state["quiet"] == 0) & (state["refused"] < _MOST_REFUSED) & ~self.done
        if bool(xp.any(wanted)):
            state.update(self.histogram.settle(self.samples, sums, theta, state, self.floor, wanted))
        else:
            state["settled"] = wanted

    def _drops(self, theta: Array, follow: Array) -> Array:
        """(R,) bool: fits that lose a component, and objective with it, by the step from `theta` to `follow`.

        What was reached with it is nothing that the others could be held to: the cycles begin anew.
        """
        k = self.config.n_components
        lost = (follow[:, :k] < 0.5 * NO_COMPONENT) & (theta[:, :k] >= 0.5 * NO_COMPONENT)
        return self.backend.xp.any(lost, axis=1)

    def _gain_is_small(self, value: Array, before: Array) -> Array:
        # Per sample, not relative to the log-likelihood: that shifts, even through zero, with the unit of the data.
        return value - before <= self.config.tol * self.samples.n

    def _record(self, value: Array) -> None:
        if self.trace is not None:
            active = ~self.backend.to_host(self.done)
            self.trace.append((self.index[active], self.backend.to_host(value)[active]))

    def _compact(self) -> None:
        """Take finished fits out of the arrays once enough have finished."""
        xp, backend = self.backend.xp, self.backend
        active = np.flatnonzero(~backend.to_host(self.done))
        if active.size > _COMPACT * self.index.size:
            return
        self.index = self.index[active]
        if active.size == 0:
            return
        rows = backend.asarray(active.astype(np.int64))
        self.samples = self.samples.take(rows, backend=backend)
        self.floor, self.done, self.offset = (xp.take(a, rows, axis=0) for a in (self.floor, self.done, self.offset))
        self.state = {name: xp.take(value, rows, axis=0) for name, value in self.state.items()}

    def _finish(self, theta: Array, value: Array, which: Array, n_iter: int, status: FitStatus) -> None:
        """Write the fits of mask `which` that are still active to the result."""
        backend = self.backend
        mask = backend.to_host(which & ~self.done)
        if not mask.any():
            return
        self.done = self.done | which
        rows = self.index[mask]
        log_likelihood = value - self.model.log_prior(self.samples, theta) - self.offset
        units = backend.to_host(self.samples.centre)[mask], backend.to_host(self.samples.scale)[mask]
        self.out.n_iter[rows] = n_iter
        theta, log_likelihood = (backend.to_host(a)[mask] for a in (theta, log_likelihood))
        self.model.write(self.out, rows, theta, log_likelihood, status, units)


def _row_sum(array: Array, xp: Any) -> Array:
    """(R,) of (R,) or (R, C)."""
    return xp.sum(xp.reshape(array, (array.shape[0], -1)), axis=1)
