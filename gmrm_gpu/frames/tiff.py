"""TIFF stacks through tifffile (extra `tiff`): plain, ImageJ, OME, and as exported by DigitalMicrograph.

Pages are read one at a time; an uncompressed contiguous stack is memory-mapped. Grey levels are those stored: a
"white is zero" page is not inverted, which is also what ImageJ does.
"""

from __future__ import annotations

import logging
import math
import os
import re
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..errors import GmrmError, InputError, MissingDependencyError
from .axes import UNKNOWN, Axis, calibrated
from .colour import to_grey
from .instruments.stamps import told
from .movie import Acquisition, ArrayMovie, Movie, size_text
from .units import to_um

_PALETTE, _CMYK = 3, 5
_RESOLUTION_UNIT = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
# A coarser resolution tag tells how to print the picture (72 dpi is 353 um), not what the microscope saw.
_PRINT_UM = 10.0


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a TIFF stack; pixel size and frame interval come from ImageJ, OME, DigitalMicrograph or resolution tags."""
    try:
        import tifffile
    except ImportError:
        raise MissingDependencyError("reading TIFF needs tifffile: pip install 'gmrm-gpu[tiff]'") from None
    n_pages = _count_pages(path)
    tif = None
    try:
        with _quiet():
            tif = tifffile.TiffFile(path)
            return _movie(tif, path, n_pages, luminance)
    except BaseException as error:
        if tif is not None:
            tif.close()
        if isinstance(error, GmrmError) or not isinstance(error, Exception):
            raise
        # tifffile raises many kinds
        raise InputError(f"{path.name} is not a readable TIFF file ({_first_line(error)}); export it again") from None


def _movie(tif: Any, path: Path, n_pages: int, luminance: bool) -> Movie:
    series, n_frames = _one_series(tif, path.name, n_pages)
    known = told(_acquisition(tif), _unused(tif, series, n_frames, path))
    page = series.keyframe
    grey = page.samplesperpixel == 1 and page.photometric != _PALETTE
    if grey and series.dataoffset is not None and page.is_memmappable:
        array = _map(path, tif, series, (n_frames, *page.shape[-2:]))
        return ArrayMovie(array, name=path.name, acquisition=known)
    movie = TiffMovie(tif, series, n_frames, path.name, luminance, known)
    if not grey:
        movie._pixels(0)
    return movie


def names_of_parts(path: Path) -> list[str]:
    """Names of the other files of an OME data set that are there, as `path` gives them.

    Raises
    ------
    InputError
        One of them is not a plain name: it would lead out of the folder.
    """
    try:
        import tifffile

        with _quiet(), tifffile.TiffFile(path) as tif:
            xml = tif.ome_metadata if tif.is_ome else None
        root = ElementTree.fromstring(xml) if xml else None
    except Exception:  # no TIFF, or none that can be read: opening it says so
        return []
    if root is None:
        return []
    parts = (part for part in root.iter() if part.tag.endswith("UUID") and part.text != root.get("UUID"))
    names = {part.get("FileName", path.name) for part in parts} - {path.name}
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"{path.name} names {name} as one of its files; only files beside it are read")
    return [name for name in names if os.path.lexists(path.with_name(name))]


class TiffMovie(Movie):
    """Pages of a TIFF file, decoded one at a time under a lock."""

    def __init__(
        self,
        tif: Any,
        series: Any,
        n_frames: int,
        name: str,
        luminance: bool,
        acquisition: Acquisition,
    ) -> None:
        page = series.keyframe
        super().__init__(
            name=name,
            shape=(page.imagelength, page.imagewidth),
            dtype=np.dtype(np.uint8) if _is_palette8(page) else page.dtype,
            n_frames=n_frames,
            acquisition=acquisition,
        )
        self._series, self._luminance = series, luminance
        self._one_page_per_frame = len(series.pages) == n_frames
        self._whole: np.ndarray | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, tif.close)

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            try:
                with _quiet():
                    pixels = self._page(t)
            except Exception as error:  # tifffile and its codecs raise many kinds
                if "imagecodecs" in str(error):
                    raise MissingDependencyError(
                        f"{self.name} is compressed in a way that needs imagecodecs: pip install imagecodecs"
                    ) from None
                raise InputError(
                    f"frame {t} of {self.name} cannot be read ({_first_line(error)}); the file is truncated or damaged"
                ) from None
        if pixels.ndim != 3:  # of another size than the frames, where damaged
            return pixels
        if pixels.shape[2] == 2:  # grey and alpha
            return pixels[..., 0]
        return to_grey(pixels, t, self.name, luminance=self._luminance)

    def _page(self, t: int) -> np.ndarray:
        page = self._series.keyframe
        if self._one_page_per_frame:
            stored = self._series.pages[t]
            if page.compression != 1 and max(stored.databytecounts, default=0) > 2 * page.nbytes + 65536:
                raise InputError("its compressed pixels are larger than its pixels")  # and would inflate to anything
            pixels = stored.asarray()
        else:
            if self._whole is None:
                self._whole = self._series.asarray().reshape(len(self), *page.shape[-2:])
            pixels = self._whole[t]
        if page.photometric == _PALETTE:
            colours = np.moveaxis(page.colormap, 0, -1)
            return (colours >> 8).astype(np.uint8)[pixels] if _is_palette8(page) else colours[pixels]
        if pixels.ndim == 3 and page.planarconfig == 2:
            return np.moveaxis(pixels, 0, -1)
        return pixels


@contextmanager
def _quiet() -> Iterator[None]:
    # What tifffile logs about damaged files would stand beside the one line of our error.
    logger = logging.getLogger("tifffile")
    logger.addFilter(_reject)
    try:
        yield
    finally:
        logger.removeFilter(_reject)


def _reject(record: logging.LogRecord) -> bool:
    return False


def _is_palette8(page: Any) -> bool:
    return page.photometric == _PALETTE and page.bitspersample <= 8


def _one_series(tif: Any, name: str, n_pages: int) -> tuple[Any, int]:
    if not tif.series:
        raise InputError(f"{name} has no pages; give a stack with at least one image")
    series, first = tif.series[0], tif.pages.first
    if len(tif.series) > 1:
        for number, page in enumerate(tif.pages):
            if (page.shape, page.dtype) != (first.shape, first.dtype):
                raise InputError(
                    f"frame {number} of {name} is {size_text(page.shape)} {page.dtype}, the first "
                    f"{size_text(first.shape)} {first.dtype}; give frames of one size and type"
                )
        raise InputError(f"{name} holds {len(tif.series)} image series; export the one you mean as a stack")
    page = series.keyframe
    if page.photometric == _CMYK or page.samplesperpixel > 4:
        raise InputError(f"{name} has {page.samplesperpixel} channels a pixel; export it in grey")
    sizes = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and size > 1}
    # tifffile calls the frames of an ImageJ stack channels where the writer did not name the axis.
    if len(sizes) > 1 or 1 < sizes.get("C", 1) <= 4:
        held = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
        raise InputError(f"{name} has the axes {held}; export one channel and one plane as a stack in time")
    if page.imagedepth > 1:
        raise InputError(f"{name} holds volumes {page.imagedepth} slices deep; export a stack of images")
    if tif.is_ome and None in list(series.pages):
        raise InputError(f"{name} lacks the page of frame {list(series.pages).index(None)}; export it again")
    n_frames = math.prod(sizes.values())
    announced = int(tif.imagej_metadata.get("images", 1)) if tif.is_imagej else 1
    if n_frames < announced:
        raise InputError(f"{name} is truncated: {n_frames} of {announced} frames are there; copy or export it again")
    # One page may describe them all; the pages of an OME series may lie in several files.
    if n_pages not in (1, n_frames) and not tif.is_ome:
        raise InputError(f"{name} has {n_pages} pages for {n_frames} frames; it is damaged: copy or export it again")
    return series, n_frames


def _unused(tif: Any, series: Any, n_frames: int, path: Path) -> str | None:
    """A sentence where the file has room for another frame that no page leads to, as after damage to the list of pages.

    Every page may have much in its tags, as of the microscope. Nothing is said of pictures in pictures.
    """
    if tif.is_ome or "SubIFDs" in tif.pages.first.tags:
        return None
    if series.dataoffset is not None:
        pages, used, frame = [tif.pages.first], series.nbytes, series.nbytes // n_frames
    else:
        pages = list(tif.pages)
        sizes = [sum(page.databytecounts) for page in pages]
        used, frame = sum(sizes), min(sizes)
    used += sum(tag.valuebytecount for page in pages for tag in page.tags)
    over = path.stat().st_size - used - 1024 * len(tif.pages)
    if over < max(frame, 1):
        return None
    return f"{path.name} has {over:,} bytes that belong to none of its {n_frames} frames: some may be missing"


def _map(path: Path, tif: Any, series: Any, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(tif.byteorder + series.dtype.char)
    needed = series.dataoffset + math.prod(shape) * dtype.itemsize
    held = path.stat().st_size
    if needed > held:
        raise InputError(f"{path.name} is truncated: {held} bytes of {needed}; copy or export it again")
    offset = series.dataoffset
    tif.close()
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _count_pages(path: Path) -> int:
    """How many image directories the file lists; 0 where it is no TIFF. tifffile drops those after a broken link.

    Raises
    ------
    InputError
        A directory lies outside of the file, or the list leads back into itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        version = struct.unpack(f"{order}H", file.read(2))[0] if order and size >= 16 else 0
        if version not in (42, 43):
            return 0
        number, entry, link = (f"{order}H", 12, f"{order}I") if version == 42 else (f"{order}Q", 20, f"{order}Q")

        def read(at: int, form: str) -> int:
            if at + struct.calcsize(form) > size:
                raise InputError(
                    f"{path.name} is truncated: its list of pages leaves the file; copy or export it again"
                )
            file.seek(at)
            return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])

        offset = read(4 if version == 42 else 8, link)
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise InputError(f"{path.name} is damaged: its list of pages has no end; copy or export it again")
            seen.add(offset)
            offset = read(offset + struct.calcsize(number) + entry * read(offset, number), link)
    return len(seen)


def _acquisition(tif: Any) -> Acquisition:
    """What the tags say of the recording; what they say that cannot be used stands in the notes."""
    tags = tif.pages.first.tags
    if tif.is_ome:
        axes = _from_ome(tif.ome_metadata)
    elif tif.is_imagej:
        axes = _from_imagej(tif.imagej_metadata, tags)
    elif 65003 in tags and 65009 in tags:
        axes = _from_digitalmicrograph(tags)
    else:
        unit = _RESOLUTION_UNIT.get(int(tags["ResolutionUnit"].value)) if "ResolutionUnit" in tags else None
        x, y = _steps(tags)
        printed = x is None or y is None or (to_um(max(x, y), unit) or math.inf) >= _PRINT_UM
        axes = (UNKNOWN, UNKNOWN, UNKNOWN) if printed else (UNKNOWN, Axis("y", y, unit), Axis("x", x, unit))
    return calibrated(*axes)


def _from_imagej(metadata: dict[str, Any], tags: Any) -> tuple[Axis, Axis, Axis]:
    (x, y), unit = _steps(tags), metadata.get("unit")
    return Axis("t", metadata.get("finterval"), metadata.get("tunit", "s")), Axis("y", y, unit), Axis("x", x, unit)


def _from_ome(xml: str) -> tuple[Axis, Axis, Axis]:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    found = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', pixels[0])) if pixels else {}
    x = Axis("x", found.get("PhysicalSizeX"), found.get("PhysicalSizeXUnit", "µm"))
    y = Axis("y", found.get("PhysicalSizeY"), found.get("PhysicalSizeYUnit", "µm"))
    return Axis("t", found.get("TimeIncrement"), found.get("TimeIncrementUnit", "s")), x if y.step is None else y, x


def _from_digitalmicrograph(tags: Any) -> tuple[Axis, Axis, Axis]:
    # 65003-65005 are the units and 65009-65011 the scales of x, y and the third axis.
    value = {code: tags[code].value for code in range(65003, 65012) if code in tags}
    x, y, t = (Axis(name, value.get(65009 + i), value.get(65003 + i)) for i, name in enumerate("xyt"))
    return t, y, x


def _steps(tags: Any) -> tuple[float | None, float | None]:
    """Sides (x, y) of a pixel in the unit of the resolution tags."""
    if "XResolution" not in tags or "YResolution" not in tags:
        return None, None
    x, y = (tags[name].value for name in ("XResolution", "YResolution"))
    return (None, None) if 0 in (*x, *y) else (x[1] / x[0], y[1] / y[0])


def _first_line(error: Exception) -> str:
    text = re.sub(r"<tifffile\.\S+ [^>]*>\s*", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
