"""Reading and writing movie files: every format, bad files, and the real recordings."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import tifffile
from movies import (
    GREY_RGB,
    STACK,
    H,
    T,
    W,
    lossless_mp4,
    read_all,
    write_folder,
    write_gif,
    write_video,
)

from gmrm_gpu import archives
from gmrm_gpu.errors import InputError, MissingDependencyError
from gmrm_gpu.frames import open_movie, video
from gmrm_gpu.frames.registry import _reader
from gmrm_gpu.frames.video import _plane

KINDS = ["a.npy", "a.npz", "c.npz", "a.tif", "z.tif", "ij.tif", "one.tif", "be.tif", "rgb.tif", "planar.tif"]
KINDS += ["x.mp4", "x.mov", "x.avi", "raw.avi", "x.mkv", "x.gif", "png", "rgb", "tif"]
VIDEOS = ["x.mp4", "x.mov", "x.avi", "raw.avi", "x.mkv"]


# ---- every format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_stored_frames_in_any_order(sources: dict[str, Path], kind: str) -> None:
    movie = open_movie(sources[kind])
    assert (len(movie), movie.shape, movie.dtype) == (T, (H, W), np.uint8)
    assert movie.name == sources[kind].name
    assert movie.valid is None
    np.testing.assert_array_equal(movie.frame_numbers, np.arange(T))
    for t in [8, 0, 3, 3, 7, 2, *np.random.default_rng(1).permutation(T), *range(T)]:
        frame = movie.frame(int(t))
        assert frame.flags.c_contiguous
        np.testing.assert_array_equal(frame, STACK[t])
    assert movie.frame_time_s == (pytest.approx(0.2) if kind in VIDEOS else None)


@pytest.mark.parametrize("kind", ["x.mp4", "x.avi", "x.gif", "z.tif", "c.npz"])
def test_threads_read_the_right_frames(sources: dict[str, Path], kind: str) -> None:
    movie = open_movie(sources[kind])
    order = np.random.default_rng(1).integers(0, T, 200)
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda t: movie.frame(int(t)), order))
    for t, frame in zip(order, frames, strict=True):
        np.testing.assert_array_equal(frame, STACK[t])


@pytest.mark.parametrize("kind", ["a.npy", "c.npz", "a.tif", "z.tif", "x.mp4", "raw.avi", "x.mkv", "x.gif", "png"])
def test_truncation_is_never_silent(sources: dict[str, Path], kind: str, tmp_path: Path) -> None:
    source = sources[kind]
    folder = None
    if source.is_dir():
        folder = write_folder(tmp_path / "cut", STACK[:2])
        source = folder / "f9.png"
    data = source.read_bytes()
    seen = set()
    for cut in np.linspace(0, 0.9 * len(data), 15).astype(int):
        path = (folder or tmp_path) / (source.name if folder else f"cut{source.suffix}")
        path.write_bytes(data[:cut])
        with pytest.raises(InputError) as caught:
            read_all(open_movie(folder or path))
        assert "\n" not in str(caught.value)
        seen.add(str(caught.value))
    assert any("truncated" in message for message in seen)


def test_an_avi_with_no_whole_frame_left_is_called_truncated(sources: dict[str, Path], tmp_path: Path) -> None:
    data = sources["raw.avi"].read_bytes()
    path = tmp_path / "cut.avi"
    messages = set()
    for cut in range(len(data) // 20, len(data) // 4, 97):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError) as caught:
            open_movie(path)
        messages.add(str(caught.value))
    assert any(f"truncated: 0 of {T} frames are there" in message for message in messages)


def test_a_large_imagej_file_cut_short_is_refused(sources: dict[str, Path], tmp_path: Path, caplog) -> None:
    path = tmp_path / "cut.tif"
    path.write_bytes(sources["one.tif"].read_bytes()[:-W])
    with pytest.raises(InputError, match="truncated: 1 of 9 frames"):
        open_movie(path)
    assert caplog.records == []  # tifffile logs, and that would stand beside our one line


# ---- video -----------------------------------------------------------------------------------------------------------


def test_a_video_whose_frames_have_no_times_is_counted(sources: dict[str, Path], monkeypatch) -> None:
    timeline = video._timeline
    monkeypatch.setattr(video, "_timeline", lambda shown: timeline([(None, key) for _, key in shown]))
    movie = video.open_file(sources["x.mp4"])
    for t in (4, 1, 1, 8, 0):
        np.testing.assert_array_equal(movie.frame(t), STACK[t])


def test_deep_grey_video_and_semi_planar_chroma(tmp_path: Path) -> None:
    deep = STACK.astype(np.uint16) * 257
    movie = open_movie(write_video(tmp_path / "deep.mkv", "ffv1", "gray16le", deep, "gray16le"))
    assert movie.dtype == np.uint16
    np.testing.assert_array_equal(read_all(movie), deep)
    values = np.concatenate([STACK[0], np.arange(H // 2 * W, dtype=np.uint8).reshape(H // 2, W)])
    frame = av.VideoFrame.from_ndarray(values, format="nv12")
    np.testing.assert_array_equal(_plane(frame, 1), values[H:])


@pytest.mark.parametrize("container", ["asf", "ogg", "ts"])
def test_a_video_under_the_name_of_another_kind_is_read(tmp_path: Path, container: str) -> None:
    codec = "vp8" if container == "ogg" else "mpeg4"
    path = write_video(tmp_path / f"a.{container}", codec, "yuv420p", STACK, "yuv420p")
    assert len(open_movie(path.rename(tmp_path / "a.avi"))) == T


@pytest.mark.parametrize("codec", ["png", "libx264"])
def test_a_damaged_frame_in_the_middle_is_named(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mov"
    if codec == "png":
        write_video(path, "png", "gray", STACK, "gray")
    else:
        lossless_mp4(path)
    index = video.open_file(path)._index  # type: ignore[attr-defined]
    with av.open(str(path)) as container:
        packet = next(bytes(p) for p in container.demux(video=0) if p.pts == index.times[4])
    path.write_bytes(path.read_bytes().replace(packet, packet[:200] + bytes(100) + packet[300:]))
    movie = open_movie(path)
    with pytest.raises(InputError, match=r"frame 4 of a\.mov cannot be decoded .* damaged"):
        movie.frame(4)
    np.testing.assert_array_equal(movie.frame(2), STACK[2])
    np.testing.assert_array_equal(movie.frame(8), STACK[8])


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_gif_frames_that_change_only_a_part_are_composed(tmp_path: Path, disposal: int) -> None:
    frames = np.zeros((6, H, W), np.uint8)
    for t in range(6):
        frames[t] = 50
        frames[t, 3 + t : 8 + t, 4 : 9 + 3 * t] = 200
    movie = open_movie(write_gif(tmp_path / "a.gif", frames, disposal=disposal))
    for t in (5, 0, 3, 4, 1, 2):
        np.testing.assert_array_equal(movie.frame(t), frames[t])


def test_colour_gif(tmp_path: Path) -> None:
    frames = np.zeros((3, H, W, 3), np.uint8)
    frames[1, :5, :5] = (255, 0, 0)
    frames[2, :5, :9] = (255, 0, 0)
    path = write_gif(tmp_path / "a.gif", frames)
    with pytest.raises(InputError, match="frame 1 is in colour"):
        open_movie(path).frame(1)
    assert open_movie(path, luminance=True).frame(2)[0, 0] == 76


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1", "I;16", "F"])
def test_image_modes(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for t in range(2):
        if mode == "I;16":
            image = PIL.Image.fromarray(STACK[t].astype(np.uint16) * 200)
        else:
            image = PIL.Image.fromarray(STACK[t] if mode != "1" else (STACK[t] > 99).astype(np.uint8) * 255).convert(
                mode
            )
        image.save(folder / (f"{t}.tif" if mode == "F" else f"{t}.png"))
    frame = open_movie(folder).frame(1)
    expected = {"1": STACK[1] > 99, "I;16": STACK[1].astype(np.uint16) * 200}.get(mode, STACK[1])
    np.testing.assert_array_equal(frame, expected)
    assert frame.dtype == {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)


def test_grey_jpeg_saved_as_rgb_is_grey(tmp_path: Path) -> None:
    PIL.Image.fromarray(GREY_RGB[0]).save(tmp_path / "a.jpg", quality=95)
    frame = open_movie(tmp_path / "a.jpg").frame(0)
    assert frame.shape == (H, W)
    assert np.abs(frame.astype(int) - STACK[0]).mean() < 4


def test_bad_image_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        open_movie(tmp_path)
    folder = write_folder(tmp_path / "a", STACK)
    PIL.Image.fromarray(STACK[0, :5]).save(folder / "f10.png")
    with pytest.raises(InputError, match=r"frame 2 \(f10\.png\) is 5 x 34 uint8, the first 24 x 34 uint8"):
        open_movie(folder)
    PIL.Image.fromarray(STACK[0].astype(np.uint16)).save(folder / "f10.png")
    with pytest.raises(InputError, match="24 x 34 uint16"):
        open_movie(folder)
    (folder / "f10.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"f10\.png is truncated or not an image"):
        open_movie(folder)
    tifffile.imwrite(folder / "f10.tif", STACK, photometric="minisblack")
    (folder / "f10.png").unlink()
    with pytest.raises(InputError, match="holds 9 images"):
        open_movie(folder)


# ---- files that are no movie, missing packages -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".mp4", ".avi", ".gif", ".png", ".jpg"])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, suffix: str, capfd) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"certainly not a movie " * 50)
    with pytest.raises(InputError) as caught:
        open_movie(path)
    assert str(caught.value).startswith(path.name)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        open_movie(path)
    assert capfd.readouterr().err == ""


def test_paths_that_are_no_movie(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_movie(tmp_path / "absent.tif")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(InputError, match=r"unknown kind '\.doc'"):
        open_movie(tmp_path / "a.doc")


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.mp4", "a.png", "folder"])
def test_what_may_not_be_read_is_not_called_truncated(tmp_path: Path, monkeypatch, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"x" * 100)

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check its permissions") as caught:
        open_movie(path)
    assert "truncated" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_movie(tmp_path / "a.tif")


def test_npy_files_that_are_no_movie(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="object"):
        open_movie(tmp_path / "o.npy")
    np.save(tmp_path / "e.npy", STACK[:0])
    with pytest.raises(InputError, match="no frames"):
        open_movie(tmp_path / "e.npy")
    np.savez(tmp_path / "two.npz", a=STACK, b=STACK)
    with pytest.raises(InputError, match=r"holds a \(9, 24, 34\), b \(9, 24, 34\)"):
        open_movie(tmp_path / "two.npz")
    np.savez(tmp_path / "one.npz", STACK[0])
    assert len(open_movie(tmp_path / "one.npz")) == 1


def test_labels_shrink_to_little_and_are_no_bomb(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    y, x = np.mgrid[:2048, :2048]
    np.savez_compressed(tmp_path / "disc.npz", (y - 900) ** 2 + (x - 1000) ** 2 < 600**2)
    np.savez_compressed(tmp_path / "zeros.npz", np.zeros((2048, 2048), np.uint8))
    assert (tmp_path / "disc.npz").stat().st_size < 2048**2 / 300
    assert open_movie(tmp_path / "disc.npz").frame(0).sum() == pytest.approx(np.pi * 600**2, rel=1e-3)
    with pytest.raises(InputError, match="as no movie does"):
        open_movie(tmp_path / "zeros.npz")


@pytest.mark.parametrize(
    ("module", "kind", "extra"),
    [
        ("tifffile", "a.tif", "tiff"),
        ("av", "x.mp4", "video"),
        ("PIL.Image", "x.gif", "image"),
        ("PIL.Image", "png", "image"),
    ],
)
def test_missing_packages_are_named(sources: dict[str, Path], monkeypatch, module: str, kind: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    reader = import_module(f"gmrm_gpu.frames.{_reader(sources[kind])}")  # not in a child
    with pytest.raises(MissingDependencyError, match=rf"pip install 'gmrm-gpu\[{extra}\]'"):
        reader.open_file(sources[kind])


# ---- real recordings -------------------------------------------------------------------------------------------------


def real(shared_data: Path, name: str) -> Path:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"{name} is not among the real recordings on this machine")
    return path


@pytest.mark.parametrize(
    ("name", "n_frames", "shape", "pixel_size_um", "frame_time_s"),
    [
        ("crystal-growth-mit/example_crystal_growth.gif", 13, (303, 288), None, None),
        ("ti-insitu-tem-mit/Figure-3-Loop-Motion.mp4", 14, (550, 420), None, 0.25),
        ("ti-insitu-tem-mit/Figure-4-Line-Motion.mp4", 23, (660, 660), None, 0.25),
        ("ti-insitu-tem-mit/loop_1691-1698", 8, (550, 420), None, None),
        ("tem-np-800C-ccby/train_images.tif", 20, (512, 512), None, None),
        ("reader-files/rosettasciio/test_loading_image_saved_with_imageJ_stack.tif", 2, (68, 68), 0.168675, None),
        ("reader-files/rosettasciio/test_loading_image_saved_with_DM_stack.tif", 2, (68, 68), None, 2.5),
        ("reader-files/rosettasciio/optical_Zeiss_AxioVision_BW.tif", 1, (10, 13), None, None),
    ],
)
def test_real_files(
    shared_data: Path,
    name: str,
    n_frames: int,
    shape: tuple[int, int],
    pixel_size_um: float | None,
    frame_time_s: float | None,
) -> None:
    movie = open_movie(real(shared_data, name))
    assert (len(movie), movie.shape) == (n_frames, shape)
    assert movie.pixel_size_um == (None if pixel_size_um is None else pytest.approx(pixel_size_um, rel=1e-5))
    assert movie.frame_time_s == (None if frame_time_s is None else pytest.approx(frame_time_s))
    order = [n_frames - 1, 0, n_frames // 2]
    frames = [movie.frame(t).copy() for t in order]
    assert all(frame.std() > 0 for frame in frames)
    for t, frame in zip(order[::-1], frames[::-1], strict=True):
        np.testing.assert_array_equal(movie.frame(t), frame)


def test_real_video_shows_the_frames_of_the_real_folder(shared_data: Path) -> None:
    video = open_movie(real(shared_data, "ti-insitu-tem-mit/Figure-3-Loop-Motion.mp4"), crop="0:380,:")
    folder = open_movie(real(shared_data, "ti-insitu-tem-mit/loop_1691-1698"), crop="0:380,:")
    wanted = folder.frame(7).astype(float)
    stretched = [(video.frame(t).astype(float) - 16) * 255 / 219 for t in range(len(video))]
    error = [np.abs(frame - wanted).mean() for frame in stretched]
    assert int(np.argmin(error)) >= 10
    assert min(error) < 2


def test_the_crystal_grows_over_its_surroundings_in_the_real_gif(shared_data: Path) -> None:
    movie = open_movie(real(shared_data, "crystal-growth-mit/example_crystal_growth.gif"), crop="90:110,60:90")
    levels = [float(movie.frame(t).mean()) for t in range(len(movie))]
    assert levels[12] < 0.8 * levels[0]


def test_real_colour_is_refused(shared_data: Path) -> None:
    path = real(shared_data, "reader-files/pims/bulk-water.mov")
    with pytest.raises(InputError, match="in colour"):
        open_movie(path)
    movie = open_movie(path, luminance=True, frames="470:")
    assert len(movie) == 10
    assert movie.frame(9).shape == (424, 640)
    with pytest.raises(InputError, match="frame 1 of"):
        open_movie(real(shared_data, "reader-files/rosettasciio/olympus_SIS.tif"))


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([8, 9, 10, 11], None),
        ([0, 5, 10, 15], None),
        ([8, 9, 11, 12, 13], "1 file may be missing: the numbers in their names have gaps between 9 and 11"),
        ([0, 5, 10, 25, 30, 45, 50], "4 files may be missing: .* between 10 and 25, 30 and 45"),
        ([1700000000, 1700000013, 1700000021, 1700000040], None),  # times
        ([1, 7], None),
    ],
)
def test_gaps_in_the_numbers_of_a_folder_are_told(tmp_path: Path, numbers: list[int], told: str | None) -> None:
    for number in numbers:
        PIL.Image.fromarray(STACK[0]).save(tmp_path / f"run2_{number}.png")
    notes = open_movie(tmp_path).acquisition.notes
    assert len(notes) == (0 if told is None else 1)
    assert told is None or re.fullmatch(told, notes[0])
