"""A movie that exists already, played as if it were being recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ...config import check_within
from ...errors import InputError
from ...frames import Movie
from .arrival import Arrival, Notice, Source


class Clock:
    """Says when the next of evenly spaced frames is due.

    Parameters
    ----------
    fps : frames per second; None: every frame is due at once.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None:
            check_within("--simulate", fps, 0, 1e5, open_low=True)
        self._interval = 0.0 if fps is None else 1 / fps
        self._closed = threading.Event()
        self._due: float | None = None

    def wait(self) -> bool:
        """Wait until the next frame is due; False where the clock was stopped."""
        now = time.monotonic()
        # Frames that came late are made up for, but never in a burst of more than a second.
        self._due = now if self._due is None else max(self._due + self._interval, now - 1.0)
        return not self._closed.wait(max(0.0, self._due - now))

    def stop(self) -> None:
        """End the waiting."""
        self._closed.set()


class PlaybackSource(Source):
    """The frames of a movie in their order.

    Parameters
    ----------
    movie : any movie, sub-sampled ones too.
    fps : frames per second, dropped where the analysis is slower; None: as fast as the analysis goes.
    after : number of the last frame that is not wanted again; None: from the start.
    """

    replays = True

    def __init__(self, movie: Movie, fps: float | None = None, *, after: int | None = None) -> None:
        self.name, self.acquisition, self.valid = movie.name, movie.acquisition, movie.valid
        self.waits = fps is None
        self._movie, self._clock, self._after = movie, Clock(fps), after

    def __iter__(self) -> Iterator[Arrival | Notice]:
        movie = self._movie
        for text in movie.acquisition.sentences:
            yield Notice(text)
        for t, number in enumerate(movie.frame_numbers.tolist()):
            if self._after is not None and number <= self._after:
                continue
            if not self._clock.wait():
                return
            try:
                content = movie.visits(t) if movie.sampled else movie.frame(t)
            except InputError as error:
                yield Notice(f"{error}; left out", 1)
                continue
            yield Arrival(content, movie.shape, number, self._time(t, number))

    def _time(self, t: int, number: int) -> float | None:
        known = self._movie.acquisition
        if known.times_s is not None:
            return float(known.times_s[t])
        return None if known.frame_time_s is None else number * known.frame_time_s

    def close(self) -> None:
        """Let the iterator end before its next frame."""
        self._clock.stop()


__all__ = ["Clock", "PlaybackSource"]
