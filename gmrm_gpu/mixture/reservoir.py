"""A thin sample of all frames so far, in bounded memory, to fit a movie's parameters to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .rows import even_step

N_FRAMES = 64
"""Frames of the past that are kept, at most; a power of two."""
BURST = 4
"""Successive frames that are kept together: neighbours in time say what is where."""
N_SAMPLES = 2**15
"""Samples that are kept of all of them together."""
N_LATEST = 6
"""Latest frames, of which all samples are kept."""

Frame = tuple[np.ndarray, np.ndarray]
"""Values and positions (m,) of one frame's samples."""


@dataclass
class Reservoir:
    """Bursts of successive frames, evenly over the past, and the latest ones.

    When there are too many, every other burst goes and from then on half as many are kept; so what is kept is a
    function of the frames' numbers alone.

    Attributes
    ----------
    n_seen : frames so far. stride : every so manieth burst is kept. kept : frame index -> thinned samples.
    latest : the last frames with all samples, oldest first.
    """

    n_seen: int = 0
    stride: int = 1
    kept: dict[int, Frame] = field(default_factory=dict)
    latest: list[Frame] = field(default_factory=list)

    def add(self, values: np.ndarray, positions: np.ndarray) -> None:
        """The samples of the next frame."""
        self.latest = [*self.latest[-(N_LATEST - 1) :], (values, positions)]
        if self._belongs(self.n_seen):
            self.kept[self.n_seen] = _evenly(values, positions, self.n_seen)
        while len(self.kept) > N_FRAMES:
            self.stride *= 2
            self.kept = {t: frame for t, frame in self.kept.items() if self._belongs(t)}
        n = N_SAMPLES // len(self.kept)
        self.kept = {t: (level[:n], place[:n]) for t, (level, place) in self.kept.items()}
        self.n_seen += 1

    def _belongs(self, t: int) -> bool:
        return (t // BURST) % self.stride == 0

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, positions and validity (T, m) of all frames in the order of time, the latest ones last."""
        first = self.n_seen - len(self.latest)
        frames = [frame for t, frame in self.kept.items() if t < first]
        n = N_SAMPLES // (len(frames) + len(self.latest))
        frames = [(level[:n], place[:n]) for level, place in frames]
        for i, frame in enumerate(self.latest):
            level, place = _evenly(*frame, first + i)
            frames.append((level[:n], place[:n]))
        m = max(values.size for values, _ in frames)
        shape = (len(frames), m)
        values = np.zeros(shape, dtype=frames[0][0].dtype)
        positions, valid = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=bool)
        for row, (level, place) in enumerate(frames):
            values[row, : level.size], positions[row, : level.size], valid[row, : level.size] = level, place, True
        return values, positions, valid


def _evenly(values: np.ndarray, positions: np.ndarray, t: int) -> Frame:
    """A frame's samples in an order of which every beginning is spread evenly, another one in each frame."""
    m = values.size
    n = min(m, N_SAMPLES)
    index = (t * n + np.arange(n, dtype=np.int64)) % m * even_step(m) % m
    return values[index], positions[index]
