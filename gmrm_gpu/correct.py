"""The spatio-temporal vote that cleans labels (METHOD.md 7).

Frames are pushed in the order of time. Each becomes a running sum of visited pixels, eight bits a phase packed into
one word, so that a row of the neighbourhood ball costs two look-ups whatever its length. The sum may wrap around: a
difference over one row, at most 255 visits, is exact all the same. A ring keeps the sums within reach.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from .backend import Array, Backend
from .classify import NOT_VISITED
from .config import CorrectionConfig

_FIELD_BITS = 8
_GROUP_PIXELS = 1 << 20
"""Images of about this many pixels are corrected together: enough to amortise calls, and near the cache."""
_LOOK_UPS = 1 << 18
"""Rows of neighbourhood balls looked up at a time, some ten megabytes."""


@dataclass(frozen=True)
class Corrected:
    """One corrected frame. labels : (R, m) uint8 on the device. without_neighbours : (R,) int64 on the host."""

    frame: int
    positions: Array
    labels: Array
    without_neighbours: np.ndarray


def ball_rows(config: CorrectionConfig, dt: int) -> list[tuple[int, int]]:
    """Rows of the neighbourhood at |t - t'| = dt: (dy, half width), empty beyond reach."""
    # Exact arithmetic on the decimals the user wrote: 2.6^2 = 1^2 + 2.4^2 is inside, which floats would lose.
    r = Fraction(str(config.radius_px))
    gap = Fraction(str(config.time_scale)) * abs(dt)
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
    reach = math.floor(Fraction(str(config.radius_px)) / Fraction(str(config.time_scale)))
    past = [-dt for dt in range(1, reach + 1)]
    if config.window == "past":
        return past
    if config.window == "past+current":
        return [0, *past]
    return [0, *past, *(-dt for dt in past)]


@dataclass
class _Frame:
    """A frame that waits for its correction."""

    number: int
    positions: Array
    labels: Array


@dataclass
class Corrector:
    """Corrects R replicates of a movie frame by frame.

    Parameters
    ----------
    shape : (height, width). n_phases : labels run from 0 to n_phases - 1. foreground : the foreground's label.
    wanted : numbers of the frames to correct, counted from the first pushed; None: all.
    repeats : whether a pixel may be visited more than once in a frame. It then votes once for each phase seen there.
    """

    shape: tuple[int, int]
    config: CorrectionConfig
    n_phases: int
    foreground: int
    backend: Backend
    wanted: frozenset[int] | None = None
    repeats: bool = False
    _ring: deque[tuple[int, list[Array]]] = field(default_factory=deque, init=False)
    """Frame number; per group of replicates, running sum of packed visits, flat."""
    _waiting: deque[_Frame] = field(default_factory=deque, init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._offsets = time_offsets(self.config) if self.active else []
        self._rows = {abs(dt): ball_rows(self.config, dt) for dt in self._offsets}
        self._past = -min(self._offsets, default=0)
        self._future = max(self._offsets, default=0)
        self._pad = math.floor(self.config.radius_px)
        self._stride = self.shape[1] + 2 * self._pad + 1
        self._size = self._stride * (self.shape[0] + 2 * self._pad)
        self._group = max(1, _GROUP_PIXELS // self._size)
        self._queries = max(1, _LOOK_UPS // max(map(len, self._rows.values()), default=1))
        xp = self.backend.xp
        # At most six phases (one a component), eight bits each.
        self._word = xp.uint16 if self.n_phases <= 2 else xp.uint32 if self.n_phases <= 4 else xp.uint64
        self._word_bytes = 2 if self.n_phases <= 2 else 4 if self.n_phases <= 4 else 8
        values = np.array([1 << (_FIELD_BITS * phase) for phase in range(self.n_phases)] + [0], dtype=np.uint64)
        self._unit = self.backend.asarray(values, dtype=self._word)
        self._spare: dict[int, list[Array]] = {}
        self._scratch: dict[int, Array] = {}

    @property
    def active(self) -> bool:
        """False with radius 0: labels pass unchanged."""
        return self.config.radius_px > 0

    def bytes_per_replicate(self, m: int, n_frames: int) -> int:
        """Bytes held per replicate of `m` samples a frame over a movie: running sums, and frames that wait."""
        if not self.active:
            return 0
        held = min(self._past + self._future + 1, n_frames)
        waiting = min(self._future + 1, n_frames)
        return (held + 1) * self._size * self._word_bytes + waiting * m * 5

    def push(self, positions: Array, labels: Array) -> list[Corrected]:
        """Give the next frame's samples (R, m); returns the frames that are now decided, in order."""
        frame = _Frame(self._count, positions, labels)
        self._count += 1
        if not self.active:
            return [Corrected(frame.number, positions, labels, np.zeros(labels.shape[0], dtype=np.int64))]
        if self._is_near(frame.number):
            self._ring.append((frame.number, self._images(positions, labels)))
        self._waiting.append(frame)
        return self._decide(self._count - 1 - self._future)

    def flush(self) -> list[Corrected]:
        """After the last frame: the frames that were waiting for a future that does not come."""
        return self._decide(self._count - 1)

    def _is_near(self, number: int) -> bool:
        """Whether the samples of a frame vote on any that is wanted."""
        if self.wanted is None:
            return True
        return any(number - frame in self._offsets for frame in self.wanted)

    def _decide(self, last: int) -> list[Corrected]:
        done = []
        while self._waiting and self._waiting[0].number <= last:
            frame = self._waiting.popleft()
            if self.wanted is None or frame.number in self.wanted:
                done.append(self._correct(frame))
            while self._ring and self._ring[0][0] <= frame.number - self._past:
                for image in self._ring.popleft()[1]:
                    self._spare.setdefault(image.shape[0], []).append(image)
        return done

    def _images(self, positions: Array, labels: Array) -> list[Array]:
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
            groups.append(self._running_sum(index, xp.take(self._unit, xp.astype(flat, xp.int64)), rows * self._size))
        return groups

    def _running_sum(self, index: Array, visits: Array, size: int) -> Array:
        """Running sum of `visits` at `index`; reuses memory, since fresh pages cost more than the sum itself."""
        backend = self.backend
        scratch = self._scratch.pop(size) if size in self._scratch else backend.zeros((size,), self._word)
        for part, votes in self._apart(index, visits):
            scratch = backend.put(scratch, part, backend.xp.take(scratch, part) + votes if self.repeats else votes)
        spare = self._spare.get(size)
        out = spare.pop() if spare else backend.zeros((size,), self._word)
        image = backend.running_sum(scratch, out)
        self._scratch[size] = backend.put(scratch, index, backend.xp.zeros_like(visits))
        return image

    def _apart(self, index: Array, visits: Array) -> list[tuple[Array, Array]]:
        """`index` and `visits`; where pixels may repeat a phase at a time, so that equal places hold equal votes."""
        if not self.repeats:
            return [(index, visits)]
        xp = self.backend.xp
        chosen = [xp.nonzero(visits == self._unit[phase])[0] for phase in range(self.n_phases)]
        return [(xp.take(index, rows), xp.take(visits, rows)) for rows in chosen if rows.shape[0]]

    def _correct(self, frame: _Frame) -> Corrected:
        xp = self.backend.xp
        parts, lonely = [], []
        for g, start in enumerate(range(0, frame.labels.shape[0], self._group)):
            rows = slice(start, min(start + self._group, frame.labels.shape[0]))
            label, without = self._correct_group(frame.number, g, frame.positions[rows, :], frame.labels[rows, :])
            parts.append(label)
            lonely.append(without)
        labels = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
        return Corrected(frame.number, frame.positions, labels, np.concatenate(lonely))

    def _correct_group(self, number: int, g: int, positions: Array, labels: Array) -> tuple[Array, np.ndarray]:
        xp = self.backend.xp
        rows, m = labels.shape
        flat = xp.reshape(labels, (-1,))
        asked = flat != NOT_VISITED if self.config.sides == "both" else flat == self.foreground
        queries = xp.nonzero(asked)[0]
        out, without = flat * 1, np.zeros(rows, dtype=np.int64)
        position = xp.reshape(positions, (-1,))
        for i in range(0, queries.shape[0], self._queries):
            query = queries[i : min(i + self._queries, queries.shape[0])]
            label = xp.take(flat, query)
            counts = self._neighbours(number, g, query // m, xp.take(position, query), label)
            new, lonely = self._vote(label, counts)
            out = self.backend.put(out, query, new)
            np.add.at(without, self.backend.to_host(query // m)[self.backend.to_host(lonely)], 1)
        return xp.reshape(out, (rows, m)), without

    def _neighbours(self, number: int, g: int, replicate: Array, position: Array, label: Array) -> Array:
        """(n_phases, queries) int64: how many neighbours of each phase."""
        xp, width = self.backend.xp, self.shape[1]
        position = xp.astype(position, xp.int64)
        y = position // width
        base = replicate * self._size + (y + self._pad) * self._stride + (position - y * width) + self._pad
        counts = [xp.zeros_like(base) for _ in range(self.n_phases)]
        for other, images in self._ring:
            dt = other - number
            if dt not in self._offsets:
                continue
            rows = np.array(self._rows[abs(dt)], dtype=np.int64)
            low = base[None, :] + self.backend.asarray(rows[:, 0] * self._stride - rows[:, 1])[:, None]
            high = low + self.backend.asarray(2 * rows[:, 1] + 1)[:, None]
            packed = self._look_up(images[g], high) - self._look_up(images[g], low)
            packed = xp.astype(packed, xp.int64 if self.n_phases > 3 else xp.int32)
            # The sum of the fields from phase j up, less 256 times that from j + 1 up, is phase j's count alone.
            above = xp.zeros_like(base)
            for j in range(self.n_phases - 1, -1, -1):
                here = xp.sum(packed >> (_FIELD_BITS * j), axis=0, dtype=xp.int64)
                counts[j] = counts[j] + here - (above << _FIELD_BITS)
                above = here
        total = xp.stack(counts)
        if 0 in self._offsets:  # the pixel is no neighbour of its own
            own = self.backend.arange(self.n_phases, dtype=xp.int64)[:, None] == xp.astype(label, xp.int64)[None, :]
            total = total - xp.astype(own, xp.int64)
        return total

    def _look_up(self, image: Array, index: Array) -> Array:
        xp = self.backend.xp
        return xp.reshape(xp.take(image, xp.reshape(index, (-1,))), index.shape)

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
