"""The shards of a study on disk: nothing is taken for good that is not, bit by bit, what was written.

A store is a folder: ``plan.json`` (what is studied, and how it is cut), and for every shard that is done ``NAME.npz``
(its arrays) and ``NAME.json`` (its record: fingerprint of the study, sha256 and size of the arrays, and what computed
them). The record is written last, so that a shard without one is not done. The same content gives the same bytes.

>>> from gmrm_gpu.study.store import Store
>>> store = Store("run1.part/shards", fingerprint)  # doctest: +SKIP
>>> for shard in store.missing(shards):  # doctest: +SKIP
...     store.put(shard, *compute(shard))
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from ..durable import PART, sync_folder, write_bytes
from ..errors import InputError, OutputError
from .npz import pack_npz, unpack_npz

FORMAT, VERSION = "gmrm-gpu shard", 1
PLAN_FORMAT = "gmrm-gpu study plan"
PLAN = "plan.json"
ASIDE = "set-aside"
"""Folder within the store for shards of another study."""

WHOLE, ABSENT, FOREIGN = "whole", "absent", "of a study with other settings or another movie"
# A record is a page of text; whatever is longer is none.
_LONGEST = 1 << 20
_SHOWN = 60
# First replicate and end in the name of a shard.
_RANGE = re.compile(r"(.+-\d{6,})-(\d{6,})")


class Named(Protocol):
    """What the store needs of a shard: its name, which is that of its files."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=Named)


class Damaged(Exception):
    """A file of the store is not what was written; the text says how it shows."""


class DamagedPlan(InputError):
    """``plan.json`` is damaged; the shards, which tell the study that they are of, may be whole."""


class Store:
    """Finished shards of one study.

    Parameters
    ----------
    folder : of the store; made when the first file is written.
    fingerprint : of the settings and the movie; a shard with another one is never used.

    Attributes
    ----------
    notes : what `missing` found wrong and did about it, one sentence each.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint
        self.notes: list[str] = []

    def put(self, shard: Named, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Keep a shard: once this returns, neither a crash nor a power cut loses it.

        Parameters
        ----------
        arrays : its result, of numbers or text. record : JSON about it, no times; the names of the store's own
            entries (format, version, shard, fingerprint, sha256, size) are written over.

        Raises
        ------
        OutputError
            The disk is full, or gone; the shard counts as missing then.
        """
        data = pack_npz(arrays)
        about = dict(record) | {"format": FORMAT, "version": VERSION, "shard": shard.name}
        about |= {"fingerprint": self.fingerprint, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        sealed = _sealed(about)
        _make_folder(self.folder)
        write_bytes(self._path(shard, "npz"), data)
        write_bytes(self._path(shard, "json"), sealed)

    def get(self, shard: Named) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays and the record of a shard, both checked.

        Raises
        ------
        InputError
            It is missing, damaged or of another study, or it cannot be read.
        """
        try:
            record, data = self._read(shard)
            return unpack_npz(data), record
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"shard {shard.name} is not in {self.folder}; go on with --resume") from None
        except (Damaged, ValueError) as error:
            raise InputError(f"shard {shard.name} in {self.folder} is {error}; go on with --resume") from None

    def state(self, shard: Named) -> str:
        """`WHOLE`, `ABSENT`, `FOREIGN`, or how the shard is damaged; nothing is changed.

        Raises
        ------
        InputError
            A file is there but may not be read.
        """
        try:
            self._read(shard)
        except FileNotFoundError:
            return ABSENT
        except Damaged as error:
            return str(error)
        return WHOLE

    def missing(self, shards: Iterable[S]) -> list[S]:
        """The shards that are to be computed, in the order given.

        What was left half-written is deleted, so is every damaged shard; one of another study is moved into
        `ASIDE`. `notes` tells each. Only for the program that holds the claim on the study.

        Raises
        ------
        InputError
            A file is there but may not be read.
        OutputError
            A file is in the way and cannot be removed.
        """
        self._clear_parts()
        out = []
        for shard in shards:
            found = self.state(shard)
            if found != WHOLE:
                out.append(shard)
            if found == FOREIGN:
                self._set_aside(shard)
            elif found not in (WHOLE, ABSENT):
                self._delete(shard, found)
        return out

    def drop_outgrown(self, shards: Iterable[Named]) -> None:
        """Remove what one of `shards` holds more of, such as the last shard of a study that was extended.

        What is of no shard because there are fewer replicates or other rates now may be hours of work: it stays for a
        study that wants it again, and `notes` tells.
        """
        names = {shard.name for shard in shards} | {Path(PLAN).stem}
        ends = {found[1]: int(found[2]) for found in map(_RANGE.fullmatch, names) if found}
        unused = set()
        for path in sorted((*self.folder.glob("*.json"), *self.folder.glob("*.npz"))):
            found = _RANGE.fullmatch(path.stem)
            if found and int(found[2]) < ends.get(found[1], 0):
                _remove(path)
            elif path.stem not in names:
                unused.add(path.stem)
        if unused:
            self.notes.append(
                f"shards for more replicates or other rates stay in {self.folder.name}/, unused: {len(unused)}"
            )

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write ``plan.json``: JSON about the whole study.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        _make_folder(self.folder)
        about = dict(plan) | {"format": PLAN_FORMAT, "version": VERSION, "fingerprint": self.fingerprint}
        write_bytes(self.folder / PLAN, _sealed(about))

    def _path(self, shard: Named, ending: str) -> Path:
        return self.folder / f"{shard.name}.{ending}"

    def _read(self, shard: Named) -> tuple[dict[str, Any], bytes]:
        """Record and bytes of a whole shard; `Damaged`, or FileNotFoundError where it has neither."""
        held = self._path(shard, "npz")
        try:
            record = _unsealed(_content(self._path(shard, "json"), _LONGEST))
        except FileNotFoundError:
            if os.path.lexists(held):
                raise Damaged("half-written (it has no record)") from None
            raise
        if (record.get("format"), record.get("version")) != (FORMAT, VERSION):
            raise Damaged("of another version of gmrm-gpu")
        if record.get("shard") != shard.name:
            raise Damaged(f"recorded as shard {str(record.get('shard'))[:_SHOWN]}")
        if record.get("fingerprint") != self.fingerprint:
            raise Damaged(FOREIGN)
        try:
            data = _content(held)
        except FileNotFoundError:
            raise Damaged("without its arrays") from None
        if len(data) != record.get("size"):
            raise Damaged(f"damaged (its arrays take {len(data)} bytes, {record.get('size')} were written)")
        if hashlib.sha256(data).hexdigest() != record.get("sha256"):
            raise Damaged("damaged (the check sum of its arrays is wrong)")
        return record, data

    def _clear_parts(self) -> None:
        """Remove what a killed program has left of files it was writing."""
        for path in self.folder.glob(f".*{PART}"):
            _remove(path)

    def _delete(self, shard: Named, found: str) -> None:
        # The record first: arrays without one count for nothing, should this end half-way.
        for ending in ("json", "npz"):
            _remove(self._path(shard, ending))
        self.notes.append(f"shard {shard.name} was {found}; it is computed again")

    def _set_aside(self, shard: Named) -> None:
        aside = self.folder / ASIDE
        _make_folder(aside)
        try:
            for path in (self._path(shard, "json"), self._path(shard, "npz")):
                if path.exists():
                    os.replace(path, aside / path.name)
        except OSError as error:
            raise OutputError(f"cannot move {shard.name} into {aside}: {error.strerror or error}") from None
        self.notes.append(f"shard {shard.name} was {FOREIGN}; it is in {ASIDE}/ now, and computed again")


def read_plan(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The plan that `Store.write_plan` wrote, with format, version and fingerprint.

    Raises
    ------
    DamagedPlan
        It is not as it was written.
    InputError
        There is none, or it is of another version.
    """
    path = Path(folder) / PLAN
    try:
        plan = _unsealed(_content(path))
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give the folder of a study") from None
    except Damaged as error:
        raise DamagedPlan(f"{path} is {error}; study with the same settings and --resume mends it") from None
    if (plan.get("format"), plan.get("version")) != (PLAN_FORMAT, VERSION):
        raise InputError(f"{path} is of another version of gmrm-gpu; begin again with --overwrite")
    return plan


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What has changed between two identities of a study, one plain sentence each.

    >>> differences({"mixture": {"trend": "linear"}}, {"mixture": {"trend": "none"}})
    ["mixture.trend was 'linear', is 'none'"]
    """
    one, other = (json.loads(json.dumps(side)) for side in (old, new))  # a list is a tuple
    return [_sentence(*found) for found in _differing(one, other, ())]


_NOTHING = object()


def _differing(old: Any, new: Any, at: tuple[str, ...]) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differing(old.get(key, _NOTHING), new.get(key, _NOTHING), (*at, key))
    elif old is _NOTHING or new is _NOTHING or json.dumps(old) != json.dumps(new):
        yield ".".join(at), old, new


def _sentence(name: str, old: Any, new: Any) -> str:
    if old is _NOTHING:
        return f"{name} was not set, is {_shown(new)}"
    if new is _NOTHING:
        return f"{name} was {_shown(old)}, is not set"
    if all(isinstance(side, str) and len(side) == 64 for side in (old, new)):  # two check sums tell nothing
        return f"{name} is another one"
    return f"{name} was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# A sealed file is JSON with a check sum of the rest, and no byte of it may differ from what the content makes.


def _sealed(about: Mapping[str, Any]) -> bytes:
    content = {key: value for key, value in about.items() if key != "check"}
    content = json.loads(json.dumps(content, allow_nan=False))  # keys that are numbers sort as the text they become
    check = hashlib.sha256(_text(content)).hexdigest()
    return _text(content | {"check": check})


def _unsealed(data: bytes) -> dict[str, Any]:
    try:
        about = json.loads(data)
        if isinstance(about, dict) and _sealed(about) == data:
            return {key: value for key, value in about.items() if key != "check"}
    except (ValueError, RecursionError, TypeError):
        pass
    raise Damaged("damaged (its record is not as it was written)")


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _content(path: Path, most: int | None = None) -> bytes:
    """The bytes of a file, of at most so many; a sector that cannot be read is damage."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise Damaged("no file")
        if most is not None and about.st_size > most:
            raise Damaged(f"damaged ({path.name} is far too long)")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.EIO:
            raise Damaged("damaged (the disk cannot read it)") from None
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; its rights, or the disk, may be why"
        ) from None


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror or error}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}, which is of no use: {error.strerror or error}") from None


__all__ = ["ABSENT", "FOREIGN", "WHOLE", "DamagedPlan", "Named", "Store", "differences", "read_plan"]
