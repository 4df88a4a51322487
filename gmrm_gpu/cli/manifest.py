"""`gmrm-gpu manifest`: check sums of a movie, with which every damage to it is found."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import ConfigError, GmrmError, InputError, printable
from ..frames import open_movie
from ..frames.listing import movie_files
from ..frames.manifest import check_manifest, manifest_path, write_manifest
from . import console as say
from .console import Console


def run_manifest(args: argparse.Namespace, console: Console) -> None:
    """Write or compare the check sums of each movie."""
    if args.check and args.overwrite:
        raise ConfigError("--check changes nothing; leave out --overwrite, or --check")
    for name in args.movies:
        with console.progress("reading", "B") as progress:
            if args.check:
                if check_manifest(name, progress=progress) is None:
                    raise InputError(f"{manifest_path(name)} does not exist; write it with gmrm-gpu manifest {name}")
                n_files = len(movie_files(Path(os.path.expanduser(name))))
                print(f"as listed: {say.count(n_files, 'file')} of {printable(name)}")
                continue
            sidecar, n_files = write_manifest(name, overwrite=args.overwrite, progress=progress)
        print(f"written: {printable(sidecar)} ({say.count(n_files, 'file')})")
        _try(name, console)


def _try(name: str, console: Console) -> None:
    """Whether it opens at all: check sums of a file that is damaged already keep the damage."""
    try:
        open_movie(name, luminance=True)
    except GmrmError as error:
        console.note(f"{name} is listed but does not open as it is: {error}")
