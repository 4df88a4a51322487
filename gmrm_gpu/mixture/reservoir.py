"""A thin sample of all frames so far, in bounded memory, to fit a movie's parameters to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .rows import even_step

N_FRAMES = 64
"""Frames of the past that are kept, at most; a power of two."""
BURST = 4
"""Successive frames that are kept together: neighbours in time say what is where."""
FRAME_SAMPLES = 512
"""Samples that are kept of each."""
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
            self.kept[self.n_seen] = _thinned(values, positions, self.n_seen)
        while len(self.kept) > N_FRAMES:
            self.stride *= 2
            self.kept = {t: frame for t, frame in self.kept.items() if self._belongs(t)}
        self.n_seen += 1

    def _belongs(self, t: int) -> bool:
        return (t // BURST) % self.stride == 0

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, positions and validity (T, m) of all frames in the order of time, the latest ones last."""
        first = self.n_seen - len(self.latest)
        frames = [frame for t, frame in self.kept.items() if t < first]
        frames += [_thinned(*frame, first + i) for i, frame in enumerate(self.latest)]
        m = max(values.size for values, _ in frames)
        shape = (len(frames), m)
        values = np.zeros(shape, dtype=frames[0][0].dtype)
        positions, valid = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=bool)
        for row, (level, place) in enumerate(frames):
            values[row, : level.size], positions[row, : level.size], valid[row, : level.size] = level, place, True
        return values, positions, valid


def _thinned(values: np.ndarray, positions: np.ndarray, t: int) -> Frame:
    """An even subset of a frame's samples, another in each frame."""
    m = values.size
    if m <= FRAME_SAMPLES:
        return values, positions
    index = (t * FRAME_SAMPLES + np.arange(FRAME_SAMPLES, dtype=np.int64)) % m * even_step(m) % m
    return values[index], positions[index]
