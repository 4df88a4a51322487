"""Writing a movie so that reading it back restores pixels and calibration: .npy, or TIFF for other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..durable import whole_file
from ..errors import MissingDependencyError, OutputError
from .movie import ArrayMovie, Movie

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = ("int8", "int16", "int32", "uint32", "float64")


def save_movie(
    movie: np.ndarray | Movie,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | None = None,
    frame_time_s: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a movie frame by frame; a failure leaves no file behind.

    Parameters
    ----------
    movie : a movie, or an array (time, height, width) or (height, width).
    path : .npy (pixels only), or .tif with pixel size and frame interval: as ImageJ writes them for uint8, uint16
        and float32, as OME-TIFF for other types.
    pixel_size_um, frame_time_s : calibration, in place of the movie's own. As frame numbers are not written, a view
        of every n-th frame is written with n times the frame time.
    overwrite : replace an existing file.

    Returns
    -------
    Path of the file.

    Raises
    ------
    OutputError
        The file exists, the type or extension cannot be written, the movie is sub-sampled, or writing fails.
    MissingDependencyError
        TIFF without tifffile.
    """
    source = movie if isinstance(movie, Movie) else ArrayMovie(movie)
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".tif", ".tiff"):
        raise OutputError(f"{path.name} cannot be written as {suffix!r}; use .npy or .tif")
    if source.sampled:
        raise OutputError(
            f"{source.name} is sub-sampled and {suffix} holds whole frames; write its visits to .npz with gmrm-gpu "
            "thin (frames.save_visits)"
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or give --overwrite")
    pixel = source.pixel_size_um if pixel_size_um is None else pixel_size_um
    interval = _interval(source) if frame_time_s is None else frame_time_s
    with whole_file(path) as part:
        if suffix == ".npy":
            _write_npy(source, part)
        else:
            _write_tiff(source, part, pixel, interval)
    return path


def _interval(movie: Movie) -> float | None:
    steps = np.unique(np.diff(movie.frame_numbers))
    if movie.frame_time_s is None or steps.size > 1:
        return None
    return movie.frame_time_s * (int(steps[0]) if steps.size else 1)


def _frames(movie: Movie) -> Iterator[np.ndarray]:
    return (movie._pixels(t) for t in range(len(movie)))


def _write_npy(movie: Movie, path: Path) -> None:
    out = np.lib.format.open_memmap(path, mode="w+", dtype=movie.dtype, shape=(len(movie), *movie.shape))
    for t, frame in enumerate(_frames(movie)):
        out[t] = frame
    out.flush()


def _write_tiff(movie: Movie, path: Path, pixel_size_um: float | None, frame_time_s: float | None) -> None:
    try:
        import tifffile
    except ImportError:
        raise MissingDependencyError("writing TIFF needs tifffile: pip install 'gmrm-gpu[tiff]'") from None
    options: dict[str, Any] = {"metadata": {"axes": "TYX"}}
    if movie.dtype.name in _IMAGEJ_TYPES:
        options["imagej"] = True
        if pixel_size_um is not None:
            options["resolution"] = (1 / pixel_size_um, 1 / pixel_size_um)
            options["metadata"]["unit"] = "um"
        if frame_time_s is not None:
            options["metadata"]["finterval"] = frame_time_s
    elif movie.dtype.name in _OME_TYPES:
        options["ome"] = True
        if pixel_size_um is not None:
            options["metadata"] |= {"PhysicalSizeX": pixel_size_um, "PhysicalSizeY": pixel_size_um}
        if frame_time_s is not None:
            options["metadata"]["TimeIncrement"] = frame_time_s
    else:
        raise OutputError(f"TIFF cannot hold {movie.dtype} pixels that other programs read; use .npy, or convert them")
    # One frame through an iterator would be taken for its rows.
    data = np.stack(list(_frames(movie))) if len(movie) == 1 else _frames(movie)
    tifffile.imwrite(
        path, data, shape=(len(movie), *movie.shape), dtype=movie.dtype, photometric="minisblack", **options
    )
