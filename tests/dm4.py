"""Tiny DigitalMicrograph 4 and 3 files, written by hand from the public description of the format (Boothroyd)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

# Codes of the types of tags, of `struct` and of ImageData:DataType.
_TAG = {"H": 4, "i": 3, "I": 5, "f": 6, "d": 7, "B": 10}
_PIXELS = {"i2": ("h", 2, 1), "u2": ("H", 4, 10), "u1": ("B", 10, 6), "f4": ("f", 6, 2), "i4": ("i", 3, 7)}


def _data(info: list[int], payload: bytes, size: str) -> bytes:
    return b"%%%%" + struct.pack(f">{1 + len(info)}{size}", len(info), *info) + payload


def _tag(name: str, value: Any, size: str) -> bytes:
    if isinstance(value, (dict, list)):
        code, body = 20, _group(value, size)
    elif isinstance(value, str):
        text = value.encode("utf-16-le")
        code, body = 21, _data([20, 4, len(text) // 2], text, size)
    elif isinstance(value, np.ndarray):
        kind = value.dtype.str[1:]
        code, body = 21, _data([20, _PIXELS[kind][1], value.size], value.astype(f"<{kind}").tobytes(), size)
    else:
        kind = "f" if isinstance(value, float) else "I"
        code, body = 21, _data([_TAG[kind]], struct.pack(f"<{kind}", value), size)
    label = name.encode("latin-1")
    length = struct.pack(">Q", len(body)) if size == "Q" else b""
    return struct.pack(">BH", code, len(label)) + label + length + body


def _group(members: Any, size: str) -> bytes:
    """A dict is a group of named tags, a list one of tags without names; `size` is the type of lengths."""
    pairs = members.items() if isinstance(members, dict) else (("", value) for value in members)
    tags = [_tag(name, value, size) for name, value in pairs]
    return struct.pack(f">BB{size}", 1, 0, len(tags)) + b"".join(tags)


def dm_image(
    pixels: np.ndarray, *, scales: tuple[float, ...] = (), units: tuple[str, ...] = (), name: str = "", tags: Any = None
) -> dict[str, Any]:
    """An entry of ImageList; `scales` and `units` in the order of DigitalMicrograph: x, y, then the frames."""
    scales, units = scales or (1.0,) * pixels.ndim, units or ("",) * pixels.ndim
    dimension = [{"Origin": 0.0, "Scale": float(s), "Units": u} for s, u in zip(scales, units, strict=True)]
    brightness = {"Origin": 0.0, "Scale": 1.0, "Units": ""}
    return {
        "ImageData": {
            "Calibrations": {"Brightness": brightness, "Dimension": dimension},
            "Data": pixels.reshape(-1),
            "DataType": _PIXELS[pixels.dtype.str[1:]][2],
            "Dimensions": [int(n) for n in pixels.shape[::-1]],
            "PixelDepth": pixels.dtype.itemsize,
        },
        "ImageTags": tags or {"GMS Version": {"Saved": "3.60"}},
        "Name": name,
    }


def write_dm4(path: Path, *images: dict[str, Any]) -> Path:
    """A file of some `dm_image`."""
    root = _group({"ImageList": list(images)}, "Q")
    path.write_bytes(struct.pack(">IQI", 4, len(root), 1) + root + bytes(8))
    return path


def write_dm3(path: Path, *images: dict[str, Any]) -> Path:
    """The same in the older version, whose lengths have 4 bytes."""
    root = _group({"ImageList": list(images)}, "I")
    path.write_bytes(struct.pack(">III", 3, len(root), 1) + root + bytes(8))
    return path
