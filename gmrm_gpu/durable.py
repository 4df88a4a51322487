"""Files that are whole or not there, whatever fails and whenever: written aside, flushed to the disk, then renamed.

>>> from gmrm_gpu.durable import write_bytes
>>> write_bytes("settings.json", b"{}")  # doctest: +SKIP
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from .errors import OutputError

PART = ".part"
"""Ending of a file that is not complete; its name begins with a dot."""

_numbers = itertools.count()
# Windows flushes only files that are open for writing; elsewhere a file may be flushed by whoever may read it.
_ANY = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY
# What file systems answer that cannot flush a folder, or need not; an error of the disk itself is none of these.
_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden file beside `path` that takes its name once it is complete, and is gone after any failure.

    Once this is left without an error, neither a crash nor a power cut brings the old file back.

    Raises
    ------
    OutputError
        It cannot be written. If only the last flush, that of the folder, failed, the new file is there already.
    """
    path = Path(path)
    # Two writers of one file must not share the part.
    part = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}{PART}")
    try:
        yield part
        _sync(part, _ANY)
        os.replace(part, path)
        sync_folder(path.parent)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # it has its name, or the disk is gone and the error above says so
            os.unlink(part)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file as a whole.

    Raises
    ------
    OutputError
        As `whole_file`.
    """
    with whole_file(path) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            write_all(partial(os.write, handle), data)
        finally:
            os.close(handle)


def write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    """Write everything with `write`, which by itself may take a part, say how much, and leave it at that."""
    left = memoryview(data)
    while left:
        written = write(left)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder last; where folders cannot be opened (Windows) the system does so by itself.

    Raises
    ------
    OSError
        The disk failed.
    """
    if hasattr(os, "O_DIRECTORY"):
        try:
            _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _NO_FOLDERS:
                raise


def sync_tree(folder: str | os.PathLike[str]) -> None:
    """Make a folder and all that is in it last; for what other programs have written, before a rename.

    Raises
    ------
    OSError
        The disk failed.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name), _ANY)
        sync_folder(parent)


def _sync(path: str | os.PathLike[str], flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["PART", "sync_folder", "sync_tree", "whole_file", "write_all", "write_bytes"]
