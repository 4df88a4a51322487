"""Weights of the components that vary over the frame, learned from the other frames of a movie (METHOD.md 6).

A pixel's neighbours in space and time say what it may be. Cells hold the summed responsibilities of the samples of
*other* frames (so that a sample never votes for itself), smoothed by Gaussians of several widths. The widest map is
trusted first; each finer one corrects it by as much as it has samples for, more readily where the coarser map is
mixed than where it is pure: a few samples of noise must not make an island in the open electrolyte. Shrinking all
maps towards the weights of the whole frame instead lets the trend swallow whatever stands on one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..backend import Array, Backend
from .design import ONE_THREAD
from .moments import NO_COMPONENT

WIDEST_PX = 24.0
"""Standard deviation of the coarsest Gaussian, pixels; each next one is half as wide."""
_NARROWEST_PX = 3.0
CELLS_PER_SD = 1.5
"""Cells of a level in a standard deviation of its Gaussian."""
_SAMPLES = 2.0
"""Samples a frame that the finest Gaussian should hold."""
_REACH = 6
"""Cells beyond which the Gaussian is cut: 4 standard deviations."""
_STRIP = 1024
"""Cells of a row or column that are smoothed at a time, so that OpenBLAS stays on the caller's thread: threads of its
own bring little here, and cost many times more than that where other threads work too."""
SHRINKAGE = 0.1
"""Samples that the coarser map is worth where it is fully mixed (impurity 1); more where it is purer."""
PUREST = 0.01
"""Impurity below which the coarser map is worth no more."""
FLOOR = 0.01
"""Part of the widest map in the final prior."""
DECAY, DECAY_PAST = 0.4, 0.6
"""Weight of a frame relative to the next nearer one: of maps from both directions of time, and from the past alone."""
_STEPS = 65536.0
"""Responsibilities are deposited in whole multiples of 1/65536: such sums do not depend on their order."""


def n_levels(rate: float) -> int:
    """Levels down to the width at which a Gaussian still holds a few samples a frame at `rate` (0 to 1)."""
    narrowest = max(_NARROWEST_PX, math.sqrt(_SAMPLES / (2 * math.pi * rate)))
    return 1 + round(math.log2(WIDEST_PX / min(narrowest, WIDEST_PX)))


@dataclass(frozen=True)
class CellMaps:
    """Nested grids of cells over frames of one shape.

    Attributes
    ----------
    shape : (height, width) of the frames, pixels. n_levels : widths of the Gaussian, each half the one before.
    purest : `PUREST`, or 1 for maps that follow few samples as readily in pure regions as in mixed ones.
    """

    shape: tuple[int, int]
    n_levels: int
    backend: Backend
    purest: float = PUREST

    @cached_property
    def cell_px(self) -> int:
        """Side of the finest cells, pixels."""
        return round(WIDEST_PX / CELLS_PER_SD / 2 ** (self.n_levels - 1))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest cells; a multiple of the coarsest ones."""
        coarse = self.cell_px * 2 ** (self.n_levels - 1)
        rows, columns = (-(-size // coarse) * 2 ** (self.n_levels - 1) for size in self.shape)
        return rows, columns

    @property
    def n_cells(self) -> int:
        """Number of the finest cells."""
        return self.grid[0] * self.grid[1]

    def cells(self, positions: Array) -> Array:
        """Finest cell of each flat pixel index, in the same shape and type."""
        y = positions // self.shape[1]
        x = positions - y * self.shape[1]
        return (y // self.cell_px) * self.grid[1] + x // self.cell_px

    def pixel_shares(self, allowed: np.ndarray | None, pixel_weights: np.ndarray | None = None) -> np.ndarray:
        """(cells,) float64 on the host, share of the frame's allowed pixels in each finest cell, or their weight.

        pixel_weights : (height * width,); summed in place of 1 a pixel, and divided by the number of pixels likewise.
        """
        flat = np.arange(self.shape[0] * self.shape[1]) if allowed is None else np.flatnonzero(allowed)
        weights = None if pixel_weights is None else pixel_weights[flat]
        return np.bincount(self.cells(flat), weights=weights, minlength=self.n_cells) / flat.size

    def _index(self, cells: Array, n_components: int) -> Array:
        """(rows, blocks, K, n) int64 places in flattened maps (rows, K, *grid) of cells (rows, blocks, n)."""
        xp, rows = self.backend.xp, cells.shape[0]
        base = self.backend.arange(rows * n_components, dtype=xp.int64) * self.n_cells
        return xp.reshape(base, (rows, 1, n_components, 1)) + xp.astype(cells, xp.int64)[:, :, None, :]

    def deposit(self, cells: Array, resp: Array) -> Array:
        """Summed responsibilities (rows, K, *grid) of each cell: cells (rows, blocks, n), resp (rows, blocks, K, n)."""
        xp, backend = self.backend.xp, self.backend
        rows, _, k, _ = resp.shape
        index = xp.reshape(self._index(cells, k), (-1,))
        whole = xp.round(xp.reshape(xp.astype(resp, xp.float64), (-1,)) * _STEPS)
        total = backend.count(index, whole, rows * k * self.n_cells) / _STEPS
        return xp.reshape(xp.astype(total, backend.dtype), (rows, k, *self.grid))

    def at_samples(self, maps: Array, cells: Array) -> Array:
        """Values (rows, blocks, K, n) of maps (rows, K, *grid) at cells (rows, blocks, n)."""
        xp = self.backend.xp
        index = self._index(cells, maps.shape[1])
        return xp.reshape(xp.take(xp.reshape(maps, (-1,)), xp.reshape(index, (-1,))), index.shape)

    def prior(self, held: Array, weights: Array) -> Array:
        """Weights (..., K, rows, columns) of every component in every cell, summing to 1 over K.

        Parameters
        ----------
        held : (..., K, rows, columns), what the other frames left there (`through_time`).
        weights : (..., K) of the whole frame, 0 for a dropped component.
        """
        return self.combine(self.levels(held), weights)

    def levels(self, deposits: Array) -> list[Array]:
        """Samples around each cell, (..., K, rows, columns) a level, the widest Gaussian first; its peak is 1."""
        sums = [deposits]
        for _ in range(self.n_levels - 1):
            sums.insert(0, _halved(sums[0], self.backend.xp))
        return [self._smoothed(level) for level in sums]

    def combine(self, held: list[Array], weights: Array) -> Array:
        """The prior (..., K, rows, columns) from the maps `held` of each level and the frame's `weights` (..., K)."""
        xp = self.backend.xp
        prior = widest = xp.astype(weights, self.backend.dtype)[..., None, None]
        for number, level in enumerate(held):
            if number:
                prior, widest = (xp.repeat(xp.repeat(a, 2, axis=-1), 2, axis=-2) for a in (prior, widest))
            impurity = 1.0 - xp.sum(prior * prior, axis=-3, keepdims=True)
            worth = SHRINKAGE / xp.clip(impurity, self.purest, 1.0)
            prior = (level + worth * prior) / (xp.sum(level, axis=-3, keepdims=True) + worth)
            widest = widest if number else prior
        return (1.0 - FLOOR) * prior + FLOOR * widest

    def _smoothed(self, maps: Array) -> Array:
        """Gaussian with peak 1: each cell holds the samples around it."""
        xp = self.backend.xp
        rows, columns = (self._gaussians[size] for size in maps.shape[-2:])
        if self.backend.name == "cupy":  # a few large products, rather than many small ones
            return xp.matmul(xp.matmul(rows, maps), columns)
        height, width = maps.shape[-2:]
        strips = []
        for strip in _strips(width):
            bands = _bands(height, strip.stop - strip.start)
            down = [xp.matmul(rows[part, near], maps[..., near, strip]) for part, near in bands]
            strips.append(xp.concat(down, axis=-2))
        maps = strips[0] if len(strips) == 1 else xp.concat(strips, axis=-1)
        strips = []
        for strip in _strips(height):
            bands = _bands(width, strip.stop - strip.start)
            along = [xp.matmul(maps[..., strip, near], columns[near, part]) for part, near in bands]
            strips.append(xp.concat(along, axis=-1))
        return strips[0] if len(strips) == 1 else xp.concat(strips, axis=-2)

    @cached_property
    def _gaussians(self) -> dict[int, Array]:
        """By number of cells, (cells, cells) of every side of every level."""
        sizes = {side // 2**level for side in self.grid for level in range(self.n_levels)}
        steps = {size: np.subtract.outer(np.arange(size), np.arange(size)) / CELLS_PER_SD for size in sizes}
        far = _REACH / CELLS_PER_SD
        cut = {size: np.where(np.abs(step) <= far, np.exp(-0.5 * step**2), 0.0) for size, step in steps.items()}
        return {size: self.backend.real(gaussian) for size, gaussian in cut.items()}


def through_time(deposits: Array, *, backend: Backend) -> Array:
    """What the other frames leave to each, (R, T, ...) as `deposits`: fading with their distance in time."""
    xp, decay, n = backend.xp, DECAY, deposits.shape[1]
    out = xp.zeros_like(deposits)
    for order in (range(n - 1), range(n - 1, 0, -1)):
        held = xp.zeros_like(deposits[:, 0, ...])
        for t in order:
            held = decay * (held + deposits[:, t, ...])
            following = t + 1 if order.step > 0 else t - 1
            out[:, following, ...] += held
    return out


def log_prior(prior: Array, xp: Any) -> Array:
    """Its logarithm, `NO_COMPONENT` where it is 0."""
    tiny = xp.full_like(prior, 1e-30)
    return xp.where(prior > 0, xp.log(xp.maximum(prior, tiny)), xp.full_like(prior, NO_COMPONENT))


def _strips(size: int) -> list[slice]:
    """All of `size` cells, few at a time."""
    return [slice(a, min(a + _STRIP, size)) for a in range(0, size, _STRIP)]


def _bands(size: int, other: int) -> list[tuple[slice, slice]]:
    """Parts of `size` cells, each with the cells that its Gaussians reach; `other` : cells the other way."""
    step = next((n for n in (64, 32, 16) if n * (n + 2 * _REACH) * other <= ONE_THREAD), 8)
    starts = range(0, size, step)
    return [(slice(a, min(a + step, size)), slice(max(a - _REACH, 0), min(a + step + _REACH, size))) for a in starts]


def _halved(maps: Array, xp: Any) -> Array:
    """Sums over two by two cells."""
    rows, columns = maps.shape[-2:]
    pairs = xp.reshape(maps, (*maps.shape[:-2], rows // 2, 2, columns // 2, 2))
    return pairs[..., 0, :, 0] + pairs[..., 0, :, 1] + pairs[..., 1, :, 0] + pairs[..., 1, :, 1]
