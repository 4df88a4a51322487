"""Bounds on HDF5 files: one may take its numbers from any other file of this computer, and claim any size."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..archives import most_bytes
from ..errors import InputError


def check_file(path: Path) -> None:
    """`check_self_contained` of a file that is not open; one that cannot be opened is left to its reader."""
    import h5py

    with suppress(OSError), h5py.File(path, "r") as file:
        check_self_contained(file, path)


def check_self_contained(file: Any, path: Path) -> None:
    """Look through `file`, which is `path` opened.

    Raises
    ------
    InputError
        Something is a link into another file or is stored in one, or is far larger than the file or than what was
        written: such numbers the library makes up. Or more was written than is said to be there.
    """
    import h5py

    most = most_bytes(path.stat().st_size)

    # What these return ends the walk; h5py does not bear what they would raise.
    def look(key: str, link: Any) -> InputError | None:
        return _outside(path.name, key, link.filename) if isinstance(link, h5py.ExternalLink) else None

    def inspect(key: str, held: Any) -> InputError | None:
        if not isinstance(held, h5py.Dataset):
            return None
        if held.external or held.is_virtual:
            return _outside(path.name, key, held.external[0][0] if held.external else "other files")
        if held.nbytes <= most:
            return _of_another_size(path.name, key, held)
        return InputError(
            f"{key} in {path.name} has {held.nbytes:,} bytes, far more than the file holds; it was cut short or is "
            "damaged: copy it again, or write it without compression if it is meant"
        )

    found = file.visititems_links(look) or file.visititems(inspect)
    if found is not None:
        raise found


def _of_another_size(name: str, key: str, held: Any) -> InputError | None:
    """What is said of the size of a stack against what is stored of it; stacks are only read, never filled up."""
    if held.ndim < 3 or held.dtype.kind not in "uif" or not held.size:
        return None
    try:
        if held.chunks is None:
            stored, said, what = held.id.get_storage_size(), held.nbytes, "bytes"
        else:
            said = math.prod(-(-n // step) for n, step in zip(held.shape, held.chunks, strict=True))
            stored, what = held.id.get_num_chunks(), "chunks"
    except Exception as error:  # h5py has many kinds
        return InputError(f"{key} in {name} cannot be read ({type(error).__name__}); it is damaged: copy it again")
    if stored == said:
        return None
    return InputError(
        f"{key} in {name} should have {said:,} {what}, {stored:,} are stored; it is damaged or was not closed: copy or "
        "write it again"
    )


def _outside(name: str, key: str, target: str) -> InputError:
    return InputError(f"{key} in {name} lies in another file ({target}), which is not read; write all into one file")


__all__ = ["check_file", "check_self_contained"]
