"""From a source to a movie: which reader, and the options common to all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .instruments.gatan import is_recording
from .instruments.series import SUFFIXES
from .listing import beside, regular
from .manifest import check_manifest
from .movie import ArrayMovie, Movie, MovieView
from .origin import origin_of
from .sampled.directelectron import coordinates_beside
from .select import FrameSelection, fit_mask, parse_clip, parse_crop, parse_frames

_READERS = {
    "npy": (".npy", ".npz"),
    "tiff": (".tif", ".tiff", ".btf"),
    "video": (".avi", ".mp4", ".mov", ".m4v", ".mkv", ".webm"),
    "images": (".gif", ".png", ".jpg", ".jpeg", ".bmp"),
    "instruments.em": (".dm3", ".dm4", ".emd", ".ser", ".emi", ".mrc", ".hspy", ".blo", ".de5"),
    "instruments.tvips": (".tvips",),
    "instruments.norpix": (".seq",),
    "sampled.tables": (".csv", ".parquet"),
    "sampled.ragged": (".h5", ".hdf5"),
}
_WITH_SIGNALS = ("instruments.em", "sampled.ragged")
"""Readers of files that may hold several signals."""
_NATIVE = ("video", "instruments.em", "instruments.gatan", "instruments.series", "sampled.ragged")
"""Readers that decode in native code, which damage can make crash or loop: they run in a child."""
_BY_SUFFIX = {suffix: reader for reader, suffixes in _READERS.items() for suffix in suffixes}


def movie_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that can be read, those of single images too, in small letters."""
    return tuple(_BY_SUFFIX)


def open_movie(
    source: Any,
    *,
    frames: FrameSelection | None = None,
    crop: str | None = None,
    exclude: str | os.PathLike[str] | np.ndarray | None = None,
    luminance: bool = False,
    clip: str | tuple[float, float] | None = None,
    pixel_size_um: float | None = None,
    frame_time_s: float | None = None,
    visited: str | os.PathLike[str] | np.ndarray | None = None,
    unvisited: float | None = None,
    signal: int | None = None,
) -> Movie:
    """Open a movie; frames are read when asked for, and nothing is copied.

    Parameters
    ----------
    source : a file (.npy, .npz, .tif, .avi, .mp4, .mov, .gif, one .png or .jpg), one of an instrument (.dm3, .dm4,
        .emd, .ser, .emi, .mrc, .de5, .hspy, .tvips, .seq), a folder of images in natural order or as a Gatan in-situ
        camera writes it, an array (time, height, width) or (height, width), a movie, or an object that holds one: a
        HyperSpy signal, an xarray or dask array, a napari Image layer, a pims reader (`objects.movie_of_object`).
    frames : ``"10:200:2"``, a slice, or whole numbers; None: all. Counted from 0.
    crop : ``"y0:y1,x0:x1"`` in pixels; None: the whole frame.
    exclude : a bool or 0-1 array or an image file, nonzero where a pixel is not to be used (a burnt-in label, a
        scale bar); of the size of the frame before or after cropping.
    luminance : turn colour into grey; without it, colour whose channels differ is refused.
    clip : ``"60,180"`` or two numbers; grey levels beyond are set to these (hot and dead pixels). None: as they are.
    pixel_size_um, frame_time_s : calibration, in place of what the source says.
    visited : a bool or 0-1 array or a file, nonzero where the beam went: one mask, or one a frame. The movie is then
        sub-sampled: the other pixels hold nothing.
    unvisited : the grey level that the file holds where the beam did not go; ``nan`` too. Never assumed.
    signal : which one, of a file that holds several; counted from 0.

    Returns
    -------
    Movie

    Raises
    ------
    InputError
        The source is not a movie or cannot be read, or an option does not fit it; or there is a manifest beside it
        (`manifest.write_manifest`), and a file differs from it, is missing or is one too many.
    MissingDependencyError
        Reading this format needs an optional package.

    Examples
    --------
    >>> movie = open_movie(np.zeros((4, 6, 8), np.uint16), crop="0:6,2:8", frame_time_s=0.5)
    >>> movie.frame(3).shape
    (6, 6)
    """
    options = {name: value for name, value in locals().items() if name != "source"}
    movie = _open_source(source, luminance, signal)
    if visited is not None or unvisited is not None:
        from .sampled.masked import mask_movie

        movie = mask_movie(movie, visited=visited, unvisited=unvisited)
    if any(option is not None for option in (frames, crop, exclude, clip, pixel_size_um, frame_time_s)):
        movie = _view(movie, frames, crop, exclude, clip, pixel_size_um=pixel_size_um, frame_time_s=frame_time_s)
    movie.origin = origin_of(source, options)
    return movie


def _view(
    movie: Movie,
    frames: FrameSelection | None,
    crop: str | None,
    exclude: str | os.PathLike[str] | np.ndarray | None,
    clip: str | tuple[float, float] | None,
    **calibration: float | None,
) -> MovieView:
    """The chosen frames and pixels of `movie`."""
    height, width = movie.shape
    rows, columns = (slice(0, height), slice(0, width)) if crop is None else parse_crop(crop, movie.shape)
    valid = None
    if exclude is not None:
        mask = exclude if isinstance(exclude, np.ndarray) else _read_mask(exclude)
        valid = ~fit_mask(mask, movie.shape, rows, columns)
    return MovieView(
        movie,
        index=None if frames is None else parse_frames(frames, len(movie)),
        rows=rows,
        columns=columns,
        valid=valid,
        clip=None if clip is None else parse_clip(clip),
        **calibration,
    )


def open_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a whole stack of label images (``--truth``): any movie format, whole numbers from 0.

    Returns
    -------
    (T, height, width) array of uint8, or of a wider unsigned type where a label exceeds 255.

    Raises
    ------
    InputError
        The file cannot be read or holds something that is not labels.
    """
    movie = _open_source(path, False)
    labels = np.stack([movie.frame(t) for t in range(len(movie))])
    if labels.dtype.kind == "f" and np.any(labels != np.rint(labels)):
        raise InputError(f"{movie.name} holds fractions, not labels; give a stack of whole numbers")
    low, high = labels.min(), labels.max()
    if low < 0 or high > 2**32 - 1:
        raise InputError(f"{movie.name} holds the label {low if low < 0 else high}; labels run from 0 to 2^32 - 1")
    return labels.astype(np.min_scalar_type(int(high)), copy=False)


def _open_source(source: Any, luminance: bool, signal: int | None = None) -> Movie:
    if signal is not None and not isinstance(source, (str, os.PathLike)):
        raise InputError(f"signal={signal} chooses within a file, and {type(source).__name__} is none; leave it out")
    if isinstance(source, Movie):
        return source
    if isinstance(source, np.ma.MaskedArray):
        raise InputError("a masked array is not read, its mask would be lost; give its data, and the mask as exclude")
    if isinstance(source, np.ndarray):
        return ArrayMovie(source, luminance=luminance)
    if not isinstance(source, (str, os.PathLike)):
        from .objects import movie_of_object

        return movie_of_object(source, luminance=luminance)
    path = Path(os.path.expanduser(source))  # which, as that of Path does not, leaves the name of no user as it is
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    reader = _reader(path)
    manifest = check_manifest(path)
    options = {"signal": signal} if reader in _WITH_SIGNALS else {}
    if signal is not None and not options:
        raise InputError(f"{path.name} holds one signal; leave out --signal")
    movie = _open_file(path, reader, luminance=luminance, **options)
    if manifest is not None:
        note = f"all files agree with {manifest.name}"
        movie.acquisition = replace(movie.acquisition, notes=(*movie.acquisition.notes, note))
    return movie


def _open_file(path: Path, reader: str, **options: Any) -> Movie:
    if reader in _NATIVE or path.suffix.lower() == ".parquet":
        from .child import ChildMovie

        return ChildMovie(path, f".{reader}", **options)
    open_file: Callable[..., Movie] = import_module(f".{reader}", __package__).open_file
    return open_file(path, **options)


def _reader(path: Path) -> str:
    """The module that reads `path`."""
    reader = _folder_reader(path) if path.is_dir() else _BY_SUFFIX.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path.name} is of unknown kind {path.suffix!r}; give one of {' '.join(_BY_SUFFIX)}, "
            "a folder of images, or export it as a TIFF stack"
        )
    _check_readable(path)
    if not path.is_dir():
        regular(beside(path))
    return "sampled.directelectron" if path.suffix.lower() == ".mrc" and coordinates_beside(path) else reader


def _folder_reader(path: Path) -> str:
    """Folders as Gatan's in-situ cameras write them, of instrument files or of tables; else one image a frame."""
    _check_readable(path)
    if is_recording(path):
        return "instruments.gatan"
    suffixes = {file.suffix.lower() for file in path.iterdir() if not file.name.startswith(".")}
    tables = suffixes.intersection((*_READERS["sampled.tables"], ".npz"))
    images = suffixes.intersection((*_READERS["images"], *_READERS["tiff"]))
    if instruments := suffixes.intersection(SUFFIXES):
        if images:
            held = " ".join(sorted(images | instruments))
            raise InputError(f"{path.name} holds images of several kinds ({held}); give a folder of one kind")
        return "instruments.series"
    return "sampled.tables" if tables and not images else "images"


def _check_readable(path: Path) -> None:
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path.name} is neither a file nor a folder; give a movie file or a folder of images")
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            return
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from None
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes); give a complete file")


def _read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    movie = _open_source(path, True)  # a mask may be painted in colour
    if len(movie) != 1:
        raise InputError(f"the mask {movie.name} has {len(movie)} frames; give one image")
    return movie._pixels(0)
