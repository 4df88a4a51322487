"""Check sums of a movie in a file beside it, as `sha256sum` writes and checks them, so that no damage goes unseen.

The manifest of ``movie.tif`` is ``movie.tif.sha256``, that of the folder ``run1`` is ``run1.sha256`` beside it. It
lists every file that the movie is read from (`listing.movie_files`), by names that start where the manifest lies. Where
there is one, `open_movie` reads the movie only if all files are there, none is more, and each has its check sum.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..durable import write_bytes
from ..errors import InputError, OutputError
from .listing import MANIFEST, movie_files

Progress = Callable[[int, int], None]

_LOG = logging.getLogger(__name__)
# One line is a check sum and a name; names are at most 4 KiB, and each byte may be written as two.
_LONGEST_LINE = 16384
_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_BLOCK = 2**20
# Hashing so much takes seconds, which should not pass without a word.
_MUCH = 2 * 10**9
_RENEW = "copy the movie again; if it was changed on purpose, renew the list: gmrm-gpu manifest --overwrite"


def manifest_path(path: str | os.PathLike[str]) -> Path:
    """Where the manifest of a movie lies: beside it, named as it with ``.sha256`` after."""
    path = _absolute(path)
    return path.with_name(path.name + MANIFEST)


def write_manifest(
    path: str | os.PathLike[str], *, overwrite: bool = False, progress: Progress | None = None
) -> tuple[Path, int]:
    """Write the check sums of a movie, a mask or any other file or folder that `open_movie` reads.

    Parameters
    ----------
    overwrite : replace an earlier manifest. progress : called with the bytes done and their number.

    Returns
    -------
    Path of the manifest, and how many files it lists.

    Raises
    ------
    InputError
        There is no such movie, or one of its files cannot be read.
    OutputError
        The manifest exists or cannot be written.
    """
    path = _absolute(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    sidecar = manifest_path(path)
    if os.path.lexists(sidecar) and not overwrite:
        raise OutputError(f"{sidecar} exists; compare with --check, or replace it with --overwrite")
    files = movie_files(path)
    sums = _sums(files, progress)
    write_bytes(sidecar, b"".join(_line(digest, file, sidecar.parent) for file, digest in sums))
    return sidecar, len(files)


def check_manifest(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Path | None:
    """Compare a movie with its manifest; a link is compared with that beside it, and with that of what it leads to.

    Returns
    -------
    Path of the manifest; None where there is none.

    Raises
    ------
    InputError
        A file differs, is missing or is more than the manifest lists, or that is damaged.
    """
    path = _absolute(path)
    checked = None
    for movie in dict.fromkeys((path, path.resolve())):
        sidecar = manifest_path(movie)
        if os.path.lexists(sidecar):
            _check(movie, sidecar, progress)
            checked = checked or sidecar
    return checked


def _absolute(path: str | os.PathLike[str]) -> Path:
    """With a name, also where ``..`` was given; links stay."""
    if not os.fspath(path):  # such as a variable of the shell that is not set; it would be this folder
        raise InputError("the name is empty; give a movie")
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if path.name.lower().endswith(MANIFEST):
        raise InputError(f"{path.name} is a list of check sums itself; give the movie that it is of")
    if not path.name:
        raise InputError(f"{path} is a whole disk; give a movie")
    return path


def _check(movie: Path, sidecar: Path, progress: Progress | None) -> None:
    files = movie_files(movie)
    listed = _read(sidecar, {str(file): file for file in files})
    for file in files:
        if file not in listed:
            raise InputError(f"{_name(file, movie)} is not in {sidecar.name}, which lists {movie.name}; {_RENEW}")
    for file, digest in _sums(files, progress):
        if digest != listed[file]:
            raise InputError(f"{_name(file, movie)} is damaged or changed: not the one of {sidecar.name}; {_RENEW}")


def _sums(files: Sequence[Path], progress: Progress | None) -> Iterator[tuple[Path, bytes]]:
    """(file, SHA-256) of each, in turn."""
    sizes = [file.stat().st_size for file in files]
    done, total = 0, sum(sizes)
    if total > _MUCH:
        _LOG.info("reading %.3g GB for their check sums", total / 1e9)
    for file in files:
        digest = hashlib.sha256()
        try:
            with file.open("rb", buffering=0) as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    done += len(block)
                    if progress:
                        progress(min(done, total), total)
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror or error}); copy the movie again") from None
        yield file, digest.digest()


# ---- the file --------------------------------------------------------------------------------------------------------


def _line(digest: bytes, file: Path, folder: Path) -> bytes:
    """One line of `sha256sum`; a first backslash says that one or a line break in the name is written as an escape."""
    name = os.fsencode(file.relative_to(folder).as_posix())
    escaped = b"".join(_ESCAPES.get(name[i : i + 1], name[i : i + 1]) for i in range(len(name)))
    return (b"\\" if escaped != name else b"") + digest.hex().encode() + b"  " + escaped + b"\n"


def _read(sidecar: Path, files: dict[str, Path]) -> dict[Path, bytes]:
    """The check sums of `files`, by their paths; a name that is none of these is an error, and never opened."""
    if not sidecar.is_file():
        raise InputError(f"{sidecar.name} is no file, so the movie cannot be compared with it; take it away")
    listed: dict[Path, bytes] = {}
    try:
        with sidecar.open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                entry = _entry(line, sidecar)
                if entry is None:
                    continue
                name, digest = entry
                # Only compared as a text: what lies outside of the movie is not looked at.
                file = files.get(os.path.normpath(sidecar.parent / name))
                if file is None:
                    raise InputError(f"{sidecar.name} lists {name}, which is missing or no part of the movie; {_RENEW}")
                if listed.setdefault(file, digest) != digest:
                    raise InputError(f"{sidecar.name} lists {name} twice, with two check sums; {_RENEW}")
    except OSError as error:
        raise InputError(f"{sidecar.name} cannot be read ({error.strerror or error}); check its permissions") from None
    return listed


def _entry(line: bytes, sidecar: Path) -> tuple[str, bytes] | None:
    """(name, check sum) of a line; None for a comment or an empty line."""
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if not text.strip() or text.startswith(b"#"):
        return None
    match = _LINE.fullmatch(text)
    if match is None or b"\0" in text:
        raise InputError(f"{sidecar.name} has a line that is no check sum and name ({text[:40]!r}); {_RENEW}")
    name = match[3]
    if match[1]:
        name = re.sub(rb"\\(.)", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), name)
    return os.fsdecode(name), bytes.fromhex(match[2].decode())


def _name(file: Path, movie: Path) -> str:
    return file.name if file.parent == movie.parent else str(file.relative_to(movie.parent))


__all__ = ["check_manifest", "manifest_path", "write_manifest"]
