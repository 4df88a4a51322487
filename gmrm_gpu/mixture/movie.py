"""All frames of a movie fitted together: common phases, weights that vary over the frame, small drifts (METHOD.md 6).

One ECM. Its E-step takes each sample's weights from the maps that the other frames' samples make (`maps`); its
M-steps are the common means and trend (jointly), each frame's deviation (`drift`), and the common sigmas, all from
the sums of one pass. Replicates are the leading axis; each sees its own samples only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results import FitStatus, MixtureFit, MovieFit
from .design import BLOCK, Samples, TrendBasis, block_rows, frame_rows, make_samples, unblock
from .drift import normal_equations, smooth_walk, walk_precision
from .fit import fit_samples
from .maps import DECAY, CellMaps, n_levels
from .moments import NO_COMPONENT, Layout, Moments, e_step, moments_and_resp
from .steps import MIN_COUNT, moved, solve_normal

START_SAMPLES = 2**15
"""The start is fitted to an even subset of about this many samples of all frames."""
SUBSET_SAMPLES = 2**17
"""The parameters are fitted to an even subset of at least this many samples before all are used."""
N_FIT, N_LABEL = 40, 3
"""Iterations that fit the parameters, and that only settle the finest maps."""
FIT_LEVELS = 3
"""Levels of the maps that parameters are fitted with; the finer ones serve the labels alone."""
PSEUDO_COUNT = 0.5
"""Samples added to each component of each frame's weights."""
_SETTLED = 0.02
"""Change of a mean in the last iteration, in its sigmas, above which a fit counts as not converged."""


@dataclass(frozen=True)
class MovieLabels:
    """What the fitted movie says of each sample; device arrays.

    Attributes
    ----------
    best : (R, T, m) uint8, likeliest component, from the samples of all other frames.
    posterior : (R, T, m) probability of the foreground, likewise.
    expected : (R, T, m) probability of the foreground at the sample's pixel from earlier frames alone.
    expected_mean : (R, T) the same over all pixels of the frame, float64.
    """

    best: Array
    posterior: Array
    expected: Array
    expected_mean: Array


class MovieModel:
    """R replicates of a movie of T frames; `fit`, then `label`.

    Parameters
    ----------
    values : (R, T, m) intensities, any real dtype. positions : (R, T, m) int32 flat pixel indices.
    shape : (height, width). valid : (R, T, m) bool, False for padding.
    allowed : (height, width) bool, pixels that are not excluded.
    streams : (R, K) uint32 words for the k-means++ start. sigma_floor : grey levels.
    drift : scale of the random walk of each frame's deviation; 0: none.
    """

    def __init__(
        self,
        values: Array,
        positions: Array,
        shape: tuple[int, int],
        config: MixtureConfig,
        *,
        valid: Array | None = None,
        allowed: np.ndarray | None = None,
        streams: np.ndarray | None = None,
        sigma_floor: float = 1e-6,
        drift: float = 1.0,
        backend: Backend,
    ) -> None:
        xp = backend.xp
        self.config, self.backend, self.drift_strength = config, backend, drift
        self.n_replicates, self.n_frames, self.m = values.shape
        self.basis = TrendBasis(config.terms)
        self.layout = Layout(config.n_components, config.n_terms)
        flat = (self.n_replicates, self.n_frames * self.m)
        values, positions = backend.asarray(values), backend.asarray(positions)
        pooled_valid = None if valid is None else xp.reshape(backend.asarray(valid), flat)
        pooled = make_samples(
            xp.reshape(values, flat),
            xp.reshape(positions, flat),
            shape,
            self.basis,
            valid=pooled_valid,
            backend=backend,
        )
        self._start(pooled.subset(-(-START_SAMPLES // BLOCK)), streams, sigma_floor)
        self.samples = frame_rows(values, positions, shape, pooled, valid=valid, backend=backend)
        self.positions = xp.reshape(positions, (self.n_replicates * self.n_frames, self.m))
        self.allowed = allowed
        n_pixels = shape[0] * shape[1] if allowed is None else int(allowed.sum())
        self.rate = min(1.0, float(backend.to_host(xp.mean(self.samples.n))) / n_pixels)
        self.shape = shape

    def _start(self, pooled: Samples, streams: np.ndarray | None, sigma_floor: float) -> None:
        """Pooled fits (R,) as standardised parameters."""
        backend, config = self.backend, self.config
        self.pooled_fit = fit = fit_samples(pooled, config, streams=streams, sigma_floor=sigma_floor, backend=backend)
        centre, scale = (backend.to_host(a)[:, None] for a in (pooled.centre, pooled.scale))
        self.centre, self.scale = centre, scale
        alive = fit.weights > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            sigmas = np.where(alive, fit.sigmas / scale, 1.0)
        self.alive = backend.asarray(alive)
        weights = np.where(alive, fit.weights, 0.0)[:, None, :]
        self.weights = backend.asarray(np.repeat(weights, self.n_frames, axis=1))
        self.means = backend.asarray(np.where(alive, (fit.means - centre) / scale, 0.0))
        self.sigmas = backend.asarray(sigmas)
        self.coef = backend.asarray(np.nan_to_num(fit.coef / scale))
        floor = sigma_floor if config.sigma_floor is None else config.sigma_floor
        self.floor = backend.asarray(floor / scale)
        self.drift = backend.xp.zeros(
            (self.n_replicates, self.n_frames, config.n_terms + 2), dtype=backend.xp.float64, device=backend.device
        )
        self.change = backend.xp.zeros_like(self.floor[:, 0])

    def fit(self) -> MovieFit:
        """Parameters from an even subset of the samples, then the finest maps that all samples allow."""
        n_blocks = self.samples.z.shape[1]
        wanted = -(-SUBSET_SAMPLES // (self.n_frames * self.samples.z.shape[2]))
        stride = max(1, n_blocks // wanted)
        self._iterate(stride, N_FIT, refit=True)
        result = self._result()
        if stride > 1 or self._finest(1) > FIT_LEVELS:
            self._iterate(1, N_LABEL, refit=False)
        return result

    def _finest(self, stride: int) -> int:
        """Levels of the maps that every `stride`-th block allows."""
        kept = -(-self.samples.z.shape[1] // stride) / self.samples.z.shape[1]
        return n_levels(self.rate * kept)

    def _iterate(self, stride: int, n: int, *, refit: bool) -> None:
        """`n` times: maps from the responsibilities of every `stride`-th block, one pass, all M-steps.

        Without `refit` the parameters stay and only the maps settle: the finest ones hold so few samples that what
        they say repeats the labels they were made from, and parameters fitted with them would be too sure of those.
        """
        xp = self.backend.xp
        samples = self.samples if stride == 1 else self.samples.subset(self.samples.z.shape[1] // stride)
        levels = self._finest(stride)
        self.maps = CellMaps(self.shape, min(levels, FIT_LEVELS) if refit else levels, self.backend)
        blocks = block_rows(self.positions, self.backend)[:, ::stride, :]
        self.cells = self.maps.cells(xp.reshape(blocks, (blocks.shape[0], -1)))
        _, resp = moments_and_resp(samples, self._theta(log_weights=True), self.layout, backend=self.backend)
        for _ in range(n):
            self.deposits = self._deposit(samples, resp)
            prior = self.maps.prior(self.deposits, self.weights, "two-sided")
            samples = replace(samples, log_weights=self._at_samples(prior, samples.z.shape))
            sums, resp = moments_and_resp(samples, self._theta(), self.layout, backend=self.backend)
            self.log_likelihood = sums.log_likelihood
            self._m_steps(sums, refit=refit)

    def _deposit(self, samples: Samples, resp: Array) -> Array:
        xp = self.backend.xp
        rows, k = samples.z.shape[0], self.config.n_components
        by_component = xp.reshape(xp.permute_dims(resp, (2, 0, 1, 3)), (k, rows, -1))
        deposits = self.maps.deposit(self.cells, by_component)
        return xp.reshape(deposits, (self.n_replicates, self.n_frames, k, *self.maps.grid))

    def _at_samples(self, prior: Array, shape: tuple[int, ...]) -> Array:
        """Log prior (rows, blocks, K, n) of the samples, from maps (..., K, rows, columns) of as many rows."""
        xp, k = self.backend.xp, self.config.n_components
        flat = xp.reshape(prior, (shape[0], k, -1))
        found = [xp.take_along_axis(flat[:, j, :], xp.astype(self.cells, xp.int64), axis=1) for j in range(k)]
        stacked = xp.stack([xp.reshape(f, shape) for f in found], axis=2)
        tiny = xp.full_like(stacked, 1e-30)
        return xp.where(stacked > 0, xp.log(xp.maximum(stacked, tiny)), xp.full_like(stacked, NO_COMPONENT))

    # -- parameters ----------------------------------------------------------------------------------------------

    def _gain(self) -> Array:
        """(R, T) contrast of each frame, relative to the movie's."""
        return 1.0 + self.drift[:, :, -1]

    def _contrast(self) -> Array:
        """(R, K) means from that of the commonest component, which a change of contrast leaves alone."""
        xp = self.backend.xp
        pooled = xp.mean(self.weights, axis=1)
        index = xp.argmax(pooled, axis=1)[:, None]
        return self.means - xp.take_along_axis(self.means, index, axis=1)

    def _theta(self, *, log_weights: bool = False) -> Array:
        """Parameters of every frame, (R * T, 3K + q); log weights 0 where the samples carry their own."""
        xp, rows, frames = self.backend.xp, self.n_replicates, self.n_frames
        k, q = self.config.n_components, self.config.n_terms
        weights = self.weights
        alive = xp.broadcast_to(self.alive[:, None, :], weights.shape)
        logs = xp.log(xp.where(alive & (weights > 0), weights, xp.ones_like(weights)))
        logs = logs if log_weights else xp.zeros_like(logs)
        logs = xp.where(alive, logs, xp.full_like(logs, NO_COMPONENT))
        gain, offset = self._gain()[:, :, None], self.drift[:, :, q : q + 1]
        means = self.means[:, None, :] + offset + (gain - 1.0) * self._contrast()[:, None, :]
        log_sigmas = xp.log(self.sigmas)[:, None, :] + xp.log(gain)
        coef = self.coef[:, None, :] + self.drift[:, :, :q]
        return xp.reshape(xp.concat([logs, means, log_sigmas, coef], axis=2), (rows * frames, 3 * k + q))

    def _m_steps(self, sums: Moments, *, refit: bool) -> None:
        """Weights; common means and trend; each frame's deviation; common sigmas."""
        xp = self.backend.xp
        shape = (self.n_replicates, self.n_frames, self.config.n_components)
        count = xp.reshape(sums.resp[:, :, 0], shape)
        self.alive = self.alive & (xp.sum(count, axis=1) >= MIN_COUNT)
        weights = xp.where(self.alive[:, None, :], count + PSEUDO_COUNT, xp.zeros_like(count))
        total = xp.sum(weights, axis=2, keepdims=True)
        self.weights = weights / xp.maximum(total, xp.full_like(total, 1e-300))
        if not refit:
            return
        sums = self._common_step(sums)
        if self.drift_strength > 0 and self.n_frames > 1:
            sums = self._drift_step(sums)
        held = xp.maximum(xp.sum(count, axis=1), xp.full_like(self.sigmas, MIN_COUNT))
        square = xp.reshape(sums.square, shape) / (self._gain()[:, :, None] ** 2)
        variance = xp.maximum(xp.sum(square, axis=1) / held, self.floor**2)
        self.sigmas = xp.where(self.alive, xp.sqrt(variance), self.sigmas)

    def _rows(self, values: Array) -> Array:
        """(R, T, ...) -> (R * T, ...)."""
        return self.backend.xp.reshape(values, (self.n_replicates * self.n_frames, *values.shape[2:]))

    def _per_frame(self, values: Array) -> Array:
        """(R * T, ...) -> (R, T, ...)."""
        return self.backend.xp.reshape(values, (self.n_replicates, self.n_frames, *values.shape[1:]))

    def _precision(self) -> Array:
        """(R, T, K) inverse variances, 0 for a dropped component."""
        xp = self.backend.xp
        inverse = xp.where(self.alive, 1.0 / self.sigmas**2, xp.zeros_like(self.sigmas))
        return inverse[:, None, :] / self._gain()[:, :, None] ** 2

    def _common_step(self, sums: Moments) -> Moments:
        """Means and trend of all frames by one weighted least squares; returns the sums about the new ones."""
        xp, backend, q = self.backend.xp, self.backend, self.config.n_terms
        precision, gain = self._precision(), self._gain()[:, :, None]
        resp, dev = self._per_frame(sums.resp), self._per_frame(sums.dev)
        own = xp.sum(precision * gain * gain * resp[..., 0], axis=1)
        own = xp.where(self.alive & (own > 0), own, xp.ones_like(own))
        right = xp.sum(precision * gain * dev[..., 0], axis=1)
        right = xp.where(self.alive, right, xp.zeros_like(right))
        step = xp.zeros_like(self.coef)
        if q:
            pair = backend.asarray(self.basis.pair.reshape(-1), dtype=xp.int64)
            cross = xp.sum((precision * gain)[..., None] * resp[..., 1 : q + 1], axis=1)
            second = xp.sum(xp.sum(precision[..., None] * resp, axis=1), axis=1)
            normal = xp.reshape(xp.take(second, pair, axis=1), (-1, q, q))
            pull = xp.sum(xp.sum(precision[..., None] * dev[..., 1:], axis=1), axis=1)
            scaled = cross / own[:, :, None]
            normal = normal - xp.matmul(xp.matrix_transpose(scaled), cross)
            pull = pull - xp.sum(scaled * right[:, :, None], axis=1)
            step = solve_normal(normal, pull, backend=backend)
            right = right - xp.matmul(cross, step[:, :, None])[..., 0]
        shift = xp.where(self.alive, right / own, xp.zeros_like(right))
        self.change = xp.max(xp.abs(shift) / self.sigmas, axis=1)
        self.means, self.coef = self.means + shift, self.coef + step
        rows_shift = self._rows(gain * shift[:, None, :])
        rows_step = self._rows(xp.broadcast_to(step[:, None, :], (self.n_replicates, self.n_frames, q)))
        return moved(sums, rows_shift, rows_step, self.basis, backend=backend)

    def _drift_step(self, sums: Moments) -> Moments:
        """Each frame's deviation, tied to its neighbours'; returns the sums about the new deviations."""
        xp, backend, q = self.backend.xp, self.backend, self.config.n_terms
        contrast = self._contrast()
        rows_contrast = self._rows(xp.broadcast_to(contrast[:, None, :], self._precision().shape))
        information, pull = normal_equations(sums, self._rows(self._precision()), rows_contrast, self.basis, backend)
        information, pull = self._per_frame(information), self._per_frame(pull)
        pull = pull + xp.matmul(information, self.drift[..., None])[..., 0]
        step, first = walk_precision(q, self.drift_strength, backend)
        found = smooth_walk(information, pull, step, first, backend=backend)
        change = found - self.drift
        shift = change[:, :, q : q + 1] + change[:, :, q + 1 :] * contrast[:, None, :]
        # What all frames have in common belongs to the common parameters.
        common = xp.mean(found, axis=1)
        self.drift = found - common[:, None, :]
        self.coef = self.coef + common[:, :q]
        self.means = self.means + common[:, q : q + 1] + common[:, q + 1 :] * contrast
        return moved(sums, self._rows(shift), self._rows(change[:, :, :q]), self.basis, backend=backend)

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self) -> MovieFit:
        backend = self.backend
        k, q, terms = self.config.n_components, self.config.n_terms, self.config.terms
        host = backend.to_host
        theta = host(self._theta()).reshape(self.n_replicates, self.n_frames, 3 * k + q)
        weights, alive = host(self.weights), host(self.alive)
        scale, centre = self.scale[:, :, None], self.centre[:, :, None]
        n = host(self.samples.n).reshape(self.n_replicates, self.n_frames)
        lost = host(self.log_likelihood).reshape(n.shape) - n * np.log(self.scale)
        status = self._status(alive)
        both = (self.n_replicates, self.n_frames)
        frames = _sorted(
            weights,
            np.where(alive[:, None, :], theta[..., k : 2 * k] * scale + centre, np.nan),
            np.where(alive[:, None, :], np.exp(theta[..., 2 * k : 3 * k]) * scale, np.nan),
            theta[..., 3 * k :] * scale,
            (lost, np.full(both, N_FIT), n.astype(np.int64), np.broadcast_to(status[:, None], both).copy()),
            terms,
            host(self.means),
        )
        common = _sorted(
            weights.mean(axis=1),
            np.where(alive, host(self.means) * self.scale + self.centre, np.nan),
            np.where(alive, host(self.sigmas) * self.scale, np.nan),
            host(self.coef) * self.scale,
            (lost.sum(axis=1), np.full(both[0], N_FIT), n.sum(axis=1).astype(np.int64), status),
            terms,
            host(self.means),
        )
        drift = host(self.drift) * np.concatenate(
            [np.broadcast_to(scale, (both[0], 1, q + 1)), np.ones((both[0], 1, 1))], 2
        )
        self.order = np.argsort(np.where(alive, host(self.means), np.inf), axis=1, kind="stable")
        return MovieFit(common, frames, drift)

    def _status(self, alive: np.ndarray) -> np.ndarray:
        """(R,): that of the pooled fit, and what happened since."""
        status = self.pooled_fit.status.copy()
        change = self.backend.to_host(self.change)
        status = np.where((status == FitStatus.MAX_ITER) & (change <= _SETTLED), FitStatus.CONVERGED, status)
        status = np.where((status == FitStatus.CONVERGED) & ~(change <= _SETTLED), FitStatus.MAX_ITER, status)
        status = np.where((status < FitStatus.DEGENERATE) & ~alive.all(axis=1), FitStatus.DROPPED, status)
        sigmas = self.backend.to_host(self.sigmas)
        broken = ~np.isfinite(np.where(alive, sigmas, 1.0)).all(axis=1) | ~alive.any(axis=1)
        return np.where(broken & (status < FitStatus.DEGENERATE), FitStatus.DEGENERATE, status).astype(np.uint8)

    def label(self, foreground: np.ndarray) -> MovieLabels:
        """Labels after `fit`. foreground : (R, K) bool, components in ascending mean as in the fit."""
        xp, backend = self.backend.xp, self.backend
        # The fit reports components in ascending mean, the arrays here keep the order of the start.
        mine = np.zeros_like(foreground)
        np.put_along_axis(mine, self.order, foreground, axis=1)
        rank = np.argsort(self.order, axis=1)
        prior = self.maps.prior(self.deposits, self.weights, "two-sided")
        samples = replace(self.samples, log_weights=self._at_samples(prior, self.samples.z.shape))
        _, resp = moments_and_resp(samples, self._theta(), self.layout, backend=backend)
        resp = self._per_frame(xp.permute_dims(resp, (0, 2, 1, 3)))
        best = xp.argmax(resp, axis=2)
        ranks = backend.asarray(rank.astype(np.uint8))
        flat = xp.take_along_axis(ranks, xp.reshape(best, (self.n_replicates, -1)), axis=1)
        chosen = backend.real(mine.astype(np.float64))
        posterior = xp.sum(resp * chosen[:, None, :, None, None], axis=2)
        expected, expected_mean = self._from_the_past(chosen)
        return MovieLabels(
            unblock(xp.reshape(flat, best.shape), self.m, backend=backend),
            unblock(posterior, self.m, backend=backend),
            expected,
            expected_mean,
        )

    def _from_the_past(self, chosen: Array) -> tuple[Array, Array]:
        """Going forward in time: what the frames before expect of each sample, and of the mean pixel.

        Nothing of a frame's own samples enters its expectation, which is what makes the assisted estimate unbiased.
        """
        xp, backend, k = self.backend.xp, self.backend, self.config.n_components
        theta = self._per_frame(self._theta())
        shares = xp.astype(self.maps.pixel_shares(self.allowed), xp.float64)
        rows = backend.arange(self.n_replicates, dtype=xp.int64) * self.n_frames
        whole = self.cells
        alive = xp.astype(self.alive, xp.float64)
        weights = alive / xp.maximum(xp.sum(alive, axis=1, keepdims=True), xp.ones_like(alive[:, :1]))
        held: list[Array] | None = None
        expected, means = [], []
        for t in range(self.n_frames):
            part = self.samples.take(rows + t, backend=backend)
            self.cells = xp.take(whole, rows + t, axis=0)
            flat_prior = weights[..., None, None] * xp.ones((1, 1, *self.maps.grid), dtype=xp.float64)
            prior = xp.astype(flat_prior, backend.dtype) if held is None else self.maps.combine(held, weights)
            log_prior = self._at_samples(prior, part.z.shape)
            at_samples = xp.exp(log_prior) * chosen[:, None, :, None]
            expected.append(unblock(xp.sum(at_samples, axis=2), self.m, backend=backend))
            mean = xp.sum(xp.astype(prior, xp.float64) * xp.astype(chosen, xp.float64)[:, :, None, None], axis=1)
            means.append(xp.sum(xp.reshape(mean, (self.n_replicates, -1)) * shares[None, :], axis=1))
            _, _, resp = e_step(replace(part, log_weights=log_prior), theta[:, t, :], self.layout, backend=backend)
            deposits = self.maps.deposit(
                self.cells, xp.reshape(xp.permute_dims(resp, (2, 0, 1, 3)), (k, self.n_replicates, -1))
            )
            level = self.maps.levels(deposits)
            decay = DECAY["past"]
            held = [
                decay * new if held is None else decay * (old + new)
                for old, new in zip(held or level, level, strict=True)
            ]
            count = xp.sum(xp.sum(xp.astype(resp, xp.float64), axis=3), axis=1) + PSEUDO_COUNT * alive
            weights = count / xp.maximum(xp.sum(count, axis=1, keepdims=True), xp.ones_like(count[:, :1]))
        self.cells = whole
        return xp.stack(expected, axis=1), xp.stack(means, axis=1)


def _sorted(
    weights: np.ndarray,
    means: np.ndarray,
    sigmas: np.ndarray,
    coef: np.ndarray,
    rest: tuple[np.ndarray, ...],
    terms: tuple[tuple[int, int], ...],
    common: np.ndarray,
) -> MixtureFit:
    """A `MixtureFit` with components in ascending common mean, dropped ones last."""
    lead = means if means.ndim == 2 else means[:, 0, :]
    order = np.argsort(np.where(np.isnan(lead), np.inf, common), axis=1, kind="stable")
    order = order if means.ndim == 2 else np.broadcast_to(order[:, None, :], means.shape)
    weights, means, sigmas = (np.take_along_axis(a, order, axis=-1) for a in (weights, means, sigmas))
    log_likelihood, n_iter, n_samples, status = rest
    return MixtureFit(weights, means, sigmas, coef, log_likelihood, n_iter, n_samples, status, terms)
