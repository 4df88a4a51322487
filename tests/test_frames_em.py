"""Files of electron microscopes: true ones against their bytes read by hand, and made ones for what can go wrong."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dm4 import dm_image, write_dm4
from movies import read_all
from recordings import STACK, write_berkeley, write_hspy, write_mrc, write_tvips

from gmrm_gpu.errors import InputError, MissingDependencyError
from gmrm_gpu.frames import Movie, open_movie
from gmrm_gpu.frames.instruments import em
from gmrm_gpu.frames.units import frame_time, pixel_size, to_seconds, to_um

pytest.importorskip("rsciio", reason="RosettaSciIO (extra em) is not installed")
CETA, DETECTORS = "openncem/Camera Ceta Imaging Micro.emd", "openncem/STEM HAADF-DF4-DF2-BF Diffraction Micro.emd"
VELOX_STACK = "rosettasciio/fei_example_tem_stack.emd"
SERIES = ("128x128x5-diffraction_preview", "64x64x5_TEM_preview", "03_Scanning Preview")
TRUE_FILES = (
    *(f"openncem/dmTest_3D_int16_64,65,66.{kind}" for kind in ("dm3", "dm4")),
    *("openncem/temp.mrc", "openncem/After HAADF 130mm_1.ser", CETA, VELOX_STACK),
    *("rosettasciio/multi_signal.dm3", "rosettasciio/test_STEM_image.dm3", "rosettasciio/test-10.dm4"),
    *("rosettasciio/test_stackbuilder_imagestack.dm3", "rosettasciio/Custom_movie.mrc"),
    *(f"rosettasciio/{name}_1.ser" for name in SERIES),
    *(f"rosettasciio/{name}.emi" for name in SERIES),
)


@pytest.fixture
def true_file(shared_data: Path) -> Any:
    def find(name: str) -> Path:
        path = shared_data / "reader-files" / name
        if not path.exists():
            pytest.skip(f"{name} is not among the true instrument files on this machine")
        return path

    return find


def um(value: float) -> Any:
    return pytest.approx(value, rel=1e-6)


def notes(movie: Movie) -> str:
    return " | ".join(movie.acquisition.notes)


# ---- true files ------------------------------------------------------------------------------------------------------


def dm_tags(path: Path, name: str) -> list[float | str]:
    """Plain numbers and texts of all tags `name` of a DigitalMicrograph file, in the order of the file."""
    data, found = path.read_bytes(), []
    wide = data[3] == 4  # lengths and codes have 8 bytes in version 4, 4 in version 3
    size, code = (8, "q") if wide else (4, "i")
    for match in re.finditer(re.escape(struct.pack(">BH", 21, len(name)) + name.encode()), data):
        at = match.end() + (8 if wide else 0) + 4 + size  # total length (4 only), %%%%, length of the info
        (kind,) = struct.unpack_from(f">{code}", data, at)
        if kind in (5, 6):
            found.append(struct.unpack_from("<I" if kind == 5 else "<f", data, at + size)[0])
        elif kind == 20:
            (length,) = struct.unpack_from(f">{code}", data, at + 2 * size)
            found.append(data[at + 3 * size :][: 2 * length].decode("utf-16-le") if length < 99 else "")
    return found


@pytest.mark.parametrize("kind", ["dm3", "dm4"])
def test_a_gatan_stack_with_three_different_steps(true_file: Any, kind: str) -> None:
    path = true_file(f"openncem/dmTest_3D_int16_64,65,66.{kind}")
    assert dm_tags(path, "Scale")[-3:] == [2.0, 3.0, 4.0]
    assert dm_tags(path, "Units")[-3:] == ["pm", "nm", "um"]
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype) == (66, (65, 64), np.int16)
    np.testing.assert_array_equal(movie.frame(65), np.tile(np.arange(64), (65, 1)))  # a ramp, made on purpose
    assert (movie.pixel_size_um, movie.frame_time_s) == (None, None)
    assert "pixels are not square (x 2 pm, y 3 nm)" in notes(movie)
    assert "steps that are no time (4 um)" in notes(movie)


def test_gatan_images(true_file: Any) -> None:
    path = true_file("rosettasciio/test_STEM_image.dm3")
    assert dm_tags(path, "Units")[4:6] == ["nm", "nm"]
    scale = dm_tags(path, "Scale")[4]
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype) == (1, (68, 68), np.uint32)
    assert movie.pixel_size_um == um(scale * 1e-3) == um(0.000248538)
    assert movie.acquisition.detector == dm_tags(path, "Device Name")[0] == "DigiScan"
    assert movie.frame(0).tobytes() in path.read_bytes()

    path = true_file("rosettasciio/test_stackbuilder_imagestack.dm3")
    assert dm_tags(path, "Units")[4:6] == ["µm", "µm"]
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype) == (3, (2, 16), np.uint32)
    assert movie.pixel_size_um == um(0.0599829) == um(dm_tags(path, "Scale")[4])
    assert (movie.frame_time_s, movie.acquisition.notes) == (None, ())
    assert read_all(movie).tobytes() in path.read_bytes()

    movie = open_movie(true_file("rosettasciio/test-10.dm4"))
    assert read_all(movie).tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]  # bytes 01 00 02 00 ... of the file
    assert (movie.pixel_size_um, movie.acquisition.notes) == (None, ())


def test_a_gatan_file_with_a_survey_image_and_a_plot(true_file: Any) -> None:
    path = true_file("rosettasciio/multi_signal.dm3")
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype) == (1, (512, 512), np.uint16)
    assert movie.pixel_size_um == um(1.77515782e-5) == um(dm_tags(path, "Scale")[4] * 1e-3)
    assert notes(movie) == "the file also holds what is no movie: Plot (a spectrum, 512, float32)"
    np.testing.assert_array_equal(open_movie(path, signal=0).frame(0), movie.frame(0))
    with pytest.raises(InputError, match=r"no signal 1; it holds 0: HAADF \(an image, 512 x 512, uint16\)"):
        open_movie(path, signal=1)


def test_mrc_stacks(true_file: Any) -> None:
    for name, size in (("openncem/temp.mrc", 0.0002), ("rosettasciio/Custom_movie.mrc", None)):
        path = true_file(name)
        header = path.read_bytes()[:1024]
        nx, ny, nz, mode = struct.unpack_from("<4i", header)
        cell = struct.unpack_from("<2f", header, 40)  # angstroms: 256 for 128 pixels; -160 for 16 is no length
        assert size is None or (cell[0] / nx * 1e-4, cell[1] / ny * 1e-4) == (um(size), um(size))
        movie = open_movie(path)
        assert (len(movie), movie.shape, movie.dtype) == (nz, (ny, nx), {2: "float32", 6: "uint16"}[mode])
        assert movie.pixel_size_um == (None if size is None else um(size))
        assert notes(movie) == (
            "" if size else "the pixel size is not used, it is not a length above zero (x -1 nm, y -1 nm)"
        )
        np.testing.assert_array_equal(read_all(movie).reshape(-1), np.fromfile(path, movie.dtype, offset=1024))
    assert (len(movie), movie.shape) == (30, (16, 16))


def ser_images(path: Path) -> tuple[np.ndarray, float, list[int]]:
    """(T, y, x) images from the bottom up, pixel size in metres and whole seconds of a TIA series."""
    data = path.read_bytes()
    order, series, version, kind, _, total, n = struct.unpack_from("<3h4i", data)
    assert (order, series, kind) == (0x4949, 0x197, 0x4122)
    size, code = {0x210: (4, "<i"), 0x220: (8, "<q")}[version]  # of the places in the file
    (table,) = struct.unpack_from(code, data, 22)  # first those of the images, then those of their times
    images, seconds = [], []
    for i in range(n):
        (at,), (tag,) = (struct.unpack_from(code, data, table + size * place) for place in (i, total + i))
        step, kind, nx, ny = *struct.unpack_from("<d", data, at + 8), *struct.unpack_from("<hii", data, at + 40)
        images.append(np.frombuffer(data, {2: "<u2", 6: "<i4", 7: "<f4"}[kind], nx * ny, at + 50).reshape(ny, nx))
        seconds.append(struct.unpack_from("<i", data, tag + 4)[0])
    return np.stack(images), step, seconds


@pytest.mark.parametrize(
    ("name", "size_um", "frame_time_s", "detector"),
    [
        ("rosettasciio/64x64x5_TEM_preview", 0.006281833616, None, "WA-Orius"),
        # FrameTime 0.235930 stands in the XML part of the .emi file.
        ("rosettasciio/03_Scanning Preview", 0.000384352488, 0.23593, None),
        ("rosettasciio/128x128x5-diffraction_preview", None, None, "BM-Ceta"),
        ("openncem/After HAADF 130mm", 0.003270361189, None, None),
    ],
)
def test_tia_series(true_file: Any, name: str, size_um: float | None, frame_time_s: Any, detector: Any) -> None:
    path = true_file(f"{name}_1.ser")
    images, step, seconds = ser_images(path)
    about = true_file(f"{name}.emi")
    for source in (path, about):
        movie = open_movie(source)
        assert (len(movie), movie.shape, movie.dtype) == (len(images), images.shape[1:], images.dtype)
        np.testing.assert_array_equal(read_all(movie), images[:, ::-1])
        assert movie.pixel_size_um == (None if size_um is None else um(step * 1e6)) == (size_um and um(size_um))
        assert (movie.frame_time_s, movie.acquisition.detector) == (frame_time_s, detector)
        assert ("1 / nm" in notes(movie)) == (size_um is None)
        assert ("kept to 1 s only" in notes(movie)) == (len(images) > 1 and frame_time_s is None)
    assert max(seconds) - min(seconds) <= 1
    assert detector is None or f"<CameraNamePath>{detector}<".encode() in about.read_bytes()
    assert ("planned for 200 images and holds 5" in notes(movie)) == ("Scanning" in name)


def test_tia_series_without_their_emi_file(true_file: Any, tmp_path: Path) -> None:
    lone = Path(shutil.copy(true_file("rosettasciio/64x64x5_TEM_preview_1.ser"), tmp_path))
    movie = open_movie(lone)
    assert movie.pixel_size_um == um(0.006281833616)
    assert ".emi file beside the .ser file is missing or damaged: the detector is unknown" in notes(movie)
    (tmp_path / "64x64x5_TEM_preview.emi").write_bytes(b"no XML")
    np.testing.assert_array_equal(open_movie(lone).frame(4), movie.frame(4))

    # Reciprocal metres taken for metres: 4e10 m a pixel.
    lone = Path(shutil.copy(true_file("rosettasciio/128x128x5-diffraction_preview_1.ser"), tmp_path))
    movie = open_movie(lone)
    assert movie.pixel_size_um is None
    assert "too large for a micrograph" in notes(movie)

    about = Path(shutil.copy(true_file("rosettasciio/03_Scanning Preview.emi"), tmp_path))
    with pytest.raises(InputError, match=r"\.ser files beside it, which do, are missing"):
        open_movie(about)


def velox(path: Path) -> dict[str, tuple[np.ndarray, list[dict[str, Any]]]]:
    """Images (T, y, x) and the metadata of their frames, by detector."""
    found = {}
    with h5py.File(path) as file:
        for group in file["Data/Image"].values():
            columns = [bytes(column).split(b"\0")[0] for column in group["Metadata"][:].T]
            about = [json.loads(column) for column in columns]
            found[about[0]["BinaryResult"]["Detector"]] = np.moveaxis(group["Data"][:], -1, 0), about
    return found


@pytest.mark.parametrize(("name", "detector"), [(CETA, "BM-Ceta"), (VELOX_STACK, "BM-Ceta")])
def test_velox_cameras(true_file: Any, name: str, detector: str) -> None:
    path = true_file(name)
    pixels, about = velox(path)[detector]
    movie = open_movie(path)
    np.testing.assert_array_equal(read_all(movie), pixels)
    assert movie.dtype == pixels.dtype == np.int16
    size = about[0]["BinaryResult"]["PixelSize"]
    assert movie.pixel_size_um == um(float(size["width"]) * 1e6) == um(float(size["height"]) * 1e6)
    assert (movie.acquisition.detector, movie.acquisition.bit_depth) == (detector, 16)
    assert notes(movie) == ""


def test_velox_frames_are_timed_by_their_stamps_and_not_by_the_exposure(true_file: Any, tmp_path: Path) -> None:
    # not the permissions, which may be to read only
    path = Path(shutil.copyfile(true_file(VELOX_STACK), tmp_path / Path(VELOX_STACK).name))
    key = "Detectors[BM-Ceta].TimeStamp"
    first, second = (int(frame["CustomProperties"][key]["value"]) for frame in velox(path)["BM-Ceta"][1])
    assert (second - first) * 1e-6 == pytest.approx(0.799976)
    assert open_movie(path).frame_time_s == pytest.approx(0.799976)
    with h5py.File(path, "r+") as file:
        (group,) = file["Data/Image"].values()
        column = bytes(group["Metadata"][:, 1]).replace(str(second).encode(), str(first + 3_000_000).encode())
        group["Metadata"][:, 1] = np.frombuffer(column, np.uint8)
    assert open_movie(path).frame_time_s == pytest.approx(3.0)
    with h5py.File(path, "r+") as file:
        (group,) = file["Data/Image"].values()
        group["Metadata"][:, 1] = 0
    movie = open_movie(path)
    assert movie.frame_time_s == pytest.approx(0.8)
    assert "exposure time of the camera" in notes(movie)


def test_a_velox_file_of_four_detectors(true_file: Any) -> None:
    path = true_file(DETECTORS)
    with pytest.raises(InputError) as caught:
        open_movie(path)
    listed = re.findall(r"(\d): (\w+) \(an image, 128 x 128, uint16\)", str(caught.value))
    assert "give --signal N" in str(caught.value)
    truth = velox(path)
    assert sorted(name for _, name in listed) == sorted(truth)
    for number, name in listed:
        movie = open_movie(path, signal=int(number))
        np.testing.assert_array_equal(read_all(movie), truth[name][0])
        assert movie.acquisition.detector == name
        assert movie.pixel_size_um == um(float(truth[name][1][0]["BinaryResult"]["PixelSize"]["width"]) * 1e6)
    with pytest.raises(InputError, match="no signal 4"):
        open_movie(path, signal=4)


def test_a_velox_file_with_x_ray_spectra(true_file: Any, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(true_file(CETA), tmp_path / Path(CETA).name))
    with h5py.File(path, "r+") as file:
        file.create_group("Data/SpectrumImage/a")
        file.create_group("Data/SpectrumStream/b")
    if find_spec("sparse") is None:
        with pytest.raises(MissingDependencyError, match="needs sparse: pip install sparse"):
            open_movie(path)
    else:
        assert "no movie: SpectrumStream, SpectrumImage" in notes(open_movie(path))


def test_a_block_file_is_a_scan_and_no_movie(true_file: Any) -> None:
    with pytest.raises(InputError, match=r"test1.blo is no movie.*a scan with an image at each place, 3 x 2 x 144"):
        open_movie(true_file("rosettasciio/test1.blo"))


@pytest.mark.parametrize("name", TRUE_FILES)
def test_damaged_true_files_are_refused_in_one_line(true_file: Any, tmp_path: Path, name: str) -> None:
    source = true_file(name)
    data = source.read_bytes()
    path = tmp_path / source.name
    if path.suffix == ".emi":
        shutil.copy(source.with_name(f"{source.stem}_1.ser"), tmp_path)
    for part in (0.0005, 0.3, 0.95):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(InputError, match=r"damaged|truncated") as caught:
            open_movie(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\x07" * len(data))
    with pytest.raises(InputError):
        open_movie(path)


# ---- made files ------------------------------------------------------------------------------------------------------


def test_gatan_calibration_of_time_and_mixed_units(tmp_path: Path) -> None:
    def opened(scales: tuple[float, ...], units: tuple[str, ...], pixels: np.ndarray = STACK) -> Movie:
        return open_movie(write_dm4(tmp_path / "a.dm4", dm_image(pixels, scales=scales, units=units)))

    movie = opened((2.0, 2000.0, 40.0), ("nm", "pm", "ms"))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert (movie.pixel_size_um, movie.frame_time_s, notes(movie)) == (um(0.002), um(0.04), "")
    assert opened((0.5, 0.5, 2.0), ("\u03bcm", "\u00b5m", "s")).pixel_size_um == um(0.5)
    movie = opened((0.1, 0.1, 0.5), ("1/nm", "1/nm", ""))
    assert (movie.pixel_size_um, movie.frame_time_s) == (None, None)
    assert "x 0.1 1/nm" in notes(movie)
    assert "0.5 without a unit" in notes(movie)
    # Cameras of 4096 pixels whose drift correction cut some off: square to a thousandth.
    assert opened((0.05071414, 0.05070176, 1.0), ("nm", "nm", "s")).pixel_size_um == um(5.071414e-5)
    assert "not square" in notes(opened((1.0, 1.01, 1.0), ("nm", "nm", "s")))
    energies = dm_image(STACK, scales=(1.0, 1.0, 0.5), units=("nm", "nm", "eV"))
    with pytest.raises(InputError, match=r"no movie, it holds signal .spectra, 4 x 5 x 7"):
        open_movie(write_dm4(tmp_path / "e.dm4", energies))


def test_several_stacks_in_one_gatan_file(tmp_path: Path) -> None:
    images = dm_image(STACK, name="before"), dm_image(STACK[::-1].astype(np.float32), name="after")
    path = write_dm4(tmp_path / "two.dm4", *images)
    with pytest.raises(InputError, match=r"2 signals, 0: before \(images, 4 x 5 x 7, uint16\), 1: after .*--signal N"):
        open_movie(path)
    np.testing.assert_array_equal(read_all(open_movie(path, signal=1)), STACK[::-1])


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = write_dm4(tmp_path / "a.dm4", dm_image(STACK))
    data = bytearray(path.read_bytes())
    data[15] = 0
    path.write_bytes(data)
    with pytest.raises(InputError, match="big-endian"):
        open_movie(path)
    path = write_mrc(tmp_path / "a.mrc", STACK)
    data = bytearray(path.read_bytes())
    data[212:214] = b"\x11\x11"
    path.write_bytes(data)
    with pytest.raises(InputError, match="big-endian"):
        open_movie(path)


def test_mrc_of_a_direct_electron_camera_takes_its_times_from_the_info_file(tmp_path: Path) -> None:
    stack = (STACK % 251).astype(np.uint8)
    path = write_mrc(tmp_path / "20260102_00012_movie.mrc", stack)
    movie = open_movie(path)
    assert (movie.pixel_size_um, movie.frame_time_s, movie.dtype) == (um(0.002), None, np.uint8)
    assert "8-bit grey levels of MRC files are taken as 0 to 255" in notes(movie)
    np.testing.assert_array_equal(read_all(movie), stack)
    lines = [
        "Camera Model = DE-16",
        "Frames Per Second = 50",
        "Autosave Movie Sum Count = 5",
        "Scan - Enable = Disable",
    ]
    lines += ["Specimen Pixel Size X (nanometers) = 0.8", "Specimen Pixel Size Y (nanometers) = 0.8"]
    (tmp_path / "20260102_00012_info.txt").write_text("\n".join(lines))
    movie = open_movie(path)
    assert movie.frame_time_s == pytest.approx(0.1)  # five of the camera's frames, 20 ms each, are one of the file
    assert (movie.pixel_size_um, movie.acquisition.detector) == (um(0.0008), "DE-16")


@pytest.mark.parametrize("version", [1, 2])
def test_a_tvips_stream_in_two_files_is_timed_by_its_frames(tmp_path: Path, version: int) -> None:
    movie = open_movie(write_tvips(tmp_path, [900, 1000, 1101, 1200], version))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert movie.frame_time_s == pytest.approx(0.1)
    assert (movie.pixel_size_um, movie.dtype, movie.acquisition.detector) == (um(0.003), np.uint16, None)
    assert notes(movie) == "the pixel size of a TVIPS stream may be that of the camera, not of the specimen: check it"
    movie = open_movie(write_tvips(tmp_path, [0, 100, 900, 1000], version))
    assert movie.frame_time_s is None
    assert movie.acquisition.times_s == pytest.approx([0, 0.1, 0.9, 1.0])
    assert "unevenly spaced in time, by 0.1 to 0.8 s" in notes(movie)
    assert "do not ascend" in notes(open_movie(write_tvips(tmp_path, [0, 100, 50, 1000], version)))


def test_tvips_streams_that_need_a_word(tmp_path: Path) -> None:
    movie = open_movie(write_tvips(tmp_path, [0, 100, 200, 300], mode=2))
    assert (movie.pixel_size_um, notes(movie).split(",")[0]) == (None, "the pixel size is not used")
    path = write_tvips(tmp_path, [0, 100, 200, 300], scan=1)
    assert "numbers of scan positions" in notes(open_movie(path))
    with pytest.raises(InputError, match=r"the file that ends in _000\.tvips"):
        open_movie(tmp_path / "s_001.tvips")
    whole = path.read_bytes()
    for data, why in ((whole[:-9], "truncated: 2 frames"), (whole[:30], "header"), (b"\7" * 900, "no TVIPS stream")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=why):
            open_movie(path)


def test_berkeley_files_are_upright_whatever_the_order_of_their_axes(tmp_path: Path) -> None:
    time, y, x = ("time", "[s]", 0.5), ("y", "[n_m]", 2.0), ("x", "[n_m]", 2.0)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        axes = [(time, y, x)[i] for i in order]
        movie = open_movie(write_berkeley(tmp_path / f"a{order}.emd", STACK.transpose(order), axes))
        np.testing.assert_array_equal(read_all(movie), STACK)
        assert (movie.pixel_size_um, movie.frame_time_s) == (um(0.002), um(0.5))
    movie = open_movie(write_berkeley(tmp_path / "b.de5", STACK[0], [y, x]))  # Direct Electron's name for the format
    np.testing.assert_array_equal(movie.frame(0), STACK[0])
    nameless = [("a", "", 1.0), ("b", "", 1.0), ("c", "", 1.0)]
    with pytest.raises(InputError, match="its axes 'c', 'b', 'a' are not named time, y and x"):
        open_movie(write_berkeley(tmp_path / "c.emd", STACK, nameless))
    # No names, but one unit of time: rows and columns as stored.
    timed = [("a", "[m_s]", 250.0), ("b", "", 1.0), ("c", "", 1.0)]
    movie = open_movie(write_berkeley(tmp_path / "d.emd", STACK, timed))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert movie.frame_time_s == um(0.25)


def test_hyperspy_files(tmp_path: Path) -> None:
    time = {"name": "t", "navigate": True, "scale": 2.0, "units": "min"}
    y, x = ({"name": name, "navigate": False, "scale": 0.5, "units": "um"} for name in "yx")
    movie = open_movie(write_hspy(tmp_path / "a.hspy", {"movie": (STACK, [time, y, x])}))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert (movie.pixel_size_um, movie.frame_time_s, movie.acquisition.detector) == (um(0.5), um(120), "OneView")
    place = {"name": "p", "navigate": True}
    four = {"scan": (STACK[:, None].repeat(2, 1), [place, place, y, x])}
    with pytest.raises(InputError, match=r"no movie, it holds scan .a scan with an image at each place, 4 x 2 x 5 x 7"):
        open_movie(write_hspy(tmp_path / "b.hspy", four))
    both = {"movie": (STACK, [time, y, x]), "waves": (STACK + 1j, [time, y, x]), **four}
    movie = open_movie(write_hspy(tmp_path / "c.hspy", both))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert "waves (complex numbers" in notes(movie)
    assert "scan (a scan" in notes(movie)
    file = write_hspy(tmp_path / "d.hspy", {"nan": (np.where(STACK > 900, np.nan, STACK), [time, y, x])})
    assert len(open_movie(file)) == 4


def test_colour_needs_to_be_asked_for(tmp_path: Path) -> None:
    fields = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour = np.zeros(STACK.shape, fields)
    colour["R"] = STACK % 200
    y, x = ({"name": name, "navigate": False} for name in "yx")
    path = write_hspy(tmp_path / "a.hspy", {"movie": (colour, [{"name": "t", "navigate": True}, y, x])})
    with pytest.raises(InputError, match=r"in colour; give --luminance .luminance=True. to turn it into grey$"):
        open_movie(path)
    grey = np.rint(0.299 * (STACK % 200)).astype(np.uint8)
    # DigitalMicrograph packs blue, green, red and alpha into four bytes, type 23.
    image = dm_image((STACK[0] % 200).astype(np.int32) << 16)
    image["ImageData"]["DataType"] = 23
    red = write_dm4(tmp_path / "a.dm4", image)
    with pytest.raises(InputError, match="in colour; give --luminance"):
        open_movie(red)
    np.testing.assert_array_equal(open_movie(red, luminance=True).frame(0), grey[0])
    np.testing.assert_array_equal(read_all(open_movie(path, luminance=True)), grey)


def test_frames_are_read_in_any_order_by_several_threads(tmp_path: Path) -> None:
    stack = np.arange(60 * 40 * 50, dtype=np.uint16).reshape(60, 40, 50)
    y, x = ({"name": name, "navigate": False} for name in "yx")
    sources = [
        write_hspy(tmp_path / "a.hspy", {"movie": (stack, [{"name": "t", "navigate": True}, y, x])}),
        write_dm4(tmp_path / "a.dm4", dm_image(stack)),
        write_mrc(tmp_path / "a.mrc", stack),
    ]
    order = np.random.default_rng(3).permutation(60).tolist()
    for path in sources:
        movie = open_movie(path)
        with ThreadPoolExecutor(4) as pool:
            np.testing.assert_array_equal(np.stack(list(pool.map(movie.frame, order))), stack[order])
        del movie
    with h5py.File(sources[0], "r+"):  # closed by now
        pass


def test_a_large_stack_is_not_read_to_open_it(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrc", np.zeros((1, 512, 512), np.uint16))
    data = bytearray(path.read_bytes()[:1024])
    struct.pack_into("<i", data, 8, 200_000)  # 100 GB, a hole on the disk
    path.write_bytes(data)
    with path.open("r+b") as file:
        try:
            file.truncate(1024 + 200_000 * 512 * 512 * 2)
        except OSError:
            pytest.skip("the file system has no files with holes")
        file.seek(1024 + 123_456 * 512 * 512 * 2)
        file.write(b"\x01\x02")
    movie = open_movie(path)
    assert len(movie) == 200_000
    assert movie.frame(123_456)[0, 0] == 0x0201
    assert not movie.frame(7).any()
    path.unlink()


def test_one_frame_of_a_large_hdf5_stack_is_read_alone(tmp_path: Path) -> None:
    axes = [("time", "[s]", 0.5), ("y", "[n_m]", 2.0), ("x", "[n_m]", 2.0)]
    path = write_berkeley(tmp_path / "a.emd", np.zeros((2, 512, 512), np.uint16), axes)
    with h5py.File(path, "r+") as file:
        group = file["data/movie"]
        del group["data"], group["dim1"]
        stack = group.create_dataset("data", (20_000, 512, 512), np.uint16)  # 10 GB in one piece, of which one is there
        try:
            stack[12_345] = 7
        except OSError:
            pytest.skip("the file system has no files with holes")
        dim = group.create_dataset("dim1", data=0.5 * np.arange(20_000))
        dim.attrs["name"], dim.attrs["units"] = "time", "[s]"
    movie = open_movie(path)
    assert (len(movie), movie.frame_time_s) == (20_000, um(0.5))
    assert (movie.frame(12_345) == 7).all()
    assert not movie.frame(12_344).any()
    path.unlink()


def test_without_rosettasciio_the_command_to_install_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dm4(tmp_path / "a.dm4", dm_image(STACK))
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gmrm-gpu\[em\]'"):
        em.open_file(path)


# ---- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *(("nm", 1e-3), ("NM", 1e-3), ("nanometers", 1e-3), ("pm", 1e-6), ("um", 1), ("\u00b5m", 1), ("\u03bcm", 1)),
        *(("A", 1e-4), ("\u00c5", 1e-4), ("\u212b", 1e-4), ("A\u030a", 1e-4), ("angstrom", 1e-4), ("micron", 1)),
        *(("mm", 1e3), ("m", 1e6), ("metres", 1e6), ("meters", 1e6), ("cm", 1e4), ("inch", 25400), ("\\u00B5m", 1)),
        *(("1/nm", None), ("nm^-1", None), ("1 / nm", None), ("mrad", None), ("px", None), ("", None), (None, None)),
    ],
)
def test_units_of_length(unit: str | None, expected: float | None) -> None:
    assert to_um(2, unit) == (None if expected is None else um(2 * expected))


def test_units_of_time_and_what_is_no_number() -> None:
    found = [to_seconds(3, unit) for unit in ("s", "sec", "ms", "us", "µs", "min", "hours", "ns", "frames", "nm")]
    assert found == [3, 3, um(3e-3), um(3e-6), um(3e-6), 180, 10800, um(3e-9), None, None]
    assert [to_um(value, "nm") for value in (0, -1, np.nan, np.inf, None, "x")] == [None] * 6
    assert to_um("2.5", "nm") == um(0.0025)


def test_square_pixels_and_frame_times() -> None:
    assert pixel_size((2, "nm"), (-2000, "pm")) == (um(0.002), None)  # y may run upwards
    assert pixel_size((1, ""), (1, None)) == (None, None)
    for x, y, why in (
        ((2, "nm"), (2, "1/nm"), "not a length"),
        ((2, "nm"), (2.1, "nm"), "not square"),
        ((2, ""), (2, ""), "2 without a unit"),
        ((-1, "nm"), (-1, "nm"), "above zero"),
        ((4e10, "m"), (4e10, "m"), "too large"),
    ):
        size, note = pixel_size(x, y)
        assert size is None
        assert why in note
    assert frame_time(40, "ms") == (um(0.04), None)
    assert frame_time(1, "") == frame_time(None, None) == (None, None)
    assert "no time (4 um)" in frame_time(4, "um")[1]
