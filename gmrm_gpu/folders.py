"""Result folders: complete or not there at all, or, of a study, in a folder PATH.part until they are complete.

>>> from gmrm_gpu.folders import new_folder
>>> with new_folder("run1") as folder:  # doctest: +SKIP
...     (folder / "analysis.json").write_text("{}")
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .claim import LOCK, claim
from .durable import sync_folder, sync_tree
from .errors import ConfigError, InputError, OutputError

MARKERS = ("analysis.json", "study.json", "fit.json", "simulation.json", "selection.json", "plan.json", "bench.json")
"""Every output folder holds one of these; it says what made it."""

FILES = (
    *MARKERS,
    *("growth.csv", "fits.csv", "labels.tif", "report.html", "fit.png", "fit.svg"),
    *("alarms.csv", "notices.txt"),
    *("replicates.npz", "curves.csv", "table1.csv", "examples.npz"),
    *("study_movie.json", "replicates_movie.npz", "curves_movie.csv", "examples_movie.npz"),
    *("selection.csv", "selection.png", "selection.svg"),
    *("plan.csv", "plan.png", "plan.svg"),
    *("bench.png", "bench.svg"),
    *(f"{name}{end}" for name in ("movie.npy", "movie.tif", "truth.npy", "truth.tif") for end in ("", ".sha256")),
)
"""Fixed names of the files that the commands write."""

SHARDS = "shards"
"""Folder of a study that keeps what is done of it."""
_COPY = "shards.copy"
UNFINISHED = ".part"
"""Ending of the folder of an unfinished study."""

_HARMLESS = (".DS_Store", "Thumbs.db", "desktop.ini")


@contextmanager
def new_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success and is removed on any failure.

    Parameters
    ----------
    path : the folder to make; missing parents are made too.
    overwrite : replace an earlier output folder of this package, or an empty one, once the new one is complete.
    inputs : files that the work reads; `path` may hold none of them, or overwriting would delete it.

    Raises
    ------
    OutputError
        `path` exists and may not be replaced, or cannot be made.
    """
    check_new_folder(path, overwrite=overwrite, inputs=inputs)
    given = Path(path).expanduser()
    target = given.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    part = make_part(given, target)
    try:
        yield part
        _flush(part, given)
        _publish(part, given, target, overwrite)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


@contextmanager
def resumable_folder(
    path: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """Yield the folder PATH.part that becomes `path` on success, and stays after a failure or a kill with its shards.

    Parameters
    ----------
    path, inputs : see `new_folder`.
    resume : go on with what PATH.part or a finished study in `path` holds; where there is neither, begin.
    overwrite : begin afresh; PATH.part is emptied, and `path` replaced once the new study is complete.

    Raises
    ------
    OutputError
        As `new_folder`; or PATH.part is there and neither flag is given, or another program works in it.
    """
    if resume and overwrite:
        raise ConfigError("--resume goes on with a study and --overwrite begins it afresh; give one of them")
    given = Path(path).expanduser()
    target = given.resolve()
    part = target.with_name(target.name + UNFINISHED)
    _check_resumable(given, target, part, resume, overwrite, list(inputs))
    made = [folder for folder in (part, *part.parents) if not folder.exists()]
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {part}: {error.strerror or error}") from None
    with claim(part):  # one program at a time
        before: set[tuple[str, int, int]] = set()
        copied = False
        try:
            # What appears meanwhile under that name is nobody's to replace.
            replace = overwrite or (resume and os.path.lexists(target))
            copied = _prepare(part, target, resume)
            before = _shard_files(part)
            yield part
            _flush(part, given)  # here: who claims the folder now, or asks who works on it, must not find nobody
        except BaseException as error:
            _leave(part, made, error, before, copied)
            raise
    try:
        _publish(part, given, target, replace)
    except OutputError as error:
        if part.exists():
            _leave(part, made, error, set(), False)
        raise
    _remove_replaced(target)


def _remove_replaced(target: Path) -> None:
    """Remove earlier results that a run was killed over while it replaced them; those of `NAME.b` are another's."""
    name = re.compile(rf"\.{re.escape(target.name)}\.\d+\.old")
    for path in target.parent.iterdir():
        if name.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _leave(part: Path, made: list[Path], error: BaseException, before: set[tuple[str, int, int]], copied: bool) -> None:
    """After a failure: keep shards that are done, and say so; a folder without any, or of copies only, goes.

    before : the files that held the shards when the work began. copied : whether a finished study holds them too.
    """
    n_shards, grown = count_shards(part), not _shard_files(part) <= before
    if n_shards and (grown or not copied):
        if grown or not isinstance(error, InputError | ConfigError):  # refused, the same command would be again
            held = "1 finished shard is" if n_shards == 1 else f"{n_shards} finished shards are"
            error.add_note(f"{held} in {part.name}; the same command with --resume goes on")
        return
    shutil.rmtree(part, ignore_errors=True)
    for folder in made[1:]:
        with suppress(OSError):
            folder.rmdir()


def _check_resumable(
    given: Path, target: Path, part: Path, resume: bool, overwrite: bool, inputs: list[str | os.PathLike[str]]
) -> None:
    held = [Path(name).expanduser().resolve() for name in inputs]
    has_shards = (target / SHARDS).is_dir()
    if has_shards and not (resume or overwrite):
        raise OutputError(
            f"{given} exists; choose another --out, replace it with --overwrite, or add what it lacks with --resume"
        )
    if resume and os.path.lexists(target) and not has_shards:
        raise OutputError(
            f"{given} holds no shards to go on from; choose another --out, or replace it with --overwrite"
        )
    _check_target(given, target, overwrite or resume, held)
    if os.path.lexists(part):
        if not (resume or overwrite):
            raise OutputError(
                f"{part.name} is an unfinished study; go on with --resume, or begin afresh with --overwrite"
            )
        _check_target(given.with_name(part.name), part, True, held)


def _prepare(part: Path, target: Path, resume: bool) -> bool:
    """Leave nothing in PATH.part but the shards that are to be used; whether they are copies of a finished study's."""
    for entry in list(part.iterdir()):
        if entry.name == LOCK or (resume and entry.name == SHARDS):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not resume or (part / SHARDS).exists() or not (target / SHARDS).is_dir():
        return False
    # All of them or none: whoever goes on after a kill would compute again what is missing here.
    shutil.copytree(target / SHARDS, part / _COPY)
    (part / _COPY).rename(part / SHARDS)
    return True


def _shard_files(folder: Path) -> set[tuple[str, int, int]]:
    """What tells a file of a shard from one written later under its name."""
    found = [(path.name, path.stat()) for path in (folder / SHARDS).glob("*.npz")]
    return {(name, about.st_ino, about.st_mtime_ns) for name, about in found}


def count_shards(folder: Path) -> int:
    """How many shards a study's folder holds, whole or not."""
    names = {path.stem for path in (folder / SHARDS).glob("*.npz")}
    return sum((folder / SHARDS / f"{name}.json").exists() for name in names)


def check_new_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Raise `OutputError` now, before hours of work, where `new_folder` would refuse `path`."""
    given = Path(path).expanduser()
    _check_target(given, given.resolve(), overwrite, [Path(name).expanduser().resolve() for name in inputs])


def _check_target(given: Path, target: Path, overwrite: bool, inputs: list[Path]) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{given} is a file; give --out a folder that does not exist yet")
    if not overwrite:
        raise OutputError(f"{given} exists; choose another --out, or replace it with --overwrite")
    if target == Path.cwd() or target in Path.cwd().parents or target.is_mount():
        raise OutputError(f"{given} is the current folder, above it, or a drive; give --out a folder inside it")
    for name in inputs:
        if target == name or target in name.parents:
            raise OutputError(f"{given} holds the input {name.name}, which would be lost; choose another --out")
    foreign = _foreign(target)
    if foreign is not None:
        raise OutputError(f"{given} {foreign}, so it is not replaced; choose another --out")


def _foreign(folder: Path) -> str | None:
    """What makes `folder` no output folder of this package; None for one of ours and for an empty one."""
    names = {entry.name for entry in folder.iterdir()} - set(_HARMLESS)
    known = {*FILES, "figures", SHARDS, _COPY, LOCK}
    for name in sorted(names - known):
        return f"holds {name}, which gmrm-gpu did not write"
    for entry in sorted(folder.glob("figures/*")):
        if entry.is_dir() or entry.suffix not in (".png", ".svg"):
            return f"holds figures/{entry.name}, which gmrm-gpu did not write"
    for entry in sorted(folder.glob(f"{SHARDS}/*")):
        if entry.suffix not in (".npz", ".json", UNFINISHED) and not entry.is_dir():
            return f"holds {SHARDS}/{entry.name}, which gmrm-gpu did not write"
    if names - {LOCK} and names.isdisjoint({*MARKERS, SHARDS, _COPY}):
        return f"holds none of {', '.join(MARKERS)}"
    return None


def make_part(given: Path, target: Path) -> Path:
    """A new hidden folder beside `target`, which is `given` as the user wrote it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            part = target.with_name(f".{target.name}.{os.getpid()}-{number}.part")
            with suppress(FileExistsError):
                part.mkdir()
                return part
    except OSError as error:
        raise OutputError(f"cannot make {given}: {error.strerror or error}") from None
    raise AssertionError("unreachable")


def _flush(part: Path, given: Path) -> None:
    """Make a finished folder last before it takes its name."""
    try:
        sync_tree(part)
    except OSError as error:
        raise OutputError(f"cannot write {given}: {error.strerror or error}") from None


def _publish(part: Path, given: Path, target: Path, overwrite: bool) -> None:
    """Give the finished folder its name; the old one goes only then."""
    if os.path.lexists(target) and not overwrite:
        # It appeared while the work ran: neither that folder nor this work may be lost.
        names = (target.with_name(f"{target.name}-{n}") for n in itertools.count(2))
        free = next(name for name in names if not os.path.lexists(name))
        part.rename(free)
        raise OutputError(f"{given} appeared meanwhile, so the results are in {free.name} beside it")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if os.path.lexists(target):
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot replace {given}: {error.strerror or error}") from None
    shutil.rmtree(old, ignore_errors=True)
