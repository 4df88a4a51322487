"""The store of a study where disks fail, processes die, power is cut and files are damaged."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from disk import DEATHS, ERRORS, SHORT, Disk, Killed
from scale import cases

from gmrm_gpu import durable
from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.study.store import ASIDE, FOREIGN, PLAN, WHOLE, Store, read_plan

MARK, OTHER = "a" * 64, "b" * 64
PLANNED = {"identity": {"seed": 0, "trend": "linear"}, "shards": 5}
Files = dict[str, bytes]


@dataclass(frozen=True)
class Named:
    name: str


NAMES = ("paper-reference-0.1", "paper-0.1-000000-000003", "paper-0.1-000003-000006", "movie-0.1-000000-000002")
SHARDS = [Named(name) for name in NAMES]


def computed(shard: Named) -> tuple[dict[str, np.ndarray], dict]:
    """What a shard holds is a function of its name."""
    rng = np.random.default_rng(NAMES.index(shard.name))
    arrays = {"volume_share": rng.normal(size=(3, 5)), "status": rng.integers(0, 4, (3, 5)).astype(np.uint8)}
    return arrays, {"method": shard.name.split("-")[0], "device": "numpy", "versions": {"numpy": "2.0"}}


def study(folder: Path) -> list[Named]:
    """What `run_study` does with a store: the shards that were missing."""
    done: list[Named] = []
    failure = attempt(folder, done)
    if failure is not None:
        raise failure
    return done


def attempt(folder: Path, done: list[Named]) -> BaseException | None:
    """The same until something fails, with the shards that were put without an error."""
    store = Store(folder, MARK)
    try:
        if not (folder / PLAN).exists():
            store.write_plan(PLANNED)
        for shard in store.missing(SHARDS):
            store.put(shard, *computed(shard))
            done.append(shard)
    except (OutputError, Killed) as failure:
        return failure
    return None


def files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def make(folder: Path, held: Files) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for name, data in held.items():
        (folder / name).write_bytes(data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disk]:
    """A disk with a fault for the store; without arguments one that has none, and does not take time to flush."""

    def use(*fault: int | str) -> Disk:
        made = Disk(*fault)
        monkeypatch.setattr(durable, "os", made)
        return made

    use()
    return use


@pytest.fixture
def good(tmp_path: Path, disk: Callable[..., Disk]) -> Files:
    """The files of a study that nothing happened to."""
    assert study(tmp_path / "good") == SHARDS
    return files(tmp_path / "good")


@pytest.mark.parametrize("fault", [*ERRORS, *SHORT, *DEATHS])
def test_any_call_to_the_disk_fails(
    tmp_path: Path, disk: Callable[..., Disk], good: Files, fault: str, counted: Callable[[str, int], None]
) -> None:
    """At every call; then the study goes on, and ends with the same bytes."""
    healthy, folder = disk(), tmp_path / "run"
    study(folder)
    for at in range(len(healthy.calls)):
        shutil.rmtree(folder)
        disk(at, fault)
        done: list[Named] = []
        failure = attempt(folder, done)
        if isinstance(failure, OutputError):
            assert fault not in DEATHS
            assert re.fullmatch(r"cannot (write|make) [^\n]+: [A-Z][^\n]+", str(failure))
            assert not list(folder.glob(".*"))
        else:
            assert isinstance(failure, Killed) if fault in DEATHS else fault in SHORT and files(folder) == good
        disk()
        again = study(folder)
        assert not set(again) & set(done)  # what was told to be done stays done
        assert len(SHARDS) - len(done) - len(again) in (0, 1)  # the last may be whole although it failed
        assert files(folder) == good
    counted("n-th write, fsync or rename of the store fails", len(healthy.calls))


# -- damage -----------------------------------------------------------------------------------------------------------


def truncate(held: Files, name: str, rng: random.Random) -> None:
    held[name] = held[name][: rng.randrange(len(held[name]))]


def flip(held: Files, name: str, rng: random.Random) -> None:
    data = bytearray(held[name])
    for bit in rng.sample(range(8 * len(data)), rng.choice((1, 1, 2, 20))):
        data[bit // 8] ^= 1 << bit % 8
    held[name] = bytes(data)


def swap(held: Files, name: str, rng: random.Random) -> None:
    other = rng.choice([n for n in held if n != name and held[n] != held[name]])
    held[name], held[other] = held[other], held[name]


def swap_shards(held: Files, name: str, rng: random.Random) -> None:
    one, other = rng.sample(NAMES, 2)
    for end in (".npz", ".json"):
        held[one + end], held[other + end] = held[other + end], held[one + end]


def empty(held: Files, name: str, rng: random.Random) -> None:
    held[name] = b""


def delete(held: Files, name: str, rng: random.Random) -> None:
    del held[name]


def overwrite(held: Files, name: str, rng: random.Random) -> None:
    """A copy of another file in its place."""
    held[name] = held[rng.choice([n for n in held if n != name])]


def lengthen(held: Files, name: str, rng: random.Random) -> None:
    held[name] += rng.randbytes(rng.randrange(1, 700))


def blank(held: Files, name: str, rng: random.Random) -> None:
    """Zeros in place of a block, as after a crash of the system."""
    start = rng.randrange(len(held[name]))
    stop = min(len(held[name]), start + 512)
    held[name] = held[name][:start] + bytes(stop - start) + held[name][stop:]


def move(held: Files, name: str, rng: random.Random) -> None:
    """Bytes of the middle are missing."""
    start = rng.randrange(len(held[name]) - 1)
    held[name] = held[name][:start] + held[name][start + rng.randrange(1, 9) :]


DAMAGES = [truncate, flip, swap, swap_shards, empty, delete, overwrite, lengthen, blank, move]


def put_foreign(folder: Path, rng: random.Random) -> str:
    """A whole shard of another study, with other numbers."""
    shard = rng.choice(SHARDS)
    arrays, record = computed(shard)
    Store(folder, OTHER).put(shard, {name: array + 1 for name, array in arrays.items()}, record)
    return shard.name


def check(folder: Path, good: Files, touched: set[str]) -> None:
    """Every damaged shard, and no other, is found, told and made again; no wrong number is ever given."""
    bad = {Path(name).stem for name in touched if name != PLAN}
    store = Store(folder, MARK)
    for shard in SHARDS:
        if shard.name in bad:
            assert store.state(shard) != WHOLE
            with pytest.raises(InputError, match=f"shard {shard.name} (in|is not in) "):
                store.get(shard)
        else:
            arrays, expected = store.get(shard)[0], computed(shard)[0]
            assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    if PLAN in touched:
        with pytest.raises(InputError, match=r"plan\.json is"):
            read_plan(folder)
        (folder / PLAN).unlink(missing_ok=True)
    else:
        assert read_plan(folder)["identity"] == PLANNED["identity"]
    half_gone = {name for name in bad if any((folder / f"{name}{end}").exists() for end in (".json", ".npz"))}
    assert {shard.name for shard in store.missing(SHARDS)} == bad
    assert len(store.notes) == len(half_gone)
    assert {shard.name for shard in study(folder)} == bad
    assert files(folder) == good


@pytest.mark.parametrize("kind", [*DAMAGES, put_foreign], ids=lambda kind: kind.__name__)
def test_every_damage_of_a_file_is_found(
    tmp_path: Path, good: Files, kind: Callable, counted: Callable[[str, int], None]
) -> None:
    rng = random.Random(kind.__name__)
    folder, n = tmp_path / "run", cases(200, 2000) // len([*DAMAGES, put_foreign]) + 1
    for _ in range(n):
        held = dict(good)
        if kind is put_foreign:
            make(folder, held)
            name = put_foreign(folder, rng)
            touched = {f"{name}.npz", f"{name}.json"}
            assert Store(folder, MARK).state(Named(name)) == FOREIGN
        else:
            while held == good:  # zeros in place of zeros are no damage
                kind(held, rng.choice(sorted(good)), rng)
            make(folder, held)
            touched = {name for name in good if held.get(name) != good[name]}
        lost = {Path(name).stem for name in touched}
        assert len(lost) <= (2 if kind in (swap, swap_shards) else 1)
        check(folder, good, touched)
        if kind is put_foreign:
            assert (folder / ASIDE / f"{name}.npz").exists()
    counted("damage to the store", n)
