"""NumPy files: .npy memory-mapped, .npz with one movie, a table of visits or a thinned movie in it.

Pickled objects are never read.
"""

from __future__ import annotations

import math
import struct
import threading
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..archives import Header, check_npz, read_header
from ..errors import InputError
from .movie import ArrayMovie, Movie, grey_dtype

DAMAGE = (
    *(OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)
"""What damage to a .npy or .npz file makes the standard library and NumPy raise."""


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open `path`, a .npy or .npz file of shape (time, height, width) or (height, width)."""
    try:
        if path.suffix.lower() == ".npz":
            return _open_npz(path, luminance)
        with path.open("rb") as file:
            shape, dtype = read_header(file)
            held, needed = path.stat().st_size - file.tell(), math.prod(shape) * dtype.itemsize
        _check(shape, dtype, path.name)
        if held < needed:
            raise InputError(f"{path.name} is truncated: {held:,} bytes of {needed:,}; copy or save it again")
        if held > needed:
            said = f"{held:,} bytes of pixels and a header for {needed:,}"
            raise InputError(f"{path.name} has {said}; it is damaged or holds several arrays: save it again")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except DAMAGE as error:
        raise _unreadable(path.name, error) from None
    return ArrayMovie(array, name=path.name, luminance=luminance)


class NpzMovie(Movie):
    """One array of a .npz file, decompressed whole when the first frame is asked for."""

    def __init__(self, path: Path, key: str, header: Header, luminance: bool) -> None:
        shape, dtype = header
        shape = (1, *shape) if len(shape) == 2 else shape
        super().__init__(name=path.name, shape=(shape[1], shape[2]), dtype=dtype, n_frames=shape[0])
        self._path, self._key, self._luminance = path, key, luminance
        self._lock = threading.Lock()
        self._loaded: ArrayMovie | None = None

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded._read(t)

    def _load(self) -> ArrayMovie:
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                return ArrayMovie(archive[self._key], name=self.name, luminance=self._luminance)
        except InputError:
            raise
        except DAMAGE as error:
            raise _unreadable(self.name, error) from None


def _open_npz(path: Path, luminance: bool) -> Movie:
    headers = check_npz(path)
    if "gmrm_visits" in headers:
        from .sampled.sparse import SparseMovie

        return SparseMovie(path)
    if sum(len(shape) == 1 for shape, _ in headers.values()) >= 3 and (table := _table(path)) is not None:
        return table
    movies = [key for key, (shape, _) in headers.items() if len(shape) in (3, 4)]
    movies = movies or [key for key, (shape, _) in headers.items() if len(shape) == 2]
    if len(movies) != 1:
        held = ", ".join(f"{key} {shape}" for key, (shape, _) in headers.items()) or "no arrays"
        raise InputError(f"{path.name} holds {held}; give a file with one array (time, height, width)")
    _check(*headers[movies[0]], path.name)
    movie = NpzMovie(path, movies[0], headers[movies[0]], luminance)
    if len(headers[movies[0]][0]) == 4:
        movie._pixels(0)
    return movie


def _table(path: Path) -> Movie | None:
    """The movie of a file with columns x, y and intensity, else None."""
    from .sampled.tables import movie_of_table, table_of_arrays

    with np.load(path, allow_pickle=False) as archive:
        table = table_of_arrays(archive)
        return None if table is None else movie_of_table(table, path.name)


def _check(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    grey_dtype(dtype, name)
    if len(shape) not in (2, 3) and not (len(shape) == 4 and shape[3] in (3, 4)):
        raise InputError(f"{name} has shape {shape}; give (time, height, width), or one frame (height, width)")
    if 0 in shape:
        raise InputError(f"{name} has shape {shape}, so no frames or empty ones; give a movie with pixels in it")


def _unreadable(name: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{name} is truncated or not a NumPy file ({reason}); save it again")
