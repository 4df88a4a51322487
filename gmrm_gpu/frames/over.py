"""A movie made of another one, of which it keeps all but the contents."""

from __future__ import annotations

from dataclasses import replace

from .movie import Movie


class MovieOver(Movie):
    """Name, size, type, frames, excluded pixels and acquisition of `movie`; subclasses supply what is read.

    Parameters
    ----------
    movie : the one underneath. notes : more to say of the recording. sampled : see `Movie`; None: as `movie`.
    """

    def __init__(self, movie: Movie, *notes: str, sampled: bool | None = None) -> None:
        super().__init__(
            name=movie.name,
            shape=movie.shape,
            dtype=movie.dtype,
            n_frames=len(movie),
            frame_numbers=movie.frame_numbers,
            valid=movie.valid,
            acquisition=replace(movie.acquisition, notes=(*movie.acquisition.notes, *notes)),
            sampled=movie.sampled if sampled is None else sampled,
        )
        self._movie = movie
