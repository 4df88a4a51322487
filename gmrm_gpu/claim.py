"""One program at a time writes a journal or a study, and others can say which one."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType

from .durable import write_all
from .errors import OutputError

LOCK = "lock"
"""Usual name of the file that is held."""

# `holder` takes the lock for an instant, which must not turn away a program that begins just then.
_TRIES, _WAIT_S = 5, 0.02
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
# Windows locks bytes, and keeps others from reading them: one that is far behind the text.
_FAR = 1 << 20


@dataclass(frozen=True)
class Holder:
    """The program that holds a claim.

    Attributes
    ----------
    pid : its number, 0 where it is unknown. host : the machine it runs on. since : when it began, UTC.
    """

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}" if self.pid else "an unknown process"


class Claim:
    """A claim that stands; made by `claim`. As a context manager it ends with the block."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle: int | None = handle

    def close(self) -> None:
        """End the claim, and remove its file."""
        if self._handle is None:
            return
        if sys.platform == "win32":  # an open file cannot be removed
            os.close(self._handle)
            with suppress(OSError):
                self.path.unlink()
        else:
            # Whoever opens the file from now on finds it without a name, and takes a new one.
            with suppress(OSError):
                if _same(self._handle, self.path):
                    self.path.unlink()
            os.close(self._handle)
        self._handle = None

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def claim(folder: str | os.PathLike[str], name: str = LOCK) -> Claim:
    """Claim what a folder holds until the claim is closed, or the program ends, however it ends.

    Parameters
    ----------
    folder : where the file lies that is held. name : of that file.

    Raises
    ------
    OutputError
        Another program holds it, or the file cannot be made.
    """
    path = Path(folder) / name
    try:
        for last in (*[False] * (_TRIES - 1), True):
            handle = _take(path)
            if handle is not None:
                return Claim(path, handle)
            if not last:
                time.sleep(_WAIT_S)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    raise OutputError(f"{folder} belongs to a run that is going on; stop that one first ({_told(path)})")


def holder(folder: str | os.PathLike[str], name: str = LOCK) -> Holder | None:
    """Who holds a claim on a folder now; None where nobody does.

    Raises
    ------
    OSError
        The file is there but may not be read.
    """
    path = Path(folder) / name
    try:
        handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        held = _lock(handle)
    finally:
        os.close(handle)  # which unlocks it too
    return None if held else _told(path)


def _take(path: Path) -> int | None:
    """The locked file, with our name in it; None while another program has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = _lock(handle)
        if locked is None:
            _check_by_name(path)
        if locked is False or not _same(handle, path):
            os.close(handle)
            return None
        os.ftruncate(handle, 0)
        mine = Holder(os.getpid(), socket.gethostname(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        write_all(partial(os.write, handle), json.dumps(asdict(mine)).encode())
        return handle
    except BaseException:
        with suppress(OSError):
            os.close(handle)
        raise


def _lock(handle: int) -> bool | None:
    """Lock an open file at once: False if another program has, None where the disk knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def _check_by_name(path: Path) -> None:
    """On a disk without locks: `OutputError` if the file names a program that may still be running."""
    told = _told(path)
    if told.pid and not (told.host == socket.gethostname() and not _runs(told.pid)):
        raise OutputError(f"{path} says that {told} is writing, and this disk knows no locks; if it is gone, remove it")


def _told(path: Path) -> Holder:
    """What a file says of its holder."""
    try:
        told = json.loads(path.read_text("utf-8"))
        return Holder(int(told["pid"]), str(told["host"]), str(told["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Holder(0, "", "")


def _runs(pid: int) -> bool:
    """Whether another process of this machine is there; where that cannot be asked, it is taken to be."""
    if pid == os.getpid():  # a new life of a container counts from the same number
        return False
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether a name still means the open file; the program that held it may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


__all__ = ["LOCK", "Claim", "Holder", "claim", "holder"]
