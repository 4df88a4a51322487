"""Movies from other programs' objects, known by what they offer: no package is imported here.

HyperSpy signals, xarray arrays and datasets, napari Image layers, pims readers, and whatever is sliced like an array
(dask, zarr, HDF5 datasets). Lazy data stays lazy: a frame is read when asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .axes import UNKNOWN, Axis, axis_from_places, calibrated, is_time, listed, named_order, plain_order
from .colour import to_grey
from .movie import Acquisition, Movie

# One run of chunks is kept in memory, so that a chunk of many frames is not decoded once for each of them.
_CHUNK_BYTES = 2**28


def movie_of_object(source: Any, *, luminance: bool = False) -> Movie:
    """The movie that `source` holds; its data is not copied, and not read before a frame is asked for.

    Parameters
    ----------
    source : a HyperSpy signal of images, an `xarray.DataArray` (or a Dataset with one movie in it), a napari Image
        layer, a pims reader, a list of frames, or anything with `shape`, `dtype` and slices.
    luminance : turn colour into grey; without it, colour whose channels differ is refused.

    Raises
    ------
    InputError
        It holds no movie, several, or one with more axes than time, y and x.
    """
    if _has(source, "axes_manager", "metadata", "data"):
        return _from_signal(source, luminance)
    if _has(source, "data_vars", "dims"):
        return _from_dataset(source, luminance)
    if _has(source, "dims", "coords", "attrs", "dtype"):
        return _from_dataarray(source, luminance)
    if _has(source, "data", "scale", "metadata", "translate"):
        return _from_layer(source, luminance)
    if _has(source, "columns"):
        raise InputError(
            f"{type(source).__name__} is a table; save it as .csv or .parquet with columns x, y, intensity"
        )
    if _has(source, "frame_shape") or not _has(source, "shape"):
        return _from_frames(source, luminance)
    return _from_array(source, luminance)


class ObjectMovie(Movie):
    """Frames sliced out of an array-like object, one at a time, under a lock.

    Parameters
    ----------
    data : has `shape`, `dtype` and slices that `numpy.asarray` takes.
    order : numbers of the axes time, y, x and colour in `data`; None where there is none. Others have length 1.
    """

    def __init__(
        self,
        data: Any,
        order: tuple[int | None, int, int, int | None],
        *,
        name: str,
        luminance: bool,
        acquisition: Acquisition,
        frame_numbers: np.ndarray | None = None,
    ) -> None:
        time, y, x, colour = order
        dtype = np.dtype(data.dtype)
        super().__init__(
            name=name,
            shape=(data.shape[y], data.shape[x]),
            dtype=dtype[0] if dtype.names else dtype,  # HyperSpy's colours are fields of a structure
            n_frames=1 if time is None else data.shape[time],
            frame_numbers=frame_numbers,
            acquisition=acquisition,
        )
        self._data, self._order, self._luminance = data, order, luminance
        self._lock = threading.Lock()
        edges = None if time is None else _chunk_edges(data, time)
        run = 1 if edges is None else int(np.diff(edges).max())
        fits = run * self.n_pixels * dtype.itemsize <= _CHUNK_BYTES
        self._edges = edges if run > 1 and fits else None
        if not fits:
            note = f"frames are stored in chunks of {run}, too large to be kept, so reading is slow: rechunk along time"
            self.acquisition = replace(self.acquisition, notes=(*self.acquisition.notes, note))
        self._held: tuple[int, np.ndarray] | None = None
        if colour is not None or dtype.names:
            self._pixels(0)

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            try:
                pixels = self._slab(t)
            except InputError:
                raise
            except Exception as error:  # each package has its own kinds
                raise InputError(f"frame {t} of {self.name} cannot be read ({_reason(error)})") from None
        if pixels.dtype.names:
            pixels = np.stack([pixels[field] for field in pixels.dtype.names], axis=-1)
        return to_grey(pixels, t, self.name, luminance=self._luminance) if pixels.ndim == 3 else pixels

    def _slab(self, t: int) -> np.ndarray:
        """Frame `t` (y, x) or (y, x, colour), by way of the run of chunks that it lies in."""
        if self._edges is None:
            return self._cut(slice(t, t + 1))[0]
        start, stop = self._edges[np.searchsorted(self._edges, t, side="right") - 1 :][:2]
        if self._held is None or self._held[0] != start:
            self._held = (int(start), self._cut(slice(int(start), int(stop))))
        return self._held[1][t - int(start)]

    def _cut(self, frames: slice) -> np.ndarray:
        """Some frames as an array (time, y, x) or (time, y, x, colour)."""
        index: list[Any] = [0] * len(self._data.shape)
        kept = [axis for axis in self._order if axis is not None]
        for axis in kept:
            index[axis] = slice(None)
        if self._order[0] is not None:
            index[self._order[0]] = frames
        values = _plain(self._data[tuple(index)], self.name)
        ranks = sorted(kept)
        values = values.transpose([ranks.index(axis) for axis in kept])
        return values if self._order[0] is not None else values[np.newaxis]


class FramesMovie(Movie):
    """Frames given out one by one, as by a pims reader or a list of images."""

    def __init__(self, frames: Any, first: np.ndarray, *, luminance: bool, **known: Any) -> None:
        super().__init__(shape=first.shape[:2], dtype=first.dtype, n_frames=len(frames), **known)
        self._frames, self._luminance, self._lock = frames, luminance, threading.Lock()
        if first.ndim == 3:
            self._pixels(0)

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            try:
                pixels = _plain(self._frames[t], self.name)
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"frame {t} of {self.name} cannot be read ({_reason(error)})") from None
        return to_grey(pixels, t, self.name, luminance=self._luminance) if _is_colour(pixels.shape) else pixels


def _from_signal(signal: Any, luminance: bool) -> Movie:
    """HyperSpy: two signal axes are y and x, the navigation axis is time."""
    about = _as_dict(signal.metadata)
    name = str(about.get("General", {}).get("title") or "signal")
    inner, outer = signal.axes_manager.signal_axes, signal.axes_manager.navigation_axes
    if len(inner) != 2:
        held = listed([axis.name for axis in inner], [axis.size for axis in inner]) or "single values"
        raise InputError(
            f"{name} holds no images but {held}; where it does, make them its signal axes with signal.transpose"
        )
    time = [axis for axis in outer if axis.size > 1] or list(outer)[:1]
    if len(time) > 1:
        held = listed([axis.name for axis in outer], [axis.size for axis in outer])
        raise InputError(f"{name} has an image for each place of {held}; choose one line of time with signal.inav")
    x, y = inner
    order = (time[0].index_in_array if time else None, y.index_in_array, x.index_in_array, None)
    axes = [_of_signal_axis(axis) if axis else UNKNOWN for axis in (*(time or [None]), y, x)]
    acquisition = calibrated(*axes, detector=detector_name(about.get("Acquisition_instrument", {})))
    return ObjectMovie(signal.data, order, name=name, luminance=luminance, acquisition=acquisition)


def _of_signal_axis(axis: Any) -> Axis:
    name = axis.name if isinstance(axis.name, str) else ""
    if getattr(axis, "is_uniform", True):
        return Axis(name, float(axis.scale), axis.units, float(axis.offset), axis.size)
    return axis_from_places(name, np.asarray(axis.axis), axis.units)


def detector_name(instrument: Any) -> str | None:
    """The first name under a "Detector" or "Camera" in HyperSpy's tree of the instrument."""
    if not isinstance(instrument, Mapping):
        return None
    for key, value in instrument.items():
        if isinstance(value, Mapping):
            found = detector_name(value)
            named = next((str(v) for k, v in value.items() if str(k).lower() in ("name", "detector_type") and v), None)
            if key in ("Detector", "Camera") and (found or named):
                return found or named
            if found:
                return found
    return None


def _from_dataset(dataset: Any, luminance: bool) -> Movie:
    """xarray: the one variable with three dimensions or, without any, with two."""
    movies = [key for key, array in dataset.data_vars.items() if array.ndim >= 3]
    movies = movies or [key for key, array in dataset.data_vars.items() if array.ndim == 2]
    if len(movies) != 1:
        held = ", ".join(f"{key} {tuple(array.shape)}" for key, array in dataset.data_vars.items()) or "no variables"
        raise InputError(f"the dataset holds {held}; give the one you mean, like dataset[{_example(movies)!r}]")
    return _from_dataarray(dataset[movies[0]], luminance)


def _from_dataarray(array: Any, luminance: bool) -> Movie:
    """xarray: time, y and x by the names of the dimensions, else in this order."""
    names = [str(dim) for dim in array.dims]
    name = str(array.name) if array.name is not None else "DataArray"
    order = named_order(names, array.shape, name)
    axes = []
    for number in order[:3]:
        if number is None or array.dims[number] not in array.coords:
            axes.append(Axis("" if number is None else names[number]))
            continue
        coordinate = array.coords[array.dims[number]]
        unit = coordinate.attrs.get("units", coordinate.attrs.get("unit"))
        axes.append(axis_from_places(names[number], coordinate.values, unit))
    detector, depth = array.attrs.get("detector"), array.attrs.get("bit_depth")
    along = axes[0].name
    notes = (f"frames run along {along}",) if along and not is_time(along) else ()
    acquisition = calibrated(
        *axes,
        notes=notes,
        detector=None if detector is None else str(detector),
        bit_depth=int(depth) if isinstance(depth, int | np.integer) else None,
    )
    return ObjectMovie(array, order, name=name, luminance=luminance, acquisition=acquisition)


def _from_layer(layer: Any, luminance: bool) -> Movie:
    """napari: the full resolution of an Image layer; its scale where it has units."""
    name = str(layer.name)
    if not _has(layer, "rgb"):
        raise InputError(f"{name} is a {type(layer).__name__} layer; give an Image layer")
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    order = plain_order(data.shape, name, colour=bool(layer.rgb))
    scale = [float(value) for value in layer.scale]
    units = [str(unit) for unit in getattr(layer, "units", [None] * len(scale))]
    axes = [UNKNOWN if number is None else Axis("", scale[number], units[number]) for number in order[:3]]
    matrix = getattr(getattr(layer, "affine", None), "affine_matrix", None)
    warped = matrix is not None and not np.allclose(matrix, np.eye(len(matrix)))
    notes = ("the layer's affine transform is not applied; its scale is taken as the pixel size",) if warped else ()
    acquisition = calibrated(*axes, notes=notes)
    return ObjectMovie(data, order, name=name, luminance=luminance, acquisition=acquisition)


def _from_array(array: Any, luminance: bool) -> Movie:
    """Whatever is sliced like an array; dask's own names are digests."""
    known = None if hasattr(array, "dask") else getattr(array, "name", None)
    name = Path(str(known or "")).name or f"{type(array).__module__.split('.')[0]} array"
    if not _is_dtype(getattr(array, "dtype", None)):
        array = _plain(array, name)
    if any(not isinstance(size, int | np.integer) for size in array.shape):
        raise InputError(f"{name} does not know its own size {array.shape}; compute its chunk sizes first")
    order = plain_order(array.shape, name)
    return ObjectMovie(array, order, name=name, luminance=luminance, acquisition=Acquisition())


def _is_dtype(dtype: Any) -> bool:
    try:
        return dtype is not None and np.dtype(dtype) is not None
    except TypeError:  # torch and its kin have types of their own
        return False


def _from_frames(frames: Any, luminance: bool) -> Movie:
    """pims readers and lists of frames; the first frame tells size and type."""
    path = getattr(frames, "filename", None)
    name = Path(path).name if isinstance(path, str) else type(frames).__name__
    if isinstance(frames, str | bytes | Mapping) or not _has(frames, "__len__", "__getitem__"):
        raise _not_a_movie(frames)
    if len(frames) == 0:
        raise InputError(f"{name} has no frames; give a movie with at least one")
    notes = _held_axes(frames, name)
    try:
        first = frames[0]
    except Exception as error:  # a group of arrays has names, not numbers
        raise InputError(f"{name} does not give out its frame 0 ({_reason(error)}); give a movie") from None
    if not _has(first, "shape") or _has(first, "dims") or _has(first, "axes_manager"):
        raise _not_a_movie(frames, first)
    pixels = _plain(first, name)
    if pixels.ndim != 2 and not _is_colour(pixels.shape):
        raise InputError(f"{name} has frames of shape {pixels.shape}; give frames (height, width)")
    numbers = _frame_numbers(frames)
    rate = getattr(frames, "frame_rate", None)
    interval = 1 / float(rate) if rate and numbers is not None else None
    if rate and numbers is None:
        notes.append("the frame rate is not used, the frames are not numbered evenly")
    microns = (getattr(first, "metadata", None) or {}).get("mpp")  # what pims calls a pixel size
    acquisition = Acquisition(pixel_size_um=microns or None, frame_time_s=interval, notes=tuple(notes))
    return FramesMovie(frames, pixels, luminance=luminance, name=name, frame_numbers=numbers, acquisition=acquisition)


def _held_axes(frames: Any, name: str) -> list[str]:
    """What a pims reader of many axes leaves out, as sentences; `InputError` where frames run along two axes."""
    sizes = dict(getattr(frames, "sizes", None) or {})
    along = [axis for axis in getattr(frames, "iter_axes", ()) if sizes.get(axis, 1) > 1]
    if len(along) > 1:
        raise InputError(f"{name} runs along {' and '.join(along)}; set its iter_axes to the axis of time")
    shown = {*along, *getattr(frames, "bundle_axes", ())}
    left = [f"{axis} ({size})" for axis, size in sizes.items() if size > 1 and axis not in shown]
    return [f"of {', '.join(left)} only the place that the reader has chosen is read"] if left and shown else []


def _frame_numbers(frames: Any) -> np.ndarray | None:
    """(T,) numbers that the frames bear themselves, where the first two and the last are evenly numbered."""
    last = len(frames) - 1
    borne: list[Any] = [getattr(frames[t], "frame_no", None) for t in (0, min(1, last), last)]
    if None in borne:
        return np.arange(len(frames))
    first, second, end = (int(number) for number in borne)
    step = second - first if last else 1
    numbers = first + step * np.arange(len(frames))
    return numbers if step > 0 and numbers[-1] == end else None


def _chunk_edges(data: Any, axis: int) -> np.ndarray | None:
    """First frames of the chunks along `axis`, and the end; None where there are none."""
    chunks, n = getattr(data, "chunks", None), data.shape[axis]
    if not chunks:
        return None
    along = chunks[axis]
    return np.cumsum([0, *along]) if isinstance(along, tuple) else np.append(np.arange(0, n, along), n)


def _plain(values: Any, name: str) -> np.ndarray:
    """A NumPy array on the host; what is lazy is computed, and a mask is refused, not lost."""
    if hasattr(values, "compute"):
        values = values.compute()
    if hasattr(values, "dims"):
        values = values.data
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise InputError(f"{name} is masked, and the mask would be lost; give its data, and the mask as exclude")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} does not become a NumPy array ({_reason(error)}); convert it first") from None


def _not_a_movie(source: Any, first: Any = None) -> InputError:
    held = f"{type(source).__name__} of {type(first).__name__}" if first is not None else type(source).__name__
    if _has(source, "layers"):
        return InputError(f"{held} is not a movie; give one of its layers, like viewer.layers['name']")
    if _has(source, "movie"):
        return InputError(f"{held} is not a movie but has one; give its .movie")
    if first is not None:
        return InputError(f"{held} is not a movie; give one of them, or arrays (height, width), one a frame")
    return InputError(f"{held} is not a movie; give a path, an array (time, height, width) or a movie")


def _as_dict(metadata: Any) -> Mapping[str, Any]:
    found = metadata.as_dictionary() if hasattr(metadata, "as_dictionary") else metadata
    return found if isinstance(found, Mapping) else {}


def _example(names: Sequence[Any]) -> str:
    return str(names[0]) if names else "name"


def _is_colour(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[2] in (3, 4)


def _has(source: Any, *names: str) -> bool:
    return all(hasattr(source, name) for name in names)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
