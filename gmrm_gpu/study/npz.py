"""Arrays as an npz file whose bytes are a function of the arrays alone, and back without trust in what it says."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping

import numpy as np

_DATE = (1980, 1, 1, 0, 0, 0)


def pack_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An uncompressed npz, which `numpy.load` reads: sorted names, fixed dates, rows first.

    Raises
    ------
    ValueError
        An array holds Python objects, which only a pickle could keep.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
            about = zipfile.ZipInfo(f"{name}.npy", _DATE)
            about.create_system = 3  # Windows would say 0
            archive.writestr(about, member.getvalue())
    return out.getvalue()


def unpack_npz(data: bytes) -> dict[str, np.ndarray]:
    """Inverse of `pack_npz`; needs no more memory than `data` takes, whatever it claims to hold.

    Raises
    ------
    ValueError
        It is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in about) or sum(m.file_size for m in about) > len(data):
                raise ValueError("packed otherwise than gmrm-gpu does")
            return {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in about}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"no npz file ({error})") from None


def _array(member: bytes) -> np.ndarray:
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("of another npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    n = math.prod(shape)
    size = n * dtype.itemsize
    if fortran or dtype.hasobject or min(shape, default=0) < 0 or size != len(member) - stream.tell():
        raise ValueError("not the array that its header says")
    if size == 0:
        return np.zeros(shape, dtype)
    # A copy: the caller may write into it.
    return np.frombuffer(member, dtype, n, stream.tell()).reshape(shape).copy()


__all__ = ["pack_npz", "unpack_npz"]
