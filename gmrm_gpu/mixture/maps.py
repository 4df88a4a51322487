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

import numpy as np

from ..backend import Array, Backend

WIDEST_PX = 24.0
"""Standard deviation of the coarsest Gaussian, pixels; each next one is half as wide."""
_NARROWEST_PX = 3.0
_CELLS_PER_SD = 1.5
_SAMPLES = 2.0
"""Samples a frame that the finest Gaussian should hold."""
SHRINKAGE = 0.1
"""Samples that the coarser map is worth where it is fully mixed (impurity 1); more where it is purer."""
_PUREST = 0.01
FLOOR = 0.01
"""Part of the widest map in the final prior."""
DECAY = {"two-sided": 0.4, "past": 0.6}
"""What a frame further away counts less, per direction of time."""
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
    """

    shape: tuple[int, int]
    n_levels: int
    backend: Backend

    @cached_property
    def cell_px(self) -> int:
        """Side of the finest cells, pixels."""
        return round(WIDEST_PX / _CELLS_PER_SD / 2 ** (self.n_levels - 1))

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

    def pixel_shares(self, valid: np.ndarray | None) -> Array:
        """(cells,) float64, share of the frame's (valid) pixels that lie in each finest cell."""
        flat = np.arange(self.shape[0] * self.shape[1]) if valid is None else np.flatnonzero(valid)
        counts = np.bincount(np.asarray(self.cells(flat)), minlength=self.n_cells)
        return self.backend.asarray(counts / flat.size)

    def deposit(self, cells: Array, resp: Array) -> Array:
        """Summed responsibilities of each cell: cells (rows, m), resp (K, rows, m) -> (rows, K, *grid)."""
        xp, backend = self.backend.xp, self.backend
        rows = cells.shape[0]
        base = backend.arange(rows, dtype=xp.int64)[:, None] * self.n_cells
        index = xp.reshape(base + xp.astype(cells, xp.int64), (-1,))
        maps = []
        for k in range(resp.shape[0]):
            whole = xp.round(xp.reshape(xp.astype(resp[k, ...], xp.float64), (-1,)) * _STEPS)
            total = backend.count(index, whole, rows * self.n_cells) / _STEPS
            maps.append(xp.reshape(xp.astype(total, backend.dtype), (rows, *self.grid)))
        return xp.stack(maps, axis=1)

    def prior(self, deposits: Array, weights: Array, window: str) -> Array:
        """Weights of every component in every cell of every frame, from the other frames.

        Parameters
        ----------
        deposits : (R, T, K, rows, columns) from `deposit`. weights : (R, T, K) of whole frames, 0 for a dropped
            component. window : ``"two-sided"``, or ``"past"`` for earlier frames only.

        Returns
        -------
        (R, T, K, rows, columns), summing to 1 over K.
        """
        held = [_through_time(level, window, self.backend) for level in self.levels(deposits)]
        return self.combine(held, weights)

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
            worth = SHRINKAGE / xp.clip(impurity, _PUREST, 1.0)
            prior = (level + worth * prior) / (xp.sum(level, axis=-3, keepdims=True) + worth)
            widest = widest if number else prior
        return (1.0 - FLOOR) * prior + FLOOR * widest

    def _smoothed(self, maps: Array) -> Array:
        """Gaussian with peak 1: each cell holds the samples around it."""
        xp = self.backend.xp
        rows, columns = (self._gaussian(size) for size in maps.shape[-2:])
        return xp.matmul(xp.matmul(rows, maps), columns)

    def _gaussian(self, size: int) -> Array:
        step = np.subtract.outer(np.arange(size), np.arange(size)) / _CELLS_PER_SD
        return self.backend.real(np.where(np.abs(step) <= 4, np.exp(-0.5 * step**2), 0.0))


def _through_time(maps: Array, window: str, backend: Backend) -> Array:
    """Each frame's map (R, T, ...) from the maps of the others, fading with their distance in time."""
    xp, decay, n = backend.xp, DECAY[window], maps.shape[1]
    nothing = xp.zeros_like(maps[:, 0, ...])
    past = [nothing]
    for t in range(n - 1):
        past.append(decay * (past[-1] + maps[:, t, ...]))
    if window == "past":
        return xp.stack(past, axis=1)
    held = nothing
    for t in range(n - 2, -1, -1):
        held = decay * (held + maps[:, t + 1, ...])
        past[t] = past[t] + held
    return xp.stack(past, axis=1)


def _halved(maps: Array, xp: object) -> Array:
    """Sums over two by two cells."""
    rows, columns = maps.shape[-2:]
    pairs = xp.reshape(maps, (*maps.shape[:-2], rows // 2, 2, columns // 2, 2))  # type: ignore[attr-defined]
    return pairs[..., 0, :, 0] + pairs[..., 0, :, 1] + pairs[..., 1, :, 0] + pairs[..., 1, :, 1]
