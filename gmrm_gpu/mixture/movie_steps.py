"""Parameters of a movie and the M-steps that fit them, from the sums of one pass over all frames (METHOD.md 6)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..backend import Array, Backend
from .design import TrendBasis
from .drift import MOST_CONTRAST, normal_equations, smooth_walk, walk_precision
from .moments import NO_COMPONENT, Moments
from .steps import MIN_COUNT, moved, solve_normal

PSEUDO_COUNT = 0.5
"""Samples added to each component of each frame's weights."""


@dataclass
class MovieParameters:
    """R movies of T frames on the standardised scale; float64 but for `alive`.

    In frame t the trend is coef + b, the means are means + o + g (means - pivot) and the sigmas (1 + g) sigmas, where
    b, o and g are the parts of drift[:, t, :].

    Attributes
    ----------
    alive : (R, K) bool, False for a dropped component. weights : (R, T, K). means, sigmas : (R, K). coef : (R, q).
    pivot : (R, 1), the level that a change of contrast leaves alone. drift : (R, T, q + 2) as (b_1..b_q, o, g).
    """

    alive: Array
    weights: Array
    means: Array
    sigmas: Array
    coef: Array
    pivot: Array
    drift: Array

    @property
    def gain(self) -> Array:
        """(R, T, 1) contrast of each frame, relative to the movie's."""
        return 1.0 + self.drift[:, :, -1:]

    def take(self, rows: Array, *, backend: Backend) -> MovieParameters:
        """The movies at `rows` (int64)."""
        return MovieParameters(*(backend.xp.take(getattr(self, f.name), rows, axis=0) for f in fields(self)))

    @staticmethod
    def join(parts: list[MovieParameters], *, backend: Backend) -> MovieParameters:
        """The movies of all parts."""
        names = [f.name for f in fields(MovieParameters)]
        return MovieParameters(*(backend.xp.concat([getattr(p, name) for p in parts], axis=0) for name in names))


def frame_weights(count: Array, alive: Array, *, backend: Backend) -> Array:
    """Weights of each frame from its counts (R, T, K) or (R, K); alive (R, K)."""
    xp = backend.xp
    alive = alive if count.ndim == 2 else alive[:, None, :]
    weights = xp.where(alive, count + PSEUDO_COUNT, xp.zeros_like(count))
    total = xp.sum(weights, axis=-1, keepdims=True)
    return weights / xp.where(total > 0, total, xp.ones_like(total))


@dataclass(frozen=True)
class MovieSteps:
    """The M-steps of movies of one model.

    Attributes
    ----------
    floor : (R, 1) smallest sigma, standardised. pull : (R,) precision of the trend coefficients' prior, or None.
    strength : scale of the step of the random walk of the deviations; 0: no deviations.
    """

    basis: TrendBasis
    floor: Array
    pull: Array | None
    strength: float
    backend: Backend

    def take(self, rows: Array) -> MovieSteps:
        """The movies at `rows` (int64)."""
        xp = self.backend.xp
        pull = None if self.pull is None else xp.take(self.pull, rows)
        return replace(self, floor=xp.take(self.floor, rows, axis=0), pull=pull)

    def theta(self, now: MovieParameters, *, own_weights: bool) -> Array:
        """Parameters of every frame, (R * T, 3K + q); log weights are 0 where the samples carry their own."""
        xp = self.backend.xp
        rows, n_frames, k = now.weights.shape
        q = self.basis.n_terms
        alive = xp.broadcast_to(now.alive[:, None, :], now.weights.shape)
        logs = xp.zeros_like(now.weights)
        if own_weights:
            logs = xp.log(xp.where(alive & (now.weights > 0), now.weights, xp.ones_like(now.weights)))
        logs = xp.where(alive, logs, xp.full_like(logs, NO_COMPONENT))
        means = now.pivot[:, :, None] + now.drift[:, :, q : q + 1] + now.gain * (now.means - now.pivot)[:, None, :]
        log_sigmas = xp.log(now.sigmas)[:, None, :] + xp.log(now.gain)
        coef = now.coef[:, None, :] + now.drift[:, :, :q]
        return xp.reshape(xp.concat([logs, means, log_sigmas, coef], axis=2), (rows * n_frames, 3 * k + q))

    def reweighted(self, now: MovieParameters, sums: Moments) -> MovieParameters:
        """Components that hold too few samples dropped; each frame's weights."""
        xp = self.backend.xp
        count = xp.reshape(sums.resp[:, :, 0], now.weights.shape)
        alive = now.alive & (xp.sum(count, axis=1) >= MIN_COUNT)
        return replace(now, alive=alive, weights=frame_weights(count, alive, backend=self.backend))

    def refitted(self, now: MovieParameters, sums: Moments) -> MovieParameters:
        """Common means and trend; each frame's deviation; sigmas at the new means and trends."""
        xp = self.backend.xp
        count = xp.sum(xp.reshape(sums.resp[:, :, 0], now.weights.shape), axis=1)
        now, sums = self._common(now, sums)
        if self.strength > 0 and now.drift.shape[1] > 1:
            now, sums = self._drift(now, sums)
        square = xp.sum(xp.reshape(sums.square, now.weights.shape) / now.gain**2, axis=1)
        variance = xp.maximum(square / xp.maximum(count, xp.full_like(count, MIN_COUNT)), self.floor**2)
        return replace(now, sigmas=xp.where(now.alive, xp.sqrt(variance), now.sigmas))

    def _precision(self, now: MovieParameters) -> Array:
        """(R, T, K) inverse variances, 0 for a dropped component."""
        xp = self.backend.xp
        inverse = xp.where(now.alive, 1.0 / now.sigmas**2, xp.zeros_like(now.sigmas))
        return inverse[:, None, :] / now.gain**2

    def _rows(self, values: Array) -> Array:
        """(R, T, ...) -> (R * T, ...)."""
        return self.backend.xp.reshape(values, (values.shape[0] * values.shape[1], *values.shape[2:]))

    def _common(self, now: MovieParameters, sums: Moments) -> tuple[MovieParameters, Moments]:
        """Means and trend of all frames by one weighted least squares; the sums are returned about the new ones."""
        xp, q = self.backend.xp, self.basis.n_terms
        precision, gain = self._precision(now), now.gain
        resp, dev = (xp.reshape(a, (*now.weights.shape, -1)) for a in (sums.resp, sums.dev))
        own = xp.sum(precision * gain * gain * resp[..., 0], axis=1)
        own = xp.where(now.alive & (own > 0), own, xp.ones_like(own))
        right = xp.sum(precision * gain * dev[..., 0], axis=1)
        step = xp.zeros_like(now.coef)
        if q:
            cross = xp.sum((precision * gain)[..., None] * resp[..., 1 : q + 1], axis=1)
            step = self._trend_step(now, precision, resp, dev, cross, cross / own[:, :, None], right)
            right = right - xp.matmul(cross, step[:, :, None])[..., 0]
        shift = xp.where(now.alive, right / own, xp.zeros_like(right))
        everywhere = xp.broadcast_to(step[:, None, :], (*now.drift.shape[:2], q))
        shifts = self._rows(gain * shift[:, None, :])
        about = moved(sums, shifts, self._rows(everywhere), self.basis, backend=self.backend)
        return replace(now, means=now.means + shift, coef=now.coef + step), about

    def _trend_step(
        self, now: MovieParameters, precision: Array, resp: Array, dev: Array, cross: Array, scaled: Array, right: Array
    ) -> Array:
        """Step (R, q) of the common trend, the means' step eliminated."""
        xp, q = self.backend.xp, self.basis.n_terms
        pair = self.backend.asarray(self.basis.pair.reshape(-1), dtype=xp.int64)
        second = xp.sum(xp.sum(precision[..., None] * resp, axis=1), axis=1)
        normal = xp.reshape(xp.take(second, pair, axis=1), (-1, q, q))
        normal = normal - xp.matmul(xp.matrix_transpose(scaled), cross)
        wanted = xp.sum(xp.sum(precision[..., None] * dev[..., 1 : q + 1], axis=1), axis=1)
        wanted = wanted - xp.sum(scaled * right[:, :, None], axis=1)
        if self.pull is not None:
            normal = normal + self.pull[:, None, None] * xp.eye(q, dtype=xp.float64, device=self.backend.device)
            wanted = wanted - self.pull[:, None] * now.coef
        return solve_normal(normal, wanted, backend=self.backend)

    def _drift(self, now: MovieParameters, sums: Moments) -> tuple[MovieParameters, Moments]:
        """Each frame's deviation, tied to its neighbours'; the sums are returned about the new deviations."""
        xp, backend, q = self.backend.xp, self.backend, self.basis.n_terms
        now = self._with_pivot(now)
        contrast = now.means - now.pivot
        spread = xp.broadcast_to(contrast[:, None, :], now.weights.shape)
        information, pull = normal_equations(
            sums, self._rows(self._precision(now)), self._rows(spread), self.basis, backend
        )
        information = xp.reshape(information, (*now.drift.shape, q + 2))
        pull = xp.reshape(pull, now.drift.shape) + xp.matmul(information, now.drift[..., None])[..., 0]
        found = smooth_walk(information, pull, *walk_precision(q, self.strength, backend), backend=backend)
        contrasts = xp.clip(found[..., -1:], 1.0 / MOST_CONTRAST - 1.0, MOST_CONTRAST - 1.0)
        found = xp.concat([found[..., :-1], contrasts], axis=2)
        change = found - now.drift
        shift = change[:, :, q : q + 1] + change[:, :, q + 1 :] * spread
        about = moved(sums, self._rows(shift), self._rows(change[:, :, :q]), self.basis, backend=backend)
        return self._without_mean(now, found), about

    def _with_pivot(self, now: MovieParameters) -> MovieParameters:
        """The same frames' parameters, the pivot moved to the mean of the commonest component."""
        xp, q = self.backend.xp, self.basis.n_terms
        commonest = xp.argmax(xp.sum(now.weights, axis=1), axis=1)[:, None]
        pivot = xp.take_along_axis(now.means, commonest, axis=1)
        offset = now.drift[..., q : q + 1] + now.drift[..., -1:] * (pivot - now.pivot)[:, :, None]
        drift = xp.concat([now.drift[..., :q], offset, now.drift[..., -1:]], axis=2)
        return replace(now, pivot=pivot, drift=drift)

    def _without_mean(self, now: MovieParameters, drift: Array) -> MovieParameters:
        """With `drift`, but what all frames have in common moved to the common parameters: the same frames."""
        xp, q = self.backend.xp, self.basis.n_terms
        common = xp.mean(drift, axis=1)
        gain = 1.0 + common[:, q + 1 :]
        pivot = now.pivot + common[:, q : q + 1]
        rest = drift - common[:, None, :]
        rest = xp.concat([rest[..., : q + 1], rest[..., q + 1 :] / gain[:, :, None]], axis=2)
        means = pivot + gain * (now.means - now.pivot)
        return replace(now, means=means, coef=now.coef + common[:, :q], pivot=pivot, drift=rest)
