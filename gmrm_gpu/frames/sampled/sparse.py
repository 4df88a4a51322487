"""Sub-sampled movies in one small file: .npz with the visits of every frame, compressed, with check sums.

Layout, version 1: a zip of .npy arrays (T frames, B blocks), none of them pickled, numbers little-endian.

gmrm_visits : () text, JSON: version, name, shape [height, width], dtype of the grey levels, notes, and where known
    pixel_size_um, frame_time_s, detector, bit_depth.
frame_numbers : (T,) int64, numbers of the frames in their source. times_s : (T,) float64, their times, where known.
counts : (T,) int64, visits of each frame.
places, values : (T,) int64, which block holds the places of each frame, and which its grey levels. Frames with one
    and the same pattern share a block.
offsets : (B + 1,) int64, block b is blocks[offsets[b]:offsets[b + 1]].
crc32 : (B,) uint32, CRC-32 of the bytes of each block before compression.
blocks : uint8, the blocks, each compressed by zlib; not compressed again by the zip.
excluded : uint8, where pixels must not be used: a bit for each pixel, the first one highest, 1 where excluded.

Visits are in the order of their places y * width + x; those of one pixel in the order they were made. A block of places
holds the differences of successive places (the first from 0) as uint32, a block of values the grey levels; of both, the
first bytes of all numbers stand first, then their second bytes, and so on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...archives import check_npz, most_bytes
from ...durable import whole_file
from ...errors import InputError, OutputError
from ..movie import Acquisition, Movie, Visits
from ..npy import DAMAGE
from .places import check_size

VERSION = 1
_FACTS = ("pixel_size_um", "frame_time_s", "detector", "bit_depth")
Progress = Callable[[int, int], None]


def save_visits(
    movie: Movie, path: str | os.PathLike[str], *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write the visits of a sub-sampled movie, frame by frame; a failure leaves no file behind.

    Parameters
    ----------
    movie : sub-sampled; see `gmrm_gpu.thinning.thin_movie` for one that is not.
    path : .npz; `open_movie` reads it, the layout is in `gmrm_gpu.frames.sampled.sparse`.
    overwrite : replace an existing file. progress : called with the frames done and their number.

    Returns
    -------
    Path of the file.

    Raises
    ------
    OutputError
        The file exists, is not named .npz, or cannot be written.
    """
    path = Path(path).expanduser()
    _check_target(movie, path, overwrite)
    with whole_file(path) as part, tempfile.TemporaryFile(dir=path.parent) as blocks:
        arrays = _write_blocks(movie, blocks, progress)
        with zipfile.ZipFile(part, "w", allowZip64=True) as archive:
            for name, array in {**_described(movie), **arrays}.items():
                _add(archive, name, array)
            _add_blocks(archive, blocks)
    return path


class SparseMovie(Movie):
    """The movie of a file written by `save_visits`; frames are read, checked and decompressed when asked for."""

    def __init__(self, path: Path) -> None:
        with _named(path.name):
            check_npz(path)
            with zipfile.ZipFile(path) as archive:
                arrays = {name.removesuffix(".npy"): _array(archive, name) for name in _members(archive)}
                self._start, n_bytes = _find_blocks(archive, path)
            header = _header(arrays, path.name)
            _check_arrays(arrays, n_bytes)
            shape = (int(header["shape"][0]), int(header["shape"][1]))
            check_size(shape, path.name)
            excluded = arrays.get("excluded")
            valid = None if excluded is None else np.unpackbits(excluded)[: shape[0] * shape[1]].reshape(shape) == 0
            super().__init__(
                name=path.name,
                shape=shape,
                dtype=np.dtype(header["dtype"]),
                n_frames=len(arrays["frame_numbers"]),
                frame_numbers=arrays["frame_numbers"],
                valid=valid,
                acquisition=Acquisition(
                    **{key: header.get(key) for key in _FACTS},
                    times_s=arrays.get("times_s"),
                    notes=tuple(str(note) for note in header.get("notes", ())),
                ),
                sampled=True,
            )
        self._path, self._arrays = path, arrays
        self._last: tuple[int, np.ndarray] | None = None

    def _read_visits(self, t: int) -> Visits:
        where, n = int(self._arrays["places"][t]), int(self._arrays["counts"][t])
        last = self._last
        with _named(f"frame {self.frame_numbers[t]} of {self.name}"):
            if last is None or last[0] != where or len(last[1]) != n:
                steps = self._block(where, n, np.dtype("<u4"))
                last = where, np.cumsum(steps, dtype=np.int64)
                self._last = last
            values = self._block(int(self._arrays["values"][t]), n, self.dtype.newbyteorder("<"))
        return Visits(last[1], values)

    def _block(self, b: int, n: int, dtype: np.dtype) -> np.ndarray:
        """The `n` numbers of block `b`, checked."""
        begin, end = self._arrays["offsets"][b : b + 2]
        with self._path.open("rb") as file:
            file.seek(self._start + int(begin))
            packed = file.read(int(end - begin))
        n_bytes = n * dtype.itemsize
        if n_bytes > most_bytes(len(packed)):
            raise ValueError(f"{len(packed):,} bytes of it would unpack to {n_bytes:,}")
        content = zlib.decompressobj().decompress(packed, n_bytes + 1)
        if len(content) != n_bytes or zlib.crc32(content) != self._arrays["crc32"][b]:
            raise ValueError("its check sum is wrong")
        return _unshuffled(content, dtype)


# ---- writing ---------------------------------------------------------------------------------------------------------


def _check_target(movie: Movie, path: Path, overwrite: bool) -> None:
    if path.suffix.lower() != ".npz":
        raise OutputError(f"{path.name} cannot be written as {path.suffix!r}; visits are kept in a file named .npz")
    if not movie.sampled:
        raise OutputError(f"{movie.name} has whole frames; thin it first (gmrm-gpu thin, or thinning.thin_movie)")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or give --overwrite")


def _described(movie: Movie) -> dict[str, np.ndarray]:
    """What the file says about the recording."""
    known = movie.acquisition
    facts = {key: getattr(known, key) for key in _FACTS if getattr(known, key) is not None}
    header = {
        "version": VERSION,
        "name": movie.name,
        "shape": list(movie.shape),
        "dtype": movie.dtype.str,
        "notes": list(known.notes),
        **facts,
    }
    arrays = {"gmrm_visits": np.array(json.dumps(header)), "frame_numbers": movie.frame_numbers.astype("<i8")}
    if known.times_s is not None:
        arrays["times_s"] = np.asarray(known.times_s, dtype="<f8")
    if movie.valid is not None:
        arrays["excluded"] = np.packbits(~movie.valid)
    return arrays


def _write_blocks(movie: Movie, file: IO[bytes], progress: Progress | None) -> dict[str, np.ndarray]:
    """Write the blocks of all frames to `file`; the arrays that find them."""
    sizes: list[int] = []
    sums: list[int] = []
    known: dict[bytes, int] = {}

    def keep(content: bytes) -> int:
        packed = zlib.compress(content, 9)
        file.write(packed)
        sizes.append(len(packed))
        sums.append(zlib.crc32(content))
        return len(sizes) - 1

    counts, places, values = [], [], []
    for t in range(len(movie)):
        seen = movie.visits(t)
        order = np.argsort(seen.positions, kind="stable")
        pattern = seen.positions[order]
        steps = _shuffled(np.diff(pattern, prepend=0).astype("<u4"))
        # Equal patterns are told by their bytes, of which only the last is kept: patterns that return come in a row.
        block = known[steps] if steps in known else keep(steps)
        known = {steps: block}
        counts.append(len(pattern))
        places.append(block)
        values.append(keep(_shuffled(seen.values[order].astype(movie.dtype.newbyteorder("<")))))
        if progress:
            progress(t + 1, len(movie))
    return {
        "counts": np.array(counts, dtype="<i8"),
        "places": np.array(places, dtype="<i8"),
        "values": np.array(values, dtype="<i8"),
        "offsets": np.cumsum([0, *sizes]).astype("<i8"),
        "crc32": np.array(sums, dtype="<u4"),
    }


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(_info(name, zipfile.ZIP_DEFLATED), "w") as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _add_blocks(archive: zipfile.ZipFile, blocks: IO[bytes]) -> None:
    n_bytes = blocks.tell()
    blocks.seek(0)
    with archive.open(_info("blocks", zipfile.ZIP_STORED), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (n_bytes,)})
        shutil.copyfileobj(blocks, member)


def _info(name: str, method: int) -> zipfile.ZipInfo:
    """A member without the date of today: the same movie gives the same file."""
    info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = method
    return info


def _shuffled(numbers: np.ndarray) -> bytes:
    """First bytes of all numbers first: high bytes, mostly equal, then compress to nothing."""
    return numbers.view(np.uint8).reshape(-1, numbers.dtype.itemsize).T.tobytes()


def _unshuffled(content: bytes, dtype: np.dtype) -> np.ndarray:
    columns = np.frombuffer(content, dtype=np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(columns.T).view(dtype).reshape(-1)


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Anything that damage to a file can cause becomes one line about `what`."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what} is truncated or damaged ({reason}); copy or write the file again") from None


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".npy") and name != "blocks.npy"]


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # Reading to the end makes zipfile compare its own CRC.
    with archive.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read()
    return array


def _find_blocks(archive: zipfile.ZipFile, path: Path) -> tuple[int, int]:
    """Where in the file the blocks begin, and how many bytes they are."""
    info = archive.getinfo("blocks.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its blocks were compressed again")
    with path.open("rb") as file:
        # A local header: 30 bytes, then a name and extra fields with their lengths at 26 and 28.
        file.seek(info.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        return file.tell(), int(shape[0])


def _header(arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    header = json.loads(str(arrays["gmrm_visits"]))
    if header["version"] > VERSION:
        raise InputError(
            f"{name} has version {header['version']} of the format, this program reads {VERSION}; install a newer one"
        )
    return dict(header)


def _check_arrays(arrays: dict[str, np.ndarray], n_bytes: int) -> None:
    """`ValueError` unless the arrays that find the blocks go together."""
    n_frames, offsets = len(arrays["frame_numbers"]), arrays["offsets"]
    n_blocks = len(arrays["crc32"])
    fit = (
        all(arrays[key].shape == (n_frames,) for key in ("counts", "places", "values"))
        and offsets.shape == (n_blocks + 1,)
        and offsets[0] == 0
        and offsets[-1] == n_bytes
        and bool(np.all(np.diff(offsets) >= 0))
        and bool(np.all(arrays["counts"] >= 0))
        and all(bool(np.all((arrays[key] >= 0) & (arrays[key] < n_blocks))) for key in ("places", "values"))
        and arrays.get("times_s", arrays["counts"]).shape == (n_frames,)
    )
    if not fit:
        raise ValueError("its arrays contradict each other")
