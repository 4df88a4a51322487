"""Recordings as a tree of files a frame (Gatan), Norpix sequences, and a true QuickTime movie of a microscope."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from dm4 import dm_image, write_dm4
from movies import read_all
from recordings import write_seq

from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import Movie, open_movie

SHAPE = (6, 9)


def pixels(second: int, frame: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """The image of a frame, which tells where it stood."""
    return (np.arange(shape[0] * shape[1]).reshape(shape) + 100 * second + 10 * frame).astype(np.uint16)


def write_tree(folder: Path, frames: list[tuple[int, int]]) -> Path:
    """A recording with the frames (second, number in it)."""
    for second, frame in frames:
        hour, minute, rest = second // 3600, second // 60 % 60, second % 60
        place = Path(f"Hour_{hour:02d}") / f"Minute_{minute:02d}" / f"Second_{rest:02d}"
        (folder / place).mkdir(parents=True, exist_ok=True)
        name = f"{folder.name}_Hour_{hour:02d}_Minute_{minute:02d}_Second_{rest:02d}_Frame_{frame:04d}.dm4"
        tags = {"Acquisition": {"Device": {"Name": "K3-IS"}}}
        image = dm_image(pixels(second, frame), scales=(2.0, 2.0), units=("nm", "nm"), tags=tags)
        write_dm4(folder / place / name, image)
    return folder


def steady(seconds: range, rate: int) -> list[tuple[int, int]]:
    return [(second, frame) for second in seconds for frame in range(rate)]


def notes(movie: Movie) -> str:
    return " | ".join(movie.acquisition.notes)


# ---- Gatan in-situ trees ---------------------------------------------------------------------------------------------


def test_a_whole_recording(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    frames = steady(range(58, 62), 4)  # over the full minute
    movie = open_movie(write_tree(tmp_path / "grow 1", frames))
    assert (len(movie), movie.shape, movie.dtype, movie.name) == (16, SHAPE, np.uint16, "grow 1")
    np.testing.assert_array_equal(read_all(movie), [pixels(*place) for place in frames])
    assert movie.frame_numbers.tolist() == list(range(58 * 4, 62 * 4))
    assert (movie.pixel_size_um, movie.frame_time_s) == (pytest.approx(0.002), pytest.approx(0.25))
    assert (movie.acquisition.detector, movie.acquisition.times_s, notes(movie)) == ("K3-IS", None, "")


def test_missing_frames_leave_gaps_and_are_told_with_their_times(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    gone = {(0, 9), (1, 3), (1, 4), (4, 0), *((3, frame) for frame in range(10))}
    frames = [place for place in steady(range(6), 10) if place not in gone]
    movie = open_movie(write_tree(tmp_path / "m", frames))
    assert movie.frame_numbers.tolist() == [10 * second + frame for second, frame in frames]
    assert movie.frame_time_s == pytest.approx(0.1)
    assert movie.acquisition.times_s == pytest.approx([second + frame / 10 for second, frame in frames])
    told = "14 of 60 frames are missing: 9 (at 0.9 s), 13 to 14 (at 1.3 to 1.4 s), 30 to 40 (at 3 to 4 s)"
    assert notes(movie) == told
    part = open_movie(movie, frames="8:12")
    assert part.frame_numbers.tolist() == [8, 10, 11, 12]
    assert part.acquisition.times_s == pytest.approx([0.8, 1.0, 1.1, 1.2])


def test_a_rate_that_is_no_whole_number_leaves_no_gaps(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    # 2.5 a second: frames at 0, 0.4, 0.8 | 1.2, 1.6 | 2.0, ...
    frames = [(second, frame) for second in range(8) for frame in range(3 if second % 2 == 0 else 2)]
    movie = open_movie(write_tree(tmp_path / "m", frames))
    assert movie.frame_numbers.tolist() == list(range(20))
    assert movie.frame_time_s == pytest.approx(0.4)
    assert notes(movie) == "seconds hold 3 or 2 frames: taken for a rate of 2.5 a second, with none missing"


def test_a_part_of_a_recording_keeps_its_times(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    root = write_tree(tmp_path / "m", steady(range(59, 63), 4))
    for part, numbers in (("Hour_00", range(59 * 4, 63 * 4)), ("Hour_00/Minute_01", range(60 * 4, 63 * 4))):
        movie = open_movie(root / part)
        assert (movie.frame_numbers.tolist(), movie.frame_time_s) == (list(numbers), pytest.approx(0.25))
    second = open_movie(root / "Hour_00/Minute_01/Second_02")
    assert second.frame_numbers.tolist() == list(range(62 * 4, 63 * 4))
    np.testing.assert_array_equal(second.frame(3), pixels(62, 3))


def test_a_folder_of_single_images(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    for frame in range(12):
        image = dm_image(pixels(0, frame), scales=(2.0, 2.0), units=("nm", "nm"))
        write_dm4(tmp_path / f"grow_{frame}.dm4", image)
    movie = open_movie(tmp_path)
    np.testing.assert_array_equal(read_all(movie), [pixels(0, frame) for frame in range(12)])
    assert (movie.pixel_size_um, movie.frame_time_s) == (pytest.approx(0.002), None)
    assert notes(movie) == "the frame time of a folder of single images is unknown"
    (tmp_path / "grow_3.dm4").write_bytes(b"")
    with pytest.raises(InputError, match=r"^frame 3 of .*: grow_3\.dm4"):
        movie.frame(3)
    (tmp_path / "grow_0.tif").touch()
    with pytest.raises(InputError, match=r"images of several kinds \(\.dm4 \.tif\)"):
        open_movie(tmp_path)
    (tmp_path / "grow_0.tif").rename(tmp_path / "grow_0.dm3")
    with pytest.raises(InputError, match=r"files of several kinds \(\.dm3 \.dm4\)"):
        open_movie(tmp_path)


def test_trees_that_need_a_word(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    short = write_tree(tmp_path / "short", steady(range(1), 5))
    (short / "Hour_00/Minute_00/Second_00/preview.jpg").write_bytes(b"x")
    movie = open_movie(short)
    assert "1 files of the recording are not named as frames are" in notes(movie)
    assert "lies in one second: 5 frames a second is the least" in notes(movie)

    (tmp_path / "empty/Hour_00/Minute_00").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no \*_Frame_0000\.dm4"):
        open_movie(tmp_path / "empty")

    twice = write_tree(tmp_path / "twice", steady(range(2), 2))
    write_dm4(twice / "Hour_00/Minute_00/Second_01/other_Frame_0001.dm4", dm_image(pixels(0, 0)))
    with pytest.raises(InputError, match="one and the same frame"):
        open_movie(twice)

    odd = write_tree(tmp_path / "odd", steady(range(2), 3))
    second = odd / "Hour_00/Minute_00/Second_01"
    write_dm4(second / "odd_Hour_00_Minute_00_Second_01_Frame_0001.dm4", dm_image(pixels(0, 0, (6, 8))))
    write_dm4(second / "odd_Hour_00_Minute_00_Second_01_Frame_0002.dm4", dm_image(np.stack([pixels(0, 0)] * 2)))
    damaged = second / "odd_Hour_00_Minute_00_Second_01_Frame_0000.dm4"
    damaged.write_bytes(damaged.read_bytes()[:90])
    movie = open_movie(odd)
    for t, why in ((3, "frame 3 of odd: .*damaged"), (4, "6 x 8 pixels, the first 6 x 9"), (5, "holds 2 images")):
        with pytest.raises(InputError, match=why):
            movie.frame(t)
    np.testing.assert_array_equal(movie.frame(2), pixels(0, 2))


# ---- Norpix ----------------------------------------------------------------------------------------------------------


def test_a_true_norpix_sequence(shared_data: Path) -> None:
    path = shared_data / "reader-files/pims/sample_norpix6.seq"
    if not path.exists():
        pytest.skip("the true Norpix sequence is not on this machine")
    data = path.read_bytes()
    width, height, bits, real = struct.unpack_from("<4I", data, 548)
    n, stride, rate = *struct.unpack_from("<I", data, 572), *struct.unpack_from("<Id", data, 580)
    assert (width, height, bits, real, n, stride, rate) == (36, 32, 8, 8, 6, 8192, 10.0)
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype, movie.acquisition.bit_depth) == (6, (32, 36), np.uint8, 8)
    times = []
    for t in range(6):
        at = 8192 + 8192 * t
        expected = np.frombuffer(data, np.uint8, 36 * 32, at).reshape(32, 36)
        np.testing.assert_array_equal(movie.frame(t), expected)
        seconds, ms, us = struct.unpack_from("<IHH", data, at + 36 * 32)
        times.append(seconds + ms * 1e-3 + us * 1e-6)
    assert movie.frame_time_s == pytest.approx((times[5] - times[0]) / 5, rel=1e-5)  # 34 ms, not the 100 of the header
    assert notes(movie) == ""


def test_norpix_sequences_of_both_versions(tmp_path: Path) -> None:
    stack = np.random.default_rng(2).integers(0, 4096, (4, 6, 9)).astype(np.uint16)
    for version in (4, 5):
        movie = open_movie(write_seq(tmp_path / "a.seq", stack, [980, 1020, 1061, 1100], version))
        np.testing.assert_array_equal(read_all(movie), stack)
        assert (movie.frame_time_s, movie.acquisition.bit_depth) == (pytest.approx(0.04), 12)
    movie = open_movie(write_seq(tmp_path / "b.seq", stack, [0, 40, 160, 200]))
    assert movie.frame_time_s is None
    assert movie.acquisition.times_s == pytest.approx([0, 0.04, 0.16, 0.2])
    assert "unevenly spaced in time, by 0.04 to 0.12 s" in notes(movie)
    drift = np.cumsum([*[90] * 20, *[110] * 20]).tolist()  # never off by a fifth, but two steps late in the middle
    movie = open_movie(write_seq(tmp_path / "d.seq", np.zeros((40, 6, 9), np.uint8), drift))
    assert movie.acquisition.times_s == pytest.approx([(ms - drift[0]) / 1000 for ms in drift])
    movie = open_movie(write_seq(tmp_path / "c.seq", stack, [0, 0, 0, 0]))
    assert movie.frame_time_s == pytest.approx(0.04)
    assert "do not ascend" in notes(movie)
    assert "the rate set for the recording, 25 a second" in notes(movie)


def test_norpix_sequences_that_are_not_read(tmp_path: Path) -> None:
    stack, times = np.zeros((3, 6, 9), np.uint8), [0, 40, 80]
    path = write_seq(tmp_path / "a.seq", stack, times)
    whole = path.read_bytes()
    for n_bytes, why in (
        (len(whole) - 1024, "2 of 3 frames"),
        (8200, "0 of 3"),
        (900, "header of 1024"),
        (3, "no Norpix"),
    ):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match=why):
            open_movie(path)
    for change, why in (({"_620": 1}, "compressed"), ({"_580": 20}, "contradicts itself"), ({"_0": 1}, "no Norpix")):
        with pytest.raises(InputError, match=why):
            open_movie(write_seq(path, stack, times, **change))
    with pytest.raises(InputError, match="format 200 with 8 bits, not grey"):
        open_movie(write_seq(path, stack, times, kind=200))


# ---- QuickTime -------------------------------------------------------------------------------------------------------


def test_a_true_quicktime_movie(shared_data: Path) -> None:
    path = shared_data / "reader-files/pims/bulk-water.mov"
    if not path.exists():
        pytest.skip("the true QuickTime movie is not on this machine")
    with pytest.raises(InputError, match="in colour; give --luminance"):
        open_movie(path)
    movie = open_movie(path, luminance=True)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (len(movie), movie.shape) == (stream.frames, (stream.height, stream.width)) == (480, (424, 640))
        assert movie.frame_time_s == pytest.approx(float(1 / stream.average_rate))
        for t, frame in zip(range(3), container.decode(video=0), strict=False):
            np.testing.assert_array_equal(movie.frame(t), frame.to_ndarray(format="yuv420p")[:424, :640])
