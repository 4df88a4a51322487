"""Where the frames of a live analysis come from: a watched folder, a socket, a movie, a simulation."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError
from ...frames import open_movie
from .arrival import Arrival, Notice, Source
from .folder import FolderSource
from .order import Orderly, Place
from .playback import PlaybackSource
from .simulation import SimulationSource
from .zeromq import PORT, ZeroMQSource

SIMULATION = "simulation"
_ABOUT = {
    "--size": (("simulation",), "the simulation"),
    "--new-only": (("folder",), "a watched folder"),
    "--simulate": (("file", "simulation"), "movie files and the simulation, which are played"),
}
"""Kinds of source that an option goes with, and how they are called; other options are about reading files."""


def open_source(
    text: str | os.PathLike[str],
    *,
    fps: float | None = None,
    reading: dict[str, Any] | None = None,
    new_only: bool = False,
    skip: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    seed: int = 0,
    taken: Sequence[tuple[int, str]] = (),
    after: int | None = None,
) -> Source:
    """The source that `text` means.

    Parameters
    ----------
    text : a folder; ``"zmq"``, ``"zmq:5600"`` or ``"zmq:tcp://127.0.0.1:5600"``, where senders connect to;
        ``"zmq-sub:tcp://microscope:5599"``, a publisher; a movie file; or ``"simulation"``.
    fps : frames per second of a movie (None: as fast as it is analysed) or of the simulation (None: 25).
    reading : options of `open_movie` for files. new_only : of a folder, leave out what is there already;
        skip : files of these names.
    size, seed : of the simulation. taken : number and file of the frames that an earlier run has read from a folder.
    after : number of the last frame that is not wanted again, where it can replay.

    Raises
    ------
    InputError, ConfigError, MissingDependencyError
        There is no such source, or an option does not go with it.
    """
    text, path = os.fspath(text), Path(text).expanduser()
    kind = _kind(text, path)
    _check_options(kind, {"--size": size, "--new-only": new_only, "--simulate": fps}, reading or {})
    if kind == "simulation":
        return SimulationSource((256, 256) if size is None else (size[0], size[1]), fps or 25.0, seed=seed, after=after)
    if kind == "socket":
        return _socket(text)
    if kind == "folder":
        return FolderSource(
            path, reading=_folder_options(reading or {}), new_only=new_only, skip=skip, taken=taken, after=after
        )
    if not path.exists():
        raise InputError(f"{text} does not exist; give a folder, a movie file, zmq, or simulation")
    return PlaybackSource(open_movie(path, **(reading or {})), fps, after=after)


def _kind(text: str, path: Path) -> str:
    if text == SIMULATION:
        return "simulation"
    if text == "zmq" or text.startswith(("zmq:", "zmq-sub:")):
        return "socket"
    return "folder" if path.is_dir() else "file"


def _check_options(kind: str, options: dict[str, Any], reading: dict[str, Any]) -> None:
    """Refuse an option that means nothing to this kind of source."""
    read = {f"--{name.replace('_', '-')}": value for name, value in reading.items()}
    for name, value in {**options, **read}.items():
        kinds, what = _ABOUT.get(name, (("file", "folder"), "reading files"))
        if value not in (None, False) and kind not in kinds:
            raise ConfigError(f"{name} is about {what}; leave it out here")


def _folder_options(reading: dict[str, Any]) -> dict[str, Any]:
    if reading.get("frames") is not None:
        raise ConfigError("--frames A:B is about a movie file; for a folder give the number of frames to stop after")
    return {name: value for name, value in reading.items() if name != "frames"}


def _socket(text: str) -> ZeroMQSource:
    kind, _, address = text.partition(":")
    if kind == "zmq-sub":
        return ZeroMQSource(address, subscribe=True)
    if re.fullmatch(r"\d*", address):
        return ZeroMQSource(f"tcp://127.0.0.1:{address or PORT}")
    return ZeroMQSource(address)


__all__ = ["SIMULATION", "Arrival", "Notice", "Orderly", "Place", "Source", "open_source"]
