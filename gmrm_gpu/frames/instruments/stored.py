"""The arrays in instruments' files, in a form that gives out one frame for the price of one frame.

What RosettaSciIO hands out lazily may cost the whole file for each frame: a TIA series, HDF5 data that are transposed.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError

_SER_IMAGE_HEADER = 50


class TransposedDataset:
    """An HDF5 dataset with its axes in another order; slices of it read only what they name.

    Parameters
    ----------
    dataset : of h5py. order : for each axis, which axis of `dataset` it is.
    """

    def __init__(self, dataset: Any, order: tuple[int, ...]) -> None:
        self._dataset, self._order = dataset, order
        self.dtype = dataset.dtype
        self.shape = tuple(dataset.shape[axis] for axis in order)
        self.chunks = None if dataset.chunks is None else tuple(dataset.chunks[axis] for axis in order)

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        of_axis = dict(zip(self._order, index, strict=True))
        values = self._dataset[tuple(of_axis[axis] for axis in range(len(index)))]
        kept = [axis for axis, part in zip(self._order, index, strict=True) if isinstance(part, slice)]
        return values.transpose([sorted(kept).index(axis) for axis in kept])


def best_form(path: Path, reader: str, found: dict[str, Any]) -> Any:
    """The data of one signal that `reader` of RosettaSciIO has found in `path`, of the same shape."""
    if reader == "tia":
        return _ser_frames(path, found)
    data = found["data"]
    if reader not in ("emd", "hspy") or not hasattr(data, "dask"):
        return data
    import h5py

    # The layer of the dataset has one entry; those of chunks may have millions, which take minutes to list.
    layers = [layer for layer in data.dask.layers.values() if len(layer) == 1]
    datasets = [value for layer in layers for value in layer.values() if isinstance(value, h5py.Dataset)]
    if len(datasets) != 1 or datasets[0].ndim != data.ndim:
        return data
    order = tuple(range(data.ndim))
    if "BinaryResult" in found["original_metadata"]:  # Velox stores (y, x, time)
        order = (order[-1], *order[:-1])
    elif reader == "emd" and "dim0" not in datasets[0].parent:  # Berkeley: RosettaSciIO reverses the axes
        order = order[::-1]
    view = TransposedDataset(datasets[0], order)
    return view if view.shape == data.shape else data


def _ser_frames(path: Path, found: dict[str, Any]) -> Any:
    """The images of a .ser file, mapped.

    An image stands after 50 bytes of its own header, rows from the bottom up (here reversed, as RosettaSciIO does).
    The places of the images stand at OffsetArrayOffset, 4 bytes each, 8 from version 0x220 on.
    """
    header, data = found["original_metadata"]["ser_header_parameters"], found["data"]
    n = int(header["ValidNumberElements"])
    wide = int(header["SeriesVersion"]) > 0x210
    ser = path.with_name(found["metadata"]["General"]["original_filename"])
    with ser.open("rb") as file:
        file.seek(int(header["OffsetArrayOffset"]))
        places = np.array(struct.unpack(f"<{n}{'Q' if wide else 'I'}", file.read(n * (8 if wide else 4))), np.int64)
    steps = np.diff(places)
    if data.ndim == 3 and len(data) != n:
        raise InputError(f"{ser.name} lists {n} images and makes {len(data)} of them; it is damaged: copy it again")
    if data.ndim not in (2, 3) or (steps != steps[:1]).any():
        return data
    height, width = data.shape[-2:]
    size = data.dtype.itemsize
    strides = (int(steps[0]) if n > 1 else 0, width * size, size)
    mapped = np.memmap(ser, np.uint8, "r")
    start = int(places[0]) + _SER_IMAGE_HEADER
    if start + strides[0] * (n - 1) + height * width * size > mapped.size:
        raise InputError(f"{ser.name} is truncated: its last image leaves the file; copy or export it again")
    images: np.ndarray = np.ndarray((n, height, width), data.dtype.newbyteorder("<"), mapped, start, strides)
    return images[:, ::-1] if data.ndim == 3 else images[0, ::-1]
