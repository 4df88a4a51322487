"""Ragged lists of pixels in HDF5, through h5py (extra `em`): frames of differing length, one after the other.

A group has a dataset `nnz` (T,), the number of pixels listed for each frame, and `row`, `col` and `intensity` (the sum
of nnz), those of all frames in turn; attributes shape0 and shape1 (or shape) give height and width. A group without
`nnz` is one frame. ImageD11 writes this layout; a file may hold several such groups. Frames are read when asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MissingDependencyError
from ..hdf5 import check_self_contained
from ..listing import natural_key
from ..movie import Acquisition, Movie, Visits
from ..npy import DAMAGE
from .places import check_size, flat_places, size_of_largest

# A damaged file may show a dataset as another kind of object, which lacks what is asked of it.
_DAMAGE = (*DAMAGE, AttributeError)
_INTENSITY = ("intensity", "value", "values", "counts", "data")
_THRESHOLD = (
    "{} lists the pixels of each frame: they were taken for the visited ones. If it lists only bright ones, above a "
    "threshold, every share comes out wrong."
)


def open_file(path: Path, *, luminance: bool = False, signal: int | None = None) -> Movie:
    """Open the one group of pixel lists in a file, or the one numbered `signal`."""
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("reading HDF5 needs h5py: pip install 'gmrm-gpu[em]'") from None
    try:
        with h5py.File(path, "r") as file:
            check_self_contained(file, path)
            groups = _groups(file)
            return RaggedMovie(path, _chosen(groups, file, signal, path.name), file)
    except InputError:
        raise
    except _DAMAGE as error:
        raise _unreadable(path.name, error) from None


class RaggedMovie(Movie):
    """One group of an HDF5 file; `file` is it, open while this is made."""

    def __init__(self, path: Path, group: str, file: Any) -> None:
        held, name = file[group], path.name
        self._path, self._group = path, group
        self._intensity = next(key for key in _INTENSITY if key in held)
        n = len(held["row"])
        counts = np.asarray(held["nnz"][()]) if "nnz" in held else np.array([n])
        _check_lengths(counts, {key: held[key].shape for key in ("row", "col", self._intensity)}, name)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        stated = held.attrs.get("nframes")
        if stated is not None and int(stated) != len(counts):
            raise InputError(f"{name} states {int(stated)} frames but lists {len(counts)}; write it again")
        notes = [_THRESHOLD.format(name)]
        shape = _shape(held.attrs)
        if shape is None:
            shape, text = size_of_largest(held["col"][()], held["row"][()], name)
            notes.append(text)
        check_size(shape, name)
        super().__init__(
            name=name,
            shape=shape,
            dtype=held[self._intensity].dtype,
            n_frames=len(counts),
            acquisition=Acquisition(notes=tuple(notes)),
            sampled=True,
        )

    def _read_visits(self, t: int) -> Visits:
        import h5py

        part, where = slice(int(self._starts[t]), int(self._starts[t + 1])), f"frame {t} of {self.name}"
        try:
            with h5py.File(self._path, "r") as file:
                held = file[self._group]
                row, col, values = (np.asarray(held[key][part]) for key in ("row", "col", self._intensity))
        except _DAMAGE as error:
            raise _unreadable(where, error) from None
        return Visits(flat_places(col, row, self.shape, where), values)


def _groups(file: Any) -> list[str]:
    """Names of the groups with lists of pixels, in natural order."""
    found = ["/"] if _is_list(file) else []
    file.visititems(lambda name, held: found.append(name) if _is_list(held) else None)
    return sorted(found, key=natural_key)


def _is_list(held: Any) -> bool:
    is_group = hasattr(held, "keys")
    return is_group and "row" in held and "col" in held and any(key in held for key in _INTENSITY)


def _chosen(groups: list[str], file: Any, signal: int | None, name: str) -> str:
    if not groups:
        raise InputError(
            f"{name} holds no lists of pixels (nnz, row, col, intensity) but {_content(file)}; if one of these is the "
            "movie, open it with h5py and pass it to gmrm_gpu.analyze"
        )
    if signal is None and len(groups) == 1:
        return groups[0]
    if signal is None or not 0 <= signal < len(groups):
        listed = "; ".join(f"{i}: {group} ({_size(file[group])})" for i, group in enumerate(groups))
        seen = "several recordings" if signal is None else f"no recording {signal}"
        raise InputError(f"{name} holds {seen}; give --signal N, one of: {listed}")
    return groups[signal]


def _size(held: Any) -> str:
    frames = len(held["nnz"]) if "nnz" in held else 1
    return f"{frames} frames, {len(held['row']):,} pixels listed"


def _content(file: Any) -> str:
    """The datasets of a file, a few of them."""
    found: list[str] = []
    file.visititems(lambda name, held: found.append(f"{name} {held.shape}") if hasattr(held, "shape") else None)
    return ", ".join(found[:5]) + (" ..." if len(found) > 5 else "") if found else "nothing"


def _check_lengths(counts: np.ndarray, shapes: dict[str, tuple[int, ...]], name: str) -> None:
    if counts.ndim != 1 or counts.dtype.kind not in "ui" or counts.size == 0 or (counts.astype(np.int64) < 0).any():
        raise InputError(
            f"{name} has nnz of shape {counts.shape} and type {counts.dtype}; it counts pixels, one a frame"
        )
    total = int(counts.sum(dtype=np.int64))
    if any(shape != (total,) for shape in shapes.values()):
        held = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise InputError(f"{name} counts {total:,} pixels (nnz) but lists {held}; it is cut short or was not closed")


def _shape(attributes: Any) -> tuple[int, int] | None:
    """(height, width), of the last two axes where a stack is stated."""
    if "shape0" in attributes and "shape1" in attributes:
        return int(attributes["shape0"]), int(attributes["shape1"])
    if "shape" in attributes and len(attributes["shape"]) >= 2:
        return int(attributes["shape"][-2]), int(attributes["shape"][-1])
    return None


def _unreadable(what: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{what} is truncated or damaged ({reason}); copy or write the file again")
