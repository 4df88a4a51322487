"""Lengths, times and sizes of memory as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import ConfigError

UNIT_UM = {
    "pm": 1e-6,
    "å": 1e-4,
    "a": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "mm": 1e3,
    "m": 1e6,
}
UNIT_S = {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_UNIT_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_QUANTITY = re.compile(r"^\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9.]+)\s*$")
_WIDTH = re.compile(r"^\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9.^²³]*)\^?([23²³]?)\s*$")
_POWER = {"2": 2, "²": 2, "3": 3, "³": 3}


def _parse(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    match = _QUANTITY.match(str(text))
    if not match:
        raise ConfigError(f"{what} {text!r} needs a number and a unit, for example {example}")
    unit = match[2].lower()
    if unit not in units:
        raise ConfigError(f"{what} {text!r} has the unknown unit {match[2]!r}; use one of {', '.join(units)}")
    try:
        value = float(match[1]) * units[unit]
    except ValueError:
        raise ConfigError(f"{what} {text!r} is not a number and a unit, for example {example}") from None
    if not value > 0 or not math.isfinite(value):
        raise ConfigError(f"{what} {text!r} must be above zero")
    return value


def parse_length_um(text: str) -> float:
    """``"5nm"`` -> 0.005. Units pm, nm, um (also U+00B5, U+03BC), mm, m; the result is in micrometres."""
    return _parse(text, UNIT_UM, "length", "5nm or 0.5um")


def parse_time_s(text: str) -> float:
    """``"500ms"`` -> 0.5. Units us, ms, s, min, h; the result is in seconds."""
    return _parse(text, UNIT_S, "time", "0.5s or 40ms")


def parse_bytes(text: str) -> int:
    """``"2GB"`` -> 2000000000. Units B, kB, MB, GB, KiB, MiB, GiB."""
    return int(_parse(text, _UNIT_BYTES, "memory", "2GB or 500MiB"))


def parse_width(text: str) -> tuple[float, str]:
    """Width of an interval, as a number and ``"share"`` (of the frame), ``"px"``, ``"um2"`` or ``"um3"``.

    ``"0.5um3"`` -> (0.5, "um3"), ``"2e5 nm^2"`` -> (0.2, "um2"), ``"500px"``, ``"1%"`` or ``"0.01"``: (0.01, "share").
    """
    example = "0.5um3, 0.2um2, 500px, 1% or 0.01"
    match = _WIDTH.match(str(text))
    number, unit, power = match.groups() if match else ("", "", "")
    unit, exponent = unit.lower(), _POWER.get(power, 1)
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"width {text!r} is not a number with a unit of area or volume, such as {example}") from None
    if exponent > 1 and unit in UNIT_UM:
        value, name = value * UNIT_UM[unit] ** exponent, f"um{exponent}"
    elif exponent == 1 and unit in ("", "%", "px"):
        value, name = (value / 100 if unit == "%" else value), "px" if unit == "px" else "share"
    else:
        raise ConfigError(f"width {text!r} has no unit of area or volume; write it like {example}")
    if not value > 0 or not math.isfinite(value):
        raise ConfigError(f"width {text!r} must be above zero")
    if name == "share" and value >= 1:
        raise ConfigError(f"width {text!r} is a share of the frame and must be below 1; write it like {example}")
    return value, name
