"""The latest frame and its labels as bytes for the page's canvas."""

from __future__ import annotations

import struct
import threading

import numpy as np

from ..update import LiveFrame

MOST_PX = 1024  # of the longer side; more than a monitor shows beside the curve
HEADER = struct.Struct("<4s5I2f")  # GMRM, index, height, width, step, whether every pixel was recorded, low, high
RANGE_VALUES = 20_000
KEEP = 0.8  # of the old grey range at every picture, so that the contrast does not flicker


class Painter:
    """Turns frames into bytes, each only once however many browsers ask; the grey range follows slowly."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: tuple[float, float] | None = None
        self._done: tuple[int, bytes] = (-1, b"")

    def bytes_of(self, frame: LiveFrame) -> bytes:
        """`HEADER`, then (height * width) grey levels 1 to 255, 0 where nothing was recorded, then as many labels."""
        with self._lock:
            if self._done[0] != frame.index:
                self._limits = next_limits(self._limits, frame.picture)
                self._done = frame.index, encode(frame, self._limits)
            return self._done[1]


def next_limits(old: tuple[float, float] | None, picture: np.ndarray) -> tuple[float, float]:
    """Grey levels drawn black and white: the 0.5 and 99.5 % quantiles of an even subset, mixed with the old ones."""
    flat = picture.reshape(-1)
    finite = flat[np.isfinite(flat)]
    if finite.size == 0:
        return old or (0.0, 1.0)
    # A step that no width divides, or a subset could be a few columns.
    step = max(1, finite.size // RANGE_VALUES) | 1
    low, high = (float(v) for v in np.percentile(finite[::step], (0.5, 99.5)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if old is None:
        return low, high
    return KEEP * old[0] + (1 - KEEP) * low, KEEP * old[1] + (1 - KEEP) * high


def encode(frame: LiveFrame, limits: tuple[float, float], most: int = MOST_PX) -> bytes:
    """The bytes of `Painter.bytes_of` with this grey range, reduced by a whole number to at most `most` pixels."""
    step = -(-max(frame.picture.shape) // most)
    picture, labels = reduce(frame.picture, frame.labels, step)
    # Visits of a sub-sampled movie are at least as many as its pixels with a grey level.
    whole = int(np.isfinite(frame.picture).sum()) > frame.n_samples
    low, high = limits
    scaled = np.clip((picture - low) * (254 / (high - low)), 0, 254) + 1
    grey = np.where(np.isfinite(picture), scaled, 0).astype(np.uint8)
    header = HEADER.pack(b"GMRM", frame.index, *picture.shape, step, whole, low, high)
    return header + grey.tobytes() + np.ascontiguousarray(labels, dtype=np.uint8).tobytes()


def reduce(picture: np.ndarray, labels: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of step x step pixels: mean of what was recorded, label of the first visited pixel (a fair choice).

    The last rows and columns are repeated where the size is no multiple of `step`.
    """
    if step == 1:
        return picture, labels
    grey, visited = blocks(picture, step), blocks(labels, step)
    known = np.isfinite(grey)
    count = known.sum(axis=-1)
    mean = np.where(known, grey, 0).sum(axis=-1, dtype=np.float64) / np.maximum(count, 1)
    first = np.argmax(visited > 0, axis=-1)[..., None]
    return np.where(count > 0, mean, np.nan), np.take_along_axis(visited, first, axis=-1)[..., 0]


def blocks(array: np.ndarray, step: int) -> np.ndarray:
    """(height, width) -> (rows, columns, step * step)."""
    height, width = array.shape
    padded = np.pad(array, ((0, -height % step), (0, -width % step)), mode="edge")
    rows, columns = padded.shape[0] // step, padded.shape[1] // step
    return padded.reshape(rows, step, columns, step).swapaxes(1, 2).reshape(rows, columns, step * step)
