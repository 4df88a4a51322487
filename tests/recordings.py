"""Tiny files of instruments and cameras, written by hand from what is known of each format."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

STACK = np.random.default_rng(11).integers(0, 999, (4, 5, 7)).astype(np.uint16)


def write_mrc(path: Path, stack: np.ndarray, size_angstrom: float = 20.0) -> Path:
    """MRC 2014: 1024 bytes of header, then the frames."""
    header = bytearray(1024)
    n, height, width = stack.shape
    mode = {"uint8": 0, "int16": 1, "float32": 2, "uint16": 6}[stack.dtype.name]
    struct.pack_into("<10i", header, 0, width, height, n, mode, 0, 0, 0, width, height, n)
    struct.pack_into("<3f", header, 40, width * size_angstrom, height * size_angstrom, float(n))
    header[208:216] = b"MAP DD\0\0"
    path.write_bytes(bytes(header) + stack.tobytes())
    return path


def write_tvips(folder: Path, milliseconds: list[int], version: int = 2, mode: int = 1, scan: int = 0) -> Path:
    """Four frames of `STACK`, three in the first part."""
    size, records = {1: 12, 2: 80}[version], []
    for number, (frame, ms) in enumerate(zip(STACK, milliseconds, strict=True)):
        seconds = 1_700_000_000 + ms // 1000
        head = struct.pack("<4If2I5fI2f", number, seconds, ms % 1000, 0, 0, 1, mode, *[0.0] * 5, scan * number, 0, 0)
        records.append(head.ljust(size, b"\0")[:size] + frame.tobytes())
    header = struct.pack("<13I", 256, version, 7, 5, 16, 0, 0, 1, 1, 3, 200_000, 50_000, size)
    (folder / "s_000.tvips").write_bytes(header.ljust(256, b"T") + b"".join(records[:3]))
    (folder / "s_001.tvips").write_bytes(b"".join(records[3:]))
    return folder / "s_000.tvips"


def write_berkeley(path: Path, data: np.ndarray, axes: list[tuple[str, str, float]]) -> Path:
    """EMD 0.2 as ncempy writes it: dim1 is the first axis of the data."""
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/movie")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for number, (name, unit, step) in enumerate(axes, 1):
            dim = group.create_dataset(f"dim{number}", data=step * np.arange(data.shape[number - 1]))
            dim.attrs["name"], dim.attrs["units"] = name, unit
    return path


def write_hspy(path: Path, signals: dict[str, tuple[np.ndarray, list[dict[str, Any]]]], **about: Any) -> Path:
    """HyperSpy's HDF5 layout, version 3.3."""
    with h5py.File(path, "w") as file:
        file.attrs["file_format"], file.attrs["file_format_version"] = "HyperSpy", "3.3"
        for title, (data, axes) in signals.items():
            group = file.create_group(f"Experiments/{title}")
            group["data"] = data
            for number, axis in enumerate(axes):
                made = {"offset": 0.0, "scale": 1.0, "units": "", "size": data.shape[number], **axis}
                group.create_group(f"axis-{number}").attrs.update({"_type": "UniformDataAxis", **made})
            group.create_group("metadata/General").attrs["title"] = title
            group.create_group("metadata/Signal").attrs.update({"signal_type": "", **about})
            group.create_group("original_metadata")
            camera = group.create_group("metadata/Acquisition_instrument/TEM/Detector/Camera")
            camera.attrs["name"] = "OneView"
    return path


def write_seq(path: Path, stack: np.ndarray, times_ms: list[int], version: int = 5, kind: int = 100, **at: int) -> Path:
    n, height, width = stack.shape
    bits, start = 8 * stack.dtype.itemsize, 8192 if version >= 5 else 1024
    frames = []
    for frame, ms in zip(stack, times_ms, strict=True):
        stamp = struct.pack("<IH", 1_700_000_000 + ms // 1000, ms % 1000) + (b"\0\0" if version >= 5 else b"")
        frames.append((frame.tobytes() + stamp).ljust(1024, b"\0"))
    header = bytearray(start)
    struct.pack_into("<I", header, 0, 0xFEED)
    struct.pack_into("<i", header, 28, version)
    fields = (width, height, bits, 12 if bits == 16 else bits, frame.nbytes, kind, n, 0, 1024, 25.0)
    struct.pack_into("<9Id", header, 548, *fields)
    for place, value in at.items():
        struct.pack_into("<I", header, int(place.strip("_")), value)
    path.write_bytes(bytes(header) + b"".join(frames))
    return path


def write_ser(path: Path, stack: np.ndarray, size_m: float = 2e-9) -> Path:
    """A TIA series of uint16 images, version 0x220: header, one dimension, images with their headers, then places."""
    n, height, width = stack.shape
    label = struct.pack("<IddII", n, 0.0, 1.0, 0, 6) + b"Number" + struct.pack("<I", 0)
    at = 34 + len(label)
    image = struct.pack("<ddiddihii", 0.0, size_m, 0, 0.0, size_m, 0, 2, width, height)
    images = [image + frame[::-1].astype("<u2").tobytes() for frame in stack]
    tags = [struct.pack("<HHI", 0x4152, 0, 1_700_000_000 + t) for t in range(n)]
    places = at + len(images[0]) * np.arange(n + 1)
    times = int(places[-1]) + 16 * n + 8 * np.arange(n)
    header = struct.pack("<HHHIIIIQI", 0x4949, 0x0197, 0x0220, 0x4122, 0x4152, n, n, int(places[-1]), 1)
    body = b"".join(images) + places[:-1].astype("<u8").tobytes() + times.astype("<u8").tobytes()
    path.write_bytes(header + label + body + b"".join(tags))
    return path


def write_velox(path: Path, stack: np.ndarray) -> Path:
    """A Velox stack of a camera: pixels (y, x, time) in chunks of a frame, a column of JSON for each."""
    n = len(stack)
    columns = np.zeros((2000, n), np.uint8)
    for t in range(n):
        about = {
            "BinaryResult": {"PixelSize": {"width": "2e-09", "height": "2e-09"}, "PixelUnitX": "m", "PixelUnitY": "m"},
            "CustomProperties": {"Detectors[Ceta].TimeStamp": {"type": "long", "value": str(10**6 + 40_000 * t)}},
            "Detectors": {"Detector-0": {"DetectorName": "Ceta", "ExposureTime": "0.04"}},
            "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}},
            "Scan": {},
        }
        about["BinaryResult"] |= {"DetectorIndex": "0", "Detector": "Ceta"}
        text = json.dumps(about).encode()
        columns[: len(text), t] = list(text)
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([json.dumps({"format": "Velox", "version": "11"}).encode()], object)
        group = file.create_group("Data/Image/0123456789abcdef")
        pixels = np.moveaxis(stack, 0, 2)
        group.create_dataset("Data", data=pixels, chunks=(*pixels.shape[:2], 1))
        group.create_dataset("Metadata", data=columns, chunks=(2000, 1))
    return path
