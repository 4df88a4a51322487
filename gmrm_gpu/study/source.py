"""How the movie of a study gets to the process that computes a shard: by its path, or as a copy of what it holds.

A path counts only where it leads to a movie with the same digest: on another machine it may be another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..errors import GmrmError, InputError
from ..frames import Movie, Visits, open_movie
from ..frames.origin import Origin
from .identity import movie_digest

BLOCK_BYTES = 2**24
"""Bytes of frames that are sent at once, or one frame where that is larger."""
MOST_HELD = 4
"""Movies that a worker keeps at hand: several studies may share it."""

_held: dict[str, Movie] = {}
_lock = Lock()


class MovieNotHere(InputError):
    """This process cannot get at a movie: its path leads nowhere or to another one, and no copy was sent."""


@dataclass(frozen=True)
class MovieSource:
    """A movie that any process can open that has its file or was sent a copy; it can be pickled.

    Attributes
    ----------
    digest : of what the movie holds, `identity.movie_digest`. origin : None for a movie that is in no file.
    movie : the movie itself, in the process where it was opened.
    """

    digest: str
    origin: Origin | None = field(default=None, compare=False)
    movie: Movie | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, movie: Movie, digest: str) -> MovieSource:
        """The source of an open movie."""
        return cls(digest, movie.origin if _can_be_sent(movie.origin) else None, movie)

    def __reduce__(self) -> tuple[type[MovieSource], tuple[str, Origin | None]]:
        return type(self), (self.digest, self.origin)

    def open(self) -> Movie:
        """The movie.

        Raises
        ------
        MovieNotHere
            With the reason.
        """
        if self.movie is not None:
            return self.movie
        with _lock:
            held = _held.get(self.digest)
        return held or hold(self.digest, self._from_file())

    def _from_file(self) -> Movie:
        if self.origin is None:
            raise MovieNotHere("the movie is in no file")
        movie: Any = self.origin.path
        try:
            for options in self.origin.steps:
                movie = open_movie(movie, **options)
            found = movie_digest(movie)
        except (GmrmError, OSError) as error:
            raise MovieNotHere(str(error)) from None
        if found != self.digest:
            raise MovieNotHere(f"{self.origin.path} is another movie there")
        return movie


def hold(digest: str, movie: Movie) -> Movie:
    """Let `MovieSource.open` give `movie` in this process."""
    with _lock:
        while len(_held) >= MOST_HELD:
            del _held[next(iter(_held))]
        _held[digest] = movie
    return movie


def _can_be_sent(value: Any) -> bool:
    """Whether all that a movie was opened with is text, numbers and arrays: a mask may be an object of a library."""
    if isinstance(value, Origin):
        return all(_can_be_sent(part) for options in value.steps for part in options.values())
    if isinstance(value, (tuple, list)):
        return all(map(_can_be_sent, value))
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return isinstance(value, (str, int, float, slice, np.generic))


@dataclass(frozen=True)
class FrameBlock:
    """Some successive frames as they are sent.

    Attributes
    ----------
    counts : visits of each frame; of whole frames, their pixels. positions : int32, none of whole frames.
    values : grey levels.
    """

    counts: tuple[int, ...]
    positions: np.ndarray
    values: np.ndarray


def outline(movie: Movie) -> dict[str, Any]:
    """All of a movie but its grey levels: what `CopiedMovie` is made with."""
    return {
        "name": movie.name,
        "shape": movie.shape,
        "dtype": movie.dtype,
        "n_frames": len(movie),
        "frame_numbers": movie.frame_numbers,
        "valid": movie.valid,
        "acquisition": movie.acquisition,
        "sampled": movie.sampled,
    }


def frame_blocks(movie: Movie) -> Iterator[FrameBlock]:
    """The frames, or visits, of a movie in their order, about `BLOCK_BYTES` at once."""
    waiting: list[Visits] = []
    n_bytes = 0
    for t in range(len(movie)):
        none = np.zeros(0, np.int32)
        seen = movie.visits(t) if movie.sampled else Visits(none, movie.frame(t).reshape(-1))
        if waiting and n_bytes + seen.positions.nbytes + seen.values.nbytes > BLOCK_BYTES:
            yield _joined(waiting)
            waiting, n_bytes = [], 0
        waiting.append(seen)
        n_bytes += seen.positions.nbytes + seen.values.nbytes
    yield _joined(waiting)


def _joined(frames: list[Visits]) -> FrameBlock:
    positions, values = (np.concatenate([getattr(f, name) for f in frames]) for name in ("positions", "values"))
    return FrameBlock(tuple(len(f.values) for f in frames), positions, values)


class CopiedMovie(Movie):
    """A movie that was sent here: its grey levels lie in two files in `folder`, which its owner removes."""

    def __init__(self, folder: Path, **about: Any) -> None:
        super().__init__(**about)
        self._files = folder / "positions", folder / "values"
        self._edges = [0]

    def add(self, block: FrameBlock) -> None:
        """Append frames; to be called in their order."""
        for path, array in zip(self._files, (block.positions, block.values), strict=True):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(array).data)
        for count in block.counts:
            self._edges.append(self._edges[-1] + count)

    def _part(self, which: int, dtype: np.dtype, t: int) -> np.ndarray:
        begin, end = self._edges[t : t + 2]
        return np.fromfile(self._files[which], dtype, end - begin, offset=begin * dtype.itemsize)

    def _read(self, t: int) -> np.ndarray:
        return self._part(1, self.dtype, t).reshape(self.shape)

    def _read_visits(self, t: int) -> Visits:
        return Visits(self._part(0, np.dtype(np.int32), t), self._part(1, self.dtype, t))
