"""From labels to the recorded grey levels: trend, contrast, drift, texture, noise, quantisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..config import trend_terms
from .fields import NOISE, RECORDING, smooth_noise, smooth_path, stream
from .options import SceneOptions

TREND = "quadratic+electrode"
# Relative to the other phases' texture: the liquid is smoother than what grows in it.
_TEXTURE_OF_LABEL = (0.5, 1.0, 1.0)


@dataclass(frozen=True)
class Conditions:
    """How the microscope and the specimen holder behave, per frame.

    Attributes
    ----------
    trend_coef : (T, 5) coefficients of the terms of ``quadratic+electrode``, grey levels of 8-bit data.
    gain : (T,) contrast about the grey level `pivot`.
    pivot : grey level that refocusing leaves unchanged: the mean of the background.
    drift_px : (T, 2) int displacement (down, right) of the specimen.
    refocus : frames at which the contrast jumps.
    """

    trend_coef: np.ndarray
    gain: np.ndarray
    pivot: float
    drift_px: np.ndarray
    refocus: np.ndarray


def conditions(options: SceneOptions, n_frames: int, shape: tuple[int, int], seed: int) -> Conditions:
    """Draw the course of trend, contrast and drift over the movie."""
    rng = stream(seed, RECORDING)
    refocus = np.sort(rng.choice(np.arange(1, max(n_frames, 2)), min(options.n_refocus, n_frames - 1), replace=False))
    gain = np.ones(n_frames)
    sign = rng.choice([-1, 1])
    for k, frame in enumerate(refocus):
        # Up, down, up: each step has the stated size and the contrast stays within one of them.
        gain[frame:] = 1 + options.gain_step * sign * ((k + 1) % 2)
    drift = np.stack([smooth_path(rng, n_frames), smooth_path(rng, n_frames)], axis=1)
    for frame in refocus:
        drift[frame:] += rng.uniform(-0.5, 0.5, 2)
    largest = np.hypot(*drift.T).max()
    drift *= options.drift_px / largest if largest > 0 else 0.0
    background = options.truth_of_phase.index(0)
    return Conditions(
        _trend_coef(rng, options, n_frames, shape), gain, options.means[background], _whole(drift), refocus
    )


def _whole(values: np.ndarray) -> np.ndarray:
    # Toward zero, so that no displacement exceeds the largest that is asked for.
    return np.trunc(values + np.copysign(1e-9, values)).astype(np.int64)


def _trend_coef(rng: np.random.Generator, options: SceneOptions, n_frames: int, shape: tuple[int, int]) -> np.ndarray:
    """(T, 5) coefficients, moving from one surface to another; their largest value is `options.trend`."""
    typical = {(1, 0): 1.0, (0, 1): 0.5, (2, 0): 0.35, (1, 1): 0.3, (2, 1): 0.2}
    sizes = np.array([typical[term] for term in trend_terms(TREND)])
    first = sizes * rng.choice([-1, 1], sizes.size) * rng.uniform(0.6, 1.2, sizes.size)
    other = sizes * rng.normal(size=sizes.size)
    last = (1 - options.trend_drift) * first + options.trend_drift * other
    course = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, n_frames))[:, None]
    coef = (1 - course) * first + course * last
    basis = trend_basis(shape)
    largest = max(np.abs(np.tensordot(c, basis, 1)).max() for c in (coef[0], coef[-1]))
    return coef * (options.trend / largest if largest > 0 else 0.0)


def trend_basis(shape: tuple[int, int]) -> np.ndarray:
    """(5, H, W) float32 terms of ``quadratic+electrode`` at coordinates from -1 to 1 (METHOD.md section 1)."""
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    return np.stack([np.broadcast_to(x**a * y**b, shape) for a, b in trend_terms(TREND)])


class Recorder:
    """Turns the labels of a frame into stored grey levels.

    A pixel of phase k is ``pivot + gain (mean_k + trend - pivot + texture + noise)``; the variances of texture
    and noise add up to ``sigma_k^2`` where the trend is zero. Rounding to 8 bits adds 1/12 to it.
    `regions` are the canvas labels within which the texture has mean 0 and sd 1.
    """

    def __init__(
        self,
        options: SceneOptions,
        course: Conditions,
        shape: tuple[int, int],
        margin: int,
        seed: int,
        bits: int,
        regions: np.ndarray,
    ) -> None:
        self._options, self._course, self._shape, self._margin = options, course, shape, margin
        self._seed, self._bits = seed, bits
        self.scale = 1 if bits == 8 else 257
        self._basis = trend_basis(shape)
        means, sigmas = np.zeros(3, np.float32), np.zeros(3, np.float32)
        for label, mean, sigma in zip(options.truth_of_phase, options.means, options.sigmas, strict=True):
            means[label], sigmas[label] = mean, sigma
        texture = sigmas * options.texture * np.array(_TEXTURE_OF_LABEL, np.float32)
        noise = sigmas**2 - texture**2
        self._means, self._texture = means, texture
        self._gauss = np.sqrt(noise * (1 - options.poisson))
        # Grey levels per detected electron, such that counts at the mean have the Poisson part of the variance.
        self._per_count = noise * options.poisson / np.maximum(means, 1)
        canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)
        rng = stream(seed, RECORDING, 1)
        self._mottle = _standardised(smooth_noise(rng, canvas, 1.2) + smooth_noise(rng, canvas, 4.0), regions)

    def window(self, t: int) -> tuple[slice, slice]:
        """Where frame `t` lies on the canvas; it moves against the specimen's drift."""
        y, x = self._margin - self._course.drift_px[t]
        return slice(y, y + self._shape[0]), slice(x, x + self._shape[1])

    def frame(self, t: int, labels: np.ndarray, overlay: np.ndarray | None, *, noise: int | None = None) -> np.ndarray:
        """(H, W) uint8 or uint16 frame of the (H, W) uint8 `labels`; `overlay` is added to label 0.

        noise : number of the draw of the noise; None: `t`.
        """
        clean = self._means[labels] + self._texture[labels] * self._mottle[self.window(t)]
        if overlay is not None:
            clean += np.where(labels == 0, overlay[self.window(t)], 0)
        if self._options.blur_px > 0:
            clean = ndimage.gaussian_filter(clean, self._options.blur_px, mode="nearest")
        clean += np.tensordot(self._course.trend_coef[t].astype(np.float32), self._basis, 1)
        noisy = self._noisy(stream(self._seed, NOISE, t if noise is None else noise), clean, labels)
        pivot, gain = self._course.pivot, self._course.gain[t]
        stored = np.rint((pivot + gain * (noisy - pivot)) * self.scale)
        return np.clip(stored, 0, 2**self._bits - 1).astype(np.uint8 if self._bits == 8 else np.uint16)

    def _noisy(self, rng: np.random.Generator, clean: np.ndarray, labels: np.ndarray) -> np.ndarray:
        noisy = clean + self._gauss[labels] * rng.standard_normal(clean.shape, dtype=np.float32)
        if self._options.poisson > 0:
            per_count = self._per_count[labels]
            expected = np.maximum(clean, 0) / np.where(per_count > 0, per_count, 1)
            counts = rng.poisson(expected)
            noisy += per_count * (counts - expected)
        return noisy


def _standardised(field: np.ndarray, regions: np.ndarray) -> np.ndarray:
    for label in range(3):
        inside = regions == label
        spread = field[inside].std() if inside.any() else 0.0
        if spread > 0:
            field[inside] = (field[inside] - field[inside].mean()) / spread
    return field


def margin_of(course: Conditions) -> int:
    """Pixels by which the canvas must exceed the frame on every side."""
    return int(np.abs(course.drift_px).max(initial=0)) + 1
