"""What the commands share: the movie and the folder of the flags, notes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..backend import probe_gpu
from ..config import AnalysisConfig
from ..errors import ConfigError, printable
from ..frames import Movie, open_movie
from ..study import Executor
from .console import Console


def open_given(args: argparse.Namespace) -> Movie:
    """The movie as the flags want it."""
    return open_movie(
        args.movie,
        frames=getattr(args, "frames", None),
        crop=args.crop,
        exclude=args.exclude,
        luminance=args.luminance,
        clip=args.clip,
        visited=args.visited,
        unvisited=args.unvisited,
        signal=args.signal,
    )


def inputs(args: argparse.Namespace) -> list[str]:
    """The files that the work reads."""
    names = (getattr(args, name, None) for name in ("movie", "exclude", "visited", "truth", "config"))
    return [name for name in names if name is not None]


def stem(movie: str) -> str:
    """The movie's name without folder and suffix, for the name of what is written."""
    path = Path(os.path.expanduser(movie)).resolve()
    name = path.name if path.is_dir() else path.stem
    return "".join(c if printable(c) == c else "_" for c in name)


def out_folder(args: argparse.Namespace, default: str) -> Path:
    """The folder to write."""
    return Path(default if args.out is None else args.out)


def note(console: Console, text: str | None) -> None:
    """Say `text`, if there is one."""
    if text is not None:
        console.note(text)


def note_device(config: AnalysisConfig, console: Console) -> None:
    """Say why it is the CPU where a GPU would have been taken."""
    if config.compute.device.startswith("auto") and not console.quiet:
        usable, reason = probe_gpu()
        if not usable:
            console.note(f"computing on the CPU: {reason}")


@contextmanager
def study_executor(args: argparse.Namespace, console: Console) -> Iterator[Executor | None]:
    """Where a study is computed: the cluster that the flags name, else None: in this process."""
    workers, scheduler = getattr(args, "workers", None), getattr(args, "scheduler", None)
    if workers is None and scheduler is None:
        yield None
        return
    if workers is not None and scheduler is not None:
        raise ConfigError("--workers starts processes here and --scheduler uses those of a cluster; give one of them")
    if workers is not None and not 1 <= workers <= 4096:
        raise ConfigError(f"--workers is {workers}; it must be a whole number from 1 to 4096")
    from ..study.cluster import ClusterExecutor

    with ClusterExecutor(scheduler, n_workers=workers, notify=console.note) as executor:
        yield executor
