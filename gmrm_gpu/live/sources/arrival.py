"""What a source of frames hands over: frames as they arrive, and sentences about what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...frames.movie import Acquisition, Visits


@dataclass(frozen=True)
class Arrival:
    """One frame, as it came.

    Attributes
    ----------
    content : (height, width) grey levels, or the visits of a sub-sampled frame. shape : (height, width).
    number : of the frame in its source; a source that was restarted may count from 0 again.
    time_s : seconds on the source's own clock, or None. origin : name of the file that it came from, or None.
    """

    content: np.ndarray | Visits
    shape: tuple[int, int]
    number: int
    time_s: float | None = None
    origin: str | None = None

    @property
    def dtype(self) -> np.dtype:
        """Stored type of the grey levels."""
        return self.content.values.dtype if isinstance(self.content, Visits) else self.content.dtype

    @property
    def nbytes(self) -> int:
        """Memory that the frame takes."""
        if isinstance(self.content, Visits):
            return int(self.content.positions.nbytes + self.content.values.nbytes)
        return int(self.content.nbytes)


@dataclass(frozen=True)
class Notice:
    """A sentence about the stream; `n_dropped` frames were lost with it."""

    text: str
    n_dropped: int = 0


class Source:
    """An iterator over what arrives; it ends where the stream does, or soon after `close`.

    Attributes
    ----------
    name : for titles and messages.
    waits : whether the source can wait for a slow analysis, as files on a disk can; else frames must be dropped.
    replays : whether the same frames, with the same numbers, come again when it is opened again.
    acquisition : what is known of the recording, once the first frame has arrived.
    valid : (height, width) bool, False where a pixel is excluded; None: all may be used.
    skipped : names of what was there before and is not wanted, of a folder.
    """

    name: str = "stream"
    waits: bool = True
    replays: bool = False
    acquisition: Acquisition = Acquisition()
    valid: np.ndarray | None = None
    skipped: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Arrival | Notice]:
        raise NotImplementedError

    def close(self) -> None:
        """Let the iterator end; may be called from another thread, and more than once."""


__all__ = ["Arrival", "Notice", "Source"]
