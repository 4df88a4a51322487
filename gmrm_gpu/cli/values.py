"""What flags are given: numbers, sizes and rates from text, with complaints that show how they are written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError

AUTO = "auto"
"""In place of a number of components or a trend: the movie itself decides, see `select.resolve_auto`."""

T = TypeVar("T")


def quoted(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as an argparse type whose `ConfigError` reaches the user in its own words."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def words(text: str) -> tuple[str, ...]:
    """``"a, b"`` -> ``("a", "b")``."""
    return tuple(part.strip() for part in text.split(","))


def real(text: str) -> float:
    """A number; `float`, but the complaint shows how one is written."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; write it like 0.1") from None


def whole(text: str) -> int:
    """A whole number; `int`, but the complaint says what is wanted."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; write it like 3") from None


def whole_or_auto(text: str) -> int | str:
    """A whole number, or the word auto."""
    if text.strip().lower() == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; write it like 3, or auto") from None


def numbers(kind: type[int] | type[float]) -> Callable[[str], tuple[Any, ...]]:
    """Parser of comma-separated numbers."""

    def convert(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            example = "0.1,0.05,0.01" if kind is float else "100,200,1000"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not numbers separated by commas, such as {example}"
            ) from None

    return convert


def frame_rate(text: str) -> float:
    """``"25fps"`` or ``"25"`` -> 25.0."""
    number = text.strip().lower().removesuffix("fps").strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is not frames per second, such as 25fps")
    return value


def frame_size(text: str) -> tuple[int, int]:
    """``"256x200"`` -> (256, 200): height, width."""
    return size(f"{text}x1")[:2]


def size(text: str) -> tuple[int, int, int]:
    """``"256x200x60"`` -> (256, 200, 60): height, width, frames."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTHxFRAMES, such as 256x256x60")
    height, width, n_frames = (int(part) for part in parts)
    return height, width, n_frames
