"""A sub-sampled movie from whole frames and a word about where the beam went: a mask, or the level of the rest."""

from __future__ import annotations

import math
import os
from numbers import Real

import numpy as np

from ...errors import InputError
from ..movie import ArrayMovie, Movie, Visits, size_text
from ..over import MovieOver


def mask_movie(
    movie: Movie,
    *,
    visited: str | os.PathLike[str] | np.ndarray | Movie | None = None,
    unvisited: float | None = None,
) -> Movie:
    """The sub-sampled movie that `movie` stores as whole frames. Give one of the two.

    Parameters
    ----------
    movie : whole frames.
    visited : nonzero where the beam went: bool or numbers with two levels, 0 and another, (height, width), or
        (T, height, width) with one mask a frame, or a file of any movie format with these. Its frames are read when
        asked for.
    unvisited : the level that stands for "not visited", NaN too.

    Raises
    ------
    InputError
        The mask's size or number of frames does not fit, it has more than two levels, or the level cannot occur in
        the movie's type. On reading a frame: the data have NaN where the mask says visited.
    """
    if visited is not None and unvisited is not None:
        raise InputError("--visited and --unvisited both say where the beam went; give one of them")
    if movie.sampled:
        raise InputError(f"{movie.name} lists its visits itself; leave out --visited and --unvisited")
    if visited is not None:
        return MaskedMovie(movie, _open_mask(visited))
    if unvisited is None:
        return movie
    return LevelMovie(movie, unvisited)


class MaskedMovie(MovieOver):
    """Visited where a mask is not 0; `mask` has one frame for all, or one for each."""

    def __init__(self, movie: Movie, mask: Movie) -> None:
        if mask.shape != movie.shape:
            raise InputError(
                f"the mask of --visited has {size_text(mask.shape)} pixels, {movie.name} has {size_text(movie.shape)}; "
                "give a mask of the size before --crop"
            )
        if len(mask) not in (1, len(movie)):
            raise InputError(
                f"the mask of --visited has {len(mask)} frames, {movie.name} has {len(movie)} before --frames; "
                "give one mask, or one for each"
            )
        self._mask = mask
        first = self._visited(0)
        if len(mask) == 1 and not first.any():
            raise InputError("the mask of --visited is 0 everywhere; make it nonzero where the beam went")
        super().__init__(movie, *_mask_notes(first, movie._pixels(0)), sampled=True)

    def _visited(self, t: int) -> np.ndarray:
        """(height, width) bool."""
        one = len(self._mask) == 1
        levels = self._mask._pixels(0 if one else t)
        which = "the mask of --visited" if one else f"frame {t} of the mask of --visited"
        if levels.dtype.kind == "f" and not np.isfinite(levels).all():
            raise InputError(f"{which} holds NaN or infinite values; make it 0 and 1")
        inside = levels != 0
        if inside.any() and np.ptp(levels[inside]):
            raise InputError(
                f"{which} has {np.unique(levels).size} levels; a mask has two: 0, and another where the beam went"
            )
        return inside

    def _read_visits(self, t: int) -> Visits:
        where = np.flatnonzero(self._visited(t))
        return Visits(where, self._movie._pixels(t).reshape(-1)[where])


class LevelMovie(MovieOver):
    """Visited where a frame does not hold the level that stands for "not visited"."""

    def __init__(self, movie: Movie, level: float) -> None:
        self._level = _level_as(level, movie)
        first = movie._pixels(0)
        notes = []
        if not self._is_level(first).any():
            notes.append(
                f"No pixel of the first frame has the level {level:g} of --unvisited: all of them count as visited."
            )
        elif level == level:
            notes.append(
                f"Every pixel of level {level:g} counts as not visited (--unvisited). If visited pixels can have that "
                "level too, they are lost and their phase comes out too small: give the mask with --visited."
            )
        super().__init__(movie, *notes, sampled=True)

    def _is_level(self, levels: np.ndarray) -> np.ndarray:
        return np.isnan(levels) if np.isnan(self._level) else levels == self._level

    def _read_visits(self, t: int) -> Visits:
        levels = self._movie._pixels(t).reshape(-1)
        where = np.flatnonzero(~self._is_level(levels))
        return Visits(where, levels[where])


def _open_mask(visited: str | os.PathLike[str] | np.ndarray | Movie) -> Movie:
    from ..registry import _open_source  # which imports this module where it needs it

    if not isinstance(visited, np.ndarray):
        return _open_source(visited, True)  # a mask may be painted in colour
    if visited.dtype.kind not in "buif" or visited.ndim not in (2, 3):
        raise InputError(
            f"the mask visited has shape {visited.shape} and type {visited.dtype}; give 0 and 1 (height, width), or "
            "(time, height, width)"
        )
    return ArrayMovie(visited, name="visited")


def _mask_notes(visited: np.ndarray, levels: np.ndarray) -> tuple[str, ...]:
    """What the first frame shows of how mask and data go together."""
    share, rest = float(visited.mean()), levels[~visited]
    if rest.dtype.kind == "f":
        rest = rest[np.isfinite(rest)]
    notes = []
    if share > 0.5:
        notes.append(f"The mask calls {100 * share:.3g} % of the pixels visited, nonzero meaning so. Is it inverted?")
    if rest.size and np.ptp(rest):
        notes.append(
            f"The mask leaves out {100 * (1 - share):.3g} % of the pixels, whose grey levels differ in the first "
            "frame; these are not looked at."
        )
    return tuple(notes)


def _level_as(level: float, movie: Movie) -> np.generic:
    """`level` in the type of the movie; `InputError` where that has no such level."""
    dtype = movie.dtype
    if not isinstance(level, Real):
        raise InputError(f"unvisited is {level!r}; give the grey level as a number")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(level)
    kind = np.iinfo(dtype)
    if not math.isfinite(level) or level != round(level) or not kind.min <= level <= kind.max:
        raise InputError(
            f"{movie.name} is {dtype}, so no pixel has the level {level:g} of --unvisited; give one between {kind.min} "
            f"and {kind.max}, or a mask with --visited"
        )
    return dtype.type(int(level))
