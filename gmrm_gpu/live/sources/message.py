"""The message by which a microscope's computer sends a frame: a JSON header, and a buffer of bare numbers.

Header, UTF-8::

    {"format": "gmrm-live", "version": 1, "kind": "frame", "shape": [512, 512], "dtype": "uint16",
     "byte_order": "little", "number": 12, "time_s": 0.48, "pixel_size_um": 0.005, "frame_time_s": 0.04,
     "detector": "HAADF"}

``kind`` is ``"frame"``: the buffer holds height x width grey levels, row by row; ``"visits"``: it holds ``n`` (a
further field) positions ``y * width + x`` as int32, then as many grey levels; or ``"end"``: no more frames, no
buffer. ``shape`` is [height, width]. ``dtype`` is one of uint8, int8, uint16, int16, uint32, int32, float32,
float64. ``byte_order`` (``"little"``, ``"big"``) may be left out for single bytes. ``time_s`` is on any clock of the
sender. The last four fields may be left out.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeGuard

import numpy as np

from ...errors import InputError
from ...frames.movie import Acquisition, Visits
from .arrival import Arrival

FORMAT, VERSION = "gmrm-live", 1
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
MOST_HEADER_BYTES = 2**16
MOST_PIXELS = 2**28
"""Of a frame: 16,384 x 16,384."""
MOST_BYTES = 8 * MOST_PIXELS
_FIELDS = {"format", "version", "kind", "shape", "dtype", "byte_order", "number", "n"}
_OPTIONAL = {"time_s", "pixel_size_um", "frame_time_s", "detector"}
_ORDERS = {"little": "<", "big": ">"}


def parse_header(part: bytes) -> dict[str, Any]:
    """The header, checked for what every kind has.

    Raises
    ------
    InputError
        It is no JSON object, or of another format or version.
    """
    if len(part) > MOST_HEADER_BYTES:
        raise InputError(f"a message has a header of {len(part):,} bytes; send at most {MOST_HEADER_BYTES:,}")
    try:
        header = json.loads(part.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(
            f"a message has a header that is no JSON ({type(error).__name__}); send a JSON object"
        ) from None
    if not isinstance(header, dict):
        raise InputError(f"a message has a header that is a JSON {type(header).__name__}; send an object")
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        seen = f"{_short(header.get('format'))}, version {_short(header.get('version'))}"
        raise InputError(f"a message is of the format {seen}; send {FORMAT}, version {VERSION}")
    if header.get("kind") not in ("frame", "visits", "end"):
        raise InputError(f"a message is of the kind {_short(header.get('kind'))}; send frame, visits or end")
    return header


def parse_frame(header: dict[str, Any], buffer: bytes | memoryview) -> Arrival:
    """The frame of a message whose header `parse_header` has seen.

    Raises
    ------
    InputError
        A field is missing or out of range, or the buffer has another length than the header says.
    """
    shape = header.get("shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(_is_whole(n, 1, MOST_PIXELS) for n in shape)):
        raise InputError(f"a message has the shape {_short(shape)}; send [height, width], in pixels")
    height, width = shape
    if height * width > MOST_PIXELS:
        raise InputError(f"a message has a frame of {height} x {width} pixels; send at most {MOST_PIXELS:,}")
    dtype, number, time_s, n = _dtype(header), *(header.get(name) for name in ("number", "time_s", "n"))
    if not _is_whole(number, 0, 2**53):
        raise InputError(f"a message has the frame number {_short(number)}; send a whole number from 0")
    if time_s is not None and not _is_real(time_s):
        raise InputError(f"frame {number} has the time {_short(time_s)}; send seconds")
    if header["kind"] == "frame":
        levels = _numbers(buffer, dtype, 0, height * width, number, height * width * dtype.itemsize)
        return Arrival(levels.reshape(height, width), (height, width), number, time_s)
    if not _is_whole(n, 0, 16 * MOST_PIXELS):
        raise InputError(f"frame {number} has {_short(n)} visits; send their number as n")
    order = ">" if dtype.byteorder == ">" or header.get("byte_order") == "big" else "<"
    total = n * (4 + dtype.itemsize)
    positions = _numbers(buffer, np.dtype(f"{order}i4"), 0, n, number, total)
    values = _numbers(buffer, dtype, 4 * n, n, number, total)
    outside = int(((positions < 0) | (positions >= height * width)).sum())
    if outside:
        raise InputError(f"frame {number} has {outside} visits outside of its {height} x {width} pixels")
    return Arrival(Visits(positions, values), (height, width), number, time_s)


def parse_acquisition(header: dict[str, Any]) -> tuple[Acquisition, list[str]]:
    """What a header says of the recording, and sentences about what of it cannot be used."""
    notes = [f"the header's field {_short(name)} is not known and ignored" for name in _unknown(header)]
    calibration: dict[str, Any] = {}
    for name in ("pixel_size_um", "frame_time_s"):
        value = header.get(name)
        usable = value is None or (_is_real(value) and value > 0)
        calibration[name] = float(value) if usable and value is not None else None
        if not usable:
            notes.append(f"the header's {name} is {_short(value)}, not a number above 0, and ignored")
    detector = header.get("detector")
    if detector is not None and not isinstance(detector, str):
        notes.append(f"the header's detector is {_short(detector)}, not a name, and ignored")
        detector = None
    return Acquisition(**calibration, detector=None if detector is None else detector[:80]), notes


def _unknown(header: dict[str, Any]) -> list[str]:
    return sorted(header.keys() - _FIELDS - _OPTIONAL)[:8]


def _dtype(header: dict[str, Any]) -> np.dtype:
    name, order = header.get("dtype"), header.get("byte_order")
    if name not in DTYPES:
        raise InputError(f"a message has pixels of type {_short(name)}; send one of {', '.join(DTYPES)}")
    dtype = np.dtype(name)
    if order not in _ORDERS and (order is not None or dtype.itemsize > 1):
        raise InputError(f"a message has the byte order {_short(order)}; send little or big")
    return dtype.newbyteorder(_ORDERS.get(order, "="))


def _numbers(
    buffer: bytes | memoryview, dtype: np.dtype, offset: int, count: int, number: int, total: int
) -> np.ndarray:
    """`count` numbers of the buffer from byte `offset`, in native order; the buffer must have `total` bytes."""
    held = len(buffer) if isinstance(buffer, bytes) else buffer.nbytes
    if held != total:
        raise InputError(f"frame {number} has {held:,} bytes, its header says {total:,}; send whole frames")
    return np.frombuffer(buffer, dtype, count, offset).astype(dtype.newbyteorder("="))


def _is_whole(value: Any, low: int, high: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


__all__ = ["DTYPES", "FORMAT", "MOST_BYTES", "VERSION", "parse_acquisition", "parse_frame", "parse_header"]
