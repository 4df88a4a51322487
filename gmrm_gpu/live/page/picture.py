"""The latest frame and its labels as bytes for the page's canvas."""

from __future__ import annotations

import struct
import threading
import time

import numpy as np

from ..update import LiveFrame

MOST_PX = 1024  # of the longer side; more than a monitor shows beside the curve
HEADER = struct.Struct("<4s5I2f")  # GMRM, index, height, width, step, whether every pixel was recorded, low, high
RANGE_LOOKED_AT, RANGE_VALUES = 2_000_000, 20_000
KEEP = 0.8  # of the old grey range at every picture, so that the contrast does not flicker
REST = 8.0  # times as long as a picture took, before the next is made: very large frames must not slow the analysis


class Painter:
    """Turns frames into bytes, each only once however many browsers ask; the grey range follows slowly."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: tuple[float, float] | None = None
        self._done: tuple[int, bytes] = (-1, b"")
        self._not_before = 0.0

    def bytes_of(self, frame: LiveFrame) -> bytes:
        """The latest picture, seldom one of a frame just before.

        It is `HEADER`, then (height * width) grey levels 1 to 255, 0 where nothing was recorded, then as many labels.
        """
        with self._lock:
            start = time.perf_counter()
            if self._done[0] != frame.index and start >= self._not_before:
                self._limits = next_limits(self._limits, frame.picture)
                self._done = frame.index, encode(frame, self._limits)
                now = time.perf_counter()
                self._not_before = now + REST * (now - start)
            return self._done[1]


def next_limits(old: tuple[float, float] | None, picture: np.ndarray) -> tuple[float, float]:
    """Grey levels drawn black and white: the 0.5 and 99.5 % quantiles of an even subset, mixed with the old ones."""
    flat = evenly(picture.reshape(-1), RANGE_LOOKED_AT)
    finite = evenly(flat[np.isfinite(flat)], RANGE_VALUES)
    if finite.size == 0:
        return old or (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(finite, (0.5, 99.5)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if old is None:
        return low, high
    return KEEP * old[0] + (1 - KEEP) * low, KEEP * old[1] + (1 - KEEP) * high


def evenly(values: np.ndarray, most: int) -> np.ndarray:
    """About `most` of the values; the step is odd, or those of a frame could be a few columns."""
    return values[:: max(1, values.size // most) | 1]


def encode(frame: LiveFrame, limits: tuple[float, float], most: int = MOST_PX) -> bytes:
    """The bytes of `Painter.bytes_of` with this grey range, reduced by a whole number to at most `most` pixels."""
    step = -(-max(frame.picture.shape) // most)
    picture, n_recorded, labels = reduce(frame.picture, frame.labels, step)
    # Visits of a sub-sampled movie are at least as many as its pixels with a grey level.
    whole = n_recorded > frame.n_samples
    low, high = limits
    scaled = np.clip((picture - low) * (254 / (high - low)), 0, 254) + 1
    grey = np.where(np.isfinite(picture), scaled, 0).astype(np.uint8)
    header = HEADER.pack(b"GMRM", frame.index, *picture.shape, step, whole, low, high)
    return header + grey.tobytes() + np.ascontiguousarray(labels, dtype=np.uint8).tobytes()


def reduce(picture: np.ndarray, labels: np.ndarray, step: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Blocks of step x step pixels: mean of what was recorded, label of the first visited pixel (a fair choice).

    Returns
    -------
    (rows, columns) means, NaN where nothing was recorded; how many pixels were; (rows, columns) uint8 labels.
    """
    if step == 1:
        return picture, int(np.count_nonzero(np.isfinite(picture))), labels
    edges = [(0, -n % step) for n in picture.shape]
    padded = np.pad(picture, edges, constant_values=np.nan)
    marked = np.pad(np.asarray(labels, dtype=np.uint8), edges)
    total: np.ndarray = np.zeros([n // step for n in padded.shape])
    count, first = np.zeros(total.shape, dtype=np.int32), np.zeros(total.shape, dtype=np.uint8)
    for place in reversed(range(step * step)):  # one pixel of every block at a time, the first last
        part = slice(place // step, None, step), slice(place % step, None, step)
        known = np.isfinite(padded[part])
        np.add(total, padded[part], out=total, where=known)
        count += known
        np.copyto(first, marked[part], where=marked[part] > 0)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean, int(count.sum()), first
