"""Check sums beside a movie: the file, what it covers, and what it finds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_tools import enter, fails, ok
from movies import STACK, H, W, write_folder

from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.folders import new_folder
from gmrm_gpu.frames import open_labels, open_movie
from gmrm_gpu.frames.listing import movie_files
from gmrm_gpu.frames.manifest import check_manifest, manifest_path, write_manifest


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    np.save(tmp_path / "movie.npy", STACK)
    return tmp_path / "movie.npy"


def damage(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_manifest_is_what_sha256sum_writes(movie: Path) -> None:
    sidecar, n_files = write_manifest(movie)
    assert (sidecar.name, n_files) == ("movie.npy.sha256", 1)
    digest = hashlib.sha256(movie.read_bytes()).hexdigest()
    assert sidecar.read_bytes() == f"{digest}  movie.npy\n".encode()
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--quiet", sidecar.name], cwd=movie.parent, check=True)


def test_odd_names_are_written_as_sha256sum_writes_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "odd", STACK[:1])
    for name in ("back\\slash.png", "line\nbreak.png", os.fsdecode(b"not utf-8 \xff.png"), "*star.png", "-c.png"):
        shutil.copy(folder / "f8.png", folder / name)
    sidecar, n_files = write_manifest(folder)
    assert n_files == 6
    assert check_manifest(folder) == sidecar
    assert rb"\n" in sidecar.read_bytes()
    if shutil.which("sha256sum"):
        checked = ["sha256sum", "-c", "--quiet", "--strict", sidecar.name]
        subprocess.run(checked, cwd=tmp_path, check=True)
        names = sorted(str(path.relative_to(tmp_path)) for path in folder.iterdir())
        made = subprocess.run(["sha256sum", "--", *names], cwd=tmp_path, check=True, capture_output=True).stdout
        assert sorted(made.splitlines()) == sorted(sidecar.read_bytes().splitlines())


@pytest.mark.parametrize(
    "line",
    ["{sum} *movie.npy", "{sum}  ./movie.npy", "{SUM}  movie.npy\r", "# by hand\n\n{sum}  movie.npy", "{sum}  {path}"],
)
def test_other_ways_to_write_one(movie: Path, line: str) -> None:
    digest = hashlib.sha256(movie.read_bytes()).hexdigest()
    manifest_path(movie).write_text(line.format(sum=digest, SUM=digest.upper(), path=movie) + "\n", newline="")
    assert open_movie(movie).acquisition.notes == ("all files agree with movie.npy.sha256",)
    damage(movie)
    with pytest.raises(InputError, match=r"movie\.npy is damaged or changed"):
        open_movie(movie)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not in"),
        (b"nonsense\n", "no check sum and name"),
        (b"\x00" * 5000, "no check sum and name"),
        (b"0" * 63 + b"  movie.npy\n", "no check sum and name"),
        (b"0" * 64 + b"  ../secret\n", r"lists \.\./secret, which is missing or no part"),
        (b"0" * 64 + b"  /etc/passwd\n", "lists /etc/passwd, which is missing or no part"),
        (b"0" * 64 + b"  movie.npy\x00\n", "no check sum and name"),
        (b"0" * 64 + b"  movie.npy\n" + b"1" * 64 + b"  movie.npy\n", "twice"),
        (b"0" * 64 + b"  " + b"a" * 10**6, "no check sum and name|lists a"),
        (b"0" * 64 + b"  movie.npy\n", "damaged or changed"),
    ],
)
def test_a_bad_manifest_is_an_error(movie: Path, content: bytes, says: str) -> None:
    manifest_path(movie).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        open_movie(movie)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "dangling", "fifo"])
def test_a_manifest_that_is_no_file_is_an_error(movie: Path, kind: str) -> None:
    sidecar = manifest_path(movie)
    {"folder": os.mkdir, "dangling": lambda path: os.symlink("gone", path), "fifo": os.mkfifo}[kind](sidecar)
    with pytest.raises(InputError, match="is no file"):
        open_movie(movie)
    with pytest.raises(OutputError, match="exists"):
        write_manifest(movie)


# ---- what it covers --------------------------------------------------------------------------------------------------


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", STACK)
    (folder / ".DS_Store").write_bytes(b"x")  # hidden files are not read, and come and go
    write_manifest(folder)
    (folder / ".DS_Store").write_bytes(b"y")
    open_movie(folder)
    open_movie(f"{folder}{os.sep}")

    kept = (folder / "f12.png").read_bytes()
    damage(folder / "f12.png")
    with pytest.raises(InputError, match=r"frames.f12\.png is damaged or changed"):
        open_movie(folder)
    (folder / "f12.png").unlink()
    with pytest.raises(InputError, match=r"lists frames/f12\.png, which is missing"):
        open_movie(folder)
    (folder / "f12.png").write_bytes(kept)
    (folder / "f17.png").write_bytes(kept)
    with pytest.raises(InputError, match=r"frames.f17\.png is not in frames\.sha256"):
        open_movie(folder)
    (folder / "f17.png").unlink()
    open_movie(folder)


def test_a_renamed_movie_does_not_pass_for_the_one_listed(movie: Path) -> None:
    write_manifest(movie)
    os.rename(movie, movie.with_name("other.npy"))
    os.rename(manifest_path(movie), manifest_path(movie.with_name("other.npy")))
    with pytest.raises(InputError, match=r"lists movie\.npy, which is missing or no part"):
        open_movie(movie.with_name("other.npy"))


def test_a_link_is_compared_with_the_manifest_of_what_it_leads_to(movie: Path, tmp_path: Path) -> None:
    write_manifest(movie)
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "m.npy"
    link.symlink_to(movie)
    open_movie(link)
    damage(movie)
    with pytest.raises(InputError, match="damaged or changed"):
        open_movie(link)


def test_masks_and_truths_are_compared_too(movie: Path, tmp_path: Path) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[:2] = 1
    for name in ("mask.npy", "labels.npy"):
        np.save(tmp_path / name, mask)
        write_manifest(tmp_path / name)
    open_movie(movie, exclude=tmp_path / "mask.npy")
    open_movie(movie, visited=tmp_path / "mask.npy")
    open_labels(tmp_path / "labels.npy")
    damage(tmp_path / "mask.npy")
    damage(tmp_path / "labels.npy")
    for how in ({"exclude": tmp_path / "mask.npy"}, {"visited": tmp_path / "mask.npy"}):
        with pytest.raises(InputError, match=r"mask\.npy is damaged or changed"):
            open_movie(movie, **how)
    with pytest.raises(InputError, match=r"labels\.npy is damaged or changed"):
        open_labels(tmp_path / "labels.npy")


@pytest.mark.parametrize(
    ("name", "others", "foreign"),
    [
        ("a_000.tvips", ["a_001.tvips", "a_002.tvips"], ["b_001.tvips", "a_1.tvips"]),
        ("scan_1.ser", ["scan.emi"], ["scan_2.ser", "other.emi"]),
        ("scan.emi", ["scan_1.ser", "scan_2.ser"], ["other_1.ser"]),
        ("a_movie.mrc", ["a_info.txt", "a_scan_coordinates.csv"], ["b_info.txt", "a.mrc"]),
        ("20260101_00001_x_movie.mrc", ["20260101_00001_info.txt"], ["20260101_00002_info.txt"]),
        ("a_MMStack_0.tif", ["a_MMStack_1.tif"], ["b_MMStack_1.tif"]),
        ("a.npy", [], ["b.npy", "b.npy.sha256"]),
    ],
)
def test_files_that_belong_to_a_movie_are_listed_with_it(tmp_path, name, others, foreign) -> None:
    for each in (name, *others, *foreign):
        (tmp_path / each).write_bytes(b"x")
    assert {file.name for file in movie_files(tmp_path / name)} == {name, *others}
    write_manifest(tmp_path / name)
    for each in others:
        (tmp_path / each).unlink()
        with pytest.raises(InputError, match="is missing or no part"):
            check_manifest(tmp_path / name)
        (tmp_path / each).write_bytes(b"x")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    enter(tmp_path, monkeypatch)
    ok("manifest", "movie.npy", "truth.npy")
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()] == ["written:", "written:"]
    ok("manifest", "movie.npy", "truth.npy", "--check")
    assert "as listed: 1 file of movie.npy" in capsys.readouterr().out
    ok("info", "movie.npy", "--components", "2")
    assert "All files agree with movie.npy.sha256." in capsys.readouterr().out
    fails(capsys, 1, ["manifest", "movie.npy"], "movie.npy.sha256 exists", "--overwrite")
    fails(capsys, 1, ["manifest", "gone.npy"], "does not exist")
    fails(capsys, 1, ["manifest", ""], "the name is empty")
    fails(capsys, 1, ["manifest", "movie.npy.sha256", "--check"], "is a list of check sums itself; give the movie")
    fails(capsys, 2, ["manifest", "movie.npy", "--check", "--overwrite"], "leave out")

    damage(Path("truth.npy"))
    fails(capsys, 1, ["manifest", "movie.npy", "truth.npy", "--check"], "truth.npy is damaged or changed")
    fails(capsys, 1, ["study", "movie.npy", "--truth", "truth.npy", "--no-report"], "truth.npy is damaged or changed")
    ok("manifest", "truth.npy", "--overwrite")
    ok("manifest", "truth.npy", "--check")
    os.remove("truth.npy.sha256")
    fails(capsys, 1, ["manifest", "truth.npy", "--check"], "write it with gmrm-gpu manifest truth.npy")


def test_a_simulation_with_its_manifest_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "sim").mkdir()
    for name in ("simulation.json", "movie.tif", "movie.tif.sha256"):
        (tmp_path / "sim" / name).touch()
    with new_folder(tmp_path / "sim", overwrite=True) as folder:
        (folder / "simulation.json").touch()
    assert [path.name for path in (tmp_path / "sim").iterdir()] == ["simulation.json"]


def test_a_manifest_of_a_movie_that_does_not_open_says_so(movie: Path, capsys) -> None:
    movie.write_bytes(movie.read_bytes()[:-100])
    ok("manifest", str(movie))
    assert "is listed but does not open as it is" in capsys.readouterr().err
