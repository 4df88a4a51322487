"""Files that mean harm, each a few bytes to a few megabytes: what a stranger's folder may hold.

`CASES` maps a name to a function that writes the case into an empty folder and returns what to do with it: the path of
a movie to be opened, or the arguments of a command. As a program (``python hostile.py FOLDER NAME ...``) it does so and
prints lines of JSON for each case: what happened, how long it took, and the memory that it, or a child, took.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

T, H, W = 3, 8, 9
STACK = np.random.default_rng(3).integers(0, 255, (T, H, W)).astype(np.uint8)
CANARY = "canary"
"""Name of the file that a payload makes, in the folder of the case or above it."""
Made = Path | list[str]
CASES: dict[str, Callable[[Path], Made]] = {}


def case(make: Callable[[Path], Made]) -> Callable[[Path], Made]:
    CASES[make.__name__] = make
    return make


# ---- pickles ---------------------------------------------------------------------------------------------------------


class Payload:
    """Makes the canary when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.target = str(folder / CANARY)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


def pickled(folder: Path, n: int = 1) -> np.ndarray:
    array = np.empty(n, dtype=object)
    array[:] = [Payload(folder) for _ in range(n)]
    return array


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


def npy_claim(shape: str, dtype: str = "|u1", content: bytes = bytes(64)) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    head = text.encode().ljust(117 if len(text) < 117 else len(text) + (-len(text) - 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def deflated_zeros(n: int, head: bytes = b"") -> bytes:
    """`head` and then `n` megabytes of zeros, deflated without a header, in little time and memory."""

    def packed(content: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)

    return packed(head) + packed(bytes(10**6)) * n + b"\x03\x00"


def zlib_zeros(n: int) -> bytes:
    """The same with the header and the sum of zlib."""
    return b"\x78\x9c" + deflated_zeros(n) + struct.pack(">I", (n * 10**6 % 65521) << 16 | 1)


def zip_of_zeros(path: Path, name: str, head: bytes, n: int, members: dict[str, bytes] | None = None) -> Path:
    """An archive whose last member is `head` and then `n` megabytes of zeros."""
    zipped(path, {**(members or {}), name: b""}, zipfile.ZIP_STORED)
    data, packed = path.read_bytes(), deflated_zeros(n, head)
    crc = zlib.crc32(head)
    for _ in range(n):
        crc = zlib.crc32(bytes(10**6), crc)
    facts = struct.pack("<HHHIII", 8, 0, 33, crc, len(packed), len(head) + n * 10**6)
    local = data.rindex(b"PK\x03\x04")
    central = data.rindex(b"PK\x01\x02")
    first, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    body = data[:local] + data[local : local + 8] + facts + data[local + 26 : first] + packed
    listed = data[first:central] + data[central : central + 10] + facts + data[central + 28 : end]
    tail = data[end : end + 12] + struct.pack("<IIH", len(listed), len(body), 0)
    path.write_bytes(body + listed + tail)
    return path


@case
def pickled_npy(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(npy_bytes(pickled(folder)))
    return folder / "a.npy"


@case
def pickled_field_of_a_structure(folder: Path) -> Made:
    array = np.zeros(2, dtype=[("a", "u1"), ("b", object)])
    array["b"] = pickled(folder, 2)
    (folder / "a.npy").write_bytes(npy_bytes(array))
    return folder / "a.npy"


@case
def bare_pickle_named_npy(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(pickle.dumps(Payload(folder)))
    return folder / "a.npy"


@case
def pickled_movie_in_npz(folder: Path) -> Made:
    return zipped(folder / "a.npz", {"movie.npy": npy_bytes(pickled(folder).reshape(1, 1, 1))})


@case
def pickled_visits(folder: Path) -> Made:
    members = {"gmrm_visits.npy": npy_bytes(pickled(folder)), "blocks.npy": npy_bytes(np.zeros(1, np.uint8))}
    return zipped(folder / "a.npz", members)


@case
def pickled_table(folder: Path) -> Made:
    columns = {f"{name}.npy": npy_bytes(pickled(folder, 4)) for name in ("x", "y", "intensity")}
    return zipped(folder / "a.npz", columns)


@case
def pickled_mask(folder: Path) -> Made:
    np.save(folder / "movie.npy", STACK)
    (folder / "mask.npy").write_bytes(npy_bytes(pickled(folder)))
    return ["info", "movie.npy", "--exclude", "mask.npy"]


def study(folder: Path, **members: bytes) -> Path:
    """The files of a study of others, as far as `members` does not replace them."""
    about = {"config": {}, "movie": {"name": "m"}, "scale": {}, "provenance": {}, "others": []}
    made = folder / "study"
    made.mkdir()
    (made / "study.json").write_text(json.dumps(about))
    zipped(made / "replicates.npz", {"frame.npy": npy_bytes(np.arange(3))})
    for name, content in members.items():
        (made / name.replace("__", ".")).write_bytes(content)
    return made


@case
def pickled_replicates_of_a_study(folder: Path) -> Made:
    made = study(folder)
    zipped(made / "replicates.npz", {"frame.npy": npy_bytes(pickled(folder))})
    return ["report", str(made)]


# ---- archives --------------------------------------------------------------------------------------------------------


@case
def zip_slip(folder: Path) -> Made:
    inner = folder / "inner"
    inner.mkdir()
    members = {f"../{CANARY}.npy": npy_bytes(STACK), f"../{CANARY}.txt": b"x"}
    return zipped(inner / "a.npz", members)


@case
def zip_slip_by_an_absolute_name(folder: Path) -> Made:
    return zipped(folder / "a.npz", {f"{folder / CANARY}.npy": npy_bytes(STACK), f"{folder / CANARY}.txt": b"x"})


@case
def zip_bomb(folder: Path) -> Made:
    """One array of 1 GB in 1 MB."""
    return zip_of_zeros(folder / "a.npz", "movie.npy", npy_claim("(1000, 1000, 1000)", content=b""), 1000)


@case
def zip_bomb_of_visits(folder: Path) -> Made:
    members = {"gmrm_visits.npy": npy_bytes(np.array("{}")), "blocks.npy": npy_bytes(np.zeros(1, np.uint8))}
    head = npy_claim("(125000000,)", "<i8", b"")
    return zip_of_zeros(folder / "a.npz", "counts.npy", head, 1000, members)


@case
def zip_bomb_of_entries_that_overlap(folder: Path) -> Made:
    """A thousand entries that all point at one compressed megabyte."""
    path = zipped(folder / "a.npz", {"m0000.npy": npy_claim("(1, 1000, 1000)", content=bytes(10**6))})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entries = b"".join(data[start:end].replace(b"m0000", b"m%04d" % i) for i in range(1000))
    tail = data[end : end + 8] + struct.pack("<HHIIH", 1000, 1000, len(entries), start, 0)
    path.write_bytes(data[:start] + entries + tail)
    return path


@case
def zip_in_zip_in_zip(folder: Path) -> Made:
    inner = zipped(folder / "inner", {"a.npy": bytes(10**7)}).read_bytes()
    for _ in range(5):
        inner = zipped(folder / "inner", {f"{i}.npz": inner for i in range(20)}).read_bytes()
    (folder / "a.npz").write_bytes(inner)
    return folder / "a.npz"


@case
def zip_of_many_names(folder: Path) -> Made:
    return zipped(folder / "a.npz", {f"{i}.npy": b"" for i in range(20_000)}, zipfile.ZIP_STORED)


@case
def member_that_claims_more_than_it_holds(folder: Path) -> Made:
    return zipped(folder / "a.npz", {"movie.npy": npy_claim("(10000, 10000, 10000)")})


@case
def visits_that_claim_a_trillion_pixels(folder: Path) -> Made:
    from gmrm_gpu.frames import open_movie, save_visits

    save_visits(open_movie(STACK, visited=np.eye(H, W)), folder / "good.npz")
    members = {}
    with zipfile.ZipFile(folder / "good.npz") as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    header = json.loads(str(np.load(io.BytesIO(members["gmrm_visits.npy"]))))
    members["gmrm_visits.npy"] = npy_bytes(np.array(json.dumps({**header, "shape": [10**6, 10**6]})))
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "a.npz"


@case
def visits_of_a_block_that_inflates(folder: Path) -> Made:
    block = zlib_zeros(1000)
    header = {"version": 1, "name": "a", "shape": [H, W], "dtype": "|u1"}
    arrays = {
        "gmrm_visits": np.array(json.dumps(header)),
        "frame_numbers": np.zeros(1, "<i8"),
        "counts": np.array([10**12], "<i8"),
        "places": np.zeros(1, "<i8"),
        "values": np.zeros(1, "<i8"),
        "offsets": np.array([0, len(block)], "<i8"),
        "crc32": np.zeros(1, "<u4"),
        "blocks": np.frombuffer(block, np.uint8),
    }
    members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
    return zipped(folder / "a.npz", members, zipfile.ZIP_STORED)


# ---- sizes -----------------------------------------------------------------------------------------------------------


@case
def npy_of_a_trillion_pixels(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(npy_claim("(10000, 10000, 10000)"))
    return folder / "a.npy"


@case
def npy_of_sizes_that_overflow(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(npy_claim(f"({2**62}, {2**62}, 4)"))
    return folder / "a.npy"


@case
def npy_of_negative_size(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(npy_claim("(-1, 8, 8)"))
    return folder / "a.npy"


@case
def npy_header_of_nested_brackets(folder: Path) -> Made:
    (folder / "a.npy").write_bytes(npy_claim("(" * 4000 + ")" * 4000))
    return folder / "a.npy"


def tiff(folder: Path, width: int, height: int, counts: int, next_page: int = 0) -> Path:
    """One page with these sizes and one strip."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, counts)]
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path = folder / "a.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + 64) + bytes(64) + page + struct.pack("<I", next_page))
    return path


@case
def tif_of_a_trillion_pixels(folder: Path) -> Made:
    return tiff(folder, 10**6, 10**6, 64)


@case
def tif_whose_pages_go_in_a_circle(folder: Path) -> Made:
    return tiff(folder, 8, 8, 64, next_page=72)


@case
def tif_strip_that_inflates(folder: Path) -> Made:
    import tifffile

    tifffile.imwrite(folder / "a.tif", np.zeros((8, 8), np.uint8), compression="zlib")
    bomb = zlib_zeros(1000)
    data = bytearray((folder / "a.tif").read_bytes())
    with tifffile.TiffFile(folder / "a.tif") as tif:
        tags = tif.pages.first.tags
        for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
            tag = tags[name]
            struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, value)
    (folder / "a.tif").write_bytes(bytes(data) + bomb)
    return folder / "a.tif"


def ome(folder: Path, name: str, *, more: str = "") -> Path:
    import tifffile

    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?>{more}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" '
        'SizeY="8" SizeZ="1" SizeC="1" SizeT="2"><TiffData IFD="0" FirstT="0" PlaneCount="1"/>'
        f'<TiffData IFD="0" FirstT="1" PlaneCount="1"><UUID FileName="{name}">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(folder / "a.ome.tif", STACK[0], description=xml.encode(), metadata=None)
    return folder / "a.ome.tif"


@case
def ome_that_names_files_outside(folder: Path) -> Made:
    import tifffile

    tifffile.imwrite(folder / "secret.tif", STACK[1])
    (folder / "inner").mkdir()
    return ome(folder / "inner", "../secret.tif")


@case
def ome_that_names_a_pipe(folder: Path) -> Made:
    os.mkfifo(folder / "b.tif")
    return ome(folder, "b.tif")


@case
def ome_of_entities_that_multiply(folder: Path) -> Made:
    lines = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol" * 10}">' for i in range(10)]
    return ome(folder, "&e9;", more=f"<!DOCTYPE OME [{''.join(lines)}]>")


def mrc_header(width: int, height: int, frames: int) -> bytes:
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, width, height, frames, 0, 0, 0, 0, width, height, frames)
    header[208:216] = b"MAP DD\0\0"
    return bytes(header)


@case
def mrc_of_a_trillion_pixels(folder: Path) -> Made:
    (folder / "a.mrc").write_bytes(mrc_header(10_000, 10_000, 10_000) + bytes(100))
    return folder / "a.mrc"


@case
def scan_of_a_trillion_pixels(folder: Path) -> Made:
    (folder / "a_movie.mrc").write_bytes(mrc_header(10_000, 10_000, 10_000) + bytes(100))
    (folder / "a_scan_coordinates.csv").write_text("0,0\n1,1\n")
    return folder / "a_movie.mrc"


@case
def scan_at_a_place_beyond_a_trillion(folder: Path) -> Made:
    (folder / "a_movie.mrc").write_bytes(mrc_header(8, 8, 2) + bytes(128))
    (folder / "a_scan_coordinates.csv").write_text("0,0\n1000000,1000000\n")
    return folder / "a_movie.mrc"


@case
def ser_of_a_trillion_pixels(folder: Path) -> Made:
    from recordings import write_ser

    data = bytearray(write_ser(folder / "a_1.ser", STACK.astype(np.uint16)).read_bytes())
    struct.pack_into("<II", data, 14, 2**31 - 1, 2**31 - 1)
    (folder / "a_1.ser").write_bytes(data)
    return folder / "a_1.ser"


@case
def seq_of_a_trillion_pixels(folder: Path) -> Made:
    from recordings import write_seq

    return write_seq(folder / "a.seq", STACK, [0, 1, 2], _548=10**6, _552=10**6, _564=2**32 - 1)


@case
def tvips_of_a_trillion_pixels(folder: Path) -> Made:
    header = struct.pack("<13I", 256, 2, 2**31 - 1, 2**31 - 1, 16, 0, 0, 1, 1, 3, 200_000, 50_000, 80)
    (folder / "s_000.tvips").write_bytes(header.ljust(256, b"T") + bytes(4096))
    return folder / "s_000.tvips"


@case
def dm4_of_a_trillion_pixels(folder: Path) -> Made:
    from dm4 import dm_image, write_dm4

    image = dm_image(STACK)
    image["ImageData"]["Dimensions"] = [10_000, 10_000, 10_000]
    write_dm4(folder / "a.dm4", image)
    return folder / "a.dm4"


@case
def avi_of_a_trillion_pixels(folder: Path) -> Made:
    stream = b"vidsDIB " + struct.pack("<12I", 0, 0, 0, 1, 5, 0, 2**31 - 1, 10**9, 0, 0, 0, 0)
    picture = struct.pack("<IiiHHIIiiII", 40, 10**6, 10**6, 1, 24, 0, 0, 0, 0, 0, 0)
    lists = b"LIST" + struct.pack("<I", 4 + 16 + len(stream) + len(picture)) + b"strl"
    lists += b"strh" + struct.pack("<I", len(stream)) + stream + b"strf" + struct.pack("<I", len(picture)) + picture
    main = struct.pack("<14I", 1, 0, 0, 16, 2**31 - 1, 0, 1, 10**9, 10**6, 10**6, 0, 0, 0, 0)
    hdrl = b"hdrlavih" + struct.pack("<I", len(main)) + main + lists
    movi = b"movi00db" + struct.pack("<I", 64) + bytes(64)
    body = b"AVI LIST" + struct.pack("<I", len(hdrl)) + hdrl + b"LIST" + struct.pack("<I", len(movi)) + movi
    (folder / "a.avi").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return folder / "a.avi"


@case
def playlist_named_avi(folder: Path) -> Made:
    """A list of other files, or addresses, that a video library would play."""
    from movies import lossless_mp4

    lossless_mp4(folder / "secret.mp4")
    (folder / "inner").mkdir()
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", "../secret.mp4", "#EXT-X-ENDLIST", ""]
    (folder / "inner" / "a.avi").write_text("\n".join(lines))
    return folder / "inner" / "a.avi"


@case
def list_of_videos_named_mp4(folder: Path) -> Made:
    from movies import lossless_mp4

    lossless_mp4(folder / "secret.mp4")
    (folder / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    return folder / "a.mp4"


@case
def hdf5_lists_of_a_trillion_pixels(folder: Path) -> Made:
    """Never written, so that the file is small and a library may fill in zeros."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["shape0"] = file.attrs["shape1"] = 8
        for name in ("nnz", "row", "col", "intensity"):
            file.create_dataset(name, (10**12,), "u4", chunks=(2**20,))
    return folder / "a.h5"


@case
def hdf5_lists_that_inflate(folder: Path) -> Made:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file["nnz"] = np.array([2 * 10**8], np.int64)
        for name in ("row", "col", "intensity"):
            file.create_dataset(name, (2 * 10**8,), "u4", chunks=(2**20,), compression="gzip")
    return folder / "a.h5"


@case
def emd_of_a_trillion_pixels(folder: Path) -> Made:
    import h5py
    from recordings import write_berkeley

    axes = [(name, "s", 1.0) for name in ("time", "y", "x")]
    path = write_berkeley(folder / "a.emd", STACK, axes)
    with h5py.File(path, "a") as file:
        group = file["data/movie"]
        del group["data"]
        group.create_dataset("data", (10_000, 10_000, 10_000), "u1", chunks=(1, 1000, 1000))
    return path


@case
def csv_of_a_trillion_pixels(folder: Path) -> Made:
    (folder / "a.csv").write_text("x,y,intensity\n0,0,1\n1000000,1000000,2\n")
    return folder / "a.csv"


@case
def csv_that_claims_a_shape_of_many_digits(folder: Path) -> Made:
    (folder / "a.csv").write_text(f"# shape = {'9' * 5000} x 8\nx,y,intensity\n0,0,1\n1,1,2\n")
    return folder / "a.csv"


def png(folder: Path, side: int, packed: bytes) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return folder / "a.png"


@case
def parquet_of_rows_that_take_no_room(folder: Path) -> Made:
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.table({name: np.zeros(10**6, np.int64) for name in ("x", "y", "intensity")})
    with pyarrow.parquet.ParquetWriter(folder / "a.parquet", rows.schema) as writer:
        for _ in range(40):
            writer.write_table(rows)
    return folder / "a.parquet"


@case
def png_of_a_trillion_pixels(folder: Path) -> Made:
    return png(folder, 10**6, zlib.compress(bytes(10**6)))


@case
def program_named_png(folder: Path) -> Made:
    """PostScript, for which an image library starts another program; here that would leave a trace."""
    (folder / "bin").mkdir()
    (folder / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {folder / CANARY}\n")
    (folder / "bin" / "gs").chmod(0o755)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    lines = ["%!PS-Adobe-3.0 EPSF-3.0", "%%BoundingBox: 0 0 9 8", "%%EndComments", "showpage", "%%EOF"]
    (folder / "a.png").write_text("\n".join(lines))
    return folder / "a.png"


@case
def gif_of_four_billion_pixels(folder: Path) -> Made:
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    image = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\x00\x00"
    (folder / "a.gif").write_bytes(b"GIF89a" + screen + image + b";")
    return folder / "a.gif"


# ---- links, pipes and devices ----------------------------------------------------------------------------------------


@case
def pipe_named_npy(folder: Path) -> Made:
    os.mkfifo(folder / "a.npy")
    return folder / "a.npy"


@case
def pipe_among_images(folder: Path) -> Made:
    from movies import write_folder

    os.mkfifo(write_folder(folder / "frames", STACK) / "f9a.png")
    return folder / "frames"


@case
def pipe_among_tables(folder: Path) -> Made:
    (folder / "frames").mkdir()
    (folder / "frames" / "1.csv").write_text("x,y,intensity\n0,0,1\n")
    os.mkfifo(folder / "frames" / "2.csv")
    return folder / "frames"


@case
def pipe_in_a_recording(folder: Path) -> Made:
    second = folder / "run" / "Hour_00" / "Minute_00" / "Second_00"
    second.mkdir(parents=True)
    os.mkfifo(second / "run_Hour_00_Minute_00_Second_00_Frame_0000.dm4")
    return folder / "run"


@case
def pipe_beside_a_movie(folder: Path) -> Made:
    from recordings import write_tvips

    path = write_tvips(folder, [0, 100, 200, 300])
    (folder / "s_001.tvips").unlink()
    os.mkfifo(folder / "s_001.tvips")
    return path


@case
def pipe_as_settings(folder: Path) -> Made:
    np.save(folder / "movie.npy", STACK)
    os.mkfifo(folder / "a.toml")
    return ["info", "movie.npy", "--config", "a.toml"]


@case
def pipe_as_results(folder: Path) -> Made:
    made = study(folder)
    (made / "study.json").unlink()
    os.mkfifo(made / "study.json")
    return ["report", str(made)]


@case
def pipe_as_manifest(folder: Path) -> Made:
    np.save(folder / "a.npy", STACK)
    os.mkfifo(folder / "a.npy.sha256")
    return folder / "a.npy"


@case
def link_that_leads_to_itself(folder: Path) -> Made:
    (folder / "a.npy").symlink_to("b.npy")
    (folder / "b.npy").symlink_to("a.npy")
    return folder / "a.npy"


@case
def link_that_leads_nowhere_among_images(folder: Path) -> Made:
    from movies import write_folder

    (write_folder(folder / "frames", STACK) / "f11.png").symlink_to("gone.png")
    return folder / "frames"


@case
def link_to_a_device(folder: Path) -> Made:
    (folder / "a.tif").symlink_to("/dev/zero")
    return folder / "a.tif"


@case
def device_as_settings(folder: Path) -> Made:
    np.save(folder / "movie.npy", STACK)
    (folder / "a.toml").symlink_to("/dev/zero")
    return ["info", "movie.npy", "--config", "a.toml"]


@case
def folder_that_holds_itself(folder: Path) -> Made:
    second = folder / "run" / "Hour_00" / "Minute_00" / "Second_00"
    second.mkdir(parents=True)
    (second / "again").symlink_to(folder / "run")
    return folder / "run"


def lists(file: object) -> None:
    for name in ("row", "col", "intensity"):
        file[name] = np.arange(3)  # type: ignore[index]


@case
def hdf5_link_to_another_file(folder: Path) -> Made:
    import h5py

    with h5py.File(folder / "secret.h5", "w") as file:
        lists(file)
    (folder / "inner").mkdir()
    with h5py.File(folder / "inner" / "a.h5", "w") as file:
        file["movie"] = h5py.ExternalLink("../secret.h5", "/")
    return folder / "inner" / "a.h5"


@case
def hdf5_numbers_out_of_another_file(folder: Path) -> Made:
    """Any file can be had as grey levels in this way."""
    import h5py

    (folder / "secret").write_bytes(b"secret words")
    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["shape0"] = file.attrs["shape1"] = 3
        file["row"] = file["col"] = np.arange(3)
        file.create_dataset("intensity", (3,), "u4", external=[(str(folder / "secret"), 0, 12)])
    return folder / "a.h5"


@case
def emd_whose_pixels_are_a_pipe(folder: Path) -> Made:
    import h5py
    from recordings import write_berkeley

    path = write_berkeley(folder / "a.emd", STACK, [(name, "s", 1.0) for name in ("time", "y", "x")])
    os.mkfifo(folder / "pipe")
    with h5py.File(path, "a") as file:
        group = file["data/movie"]
        del group["data"]
        group.create_dataset("data", (T, H, W), "u1", external=[(str(folder / "pipe"), 0, T * H * W)])
    return path


@case
def hdf5_group_that_holds_itself(folder: Path) -> Made:
    import h5py

    with h5py.File(folder / "a.hspy", "w") as file:
        file.attrs["file_format"], file.attrs["file_format_version"] = "HyperSpy", "3.3"
        group = file.create_group("Experiments/x")
        group["data"] = STACK
        group["metadata"] = group
        group["original_metadata"] = group
    return folder / "a.hspy"


# ---- names -----------------------------------------------------------------------------------------------------------


@case
def name_with_a_zero_byte(folder: Path) -> Made:
    return ["info", "a\0b.npy"]


@case
def name_with_escape_codes(folder: Path) -> Made:
    np.save(folder / "a\x1b[2J\x1b]0;title\x07.npy", STACK)
    return ["info", "a\x1b[2J\x1b]0;title\x07.npy"]


@case
def name_with_line_breaks(folder: Path) -> Made:
    (folder / "a\ngmrm-gpu: all is well\r.tif").write_bytes(b"no TIFF")
    return ["info", "a\ngmrm-gpu: all is well\r.tif"]


@case
def name_that_reads_backwards(folder: Path) -> Made:
    np.save(folder / "a\u202efit.npy", STACK)
    return ["info", "a\u202efit.npy"]


@case
def name_that_is_no_text(folder: Path) -> Made:
    name = os.fsdecode(b"a\xff\xfe.npy")
    np.save(folder / name, STACK)
    return ["info", name]


@case
def name_of_a_home_that_is_not_there(folder: Path) -> Made:
    return ["info", "~nobody-has-this-name/movie.npy"]


@case
def detector_with_escape_codes(folder: Path) -> Made:
    from recordings import write_mrc

    path = write_mrc(folder / "20260102_00012_movie.mrc", STACK)
    lines = ["Camera Model = \x1b[31mred\x1b[5m", "Frames Per Second = 50", "Scan - Enable = Disable"]
    (folder / "20260102_00012_info.txt").write_text("\n".join(lines))
    return ["info", path.name]


@case
def manifest_of_paths_outside(folder: Path) -> Made:
    (folder / "inner").mkdir()
    os.mkfifo(folder / "pipe")
    np.save(folder / "inner" / "a.npy", STACK)
    (folder / "inner" / "a.npy.sha256").write_text(f"{'0' * 64}  ../pipe\n")
    return folder / "inner" / "a.npy"


# ---- settings and results of others ----------------------------------------------------------------------------------


def settings(folder: Path, name: str, content: str) -> Made:
    np.save(folder / "movie.npy", STACK)
    (folder / name).write_text(content)
    return ["info", "movie.npy", "--config", name]


@case
def toml_of_nested_brackets(folder: Path) -> Made:
    return settings(folder, "a.toml", "a = " + "[" * 100_000)


@case
def toml_of_a_number_of_many_digits(folder: Path) -> Made:
    return settings(folder, "a.toml", "[mixture]\nn_components = " + "9" * 100_000)


@case
def toml_of_a_trillion_components(folder: Path) -> Made:
    return settings(folder, "a.toml", f"[mixture]\nn_components = {10**12}\n")


@case
def json_settings_of_nested_brackets(folder: Path) -> Made:
    return settings(folder, "a.json", '{"config":' * 100_000)


@case
def json_results_of_nested_brackets(folder: Path) -> Made:
    return ["report", str(study(folder, study__json=b"[" * 200_000))]


@case
def results_that_name_others_outside(folder: Path) -> Made:
    about = {"config": {}, "movie": {}, "scale": {}, "provenance": {}, "others": ["/../../secret"]}
    return ["report", str(study(folder, study__json=json.dumps(about).encode()))]


@case
def results_that_inflate(folder: Path) -> Made:
    made = study(folder)
    zip_of_zeros(made / "replicates.npz", "frame.npy", npy_claim("(125000000,)", "<i8", b""), 1000)
    return ["report", str(made)]


def store(folder: Path, plan: object) -> Path:
    """An unfinished study whose plan bears a right check sum: a stranger can make that too."""
    from gmrm_gpu.study.store import PLAN_FORMAT, VERSION, _sealed

    made = folder / "run.part" / "shards"
    made.mkdir(parents=True)
    about = {"format": PLAN_FORMAT, "version": VERSION, "fingerprint": "0", "shards": plan}
    (made / "plan.json").write_bytes(_sealed(about))
    return made


@case
def plan_of_other_things(folder: Path) -> Made:
    store(folder, [1, {"name": 2}])
    return ["status", "run"]


@case
def plan_of_names_outside(folder: Path) -> Made:
    os.mkfifo(folder / "pipe.json")
    shard = {"name": "../../pipe", "method": "movie", "rate": 0.1, "start": 0, "stop": 9}
    store(folder, [shard | {"reference": False, "cost": 1}])
    return ["status", "run", "--check"]


@case
def plan_of_nested_brackets(folder: Path) -> Made:
    (store(folder, []) / "plan.json").write_bytes(b"[" * 200_000)
    return ["status", "run"]


@case
def pipe_as_plan(folder: Path) -> Made:
    plan = store(folder, []) / "plan.json"
    plan.unlink()
    os.mkfifo(plan)
    return ["status", "run"]


@case
def pipe_as_claim(folder: Path) -> Made:
    from gmrm_gpu.claim import LOCK

    store(folder, [])
    os.mkfifo(folder / "run.part" / LOCK)
    return ["status", "run"]


# ---- a program -------------------------------------------------------------------------------------------------------


def attempt(made: Made) -> tuple[str, str]:
    """(what happened, all that was said): "refused" by a named error, "fine", or the name of another exception."""
    from gmrm_gpu.cli import main
    from gmrm_gpu.errors import GmrmError
    from gmrm_gpu.frames import open_movie

    if isinstance(made, list):
        said = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with redirect_stdout(said), redirect_stderr(said):
            code = main(made)
        text = said.buffer.getvalue().decode()  # type: ignore[attr-defined]
        return ("unexpected" if "unexpected" in text else "refused" if code else "fine"), text
    try:
        movie = open_movie(made)
        for t in {0, len(movie) // 2, len(movie) - 1}:
            movie.visits(t)
    except GmrmError as error:
        return "refused", str(error)
    return "fine", ""


def peak_bytes(process: str = "self") -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def run(folder: Path, name: str) -> dict[str, object]:
    """One case, in `folder`, which is made."""
    folder.mkdir(parents=True)
    made = CASES[name](folder)
    os.chdir(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = peak_bytes(), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            what, text = attempt(made)
        except BaseException as error:
            what, text = type(error).__name__, str(error)
    told = {"what": what, "text": text, "seconds": time.perf_counter() - start}
    told |= {"bytes": max([peak_bytes() - before, *map(peak_bytes, children())])}
    told |= {"warnings": [str(w.message) for w in caught]}
    return told | {"canary": [str(path) for path in folder.rglob(f"{CANARY}*")]}


if __name__ == "__main__":
    from recordings import write_mrc

    import gmrm_gpu.cli.commands  # noqa: F401

    attempt(write_mrc(Path(sys.argv[1]) / "good.mrc", STACK))  # what is imported for the first time takes seconds
    answers = os.fdopen(os.dup(1), "w")
    for one in sys.argv[2:]:
        print(json.dumps({"start": one}), file=answers, flush=True)
        print(json.dumps({"case": one, **run(Path(sys.argv[1]) / one, one)}), file=answers, flush=True)
