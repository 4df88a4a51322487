"""The battery: a half-disc electrode on which Li grows as mossy lobes and dendrites, and is stripped again.

Every pixel has a rank in the order of deposition and one in the order of stripping, so the Li of a frame is two
comparisons, its area follows the charge exactly, and it never flickers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .fields import GEOMETRY, arrival_time, rank, smooth_noise, stream
from .options import BatteryOptions

_PEAK_AT, _STRIPPED_AT = 0.584, 0.906


def charge_curve(n_frames: int, n_empty: int, dead_share: float) -> np.ndarray:
    """(T,) Li relative to its peak over one cycle: none, deposition, stripping, what is left.

    With a tenth of the frames empty and a tenth of the Li left its mean is 0.43.
    """
    n_active = n_frames - n_empty
    phase = (np.arange(n_active) + 0.5) / max(n_active, 1)
    rise = np.clip(phase / _PEAK_AT, 0, 1)
    fall = np.clip((phase - _PEAK_AT) / (_STRIPPED_AT - _PEAK_AT), 0, 1)
    active = rise**2 * (3 - 2 * rise) - (1 - dead_share) * fall**2 * (3 - 2 * fall)
    return np.concatenate([np.zeros(n_empty), active])


class BatteryScene:
    """Labels of a canvas that is `margin` pixels wider than the frame on every side.

    Attributes
    ----------
    charge : (T,) Li relative to its peak.
    fullest : the frame with most Li.
    """

    def __init__(
        self, options: BatteryOptions, shape: tuple[int, int], n_frames: int, n_empty: int, margin: int, seed: int
    ) -> None:
        self.charge = charge_curve(n_frames, n_empty, options.dead_share)
        turned = options.side in ("top", "bottom")
        height, width = shape[::-1] if turned else shape
        rng = stream(seed, GEOMETRY)
        canvas = _Canvas(rng, options, (height, width), margin)
        in_frame = np.zeros(canvas.shape, dtype=bool)
        in_frame[margin : margin + height, margin : margin + width] = True
        peak = options.peak_share * height * width
        deposited = canvas.deposition()
        reached = np.sort(deposited[in_frame & np.isfinite(deposited)])
        last = reached[min(int(peak), reached.size - 1)]
        deposited[deposited > last] = np.inf
        stripped = canvas.stripping(np.isfinite(deposited))
        orient = _orientation(options.side)
        self._electrode = orient(canvas.electrode)
        self._deposited = orient(rank(deposited))
        self._stripped = orient(rank(stripped))
        self._n_peak = int(np.isfinite(deposited).sum())
        self._ring = orient(canvas.ring())
        self._ring_size = options.sei * options.sigmas[1]
        self.fullest = int(np.argmax(self.charge))

    def labels(self, t: int) -> np.ndarray:
        """(H + 2 margin, W + 2 margin) uint8 truth of frame `t`: 0 electrolyte, 1 electrode, 2 Li."""
        n_li = round(self.charge[t] * self._n_peak)
        if t > self.fullest:
            li = (self._stripped >= self._n_peak - n_li) & (self._stripped < self._n_peak)
        else:
            li = self._deposited < n_li
        labels = self._electrode.astype(np.uint8)
        labels[li] = 2
        return labels

    def overlay(self, t: int) -> np.ndarray | None:
        """Grey levels of the electrolyte's own contrast: the ring that forms with the first charge."""
        strength = self._ring_size * self.charge[: t + 1].max(initial=0.0)
        return strength * self._ring if strength > 0 else None


def _orientation(side: str) -> Callable[[np.ndarray], np.ndarray]:
    return {
        "left": lambda a: a,
        "right": lambda a: np.ascontiguousarray(a[:, ::-1]),
        "top": lambda a: np.ascontiguousarray(a.T),
        "bottom": lambda a: np.ascontiguousarray(a.T[::-1]),
    }[side]


class _Canvas:
    """Geometry with the electrode on the left."""

    def __init__(self, rng: np.random.Generator, options: BatteryOptions, frame: tuple[int, int], margin: int) -> None:
        self.rng = rng
        self.options = options
        self.shape = (frame[0] + 2 * margin, frame[1] + 2 * margin)
        self.size = min(frame)
        y, x = np.indices(self.shape, dtype=np.float32)
        y -= margin + frame[0] * rng.uniform(0.46, 0.54)
        x -= margin - 0.02 * self.size
        self.radius = options.electrode_radius * self.size
        self.distance = np.hypot(y, x)
        self.angle = np.arctan2(y, np.maximum(x, 0))
        wobble = self._angular(0.4, 1) * 0.015 + self._angular(0.12, 1) * 0.003
        self.electrode = (self.distance < self.radius * (1 + wobble)) & (x >= 0)
        self.electrode |= (x < 0) & (np.abs(y) < self.radius * (1 + wobble))
        self.edge = ndimage.binary_dilation(self.electrode, np.ones((3, 3))) & ~self.electrode

    def _angular(self, scale: float, stretch: float) -> np.ndarray:
        """Noise that varies over `scale` rad along the electrode and `stretch` radii away from it."""
        n_angle, n_radius = 720, 128
        noise = smooth_noise(self.rng, (n_angle, n_radius), (scale / np.pi * n_angle / 2, stretch * n_radius / 6))
        rows = (self.angle / np.pi + 0.5) * (n_angle / 2) + n_angle / 4
        columns = np.clip(self.distance / self.radius / 6, 0, 1) * (n_radius - 1)
        return ndimage.map_coordinates(noise, [rows, columns], order=1, mode="nearest")

    def deposition(self) -> np.ndarray:
        """Time at which each pixel turns to Li."""
        feature = self.options.feature_px
        lobes = self._angular(0.35, 3.0)
        fingers = self._angular(max(0.04, 2.2 * feature / self.radius / np.pi), 0.5)
        moss = smooth_noise(self.rng, self.shape, 0.7 * feature)
        coarse = smooth_noise(self.rng, self.shape, 2.5 * feature)
        speed = np.exp(0.4 * lobes + 0.55 * fingers + 0.5 * coarse + 0.7 * moss)
        away = self._away_from_whiskers()
        # The liquid beside a dendrite is depleted, so that it lengthens far more than it thickens.
        speed = np.where(away < 1.5 * feature, 0.3 * speed, speed)
        speed = np.where(away < feature / 2, 6.0, speed)
        delay = self.radius * 0.1 * np.exp(0.8 * self._angular(0.08, 3.0))
        return arrival_time(1 / speed, ~self.electrode, self.edge, delay)

    def _away_from_whiskers(self) -> np.ndarray:
        """Distance from the axes of the thin dendrites, which run outwards from the electrode and fork."""
        axes = np.zeros(self.shape, dtype=bool)
        edge = np.argwhere(self.edge)
        if not len(edge) or not self.options.whiskers:
            return np.full(self.shape, np.inf)
        centre = np.argwhere(self.electrode).mean(axis=0)
        for _ in range(self.options.whiskers):
            root = edge[self.rng.integers(len(edge))].astype(float)
            heading = np.arctan2(*(root - centre)) + self.rng.normal(0, 0.3)
            length = self.size * self.rng.uniform(0.15, 0.42)
            stem = self._wander(axes, root, heading, length)
            for _ in range(self.rng.integers(0, 4)):
                fork = stem[int(len(stem) * self.rng.uniform(0.35, 0.9))]
                turn = self.rng.choice([-1, 1]) * self.rng.uniform(0.5, 0.9)
                self._wander(axes, fork, heading + turn, length * self.rng.uniform(0.15, 0.4))
        return ndimage.distance_transform_edt(~axes)

    def _wander(self, axes: np.ndarray, start: np.ndarray, heading: float, length: float) -> np.ndarray:
        """(n, 2) points of a slowly turning path; its pixels are set in `axes`."""
        turns = heading + np.cumsum(self.rng.normal(0, 0.07, size=max(2, int(length))))
        path = start + np.cumsum(np.stack([np.sin(turns), np.cos(turns)], axis=1), axis=0)
        pixels = np.rint(path).astype(int)
        inside = ((pixels >= 0) & (pixels < self.shape)).all(axis=1)
        axes[tuple(pixels[inside].T)] = True
        return path

    def stripping(self, li: np.ndarray) -> np.ndarray:
        """Time at which each pixel of the peak's Li dissolves: from outside, and from the roots where undercut."""
        resist = smooth_noise(self.rng, self.shape, max(2.0, 0.02 * self.size))
        fine = smooth_noise(self.rng, self.shape, 0.7 * self.options.feature_px)
        slowness = np.exp(1.1 * resist + 0.4 * fine)
        outside = ndimage.binary_dilation(~li & ~self.electrode, np.ones((3, 3))) & li
        roots = self.edge & li & (self._angular(0.25, 3.0) > -0.5)
        return arrival_time(slowness, li, outside | roots, np.where(roots, 2.0, 0.2))

    def ring(self) -> np.ndarray:
        """Profile, 0 to 1, of the ring of decomposition products around the electrode."""
        width = max(1.5, 0.012 * self.size)
        away = ndimage.distance_transform_edt(~self.electrode)
        return np.where(self.electrode, 0, np.exp(-0.5 * ((away - 1.5 * width) / width) ** 2)).astype(np.float32)
