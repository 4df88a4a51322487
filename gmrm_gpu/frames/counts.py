"""How many frames a file holds, against what it says: none is left out in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError

_LISTED = 5


def check_count(name: str, counted: int, room: int) -> None:
    """`InputError` where the header of a file counts fewer frames than it has room for: some would be lost."""
    if room > counted:
        raise InputError(
            f"{name} has room for {room} frames, but its header counts {counted}; it is damaged or was not closed: "
            "copy or export it again"
        )


def gaps_told(files: Sequence[Path]) -> str | None:
    """A sentence where the numbers in the names of files, which are in order, leave some out.

    They are those of the one place in which all names differ; most of them must follow each other by one step, which
    need not be 1, or they are no numbers of frames but times, say.
    """
    names = [re.split(r"(\d+)", file.name) for file in files]
    if len({len(name) for name in names}) != 1:
        return None
    varying = [column for column in zip(*names, strict=True) if len(set(column)) > 1]
    if len(varying) != 1 or len(files) < 3 or not all(text.isdecimal() for text in varying[0]):
        return None
    numbers = [int(text) for text in varying[0]]
    steps = np.diff(np.array(numbers, dtype=object))
    step = min(steps)
    if step < 1 or 2 * sum(steps == step) < len(steps) or any(steps % step):
        return None
    places = np.flatnonzero(steps > step)
    if not places.size:
        return None
    shown = ", ".join(f"{numbers[i]} and {numbers[i + 1]}" for i in places[:_LISTED])
    more = ", ..." if len(places) > _LISTED else ""
    n_missing = int(sum(steps[places] // step - 1))
    missing = "1 file" if n_missing == 1 else f"{n_missing} files"
    return f"{missing} may be missing: the numbers in their names have gaps between {shown}{more}"


def count_gif(data: bytes, name: str) -> int:
    """How many frames the blocks of a GIF are; `InputError` unless they lead to its end mark, the end of the file.

    A header of 13 bytes and a colour table, then blocks: pictures (",", 9 bytes, a colour table, the size of codes),
    extensions ("!", a kind), each with parts of at most 255 bytes after their length, the last one empty, and ";".
    """

    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    n_frames = 0
    try:
        at = 13 + table(data[10])
        while (kind := data[at : at + 1]) != b";":
            if kind not in (b",", b"!"):
                why = "its blocks are damaged" if kind else "it lacks its end mark"
                raise InputError(f"{name} is truncated or damaged: {why}; copy or export it again")
            n_frames += kind == b","
            at += 11 + table(data[at + 9]) if kind == b"," else 2
            while data[at]:
                at += data[at] + 1
            at += 1
    except IndexError:
        raise InputError(f"{name} is truncated: it ends amid a block; copy or export it again") from None
    if data[at + 1 :].strip(b"\0"):
        raise InputError(f"{name} is damaged: it goes on after its end mark; copy or export it again")
    return n_frames
