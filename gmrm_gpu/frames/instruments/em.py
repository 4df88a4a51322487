"""Files of electron microscopes through RosettaSciIO (extra `em`): Gatan, Velox, Berkeley, TIA, MRC, HyperSpy.

Images and stacks of images are movies. Frames are read when asked for. What a file holds beside the movie is listed,
and a file of several movies is refused until one is chosen.
"""

from __future__ import annotations

import logging
import struct
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MissingDependencyError
from ..axes import UNKNOWN, Axis, axis_from_places
from ..hdf5 import check_file
from ..movie import Movie, size_text
from ..objects import ObjectMovie
from . import metadata
from .stamps import told
from .stored import best_form

_READERS = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".de5": "emd",
    ".ser": "tia",
    ".emi": "tia",
    ".mrc": "mrc",
    ".hspy": "hspy",
    ".blo": "blockfile",
}
_HDF5 = (".emd", ".de5", ".hspy")
_OPTIONS = {"emd": {"select_type": "images", "load_SI_image_stack": True}}
# Mapped files are one chunk, out of which a frame is a view; in smaller chunks a frame would be sewn of hundreds.
_CHUNK = 2**60
_TIME = ("t", "time", "frame", "frames", "z", "n", "stack", "slice", "index")
_COLOURS = (("R", "G", "B"), ("R", "G", "B", "A"))
_SPECTRAL = ("EELS", "EDS", "CL", "XPS", "Cathodo")


@dataclass(frozen=True)
class Signal:
    """One signal of a file: what RosettaSciIO says of it, and what that means here.

    Attributes
    ----------
    found : `data`, `axes`, `metadata` and `original_metadata`. axes : one for each axis of the data.
    order : axes of time, y and x; None where it is no movie. kind : in words.
    """

    found: dict[str, Any]
    axes: list[Axis]
    order: tuple[int | None, int, int] | None
    kind: str

    @property
    def name(self) -> str:
        """As the file calls it."""
        return str(self.found["metadata"].get("General", {}).get("title") or "signal")

    def __str__(self) -> str:
        data = self.found["data"]
        return f"{self.name} ({self.kind}, {size_text(data.shape)}, {'colour' if data.dtype.names else data.dtype})"


def open_file(path: Path, *, luminance: bool = False, signal: int | None = None) -> Movie:
    """Open an image or a stack of images; calibration, detector and bit depth come from the file.

    Raises
    ------
    InputError
        The file holds no images or several movies, is a scan of diffraction patterns, damaged or truncated.
    MissingDependencyError
        RosettaSciIO is not installed.
    """
    reader = _READERS[path.suffix.lower()]
    found, said = _read(path, reader)
    signals = [_signal(one, reader) for one in found]
    chosen, left = _choose(signals, path.name, signal)
    metadata.check_after(path, reader, chosen.found)
    acquisition = metadata.facts(path, reader, chosen.found, _three(chosen))
    acquisition = told(acquisition, *said, _left_out(left), metadata.also_held(path, reader))
    assert chosen.order is not None
    data, order = best_form(path, reader, chosen.found), (*chosen.order, None)
    movie = ObjectMovie(data, order, name=path.name, luminance=luminance, acquisition=acquisition)
    _close_with(movie, chosen.found["data"])
    try:
        movie._pixels(len(movie) - 1)
    except InputError as error:
        if luminance or "luminance" not in str(error):
            raise InputError(f"{error}; {path.name} is truncated or damaged: copy or export it again") from None
        raise
    return movie


def _read(path: Path, reader: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The signals of a file, and what RosettaSciIO warned of."""
    try:
        module = import_module(f"rsciio.{reader}")
        import dask
    except ImportError as error:
        # What RosettaSciIO itself lacks is named: it does not require all that its readers need.
        needed = "RosettaSciIO" if error.name in (None, "rsciio") else f"RosettaSciIO and {error.name}"
        raise MissingDependencyError(f"reading {path.suffix} needs {needed}: pip install 'gmrm-gpu[em]'") from None
    metadata.check_before(path, reader)
    if path.suffix.lower() in _HDF5:
        check_file(path)
    failure: Exception | None = None
    with _listening() as said, dask.config.set({"array.chunk-size": _CHUNK}):
        try:
            found = _all_signals(module, path, _OPTIONS.get(reader, {}))
        except ModuleNotFoundError as error:
            needed = error.name or "sparse"  # RosettaSciIO wants it for X-ray spectra, and does not say so in `name`
            failure = MissingDependencyError(f"reading {path.name} needs {needed}: pip install {needed}")
        except InputError as error:
            failure = InputError(str(error))
        except Exception as error:  # each format has its own kinds
            reason = "it ends early" if reader == "tia" and isinstance(error, ValueError) else _reason(error)
            failure = InputError(f"{path.name} cannot be read ({reason}); it is damaged, truncated or of another kind")
    if failure is not None:  # raised here, where files that RosettaSciIO left open are closed already
        raise failure
    return found, said


def _all_signals(module: Any, path: Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".ser":
        return metadata.read_ser(module, path)
    try:
        found = module.file_reader(str(path), lazy=True, **options)
    except ValueError:  # colour of DigitalMicrograph, HDF5 without chunks: these are only read as a whole
        found = module.file_reader(str(path), lazy=False, **options)
    if path.suffix.lower() == ".emi" and not found:
        raise InputError(f"{path.name} holds no images itself: the .ser files beside it, which do, are missing")
    return found


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects warnings about the file, which are notes for the user; those about code are not."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("rsciio")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said += [str(w.message) for w in caught if w.category is UserWarning]
    finally:
        logger.removeHandler(handler)
    said[:] = [" ".join(text.split()) for text in dict.fromkeys(said)]


def _signal(found: dict[str, Any], reader: str) -> Signal:
    axes = sorted(found["axes"], key=lambda axis: axis.get("index_in_array", found["axes"].index(axis)))
    order, kind = _meaning(found, axes, reader)
    return Signal(found, [_axis(axis) for axis in axes], order, kind)


def _axis(axis: dict[str, Any]) -> Axis:
    name, unit = str(axis.get("name") or ""), axis.get("units")
    if "axis" in axis:
        return axis_from_places(name, np.asarray(axis["axis"]), unit)
    return Axis(name, axis.get("scale"), unit)


def _meaning(
    found: dict[str, Any], axes: list[dict[str, Any]], reader: str
) -> tuple[tuple[int | None, int, int] | None, str]:
    """(axes of time, y and x, what it is); the axes are None for what is no movie."""
    data, about = found["data"], found["metadata"].get("Signal", {})
    if data.dtype.names not in (None, *_COLOURS) or data.dtype.kind == "c":
        return None, "complex numbers"
    outer = [i for i, axis in enumerate(axes) if axis.get("navigate") and data.shape[i] > 1]
    inner = [i for i, axis in enumerate(axes) if not axis.get("navigate")]
    spectral = any("eV" in str(axis.get("units")) for axis in axes) or about.get("signal_type", "").startswith(
        _SPECTRAL
    )
    if len(inner) < 2 or spectral:
        return None, "a spectrum" if not outer else "spectra"
    if len(inner) > 2:  # Berkeley files do not tell which axis is time
        inner = [i for i in inner if data.shape[i] > 1] if len(inner) > 3 else inner
        if len(inner) != 3 or outer:
            return None, "more axes than time, y and x"
        return _time_first(inner, axes)
    if len(outer) > 1 or (outer and reader == "blockfile"):
        return None, "a scan with an image at each place"
    y, x = _upright(inner, axes)
    return (outer[0] if outer else None, y, x), "images" if outer else "an image"


def _time_first(inner: list[int], axes: list[dict[str, Any]]) -> tuple[tuple[int | None, int, int] | None, str]:
    """Time is the axis with a unit of time, else the one whose name is not that of a place."""
    from ..units import to_seconds

    names = [str(axes[i].get("name") or "").lower() for i in inner]
    timed = [i for i in inner if to_seconds(1, axes[i].get("units")) is not None]
    named = [i for i, name in zip(inner, names, strict=True) if name in _TIME]
    places = [i for i, name in zip(inner, names, strict=True) if name in ("x", "y")]
    for hits in (timed, named, [i for i in inner if i not in places] if len(places) == 2 else []):
        if len(hits) == 1:
            y, x = _upright([i for i in inner if i != hits[0]], axes, hits[0] == inner[-1])
            return (hits[0], y, x), "images"
    return None, f"its axes {', '.join(repr(name) for name in names)} are not named time, y and x"


def _upright(inner: list[int], axes: list[dict[str, Any]], swapped: bool = False) -> tuple[int, int]:
    """(y, x) by name; without names the order as stored, or its reverse where time comes last."""
    names = [str(axes[i].get("name") or "").lower() for i in inner]
    if names == ["x", "y"] or (swapped and names != ["y", "x"]):
        return inner[1], inner[0]
    return inner[0], inner[1]


def _choose(signals: list[Signal], name: str, number: int | None) -> tuple[Signal, list[Signal]]:
    """The signal meant, and those that are no movies."""
    movies = [signal for signal in signals if signal.order is not None]
    left = [signal for signal in signals if signal.order is None]
    if not movies:
        held = ", ".join(str(signal) for signal in left) or "nothing"
        raise InputError(f"{name} is no movie, it holds {held}; make a stack of images in time of it first")
    listed = ", ".join(f"{i}: {signal}" for i, signal in enumerate(movies))
    if number is None and len(movies) > 1:
        raise InputError(f"{name} holds {len(movies)} signals, {listed}; give --signal N (signal=N)")
    if number is not None and not 0 <= number < len(movies):
        raise InputError(f"{name} has no signal {number}; it holds {listed}")
    return movies[number or 0], left


def _left_out(left: list[Signal]) -> str | None:
    return f"the file also holds what is no movie: {', '.join(map(str, left))}" if left else None


def _three(signal: Signal) -> tuple[Axis, Axis, Axis]:
    assert signal.order is not None
    time, y, x = signal.order
    return (UNKNOWN if time is None else signal.axes[time]), signal.axes[y], signal.axes[x]


def _close_with(movie: Movie, data: Any) -> None:
    """Close the HDF5 file that lazy data hold open once nobody has the movie any more."""
    from rsciio.utils.file import get_file_handle

    handle = get_file_handle(data, warn=False) if hasattr(data, "dask") else None
    if handle is not None:
        weakref.finalize(movie, handle.close)


def _reason(error: Exception) -> str:
    if isinstance(error, struct.error | EOFError | IndexError):
        return "it ends early"
    text = " ".join(str(error).split())
    return text[:160] if text else type(error).__name__
