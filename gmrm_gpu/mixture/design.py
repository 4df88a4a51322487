"""The trend basis at the samples, in the blocked layout that the moments are summed in (METHOD.md 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..backend import Array, Backend

BLOCK = 512
"""Samples per block. Products within a block run in the working precision, blocks are added in float64; and a
block is small enough that BLAS stays on the caller's thread, whose bits then do not depend on the batch."""
ONE_THREAD = 2**18
"""Products of at most so many multiplications stay on the caller's thread in OpenBLAS. How it shares out a larger one,
and with it the last bits, depends on how many threads there are."""


@dataclass(frozen=True)
class TrendBasis:
    """Monomials x^a y^b of a trend and of all products of two of its terms.

    Attributes
    ----------
    terms : exponents of f_1..f_q.
    monomials : exponents of (1, f_1..f_q, further products), each once; P of them.
    pair : (q, q) int, where the product f_i f_j stands in `monomials`.
    """

    terms: tuple[tuple[int, int], ...]

    @property
    def n_terms(self) -> int:
        """q."""
        return len(self.terms)

    @cached_property
    def monomials(self) -> tuple[tuple[int, int], ...]:
        products = ((a + c, b + d) for a, b in self.terms for c, d in self.terms)
        return tuple(dict.fromkeys([(0, 0), *self.terms, *products]))

    @cached_property
    def pair(self) -> np.ndarray:
        place = {term: i for i, term in enumerate(self.monomials)}
        return np.array([[place[a + c, b + d] for c, d in self.terms] for a, b in self.terms], dtype=np.int64)

    def evaluate(self, x: Array, y: Array, n_monomials: int | None = None, *, backend: Backend) -> Array:
        """(..., P, n) monomials at coordinates x, y (..., n), or the first `n_monomials` of them."""
        made = {(0, 0): backend.xp.ones_like(x), (1, 0): x, (0, 1): y}
        return backend.xp.stack([_monomial(made, a, b) for a, b in self.monomials[:n_monomials]], axis=-2)


def _monomial(made: dict[tuple[int, int], Array], a: int, b: int) -> Array:
    """x^a y^b from those in `made`, kept there. No closure: its cycle would hold the arrays until a collection."""
    if (a, b) not in made:
        made[a, b] = _monomial(made, a - 1, b) * made[1, 0] if a else _monomial(made, a, b - 1) * made[0, 1]
    return made[a, b]


@dataclass
class Samples:
    """Standardised samples of R fits, in blocks.

    Attributes
    ----------
    z : (R, blocks, n) standardised intensities (z - centre) / scale; padding 0, and so are all samples of a fit whose
        values are constant or hold a NaN. Of several channels: (R, blocks, C, n).
    features : (R or 1, blocks, P, n) monomials of `basis`.
    valid : (R or 1, blocks, n) 1 for a sample, 0 for padding.
    centre, scale : (R,) float64, or (R, C) of several channels, grey levels. n : (R,) float64, samples of each fit.
    log_weights : (R, blocks, K, n) each sample's own log weights in place of the fit's; None: it has none.
    """

    z: Array
    features: Array
    valid: Array
    centre: Array
    scale: Array
    n: Array
    basis: TrendBasis
    log_weights: Array | None = None

    def take(self, rows: Array, *, backend: Backend) -> Samples:
        """The fits at `rows` (int64)."""
        xp = backend.xp

        def pick(array: Array) -> Array:
            return array if array.shape[0] == 1 and self.z.shape[0] != 1 else xp.take(array, rows, axis=0)

        return replace(
            self,
            z=xp.take(self.z, rows, axis=0),
            features=pick(self.features),
            valid=pick(self.valid),
            centre=xp.take(self.centre, rows, axis=0),
            scale=xp.take(self.scale, rows, axis=0),
            n=xp.take(self.n, rows),
            log_weights=None if self.log_weights is None else xp.take(self.log_weights, rows, axis=0),
        )

    def rows(self, start: int, stop: int) -> Samples:
        """The fits start..stop-1, as views."""

        def cut(array: Array) -> Array:
            return array if array.shape[0] == 1 else array[start:stop, ...]

        return Samples(
            self.z[start:stop, ...],
            cut(self.features),
            cut(self.valid),
            self.centre[start:stop, ...],
            self.scale[start:stop, ...],
            self.n[start:stop],
            self.basis,
            None if self.log_weights is None else self.log_weights[start:stop, ...],
        )

    def subset(self, n_blocks: int) -> Samples:
        """An even subset: every block of a stride that leaves about `n_blocks`; the blocks interleave the samples."""
        stride = max(1, self.z.shape[1] // n_blocks)
        z, features, valid = (array[:, ::stride, ...] for array in (self.z, self.features, self.valid))
        log_weights = None if self.log_weights is None else self.log_weights[:, ::stride, ...]
        return replace(self, z=z, features=features, valid=valid, log_weights=log_weights)


def scaled_coordinates(positions: Array, shape: tuple[int, int], *, backend: Backend) -> tuple[Array, Array]:
    """Coordinates of flat pixel indices on the whole frame, x and y each from -1 to 1 (METHOD.md 1)."""
    height, width = shape
    row = positions // width
    column = positions - row * width

    def scaled(index: Array, size: int) -> Array:
        return backend.real(index) * (2.0 / max(size - 1, 1)) - (1.0 if size > 1 else 0.0)

    return scaled(column, width), scaled(row, height)


def make_samples(
    values: Array,
    positions: Array,
    shape: tuple[int, int],
    basis: TrendBasis,
    *,
    valid: Array | None = None,
    backend: Backend,
) -> Samples:
    """Standardise and block the samples of R fits.

    Parameters
    ----------
    values : (R, m) intensities, any real dtype, here or on the host. positions : (R, m), (1, m) or (m,) flat indices.
    valid : (R, m) bool; False for padding, whose value may be anything, NaN too.
    """
    xp = backend.xp
    values, positions = backend.asarray(values), backend.asarray(positions)
    valid = None if valid is None else backend.asarray(valid)
    z = xp.astype(values, xp.float64)
    weight = xp.ones_like(z[:1, :]) if valid is None else xp.astype(valid, xp.float64)
    z = z if valid is None else xp.where(valid, z, xp.zeros_like(z))
    n = xp.sum(xp.broadcast_to(weight, z.shape), axis=1)
    at_least_one = xp.maximum(n, xp.ones_like(n))
    centre = xp.sum(z, axis=1) / at_least_one
    varies = _varies(z, valid, backend)
    z = (z - centre[:, None]) * weight
    scale = xp.sqrt(xp.sum(z * z, axis=1) / at_least_one)
    scale = xp.where(varies, scale, xp.ones_like(scale))
    z = xp.where(varies[:, None], z / scale[:, None], xp.zeros_like(z))
    parts = blocked(z, weight, positions, shape, basis, len(basis.monomials), backend=backend)
    return Samples(*parts, centre, scale, n, basis)


def blocked(
    z: Array,
    weight: Array,
    positions: Array,
    shape: tuple[int, int],
    basis: TrendBasis,
    n_monomials: int,
    *,
    backend: Backend,
) -> tuple[Array, Array, Array]:
    """The first three arrays of `Samples`, with the first `n_monomials` of the basis."""
    xp = backend.xp
    positions = positions[None, :] if positions.ndim == 1 else positions
    if positions.shape[0] == z.shape[0] > 1 and _same_rows(positions, backend):
        positions = positions[:1, :]
    x, y = scaled_coordinates(positions, shape, backend=backend)
    features = basis.evaluate(block_rows(x, backend), block_rows(y, backend), n_monomials, backend=backend)
    z, weight = (block_rows(xp.astype(a, backend.dtype), backend) for a in (z, weight))
    return z, features, weight


def _varies(z: Array, valid: Array | None, backend: Backend) -> Array:
    """(R,) bool: whether a fit's samples differ and none is NaN."""
    # Not from the standard deviation: the rounded mean of equal values may differ from them.
    xp = backend.xp
    low, high = z, z
    if valid is not None:
        low, high = (xp.where(valid, z, xp.full_like(z, value)) for value in (np.inf, -np.inf))
    return xp.max(high, axis=1) > xp.min(low, axis=1)


def _same_rows(positions: Array, backend: Backend) -> bool:
    # A full-frame draw is one row broadcast to all replicates: a stride of zero, where arrays have strides.
    strides = getattr(positions, "strides", None)
    return strides is not None and strides[0] == 0


def block_rows(array: Array, backend: Backend) -> Array:
    """(R, m) -> (R, blocks, n), zero-padded. Sample i goes to block i % blocks, so any block is an even subset."""
    xp = backend.xp
    rows, m = array.shape
    n_blocks = max(1, -(-m // BLOCK))
    n = -(-m // n_blocks)
    if n * n_blocks != m:
        pad = xp.zeros((rows, n * n_blocks - m), dtype=array.dtype, device=backend.device)
        array = xp.concat([array, pad], axis=1)
    blocks = xp.permute_dims(xp.reshape(array, (rows, n, n_blocks)), (0, 2, 1))
    # Flattening copies into row order: with any other order in memory, sums would run differently, to the last bit,
    # before and after the batch is compacted.
    return xp.reshape(xp.reshape(blocks, (-1,)), (rows, n_blocks, n))


def unblock(array: Array, m: int, *, backend: Backend) -> Array:
    """Inverse of the blocking for (..., blocks, n) -> (..., m)."""
    xp = backend.xp
    axes = (*range(array.ndim - 2), array.ndim - 1, array.ndim - 2)
    lead = array.shape[:-2]
    return xp.reshape(xp.permute_dims(array, axes), (*lead, -1))[..., :m]
