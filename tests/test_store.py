"""The store of a study's shards: what goes in comes out, and what is not whole is told and computed again."""

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import Disk

from gmrm_gpu import durable
from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.study import store as stores
from gmrm_gpu.study.npz import pack_npz, unpack_npz
from gmrm_gpu.study.store import ABSENT, FOREIGN, WHOLE, Store, differences, read_plan

MARK, OTHER = "a" * 64, "b" * 64


@dataclass(frozen=True)
class Named:
    name: str


A, B, C = Named("movie-reference"), Named("movie-0.01-000000-000085"), Named("paper-0.1-000000-000002")
ARRAYS = {
    "share": np.linspace(0, 1, 6).reshape(2, 3),
    "status": np.zeros((2, 3), np.uint8),
    "names": np.array(["Li", "véry"]),
    "flag": np.array(True),
    "nothing": np.zeros((0, 4), np.int64),
    "turned": np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
    "strange": np.array([np.nan, -0.0, np.inf]),
}
RECORD = {"method": "movie", "rate": 0.01, "start": 0, "stop": 85, "versions": {"numpy": "2"}, "gpu": None}


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the seconds that it takes: what is flushed when is for `test_durable`."""
    monkeypatch.setattr(durable, "os", Disk())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "run1.part" / "shards", MARK)
    made.put(A, ARRAYS, RECORD)
    made.put(B, {"x": np.arange(3)}, {})
    return made


def bits(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in sorted(arrays.items())}


def test_what_is_put_comes_back_bit_by_bit(store: Store) -> None:
    arrays, record = store.get(A)
    assert bits(arrays) == bits(ARRAYS)
    assert all(array.flags.writeable for array in arrays.values())
    assert record.items() >= RECORD.items()
    assert (record["shard"], record["fingerprint"]) == (A.name, MARK)
    assert [store.state(shard) for shard in (A, B, C)] == [WHOLE, WHOLE, ABSENT]
    assert store.missing([C, A, B]) == [C]
    assert store.notes == []


def test_any_program_reads_the_arrays(store: Store) -> None:
    with np.load(store.folder / f"{A.name}.npz", allow_pickle=False) as file:
        assert bits(dict(file)) == bits(ARRAYS)


def test_the_same_content_is_the_same_bytes(store: Store, tmp_path: Path) -> None:
    again = Store(tmp_path / "again", MARK)
    again.put(A, dict(reversed(ARRAYS.items())), dict(reversed(RECORD.items())))
    for path in again.folder.iterdir():
        assert path.read_bytes() == (store.folder / path.name).read_bytes()
    put_again = {path: path.read_bytes() for path in store.folder.iterdir()}
    store.put(A, *store.get(A))
    assert put_again == {path: path.read_bytes() for path in store.folder.iterdir()}


def test_the_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever counts records, as `gmrm-gpu status` does, counts shards that are done."""
    monkeypatch.setattr(durable, "os", Disk(3, "no space"))  # opened, written, opened again to be flushed
    with pytest.raises(OutputError, match="No space"):
        Store(tmp_path, MARK).put(A, ARRAYS, RECORD)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(durable, "os", Disk(7 + 3, "no space"))
    with pytest.raises(OutputError, match="No space"):
        Store(tmp_path, MARK).put(A, ARRAYS, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == [f"{A.name}.npz"]


def test_objects_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", MARK)
    with pytest.raises(ValueError, match="Object arrays"):
        store.put(A, {"x": np.array([{}])}, {})
    with pytest.raises(ValueError, match="JSON"):
        store.put(A, {}, {"rate": float("nan")})
    assert not (tmp_path / "s").exists()


def test_numbers_as_keys_do_not_make_a_record_look_damaged(store: Store) -> None:
    store.put(C, {}, {"parts": {2: "two", 10: "ten"}})
    assert store.get(C)[1]["parts"] == {"2": "two", "10": "ten"}


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path, MARK)
    store.put(C, {"x": np.arange(2)}, {"rate": 0.1})
    for path in sorted(tmp_path.iterdir()):
        good = path.read_bytes()
        for i in range(8 * len(good)):
            bad = bytearray(good)
            bad[i // 8] ^= 1 << i % 8
            path.unlink()  # or some file systems would flush every one
            path.write_bytes(bad)
            assert store.state(C) not in (WHOLE, ABSENT), (path.name, i)
        path.write_bytes(good)
        assert store.state(C) == WHOLE


def test_a_half_written_shard_is_told_and_deleted(store: Store) -> None:
    (store.folder / f"{A.name}.json").unlink()
    (store.folder / f"{B.name}.npz").unlink()
    (store.folder / f".{C.name}.npz.77-1.part").write_bytes(b"abc")
    assert store.missing([A, B, C]) == [A, B, C]
    assert store.notes == [
        f"shard {A.name} was half-written (it has no record); it is computed again",
        f"shard {B.name} was without its arrays; it is computed again",
    ]
    assert list(store.folder.iterdir()) == []


def test_a_shard_of_another_study_is_set_aside(store: Store) -> None:
    held = {path.name: path.read_bytes() for path in store.folder.glob(f"{A.name}.*")}
    other = Store(store.folder, OTHER)
    assert other.state(A) == FOREIGN
    with pytest.raises(InputError, match=rf"shard {A.name} .* is of a study with other settings or another movie; go"):
        other.get(A)
    assert other.missing([A]) == [A]
    assert {path.name: path.read_bytes() for path in (store.folder / "set-aside").iterdir()} == held
    assert "set-aside/" in other.notes[0]
    assert store.missing([A, B]) == [A]


def test_shards_are_not_taken_for_one_another(store: Store) -> None:
    for ending in ("npz", "json"):
        one, other = (store.folder / f"{shard.name}.{ending}" for shard in (A, B))
        one.rename(store.folder / "away")
        other.rename(one)
        (store.folder / "away").rename(other)
        assert store.state(A) not in (WHOLE, ABSENT)
    assert store.state(A) == f"recorded as shard {B.name}"
    assert store.missing([A, B]) == [A, B]


@pytest.mark.parametrize("name", ["npz", "json"])
def test_what_may_not_be_read_is_an_error_and_stays(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.suffix == f".{name}":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for ask in (store.state, store.get, lambda shard: store.missing([shard])):
        with pytest.raises(InputError, match=rf"^cannot read .*{A.name}.{name}: Permission denied; its rights"):
            ask(A)
    monkeypatch.undo()
    assert store.state(A) == WHOLE


def test_a_sector_that_cannot_be_read_is_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert store.state(A) == "damaged (the disk cannot read it)"


def test_a_folder_in_the_way_is_an_error(store: Store) -> None:
    path = store.folder / f"{A.name}.npz"
    path.unlink()
    path.mkdir()
    assert store.state(A) == "no file"
    with pytest.raises(OutputError, match=r"^cannot remove .*, which is of no use: "):
        store.missing([A])


def test_a_pipe_in_the_way_does_not_hang(store: Store) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    path = store.folder / f"{A.name}.json"
    path.unlink()
    os.mkfifo(path)
    assert store.missing([A, B]) == [A]


def test_a_record_made_by_hand_harms_nothing(store: Store) -> None:
    good = store.get(A)[1]
    for change in ({"size": 10**12}, {"size": "x"}, {"size": None}, {"sha256": 5}, {"shard": ["x"]}, {"version": 2}):
        (store.folder / f"{A.name}.json").write_bytes(stores._sealed(good | change))
        assert store.state(A) not in (WHOLE, ABSENT)
        with pytest.raises(InputError, match=f"shard {A.name}"):
            store.get(A)
    for text in (b"", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a": ' + b"9" * 5000 + b"}", b" " * (2 << 20)):
        (store.folder / f"{A.name}.json").write_bytes(text)
        assert store.state(A).startswith("damaged")


def test_arrays_that_claim_too_much_are_refused() -> None:
    def packed(member: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as archive:
            archive.writestr("x.npy", member)
        return out.getvalue()

    def header(shape: str, descr: str = "'<f8'") -> bytes:
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text

    assert unpack_npz(packed(header("(1,)") + bytes(8)))["x"].tolist() == [0.0]
    bomb = packed(header("(1000000,)") + bytes(8_000_000), zipfile.ZIP_DEFLATED)
    claims = [header(f"({10**12},)"), header("(-1,)"), header("(2,)") + bytes(8), header("(1,)", "'|O'") + bytes(8)]
    for data in (b"", b"PK", bomb, packed(b""), packed(b"\x93NUMPY\x02\x00"), *map(packed, claims)):
        with pytest.raises(ValueError, match=r"^no npz file|^packed otherwise|^not the array|^of another npy|magic"):
            unpack_npz(data)
    assert unpack_npz(pack_npz({})) == {}


def test_the_plan_is_kept_and_its_damage_found(store: Store) -> None:
    plan = {"identity": {"seed": 1}, "shards": [A.name, B.name]}
    store.write_plan(plan)
    path = store.folder / "plan.json"
    assert read_plan(store.folder).items() >= plan.items()
    assert read_plan(store.folder)["fingerprint"] == MARK
    good = path.read_bytes()
    for bad in (good[:-3], good.replace(b"1", b"2", 1), b"", good + b" "):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"plan\.json is damaged"):
            read_plan(store.folder)
    path.write_bytes(stores._sealed(json.loads(good) | {"version": 99}))
    with pytest.raises(InputError, match="of another version"):
        read_plan(store.folder)
    path.unlink()
    with pytest.raises(InputError, match="is not there"):
        read_plan(store.folder)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, []),
        ({"a": (1, 2)}, {"a": [1, 2]}, []),
        ({"mixture": {"trend": "linear"}}, {"mixture": {"trend": "none"}}, ["mixture.trend was 'linear', is 'none'"]),
        ({"a": 1}, {"a": 1.0}, ["a was 1, is 1.0"]),
        ({"a": True}, {"a": 1}, ["a was True, is 1"]),
        ({"a": {"b": 1}}, {"a": {}}, ["a.b was 1, is not set"]),
        ({}, {"a": {"b": [1]}}, ["a was not set, is {'b': [1]}"]),
        ({"a": None}, {"a": {"b": 1}}, ["a was None, is {'b': 1}"]),
        ({"movie": MARK}, {"movie": OTHER}, ["movie is another one"]),
        ({"x": 1, "y": 2}, {"x": 2, "y": 3}, ["x was 1, is 2", "y was 2, is 3"]),
        ({"x": "a" * 99}, {"x": 0}, [f"x was '{'a' * 59}..., is 0"]),
    ],
)
def test_differences_in_plain_words(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert differences(old, new) == expected
