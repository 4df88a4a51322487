"""The samples of all frames of R movies: one row a frame, blocked a few rows at a time (METHOD.md 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, Backend
from .design import Samples, TrendBasis, block_rows, blocked
from .moments import GROUP_SAMPLES

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class FrameRows:
    """Row r * T + t holds the samples of frame t of replicate r, as they came.

    Attributes
    ----------
    values : (R * T, m) intensities, any real dtype. positions : (R * T, m) flat pixel indices.
    valid : (R * T, m) bool, or None: all are. shape : (height, width). n_frames : T.
    centre, scale : (R * T,) float64 grey levels by which `samples` standardises; a scale of 0: not to be looked at.
    """

    values: Array
    positions: Array
    valid: Array | None
    shape: tuple[int, int]
    basis: TrendBasis
    n_frames: int
    backend: Backend
    centre: Array = None
    scale: Array = None

    @staticmethod
    def of_movies(
        values: Array,
        positions: Array,
        valid: Array | None,
        shape: tuple[int, int],
        basis: TrendBasis,
        backend: Backend,
    ) -> FrameRows:
        """From (R, T, m) arrays."""
        rows, n_frames, m = values.shape

        def flat(array: Array) -> Array:
            return backend.xp.reshape(backend.asarray(array), (rows * n_frames, m))

        inside = None if valid is None else flat(valid)
        return FrameRows(flat(values), flat(positions), inside, shape, basis, n_frames, backend)

    def standardised(self, centre: np.ndarray, scale: np.ndarray) -> FrameRows:
        """With the units (R,) of each movie."""
        units = (self.backend.asarray(np.repeat(a, self.n_frames)) for a in (centre, scale))
        return replace(self, **dict(zip(("centre", "scale"), units, strict=True)))

    @property
    def m(self) -> int:
        """Places a row."""
        return self.values.shape[1]

    def counts(self) -> Array:
        """(R, T) float64, samples of each frame."""
        xp = self.backend.xp
        if self.valid is None:
            n = xp.full((self.values.shape[0],), float(self.m), dtype=xp.float64, device=self.backend.device)
        else:
            n = xp.sum(xp.astype(self.valid, xp.float64), axis=1)
        return xp.reshape(n, (-1, self.n_frames))

    def finite(self) -> Array:
        """(R,) bool: whether every sample of a movie is a finite number."""
        xp = self.backend.xp
        shape = (self.values.shape[0] // self.n_frames, -1)
        if not xp.isdtype(self.values.dtype, "real floating"):
            return xp.ones((shape[0],), dtype=xp.bool, device=self.backend.device)
        fine = xp.isfinite(self.values)
        fine = fine if self.valid is None else fine | ~self.valid
        return xp.all(xp.reshape(fine, shape), axis=1)

    def even(self, n: int) -> FrameRows:
        """An even subset of `n` samples a frame, another in each frame.

        A sequence of steps of `even_step`: every stretch of it is spread evenly over the row, whatever the order of the
        samples there. (Every m/n-th pixel of a full frame could be a single column.)
        """
        if n >= self.m:
            return self
        step = even_step(self.m)
        start = np.arange(self.n_frames, dtype=np.int64)[:, None] * n
        index = (start + np.arange(n, dtype=np.int64)) % self.m * step % self.m
        rows = self.backend.asarray(np.tile(index, (self.values.shape[0] // self.n_frames, 1)))

        def pick(array: Array) -> Array:
            return self.backend.xp.take_along_axis(array, rows, axis=1)

        valid = None if self.valid is None else pick(self.valid)
        return replace(self, values=pick(self.values), positions=pick(self.positions), valid=valid)

    def pooled(self) -> tuple[Array, Array, Array | None]:
        """Values, positions and valid with all frames of a movie in one row."""
        shape = (self.values.shape[0] // self.n_frames, -1)
        values, positions = (self.backend.xp.reshape(a, shape) for a in (self.values, self.positions))
        return values, positions, None if self.valid is None else self.backend.xp.reshape(self.valid, shape)

    def place_blocks(self, part: slice) -> Array:
        """(rows, blocks, n) positions in the layout of `samples`; padding is pixel 0."""
        return block_rows(self.positions[part, :], self.backend)

    def samples(self, part: slice, n_monomials: int) -> Samples:
        """The rows of `part`, standardised and blocked, with the first `n_monomials` of the basis."""
        xp = self.backend.xp
        centre, scale = self.centre[part], self.scale[part]
        z = xp.astype(self.values[part, :], xp.float64)
        weight = xp.ones_like(z)
        inside = xp.broadcast_to((scale > 0)[:, None], z.shape)
        if self.valid is not None:
            inside = inside & self.valid[part, :]
            weight = xp.astype(self.valid[part, :], xp.float64)
        z = xp.where(inside, z, centre[:, None]) - centre[:, None]
        z = z / xp.where(scale > 0, scale, xp.ones_like(scale))[:, None]
        places = self.positions[part, :]
        parts = blocked(z, weight, places, self.shape, self.basis, n_monomials, backend=self.backend)
        return Samples(*parts, centre, scale, xp.sum(weight, axis=1), self.basis)


def even_step(m: int) -> int:
    """A number near the golden section of `m` that shares no divisor with it."""
    return next(s for s in range(max(1, round(_GOLDEN * m)), 2 * m + 2) if np.gcd(s, m) == 1)


def groups(n_rows: int, size: int) -> Iterator[slice]:
    """Slices of so many rows of `size` numbers that their arrays fit the cache of a core."""
    step = max(1, GROUP_SAMPLES // size)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
