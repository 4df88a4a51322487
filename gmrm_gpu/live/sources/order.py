"""Puts the numbers and times of a stream in order, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .arrival import Arrival, Notice

MOST_LOST = 100_000
"""Numbers further ahead than that are of another series; not so many frames were lost."""


@dataclass(frozen=True)
class Place:
    """Where a stream stands: number and time of its last frame, and the time on the source's clock of its first."""

    number: int
    time_s: float | None
    origin_s: float | None


class Orderly:
    """Frames with ascending numbers, and times since the first frame that never go back.

    A sender that is started again counts from 0 again: its frames are counted on. Where its clock goes back, times go
    on from the frame before. One number or time that is wrong among right ones changes only its own frame. Numbers
    that are missing are frames that were lost.

    Parameters
    ----------
    items : a source. frame_time_s : the user's, in place of the stream's clock; None: the clock.
    after : where an earlier run of the same stream ended; None: this is the first.
    """

    def __init__(
        self,
        items: Iterable[Arrival | Notice],
        *,
        frame_time_s: float | None = None,
        after: Place | None = None,
    ) -> None:
        self._items, self._frame_time_s = items, frame_time_s
        self._last = after
        # What is added to the stream's own; the second is that of before the latest jump, which may have been a slip.
        self._number_shifts, self._time_shifts = (0, 0), (0.0, 0.0)
        self._interval: float | None = None
        self._told = 0
        self._missing_said = False

    def __iter__(self) -> Iterator[Arrival | Notice]:
        for item in self._items:
            if isinstance(item, Notice):
                self._told += item.n_dropped
                yield item
                continue
            number, notices = self._number(item.number)
            time_s, more = self._time(item, number)
            yield from (*notices, *more)
            origin = item.time_s if self._last is None else self._last.origin_s
            self._last = Place(number, time_s, origin)
            yield replace(item, number=number, time_s=time_s)

    @property
    def place(self) -> Place | None:
        """Where the stream stands; None before its first frame."""
        return self._last

    def _number(self, raw: int) -> tuple[int, list[Notice]]:
        told, self._told = self._told, 0
        if self._last is None:
            return raw, []
        last, notices = self._last.number, []
        number, as_before = (raw + shift for shift in self._number_shifts)
        if number != last + 1 and last < as_before <= last + MOST_LOST:
            number, self._number_shifts = as_before, (self._number_shifts[1],) * 2
        if not last < number <= last + MOST_LOST:
            self._number_shifts = last + 1 - raw, self._number_shifts[0]
            went = "went back" if number <= last else "jumped"
            jump = f"frame numbers {went} from {last} to {number} (a new series?)"
            return last + 1, [Notice(f"{jump}; they are counted on from {last + 1}")]
        lost = number - last - 1 - told
        if lost > 0:
            which = (
                f"frame {last + 1}" if lost == 1 and not told else f"{lost} of the frames {last + 1} to {number - 1}"
            )
            notices.append(Notice(f"{which} never came", lost))
        return number, notices

    def _time(self, item: Arrival, number: int) -> tuple[float | None, list[Notice]]:
        """Seconds since the first frame, by the user's frame time, else by the stream's clock."""
        if self._frame_time_s is not None:
            return number * self._frame_time_s, []
        last = self._last
        if last is None:
            return (None if item.time_s is None else 0.0), []
        if last.time_s is None or last.origin_s is None:
            return None, self._once(item.time_s is not None, "times came only after the first frame and are not used")
        step = number - last.number
        if item.time_s is None:
            expected = last.time_s + step * (self._interval or 0.0)
            return expected, self._once(True, "a frame came without its time, which is reckoned from those before")
        time_s, as_before = (item.time_s - last.origin_s + shift for shift in self._time_shifts)
        if as_before > last.time_s:
            time_s, self._time_shifts = as_before, (self._time_shifts[1],) * 2
        if time_s > last.time_s:
            self._interval = (time_s - last.time_s) / step
            return time_s, []
        expected = last.time_s + step * (self._interval or 0.0)
        self._time_shifts = self._time_shifts[0] + expected - time_s, self._time_shifts[0]
        back = f"from {last.time_s:.6g} s to {time_s:.6g} s since the first frame"
        return expected, [Notice(f"the clock went back at frame {number}, {back}; times go on from the frame before")]

    def _once(self, wrong: bool, text: str) -> list[Notice]:
        if not wrong or self._missing_said:
            return []
        self._missing_said = True
        return [Notice(text)]


__all__ = ["Orderly", "Place"]
