"""Grey levels from colour: kept where the channels are equal, refused where they differ, weighted when asked."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

_REC601 = (0.299, 0.587, 0.114)


def to_grey(frame: np.ndarray, t: int, name: str, *, luminance: bool, tolerance: int = 0) -> np.ndarray:
    """Grey levels (height, width) of a colour frame (height, width, 3 or 4), in its type; a fourth channel is ignored.

    Equal channels are returned as they are. Else Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, rounded for
    integers) if `luminance`, or if the channels differ by at most `tolerance` (what a lossy codec does to grey).

    Raises
    ------
    InputError
        Frame `t` of `name` is coloured and `luminance` is False.
    """
    red, green, blue = (frame[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red
    if not luminance and _spread(frame) > tolerance:
        raise colour_error(t, name)
    grey = sum(weight * channel.astype(np.float64) for weight, channel in zip(_REC601, (red, green, blue), strict=True))
    return (np.rint(grey) if frame.dtype.kind in "ui" else np.asarray(grey)).astype(frame.dtype)


def colour_error(t: int, name: str) -> InputError:
    """The refusal of frame `t`; after a grey first frame it says where the colour starts."""
    where = f"{name} is in colour" if t == 0 else f"{name} starts grey, but frame {t} is in colour"
    return InputError(f"{where}; give --luminance (luminance=True) to turn it into grey")


def _spread(frame: np.ndarray) -> float:
    channels = frame[..., :3].astype(np.float64)
    return float((channels.max(axis=-1) - channels.min(axis=-1)).max(initial=0.0))
