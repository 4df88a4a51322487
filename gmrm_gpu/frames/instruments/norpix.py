"""Norpix StreamPix sequences (.seq), uncompressed grey: cameras of in-situ holders and of light microscopes.

The header is that of the StreamPix manual: little-endian, magic 0xFEED, frames of one size from byte 1024 (8192 from
version 5 on), each followed by the time at which it was taken. No package is needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..counts import check_count
from ..movie import Acquisition, ArrayMovie, Movie
from .stamps import stamped, told

_MAGIC, _MONO = 0xFEED, 100
# Width, height, bits stored and real, bytes and kind of an image, frames, origin, bytes from frame to frame, rate.
_FIELDS, _FIELDS_AT = "<9Id", 548
_VERSION_AT, _COMPRESSION_AT = 28, 620


@dataclass(frozen=True)
class _Header:
    version: int
    width: int
    height: int
    bits: int
    bit_depth: int
    image_bytes: int
    kind: int
    n_frames: int
    stride: int
    rate: float
    compression: int

    @property
    def start(self) -> int:
        """Where the first frame begins."""
        return 8192 if self.version >= 5 else 1024


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a sequence; frames are mapped, their times and the bit depth of the camera are read.

    Raises
    ------
    InputError
        No sequence, compressed, in colour, or truncated.
    """
    header = _read_header(path)
    dtype = np.dtype(f"<u{header.bits // 8}")
    stamp = [("seconds", "<u4"), ("ms", "<u2"), *([("us", "<u2")] if header.version >= 5 else [])]
    used = header.image_bytes + np.dtype(stamp).itemsize
    if header.image_bytes < header.width * header.height * dtype.itemsize or header.stride < used:
        raise InputError(f"{path.name} has a header that contradicts itself; it is damaged: copy it again")
    held = (path.stat().st_size - header.start + header.stride - used) // header.stride
    if held < header.n_frames:
        raise InputError(
            f"{path.name} is truncated: {max(held, 0)} of {header.n_frames} frames are there; copy it again"
        )
    check_count(path.name, header.n_frames, held)
    mapped = np.memmap(path, np.uint8, "r")
    shape = (header.n_frames, header.height, header.width)
    strides = (header.stride, header.width * dtype.itemsize, dtype.itemsize)
    frames: np.ndarray = np.ndarray(shape, dtype, mapped, header.start, strides)
    stamps: np.ndarray = np.ndarray(
        header.n_frames, np.dtype(stamp), mapped, header.start + header.image_bytes, header.stride
    )
    return ArrayMovie(frames, name=path.name, acquisition=_acquisition(header, stamps))


def _acquisition(header: _Header, stamps: np.ndarray) -> Acquisition:
    seconds = (stamps["seconds"].astype(np.int64) - int(stamps["seconds"][0])) + stamps["ms"] * 1e-3
    if header.version >= 5:
        seconds = seconds + stamps["us"] * 1e-6
    known = stamped(Acquisition(bit_depth=header.bit_depth), seconds, 1e-6 if header.version >= 5 else 1e-3)
    if known.frame_time_s is None and known.times_s is None and header.rate > 0:
        known = replace(known, frame_time_s=1 / header.rate)
        return told(known, f"the frame time is that of the rate set for the recording, {header.rate:g} a second")
    return known


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        start = file.read(1024)
    if len(start) < 4 or struct.unpack("<I", start[:4])[0] != _MAGIC:
        raise InputError(f"{path.name} is no Norpix sequence; export it as a TIFF stack")
    if len(start) < 1024:
        raise InputError(f"{path.name} is truncated: {len(start)} bytes of a header of 1024; copy it again")
    (version,) = struct.unpack_from("<i", start, _VERSION_AT)
    (compression,) = struct.unpack_from("<I", start, _COMPRESSION_AT)
    width, height, bits, real, size, kind, n_frames, _, stride, rate = struct.unpack_from(_FIELDS, start, _FIELDS_AT)
    header = _Header(version, width, height, bits, real, size, kind, n_frames, stride, rate, compression)
    if compression:
        raise InputError(f"{path.name} is compressed, which is not read; export it uncompressed or as a TIFF stack")
    if kind != _MONO or bits not in (8, 16, 32):
        raise InputError(
            f"{path.name} has images of format {kind} with {bits} bits, not grey (100); export it as a grey TIFF stack"
        )
    return header
