"""Bounds on .npz files before anything in them is unpacked: a small file may claim, or inflate to, any size."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from .errors import InputError

MOST_RATIO = 500
"""Noisy images shrink to a third, labels and counted electrons to a hundredth or two; zeros alone, a thousandth."""
ALWAYS = 2**28
"""Bytes that any file may inflate to."""
MOST_MEMBERS = 10_000

Header = tuple[tuple[int, ...], np.dtype]


def check_npz(path: str | os.PathLike[str]) -> dict[str, Header]:
    """Shape and type of each array of an .npz file, none of which is unpacked.

    Raises
    ------
    InputError
        It holds more than `MOST_MEMBERS`, inflates to far more than its size, or an array is pickled or of another size
        than its header says.
    ValueError, OSError, zipfile.BadZipFile and others
        It is damaged; see `frames.npy.DAMAGE`.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path.name} is no file; give a complete copy")
    with zipfile.ZipFile(path) as archive:
        about = archive.infolist()
        if len(about) > MOST_MEMBERS:
            raise InputError(f"{path.name} holds {len(about):,} arrays; give a file with one movie")
        total, size = sum(member.file_size for member in about), path.stat().st_size
        if total > most_bytes(size):
            raise InputError(
                f"{path.name} has {size:,} bytes and would unpack to {total:,}, as no movie does; "
                "if it is meant, save it as .npy"
            )
        found: dict[str, Header] = {}
        for member in about:
            name = member.filename.removesuffix(".npy")
            if name in found:
                raise InputError(f"{path.name} holds {name} twice; save it again")
            if name != member.filename:
                with archive.open(member) as file:
                    found[name] = _header(file, member, path.name)
    return found


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file that `check_npz` lets pass; it raises the same."""
    check_npz(path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def most_bytes(packed: int) -> int:
    """What so many bytes may inflate to and still be a movie."""
    return max(ALWAYS, MOST_RATIO * packed)


def read_header(file: IO[bytes]) -> Header:
    """Shape and type of the array of an open .npy file.

    Raises
    ------
    InputError
        The array is pickled. ValueError : it is none.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, dtype


def _header(file: IO[bytes], member: zipfile.ZipInfo, name: str) -> Header:
    shape, dtype = read_header(file)
    what = f"{member.filename.removesuffix('.npy')} in {name}"
    if dtype.hasobject:
        raise InputError(f"{what} is pickled, which could run any program; save it as an array of numbers")
    if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
        raise InputError(f"{what} is not of the size that its header says ({shape} {dtype}); save it again")
    return shape, dtype


__all__ = ["Header", "check_npz", "load_npz", "most_bytes", "read_header"]
