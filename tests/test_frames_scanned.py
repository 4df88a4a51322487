"""Sub-sampled scans of instruments: positions beside Direct Electron's .mrc, and ragged lists in HDF5."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import Movie, open_movie

RNG = np.random.default_rng(3)
RANDOM = "reader-files/rosettasciio/ROI_Random_Scan_movie.mrc"
CUSTOM = "reader-files/rosettasciio/Custom_movie.mrc"


def listed(movie: Movie, t: int) -> list[tuple[int, float]]:
    seen = movie.visits(t)
    return list(zip(seen.positions.tolist(), seen.values.tolist(), strict=True))


def write_mrc(path: Path, frames: np.ndarray, mode: int, extended: bytes = b"") -> Path:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, frames.shape[2], frames.shape[1], frames.shape[0], mode)
    struct.pack_into("<i", header, 92, len(extended))
    path.write_bytes(bytes(header) + extended + frames.tobytes())
    return path


def write_list(path: Path, visits: list[tuple[int, int]]) -> Path:
    path.write_text("".join(f"{x},{y}\n" for x, y in visits))
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        open_movie(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Direct Electron -------------------------------------------------------------------------------------------------


def test_a_camera_frame_for_each_visit_of_a_real_random_scan(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / RANDOM
    if not source.exists():
        pytest.skip(f"{RANDOM} is not among the files on this machine")
    path = tmp_path / "20250429_06688_0_movie.mrc"
    shutil.copyfile(source, path)
    visits = [(x, y) for y in range(29) for x in range(12)]  # the real scan went to each of these, at random
    RNG.shuffle(visits)
    write_list(tmp_path / "20250429_06688_scan_coordinates.csv", visits)
    movie = open_movie(path)
    data = source.read_bytes()
    assert struct.unpack("<4i", data[:16]) == (16, 16, 348, 6)  # columns, rows, frames, uint16
    assert (movie.sampled, len(movie), movie.shape, movie.dtype) == (True, 1, (29, 12), np.uint32)
    expected = [(y * 12 + x, sum(struct.unpack_from("<256H", data, 1024 + 512 * i))) for i, (x, y) in enumerate(visits)]
    assert listed(movie, 0) == expected
    assert "taken as 29 x 12" in movie.acquisition.notes[0]
    assert "sum of its camera frame" in movie.acquisition.notes[1]


def test_passes_of_a_real_custom_scan_are_frames(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / CUSTOM
    if not source.exists():
        pytest.skip(f"{CUSTOM} is not among the files on this machine")
    path = tmp_path / "20250429_06699_0_movie.mrc"
    shutil.copyfile(source, path)
    visits = [(x, y) for x in (0, 2, 4) for y in range(5)] * 2  # rows 2 and 4 of 5 left out, twice
    write_list(tmp_path / "20250429_06699_scan_coordinates.csv", visits)
    info = "Camera Model = DESim\nScan - Size X = 5\nScan - Size Y = 5\nScan - Time Per Scan (seconds)  = 30\n"
    info += "Specimen Pixel Size X (nanometers) = -1\nScan - Repeats = 1\nScan - Camera Frames Per Point = 1\n"
    (tmp_path / "20250429_06699_info.txt").write_text(info)
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.acquisition.detector) == (2, (5, 5), "DESim")
    assert movie.pixel_size_um is None
    assert movie.acquisition.times_s is not None
    assert movie.acquisition.times_s.tolist() == [0.0, 15.0]
    frames = np.frombuffer(source.read_bytes(), "<u2", offset=1024).reshape(30, 256).sum(axis=1)
    for t in (1, 0):
        assert listed(movie, t) == [(y * 5 + x, frames[15 * t + i]) for i, (x, y) in enumerate(visits[:15])]


def test_images_of_a_scan_count_where_it_went(tmp_path: Path) -> None:
    images = RNG.normal(100, 20, (3, 7, 9)).astype(np.float32)
    visits = [(8, 6), (0, 0), (3, 2), (0, 0)]
    path = write_mrc(tmp_path / "20251103_23389_sample_1_BF_sum.mrc", images, 2, b"\1" * 128)
    write_list(tmp_path / "20251103_23389_scan_coordinates.csv", [(1, 1)])  # of another scan
    write_list(tmp_path / "20251103_23389_sample_scan_coordinates.csv", visits)
    info = "Scan - ROI Enable = Enable\nScan - ROI Size X = 9\nScan - ROI Size Y = 7\nScan - Size X = 64\n"
    info += "Scan - Size Y = 64\nSpecimen Pixel Size X (nanometers) = 4\nSpecimen Pixel Size Y (nanometers) = 4\n"
    info += "Scan - Repeats = 3\nScan - Time Per Scan (seconds) = 2\nScan - Repeat Delay (seconds) = 0.5\n"
    (tmp_path / "20251103_23389_sample_info.txt").write_text(info)
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype, movie.pixel_size_um) == (3, (7, 9), np.float32, 0.004)
    assert movie.acquisition.times_s is not None
    assert movie.acquisition.times_s.tolist() == [0.0, 2.5, 5.0]
    for t in range(3):
        assert listed(movie, t) == [(0, images[t, 0, 0]), (21, images[t, 2, 3]), (62, images[t, 6, 8])]
    assert "1 visits went to pixels visited before" in movie.acquisition.notes[0]
    (tmp_path / "20251103_23389_sample_info.txt").write_text(info.replace("Y (nanometers) = 4", "Y (nanometers) = 5"))
    movie = open_movie(path)
    assert movie.pixel_size_um is None
    assert "not square (4 x 5 nm)" in movie.acquisition.notes[0]


def test_frames_of_one_position_are_summed(tmp_path: Path) -> None:
    frames = RNG.integers(0, 255, (6, 4, 5)).astype(np.uint8)
    path = write_mrc(tmp_path / "a_movie.mrc", frames, 0)
    write_list(tmp_path / "a_scan_coordinates.csv", [(1, 0), (0, 2), (2, 1)])
    (tmp_path / "a_info.txt").write_text("Scan - Camera Frames Per Point = 2\n")
    sums = frames.reshape(3, -1).sum(axis=1)
    assert listed(open_movie(path), 0) == [(1, sums[0]), (6, sums[1]), (5, sums[2])]
    signed = write_mrc(tmp_path / "a_movie.mrc", frames.astype(np.int16) - 200, 1)
    movie = open_movie(signed)
    assert movie.dtype == np.float64
    assert listed(movie, 0)[2] == (5, float(sums[2]) - 200 * 40)


def test_a_list_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    frames = np.ones((6, 4, 5), np.uint16)
    path = write_mrc(tmp_path / "a_movie.mrc", frames, 6)
    positions = tmp_path / "a_scan_coordinates.csv"
    write_list(positions, [(0, 0)] * 5)
    text = refusal(path)
    assert "a_movie.mrc holds 6 frames of 4 x 5, a_scan_coordinates.csv 5 points in 1 x 1" in text
    assert "put them into different folders" in text
    (tmp_path / "a_info.txt").write_text("Scan - Size X = 3\nScan - Size Y = 3\n")
    write_list(positions, [(0, 0), (3, 0), (1, 1), (2, 2), (0, 1), (0, 2)])
    assert "a_scan_coordinates.csv has 1 of 6 coordinates outside of its 3 x 3 pixels" in refusal(path)
    positions.write_text("x,y\n0,0\n")
    assert "is no list of positions" in refusal(path)
    positions.write_text("0,0,1.5\n0,1,1.6\n")
    assert "has 3 columns" in refusal(path)
    assert "open the .mrc file beside it" in refusal(positions)
    assert "a_movie.mrc holds 6 images; give files of one image, or one stack" in refusal(tmp_path)
    for nothing in ("", "\n \n"):
        positions.write_text(nothing)
        assert "lists no positions" in refusal(path)
    positions.write_text("0,0\n0,0.5\n")
    assert "y with a fraction" in refusal(path)
    assert "holds one signal" in refusal(path, signal=1)
    write_list(positions, [(0, 0), (1, 0), (1, 1), (2, 2), (0, 1), (0, 2)])
    assert len(open_movie(path).visits(0).positions) == 6
    path.write_bytes(path.read_bytes()[:-1])
    assert "is truncated: 1,263 of 1,264 bytes" in refusal(path)
    path.write_bytes(path.read_bytes()[:700])
    assert "is truncated: 700 bytes of its header" in refusal(path)


# ---- ragged lists in HDF5 --------------------------------------------------------------------------------------------


def write_group(
    group: object, counts: list[int], shape: tuple[int, int], **more: object
) -> list[list[tuple[int, int]]]:
    """Lists of `counts` pixels; what was written, frame by frame."""
    n = sum(counts)
    row, col = RNG.integers(0, shape[0], n).astype(np.uint16), RNG.integers(0, shape[1], n).astype(np.uint16)
    intensity = RNG.integers(0, 60000, n).astype(np.uint16)
    columns = {"row": row, "col": col, "intensity": intensity, "nnz": np.array(counts, np.uint32), **more}
    for name, column in columns.items():
        if column is not None:
            group.create_dataset(name, data=column)
    pixels = [(int(r) * shape[1] + int(c), int(v)) for r, c, v in zip(row, col, intensity, strict=True)]
    ends = np.cumsum(counts)
    return [pixels[end - count : end] for count, end in zip(counts, ends, strict=True)]


def test_ragged_lists_are_frames(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 needs h5py")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/1.1")
        expected = write_group(group, [5, 0, 12, 3], (30, 40))
        group.attrs.update({"nframes": 4, "shape0": 30, "shape1": 40})
    movie = open_movie(path)
    assert (movie.sampled, len(movie), movie.shape, movie.dtype) == (True, 4, (30, 40), np.uint16)
    for t in (3, 0, 2, 1):
        assert listed(movie, t) == expected[t]
    assert "above a threshold" in movie.acquisition.notes[0]
    with h5py.File(path, "a") as file:
        group = file.create_group("entry/10.1")
        other = write_group(group, [7], (8, 9), nnz=None)
        group.attrs["shape"] = (1, 8, 9)
        write_group(file.create_group("entry/2.1"), [2, 2], (8, 9))
    text = refusal(path)
    assert "give --signal N, one of: 0: entry/1.1 (4 frames, 20 pixels listed); 1: entry/2.1 (2 frames, 4" in text
    assert "no recording 3" in refusal(path, signal=3)
    assert (open_movie(path, signal=2).shape, listed(open_movie(path, signal=2), 0)) == ((8, 9), other[0])
    assert "does not say how large" in open_movie(path, signal=1).acquisition.notes[1]


def test_bad_ragged_files_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 needs h5py")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/stack", data=np.zeros((3, 4, 5)))
    assert "holds no lists of pixels (nnz, row, col, intensity) but data/stack (3, 4, 5)" in refusal(path)
    with h5py.File(path, "w") as file:
        write_group(file, [3, 4], (5, 6), nnz=np.array([3, 5]))
    assert "counts 8 pixels (nnz) but lists row (7,), col (7,), intensity (7,)" in refusal(path)
    with h5py.File(path, "w") as file:
        write_group(file, [3, 4], (5, 6), nnz=np.array([8, -1]))
    assert "it counts pixels, one a frame" in refusal(path)
    with h5py.File(path, "w") as file:
        write_group(file, [3, 4], (5, 6))
        file.attrs.update({"nframes": 3, "shape0": 5, "shape1": 6})
    assert "states 3 frames but lists 2" in refusal(path)
    with h5py.File(path, "w") as file:
        write_group(file, [3, 4], (5, 6), col=np.array([0, 1, 2, 3, 4, 5, 6]))
        file.attrs.update({"shape0": 5, "shape1": 6})
    movie = open_movie(path)
    with pytest.raises(InputError, match=r"frame 1 of scan\.h5 has 1 of 4 coordinates outside of its 5 x 6 pixels"):
        movie.visits(1)
    data = path.read_bytes()
    for cut in (len(data) // 2, 100, 4):
        path.write_bytes(data[:cut])
        assert "scan.h5 is truncated or damaged" in refusal(path)
