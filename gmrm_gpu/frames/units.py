"""Lengths and times as instruments and other programs write them, in micrometres and seconds."""

from __future__ import annotations

import math
from typing import Any

_UM = {
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("a", "å", "ang", "angstrom", "angstroms"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre"), 1e-3),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("in", "inch"), 25400.0),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
}
_SECONDS = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}
_UNITLESS = ("", "none", "<undefined>", "pixel", "pixels", "px", "dimensionless")
_SQUARE = 1e-3


def to_um(value: Any, unit: Any) -> float | None:
    """A length in micrometres: ``to_um(5, "nm")`` -> 0.005; None unless above zero and in a known unit of length."""
    return _converted(value, unit, _UM)


def to_seconds(value: Any, unit: Any) -> float | None:
    """A time in seconds: ``to_seconds(40, "ms")`` -> 0.04; None unless above zero and in a known unit of time."""
    return _converted(value, unit, _SECONDS)


def pixel_size(x: tuple[Any, Any], y: tuple[Any, Any]) -> tuple[float | None, str | None]:
    """The side of a pixel in micrometres and, where there is none although the source has units, why.

    Parameters
    ----------
    x, y : (size, unit) of a pixel along each axis; a sign only says which way the axis runs.

    Returns
    -------
    (size, None), or (None, a sentence for `Acquisition.notes`), or (None, None) where the source has no units.
    """
    if all(has_no_unit(unit) for _, unit in (x, y)):
        return None, None
    side_x, side_y = (to_um(_magnitude(value), unit) for value, unit in (x, y))
    said = " and ".join(f"{name} {value} {unit}" for name, (value, unit) in zip("xy", (x, y), strict=True))
    if side_x is None or side_y is None:
        return None, f"the pixel size is not used, it is not a length ({said})"
    if not math.isclose(side_x, side_y, rel_tol=_SQUARE):
        return None, f"the pixel size is not used, pixels are not square ({said})"
    return side_x, None


def has_no_unit(unit: Any) -> bool:
    """Whether `unit` says nothing: missing, undefined, or pixels."""
    return unit is None or str(unit).strip("\0 ").lower() in _UNITLESS


def _magnitude(value: Any) -> float | None:
    try:
        return abs(float(value))
    except (TypeError, ValueError):
        return None


def _converted(value: Any, unit: Any, units: dict[str, float]) -> float | None:
    try:
        number = float(value) * units[str(unit).strip("\0 ").lower()]
    except (TypeError, ValueError, KeyError):
        return None
    return number if math.isfinite(number) and number > 0 else None
