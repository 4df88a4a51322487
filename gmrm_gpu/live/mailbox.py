"""Between the thread that reads a stream and the one that analyses it: a queue that counts what it loses."""

from __future__ import annotations

import threading
from collections import deque

from .sources import Arrival, Notice

MOST_FRAMES, MOST_BYTES = 256, 2**28
_MOST_ITEMS = 4096


class Closed(Exception):
    """Nothing waits any more, and nothing will come."""


class Mailbox:
    """A queue of frames and notices.

    Parameters
    ----------
    waits : where it is full, let the reader wait; else the oldest frame that waits is dropped, and told in its place.
    most_frames, most_bytes : that may wait; two frames always may.
    """

    def __init__(self, *, waits: bool, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        self._waits, self._most_frames, self._most_bytes = waits, max(2, most_frames), most_bytes
        self._items: deque[Arrival | Notice] = deque()
        self._n_frames = self._n_bytes = 0
        self._dropped: list[int] = []
        self._sealed = False
        self._changed = threading.Condition()

    def put(self, item: Arrival | Notice) -> bool:
        """Add an item; False where nothing is taken any more."""
        with self._changed:
            while not self._sealed and self._is_full(item):
                if isinstance(item, Arrival) and not self._waits:
                    self._drop_oldest()
                else:
                    self._changed.wait()
            if self._sealed:
                return False
            self._items.append(item)
            if isinstance(item, Arrival):
                self._n_frames += 1
                self._n_bytes += item.nbytes
            self._changed.notify_all()
            return True

    def get(self, timeout: float) -> Arrival | Notice | None:
        """The next item; None where none comes within `timeout` seconds.

        Raises
        ------
        Closed
            The stream has ended, and everything was taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._sealed, timeout)
            if self._dropped:
                return self._told()
            if not self._items:
                if self._sealed:
                    raise Closed
                return None
            item = self._items.popleft()
            if isinstance(item, Arrival):
                self._forget(item)
            self._changed.notify_all()
            return item

    def seal(self) -> None:
        """Take nothing any more; what waits may still be taken out."""
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def empty(self) -> list[int]:
        """Forget the frames that wait; their numbers."""
        with self._changed:
            numbers = [item.number for item in self._items if isinstance(item, Arrival)]
            self._items = deque(item for item in self._items if isinstance(item, Notice))
            self._n_frames = self._n_bytes = 0
            self._changed.notify_all()
            return numbers

    @property
    def n_waiting(self) -> int:
        """Frames that wait."""
        return self._n_frames

    def _is_full(self, item: Arrival | Notice) -> bool:
        if isinstance(item, Notice):
            return len(self._items) >= _MOST_ITEMS
        much = self._n_frames >= self._most_frames or self._n_bytes + item.nbytes > self._most_bytes
        return (much and self._n_frames >= 2) or len(self._items) >= _MOST_ITEMS + self._most_frames

    def _drop_oldest(self) -> None:
        for place, item in enumerate(self._items):
            if isinstance(item, Arrival):
                del self._items[place]
                self._forget(item)
                self._dropped.append(item.number)
                return
        raise AssertionError("a full mailbox holds frames")

    def _forget(self, item: Arrival) -> None:
        self._n_frames -= 1
        self._n_bytes -= item.nbytes

    def _told(self) -> Notice:
        numbers, self._dropped = self._dropped, []
        return Notice(
            f"{spans(numbers)} dropped: frames come faster than they are analysed (a lower --rate helps)", len(numbers)
        )


def spans(numbers: list[int]) -> str:
    """``[3, 4, 5, 9]`` -> ``"frames 3 to 5, 9"``; ascending numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(low) if low == high else f"{low} to {high}" for low, high in runs]
    return ("frame " if len(numbers) == 1 else "frames ") + ", ".join(texts)


__all__ = ["Closed", "Mailbox", "spans"]
