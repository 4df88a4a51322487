"""In-situ recordings of Gatan cameras: a tree NAME/Hour_00/Minute_00/Second_00/NAME_..._Frame_0000.dm4, a file a frame.

Frames are numbered anew in each second, from 0; how many a second holds tells the frame rate. A frame that is not there
leaves a gap in the frame numbers, and a note says when it should have been.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..listing import regular
from ..movie import Acquisition, Movie
from .series import SeriesMovie
from .stamps import told

_PLACE = re.compile(r"hour_(\d+)[/\\]minute_(\d+)[/\\]second_(\d+)[/\\].*?frame_(\d+)\.dm[34]$", re.IGNORECASE)
_LEVEL = re.compile(r"(hour|minute|second)_\d+$", re.IGNORECASE)
_Place = tuple[int, int]
"""Whole seconds from the start of the recording, and the number of the frame in that second."""
_LISTED = 8


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open the folder that holds Hour_00, Hour_01, ..., or one of these or of their folders.

    Calibration and detector are those of the first frame.

    Raises
    ------
    InputError
        No frames, or two of one number.
    MissingDependencyError
        RosettaSciIO is not installed.
    """
    files, odd = _files(path)
    places = sorted(files)
    numbers, rate = _numbered(places)
    notes = [f"{odd} files of the recording are not named as frames are: left out"] if odd else []
    if rate % 1:
        most = math.ceil(rate)
        notes.append(
            f"seconds hold {most} or {most - 1} frames: taken for a rate of {rate:.6g} a second, with none missing"
        )
    if places[0][0] == places[-1][0]:
        notes.append(f"the recording lies in one second: {rate:g} frames a second is the least it can be")
    times = numbers / rate if (np.diff(numbers) > 1).any() else None

    def known(first: Acquisition) -> Acquisition:
        return told(replace(first, frame_time_s=1 / rate, times_s=times), *notes, _missing(numbers, rate))

    ordered = [files[place] for place in places]
    return SeriesMovie(path.name, ordered, luminance=luminance, numbers=numbers, known=known)


def is_recording(folder: Path) -> bool:
    """Whether `folder` is such a tree, or a part of one."""
    children = list(folder.iterdir())
    if any(_LEVEL.match(child.name) and child.is_dir() for child in children):
        return True
    return bool(_LEVEL.match(folder.name)) and any(child.suffix.lower() in (".dm3", ".dm4") for child in children)


def _files(folder: Path) -> tuple[dict[_Place, Path], int]:
    """The files of the frames by their place in the tree, and how many others there are."""
    files: dict[_Place, Path] = {}
    odd = 0
    root = folder.resolve()
    while _LEVEL.match(root.name):
        root = root.parent
    for path in sorted(folder.resolve().rglob("*.*")):
        match = _PLACE.match(str(path.relative_to(root)))
        if match is None:
            odd += 1
            continue
        hour, minute, second, frame = map(int, match.groups())
        place = (hour * 60 + minute) * 60 + second, frame
        if place in files:
            raise InputError(f"{files[place].name} and {path.name} are one and the same frame; keep one recording")
        files[place] = regular([path])[0]
    if not files:
        raise InputError(
            f"{folder.name} has folders like Hour_00 but no *_Frame_0000.dm4 in them; give a whole recording"
        )
    return files, odd


def _numbered(places: Sequence[_Place]) -> tuple[np.ndarray, float]:
    """(T,) numbers of the frames from the start of the recording, and frames a second.

    A second holds as many frames as the fullest one. Where seconds of n and of n - 1 frames are both common, the rate
    is no whole number (12.5 a second are 13, 12, 13, ...) and nothing is missing from the shorter ones.
    """
    held: dict[int, int] = {}
    for second, frame in places:
        held[second] = max(held.get(second, 0), frame + 1)
    whole = [held[second] for second in sorted(held)[1:-1]] or list(held.values())
    most = max(held.values())
    share = whole.count(most - 1) / len(whole)
    mixed = len(whole) >= 5 and 0.2 <= share <= 0.8 and share + whole.count(most) / len(whole) == 1
    rate = float(np.mean(whole)) if mixed else float(most)
    last = places[-1][0]
    capacity = np.array([held.get(second, round(rate)) if mixed else most for second in range(last + 1)])
    start = np.concatenate([[0], np.cumsum(capacity)])
    return np.array([start[second] + frame for second, frame in places]), rate


def _missing(numbers: np.ndarray, rate: float) -> str | None:
    """A sentence about the frames that should be there and are not, between the first and the last."""
    ends, starts = numbers[:-1][np.diff(numbers) > 1] + 1, numbers[1:][np.diff(numbers) > 1] - 1
    if ends.size == 0:
        return None
    gaps = ", ".join(_gap(a, b, rate) for a, b in zip(ends[:_LISTED], starts[:_LISTED], strict=True))
    more = f", and {ends.size - _LISTED} more gaps" if ends.size > _LISTED else ""
    total = numbers[-1] - numbers[0] + 1
    return f"{total - numbers.size} of {total} frames are missing: {gaps}{more}"


def _gap(first: int, last: int, rate: float) -> str:
    if first == last:
        return f"{first} (at {first / rate:.6g} s)"
    return f"{first} to {last} (at {first / rate:.6g} to {last / rate:.6g} s)"
