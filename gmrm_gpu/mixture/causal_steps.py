"""What a causal fit carries from frame to frame, and how a frame changes it (METHOD.md 6, live)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, Backend
from ..config import MixtureConfig
from .design import TrendBasis
from .drift import MOST_CONTRAST, normal_equations, walk_precision
from .moments import Moments
from .movie_steps import MovieParameters, MovieSteps
from .steps import moved

MEMORY_FRAMES = 50
"""Frames after which the common sums of a past frame have faded to 1/e."""
LEAST_HELD = 2000.0
"""Samples of a component below which its sums fade no further: a phase that is gone is not forgotten."""
ALIKE = 0.3
"""Parts of a sigma by which the means of two fits to the past may differ while their components count as the same."""


@dataclass
class Carried:
    """What goes from frame to frame; one movie, so the leading axes are 1.

    Attributes
    ----------
    now : parameters of the latest frame (R = T = 1), components in ascending mean of the latest fit.
    centre, scale : grey levels by which samples are standardised. sums : common sums, about `now` without its drift,
    in units of a frame of contrast 1. cov : (q + 2, q + 2) covariance of the deviation. held : (1, K, *grid).
    evidence : (4, K) on the host, see `neighbours.placed`. usual : (K + 1,) on the host, running means of each
    component's deviation from its mean and of a sample's log-likelihood, standardised.
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
class CausalSteps:
    """Steps of one movie. floor : smallest sigma, grey levels."""

    basis: TrendBasis
    config: MixtureConfig
    floor: float
    backend: Backend

    def of(self, carried: Carried) -> MovieSteps:
        """The M-steps on the scale of `carried`."""
        backend, xp = self.backend, self.backend.xp
        scale = xp.full((1,), carried.scale, dtype=xp.float64, device=backend.device)
        prior = self.config.trend_prior
        pull = None if prior is None else (scale / prior) ** 2
        return MovieSteps(self.basis, self.floor / scale[:, None], pull, self.config.drift, backend)

    def information(self, now: MovieParameters, sums: Moments) -> tuple[Array, Array]:
        """The frame's information (q + 2, q + 2) about its deviation, and its pull (q + 2,)."""
        xp = self.backend.xp
        inverse = xp.where(now.alive, 1.0 / now.sigmas**2, xp.zeros_like(now.sigmas)) / now.gain[:, 0, :] ** 2
        contrast = xp.where(now.alive, now.means - now.pivot, xp.zeros_like(now.means))
        information, pull = normal_equations(sums, inverse, contrast, self.basis, self.backend)
        return information[0, ...], pull[0, :]

    def predicted_cov(self, carried: Carried) -> Array:
        """Covariance of the next frame's deviation, before it is seen."""
        if self.config.drift == 0:
            return carried.cov
        step, _ = walk_precision(self.basis.n_terms, self.config.drift, self.backend)
        eye = self.backend.xp.eye(step.shape[0], dtype=step.dtype, device=self.backend.device)
        return carried.cov + eye / step[:, None]

    def learn(self, carried: Carried, sums: Moments) -> None:
        """Common means, trend and sigmas from the faded sums and those of the frame."""
        xp, now = self.backend.xp, carried.now
        new = self.common_sums(sums, now.gain[0, 0, :])
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
        then = self.of(carried).refitted(flat, total)
        step = then.coef - now.coef
        carried.sums = moved(total, then.means - now.means, step, self.basis, backend=self.backend)
        carried.now = replace(then, drift=now.drift)

    def common_sums(self, sums: Moments, gain: Array) -> Moments:
        """Sums of frames (rows) of contrast `gain` (rows,), as frames of contrast 1 would give them, added up."""
        xp, q = self.backend.xp, self.basis.n_terms
        g = gain[:, None, None]
        powers = np.array([0] + [1] * q + [2] * (len(self.basis.monomials) - q - 1))
        resp = sums.resp / g ** self.backend.asarray(powers.astype(np.float64))
        dev = sums.dev / g ** self.backend.asarray(1.0 + (np.arange(q + 1) > 0))
        parts = (sums.log_likelihood, resp, dev, sums.square / gain[:, None] ** 2)
        return Moments(*(xp.sum(part, axis=0, keepdims=True) for part in parts))

    def in_units_of(self, old: Carried, new: Carried) -> MovieParameters:
        """The new common parameters with the deviation that makes of them what the latest frame was by the old."""
        xp, host, k = self.backend.xp, self.backend.to_host, self.config.n_components
        theta = host(self.of(old).theta(old.now, own_weights=False))[0]
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


def alike(old: Carried, new: Carried, backend: Backend) -> bool:
    """Whether the components of two fits are the same ones, in the same order."""
    host = backend.to_host
    alive = host(old.now.alive)[0]
    if not np.array_equal(alive, host(new.now.alive)[0]):
        return False
    sigma = np.minimum(host(old.now.sigmas)[0] * old.scale, host(new.now.sigmas)[0] * new.scale)
    means = [host(c.now.means)[0] * c.scale + c.centre for c in (old, new)]
    return bool((np.abs(means[0] - means[1]) < ALIKE * sigma)[alive].all())


def added(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = Moments(
            total.log_likelihood + part.log_likelihood,
            total.resp + part.resp,
            total.dev + part.dev,
            total.square + part.square,
        )
    return total


def ordered(now: MovieParameters, order: np.ndarray, backend: Backend) -> MovieParameters:
    """One movie with its components in the order (1, K)."""
    take, place = backend.xp.take, backend.asarray(order[0])
    return replace(
        now,
        alive=take(now.alive, place, axis=1),
        weights=take(now.weights, place, axis=2),
        means=take(now.means, place, axis=1),
        sigmas=take(now.sigmas, place, axis=1),
    )
