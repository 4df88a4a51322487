"""A folder into which another program writes images, watched.

A file is read when it is whole: its size has not changed, it opens, and its last pixels have been written. Files are
taken in natural order of their names (frame2 before frame10), those that turn up late when they do.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...frames import Movie, open_movie
from ...frames.listing import natural_key
from ...frames.registry import movie_suffixes
from .arrival import Arrival, Notice, Source

_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".lock", ".swp", "")
"""Suffixes of files that get another name when they are whole; not worth a word."""
_BURST = 16
_RECENT, _LATE_NS = 256, 2 * 10**9
"""Files that are looked at again after they were read; what a file system may be late with their time, nanoseconds."""


@dataclass
class _Pending:
    """A file that is not yet taken: its last known size and time of writing, and since when they stand."""

    state: tuple[int, int]
    since: float


class FolderSource(Source):
    """New files of a folder, as they become whole; a file may hold several frames.

    Parameters
    ----------
    folder : the folder; subfolders are looked at only in the trees of Gatan's in-situ cameras (``Hour_00/...``).
    reading : options of `open_movie` for every file, such as ``{"luminance": True}``.
    new_only : leave out the files that are there already. skip : names of files to leave out.
    taken : number and file of every frame that an earlier run has read. after : number of the last of them that is not
        wanted again; None: all are.
    poll_s : seconds between two looks. patience_s : how long a file that cannot be read, or whose last rows are 0, is
        given after it was last written to; then it is left out, with a notice.

    Raises
    ------
    InputError
        The folder does not exist.
    """

    replays = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        reading: dict[str, Any] | None = None,
        new_only: bool = False,
        skip: Sequence[str] = (),
        taken: Sequence[tuple[int, str]] = (),
        after: int | None = None,
        poll_s: float = 0.2,
        patience_s: float = 10.0,
    ) -> None:
        self._folder = Path(folder).expanduser()
        if not self._folder.is_dir():
            raise InputError(f"{folder} is no folder; give the one that the images are written into")
        self.name = self._folder.resolve().name
        self._reading, self._poll_s, self._patience_s = reading or {}, poll_s, patience_s
        self._closed = threading.Event()
        self._suffix: str | None = None
        self._ignored: set[str] = set()
        self.skipped = tuple(self._names() if new_only else skip)
        self._done = set(self.skipped)
        self._pending: dict[str, _Pending] = {}
        self._last_name: str | None = None
        self._number, self._after = 0, -1 if after is None else after
        self._again = _first_numbers(taken)
        self._next = 1 + max((number for number, _ in taken), default=-1)
        self._torn = _TornFrames()
        self._waiting: set[str] = set()
        self._held_up: str | None = None
        self._recent: deque[tuple[str, tuple[int, int]]] = deque(maxlen=_RECENT)

    def __iter__(self) -> Iterator[Arrival | Notice]:
        yield from self._read_again()
        gone, first = False, True
        while not self._closed.is_set():
            started = time.monotonic()
            if self._folder.is_dir():
                if gone:
                    yield Notice(f"the folder {self._folder.name} is back")
                gone = False
                yield from self._look(first)
                first = False
            elif not gone:
                gone = True
                yield Notice(f"the folder {self._folder.name} is gone; waiting until it is back")
            # A listing that takes long, of very many files, is not made all the time.
            self._closed.wait(max(self._poll_s, 2 * (time.monotonic() - started)))

    def close(self) -> None:
        """Let the iterator end at its next look."""
        self._closed.set()

    def _read_again(self) -> Iterator[Arrival | Notice]:
        """The files of an earlier run, in the order and with the numbers that they had then."""
        names = list(self._again)
        for place, name in enumerate(names):
            self._suffix = Path(name).suffix.lower()
            following = self._again[names[place + 1]] if place + 1 < len(names) else None
            # The last may hold frames that were not reached; the others end where the next begins.
            if self._closed.is_set() or (following is not None and following - 1 <= self._after):
                self._done.add(name)
                continue
            self._number = self._again[name]
            try:
                yield from self._hand_over(name, *self._opened(self._folder / name))
            except (InputError, OSError):
                self._finish(name)
                if self._next - 1 > self._after:
                    yield Notice(f"{name} was analysed before and cannot be read again; the fit goes on without it")
        self._number = max(self._number, self._next)
        self._again.clear()

    def _opened(self, path: Path) -> tuple[Movie, list[Any]]:
        movie = open_movie(path, **self._reading)
        return movie, [self._content(movie, t) for t in range(len(movie))]

    def _look(self, first: bool) -> Iterator[Arrival | Notice]:
        """One look at the folder: whatever is whole, up to the first file that is still being written."""
        there = self._names()
        self._done.intersection_update(there)  # so that a folder that is emptied again and again costs no memory
        yield from self._written_again()
        names = [name for name in there if name not in self._done]
        yield from self._kinds(names)
        names = sorted((n for n in names if Path(n).suffix.lower() == self._suffix), key=natural_key)
        for name in [name for name in self._pending if name not in names]:
            if not (self._folder / name).exists():
                yield self._left_out(name, "vanished before it was read")
        new = [name for name in names if name not in self._waiting]
        self._waiting = set(names)
        if len(new) > _BURST and not first:
            yield Notice(f"{len(new)} files were found at once, {new[0]} to {new[-1]}")
        for place, name in enumerate(names):
            if self._closed.is_set():
                return
            seen_before = name in self._pending
            taken = yield from self._take(name)
            if not taken:
                if seen_before and len(names) - place > _BURST and name != self._held_up:
                    self._held_up = name
                    yield Notice(f"{name} is not whole; files after it wait for it, {self._patience_s:g} s at most")
                return

    def _names(self) -> list[str]:
        """Paths within the folder, as text, of the files that are there; hidden ones are left out."""
        if any(self._folder.glob("Hour_*")):
            found = (p.relative_to(self._folder).as_posix() for p in self._folder.rglob("*") if p.is_file())
            return [name for name in found if not Path(name).name.startswith(".")]
        with os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]

    def _kinds(self, names: list[str]) -> Iterator[Notice]:
        """Settle on one kind of file, and say once which others are left out."""
        known = movie_suffixes()
        for name in sorted(names, key=natural_key):
            suffix = Path(name).suffix.lower()
            if self._suffix is None and suffix in known:
                self._suffix = suffix
            if suffix not in (self._suffix, *self._ignored, *_UNFINISHED) and (self._suffix or suffix not in known):
                self._ignored.add(suffix)
                what = f"only {self._suffix} files are read" if suffix in known else "no kind of image that is read"
                yield Notice(f"{name} and other {suffix} files are ignored: {what}")

    def _take(self, name: str) -> Generator[Arrival | Notice, None, bool]:
        """Read a file; returns whether it is done with, for good or bad."""
        path, now = self._folder / name, time.monotonic()
        try:
            stat = path.stat()
        except FileNotFoundError:
            yield self._left_out(name, "vanished before it was read")
            return True
        state = (stat.st_size, stat.st_mtime_ns)
        seen = self._pending.get(name)
        age = time.time() - stat.st_mtime
        if seen is None or seen.state != state:
            self._pending[name] = seen = _Pending(state, now)
            if age < self._patience_s:
                return False
        waited_enough = max(now - seen.since, age) >= self._patience_s
        try:
            movie, frames = self._opened(path)
        except InputError as error:
            if waited_enough:
                yield self._left_out(name, f"cannot be read ({error})")
            return waited_enough
        if isinstance(frames[-1], np.ndarray):
            verdict = self._torn.judge(frames[-1], waited_enough)
            if verdict == "wait":
                return False
            if verdict == "torn":
                yield self._left_out(name, f"ends in {self._torn.rows_text}, as if it was never finished")
                return True
            if verdict == "odd":
                yield Notice(f"{name} ends in {self._torn.rows_text}; taken as recorded")
        yield from self._hand_over(name, movie, frames)
        self._recent.append((name, state))
        return True

    def _written_again(self) -> Iterator[Notice]:
        """Tell of files that changed after they were read, as those of a writer that uses names again do."""
        for name, (size, written_ns) in list(self._recent):
            try:
                stat = (self._folder / name).stat()
            except OSError:
                continue
            if stat.st_size != size or abs(stat.st_mtime_ns - written_ns) > _LATE_NS:
                self._recent.remove((name, (size, written_ns)))
                yield Notice(f"{name} was written again after it was read; what it holds now is not used", 1)

    @staticmethod
    def _content(movie: Movie, t: int) -> Any:
        # A copy: a mapped file may change or vanish under the analysis.
        return movie.visits(t) if movie.sampled else np.array(movie.frame(t))

    def _hand_over(self, name: str, movie: Movie, frames: list[Any]) -> Iterator[Arrival | Notice]:
        if self._last_name is None:
            self.acquisition, self.valid = movie.acquisition, movie.valid
        elif natural_key(name) < natural_key(self._last_name):
            yield Notice(f"{name} came after {self._last_name}; frames are taken as they come")
        before, now = self.acquisition.pixel_size_um, movie.pixel_size_um
        if now is not None and before is not None and abs(now / before - 1) > 1e-3:
            yield Notice(f"{name} has pixels of {now:g} um, the files before {before:g} um; {before:g} um is used")
        for text in movie.acquisition.sentences:
            yield Notice(f"{name}: {text}")
        known = movie.acquisition
        for t, content in enumerate(frames):
            time_s = None if known.times_s is None else float(known.times_s[t])
            if self._number > self._after:
                yield Arrival(content, movie.shape, self._number, time_s, name)
            self._number += 1
        self._finish(name)
        self._last_name = name

    def _left_out(self, name: str, why: str) -> Notice:
        self._number += 1
        self._finish(name)
        return Notice(f"{name} {why}; left out", 1)

    def _finish(self, name: str) -> None:
        self._done.add(name)
        self._pending.pop(name, None)


def _first_numbers(taken: Sequence[tuple[int, str]]) -> dict[str, int]:
    """File -> number of its first frame, in the order of numbers."""
    found: dict[str, int] = {}
    for number, name in sorted(taken):
        found.setdefault(name, number)
    return found


class _TornFrames:
    """Tells frames whose end was never written, by the zeros at their end, from recordings that end in zeros.

    What a writer leaves out has another length every time; an end of the same length twice is the recording's own.
    """

    def __init__(self) -> None:
        self._usual: int | None = None
        self._suspect: int | None = None
        self.rows_text = ""

    def judge(self, frame: np.ndarray, waited_enough: bool) -> str:
        """``"whole"``; ``"wait"``; then ``"torn"``, or ``"odd"`` where there is nothing to compare it with."""
        n = self._zeros_at_end(frame)
        if n < frame.shape[1]:
            self._usual = 0
            return "whole"
        if n in (self._usual, self._suspect):
            self._usual = n
            return "whole"
        if not waited_enough:
            return "wait"
        rows = n // frame.shape[1]
        self.rows_text = f"{rows} row{'s' if rows > 1 else ''} of zeros (of {frame.shape[0]})"
        if self._usual is None:
            self._usual = n
            return "odd"
        self._suspect = n
        return "torn"

    @staticmethod
    def _zeros_at_end(frame: np.ndarray) -> int:
        if frame[-1, -1] != 0:
            return 0
        flat = frame.reshape(-1)[::-1]
        return int(np.argmax(flat != 0)) if flat.any() else flat.size


__all__ = ["FolderSource"]
