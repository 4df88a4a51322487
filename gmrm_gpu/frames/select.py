"""Which frames and pixels: the texts of --frames and --crop, and the mask of --exclude."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .movie import size_text

FrameSelection = str | int | slice | Sequence[int] | np.ndarray


def parse_frames(frames: FrameSelection, n_frames: int) -> np.ndarray:
    """Positions of the chosen frames, ascending int64.

    `frames` is the text of a Python slice (``"10:200:2"``), one number, numbers separated by commas, a slice, or
    integers. A slice may reach beyond the end, as in Python; a number may not. Time runs forward: positions must
    ascend, for the correction looks at the past.

    Raises
    ------
    InputError
        Malformed, nothing selected, a frame that does not exist, or an order that does not ascend.
    """
    seen = f"--frames {frames!r}"
    chosen = _frames_from_text(frames) if isinstance(frames, str) else frames
    if isinstance(chosen, slice):
        if chosen.step == 0:
            raise InputError(f"{seen} has step 0; use start:stop:step with a step of 1 or more")
        index = np.arange(n_frames, dtype=np.int64)[chosen]
    else:
        index = _explicit(chosen, seen)
        outside = index[(index < -n_frames) | (index >= n_frames)]
        if outside.size:
            raise InputError(f"{seen} asks for frame {outside[0]}; the movie has frames 0 to {n_frames - 1}")
        index = np.where(index < 0, index + n_frames, index)
    if index.size == 0:
        raise InputError(f"{seen} selects none of the {n_frames} frames; widen it")
    if np.any(np.diff(index) <= 0):
        raise InputError(f"{seen} does not ascend; give frames in the order of time, each once")
    return index


def parse_clip(clip: str | tuple[float, float]) -> tuple[float, float]:
    """``"60,180"`` or two numbers -> (lowest, highest) grey level; `InputError` unless they ascend."""
    parts = clip.split(",") if isinstance(clip, str) else clip
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f"--clip {clip!r} is not two grey levels; write it like 60,180") from None
    if not low < high:
        raise InputError(f"--clip {clip!r} does not ascend; write the lower grey level first, like 60,180")
    return low, high


def parse_crop(crop: str, shape: tuple[int, int]) -> tuple[slice, slice]:
    """``"y0:y1,x0:x1"`` -> (rows, columns) with start and stop within the frame `shape` (height, width).

    An end left out is the edge; a negative number counts from the far edge, so ``"0:-40,:"`` drops 40 rows.

    Raises
    ------
    InputError
        Malformed, empty, or outside the frame.
    """
    number = r"\s*(-?\d+)?\s*"
    match = re.fullmatch(rf"{number}:{number},{number}:{number}", str(crop))
    if not match:
        raise InputError(f"--crop {crop!r} is not y0:y1,x0:x1; write for example 0:200,50:300")
    return _span(match[1], match[2], shape[0], crop, "rows"), _span(match[3], match[4], shape[1], crop, "columns")


def fit_mask(mask: np.ndarray, full: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """True where a pixel of the cropped frame is excluded; `mask` covers the frame before or after cropping.

    Raises
    ------
    InputError
        `mask` has neither size, or is not one image.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    cropped = (rows.stop - rows.start, columns.stop - columns.start)
    if mask.ndim != 2:
        raise InputError(f"the mask of --exclude has shape {mask.shape}; give one image of {size_text(full)} pixels")
    if mask.dtype.kind not in "buif":
        raise InputError(f"the mask of --exclude has type {mask.dtype}; give numbers or bool, nonzero where excluded")
    if mask.shape == full:
        return mask[rows, columns] != 0
    if mask.shape == cropped:
        return mask != 0
    after = "" if cropped == full else f" ({size_text(cropped)} after --crop)"
    raise InputError(
        f"the mask of --exclude has {size_text(mask.shape)} pixels, the movie {size_text(full)}{after}; "
        "give a mask of the movie's size"
    )


def _frames_from_text(text: str) -> slice | list[int]:
    try:
        if ":" in text:
            parts = [int(part) if part.strip() else None for part in text.split(":")]
            if len(parts) > 3:
                raise ValueError
            return slice(*parts)
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--frames {text!r} is not start:stop:step; write for example 10:200:2, or 3,5,8") from None


def _explicit(chosen: int | Sequence[int] | np.ndarray, seen: str) -> np.ndarray:
    values = np.atleast_1d(np.asarray(chosen, dtype=object))
    try:
        return np.array([operator.index(value) for value in values], dtype=np.int64)
    except (TypeError, OverflowError):
        raise InputError(f"{seen} is not frames; give a slice or a list of whole numbers") from None


def _span(start: str | None, stop: str | None, size: int, crop: str, what: str) -> slice:
    low, high = int(start or 0), size if stop is None else int(stop)
    low, high = (low + size if low < 0 else low), (high + size if high < 0 else high)
    if low < 0 or high > size:
        raise InputError(f"--crop {crop!r} leaves the frame, which has {what} 0 to {size}; make it smaller")
    if low >= high:
        raise InputError(f"--crop {crop!r} has no {what}; the second number must be above the first")
    return slice(low, high)
