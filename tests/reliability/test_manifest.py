"""With check sums beside a movie every damage to it is found, in every format, before a reader sees the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scale import cases

from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import open_movie, registry, save_visits
from gmrm_gpu.frames.manifest import check_manifest, write_manifest

SEED = 6


def every_format(folder: Path) -> dict[str, Path]:
    """One movie of each format: a file, a folder, or a file with others that belong to it."""
    import h5py
    import pyarrow
    import pyarrow.parquet
    from dm4 import dm_image, write_dm3, write_dm4
    from movies import H, W, exact_sources
    from recordings import STACK, write_berkeley, write_hspy, write_mrc, write_seq, write_ser, write_tvips, write_velox

    made = exact_sources(folder)
    axes = [(name, "s", 1.0) for name in ("time", "y", "x")]
    for name, write in {
        "a.dm3": lambda path: write_dm3(path, dm_image(STACK)),
        "a.dm4": lambda path: write_dm4(path, dm_image(STACK)),
        "a.mrc": lambda path: write_mrc(path, STACK),
        "a.emd": lambda path: write_berkeley(path, STACK, axes),
        "a.de5": lambda path: write_berkeley(path, STACK, axes),
        "velox.emd": lambda path: write_velox(path, STACK),
        "a_1.ser": lambda path: write_ser(path, STACK),
        "a.seq": lambda path: write_seq(path, STACK, [0, 1, 2, 3]),
        "a.hspy": lambda path: write_hspy(path, {"m": (STACK, [{"navigate": True}, *[{"navigate": False}] * 2])}),
    }.items():
        write(folder / name)
        made[name] = folder / name
    (folder / "stream").mkdir()
    made["tvips"] = write_tvips(folder / "stream", [0, 100, 200, 300])
    with h5py.File(folder / "a.h5", "w") as file:
        for name in ("row", "col", "intensity"):
            file[name] = np.arange(5)
    (folder / "a.csv").write_text("x,y,intensity\n0,0,1\n2,3,4\n")
    (folder / "tree" / "Hour_00" / "Minute_00" / "Second_00").mkdir(parents=True)
    for t in range(2):
        write_dm4(folder / f"tree/Hour_00/Minute_00/Second_00/tree_Frame_000{t}.dm4", dm_image(STACK[t]))
    save_visits(open_movie(made["a.npy"], visited=np.eye(H, W)), folder / "visits.npz")
    pyarrow.parquet.write_table(pyarrow.table({"x": [0, 2], "y": [0, 3], "intensity": [1, 4]}), folder / "a.parquet")
    return made | {name: folder / name for name in ("a.h5", "a.csv", "tree", "visits.npz", "a.parquet")}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Movies of every format with their manifests, each of which agrees."""
    for package in ("h5py", "rsciio", "pyarrow"):
        pytest.importorskip(package)
    movies = list(every_format(tmp_path_factory.mktemp("listed")).values())
    for path in movies:
        sidecar, _ = write_manifest(path)
        assert check_manifest(path) == sidecar
    return movies


def files_of(movie: Path) -> list[Path]:
    """What belongs to it, found without the package."""
    if movie.is_dir():
        return sorted(path for path in movie.rglob("*") if path.is_file())
    return sorted(movie.parent.glob("s_*.tvips")) if movie.suffix == ".tvips" else [movie]


def flip(path: Path, rng: np.random.Generator) -> None:
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def cut(path: Path, rng: np.random.Generator) -> None:
    """The end is missing, or all of it."""
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def grow(path: Path, rng: np.random.Generator) -> None:
    """More at the end."""
    path.write_bytes(path.read_bytes() + bytes(int(rng.integers(1, 99))))


def swap(path: Path, rng: np.random.Generator) -> None:
    """Two parts of equal length changed places."""
    data = path.read_bytes()
    half = len(data) // 2
    other = data[half : 2 * half] + data[:half] + data[2 * half :]
    path.write_bytes(other if other != data else data[:-1])


def lose(path: Path, rng: np.random.Generator) -> None:
    """The file is gone."""
    path.unlink()


DAMAGES: list[Callable[[Path, np.random.Generator], None]] = [flip, flip, flip, cut, cut, grow, swap, lose]


def test_every_damage_is_found(listed: list[Path], counted: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    # No reader is reached: the manifest alone has to find it.
    monkeypatch.setattr(registry, "_open_file", lambda *args, **options: pytest.fail("the damage was not found"))
    rng, n = np.random.default_rng(SEED), cases(300, 3000)
    for number in range(n):
        movie = listed[number % len(listed)]
        files = files_of(movie)
        path = files[rng.integers(len(files))]
        kept = path.read_bytes()
        DAMAGES[rng.integers(len(DAMAGES))](path, rng)
        with pytest.raises(InputError):
            open_movie(movie)
        path.write_bytes(kept)
    counted("damages with a manifest beside the movie", n)


def test_what_is_whole_again_is_read_again(listed: list[Path], tmp_path: Path) -> None:
    """Also by its copy, for names in a manifest start where it lies."""
    for movie in listed:
        if movie.suffix == ".npy" or movie.name == "png":
            copy = shutil.copytree if movie.is_dir() else shutil.copy
            copy(movie, tmp_path / movie.name)
            shutil.copy(f"{movie}.sha256", tmp_path)
            read = open_movie(tmp_path / movie.name)
            assert read.acquisition.notes[-1] == f"all files agree with {movie.name}.sha256"
            np.testing.assert_array_equal(read.frame(1), open_movie(movie).frame(1))
