"""How a movie was opened, so that another process can open it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Origin:
    """A path and what `open_movie` was told.

    Attributes
    ----------
    path : absolute. steps : the options of each call, the first of which had the path; those left at None not among
        them. Paths in them are absolute.
    """

    path: str
    steps: tuple[dict[str, Any], ...] = ()


def origin_of(source: Any, options: dict[str, Any]) -> Origin | None:
    """Where ``open_movie(source, **options)`` comes from; None for what lives in memory alone."""
    told = {name: _absolute(name, value) for name, value in options.items() if value is not None and value is not False}
    if isinstance(source, (str, os.PathLike)):
        return Origin(_path(source), (told,))
    before: Origin | None = getattr(source, "origin", None)
    if not isinstance(before, Origin):
        return None
    return Origin(before.path, (*before.steps, told)) if told else before


def _absolute(name: str, value: Any) -> Any:
    """Another process may work in another folder."""
    is_file = name in ("exclude", "visited") and isinstance(value, (str, os.PathLike))
    return _path(value) if is_file else value


def _path(path: str | os.PathLike[str]) -> str:
    return str(Path(path).expanduser().absolute())
