"""A disk that fails, a process that dies and a power cut, at any call of `gmrm_gpu.durable` that touches the disk.

`Disk` stands in for the module `os` there. It works on real files, and remembers what a real disk would not have kept
yet: bytes that were not flushed, and names that were changed in a folder that was not flushed since.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

ERRORS = {"no space": errno.ENOSPC, "i/o error": errno.EIO, "quota": errno.EDQUOT}
SHORT = ("half written", "half written, then no space", "nothing written")
DEATHS = ("killed before", "killed after", "power cut before", "power cut after", "power cut, names kept")
"""Of a power cut the names that were not flushed are lost, or kept; bytes that were not flushed are always lost."""


class Killed(BaseException):
    """The process is gone: nothing runs after this, no handler and no clean-up."""


class Disk:
    """`os` for `gmrm_gpu.durable`; its `at`-th call that opens, writes, flushes or renames has `fault`.

    Attributes
    ----------
    calls : names of those calls so far.
    """

    def __init__(self, at: int = -1, fault: str = "") -> None:
        self.at, self.fault, self.calls = at, fault, []
        self._dead = False
        self._full = False
        self._names: dict[int, Path] = {}
        self._unflushed: set[Path] = set()
        self._renamed: list[tuple[Path, bytes | None]] = []

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, mode=0o777):
        handle = self._do("open", lambda: os.open(path, flags, mode))
        self._names[handle] = Path(path)
        return handle

    def close(self, handle):
        os.close(handle)  # also by a dead process: the system does it

    def write(self, handle, data):
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        now = len(self.calls) == self.at
        if now and self.fault == "nothing written":
            return 0
        if now and self.fault.startswith("half"):
            self._full = self.fault != "half written"
            data = data[: (len(data) + 1) // 2]
        self._unflushed.add(self._names[handle])
        return self._do("write", lambda: os.write(handle, data))

    def fsync(self, handle):
        self._do("fsync", lambda: self._flush(self._names[handle]))

    def replace(self, one, other):
        self._do("replace", lambda: self._rename(Path(one), Path(other)))

    def unlink(self, path):
        if self._dead:
            raise Killed
        os.unlink(path)

    def _do(self, name, call):
        if self._dead:
            raise Killed
        now = len(self.calls) == self.at
        self.calls.append(name)
        if now and self.fault in ERRORS:
            code = ERRORS[self.fault]
            raise OSError(code, os.strerror(code))
        if now and self.fault in DEATHS and "after" not in self.fault:
            self._die()
        result = call()
        if now and self.fault in DEATHS:
            self._die()
        return result

    def _flush(self, path):
        self._unflushed.discard(path)
        if path.is_dir():
            self._renamed = [(target, old) for target, old in self._renamed if target.parent != path]

    def _rename(self, one, other):
        self._renamed.append((other, other.read_bytes() if other.exists() else None))
        os.replace(one, other)
        if one in self._unflushed:
            self._unflushed.remove(one)
            self._unflushed.add(other)

    def _die(self):
        self._dead = True
        if self.fault.startswith("power"):
            for path in self._unflushed:
                if path.exists():
                    path.write_bytes(bytes(path.stat().st_size))
            for target, old in reversed(self._renamed) if "kept" not in self.fault else ():
                target.unlink()
                if old is not None:
                    target.write_bytes(old)
        raise Killed
