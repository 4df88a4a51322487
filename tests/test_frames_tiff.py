"""TIFF: calibration, odd layouts, and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from movies import (
    STACK,
    H,
    Spy,
    T,
    W,
    read_all,
)

from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.frames import ArrayMovie, open_movie, save_movie

# ---- TIFF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "float64", "uint32"])
def test_saved_tiff_restores_pixels_and_calibration(tmp_path: Path, dtype: str) -> None:
    source = ArrayMovie(STACK.astype(dtype), pixel_size_um=0.0125, frame_time_s=0.4)
    movie = open_movie(save_movie(source, tmp_path / "a.tif"))
    np.testing.assert_array_equal(read_all(movie), STACK)
    assert movie.dtype == dtype
    assert movie.pixel_size_um == pytest.approx(0.0125, rel=1e-6)
    assert movie.frame_time_s == pytest.approx(0.4)


def test_saving_views_one_frame_npy_and_refusals(tmp_path: Path) -> None:
    source = ArrayMovie(STACK, frame_time_s=0.4)
    part = open_movie(save_movie(open_movie(source, frames="::2", crop="1:9,2:7"), tmp_path / "v.tif"))
    np.testing.assert_array_equal(read_all(part), STACK[::2, 1:9, 2:7])
    assert part.frame_time_s == pytest.approx(0.8)
    assert open_movie(save_movie(STACK[0], tmp_path / "one.tif")).frame(0).tolist() == STACK[0].tolist()
    np.testing.assert_array_equal(np.load(save_movie(STACK, tmp_path / "a.npy")), STACK)
    with pytest.raises(OutputError, match="exists"):
        save_movie(STACK, tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(save_movie(STACK[:2], tmp_path / "a.npy", overwrite=True)), STACK[:2])
    with pytest.raises(OutputError, match=r"use \.npy or \.tif"):
        save_movie(STACK, tmp_path / "a.mp4")
    with pytest.raises(OutputError, match="int64"):
        save_movie(STACK.astype(np.int64), tmp_path / "b.tif")
    with pytest.raises(OutputError, match="cannot write"):
        save_movie(STACK, tmp_path / "absent" / "b.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "one.tif", "v.tif"]


def test_a_failure_while_writing_leaves_no_file(tmp_path: Path) -> None:
    class Breaks(Spy):
        def _read(self, t: int) -> np.ndarray:
            if t == 5:
                raise InputError("frame 5 is damaged")
            return super()._read(t)

    for name in ("a.npy", "a.tif"):
        with pytest.raises(InputError, match="frame 5"):
            save_movie(Breaks(STACK), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("CENTIMETER", (2e6, 2e6), 0.005),
        ("CENTIMETER", (2e6, 1e6), None),
        ("INCH", (300, 300), None),
        (None, (1, 1), None),
    ],
)
def test_resolution_tags_are_calibration_only_where_plausible(
    tmp_path: Path, unit: str | None, per_unit: tuple[float, float], expected: float | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", resolution=per_unit, resolutionunit=unit)
    movie = open_movie(tmp_path / "a.tif")
    assert movie.pixel_size_um == (None if expected is None else pytest.approx(expected))
    assert movie.frame_time_s is None
    assert ("pixels are not square" in " ".join(movie.acquisition.notes)) == (per_unit == (2e6, 1e6))


@pytest.mark.parametrize(
    ("unit", "size_um"),
    [("nm", 0.0005), ("\\u00B5m", 0.5), ("micron", 0.5), ("inch", 12700.0), ("pixel", None), ("", None)],
)
def test_imagej_units(tmp_path: Path, unit: str, size_um: float | None) -> None:
    metadata = {"unit": unit, "finterval": 250, "tunit": "ms"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 2), metadata=metadata)
    movie = open_movie(tmp_path / "a.tif")
    assert movie.pixel_size_um == (None if size_um is None else pytest.approx(size_um))
    assert movie.frame_time_s == pytest.approx(0.25)


def test_ome_units(tmp_path: Path) -> None:
    metadata = {
        "axes": "TYX",
        "PhysicalSizeX": 3.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 3.0,
        "PhysicalSizeYUnit": "nm",
        "TimeIncrement": 2.0,
        "TimeIncrementUnit": "min",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata)
    movie = open_movie(tmp_path / "a.ome.tif")
    assert (movie.pixel_size_um, movie.frame_time_s) == (pytest.approx(0.003), pytest.approx(120.0))
    assert len(movie) == T


def test_palette_tiff_and_bilevel_tiff(tmp_path: Path) -> None:
    inverted = np.repeat(np.arange(255, -1, -1, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(tmp_path / "p.tif", STACK[0], photometric="palette", colormap=inverted)
    np.testing.assert_array_equal(open_movie(tmp_path / "p.tif").frame(0), 255 - STACK[0])
    tifffile.imwrite(tmp_path / "b.tif", STACK[0] > 99, photometric="minisblack")
    np.testing.assert_array_equal(open_movie(tmp_path / "b.tif").frame(0), STACK[0] > 99)


def test_tiffs_that_are_no_movie(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as writer:
        for frame in (STACK[0], STACK[1], STACK[2, :20]):
            writer.write(frame, photometric="minisblack")
    with pytest.raises(InputError, match=r"frame 2 of sizes\.tif is 20 x 34"):
        open_movie(tmp_path / "sizes.tif")
    tifffile.imwrite(tmp_path / "channels.tif", STACK[:8].reshape(4, 2, H, W), imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(InputError, match="axes T = 4, C = 2"):
        open_movie(tmp_path / "channels.tif")
    tifffile.imwrite(tmp_path / "complex.tif", STACK.astype(np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="complex64"):
        open_movie(tmp_path / "complex.tif")


@pytest.mark.parametrize("lost", [0, 1])
def test_bytes_that_no_page_leads_to_are_told_and_those_of_tags_are_not(tmp_path: Path, lost: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 16), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(60):  # much metadata and many strips on each page, as microscopes and libraries write them
            file.write(noise, contiguous=False, metadata=None, description="x" * 2000, rowsperstrip=1)
    with (tmp_path / "a.tif").open("ab") as tail:
        tail.write(bytes(100_000 * lost))
    notes = open_movie(tmp_path / "a.tif").acquisition.notes
    assert [("belong to none of its 60 frames" in note) for note in notes] == [True] * lost
