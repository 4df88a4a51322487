"""TVIPS streams, NAME_000.tvips and on: a file header in the first part, then a header and the pixels of each frame.

Read without RosettaSciIO, which copies the whole stream into memory to open it. All numbers are little-endian: sizes,
bits and the pixel size in the file header of 4-byte whole numbers; seconds, milliseconds, the mode (1 image, 2
diffraction) and the number of the scan position in the header of each frame.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..axes import UNKNOWN, Axis, calibrated
from ..movie import Acquisition, Movie
from .stamps import stamped, told

_STAMP = [("number", "<u4"), ("seconds", "<u4"), ("ms", "<u4")]
_MORE = [("lut", "<u4"), ("current", "<f4"), ("mag", "<u4"), ("mode", "<u4"), ("stage", "<f4", 5), ("scan", "<u4")]
_PART = re.compile(r"(.+_)(\d{3})(\.tvips)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Header:
    size: int
    width: int
    height: int
    bits: int
    pixel_nm: int
    record: np.dtype


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a stream by its first part; the other parts beside it belong to it.

    Raises
    ------
    InputError
        Not the first part, no TVIPS stream, or truncated.
    """
    match = _PART.search(path.name)
    if match is None or int(match[2]) != 0:
        raise InputError(f"{path.name} is not the first part of a TVIPS stream; give the file that ends in _000.tvips")
    header = _read_header(path)
    parts, number = [_mapped(path, header, header.size)], 1
    while (part := path.with_name(f"{match[1]}{number:03d}{match[3]}")).exists():
        parts.append(_mapped(part, header, 0))
        number += 1
    return TvipsMovie(path.name, header, parts)


class TvipsMovie(Movie):
    """The frames of the parts, mapped."""

    def __init__(self, name: str, header: _Header, parts: list[np.ndarray]) -> None:
        self._parts, self._starts = parts, np.cumsum([0, *(len(part) for part in parts)])
        super().__init__(
            name=name,
            shape=(header.height, header.width),
            dtype=np.dtype(f"<u{header.bits // 8}"),
            n_frames=int(self._starts[-1]),
            acquisition=_acquisition(header, parts),
        )

    def _read(self, t: int) -> np.ndarray:
        part = int(np.searchsorted(self._starts, t, side="right")) - 1
        return self._parts[part]["pixels"][t - self._starts[part]]


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        start = file.read(256)
    if len(start) < 56:
        raise InputError(f"{path.name} is truncated: {len(start)} bytes of a header of 256; copy it again")
    size, version, width, height, bits, *_, pixel_nm, _, _, extra = struct.unpack_from("<13I", start)
    extra = 12 if version == 1 else extra
    if version not in (1, 2) or bits not in (8, 16) or extra < 12 or size < 52 or 0 in (width, height):
        raise InputError(f"{path.name} is no TVIPS stream of version 1 or 2, or it is damaged; copy or export it again")
    held, needed = path.stat().st_size, size + extra + width * height * bits // 8
    if held < needed:
        raise InputError(f"{path.name} is truncated: {held:,} bytes, one frame needs {needed:,}; copy it again")
    fields: list = [*_STAMP, *(_MORE if extra >= 52 else [])]
    fields.append(("rest", "V", extra - np.dtype(fields).itemsize))
    pixels = ("pixels", f"<u{bits // 8}", (height, width))
    return _Header(size, width, height, bits, pixel_nm, np.dtype([*(f for f in fields if f[2:] != (0,)), pixels]))


def _mapped(path: Path, header: _Header, start: int) -> np.ndarray:
    """(n,) records of one part."""
    n, over = divmod(path.stat().st_size - start, header.record.itemsize)
    if n < 0 or over:
        raise InputError(f"{path.name} is truncated: {max(n, 0)} frames and a part of one; copy or export it again")
    return np.memmap(path, header.record, "r", start, (n,)) if n else np.zeros(0, header.record)


def _acquisition(header: _Header, parts: list[np.ndarray]) -> Acquisition:
    first, names = next((part[0] for part in parts if len(part)), None), header.record.names or ()
    images = first is None or "mode" not in names or first["mode"] != 2
    unit = "nm" if images else "1/nm"
    known = calibrated(UNKNOWN, Axis("y", header.pixel_nm, unit), Axis("x", header.pixel_nm, unit))
    if known.pixel_size_um is not None:
        known = told(known, "the pixel size of a TVIPS stream may be that of the camera, not of the specimen: check it")
    if "scan" in names and any(part["scan"].any() for part in parts):
        known = told(known, "the frames carry numbers of scan positions: they are a movie only if the beam stood still")
    seconds = np.concatenate([part["seconds"].astype(np.int64) for part in parts])
    ms = np.concatenate([part["ms"] for part in parts])
    return stamped(known, (seconds - seconds[:1]) + ms * 1e-3, 1e-3)
