"""From coordinates of visits to places in a frame, and a sub-sampled movie whose visits lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError
from ..movie import Movie, Visits, size_text


def flat_places(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    """(n,) int32, y * width + x of coordinates counted from 0 at the top left.

    Parameters
    ----------
    x, y : (n,) column and row of each visit, whole numbers of any type.
    shape : (height, width). where : how a message begins: the file, the frame.

    Raises
    ------
    InputError
        Coordinates are not numbers, have fractions, are negative or lie outside of the frame; with how many do.
    """
    x, y = whole_coordinates(x, "x", where), whole_coordinates(y, "y", where)
    height, width = shape
    check_size(shape, where)
    outside = int(((x >= width) | (y >= height)).sum())
    if outside:
        from_one = x.min() >= 1 and y.min() >= 1 and x.max() <= width and y.max() <= height
        cure = "subtract 1, they seem to count from 1" if from_one else "check the size of the frame"
        raise InputError(
            f"{where} has {outside:,} of {x.size:,} coordinates outside of its {size_text(shape)} pixels "
            f"(x up to {x.max()}, y up to {y.max()}, counted from 0); {cure}"
        )
    return (y * width + x).astype(np.int32)


def whole_coordinates(values: np.ndarray, name: str, where: str) -> np.ndarray:
    """`values` as int64; `InputError` with a count where they are no numbers, have fractions or are negative."""
    values = np.asarray(values)
    things = "frames" if name == "frame" else "pixels"
    if values.dtype.kind not in "uif":
        raise InputError(f"{where} has {name} of type {values.dtype}; give whole numbers of {things}")
    for bad, what, cure in (
        (~np.isfinite(values), "that are no numbers", "leave those rows out"),
        (values != np.rint(values), "with a fraction", f"give whole {things}"),
        (values < 0, "below 0", f"count {things} from 0"),
        (values >= 2**31, "beyond 2^31", f"give {things}"),
    ):
        count = int(bad.sum())
        if count:
            example = values[bad][0]
            raise InputError(f"{where} has {count:,} of {values.size:,} {name} {what}, such as {example:g}; {cure}")
    return values.astype(np.int64)


def check_size(shape: tuple[int, int], where: str) -> None:
    """`InputError` for a frame that is empty or whose places do not fit 31 bits."""
    if min(shape) < 1 or shape[0] * shape[1] >= 2**31:
        raise InputError(f"{where} has frames of {size_text(shape)} pixels; give 1 to 2^31 - 1 pixels")


def size_of_largest(x: np.ndarray, y: np.ndarray, where: str) -> tuple[tuple[int, int], str]:
    """The smallest frame (height, width) that holds all coordinates, and the sentence that says so."""
    if x.size == 0:
        raise InputError(f"{where} lists no visits; give a file with at least one")
    shape = int(whole_coordinates(y, "y", where).max()) + 1, int(whole_coordinates(x, "x", where).max()) + 1
    check_size(shape, where)
    text = f"{where} does not say how large its frames are: taken as {size_text(shape)}, the largest y and x plus 1."
    if x.min() >= 1 and y.min() >= 1:
        text += " No x or y is 0; if they count from 1, subtract 1."
    return shape, text


class ListedMovie(Movie):
    """A sub-sampled movie whose visits lie in memory.

    Parameters
    ----------
    counts : (T,) visits of each frame. positions, values : those of all frames, one after the other.
    more : as for `Movie`.
    """

    def __init__(self, counts: np.ndarray, positions: np.ndarray, values: np.ndarray, **more: Any) -> None:
        super().__init__(dtype=values.dtype, n_frames=len(counts), sampled=True, **more)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._positions, self._values = positions, values

    def _read_visits(self, t: int) -> Visits:
        part = slice(self._starts[t], self._starts[t + 1])
        return Visits(self._positions[part], self._values[part])
