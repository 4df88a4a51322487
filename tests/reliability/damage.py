"""Movies of every format, damaged, and what reading them came to; run as a program, for decoders may crash.

    python -m reliability.damage FOLDER N [FIRST [FORMAT]]        (in tests/)

A line of JSON for each case, written before (what is tried) and after (what came of it), so that the last one tells
what crashed.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from dm4 import dm_image, write_dm3, write_dm4
from movies import STACK as GREY
from movies import lossless_mp4, write_folder, write_gif, write_video
from pyarrow import parquet
from recordings import STACK, write_berkeley, write_hspy, write_mrc, write_seq, write_ser, write_tvips, write_velox

from gmrm_gpu.errors import InputError, MissingDependencyError
from gmrm_gpu.frames import child, open_movie, save_visits

T = len(STACK)
PATIENCE_S = 1.0
"""Of a child; shortened, so that many cases can be tried."""
MEMORY = 3 * 2**30
UNCOUNTED = ("csv", "csv folder", "parquet", "table npz", "gif")
"""Formats that do not say how many frames they hold: a damaged number of a frame is another frame, and the pictures of
a GIF follow each other by lengths only."""
TOLD = re.compile("(was|were) planned for|may be missing|are missing|the header counts")
"""Notes that tell the user of a number of frames that is in doubt."""
SUMMED = ("npz", "compressed npz", "visits npz")
"""Formats whose check sums cover every pixel."""


def table(frames: np.ndarray) -> dict[str, np.ndarray]:
    t, y, x = (axis.reshape(-1) for axis in np.indices(frames.shape))
    return {"frame": t, "x": x, "y": y, "intensity": frames.reshape(-1)}


def write_csv(path: Path, frames: np.ndarray) -> Path:
    columns = table(frames)
    rows = np.column_stack(list(columns.values()))
    np.savetxt(path, rows, fmt="%d", delimiter=",", header="shape = 5 x 7\nframe,x,y,intensity", comments="# ")
    path.write_text(path.read_text().replace("# frame,", "frame,"))
    return path


def write_csv_folder(folder: Path) -> Path:
    folder.mkdir()
    for t, frame in enumerate(STACK):
        rows = "".join(f"{x},{y},{level}\n" for (y, x), level in np.ndenumerate(frame))
        (folder / f"scan{t}.csv").write_text(f"# shape = 5 x 7\nx,y,intensity\n{rows}")
    return folder


def write_parquet(path: Path) -> Path:
    import pyarrow

    columns = table(STACK)
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata({"height": "5", "width": "7"}), path)
    return path


def write_ragged(path: Path) -> Path:
    import h5py

    columns = table(STACK)
    with h5py.File(path, "w") as file:
        group = file.create_group("scan")
        group["nnz"] = np.full(T, STACK[0].size, np.uint32)
        group["row"], group["col"] = columns["y"].astype(np.uint16), columns["x"].astype(np.uint16)
        group["intensity"] = columns["intensity"]
        group.attrs.update({"nframes": T, "shape0": 5, "shape1": 7})
    return path


def write_gatan(folder: Path) -> Path:
    for t, frame in enumerate(STACK):
        place = folder / "Hour_00" / "Minute_00" / f"Second_{t // 2:02d}"
        place.mkdir(parents=True, exist_ok=True)
        write_dm4(place / f"m_Hour_00_Minute_00_Second_{t // 2:02d}_Frame_{t % 2:04d}.dm4", dm_image(frame))
    return folder


def write_dm_folder(folder: Path) -> Path:
    folder.mkdir()
    for t, frame in enumerate(STACK):
        write_dm4(folder / f"grow_{t}.dm4", dm_image(frame))
    return folder


def saved(path: Path, write: Callable[..., Any], *args: Any, **options: Any) -> Path:
    write(path, *args, **options)
    return path


TIME, Y, X = ("time", "[s]", 0.5), ("y", "[n_m]", 2.0), ("x", "[n_m]", 2.0)
AXES = [{"name": "t", "navigate": True}, {"name": "y", "navigate": False}, {"name": "x", "navigate": False}]
VIDEO = GREY[:T]
LARGE = VIDEO.astype(np.uint16) * 257
MAKERS: dict[str, Callable[[Path], Path]] = {
    "npy": lambda at: saved(at / "a.npy", np.save, STACK),
    "npz": lambda at: saved(at / "a.npz", np.savez, movie=STACK),
    "compressed npz": lambda at: saved(at / "c.npz", np.savez_compressed, movie=STACK),
    "tiff": lambda at: saved(at / "a.tif", tifffile.imwrite, LARGE, photometric="minisblack"),
    "zlib tiff": lambda at: saved(at / "z.tif", tifffile.imwrite, LARGE, photometric="minisblack", compression="zlib"),
    "imagej tiff": lambda at: saved(at / "i.tif", tifffile.imwrite, LARGE, imagej=True, metadata={"axes": "TYX"}),
    "ome tiff": lambda at: saved(at / "o.ome.tif", tifffile.imwrite, LARGE, metadata={"axes": "TYX"}),
    "png folder": lambda at: write_folder(at / "png", VIDEO),
    "gif": lambda at: write_gif(at / "a.gif", VIDEO),
    "mp4": lambda at: lossless_mp4(at / "a.mp4", VIDEO),
    "mov": lambda at: write_video(at / "a.mov", "png", "gray", VIDEO, "gray"),
    "avi": lambda at: write_video(at / "a.avi", "libx264", "yuv420p", VIDEO, "yuv420p", qp="0", bf="2", g="4"),
    "mjpeg avi": lambda at: write_video(at / "j.avi", "mjpeg", "yuvj420p", VIDEO, "gray"),
    "mkv": lambda at: write_video(at / "a.mkv", "ffv1", "gray", VIDEO, "gray"),
    "dm3": lambda at: write_dm3(at / "a.dm3", dm_image(STACK)),
    "dm4": lambda at: write_dm4(at / "a.dm4", dm_image(STACK)),
    "velox emd": lambda at: write_velox(at / "v.emd", STACK),
    "berkeley emd": lambda at: write_berkeley(at / "b.emd", STACK, [TIME, Y, X]),
    "de5": lambda at: write_berkeley(at / "d.de5", STACK, [TIME, Y, X]),
    "hspy": lambda at: write_hspy(at / "h.hspy", {"movie": (STACK, AXES)}),
    "ser": lambda at: write_ser(at / "s_1.ser", STACK),
    "mrc": lambda at: write_mrc(at / "m.mrc", STACK),
    "tvips": lambda at: write_tvips(at, [0, 100, 200, 300]),
    "seq": lambda at: write_seq(at / "q.seq", STACK, [0, 40, 80, 120]),
    "gatan tree": lambda at: write_gatan(at / "tree"),
    "dm4 folder": lambda at: write_dm_folder(at / "dms"),
    "csv": lambda at: write_csv(at / "a.csv", STACK),
    "csv folder": lambda at: write_csv_folder(at / "csvs"),
    "parquet": lambda at: write_parquet(at / "a.parquet"),
    "table npz": lambda at: saved(at / "t.npz", np.savez, shape=(5, 7), **table(STACK)),
    "ragged h5": lambda at: write_ragged(at / "r.h5"),
    "visits npz": lambda at: save_visits(open_movie(STACK, visited=STACK % 3 > 0), at / "w.npz"),
}


# ---- damage ----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """`data` cut short, or with bits or bytes that are not its own; every other time in its first or last part."""
    n = len(data)
    low, high = [(0, n), (0, min(n, 1024)), (max(n - 1024, 0), n), (0, n)][rng.integers(4)]
    at, kind = int(rng.integers(low, high)), rng.integers(5)
    if kind == 0:
        return data[:at], f"cut at {at} of {n}"
    out = bytearray(data)
    if kind == 1:
        out[at] ^= 1 << int(rng.integers(8))
        return bytes(out), f"a bit of byte {at} of {n}"
    if kind == 2:
        places = rng.integers(low, high, 8)
        for place in places:
            out[place] ^= 1 << int(rng.integers(8))
        return bytes(out), f"bits of bytes {places.tolist()} of {n}"
    length = min(int(rng.integers(1, 200)), n - at)
    out[at : at + length] = rng.bytes(length) if kind == 3 else bytes(length)
    return bytes(out), f"{length} {'other' if kind == 3 else 'zero'} bytes at {at} of {n}"


def damaged_copy(source: Path, folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """A copy of a movie of which one file is damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    if source.is_file():
        shutil.copytree(source.parent, folder)  # the parts of a stream lie beside each other
        files = sorted(folder.iterdir())
    else:
        shutil.copytree(source, folder / source.name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = files[rng.integers(len(files))]
    data, what = damaged(file.read_bytes(), rng)
    file.write_bytes(data)
    return folder / source.name, f"{file.name}: {what}"


# ---- what comes of it ------------------------------------------------------------------------------------------------


def read(path: Path, format_: str, truth: list[bytes]) -> str:
    """``"refused: why"`` or ``"read"``; anything else is what is wrong."""
    try:
        movie = open_movie(path)
        frames = []
        for t in range(len(movie)):
            if movie.sampled:
                seen = movie.visits(t)
                frames.append(seen.positions.tobytes() + seen.values.tobytes())
            else:
                frames.append(movie.frame(t).tobytes())
    except (
        InputError,
        MissingDependencyError,
    ) as error:  # that of a kind of compression, damaged
        return f"refused: {error}" if "\n" not in str(error) else f"more than one line: {error}"
    if format_ not in UNCOUNTED and len(frames) != len(truth) and not any(map(TOLD.search, movie.acquisition.notes)):
        return f"{len(frames)} frames read instead of {len(truth)}"
    if format_ in SUMMED and frames != truth:
        return "wrong pixels in spite of check sums"
    return "read" if frames == truth else "read: with other pixels"


def contents(path: Path) -> list[bytes]:
    movie = open_movie(path)
    if not movie.sampled:
        return [movie.frame(t).tobytes() for t in range(len(movie))]
    seen = [movie.visits(t) for t in range(len(movie))]
    return [one.positions.tobytes() + one.values.tobytes() for one in seen]


def attempts(folder: Path, n: int, first: int = 0, only: str = "") -> Iterator[dict[str, Any]]:
    """Cases and what came of them: each format in turn."""
    sources, truths = {}, {}
    for format_, make in MAKERS.items():
        if only in ("", format_):
            place = folder / "whole" / format_.replace(" ", "_")
            place.mkdir(parents=True)
            sources[format_] = make(place)
            truths[format_] = contents(sources[format_])
            assert len(truths[format_]) == T, format_
    child.PATIENCE_S = PATIENCE_S
    for number in range(first, first + n):
        format_ = list(sources)[number % len(sources)]
        rng = np.random.default_rng([number // len(sources), *format_.encode()])
        path, what = damaged_copy(sources[format_], folder / "damaged", rng)
        case = {"number": number, "format": format_, "what": what}
        yield case
        start = time.perf_counter()
        try:
            outcome = read(path, format_, truths[format_])
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        yield {**case, "outcome": outcome, "seconds": time.perf_counter() - start}
        gc.collect()


def main(folder: str, n: str, first: str = "0", only: str = "") -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in attempts(Path(folder), int(n), int(first), only):
        print(json.dumps(line), flush=True)
    child._end_all()
    # Not ru_maxrss of this process: it counts what its parent took before this program began.
    status = Path("/proc/self/status").read_text("ascii")
    used = [int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024]
    used += [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
    print(json.dumps({"mib": used}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
