"""Tables of visits: one row (x, y, intensity) for each, as CSV, Parquet (extra `table`) or .npz; read whole.

x is the column and y the row of a pixel, whole numbers counted from 0 at the top left. A column `frame` (or `time`)
says which frame a visit belongs to; a folder of tables has one file a frame, in natural order. Lines ``# name = value``
before the header of a CSV, the metadata of a Parquet file and further arrays of an .npz may give height and width (or
shape), pixel_size_um and frame_time_s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...archives import check_npz, most_bytes
from ...errors import InputError, MissingDependencyError
from ..listing import files_of
from ..movie import Acquisition, Movie
from ..npy import DAMAGE
from ..units import to_seconds
from .directelectron import LIST
from .places import ListedMovie, check_size, flat_places, size_of_largest, whole_coordinates

SUFFIXES = (".csv", ".parquet", ".npz")
COLUMNS = {
    "x": ("x", "col", "column", "xpos", "xposition", "xpixel", "xpx"),
    "y": ("y", "row", "ypos", "yposition", "ypixel", "ypx"),
    "intensity": ("intensity", "value", "z", "counts", "count", "signal", "grey", "gray", "greylevel", "graylevel"),
    "frame": ("frame", "frames", "framenumber", "frameno", "framenr", "frameindex", "slice", "t"),
    "time": ("time", "times", "timestamp"),
}
"""Names that a column may have, without regard to case and to what is no letter."""
_KNOWN = ("shape", "height", "width", "pixel_size_um", "frame_time_s")
_DIGITS = 10
_PIXELS = ("", "px", "pixel", "pixels", "index")


@dataclass
class Table:
    """Columns (n,) by the names of `COLUMNS`, units as written in the header, and what else the file says."""

    columns: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a table, or a folder of tables with one file a frame."""
    if path.is_dir():
        files = files_of(path, SUFFIXES)
        return movie_of_table(_joined([_read(file) for file in files], [file.name for file in files]), path.name)
    return movie_of_table(_read(path), path.name)


def movie_of_table(table: Table, name: str) -> Movie:
    """The sub-sampled movie of the columns of `table`.

    Raises
    ------
    InputError
        A column is missing, lengths differ, or coordinates are no pixels of the frame.
    """
    columns = {key: np.asarray(column) for key, column in table.columns.items()}
    _check_columns(columns, table.units, name)
    x, y, notes = columns["x"], columns["y"], list(table.notes)
    shape = _shape(table.known, name)
    if shape is None:
        shape, text = size_of_largest(x, y, name)
        notes.append(text)
    frame, numbers, times = _frames(columns, table.units, name, notes)
    order = np.argsort(frame, kind="stable")
    positions = flat_places(x, y, shape, name)
    acquisition = Acquisition(
        pixel_size_um=_number(table.known, "pixel_size_um", name),
        frame_time_s=_number(table.known, "frame_time_s", name),
        times_s=times,
        notes=tuple(notes),
    )
    counts = np.bincount(frame, minlength=len(numbers))
    values = columns["intensity"][order]
    return ListedMovie(
        counts, positions[order], values, name=name, shape=shape, frame_numbers=numbers, acquisition=acquisition
    )


def table_of_arrays(arrays: Mapping[str, Any]) -> Table | None:
    """The table in arrays by name, such as those of an .npz file; None where x, y or the intensity is missing."""
    kept, notes = _columns([name for name in arrays if name not in _KNOWN], "the file")
    if not {"x", "y", "intensity"} <= set(kept):
        return None
    columns = {key: np.asarray(arrays[name]) for key, name in kept.items()}
    return Table(columns, {key: _unit(name) for key, name in kept.items()}, _known(arrays), notes)


# ---- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Table:
    if path.name.endswith(LIST):
        raise InputError(f"{path.name} lists the positions of a scan and no grey levels; open the .mrc file beside it")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes); give a complete file")
    try:
        return {".parquet": _read_parquet, ".npz": _read_npz}.get(path.suffix.lower(), _read_csv)(path)
    except (InputError, MissingDependencyError):
        raise
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path.name} is no table of numbers ({reason}); export it again as x, y, intensity") from None


def _read_npz(path: Path) -> Table:
    check_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        table = table_of_arrays(archive)
        if table is None:
            raise InputError(f"{path.name} holds {', '.join(archive) or 'nothing'}; name its arrays x, y and intensity")
    return table


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError("reading Parquet needs pyarrow: pip install 'gmrm-gpu[table]'") from None
    about, size = pyarrow.parquet.read_metadata(path), path.stat().st_size
    if 8 * about.num_rows * about.num_columns > most_bytes(size):  # equal values take no room
        raise InputError(f"{path.name} has {size:,} bytes and claims {about.num_rows:,} rows; export it as .npz")
    content = pyarrow.parquet.read_table(path)
    kept, notes = _columns(content.column_names, path.name)
    for head in kept.values():
        if content[head].null_count:
            raise InputError(f"{path.name} has {content[head].null_count:,} rows without {head}; leave those out")
    columns = {key: content[head].to_numpy() for key, head in kept.items()}
    said = {key.decode(): value.decode() for key, value in (content.schema.metadata or {}).items()}
    return Table(columns, {key: _unit(head) for key, head in kept.items()}, _known(said), notes)


def _read_csv(path: Path) -> Table:
    with path.open(encoding="utf-8-sig") as file:
        known: dict[str, str] = {}
        n_before, line = 0, file.readline()
        while line.startswith("#") or (line and not line.strip()):
            if match := re.match(r"#\s*(\w+)\s*[=:]\s*(.+?)\s*$", line):
                known[match[1]] = match[2]
            n_before, line = n_before + 1, file.readline()
        second = file.readline()
    delimiter = _delimiter(line)
    heads = [head.strip().strip("\"'") for head in line.strip().split(delimiter)]
    notes = _unfinished(path, known)
    if all(_is_number(head) for head in heads):
        if len(heads) != 3:
            raise InputError(f"{path.name} has {len(heads)} columns and no header; name them, such as x,y,intensity")
        notes.append(f"{path.name} has no header: its columns were taken as x, y, intensity.")
        heads, n_before = ["x", "y", "intensity"], n_before - 1
    kept, unused = _columns(heads, path.name)
    if not kept:
        raise InputError(f"{path.name} has the columns {', '.join(heads)[:200]}; name them x, y, intensity and frame")
    comma = delimiter != "," and "," in second
    columns = _numbers(path, n_before + 1, delimiter, [heads.index(head) for head in kept.values()], comma)
    found = dict(zip(kept, (_narrow(column) for column in columns), strict=True))
    return Table(found, {key: _unit(head) for key, head in kept.items()}, _known(known), notes + unused)


def _unfinished(path: Path, known: Mapping[str, str]) -> list[str]:
    """What in the lines before the header, or at the end of the file, should not pass without a word."""
    unused = [f"{name} = {value}" for name, value in known.items() if name not in _KNOWN]
    notes = [f"{path.name} says {', '.join(unused)}, which is not used."] if unused else []
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() not in b"\r\n":
            notes.append(f"{path.name} ends without a line break: if it was cut short, its last number may be too.")
    return notes


def _numbers(path: Path, n_before: int, delimiter: str | None, which: list[int], comma: bool) -> np.ndarray:
    """The columns `which` of a CSV file after `n_before` lines, (len(which), n) float64."""
    with path.open(encoding="utf-8-sig") as file:
        for _ in range(n_before):
            file.readline()
        lines = (line.replace(",", ".") for line in file) if comma else file
        rows = np.zeros((0, len(which)))
        if _more(path, n_before):
            rows = np.loadtxt(lines, delimiter=delimiter, usecols=which, ndmin=2, quotechar='"')
    return rows.T


def _more(path: Path, n_before: int) -> bool:
    """Whether a row follows, which NumPy would warn about."""
    with path.open(encoding="utf-8-sig") as file:
        return any(line.strip() for i, line in enumerate(file) if i >= n_before)


def _delimiter(line: str) -> str | None:
    """What separates the columns of this header; None: white space."""
    return next((sign for sign in ("\t", ";", ",", "|") if sign in line), None)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9.,]+(?:[eE][-+]?[0-9]+)?", text) is not None


def _narrow(column: np.ndarray) -> np.ndarray:
    """Whole numbers in the narrowest integer type that holds them: a text does not say which it was."""
    if column.size == 0 or not np.isfinite(column).all() or np.any(column != np.rint(column)):
        return column
    low, high = int(column.min()), int(column.max())
    return column.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))


def _joined(tables: list[Table], names: list[str]) -> Table:
    """The tables of a folder as one with a column frame."""
    for table, name in zip(tables, names, strict=True):
        if "frame" in table.columns or "time" in table.columns:
            raise InputError(
                f"{name} has a column for frames, but in a folder each file is one frame; open it by itself"
            )
        _check_columns(table.columns, table.units, name, least=0)
    first = tables[0]
    for table, name in zip(tables, names, strict=True):
        if table.known != first.known or table.units != first.units:
            raise InputError(f"{name} differs from {names[0]} in its header; give tables of one recording")
    counts = np.array([len(table.columns["x"]) for table in tables])
    # Without rows a column has no type that it could share with the others.
    filled = [table for table, count in zip(tables, counts, strict=True) if count] or tables
    columns = {key: np.concatenate([table.columns[key] for table in filled]) for key in ("x", "y", "intensity")}
    columns["frame"] = np.repeat(np.arange(len(tables)), counts)
    notes = [note for table in tables for note in table.notes]
    if len(notes) > 3:
        notes[3:] = [f"{len(notes) - 3} more such notes are about other files of the folder."]
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        shown = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        notes.append(f"{len(empty)} files list no visits and are left out as frames: {shown}.")
    return Table(columns, first.units, first.known, notes)


# ---- columns ---------------------------------------------------------------------------------------------------------


def _columns(heads: list[str], name: str) -> tuple[dict[str, str], list[str]]:
    """Which header is which of `COLUMNS`, and a sentence about those that are none."""
    kept: dict[str, str] = {}
    for head in heads:
        key = _column(head)
        if key is None:
            continue
        if key in kept:
            raise InputError(f"{name} has two columns for {key}: {kept[key]} and {head}; rename the one not meant")
        kept[key] = head
    unused = [head or "one without a name" for head in heads if head not in kept.values()]
    return kept, [f"{name} has columns that are not used: {', '.join(unused)}."] if kept and unused else []


def _column(head: str) -> str | None:
    """Which of `COLUMNS` a header names."""
    plain = re.sub(r"[\W_]", "", re.sub(r"[(\[].*", "", head)).lower()
    ending = re.fullmatch(r"(time|t)(s|ms|us|min)", plain)
    if ending:
        return "time"
    return next((key for key, names in COLUMNS.items() if plain in names), None)


def _unit(head: str) -> str:
    """``"x (nm)"`` -> ``"nm"``, ``"time_ms"`` -> ``"ms"``; empty where the header names none."""
    if match := re.search(r"[(\[]\s*(.*?)\s*[)\]]", head):
        return match[1]
    match = re.fullmatch(r"(?:time|t)_(s|ms|us|min)", head.strip().lower())
    return match[1] if match else ""


def _check_columns(columns: Mapping[str, np.ndarray], units: Mapping[str, str], name: str, *, least: int = 1) -> None:
    missing = [key for key in ("x", "y", "intensity") if key not in columns]
    if missing:
        raise InputError(
            f"{name} has no column {' or '.join(missing)} (found: {', '.join(columns) or 'none'}); name them x, y, "
            "intensity, and frame where there are several"
        )
    for key in ("x", "y"):
        if units.get(key, "").lower() not in _PIXELS:
            raise InputError(f"{name} gives {key} in {units[key]}; give whole pixels, counted from 0 at the top left")
    lengths = {key: np.asarray(column).shape for key, column in columns.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) != 1:
        held = ", ".join(f"{key} {shape}" for key, shape in lengths.items())
        raise InputError(f"{name} holds {held}; give columns of one length")
    if lengths["x"][0] < least:
        raise InputError(f"{name} lists no visits; give a table with at least one row")


def _frames(
    columns: Mapping[str, np.ndarray], units: Mapping[str, str], name: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(n,) which frame each visit belongs to; (T,) numbers of the frames; (T,) their times, s, where known."""
    if "frame" in columns:
        numbers, frame = np.unique(whole_coordinates(columns["frame"], "frame", name), return_inverse=True)
        n_absent = int(numbers[-1] - numbers[0]) + 1 - len(numbers)
        if n_absent:
            shown = ", ".join(str(number) for number in _absent(numbers, 10)) + (", ..." if n_absent > 10 else "")
            notes.append(f"{name} lists no visit of {n_absent:,} frames between its first and last ({shown}).")
        return frame, numbers, _times_of(frame, len(numbers), columns, units, name, notes)
    if "time" not in columns:
        return np.zeros(len(columns["x"]), dtype=np.int64), np.zeros(1, dtype=np.int64), None
    moments, frame = np.unique(columns["time"], return_inverse=True)
    if not np.isfinite(moments).all():
        raise InputError(f"{name} has times that are no numbers; leave those rows out")
    if moments.size == frame.size > 1:
        raise InputError(f"{name} has another time in every row, so no frames; add a column frame")
    return frame, np.arange(moments.size), _seconds(moments, units, name, notes)


def _absent(numbers: np.ndarray, most: int) -> list[int]:
    """The first `most` whole numbers that ascending `numbers` leave out; the gaps may be of any size."""
    found: list[int] = []
    for i in np.flatnonzero(np.diff(numbers) > 1)[:most]:
        found += range(int(numbers[i]) + 1, min(int(numbers[i + 1]), int(numbers[i]) + 1 + most))
    return found[:most]


def _times_of(
    frame: np.ndarray,
    n_frames: int,
    columns: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    name: str,
    notes: list[str],
) -> np.ndarray | None:
    """(T,) mean time of the visits of each frame, seconds; None without a column of times."""
    if "time" not in columns:
        return None
    sums = np.bincount(frame, weights=columns["time"].astype(np.float64), minlength=n_frames)
    times = _seconds(sums / np.bincount(frame, minlength=n_frames), units, name, notes)
    if times is not None and np.any(np.diff(times) <= 0):
        notes.append(f"The times in {name} do not ascend with its frames and were not used.")
        return None
    return times


def _seconds(times: np.ndarray, units: Mapping[str, str], name: str, notes: list[str]) -> np.ndarray | None:
    scale = to_seconds(1.0, units.get("time", ""))
    if scale is None:
        notes.append(f"{name} does not say the unit of its times, which were not used; name the column time_s.")
        return None
    return times.astype(np.float64) * scale


# ---- what else a table says ------------------------------------------------------------------------------------------


def _known(said: Mapping[str, Any]) -> dict[str, str]:
    """What of that is understood."""
    return {key: str(said[key]) for key in _KNOWN if key in said}


def _shape(known: Mapping[str, str], name: str) -> tuple[int, int] | None:
    """(height, width) from the names shape, or height and width."""
    if "shape" in known:
        numbers = re.findall(r"\d+", known["shape"])
    elif "height" in known and "width" in known:
        numbers = [*re.findall(r"\d+", known["height"]), *re.findall(r"\d+", known["width"])]
    else:
        return None
    if len(numbers) != 2 or max(map(len, numbers)) > _DIGITS:
        shown = ", ".join(numbers)[:80]
        raise InputError(f"{name} gives the numbers {shown} as its shape; write for example 512 x 512")
    shape = int(numbers[0]), int(numbers[1])
    check_size(shape, name)
    return shape


def _number(known: Mapping[str, str], key: str, name: str) -> float | None:
    if key not in known:
        return None
    try:
        return float(known[key])
    except ValueError:
        raise InputError(f"{name} gives {key} as {known[key]}; write a number") from None
