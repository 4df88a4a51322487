"""The spatio-temporal vote that cleans labels (METHOD.md 7).

Frames are pushed in the order of time. Each becomes an image of packed phase counts, summed along rows, so that a
row of the neighbourhood ball costs two look-ups whatever its length; a ring keeps the images within reach.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from .backend import Array, Backend
from .classify import NOT_VISITED
from .config import CorrectionConfig
from .errors import InputError

_FIELD_BITS = 16
_FIELD_MASK = (1 << _FIELD_BITS) - 1
_GROUP_PIXELS = 1 << 20
"""Images of about this many pixels are corrected together: enough to amortise calls, and near the cache."""
_QUERIES = 1 << 13


@dataclass(frozen=True)
class Corrected:
    """One corrected frame. labels : (R, m) uint8 on the device. without_neighbours : (R,) int64 on the host."""

    frame: int
    positions: Array
    labels: Array
    without_neighbours: np.ndarray


def ball_rows(config: CorrectionConfig, dt: int) -> list[tuple[int, int]]:
    """Rows of the neighbourhood at |t - t'| = dt: (dy, half width), empty beyond reach."""
    r, gap = config.radius, config.time_scale * abs(dt)
    rows = []
    for dy in range(-math.floor(r), math.floor(r) + 1):
        if config.metric == "l1":
            left = r - gap - abs(dy)
            half = math.floor(left) if left >= 0 else -1
        else:
            left = r * r - gap * gap - dy * dy
            half = -1 if left < 0 else math.isqrt(math.floor(left))
        if half >= 0:
            rows.append((dy, half))
    return rows


def time_offsets(config: CorrectionConfig) -> list[int]:
    """t' - t of the frames whose samples may vote."""
    if config.window == "spatial":
        return [0]
    reach = 0
    while ball_rows(config, reach + 1):
        reach += 1
    past = [-dt for dt in range(1, reach + 1)]
    if config.window == "past":
        return past
    if config.window == "past+current":
        return [0, *past]
    return [0, *past, *(-dt for dt in past)]


@dataclass
class _Frame:
    number: int
    positions: Array
    labels: Array
    images: list[list[Array]]
    """Per group of replicates, per plane of phases: row-summed packed counts, flat."""


@dataclass
class Corrector:
    """Corrects R replicates of a movie frame by frame.

    Parameters
    ----------
    shape : (height, width). n_phases : labels run from 0 to n_phases - 1. foreground : the foreground's label.
    """

    shape: tuple[int, int]
    config: CorrectionConfig
    n_phases: int
    foreground: int
    backend: Backend
    _ring: deque[_Frame] = field(default_factory=deque, init=False)
    _waiting: deque[_Frame] = field(default_factory=deque, init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.shape[1] >= 1 << (_FIELD_BITS - 1):
            raise InputError(f"frames are {self.shape[1]} pixels wide; the correction supports up to 32767")
        self._offsets = time_offsets(self.config) if self.config.radius > 0 else []
        self._rows = {abs(dt): ball_rows(self.config, dt) for dt in self._offsets}
        self._past = -min(self._offsets, default=0)
        self._future = max(self._offsets, default=0)
        self._pad = math.floor(self.config.radius)
        self._stride = self.shape[1] + 2 * self._pad + 1
        self._size = self._stride * (self.shape[0] + 2 * self._pad)
        self._group = max(1, _GROUP_PIXELS // self._size)
        # Two phases fit a 32-bit word, up to four a 64-bit word; more take several images.
        self._per_plane = 2 if self.n_phases <= 2 else 4
        self._word = self.backend.xp.int32 if self.n_phases <= 2 else self.backend.xp.int64

    @property
    def active(self) -> bool:
        """False with radius 0: labels pass unchanged."""
        return bool(self._offsets)

    @property
    def image_bytes(self) -> int:
        """Bytes the ring holds per replicate."""
        planes = -(-self.n_phases // self._per_plane)
        return self._size * planes * 2 * self._per_plane * (self._past + self._future + 1) if self.active else 0

    def push(self, positions: Array, labels: Array) -> list[Corrected]:
        """Give the next frame's samples (R, m); returns the frames that are now decided, in order."""
        frame = _Frame(self._count, positions, labels, [])
        self._count += 1
        if not self.active:
            return [Corrected(frame.number, positions, labels, np.zeros(labels.shape[0], dtype=np.int64))]
        frame.images = self._images(positions, labels)
        self._ring.append(frame)
        self._waiting.append(frame)
        return self._decide(self._count - 1 - self._future)

    def flush(self) -> list[Corrected]:
        """After the last frame: the frames that were waiting for a future that does not come."""
        return self._decide(self._count - 1)

    def _decide(self, last: int) -> list[Corrected]:
        done = []
        while self._waiting and self._waiting[0].number <= last:
            frame = self._waiting.popleft()
            done.append(self._correct(frame))
            while self._ring and self._ring[0].number <= frame.number - self._past:
                self._ring.popleft()
        return done

    def _images(self, positions: Array, labels: Array) -> list[list[Array]]:
        xp, width = self.backend.xp, self.shape[1]
        y = positions // width
        place = (y + self._pad) * self._stride + (positions - y * width) + self._pad + 1
        groups = []
        for i in range(0, labels.shape[0], self._group):
            label = labels[i : min(i + self._group, labels.shape[0]), :]
            rows = label.shape[0]
            base = self.backend.arange(rows, dtype=xp.int64)[:, None] * self._size
            index = xp.reshape(base + xp.astype(place[i : i + rows, :], xp.int64), (-1,))
            flat = xp.reshape(label, (-1,))
            if bool(xp.any(flat == NOT_VISITED)):
                visited = xp.nonzero(flat != NOT_VISITED)[0]
                index, flat = xp.take(index, visited), xp.take(flat, visited)
            groups.append([self._image(index, flat, rows, plane) for plane in range(0, self.n_phases, self._per_plane)])
        return groups

    def _image(self, index: Array, label: Array, rows: int, first_phase: int) -> Array:
        xp = self.backend.xp
        values = [0] * 256
        for phase in range(first_phase, min(first_phase + self._per_plane, self.n_phases)):
            values[phase] = 1 << (_FIELD_BITS * (phase - first_phase))
        table = self.backend.asarray(np.array(values, dtype=np.int64), dtype=self._word)
        counts = xp.take(table, xp.astype(label, xp.int64))
        image = self.backend.zeros((rows * self._size,), self._word)
        image = xp.reshape(self.backend.put(image, index, counts), (-1, self._stride))
        return xp.reshape(xp.cumulative_sum(image, axis=1, dtype=self._word), (-1,))

    def _correct(self, frame: _Frame) -> Corrected:
        xp = self.backend.xp
        parts, lonely = [], []
        for g in range(len(frame.images)):
            rows = slice(g * self._group, min((g + 1) * self._group, frame.labels.shape[0]))
            label, without = self._correct_group(frame, g, frame.positions[rows, :], frame.labels[rows, :])
            parts.append(label)
            lonely.append(without)
        labels = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
        return Corrected(frame.number, frame.positions, labels, np.concatenate(lonely))

    def _correct_group(self, frame: _Frame, g: int, positions: Array, labels: Array) -> tuple[Array, np.ndarray]:
        xp = self.backend.xp
        rows, m = labels.shape
        flat = xp.reshape(labels, (-1,))
        asked = flat != NOT_VISITED if self.config.sides == "both" else flat == self.foreground
        queries = xp.nonzero(asked)[0]
        out, without = flat * 1, np.zeros(rows, dtype=np.int64)
        position = xp.reshape(positions, (-1,))
        for i in range(0, queries.shape[0], _QUERIES):
            query = queries[i : min(i + _QUERIES, queries.shape[0])]
            label = xp.take(flat, query)
            counts = self._neighbours(frame, g, query // m, xp.take(position, query), label)
            new, lonely = self._vote(label, counts)
            out = self.backend.put(out, query, new)
            np.add.at(without, self.backend.to_host(query // m)[self.backend.to_host(lonely)], 1)
        return xp.reshape(out, (rows, m)), without

    def _neighbours(self, frame: _Frame, g: int, replicate: Array, position: Array, label: Array) -> Array:
        """(n_phases, queries) int64: how many neighbours of each phase."""
        xp, width = self.backend.xp, self.shape[1]
        position = xp.astype(position, xp.int64)
        y = position // width
        base = replicate * self._size + (y + self._pad) * self._stride + (position - y * width) + self._pad
        counts = [xp.zeros_like(base) for _ in range(self.n_phases)]
        for other in self._ring:
            dt = other.number - frame.number
            if dt not in self._offsets:
                continue
            rows = np.array(self._rows[abs(dt)], dtype=np.int64)
            low = base[None, :] + self.backend.asarray(rows[:, 0] * self._stride - rows[:, 1])[:, None]
            high = low + self.backend.asarray(2 * rows[:, 1] + 1)[:, None]
            for plane, image in enumerate(other.images[g]):
                packed = self._look_up(image, high) - self._look_up(image, low)
                for j in range(plane * self._per_plane, min((plane + 1) * self._per_plane, self.n_phases)):
                    shift = _FIELD_BITS * (j - plane * self._per_plane)
                    counts[j] = counts[j] + xp.astype((packed >> shift) & _FIELD_MASK, xp.int64)
        total = xp.stack(counts)
        if 0 in self._offsets:  # the pixel is no neighbour of its own
            own = self.backend.arange(self.n_phases, dtype=xp.int64)[:, None] == xp.astype(label, xp.int64)[None, :]
            total = total - xp.astype(own, xp.int64)
        return total

    def _look_up(self, image: Array, index: Array) -> Array:
        xp = self.backend.xp
        values = xp.reshape(xp.take(image, xp.reshape(index, (-1,))), index.shape)
        return xp.sum(values, axis=0, dtype=self._word)

    def _vote(self, label: Array, counts: Array) -> tuple[Array, Array]:
        """New labels and which samples had no neighbours. Shares are compared as quotients, which are exact at ties."""
        xp = self.backend.xp
        total = xp.sum(counts, axis=0)
        lonely = total == 0
        n = xp.astype(xp.where(lonely, xp.ones_like(total), total), xp.float64)
        foreground = xp.astype(counts[self.foreground, :], xp.float64)
        commonest = xp.astype(xp.argmax(counts, axis=0), label.dtype)
        is_foreground = label == self.foreground
        fails = is_foreground & (foreground / n < self.config.gamma) & ~lonely
        new = xp.where(fails, commonest, label)
        if self.config.sides == "both":
            gains = ~is_foreground & ((n - foreground) / n < self.config.gamma) & ~lonely
            new = xp.where(gains, xp.full_like(new, self.foreground), new)
        return new, lonely


def correct_labels(
    labels: Array,
    positions: Array,
    shape: tuple[int, int],
    config: CorrectionConfig,
    *,
    n_phases: int,
    foreground: int,
    backend: Backend,
) -> tuple[Array, np.ndarray]:
    """Correct whole label volumes at once.

    Parameters
    ----------
    labels : (R, T, m) uint8, `NOT_VISITED` for padding. positions : (R, T, m) int32 flat pixel indices.

    Returns
    -------
    corrected : (R, T, m) uint8. without_neighbours : (R, T) int64, visited samples that had no neighbours.
    """
    corrector = Corrector(shape, config, n_phases, foreground, backend)
    done = []
    for t in range(labels.shape[1]):
        done += corrector.push(positions[:, t, :], labels[:, t, :])
    done += corrector.flush()
    corrected = backend.xp.stack([frame.labels for frame in done], axis=1)
    return corrected, np.stack([frame.without_neighbours for frame in done], axis=1)
