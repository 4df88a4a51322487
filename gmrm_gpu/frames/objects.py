"""Movies from other programs' objects, known by what they offer and not by their package."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .movie import Movie


def movie_of_object(source: Any, *, luminance: bool = False) -> Movie:
    """The movie that `source` holds.

    Raises
    ------
    InputError
        It holds none.
    """
    raise InputError(f"{type(source).__name__} is not a movie; give a path, a NumPy array or a movie")
