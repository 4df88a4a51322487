"""Lengths and times as instruments and other programs write them, in micrometres and seconds.

The unit stands beside the number, in any case, singular or plural, British or American.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from unicodedata import normalize

from ..config.units import UNIT_S, UNIT_UM

_UM = {
    **UNIT_UM,
    **{"picometer": 1e-6, "ang": 1e-4, "angstrom": 1e-4, "nanometer": 1e-3, "micron": 1.0, "micrometer": 1.0},
    **{"millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "in": 25400.0, "inch": 25400.0, "meter": 1e6},
}
_SECONDS = {
    **UNIT_S,
    **{"ns": 1e-9, "nanosecond": 1e-9, "microsecond": 1e-6, "msec": 1e-3, "millisecond": 1e-3},
    **{"sec": 1.0, "second": 1.0, "minute": 60.0, "hr": 3600.0, "hour": 3600.0},
}
_UNITLESS = ("", "none", "undefined", "<undefined>", "pixel", "pixels", "px", "dimensionless")
_SQUARE = 1e-3
# Pixels of a decimetre and more are no micrograph: such numbers come from reciprocal metres taken for metres.
_LARGEST_UM = 1e5


def to_um(value: Any, unit: Any) -> float | None:
    """A length in micrometres; None unless above zero and in a known unit of length.

    Units pm, Å (A, angstrom), nm, um (also U+00B5, U+03BC, micron), mm, cm, m, inch.

    Examples
    --------
    >>> to_um(5, "nm"), to_um(5, "1/nm")
    (0.005, None)
    """
    return _converted(value, unit, _UM)


def to_seconds(value: Any, unit: Any) -> float | None:
    """A time in seconds; None unless above zero and in a known unit of time.

    Units ns, us (also U+00B5, U+03BC), ms (msec), s (sec, second), min, h (hr, hour).

    Examples
    --------
    >>> to_seconds(40, "ms"), to_seconds(40, "frames")
    (0.04, None)
    """
    return _converted(value, unit, _SECONDS)


def has_no_unit(unit: Any) -> bool:
    """Whether `unit` says nothing: missing, undefined, or pixels."""
    return _spelled(unit) in _UNITLESS


def _is_square(x: float, y: float) -> bool:
    """Whether the sides of a pixel, in one unit, are equal to a thousandth."""
    return math.isclose(x, y, rel_tol=_SQUARE)


def pixel_size(x: tuple[Any, Any], y: tuple[Any, Any]) -> tuple[float | None, str | None]:
    """The side of a pixel in micrometres and, where there is none although the source has units, why.

    Parameters
    ----------
    x, y : (size, unit) of a pixel along each axis, the units may differ; y may be negative, its axis then
        runs upwards.

    Returns
    -------
    (size, None), or (None, a sentence for `Acquisition.notes`), or (None, None) where the axes only count pixels.

    Examples
    --------
    >>> pixel_size((2, "nm"), (2000, "pm"))
    (0.002, None)
    """
    if x[0] is y[0] is None or (_only_counts(*x) and _only_counts(*y)):
        return None, None
    side_x, side_y = to_um(*x), to_um(_magnitude(y[0]), y[1])
    said = f"x {_told(*x)}, y {_told(*y)}"
    if side_x is None or side_y is None:
        return None, f"the pixel size is not used, it is not a length above zero ({said})"
    if not _is_square(side_x, side_y):
        return None, f"the pixel size is not used, pixels are not square ({said})"
    if side_x >= _LARGEST_UM:
        return None, f"the pixel size is not used, it is too large for a micrograph ({said})"
    return side_x, None


def frame_time(step: Any, unit: Any) -> tuple[float | None, str | None]:
    """Seconds from frame to frame and, where the axis along which frames follow each other is no time, a sentence.

    Returns
    -------
    (seconds, None), or (None, a sentence for `Acquisition.notes`), or (None, None) where the axis only counts frames.
    """
    seconds = to_seconds(step, unit)
    if seconds is not None or step is None or _only_counts(step, unit):
        return seconds, None
    return None, f"the frame time is not used, frames follow each other in steps that are no time ({_told(step, unit)})"


def _only_counts(step: Any, unit: Any) -> bool:
    return has_no_unit(unit) and _magnitude(step) in (None, 0, 1)


def _told(step: Any, unit: Any) -> str:
    number = _magnitude(step)
    text = str(step) if number is None else f"{float(step):.6g}"
    return f"{text} without a unit" if has_no_unit(unit) else f"{text} {unit}"


def _magnitude(value: Any) -> float | None:
    try:
        return abs(float(value))
    except (TypeError, ValueError):
        return None


def _spelled(unit: Any) -> str:
    # NFC, because Å is written as one character, as another one, or as two.
    text = "" if unit is None else normalize("NFC", str(unit))
    return text.replace("\\u00B5", "µ").strip("\0 ").lower().replace("metre", "meter")


def _converted(value: Any, unit: Any, units: Mapping[str, float]) -> float | None:
    name = _spelled(unit)
    factor = units.get(name, units.get(name.removesuffix("s")) if len(name) > 2 else None)
    try:
        number = math.nan if factor is None else float(value) * factor
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
