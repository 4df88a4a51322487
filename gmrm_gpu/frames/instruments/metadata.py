"""What only the makers' own files tell: detector, bit depth, times of frames, and traps of each format."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..axes import UNKNOWN, Axis, calibrated
from ..counts import check_count
from ..movie import Acquisition
from ..objects import detector_name
from .stamps import stamped, told, velox_stamps

_DETECTOR = (
    ("BinaryResult", "Detector"),
    ("ImageList", "TagGroup0", "ImageTags", "Acquisition", "Device", "Name"),
    ("ImageList", "TagGroup0", "ImageTags", "DataBar", "Device Name"),
    ("ObjectInfo", "AcquireInfo", "CameraNamePath"),
    ("de_metadata", "Camera Model"),
)
_MRC_HEADER, _MRC_STAMP = 1024, 212
_MRC_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}
"""Of a pixel, by mode; others are not grey, or packed."""


def facts(path: Path, reader: str, found: dict[str, Any], axes: tuple[Axis, Axis, Axis]) -> Acquisition:
    """What is known of a recording.

    Parameters
    ----------
    reader : module of RosettaSciIO that read `path`. found : what it found. axes : of time, y and x.
    """
    original = found.get("original_metadata", {})
    time, y, x = axes
    if reader == "mrc" and "de_metadata" not in original:
        time = UNKNOWN  # the third length of an MRC cell is no time
    known = calibrated(time, y, x, detector=_detector(found), bit_depth=_bit_depth(original))
    special = {"emd": _velox, "tia": _tia, "mrc": _mrc}.get(reader)
    if special is None:
        return known
    return special(known, path, original, len(found["data"]) if found["data"].ndim > 2 else 1)


def check_before(path: Path, reader: str) -> None:
    """Refuse the other byte order of MRC and DigitalMicrograph files, which RosettaSciIO would misread in silence."""
    with path.open("rb") as file:
        header = file.read(_MRC_HEADER)
    if reader == "mrc":
        if len(header) < _MRC_HEADER:
            raise InputError(f"{path.name} is truncated: {len(header)} bytes of a header of 1024; copy it again")
        swapped = header[_MRC_STAMP : _MRC_STAMP + 2] == b"\x11\x11"
        if not swapped:
            _check_mrc(path, header)
    elif reader == "digitalmicrograph" and len(header) >= 16:
        (version,) = struct.unpack_from(">i", header)  # then the length, 4 or 8 bytes, and 1 for little-endian
        swapped = struct.unpack_from(">i", header, 12 if version == 4 else 8) == (0,)
    else:
        return
    if swapped:
        raise InputError(f"{path.name} is big-endian, which is not read; save it again on a computer of today")


def _check_mrc(path: Path, header: bytes) -> None:
    width, height, n_frames, mode = struct.unpack_from("<4i", header)
    (extended,) = struct.unpack_from("<i", header, 92)
    n_bytes = width * height * _MRC_BYTES.get(mode, 0)
    if min(width, height, n_bytes) > 0 and extended >= 0:
        check_count(path.name, n_frames, (path.stat().st_size - _MRC_HEADER - extended) // n_bytes)


def check_after(path: Path, reader: str, found: dict[str, Any]) -> None:
    """`InputError` where DigitalMicrograph's dimensions of an image are not those of its pixels."""
    if reader != "digitalmicrograph":
        return
    about = _lookup(found["original_metadata"], ("ImageList", "TagGroup0", "ImageData"))
    held, sizes = _lookup(about, ("Data", "size")), list((_lookup(about, ("Dimensions",)) or {}).values())
    if held is not None and held != math.prod(sizes):
        said = f"{held:,} pixels and dimensions {' x '.join(map(str, sizes))}"
        raise InputError(f"{path.name} has {said}; it is damaged: copy or export it again")


def also_held(path: Path, reader: str) -> str | None:
    """A sentence about spectra in a Velox file, which were not even looked at."""
    if reader != "emd":
        return None
    import h5py

    with h5py.File(path) as file:
        kinds = [kind for kind in ("Spectrum", "SpectrumStream", "SpectrumImage") if len(file.get(f"Data/{kind}", ()))]
    return f"the file also holds what is no movie: {', '.join(kinds)}" if kinds else None


def read_ser(module: Any, path: Path) -> list[dict[str, Any]]:
    """The series in a .ser file with what the .emi file beside it says; without one, or a damaged one, as stored."""
    about = path.with_name(path.stem.rpartition("_")[0] + ".emi")
    if about.exists():
        with suppress(Exception):
            for found in module.file_reader(str(about), lazy=True):
                if found["metadata"]["General"].get("original_filename") == path.name:
                    return [found]
    return module.file_reader(str(path), lazy=True)


def _lookup(tree: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if hasattr(tree, "get") else None
    return tree


def _detector(found: dict[str, Any]) -> str | None:
    names = [_lookup(found.get("original_metadata", {}), keys) for keys in _DETECTOR]
    instrument = found["metadata"].get("Acquisition_instrument", {})
    names += [_lookup(instrument, ("TEM", "detector")), detector_name(instrument)]
    return next((str(name).strip() for name in names if isinstance(name, str) and name.strip()), None)


def _bit_depth(original: dict[str, Any]) -> int | None:
    bits = _lookup(original, ("BinaryResult", "BitsPerPixel"))
    return None if bits is None else int(bits)


def _velox(known: Acquisition, path: Path, original: dict[str, Any], n_frames: int) -> Acquisition:
    """Velox stamps each frame of a camera; the axis that RosettaSciIO makes has the exposure time as its step."""
    if "BinaryResult" not in original or n_frames < 2:
        return known
    if "FrameTime" in original.get("Scan", {}):
        return known
    stamps = velox_stamps(path, n_frames)
    if stamps is not None:
        return stamped(known, stamps)
    return told(known, "the frame time is the exposure time of the camera: pauses between frames are not counted")


def _tia(known: Acquisition, path: Path, original: dict[str, Any], n_frames: int) -> Acquisition:
    header = original["ser_header_parameters"]
    planned, stored = (int(header[f"{what}NumberElements"]) for what in ("Total", "Valid"))
    if stored < planned:
        known = told(known, f"the series was planned for {planned} images and holds {stored}")
    if "ObjectInfo" not in original:
        note = (
            "the .emi file beside the .ser file is missing or damaged: the detector is unknown, and lengths are taken"
        )
        known = told(known, f"{note} for those on the specimen, which is wrong for diffraction patterns")
    if n_frames < 2:
        return known
    seconds = _lookup(original, ("ObjectInfo", "AcquireInfo", "FrameTime"))
    if seconds is not None:
        note = "the frame time is that of one scan: pauses between scans are not counted"
        return told(replace(known, frame_time_s=float(seconds)), note)
    return stamped(known, np.asarray(header["Time"], np.float64), resolution_s=1.0)


def _mrc(known: Acquisition, path: Path, original: dict[str, Any], n_frames: int) -> Acquisition:
    if int(original["std_header"]["MODE"]) == 0:
        known = told(known, "8-bit grey levels of MRC files are taken as 0 to 255; some programs mean -128 to 127")
    camera = original.get("de_metadata")
    if not camera or n_frames < 2:
        return known
    try:  # frames on disk are sums of frames of the camera
        step = float(camera.get("Autosave Movie Sum Count", 1)) / float(camera["Frames Per Second"])
    except (KeyError, ValueError, ZeroDivisionError):
        step = math.nan
    if math.isfinite(step) and step > 0:
        return replace(known, frame_time_s=step)
    return told(replace(known, frame_time_s=None), "the info file of the camera does not tell the frame time")
