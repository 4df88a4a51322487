"""A movie that remembers the frames it has read."""

from __future__ import annotations

from threading import Lock

import numpy as np

from .movie import Movie, Visits
from .over import MovieOver


class CachedMovie(MovieOver):
    """A movie that keeps the frames it has read, up to a number of bytes; replicates read each frame many times."""

    def __init__(self, movie: Movie, n_bytes: int) -> None:
        super().__init__(movie)
        self.origin = movie.origin
        self._lock = Lock()
        self._keep = int(n_bytes // (movie.shape[0] * movie.shape[1] * movie.dtype.itemsize))
        self._frames: dict[int, np.ndarray] = {}

    def forget(self) -> None:
        """Let go of the frames, and keep none from now on: there is no memory for them."""
        with self._lock:
            self._keep = 0
            self._frames.clear()

    def _read_visits(self, t: int) -> Visits:
        return self._movie._visits(t)

    def frame(self, t: int) -> np.ndarray:
        """Frame `t`, from memory if it is there."""
        with self._lock:
            if t in self._frames:
                return self._frames[t]
        frame = self._movie.frame(t)
        with self._lock:
            # The first frames stay: with a cyclic reading order, dropping the oldest would never hit.
            if len(self._frames) < self._keep:
                self._frames[t] = frame
        return frame
