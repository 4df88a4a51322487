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
from .causal_steps import Carried, CausalSteps, added, alike, ordered
from .design import Samples, TrendBasis, unblock
from .drift import MOST_CONTRAST, walk_precision
from .maps import DECAY_PAST, CellMaps, log_prior, n_levels
from .moments import Layout, Moments, moments_and_resp
from .movie import MovieModel
from .movie_steps import MovieParameters, frame_weights
from .neighbours import leave_one_out, placed, placed_evidence
from .reservoir import N_LATEST, Frame
from .rows import FrameRows

N_INNER = 2
"""Passes over a frame's samples in which its deviation settles."""
SETTLED = 0.01
"""Change of the deviation in the last of them, standardised, above which it has not settled."""
FEW, USUAL = 30.0, 0.3
"""Samples below which a component's mean in a frame is not looked at; weight of a frame in the running means."""
START_TOL, FIT_ITER = 1e-6, 32
"""Tolerance of the start of a fit to the past, and its most iterations: what is left the coming frames settle."""


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
    """A fit to the sample of the past, and what to go on from; None where it has no usable parameters.

    found : the fit; None where its numbers broke down.
    """

    found: MovieFit | None
    carried: Carried | None

    @property
    def fit(self) -> MovieFit:
        """The fit, where there is one to go on from."""
        assert self.found is not None, "see carried"
        return self.found


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
        self.steps = CausalSteps(self.basis, config, self.floor, backend)
        self.maps = CellMaps(shape, n_levels(rate), backend, purest=1.0)
        self.pixel_shares = backend.asarray(self.maps.pixel_shares(allowed))
        self.carried: Carried | None = None

    # -- a fit to the sample of the past ------------------------------------------------------------------------------

    def fit(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray], streams: np.ndarray) -> Proposal:
        """All parameters from the sample of the past (`Reservoir.rows`); changes nothing, so a thread may do it."""
        backend = self.backend
        values, positions, valid = rows
        try:
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
        except np.linalg.LinAlgError:
            return Proposal(None, None)
        if found.common.status[0] >= FitStatus.DEGENERATE:
            return Proposal(found, None)
        now = ordered(model.reader.now, model.order, backend)
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
        if before is not None and alike(before, new, self.backend):
            new.now = self.steps.in_units_of(before, new)
            new.held, new.evidence = before.held, before.evidence
            return False
        for values, positions in latest:
            samples, cells = self._samples(values, positions, new)
            self._judge(new, samples, cells)
        return True

    def _sums(self, model: MovieModel) -> Moments:
        """Sums over the whole sample of the past, about the common parameters."""
        reader, parts = model.reader, []
        gain = self.backend.xp.reshape(reader.now.gain, (-1,))
        for part, prior in reader.priors():
            samples = reader.rows.samples(part, len(self.basis.monomials))
            at = reader.maps.at_samples(prior, reader.maps.cells(reader.rows.place_blocks(part)))
            samples = replace(samples, log_weights=log_prior(at, self.backend.xp))
            sums, _ = moments_and_resp(samples, reader.theta[part, :], self.layout, backend=self.backend)
            parts.append(self.steps.common_sums(sums, gain[part]))
        order, take = self.backend.asarray(model.order[0]), self.backend.xp.take
        whole = added(parts)
        resp, dev, square = (take(a, order, axis=1) for a in (whole.resp, whole.dev, whole.square))
        return Moments(whole.log_likelihood, resp, dev, square)

    # -- a frame ------------------------------------------------------------------------------------------------------

    def step(self, values: np.ndarray, positions: np.ndarray) -> Seen:
        """Judge the samples (m,) of the next frame by the past, then learn from them."""
        carried, xp, m = self._known(), self.backend.xp, values.shape[0]
        samples, cells = self._samples(values, positions, carried)
        judged = self._judge(carried, samples, cells)
        self.steps.learn(carried, judged.sums)
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
        before, cov_before = carried.now, self.steps.predicted_cov(carried)
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
            information = self.steps.information(carried.now, sums)[0] + loose * eye
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
        carried.evidence = carried.evidence + placed_evidence(weights, prior, resp, backend=self.backend)
        return sums, resp

    def placed(self) -> tuple[np.ndarray, np.ndarray]:
        """`neighbours.placed` over the frames since components were last found anew."""
        return placed(self._known().evidence)

    def frame_fit(self, seen: Seen, n_samples: int) -> tuple[MixtureFit, np.ndarray]:
        """(,) parameters of the frame just judged, and (K,) which component of the latest fit each of them is."""
        carried, host, k = self._known(), self.backend.to_host, self.layout.n_components
        theta = host(self.steps.of(carried).theta(carried.now, own_weights=False))[0]
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

    @property
    def likelihood_level(self) -> float:
        """Running mean of a sample's log-likelihood at the prediction, natural logarithm, of grey levels."""
        carried = self._known()
        return float(carried.usual[-1] - np.log(carried.scale))

    def is_finite(self) -> bool:
        """Whether the parameters of the latest frame are numbers."""
        theta = self.steps.of(self._known()).theta(self._known().now, own_weights=False)
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

    def _pass(self, samples: Samples, now: MovieParameters) -> tuple[Moments, Array]:
        theta = self.steps.of(self._known()).theta(now, own_weights=False)
        return moments_and_resp(samples, theta, self.layout, backend=self.backend)

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
            predicted = self.steps.predicted_cov(carried)
            before, tie = now.drift[0, 0, :], xp.linalg.inv(predicted)
            for _ in range(N_INNER):
                information, pull = self.steps.information(now, sums)
                drift = now.drift[0, 0, :]
                right = xp.matmul(tie, before - drift) + pull
                change = xp.linalg.solve(tie + information, right[:, None])[:, 0]
                farthest = float(xp.max(xp.abs(change)))
                drift = drift + change
                gain = xp.clip(drift[-1:], 1.0 / MOST_CONTRAST - 1.0, MOST_CONTRAST - 1.0)
                now = replace(now, drift=xp.concat([drift[:-1], gain])[None, None, :])
                sums, resp = self._pass(samples, now)
            cov = xp.linalg.inv(tie + self.steps.information(now, sums)[0])
        return now, cov, resp, farthest, at_first


def _status(alive: np.ndarray, moved_by: float) -> FitStatus:
    """How the fit of a frame ended."""
    if not alive.all():
        return FitStatus.DROPPED if alive.any() else FitStatus.DEGENERATE
    return FitStatus.CONVERGED if moved_by <= SETTLED else FitStatus.MAX_ITER
