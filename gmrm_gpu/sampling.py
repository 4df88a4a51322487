"""Which pixels of which frame a replicate visits (METHOD.md 9).

A draw is a pure function of (seed, rate, replicate, frame): the same bits on every backend, whole or in blocks.
Every scheme gives every pixel the same probability of a visit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .backend import Array, Backend
from .config import SamplingConfig
from .errors import InputError
from .philox import N_FEISTEL_ROUNDS, STREAM_LAYOUT, STREAM_SAMPLE, permute, philox4x32, stream_words


@dataclass(frozen=True)
class Draw:
    """Visited pixels. positions : (R, m) int32, flat indices y * W + x; distinct within a row but for `clusters`.

    valid : (R, m) bool on the device, or None where every entry counts; padding repeats a legal position.
    n_samples : (R,) int64 on the host.
    values : (R, m) grey levels, where the draw itself knows them: of a sub-sampled movie.
    clusters : (R, m) int32, visits that are no independent look at the frame share a number; None: all are independent.
    n_effective : (R,) on the host, `effective_pixels`; None: as many as samples.
    """

    positions: Array
    valid: Array | None
    n_samples: np.ndarray
    values: Array | None = None
    clusters: Array | None = None
    n_effective: np.ndarray | None = None


@dataclass(frozen=True)
class DrawLayout:
    """What a draw is computed from besides its keys, for engines that compute it themselves.

    Attributes
    ----------
    scheme : ``"full"`` or as configured. n : positions (``lines``: row segments) that are permuted.
    rows, columns : ``stratified``: the grid; ``lines``: places of a segment, and segments of a row; else 1.
    first_count, thresholds : ``bernoulli``: the count is the first plus how many thresholds (uint64) a word reaches.
    table : int32 positions of the allowed pixels, or with ``stratified`` and ``lines`` (height, width) bool whether a
        pixel is allowed; None: all are.
    padded : whether some places of a row may not count.
    """

    scheme: str
    n: int
    rows: int = 1
    columns: int = 1
    first_count: int = 0
    thresholds: np.ndarray | None = None
    table: np.ndarray | None = None
    padded: bool = False


def effective_pixels(positions: np.ndarray) -> float:
    """Kish's effective sample size n^2 / sum k^2 of `n` visits, of which `k` went to each pixel.

    Where k has nothing to do with the grey levels, the mean over visits has the variance S^2 (sum k^2 / n^2 - 1 / N) in
    a frame of N pixels of variance S^2: that of so many different pixels. Even if all pixels were visited it is not 0
    where some were visited more often. Kish, Survey Sampling (1965), 11.7.

    positions : (n,) ascending.
    """
    starts = np.flatnonzero(np.diff(positions, prepend=-1, append=-1))
    visits = np.diff(starts)
    return positions.size**2 / max(1, int(visits @ visits))


class Sampler:
    """Draws visited pixels of frames of one movie.

    Parameters
    ----------
    shape : (height, width). config : rate, scheme, seed.
    allowed : (height, width) bool or None; False where a pixel is excluded from everything.
    """

    def __init__(self, shape: tuple[int, int], config: SamplingConfig, allowed: np.ndarray | None = None) -> None:
        self.shape, self.config = shape, config
        self.allowed = None if allowed is None or allowed.all() else np.ascontiguousarray(allowed)
        self.n_pixels = int(shape[0] * shape[1] if allowed is None else allowed.sum())
        if self.n_pixels == 0:
            raise InputError("every pixel is excluded; nothing is left to sample")

    @cached_property
    def _allowed_index(self) -> np.ndarray | None:
        return None if self.allowed is None else np.flatnonzero(self.allowed).astype(np.int32)

    @property
    def is_full(self) -> bool:
        """Whether every allowed pixel is visited."""
        return self.config.rate >= 1

    def total(self, n_frames: int) -> int:
        """Places of so many frames."""
        return self.capacity * n_frames

    @property
    def cluster_length(self) -> int:
        """Samples drawn together, as one segment of a line; 1 for the other schemes."""
        if self.is_full or self.config.scheme != "lines":
            return 1
        return -(-self.shape[1] // self._segments_per_row)

    @cached_property
    def capacity(self) -> int:
        """Length m of a row of positions; the number of samples, or its upper bound where it varies."""
        rate, scheme = self.config.rate, self.config.scheme
        if self.is_full:
            return self.n_pixels
        if scheme == "fixed":
            return max(1, round(rate * self.n_pixels))
        if scheme == "bernoulli":
            return min(self.n_pixels, self._first_count + len(self._count_thresholds))
        if scheme == "stratified":
            return self._grid[0] * self._grid[1]
        return self._n_segments * -(-self.shape[1] // self._segments_per_row)

    @cached_property
    def layout(self) -> DrawLayout:
        """What `draw` computes from."""
        if self.is_full:
            return DrawLayout("full", self.n_pixels, table=self._allowed_index)
        scheme = self.config.scheme
        if scheme == "fixed":
            return DrawLayout(scheme, self.n_pixels, table=self._allowed_index)
        if scheme == "bernoulli":
            first, thresholds = self._binomial
            table = self._allowed_index
            return DrawLayout(scheme, self.n_pixels, first_count=first, thresholds=thresholds, table=table, padded=True)
        if scheme == "stratified":
            rows, columns = self._grid
            padded = self.allowed is not None
            return DrawLayout(scheme, rows * columns, rows, columns, table=self.allowed, padded=padded)
        per_row = self._segments_per_row
        n = self.shape[0] * per_row
        return DrawLayout(scheme, n, self.cluster_length, per_row, table=self.allowed, padded=True)

    def draw(self, replicates: np.ndarray, frame: int, *, backend: Backend) -> Draw:
        """The pixels that `replicates` (R,) visit in the frame of that number."""
        replicates = np.atleast_1d(np.asarray(replicates))
        if self.is_full:
            index = np.arange(self.n_pixels, dtype=np.int32) if self._allowed_index is None else self._allowed_index
            positions = backend.xp.broadcast_to(backend.asarray(index)[None, :], (len(replicates), len(index)))
            return Draw(positions, None, np.full(len(replicates), len(index), dtype=np.int64))
        scheme = {
            "fixed": self._draw_fixed,
            "bernoulli": self._draw_bernoulli,
            "stratified": self._draw_stratified,
            "lines": self._draw_lines,
        }[self.config.scheme]
        return scheme(replicates, frame, backend)

    def _words(self, replicates: np.ndarray, frame: int, stream: int, n_words: int) -> np.ndarray:
        return stream_words(self.config.seed, self.config.rate, replicates, frame, stream, n_words)

    def _subset(self, replicates: np.ndarray, frame: int, m: int, n: int, backend: Backend) -> Array:
        """(R, m) int32: the first m values of each replicate's permutation of 0..n-1."""
        keys = backend.asarray(self._words(replicates, frame, STREAM_SAMPLE, N_FEISTEL_ROUNDS))
        return permute(backend.arange(m, dtype=backend.xp.uint32), n, keys, backend=backend)

    def _allowed_subset(self, replicates: np.ndarray, frame: int, backend: Backend) -> Array:
        xp = backend.xp
        ranks = self._subset(replicates, frame, self.capacity, self.n_pixels, backend)
        if self._allowed_index is None:
            return ranks
        allowed = backend.asarray(self._allowed_index)
        return xp.reshape(xp.take(allowed, xp.reshape(ranks, (-1,))), ranks.shape)

    # -- fixed: m pixels without replacement -------------------------------------------------------------------

    def _draw_fixed(self, replicates: np.ndarray, frame: int, backend: Backend) -> Draw:
        positions = self._allowed_subset(replicates, frame, backend)
        return Draw(positions, None, np.full(len(replicates), self.capacity, dtype=np.int64))

    # -- bernoulli: a binomial number of pixels, then as fixed: the same law as one coin a pixel --------------

    @cached_property
    def _binomial(self) -> tuple[int, np.ndarray]:
        from scipy.stats import binom

        n, rate = self.n_pixels, self.config.rate
        first = int(binom.ppf(2.0**-34, n, rate))
        last = int(binom.isf(2.0**-34, n, rate))
        cdf = binom.cdf(np.arange(max(first, 0), last + 1), n, rate)
        return max(first, 0), np.ceil(cdf * 2.0**32).astype(np.uint64)

    @property
    def _first_count(self) -> int:
        return self._binomial[0]

    @property
    def _count_thresholds(self) -> np.ndarray:
        return self._binomial[1]

    def _draw_bernoulli(self, replicates: np.ndarray, frame: int, backend: Backend) -> Draw:
        word = self._words(replicates, frame, STREAM_LAYOUT, 1)[:, 0].astype(np.uint64)
        counts = self._first_count + np.searchsorted(self._count_thresholds, word, side="right")
        counts = np.minimum(counts, self.capacity)
        positions = self._allowed_subset(replicates, frame, backend)
        valid = backend.arange(self.capacity)[None, :] < backend.asarray(counts.astype(np.int32))[:, None]
        return Draw(positions, valid, counts.astype(np.int64))

    # -- stratified: one pixel at random per block of a grid that is shifted (cyclically) at random ------------

    @cached_property
    def _grid(self) -> tuple[int, int]:
        height, width = self.shape
        m = max(1.0, self.config.rate * height * width)
        rows = min(height, max(1, round((m * height / width) ** 0.5)))
        return rows, min(width, max(1, round(m / rows)))

    def _draw_stratified(self, replicates: np.ndarray, frame: int, backend: Backend) -> Draw:
        # Block j covers rows floor((j H + o) / rows) up to the next, modulo H, with o uniform on 0..H-1. Rotating
        # the frame by one row maps this set of layouts onto itself, so every pixel is as likely as any other.
        (height, width), (rows, columns) = self.shape, self._grid
        words = self._words(replicates, frame, STREAM_LAYOUT, 4)
        shift = (words[:, :2].astype(np.uint64) * np.array([height, width], dtype=np.uint64)) >> np.uint64(32)
        xp = backend.xp
        cell = backend.arange(rows * columns, dtype=xp.uint32)[None, :]
        key = [backend.asarray(words[:, i : i + 1]) for i in (2, 3)]
        zero = xp.zeros_like(cell)
        u, v, _, _ = philox4x32((cell, zero, zero, zero + STREAM_SAMPLE), (key[0], key[1]), xp=xp)
        number = backend.arange(rows * columns, dtype=xp.int64)[None, :]
        offset = [backend.asarray(shift[:, i : i + 1].astype(np.int64)) for i in (0, 1)]
        y = _place_in_block(number // columns, rows, height, offset[0], u, xp)
        x = _place_in_block(number % columns, columns, width, offset[1], v, xp)
        return self._without_excluded(xp.astype(y * width + x, xp.int32), None, backend)

    # -- lines: segments of rows without replacement, what scan coils can do -----------------------------------

    @cached_property
    def _segments_per_row(self) -> int:
        return max(1, round(self.shape[1] / min(self.config.line_length, self.shape[1])))

    @cached_property
    def _n_segments(self) -> int:
        return max(1, round(self.config.rate * self.shape[0] * self._segments_per_row))

    def _draw_lines(self, replicates: np.ndarray, frame: int, backend: Backend) -> Draw:
        (height, width), per_row = self.shape, self._segments_per_row
        xp = backend.xp
        chosen = xp.astype(self._subset(replicates, frame, self._n_segments, height * per_row, backend), xp.int64)
        word = self._words(replicates, frame, STREAM_LAYOUT, 1).astype(np.uint64)
        shift = backend.asarray(((word * np.uint64(width)) >> np.uint64(32)).astype(np.int64))
        row, segment = chosen // per_row, chosen % per_row
        start = (segment * width + shift) // per_row
        length = ((segment + 1) * width + shift) // per_row - start
        step = backend.arange(-(-width // per_row), dtype=xp.int64)[None, None, :]
        valid = step < length[..., None]
        x = (start[..., None] + xp.where(valid, step, xp.zeros_like(step))) % width
        flat = (chosen.shape[0], -1)
        positions = xp.reshape(xp.astype(row[..., None] * width + x, xp.int32), flat)
        return self._without_excluded(positions, xp.reshape(valid, flat), backend)

    def _without_excluded(self, positions: Array, valid: Array | None, backend: Backend) -> Draw:
        xp = backend.xp
        if self.allowed is not None:
            table = backend.asarray(self.allowed.reshape(-1))
            inside = xp.reshape(xp.take(table, xp.reshape(positions, (-1,))), positions.shape)
            valid = inside if valid is None else valid & inside
        if valid is None:
            return Draw(positions, None, np.full(positions.shape[0], positions.shape[1], dtype=np.int64))
        return Draw(positions, valid, backend.to_host(xp.sum(xp.astype(valid, xp.int64), axis=1)))


def _place_in_block(block: Array, n_blocks: int, size: int, offset: Array, word: Array, xp: Any) -> Array:
    start = (block * size + offset) // n_blocks
    length = ((block + 1) * size + offset) // n_blocks - start
    inside = (xp.astype(word, xp.uint64) * xp.astype(length, xp.uint64)) >> 32
    return (start + xp.astype(inside, xp.int64)) % size
