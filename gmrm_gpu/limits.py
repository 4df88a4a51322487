"""What a container or a batch system lets this process have of its machine: the limits of Linux control groups.

Of both versions; a limit of a group holds for all groups below it. Elsewhere than on Linux there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that may still be taken before the group is full and the kernel ends the program; None: no limit."""
    left = [_left(folder) for folder in _groups("memory", root)]
    return min((n for n in left if n is not None), default=None)


def cores_left(root: Path = ROOT) -> int | None:
    """Cores' worth of time that the group may use, rounded up, 1 or more; None: no limit."""
    parts = [_share(folder) for folder in _groups("cpu", root)]
    return min((max(1, math.ceil(part)) for part in parts if part is not None), default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the process's group and of those above it.

    In a container the path may be the host's, which is not to be seen there: then the folder above all is the group's.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if controller in controllers.split(","):
            top /= controller
        elif number != "0":
            continue
        names = [name for name in path.split("/") if name not in ("", "..")]
        yield from (top.joinpath(*names[:n]) for n in range(len(names), -1, -1))


def _left(group: Path) -> int | None:
    for most, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _number(group / most), _number(group / used)
        if limit is not None and usage is not None:
            # Files that were read long ago count as usage, but the kernel drops them before it refuses memory.
            stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
            return max(0, limit - usage + min(usage, int(stat.get(cached, 0))))
    return None


def _share(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
