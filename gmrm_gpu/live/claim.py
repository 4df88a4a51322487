"""One program at a time writes a journal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError


def claim(folder: Path) -> BinaryIO:
    """Claim a journal until the file returned is closed, or the program ends, however it ends.

    Raises
    ------
    OutputError
        Another run holds it.
    """
    file = open(folder / "lock", "ab")  # noqa: SIM115 - open as long as the claim stands
    try:
        _lock(file.fileno())
    except (BlockingIOError, PermissionError):
        file.close()
        raise OutputError(f"{folder} belongs to a run that is going on; stop that one first") from None
    except OSError:
        pass  # some network disks know no locks
    return file


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a journal for a while; see `claim`."""
    with claim(folder):
        yield


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


__all__ = ["claim", "claimed"]
