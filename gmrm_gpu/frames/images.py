"""A folder of images in natural order (frame2 before frame10), one image, or a GIF, through Pillow (extra `image`).

No calibration is taken from these: the resolution of a PNG or JPEG says how to print it, and the delay of a GIF how
to show it. A transparency channel is ignored. The first image decides about colour.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .colour import to_grey
from .counts import count_gif, gaps_told
from .instruments.stamps import told
from .listing import files_of
from .movie import Acquisition, Movie, size_text

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_GREY_TYPES = {
    "1": np.uint8,
    "L": np.uint8,
    "LA": np.uint8,
    "I;16": np.uint16,
    "I;16L": np.uint16,
    "I;16B": np.uint16,
    "I": np.int32,
    "F": np.float32,
}
# By content, whatever the name: for others, such as EPS, Pillow starts other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
_WARNINGS = threading.Lock()
# Equal channels come back from JPEG's YCbCr with at most this difference.
_JPEG_TOLERANCE = 4


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a folder of PNG, JPEG, TIFF or BMP images of one size, one such image, or a GIF."""
    try:
        import PIL.Image
    except ImportError:
        raise MissingDependencyError("reading images needs Pillow: pip install 'gmrm-gpu[image]'") from None
    if path.suffix.lower() == ".gif" and path.is_file():
        movie: Movie = GifMovie(PIL.Image, path, luminance)
    else:
        movie = FolderMovie(PIL.Image, path, list_images(path) if path.is_dir() else [path], luminance)
    movie._pixels(0)
    return movie


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in natural order: numbers within names count as numbers. Hidden files are left out."""
    files = files_of(folder, _SUFFIXES)
    if not files:
        raise InputError(f"the folder {folder} holds no images ({' '.join(_SUFFIXES)}); give one that does")
    return files


class FolderMovie(Movie):
    """One image file a frame. Headers are compared on opening, pixels are read when asked for."""

    def __init__(self, pil: Any, path: Path, files: list[Path], luminance: bool) -> None:
        self._pil, self._files, self._luminance = pil, files, luminance
        self._reported = path.name or str(path)
        shape, dtype = self._header(0)
        for t in range(1, len(files)):
            other, kind = self._header(t)
            if (other, kind) != (shape, dtype):
                raise InputError(
                    f"frame {t} ({files[t].name}) is {size_text(other)} {kind}, the first {size_text(shape)} {dtype}; "
                    "give images of one size and type"
                )
        known = told(Acquisition(), gaps_told(files))
        super().__init__(name=self._reported, shape=shape, dtype=dtype, n_frames=len(files), acquisition=known)

    def _header(self, t: int) -> tuple[tuple[int, int], np.dtype]:
        with self._open(t) as image:
            try:
                held = getattr(image, "n_frames", 1)
            except Exception as error:
                raise _unreadable(self._files[t].name, error) from None
            if held > 1:
                raise InputError(f"{self._files[t].name} holds {held} images; open that file by itself")
            return (image.height, image.width), np.dtype(_GREY_TYPES.get(image.mode, np.uint8))

    def _read(self, t: int) -> np.ndarray:
        with self._open(t) as image:
            try:
                return _grey(image, t, self._reported, self._luminance)
            except InputError:
                raise
            except Exception as error:  # each format of Pillow has its own kinds
                raise _unreadable(self._files[t].name, error) from None

    def _open(self, t: int) -> Any:
        try:
            with _no_limit_told(self._pil):
                return self._pil.open(self._files[t], formats=_FORMATS)
        except Exception as error:
            raise _unreadable(self._files[t].name, error) from None


class GifMovie(Movie):
    """A GIF from memory, each frame composed from those before it as the file says; going back starts again."""

    def __init__(self, pil: Any, path: Path, luminance: bool) -> None:
        data = path.read_bytes()
        listed = count_gif(data, path.name)
        try:
            with _no_limit_told(pil):
                self._image = pil.open(io.BytesIO(data), formats=["GIF"])
            n_frames = self._image.n_frames
        except Exception as error:
            raise _unreadable(path.name, error) from None
        if n_frames != listed:
            raise InputError(f"{path.name} is damaged: {n_frames} of {listed} frames are found; export it again")
        self._luminance, self._lock = luminance, threading.Lock()
        shape = (self._image.height, self._image.width)
        super().__init__(name=path.name, shape=shape, dtype=np.dtype(np.uint8), n_frames=n_frames)

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            try:
                self._image.seek(t)
                return _grey(self._image, t, self.name, self._luminance)
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"frame {t} of {self.name} cannot be read ({error}); the file is truncated or damaged"
                ) from None


@contextmanager
def _no_limit_told(pil: Any) -> Iterator[None]:
    """Pillow warns of images that large cameras take, of 90 million pixels, and refuses those of twice that size."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", pil.DecompressionBombWarning)
        yield


def _grey(image: Any, t: int, name: str, luminance: bool) -> np.ndarray:
    modes = {str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", ())}
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in mode for mode in modes):
        raise InputError(f"frame {t} of {name} has 16-bit colour channels, which would be cut to 8; save 16-bit grey")
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    if image.mode in _GREY_TYPES:
        return np.array(image)
    tolerance = _JPEG_TOLERANCE if image.format == "JPEG" else 0
    rgb = np.array(image.convert("RGB"))
    return to_grey(rgb, t, name, luminance=luminance, tolerance=tolerance)


def _unreadable(name: str, error: Exception) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{name} cannot be read ({error.strerror}); check its permissions")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason.startswith("cannot identify"):
        reason = "its content is none that Pillow knows"
    return InputError(f"{name} is truncated or not an image ({reason}); save it again")
