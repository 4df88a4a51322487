"""Axes of arrays with a calibration, and what they say of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .movie import Acquisition
from .units import frame_time, has_no_unit, pixel_size, to_seconds

# Spacing that varies less than this part of a step is even: coordinates are often rounded.
_EVEN = 1e-3


@dataclass(frozen=True)
class Axis:
    """One axis: `size` places from `start` on, `step` apart, or the `places` given; all in `unit`."""

    name: str = ""
    step: Any = None
    unit: Any = None
    start: float = 0.0
    size: int = 0
    places: np.ndarray | None = None
    note: str | None = None


UNKNOWN = Axis()


def axis_from_places(name: str, places: np.ndarray, unit: Any) -> Axis:
    """The axis of a coordinate: (n,) numbers in `unit`, or dates or durations, which become seconds from the first."""
    if places.dtype.kind in "mM":
        places, unit = (places - places[:1]) / np.timedelta64(1, "s"), "s"
    if places.dtype.kind not in "iuf":
        return Axis(name, note=f"the coordinate {name} is not used, it holds no numbers")
    places = places.astype(np.float64)
    if places.size < 2:
        return Axis(name)
    step = (places[-1] - places[0]) / (places.size - 1)
    even = places[0] + step * np.arange(places.size)
    if np.all(np.abs(places - even) <= _EVEN * abs(step)):
        # A coordinate is a sum of rounded steps: trusted to 9 digits.
        return Axis(name, float(f"{step:.9g}"), unit, float(places[0]), places.size)
    return Axis(name, None, unit, places=places)


def calibrated(
    time: Axis,
    y: Axis,
    x: Axis,
    *,
    detector: str | None = None,
    bit_depth: int | None = None,
    notes: tuple[str, ...] = (),
) -> Acquisition:
    """What three axes say of a recording; what they say that cannot be used stands in the notes.

    Raises
    ------
    InputError
        Times that do not ascend.
    """
    size: float | None = None
    said: str | None = "the pixel size is not used, pixels are not evenly spaced"
    if y.places is None and x.places is None:
        size, said = pixel_size((x.step, x.unit), (y.step, y.unit))
    interval, times, gap = _timing(time)
    told = (*notes, said, gap, time.note, y.note, x.note)
    return Acquisition(size, interval, times, detector, bit_depth, tuple(text for text in told if text))


def _timing(time: Axis) -> tuple[float | None, np.ndarray | None, str | None]:
    """(seconds from frame to frame, (T,) seconds where they are not evenly spaced, a sentence)."""
    backwards = isinstance(time.step, int | float) and time.step < 0
    if backwards or (time.places is not None and not np.all(np.diff(time.places) > 0)):
        raise InputError(f"the times along {time.name or 'the first axis'} do not ascend; sort the frames by time")
    if time.places is None:
        interval, note = frame_time(time.step, time.unit)
        start = to_seconds(time.start, time.unit)
        # A part of a longer recording keeps its times.
        return interval, start + interval * np.arange(time.size) if start and interval else None, note
    second = to_seconds(1, time.unit)
    if second is None:
        told = "no unit" if has_no_unit(time.unit) else f"the unit {time.unit}"
        return None, None, f"the times of the frames are not used, {time.name or 'their axis'} has {told}"
    return None, time.places * second, None
