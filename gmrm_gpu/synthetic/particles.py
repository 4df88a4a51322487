"""Nanoparticles: nucleation in a burst, diffusion-limited growth, and coalescence of those that touch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .fields import GEOMETRY, stream
from .options import ParticleOptions

# Outline: r (1 + sum_n a_n cos(n theta - phi_n)); n = 2 is the elongation that a coalescence leaves.
_WAVES = np.arange(2, 7)
_N_STEPS = 240
_N_CALIBRATIONS = 3


@dataclass
class _Drops:
    """Particles as arrays of equal length n; lengths in pixels of the canvas."""

    y: np.ndarray
    x: np.ndarray
    radius: np.ndarray
    born: np.ndarray
    growth: np.ndarray
    sizes: np.ndarray  # (n, len(_WAVES)) amplitudes of the outline
    phases: np.ndarray  # (n, len(_WAVES))

    def take(self, which: np.ndarray) -> _Drops:
        return _Drops(*(np.array(value[which]) for value in vars(self).values()))


class ParticleScene:
    """Labels of a canvas that is `margin` pixels wider than the frame on every side.

    Attributes
    ----------
    fullest : the frame with the largest particles.
    """

    def __init__(
        self, options: ParticleOptions, shape: tuple[int, int], n_frames: int, n_empty: int, margin: int, seed: int
    ) -> None:
        self.fullest = n_frames - 1
        self._shape = (shape[0] + 2 * margin, shape[1] + 2 * margin)
        nuclei = _nuclei(stream(seed, GEOMETRY), options, shape, margin)
        history = _calibrated(nuclei, self._shape, options)
        n_active = n_frames - n_empty
        steps = [max((k + 1) * _N_STEPS // n_active - 1, 0) for k in range(n_active)]
        self._frames: list[_Drops | None] = [*([None] * n_empty), *(history[step] for step in steps)]

    def labels(self, t: int) -> np.ndarray:
        """(H + 2 margin, W + 2 margin) uint8 truth of frame `t`: 0 film, 2 particle."""
        labels = np.zeros(self._shape, dtype=np.uint8)
        drops = self._frames[t]
        if drops is not None:
            _draw(drops, labels)
        return labels

    def overlay(self, t: int) -> np.ndarray | None:
        """No contrast but that of the phases."""
        return None


def _nuclei(rng: np.random.Generator, options: ParticleOptions, shape: tuple[int, int], margin: int) -> _Drops:
    """Where and when particles appear, and how fast each grows; `growth` is relative until calibrated."""
    area = shape[0] * shape[1]
    usual = max(0.045 * min(shape), options.feature_px)
    n = options.n_particles or max(1, round(1.3 * options.peak_share * area / (math.pi * usual**2)))
    born = np.sort(np.clip(rng.gamma(2.0, 0.09, n) - 0.05, 0, 0.8))
    born[0] = 0.0
    sizes = rng.normal(size=(n, len(_WAVES))) * 0.12 / _WAVES
    return _Drops(
        y=margin + rng.uniform(-0.02, 1.02, n) * shape[0],
        x=margin + rng.uniform(-0.02, 1.02, n) * shape[1],
        radius=np.full(n, options.feature_px / 2),
        born=born,
        growth=usual * np.exp(0.3 * rng.normal(size=n)),
        sizes=sizes,
        phases=rng.uniform(0, 2 * np.pi, sizes.shape),
    )


def _calibrated(nuclei: _Drops, shape: tuple[int, int], options: ParticleOptions) -> list[_Drops]:
    """The history whose last state covers `peak_share`, as near as a few rescalings of the growth come."""
    # A particle in the centre, so that there is one to see even if all the others lie outside.
    nuclei.y[0], nuclei.x[0] = shape[0] * (0.35 + 0.3 * (nuclei.y[0] % 1)), shape[1] * (0.35 + 0.3 * (nuclei.x[0] % 1))
    history = _history(nuclei)
    for _ in range(_N_CALIBRATIONS):
        labels = np.zeros(shape, dtype=np.uint8)
        _draw(history[-1], labels)
        nuclei.growth *= np.clip(math.sqrt(options.peak_share / max((labels == 2).mean(), 1e-6)), 0.3, 3)
        history = _history(nuclei)
    return history


def _history(nuclei: _Drops) -> list[_Drops]:
    """State after each of `_N_STEPS` steps from the first nucleation to the end."""
    drops = nuclei.take(np.arange(nuclei.y.size))
    history = []
    for step in range(_N_STEPS):
        age = np.maximum((step + 1) / _N_STEPS - drops.born, 0)
        before = np.maximum(step / _N_STEPS - drops.born, 0)
        drops.radius = drops.radius + drops.growth * (np.sqrt(age) - np.sqrt(before))
        drops.sizes = drops.sizes * np.where(_WAVES == 2, 0.985, 0.998)
        drops = _coalesce(drops, age > 0)
        history.append(drops.take(np.flatnonzero(drops.born < (step + 1) / _N_STEPS)))
    return history


def _coalesce(drops: _Drops, alive: np.ndarray) -> _Drops:
    """Particles that touch approach each other; one that has sunk into its neighbour becomes part of it."""
    live = np.flatnonzero(alive)
    if live.size < 2:
        return drops
    points = np.stack([drops.y[live], drops.x[live]], axis=1)
    pairs = cKDTree(points).query_pairs(2.2 * drops.radius[live].max(), output_type="ndarray")
    gone = np.zeros(drops.y.size, dtype=bool)
    for i, j in live[pairs[np.lexsort(pairs.T[::-1])]]:
        if gone[i] or gone[j]:
            continue
        big, small = (i, j) if drops.radius[i] >= drops.radius[j] else (j, i)
        dy, dx = drops.y[small] - drops.y[big], drops.x[small] - drops.x[big]
        apart, reach = math.hypot(dy, dx), drops.radius[big] + drops.radius[small]
        if apart > 0.97 * reach:
            continue
        if apart < 0.75 * drops.radius[big]:
            _merge(drops, big, small, math.atan2(dy, dx))
            gone[small] = True
            continue
        share = drops.radius[small] ** 3 / (drops.radius[big] ** 3 + drops.radius[small] ** 3)
        pull = 0.012 * reach / max(apart, 1e-6)
        drops.y[big] += pull * share * dy
        drops.x[big] += pull * share * dx
        drops.y[small] -= pull * (1 - share) * dy
        drops.x[small] -= pull * (1 - share) * dx
    return drops.take(np.flatnonzero(~gone)) if gone.any() else drops


def _merge(drops: _Drops, big: int, small: int, axis: float) -> None:
    """`big` takes up the volume of `small`, and is elongated along `axis` at first."""
    ratio = (drops.radius[small] / drops.radius[big]) ** 3
    share = ratio / (1 + ratio)
    drops.y[big] += share * (drops.y[small] - drops.y[big])
    drops.x[big] += share * (drops.x[small] - drops.x[big])
    drops.radius[big] *= (1 + ratio) ** (1 / 3)
    drops.sizes[big, 0] = 0.25 * math.sqrt(ratio)
    drops.phases[big, 0] = 2 * axis


def _draw(drops: _Drops, labels: np.ndarray) -> None:
    """Set the pixels of every particle to 2."""
    height, width = labels.shape
    for k in range(drops.y.size):
        y, x = drops.y[k], drops.x[k]
        reach = drops.radius[k] * (1 + np.abs(drops.sizes[k]).sum()) + 1
        top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
        left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
        if top >= bottom or left >= right:
            continue
        dy, dx = np.arange(top, bottom)[:, None] - y, np.arange(left, right)[None, :] - x
        angle = np.arctan2(dy, dx)
        outline = np.ones_like(angle)
        for wave, size, phase in zip(_WAVES, drops.sizes[k], drops.phases[k], strict=True):
            outline += size * np.cos(wave * angle - phase)
        labels[top:bottom, left:right][np.hypot(dy, dx) <= drops.radius[k] * outline] = 2
