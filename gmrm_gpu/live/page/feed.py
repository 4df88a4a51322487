"""What the page is told: the growth curve in bounded memory, alarms, the latest frame, how the run is doing."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..update import Alarm, LiveFrame, LiveState

MOST_BINS = 2048  # about one a pixel of a wide curve
MOST_RECENT = 512
MOST_ALARMS = 200
STALL_S = 3.0
Point = tuple[float, float, float, float, float]  # index, number, time_s, share, share_sd; NaN where there is none


class Curve:
    """A growth curve of any length in at most `most` points, each the mean of `stride` frames.

    Attributes
    ----------
    bins : finished points. stride : frames in each. version : how often neighbours were merged to make room.
    """

    def __init__(self, most: int = MOST_BINS) -> None:
        self.most, self.stride, self.version = most, 1, 0
        self.bins: list[Point] = []
        self._open: list[Point] = []

    def add(self, point: Point) -> None:
        """One more frame."""
        self._open.append(point)
        if len(self._open) < self.stride:
            return
        self.bins += means(self._open, self.stride)
        self._open = []
        if len(self.bins) == self.most:
            self.bins = means(self.bins, 2)
            self.stride *= 2
            self.version += 1


def means(points: Sequence[Point], n: int) -> list[Point]:
    """Means of each `n` points that follow each other, over the frames that have a value.

    The sd stays that of one frame: a point's band is a frame's band.
    """
    columns = np.array(points).reshape(-1, n, 5)
    known = np.isfinite(columns)
    count = known.sum(axis=1)
    total = np.where(known, columns, 0.0).sum(axis=1)
    return [tuple(row) for row in np.where(count > 0, total / np.maximum(count, 1), np.nan).tolist()]


@dataclass(frozen=True)
class Cursor:
    """How far one browser has been told: call of `Feed`, version and bins of the curve, frames, alarms."""

    sequence: int = -1
    version: int = -1
    n_bins: int = 0
    n_frames: int = 0
    n_alarms: int = 0


class Feed:
    """Collects what is published and says to each browser what it has not heard yet; safe between threads.

    `publish` and `end` only store references and return at once, however slow the browsers are.
    """

    def __init__(self, most_bins: int = MOST_BINS) -> None:
        self._changed = threading.Condition()
        self._sequence = 0
        self.frame: LiveFrame | None = None
        self.state: LiveState | None = None
        self.message: str | None = None
        self._curve = Curve(most_bins)
        self._recent: deque[Point] = deque(maxlen=MOST_RECENT)
        self._alarms: deque[Alarm] = deque(maxlen=MOST_ALARMS)
        self._n_frames = self._n_alarms = 0
        self._arrived = time.monotonic()
        self._interval = math.nan

    def recall(self, points: Iterable[Point]) -> None:
        """Put frames of before on the curve, of which nothing else is known any more."""
        with self._changed:
            for point in points:
                self._draw(point)
            self._tell()

    def publish(self, frame: LiveFrame | None, state: LiveState) -> None:
        """A frame and how the run is doing; without a frame, only the latter."""
        with self._changed:
            self.state = state
            if frame is not None:
                self._add(frame)
            self._tell()

    def end(self, message: str) -> None:
        """No more will come; the first `message` stays."""
        with self._changed:
            self.message = message if self.message is None else self.message
            self._tell()

    def wake(self) -> None:
        """End every `wait`."""
        with self._changed:
            self._tell()

    def _tell(self) -> None:
        self._sequence += 1
        self._changed.notify_all()

    def _add(self, frame: LiveFrame) -> None:
        now = time.monotonic()
        if self.frame is not None:
            gap = now - self._arrived
            self._interval = gap if math.isnan(self._interval) else 0.9 * self._interval + 0.1 * gap
        self._arrived = now
        self.frame = frame
        self._draw(point_of(frame))
        self._alarms.extend(frame.alarms)
        self._n_alarms += len(frame.alarms)

    def _draw(self, point: Point) -> None:
        self._curve.add(point)
        self._recent.append(point)
        self._n_frames += 1

    def wait(self, cursor: Cursor, timeout: float) -> None:
        """Wait until there is more to say than `cursor` knows, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._sequence > cursor.sequence, timeout)

    def since(self, cursor: Cursor) -> tuple[dict[str, Any], Cursor]:
        """What a browser that knows `cursor` has to be told, ready for JSON, and what it then knows.

        ``bins`` are new points of the whole curve (all of them where ``restart``), ``recent`` those of single frames.
        """
        with self._changed:
            curve = self._curve
            restart = cursor.version != curve.version
            n_new = min(self._n_frames - cursor.n_frames, len(self._recent))
            n_alarms = min(self._n_alarms - cursor.n_alarms, len(self._alarms))
            bins = list(curve.bins) if restart else curve.bins[cursor.n_bins :]
            recent = list(self._recent)[len(self._recent) - n_new :]
            alarms = list(self._alarms)[len(self._alarms) - n_alarms :]
            known = Cursor(self._sequence, curve.version, len(curve.bins), self._n_frames, self._n_alarms)
            news: dict[str, Any] = {
                "restart": restart,
                "stride": curve.stride,
                "n_alarms": self._n_alarms,
                "message": self.message,
                **self._age(),
            }
            frame, state = self.frame, self.state
        news["bins"] = [[plain(v) for v in point] for point in bins]
        news["recent"] = [[plain(v) for v in point] for point in recent]
        news["alarms"] = [alarm_dict(alarm) for alarm in alarms]
        news["frame"] = None if frame is None else frame_dict(frame)
        news["state"] = None if state is None else state_dict(state)
        return news, known

    def _age(self) -> dict[str, Any]:
        """Seconds since the last frame, and whether that is far longer than frames usually take."""
        age = time.monotonic() - self._arrived
        usual = 0.0 if math.isnan(self._interval) else self._interval
        ended = self.message is not None or (self.state is not None and self.state.ended)
        stalled = self.frame is not None and not ended and age > max(STALL_S, 5 * usual)
        return {"age_s": plain(age), "stalled": stalled, "ended": ended}


def point_of(frame: LiveFrame) -> Point:
    """The frame's place on the curve."""
    time_s = math.nan if frame.time_s is None else float(frame.time_s)
    return float(frame.index), float(frame.number), time_s, float(frame.share), float(frame.share_sd)


def plain(value: float | None) -> float | int | None:
    """A number that JSON has: seven significant digits, None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.7g}")


def frame_dict(frame: LiveFrame) -> dict[str, Any]:
    """What the page says of the latest frame."""
    names = ("index", "number", "time_s", "n_samples", "visited_share", "share", "share_sd", "latency_s")
    means = np.asarray(frame.fit.means, dtype=float).ravel()
    return {
        **{name: plain(getattr(frame, name)) for name in names},
        "usable": bool(frame.status.usable),
        "status": frame.status.label,
        "means": [plain(float(mean)) for mean in means],
        "foreground": [bool(f) for f in np.ravel(frame.foreground)],
    }


def state_dict(state: LiveState) -> dict[str, Any]:
    """What the page says of the run."""
    return {
        "n_frames": int(state.n_frames),
        "n_dropped": int(state.n_dropped),
        "waiting": int(state.waiting),
        "visited_share": plain(state.visited_share),
        "latency_ms": [plain(v) for v in state.latency_ms],
        "notices": [str(text) for text in state.notices[-50:]],
        "n_notices": int(state.n_notices),
    }


def alarm_dict(alarm: Alarm) -> dict[str, Any]:
    """What the page says of an alarm."""
    return {
        "number": int(alarm.number),
        "time_s": plain(alarm.time_s),
        "what": str(alarm.what),
        "text": str(alarm.text),
        "score": plain(alarm.score),
    }
