"""Draws from a sub-sampled movie: of the pixels that the beam visited, all or some.

>>> import numpy as np
>>> from gmrm_gpu.config import SamplingConfig
>>> from gmrm_gpu.frames import open_movie
>>> movie = open_movie(np.arange(60, dtype=np.uint8).reshape(1, 6, 10), visited=np.eye(6, 10, dtype=bool))
>>> sampler_of(movie, SamplingConfig()).capacity
6
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .backend import Array, Backend
from .config import SamplingConfig
from .errors import InputError
from .frames import Movie
from .philox import N_FEISTEL_ROUNDS, STREAM_SAMPLE, permute
from .sampling import Draw, DrawLayout, Sampler, effective_pixels


@dataclass(frozen=True)
class FrameVisits:
    """The visits of one frame in the order of their places.

    Attributes
    ----------
    positions : (n,) int32 ascending, a pixel visited twice is there twice. values : (n,) grey levels.
    """

    positions: np.ndarray
    values: np.ndarray

    @cached_property
    def repeats(self) -> np.ndarray:
        """(n,) bool, whether the visit before went to the same pixel."""
        return np.diff(self.positions, prepend=-1) == 0

    def n_stretches(self, width: int) -> int:
        """How many stretches of neighbours in a row the visited pixels make."""
        return int(self.clusters(width, lines=True).max(initial=-1)) + 1

    def clusters(self, width: int, *, lines: bool) -> np.ndarray:
        """(n,) int32: visits that are no independent look at the frame share a number.

        Those of one pixel; with `lines` those of one stretch of a row.
        """
        same = self.repeats
        if lines:
            same = same | ((np.diff(self.positions, prepend=-2) == 1) & (self.positions % width != 0))
        return (np.cumsum(~same) - 1).astype(np.int32)


@dataclass(frozen=True)
class Visited:
    """All visits of a sub-sampled movie, some ten bytes each.

    Attributes
    ----------
    frames : T frames. numbers : (T,) of the frames. shape, valid, n_pixels, dtype : of the movie.
    """

    frames: tuple[FrameVisits, ...]
    numbers: np.ndarray
    shape: tuple[int, int]
    valid: np.ndarray | None
    n_pixels: int
    dtype: np.dtype

    @staticmethod
    def of(movie: Movie) -> Visited:
        """Read all visits.

        Raises
        ------
        InputError
            There is none in any frame.
        """
        frames = []
        for t in range(len(movie)):
            seen = movie.visits(t)
            order = np.argsort(seen.positions, kind="stable")
            frames.append(FrameVisits(seen.positions[order], seen.values[order]))
        if not any(frame.positions.size for frame in frames):
            raise InputError(f"no frame of {movie.name} has a visited pixel that may be used; check mask and --crop")
        return Visited(tuple(frames), movie.frame_numbers, movie.shape, movie.valid, movie.n_pixels, movie.dtype)

    @cached_property
    def counts(self) -> np.ndarray:
        """(T,) visits of each frame."""
        return np.array([frame.positions.size for frame in self.frames])

    @cached_property
    def n_repeats(self) -> np.ndarray:
        """(T,) visits to pixels that were visited before in the same frame."""
        return np.array([int(frame.repeats.sum()) for frame in self.frames])

    @property
    def shares(self) -> np.ndarray:
        """(T,) visited part of each frame's pixels."""
        return (self.counts - self.n_repeats) / self.n_pixels

    @property
    def share_in_rows(self) -> float:
        """Part of the visited pixels next to which, in their row, the one before was visited too."""
        stretches = sum(frame.n_stretches(self.shape[1]) for frame in self.frames)
        return 1 - stretches / int((self.counts - self.n_repeats).sum())

    def remarks(self, scheme: str) -> list[str]:
        """What a user should know of the visits, taken to be chosen by `scheme`."""
        found, repeats = [], int(self.n_repeats.sum())
        # At random the pixel before is visited as often as any other.
        if scheme != "lines" and self.share_in_rows > 0.5 * (1 + float(self.shares.mean())):
            found.append(
                f"{100 * self.share_in_rows:.3g} % of the visited pixels have one before them in their row, as if the "
                "beam had gone along lines: give --scheme lines. As it is, every visit counts as an independent look, "
                "and intervals are too narrow."
            )
        if repeats:
            part = f"{repeats:,} visits ({100 * repeats / self.counts.sum():.3g} %)"
            found.append(f"{part} went to pixels visited before in the same frame: they are samples as well.")
        empty = self.numbers[self.counts == 0]
        if empty.size:
            names = ", ".join(str(n) for n in empty[:8]) + (", ..." if empty.size > 8 else "")
            found.append(f"Without a visited pixel, and so without a result: {empty.size} frames ({names}).")
        return found


class VisitSampler(Sampler):
    """Draws from the visits of a sub-sampled movie.

    At rate 1 every visit counts; at a lower one ``round(rate * pixels)`` visits of each frame, without replacement.
    ``config.scheme`` says how the instrument chose the pixels, for the variance: ``fixed`` and ``bernoulli`` at random,
    ``stratified`` evenly spread, ``lines`` in stretches of rows.

    Raises
    ------
    InputError
        A frame has fewer visits than `config.rate` asks for.
    """

    def __init__(self, visited: Visited, config: SamplingConfig) -> None:
        super().__init__(visited.shape, config, visited.valid)
        self.visited = visited
        self._index = {int(number): t for t, number in enumerate(visited.numbers)}
        least = int(visited.counts.min())
        if not self.is_full and self.capacity > least:
            number = visited.numbers[visited.counts.argmin()]
            raise InputError(
                f"rate {config.rate:g} asks for {self.capacity:,} visits a frame, but frame {number} has {least:,} "
                f"({100 * least / self.n_pixels:.3g} %); give a lower rate (analyze without one uses every visit)"
            )

    @property
    def cluster_length(self) -> int:
        """1: a draw says itself which visits belong together."""
        return 1

    @cached_property
    def capacity(self) -> int:
        """Length m of a row of positions: the most visits of a frame, or as many as the rate asks for."""
        if self.is_full:
            return int(self.visited.counts.max())
        return max(1, round(self.config.rate * self.n_pixels))

    def total(self, n_frames: int) -> int:
        """Samples of all frames."""
        return int(np.minimum(self.visited.counts, self.capacity).sum())

    @property
    def layout(self) -> DrawLayout:
        """Nothing that an engine could draw from itself."""
        return DrawLayout("visits", self.capacity, padded=int(self.visited.counts.min()) < self.capacity)

    def draw(self, replicates: np.ndarray, frame: int, *, backend: Backend) -> Draw:
        """The visits that `replicates` (R,) see of the frame of that number, with their values, by place."""
        replicates = np.atleast_1d(np.asarray(replicates))
        seen = self.visited.frames[self._index[int(frame)]]
        index = self._chosen(replicates, frame, seen.positions.size, backend)
        lines = self.config.scheme == "lines"
        grouped = lines or bool(seen.repeats.any())
        clusters = self._rows(seen.clusters(self.shape[1], lines=lines), index, backend) if grouped else None
        n = min(self.capacity, seen.positions.size)
        inside = None
        if self.layout.padded:
            inside = backend.xp.broadcast_to(
                backend.arange(self.capacity)[None, :] < n, (len(replicates), self.capacity)
            )
        order = self._in_blocks(seen) if self.config.scheme == "stratified" and not grouped else slice(None)
        positions, values = (self._rows(a[order], index, backend) for a in (seen.positions, seen.values))
        worth = None
        if grouped:
            worth = np.array([effective_pixels(row) for row in backend.to_host(positions[:, :n])])
        return Draw(positions, inside, np.full(len(replicates), n, dtype=np.int64), values, clusters, worth)

    def _chosen(self, replicates: np.ndarray, frame: int, n: int, backend: Backend) -> Array:
        """(R, m) int32, ascending, which of the `n` visits; beyond `n` for places without one."""
        xp, m = backend.xp, self.capacity
        if self.is_full:
            return xp.broadcast_to(backend.arange(m, dtype=xp.int32)[None, :], (len(replicates), m))
        keys = backend.asarray(self._words(replicates, frame, STREAM_SAMPLE, N_FEISTEL_ROUNDS))
        return xp.sort(permute(backend.arange(m, dtype=xp.uint32), n, keys, backend=backend), axis=1)

    def _in_blocks(self, seen: FrameVisits) -> np.ndarray:
        """(n,) order in which visits come block by block, a visit in each, as `Sampler` draws them for this scheme."""
        side = (self.n_pixels / max(1, min(self.capacity, seen.positions.size))) ** 0.5
        y, x = (place // side for place in np.divmod(seen.positions, self.shape[1]))
        return np.lexsort((x, y))

    def _rows(self, array: np.ndarray, index: Array, backend: Backend) -> Array:
        """The entries (R, m) of `array` (n,) at `index`; 0 beyond its end."""
        xp = backend.xp
        padded = np.zeros(max(self.capacity, array.size), dtype=array.dtype)
        padded[: array.size] = array
        return xp.reshape(xp.take(backend.asarray(padded), xp.reshape(index, (-1,))), index.shape)


def sampler_of(movie: Movie, config: SamplingConfig, visited: Visited | None = None) -> Sampler:
    """What draws from `movie`: from its pixels, or from its visits (`visited`, if they were read already)."""
    if not movie.sampled:
        return Sampler(movie.shape, config, movie.valid)
    return VisitSampler(visited or Visited.of(movie), config)


def drawn_values(movie: Movie, t: int, draw: Draw, *, backend: Backend) -> Array:
    """(R, m) grey levels of frame `t` where `draw` went."""
    if draw.values is not None:
        return draw.values
    xp = backend.xp
    image = backend.asarray(np.ascontiguousarray(movie.frame(t)).reshape(-1))
    return xp.reshape(xp.take(image, xp.reshape(draw.positions, (-1,))), draw.positions.shape)


__all__ = ["FrameVisits", "VisitSampler", "Visited", "drawn_values", "sampler_of"]
