"""Axes of arrays: which is time, y and x, their calibration, and what it says of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .movie import Acquisition
from .units import frame_time, has_no_unit, pixel_size, to_seconds

_TIME = ("t", "time", "time_s", "frame", "frames")
_Y, _X = ("y", "row", "rows", "height"), ("x", "col", "column", "columns", "width")
_COLOUR = ("c", "channel", "channels", "rgb", "rgba", "band")
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


def named_order(names: list[str], shape: Sequence[int], name: str) -> tuple[int | None, int, int, int | None]:
    """The axes that dimensions of these names are; those without a known name stand in the order time, y, x."""
    found = {}
    for role, known in (("colour", _COLOUR), ("time", _TIME), ("y", _Y), ("x", _X)):
        hits = [i for i, text in enumerate(names) if text.lower() in known]
        if len(hits) == 1 and (role != "colour" or shape[hits[0]] in (3, 4)):
            found[role] = hits[0]
    if "colour" not in found and any(text.lower() in _COLOUR and n > 1 for text, n in zip(names, shape, strict=True)):
        raise InputError(f"{name} has channels ({listed(names, shape)}); choose one")
    rest = [i for i in range(len(names)) if i not in found.values()]
    spare = [i for i in rest if shape[i] == 1]
    wanted = [role for role in ("time", "y", "x") if role not in found]
    while len(rest) > len(wanted) and spare:
        rest.remove(spare.pop(0))
    if len(rest) == len(wanted) - 1 and "time" in wanted:
        wanted.remove("time")
    if len(rest) != len(wanted):
        raise InputError(f"{name} has the axes {listed(names, shape)}; give time, y and x, or y and x alone")
    found |= dict(zip(wanted, rest, strict=True))
    return found.get("time"), found["y"], found["x"], found.get("colour")


def plain_order(shape: Sequence[int], name: str, colour: bool = False) -> tuple[int | None, int, int, int | None]:
    """(time, height, width) or (height, width), colour last; leading axes of length 1 hold nothing."""
    n = len(shape)
    n_grey = n - 1 if colour or (n > 3 and shape[-1] in (3, 4)) else n
    if n_grey < 2 or any(size > 1 for size in shape[: max(n_grey - 3, 0)]):
        raise InputError(f"{name} has shape {tuple(shape)}; give (time, height, width), or one frame (height, width)")
    time = n_grey - 3 if n_grey > 2 else None
    return time, n_grey - 2, n_grey - 1, n_grey if n_grey < n else None


def is_time(name: str) -> bool:
    """Whether an axis of this name may well be time: by its name, or because it has none of its own."""
    return name.lower() in _TIME or name.startswith("dim_")


def listed(names: Sequence[str], sizes: Sequence[int]) -> str:
    """``"y (6), x (7)"``."""
    return ", ".join(f"{name} ({size})" for name, size in zip(names, sizes, strict=True))
