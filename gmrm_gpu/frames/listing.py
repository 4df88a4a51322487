"""Which files a movie is read from: those of a folder, and those beside a file that belong to it.

All of them must be regular files, or links to one: a name that is anything else (a link that leads nowhere, a pipe, a
device) would be a frame that is silently missing, or a reader that waits for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..errors import InputError, printable

MANIFEST = ".sha256"
"""Suffix of the list of check sums of a movie."""
_BESIDE = ("_scan_coordinates.csv", "_info.txt")
_DIRECT_ELECTRON = re.compile(r"\d{8}_\d+_")
_TVIPS = re.compile(r"(.+_)\d{3}\.tvips", re.IGNORECASE)
_STACK = "_MMStack"


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key that sorts names naturally: frame2 before frame10."""
    return [_natural(part) for part in re.split(r"(\d+)", name.lower())], name


def files_of(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files of a folder with one of these suffixes (small letters), in natural order. Hidden ones are left out.

    Raises
    ------
    InputError
        One of these names is no file.
    """
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return regular(sorted(found, key=lambda path: natural_key(path.name)))


def regular(paths: Iterable[Path]) -> list[Path]:
    """`paths`, all of which are regular files or links to one; else `InputError`."""
    checked = list(paths)
    for path in checked:
        if not path.is_file():
            raise InputError(f"{path.name} in {path.parent.name or path.parent} is {_kind(path)}; give a complete copy")
    return checked


def movie_files(path: Path) -> list[Path]:
    """Every file that the movie `path` is read from: all of a folder but hidden ones and manifests, else those beside.

    Raises
    ------
    InputError
        One of them is no regular file, or the folder holds none.
    """
    if not path.is_dir():
        return regular([path, *beside(path)])
    found = sorted(_walk(path))
    if not found:
        raise InputError(f"the folder {path} holds no files; give one that does")
    return regular(found)


def beside(path: Path) -> list[Path]:
    """The files beside `path`, in order, that its reader opens too."""
    suffix = path.suffix.lower()
    names: Iterable[str] = ()
    if suffix == ".tvips" and (match := _TVIPS.fullmatch(path.name)):
        start = match[1]
        names = (n for n in _names(path) if (m := _TVIPS.fullmatch(n)) and m[1] == start)
    elif suffix == ".ser":
        about = path.stem.rpartition("_")[0] + ".emi"
        names = (n for n in _names(path) if n == about)
    elif suffix == ".emi":
        names = (n for n in _names(path) if n.startswith(f"{path.stem}_") and n.lower().endswith(".ser"))
    elif suffix == ".mrc":
        names = (n for n in _names(path) if _belongs(n, path))
    elif suffix in (".tif", ".tiff") and _STACK in path.name:
        start = path.name.partition(_STACK)[0] + _STACK
        names = (n for n in _names(path) if n.startswith(start) and n.lower().endswith((".tif", ".tiff")))
    elif suffix in (".tif", ".tiff", ".btf"):
        from .tiff import names_of_parts

        names = names_of_parts(path)
    return [path.with_name(name) for name in sorted(names) if name != path.name]


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path.parent)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be read ({error.strerror or error}); check its permissions") from None


def _belongs(name: str, path: Path) -> bool:
    """Whether a list of positions or an info file is that of the .mrc file `path`, by either way of naming them."""
    start = next((name.removesuffix(end) for end in _BESIDE if name.endswith(end)), None)
    if start is None:
        return False
    same = _DIRECT_ELECTRON.match(path.name)
    return path.stem == start or path.stem.startswith(f"{start}_") or (same is not None and name.startswith(same[0]))


def _walk(folder: Path) -> Iterator[Path]:
    """All that is in a folder and its folders; links to folders are not followed, for they may lead in a circle."""
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name.lower().endswith(MANIFEST):
            continue
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
        else:
            yield path


def _kind(path: Path) -> str:
    """What `path` is, if no regular file."""
    if path.is_symlink():
        return f"a link to {printable(os.readlink(path))}, which is no file"
    return "a folder" if path.is_dir() else "no file (a pipe, a device)" if path.exists() else "not there"


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
