"""The movie-level fit going forward in time: each frame judged by itself and those before it (METHOD.md 6, live).

Four things are carried from frame to frame, and none of them grows: the sums over past samples that the common means,
trend and sigmas come from, faded with time; maps of what was where; a Kalman filter for how the present frame differs
from the common parameters; and a thin sample of the past, to which the whole model is fitted anew now and then, since a
phase that appears later is found by new starts only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from ..results.fit import FitStatus, MixtureFit, MovieFit
from .design import Samples, TrendBasis, unblock
from .drift import MOST_CONTRAST, normal_equations, walk_precision
from .maps import DECAY_PAST, FLOOR, SHRINKAGE, CellMaps, log_prior, n_levels
from .moments import Layout, Moments, moments_and_resp
from .movie import MovieModel
from .movie_steps import MovieParameters, MovieSteps, frame_weights
from .reservoir import N_LATEST, Frame
from .rows import FrameRows
from .steps import moved

MEMORY_FRAMES = 50
"""Frames after which the common sums of a past frame have faded to 1/e."""
LEAST_HELD = 2000.0
"""Samples of a component below which its sums fade no further: a phase that is gone is not forgotten."""
N_INNER = 2
"""Passes over a frame's samples in which its deviation settles."""
SETTLED = 0.01
"""Change of the deviation in the last of them, standardised, above which it has not settled."""
FEW, USUAL = 30.0, 0.3
"""Samples below which a component's mean in a frame is not looked at; weight of a frame in the running means."""
ALIKE = 0.3
"""Parts of a sigma by which the means of two fits to the past may differ while their components count as the same."""
START_TOL, FIT_ITER = 1e-6, 32
"""Tolerance of the start of a fit to the past, and its most iterations: what is left the coming frames settle."""


@dataclass
class Carried:
    """What goes from frame to frame; one movie, so the leading axes are 1.

    Attributes
    ----------
    now : parameters of the latest frame (R = T = 1), components in ascending mean of the latest fit.
    centre, scale : grey levels by which samples are standardised. sums : common sums, about `now` without its drift,
    in units of a frame of contrast 1. cov : (q + 2, q + 2) covariance of the deviation. held : (1, K, *grid).
    evidence : (4, K) on the host, see `CausalModel.placed`. usual : (K + 1,) on the
    host, running means of each component's deviation from its mean and of a sample's log-likelihood, standardised.
    """

    now: MovieParameters
    centre: float
    scale: float
    sums: Moments
    cov: Array
    held: Array
    evidence: np.ndarray
    usual: np.ndarray


@dataclass(frozen=True)
class Seen:
    """What one frame's samples say; device arrays, samples in the order they came.

    Attributes
    ----------
    best : (m,) likeliest component. resp : (K, m) responsibilities. predicted : (K, m), what the past alone expects at
    the samples. predicted_mean : (K,) float64, mean over the pixels that are not excluded. log_likelihood : of the
    frame, natural log, of grey levels. moved : by how much the deviation changed in the last pass, standardised.
    shift : (2, q + 2 + K + 1) on the host, by how much the frame differs from what the past expects of it: trend
    coefficients, offset (grey levels), contrast (relative), means (grey levels; NaN for a component of few samples),
    log-likelihood of a sample at the prediction. The first row is as steady as it can be: the deviation held back by
    the past, the means times the root of their samples. The second is what the frame says by itself.
    """

    best: Array
    resp: Array
    predicted: Array
    predicted_mean: np.ndarray
    log_likelihood: float
    moved: float
    shift: np.ndarray


@dataclass(frozen=True)
class Proposal:
    """A fit to the sample of the past, and what to go on from; None where it has no usable parameters."""

    fit: MovieFit
    carried: Carried | None


@dataclass(frozen=True)
class _Judged:
    """Weights (1, K, *grid) expected from the past; responsibilities (1, blocks, K, n), sums; see `Seen.moved`."""

    expected: Array
    resp: Array
    sums: Moments
    moved: float
    shift: np.ndarray


class CausalModel:
    """One movie, frame by frame: `fit` to the sample of the past now and then, `step` for every frame.

    Parameters
    ----------
    shape : (height, width). rate : part of the pixels that a frame's samples are, decides how fine the maps are.
    allowed : (height, width) bool, pixels that are not excluded. sigma_floor : grey levels.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        config: MixtureConfig,
        *,
        rate: float,
        allowed: np.ndarray | None = None,
        sigma_floor: float = 1e-6,
        backend: Backend,
    ) -> None:
        self.shape, self.config, self.allowed, self.backend, self.rate = shape, config, allowed, backend, rate
        self.floor = sigma_floor if config.sigma_floor is None else config.sigma_floor
        self.basis = TrendBasis(config.terms)
        self.layout = Layout(config.n_components, config.n_terms)
        self.maps = CellMaps(shape, n_levels(rate), backend, purest=1.0)
        self.pixel_shares = backend.asarray(self.maps.pixel_shares(allowed))
        self.carried: Carried | None = None

    # -- a fit to the sample of the past ------------------------------------------------------------------------------

    def fit(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray], streams: np.ndarray) -> Proposal:
        """All parameters from the sample of the past (`Reservoir.rows`); changes nothing, so a thread may do it."""
        backend = self.backend
        values, positions, valid = rows
        model = MovieModel(
            backend.asarray(values[None]),
            backend.asarray(positions[None]),
            self.shape,
            replace(self.config, tol=max(self.config.tol, START_TOL)),
            valid=None if valid.all() else backend.asarray(valid[None]),
            allowed=self.allowed,
            streams=streams,
            sigma_floor=self.floor,
            drift=self.config.drift,
            backend=backend,
        )
        found = model.fit(max_iter=FIT_ITER)
        if found.common.status[0] >= FitStatus.DEGENERATE:
            return Proposal(found, None)
        now = _ordered(model.reader.now, model.order, backend)
        last = replace(now, weights=now.weights[:, -1:, :], drift=now.drift[:, -1:, :])
        step, _ = walk_precision(self.basis.n_terms, max(self.config.drift, 1e-3), backend)
        carried = Carried(
            last,
            float(model.centre[0]),
            float(model.scale[0]),
            self._sums(model),
            backend.xp.eye(step.shape[0], dtype=step.dtype, device=backend.device) * (N_LATEST / step[:, None]),
            backend.zeros((1, self.layout.n_components, *self.maps.grid)),
            np.zeros((4, self.layout.n_components)),
            np.full(self.layout.n_components + 1, np.nan),
        )
        return Proposal(found, carried)

    def adopt(self, proposal: Proposal, latest: list[Frame]) -> bool:
        """Go on from a fit; whether its components are other ones than before.

        Where they are the same, what was learned of places and of the present frame stays. Where not, the frames just
        past, `latest`, are gone through once more. The present frame must not be among them: its own samples would
        vote for it.
        """
        assert proposal.carried is not None, "a fit without parameters cannot be adopted"
        before, new = self.carried, replace(proposal.carried)
        self.carried = new
        if before is not None and _alike(before, new, self.backend):
            new.now = self._in_units_of(before, new)
            new.held, new.usual, new.evidence = before.held, before.usual, before.evidence
            return False
        for values, positions in latest:
            samples, cells = self._samples(values, positions, new)
            self._judge(new, samples, cells)
        return True

    def _in_units_of(self, old: Carried, new: Carried) -> MovieParameters:
        """The new common parameters with the deviation that makes of them what the latest frame was by the old."""
        xp, host, k = self.backend.xp, self.backend.to_host, self.layout.n_components
        theta = host(self._steps(old).theta(old.now, own_weights=False))[0]
        means = (theta[k : 2 * k] * old.scale + old.centre - new.centre) / new.scale
        weights = host(old.now.weights)[0, 0] * host(new.now.alive)[0]
        pivot = float(new.now.pivot[0, 0])
        # Offset and contrast by least squares; with fewer than two components there is no contrast to see.
        design = np.stack([np.ones(k), host(new.now.means)[0] - pivot], axis=1)
        root = np.sqrt(weights)[:, None]
        offset, gain = np.linalg.lstsq(design * root, (means - pivot) * root[:, 0], rcond=1e-6)[0]
        if (weights > 0).sum() < 2:
            offset, gain = float(weights @ (means - host(new.now.means)[0])), 1.0
        gain = min(max(gain, 1.0 / MOST_CONTRAST), MOST_CONTRAST)
        coef = theta[3 * k :] * old.scale / new.scale - host(new.now.coef)[0]
        drift = self.backend.asarray(np.concatenate([coef, [offset, gain - 1.0]]) * (self.config.drift > 0))
        return replace(new.now, drift=xp.reshape(drift, (1, 1, -1)), weights=old.now.weights)

    def _sums(self, model: MovieModel) -> Moments:
        """Sums over the whole sample of the past, about the common parameters."""
        reader, parts = model.reader, []
        gain = self.backend.xp.reshape(reader.now.gain, (-1,))
        for part, prior in reader.priors():
            samples = reader.rows.samples(part, len(self.basis.monomials))
            at = reader.maps.at_samples(prior, reader.maps.cells(reader.rows.place_blocks(part)))
            samples = replace(samples, log_weights=log_prior(at, self.backend.xp))
            sums, _ = moments_and_resp(samples, reader.theta[part, :], self.layout, backend=self.backend)
            parts.append(self._common_sums(sums, gain[part]))
        order, take = self.backend.asarray(model.order[0]), self.backend.xp.take
        whole = _added(parts)
        resp, dev, square = (take(a, order, axis=1) for a in (whole.resp, whole.dev, whole.square))
        return Moments(whole.log_likelihood, resp, dev, square)

    # -- a frame ------------------------------------------------------------------------------------------------------

    def step(self, values: np.ndarray, positions: np.ndarray) -> Seen:
        """Judge the samples (m,) of the next frame by the past, then learn from them."""
        carried, xp, m = self._known(), self.backend.xp, values.shape[0]
        samples, cells = self._samples(values, positions, carried)
        judged = self._judge(carried, samples, cells)
        self._learn(carried, judged.sums)
        flat = xp.reshape(xp.astype(judged.expected, xp.float64), (self.layout.n_components, -1))
        mean = xp.sum(flat * self.pixel_shares, axis=1)
        likelihood = float(judged.sums.log_likelihood[0]) - m * float(np.log(carried.scale))
        resp = self._flat(judged.resp, m)
        predicted = self._flat(self.maps.at_samples(judged.expected, cells), m)
        return Seen(
            xp.argmax(resp, axis=0), resp, predicted, self.backend.to_host(mean), likelihood, judged.moved, judged.shift
        )

    def _judge(self, carried: Carried, samples: Samples, cells: Array) -> _Judged:
        """Responsibilities of a frame's samples by the past and their neighbours; maps, weights, deviation go on."""
        xp = self.backend.xp
        levels = self.maps.levels(carried.held)
        expected = self.maps.combine(levels, carried.now.weights[:, 0, :])
        samples = replace(samples, log_weights=log_prior(self.maps.at_samples(expected, cells), xp))
        before, cov_before = carried.now, self._predicted_cov(carried)
        now, cov, resp, moved_by, at_first = self._filtered(carried, samples)
        carried.now, carried.cov = now, cov
        sums, resp = self._with_neighbours(carried, samples, cells, resp, levels)
        count = xp.sum(xp.sum(xp.astype(resp, xp.float64), axis=3), axis=1)
        carried.now = replace(now, weights=frame_weights(count, now.alive, backend=self.backend)[:, None, :])
        carried.held = DECAY_PAST * (carried.held + self.maps.deposit(cells, resp))
        return _Judged(
            expected, resp, sums, moved_by, self._shift(carried, before, cov_before, sums, at_first / samples.n)
        )

    def _shift(
        self, carried: Carried, before: MovieParameters, predicted: Array, sums: Moments, likelihood: Array
    ) -> np.ndarray:
        """`Seen.shift`; the running means go on.

        predicted : covariance of the prediction, which held the frame back; without it the frame goes further.
        """
        xp, host, scale = self.backend.xp, self.backend.to_host, carried.scale
        change = free = (carried.now.drift - before.drift)[0, 0, :]
        if self.config.drift > 0:
            _, loose = walk_precision(self.basis.n_terms, self.config.drift, self.backend)
            eye = xp.eye(loose.shape[0], dtype=loose.dtype, device=self.backend.device)
            information = self._information(carried.now, sums)[0] + loose * eye
            held_back = xp.linalg.solve(predicted, change[:, None])
            free = change + xp.linalg.solve(information, held_back)[:, 0]
        count, deviation = host(sums.resp)[0, :, 0], host(sums.dev)[0, :, 0]
        levels = np.where(count >= FEW, deviation / np.maximum(count, 1.0), np.nan)
        now = np.concatenate([levels, host(likelihood)])
        shift = now - carried.usual
        known = np.isfinite(carried.usual)
        told = np.where(known, carried.usual + USUAL * np.nan_to_num(shift), now)
        carried.usual = told
        units = np.concatenate([np.full(host(free).size - 1, scale), [1.0], np.full(count.size, scale), [1.0]])
        # A mean of few samples is that much less certain: its noise is the same in every frame times their root.
        certainty = np.concatenate([np.ones(host(free).size), np.sqrt(count), [1.0]])
        held_back, by_itself = (np.concatenate([host(drift), shift]) * units for drift in (change, free))
        return np.stack([held_back * certainty, by_itself])

    def _flat(self, values: Array, m: int) -> Array:
        """(1, blocks, K, n) -> (K, m)."""
        return unblock(self.backend.xp.permute_dims(values, (0, 2, 1, 3)), m, backend=self.backend)[0, ...]

    def _with_neighbours(
        self, carried: Carried, samples: Samples, cells: Array, resp: Array, levels: list[Array]
    ) -> tuple[Moments, Array]:
        """Sums and responsibilities with weights from the past and the frame's other samples; this lags less."""
        weights = carried.now.weights[:, 0, :]
        made = self.maps.levels(self.maps.deposit(cells, resp))
        prior = leave_one_out(
            [old + new for old, new in zip(levels, made, strict=True)], weights, cells, resp, self.maps
        )
        samples = replace(samples, log_weights=log_prior(prior, self.backend.xp))
        sums, resp = self._pass(samples, carried.now)
        self._place(carried, prior, resp)
        return sums, resp

    def _place(self, carried: Carried, prior: Array, resp: Array) -> None:
        """Evidence that components have places: what a sample's grey level says against what its neighbours say.

        Each component is weighed against the heaviest alone, among the samples of the two: that neither is found on a
        third says nothing. Where two components share the noise of one phase, neighbours tell nothing of a sample.
        """
        xp = self.backend.xp
        weights = carried.now.weights[:, 0, :]
        heaviest = int(xp.argmax(weights[0, :]))
        alone = weights[:, None, :, None] * resp / xp.where(prior > 0, prior, xp.ones_like(prior))

        def against(values: Array) -> tuple[Array, Array]:
            both = values + values[:, :, heaviest : heaviest + 1, :]
            return values / xp.where(both > 0, both, xp.ones_like(both)), both

        (grey, _), (near, _), (_, either) = against(alone), against(xp.astype(prior, xp.float64)), against(resp)
        total = xp.sum(either, axis=(1, 3), keepdims=True)
        total = xp.where(total > 0, total, xp.ones_like(total))
        grey, near = (a - xp.sum(a * either, axis=(1, 3), keepdims=True) / total for a in (grey, near))
        sums = [
            grey * near * either,
            grey * grey * either,
            near * near * either,
            (near * either) ** 2 * (xp.sum(grey * grey * either, axis=(1, 3), keepdims=True) / total),
        ]
        carried.evidence = carried.evidence + np.stack([self.backend.to_host(xp.sum(a, axis=(1, 3)))[0] for a in sums])

    def placed(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,) correlation of a component's samples with their neighbours, and that in its standard deviations.

        Over the frames since the latest fit. By chance alone the correlation is 0.
        """
        together, grey, near, spread = self._known().evidence
        tiny = 1e-300
        return together / np.sqrt(np.maximum(grey * near, tiny)), together / np.sqrt(np.maximum(spread, tiny))

    def frame_fit(self, seen: Seen, n_samples: int) -> tuple[MixtureFit, np.ndarray]:
        """(,) parameters of the frame just judged, and (K,) which component of the latest fit each of them is."""
        carried, host, k = self._known(), self.backend.to_host, self.layout.n_components
        theta = host(self._steps(carried).theta(carried.now, own_weights=False))[0]
        alive, weights = host(carried.now.alive)[0], host(carried.now.weights)[0, 0]
        means = np.where(alive, theta[k : 2 * k] * carried.scale + carried.centre, np.nan)
        sigmas = np.where(alive, np.exp(theta[2 * k : 3 * k]) * carried.scale, np.nan)
        order = np.argsort(means, kind="stable")
        fit = MixtureFit(
            weights=np.where(alive, weights, 0.0)[order],
            means=means[order],
            sigmas=sigmas[order],
            coef=theta[3 * k :] * carried.scale,
            log_likelihood=np.array(seen.log_likelihood),
            n_iter=np.array(1 + N_INNER * (self.config.drift > 0)),
            n_samples=np.array(n_samples),
            status=np.array(_status(alive, seen.moved), dtype=np.uint8),
            terms=self.config.terms,
        )
        return fit, order

    def is_finite(self) -> bool:
        """Whether the parameters of the latest frame are numbers."""
        theta = self._steps(self._known()).theta(self._known().now, own_weights=False)
        return bool(self.backend.xp.all(self.backend.xp.isfinite(theta)))

    def _known(self) -> Carried:
        assert self.carried is not None, "fit comes before step"
        return self.carried

    def _samples(self, values: np.ndarray, positions: np.ndarray, carried: Carried) -> tuple[Samples, Array]:
        """The samples of one frame, standardised and blocked, and their cells (1, blocks, n)."""
        backend = self.backend
        units = (np.array([carried.centre]), np.array([carried.scale]))
        rows = FrameRows.of_movies(
            backend.asarray(values)[None, None, :],
            backend.asarray(positions)[None, None, :],
            None,
            self.shape,
            self.basis,
            backend,
        ).standardised(*units)
        everything = slice(None)
        samples = rows.samples(everything, len(self.basis.monomials))
        return samples, self.maps.cells(rows.place_blocks(everything))

    def _steps(self, carried: Carried) -> MovieSteps:
        backend, xp = self.backend, self.backend.xp
        scale = xp.full((1,), carried.scale, dtype=xp.float64, device=backend.device)
        prior = self.config.trend_prior
        pull = None if prior is None else (scale / prior) ** 2
        return MovieSteps(self.basis, self.floor / scale[:, None], pull, self.config.drift, backend)

    def _pass(self, samples: Samples, now: MovieParameters) -> tuple[Moments, Array]:
        theta = self._steps(self._known()).theta(now, own_weights=False)
        return moments_and_resp(samples, theta, self.layout, backend=self.backend)

    def _information(self, now: MovieParameters, sums: Moments) -> tuple[Array, Array]:
        """The frame's information (q + 2, q + 2) about its deviation, and its pull (q + 2,)."""
        xp = self.backend.xp
        inverse = xp.where(now.alive, 1.0 / now.sigmas**2, xp.zeros_like(now.sigmas)) / now.gain[:, 0, :] ** 2
        contrast = xp.where(now.alive, now.means - now.pivot, xp.zeros_like(now.means))
        information, pull = normal_equations(sums, inverse, contrast, self.basis, self.backend)
        return information[0, ...], pull[0, :]

    def _predicted_cov(self, carried: Carried) -> Array:
        step, _ = walk_precision(self.basis.n_terms, self.config.drift, self.backend)
        eye = self.backend.xp.eye(step.shape[0], dtype=step.dtype, device=self.backend.device)
        return carried.cov + eye / step[:, None]

    def _filtered(self, carried: Carried, samples: Samples) -> tuple[MovieParameters, Array, Array, float, Array]:
        """Parameters of the frame, covariance of its deviation, responsibilities, how far the last pass went.

        And the log-likelihood (1,) at the prediction, before the frame had its say.

        A random walk observed through the frame's sums: the prediction is the deviation of the frame before.
        """
        xp = self.backend.xp
        now, cov, farthest = carried.now, carried.cov, 0.0
        sums, resp = self._pass(samples, now)
        at_first = sums.log_likelihood
        if self.config.drift > 0:
            predicted = self._predicted_cov(carried)
            before, tie = now.drift[0, 0, :], xp.linalg.inv(predicted)
            for _ in range(N_INNER):
                information, pull = self._information(now, sums)
                drift = now.drift[0, 0, :]
                right = xp.matmul(tie, before - drift) + pull
                change = xp.linalg.solve(tie + information, right[:, None])[:, 0]
                farthest = float(xp.max(xp.abs(change)))
                drift = drift + change
                gain = xp.clip(drift[-1:], 1.0 / MOST_CONTRAST - 1.0, MOST_CONTRAST - 1.0)
                now = replace(now, drift=xp.concat([drift[:-1], gain])[None, None, :])
                sums, resp = self._pass(samples, now)
            cov = xp.linalg.inv(tie + self._information(now, sums)[0])
        return now, cov, resp, farthest, at_first

    def _learn(self, carried: Carried, sums: Moments) -> None:
        """Common means, trend and sigmas from the faded sums and those of the frame."""
        xp, now = self.backend.xp, carried.now
        new = self._common_sums(sums, now.gain[0, 0, :])
        count = carried.sums.resp[:, :, :1]
        fade = xp.clip(LEAST_HELD / xp.maximum(count, xp.ones_like(count)), float(np.exp(-1.0 / MEMORY_FRAMES)), 1.0)
        old = carried.sums
        total = Moments(
            old.log_likelihood,
            old.resp * fade + new.resp,
            old.dev * fade + new.dev,
            old.square * fade[..., 0] + new.square,
        )
        flat = replace(now, drift=0.0 * now.drift)
        then = self._steps(carried).refitted(flat, total)
        step = then.coef - now.coef
        carried.sums = moved(total, then.means - now.means, step, self.basis, backend=self.backend)
        carried.now = replace(then, drift=now.drift)

    def _common_sums(self, sums: Moments, gain: Array) -> Moments:
        """Sums of frames (rows) of contrast `gain` (rows,), as frames of contrast 1 would give them, added up."""
        xp, q = self.backend.xp, self.basis.n_terms
        g = gain[:, None, None]
        powers = np.array([0] + [1] * q + [2] * (len(self.basis.monomials) - q - 1))
        resp = sums.resp / g ** self.backend.asarray(powers.astype(np.float64))
        dev = sums.dev / g ** self.backend.asarray(1.0 + (np.arange(q + 1) > 0))
        parts = (sums.log_likelihood, resp, dev, sums.square / gain[:, None] ** 2)
        return Moments(*(xp.sum(part, axis=0, keepdims=True) for part in parts))


def _alike(old: Carried, new: Carried, backend: Backend) -> bool:
    """Whether the components of two fits are the same ones, in the same order."""
    host = backend.to_host
    alive = host(old.now.alive)[0]
    if not np.array_equal(alive, host(new.now.alive)[0]):
        return False
    sigma = np.minimum(host(old.now.sigmas)[0] * old.scale, host(new.now.sigmas)[0] * new.scale)
    means = [host(c.now.means)[0] * c.scale + c.centre for c in (old, new)]
    return bool((np.abs(means[0] - means[1]) < ALIKE * sigma)[alive].all())


def _status(alive: np.ndarray, moved_by: float) -> FitStatus:
    """How the fit of a frame ended."""
    if not alive.all():
        return FitStatus.DROPPED if alive.any() else FitStatus.DEGENERATE
    return FitStatus.CONVERGED if moved_by <= SETTLED else FitStatus.MAX_ITER


def leave_one_out(levels: list[Array], weights: Array, cells: Array, resp: Array, maps: CellMaps) -> Array:
    """As `CellMaps.combine`, at the samples alone, each without what it has itself laid down; (rows, blocks, K, n).

    levels : with the frame's own samples in. weights : (rows, K). cells : (rows, blocks, n). resp : as the result.
    """
    xp, (rows, _, k, _) = maps.backend.xp, resp.shape
    row = cells // maps.grid[1]
    column = cells - row * maps.grid[1]
    first = maps.backend.arange(rows * k, dtype=xp.int64)
    prior = widest = xp.broadcast_to(xp.astype(weights, maps.backend.dtype)[:, None, :, None], resp.shape)
    for number, level in enumerate(levels):
        coarser = len(levels) - 1 - number
        place = xp.astype((row >> coarser) * level.shape[-1] + (column >> coarser), xp.int64)[:, :, None, :]
        index = place + xp.reshape(first, (rows, 1, k, 1)) * (level.shape[-1] * level.shape[-2])
        held = xp.reshape(xp.take(xp.reshape(level, (-1,)), xp.reshape(index, (-1,))), resp.shape)
        # The Gaussians peak at 1, so that is what a sample adds to its own cell; rounding may leave less than nothing.
        held = xp.maximum(held - resp, xp.zeros_like(resp))
        worth = SHRINKAGE / xp.clip(1.0 - xp.sum(prior * prior, axis=2, keepdims=True), maps.purest, 1.0)
        prior = (held + worth * prior) / (xp.sum(held, axis=2, keepdims=True) + worth)
        widest = widest if number else prior
    return (1.0 - FLOOR) * prior + FLOOR * widest


def _added(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = Moments(
            total.log_likelihood + part.log_likelihood,
            total.resp + part.resp,
            total.dev + part.dev,
            total.square + part.square,
        )
    return total


def _ordered(now: MovieParameters, order: np.ndarray, backend: Backend) -> MovieParameters:
    """One movie with its components in the order (1, K)."""
    take, place = backend.xp.take, backend.asarray(order[0])
    return replace(
        now,
        alive=take(now.alive, place, axis=1),
        weights=take(now.weights, place, axis=2),
        means=take(now.means, place, axis=1),
        sigmas=take(now.sigmas, place, axis=1),
    )
