"""Scans of Direct Electron's DE-FreeScan with a list of the visited positions: .mrc beside *_scan_coordinates.csv.

The list has one row "x,y" for each position, in the order of the visits, counted from 0. The .mrc beside it holds
either one camera frame for each visit (the 4D-STEM movie) or images of the scan (a virtual or external detector).

- Of camera frames the grey level of a visit is the sum of the frame, which is the instrument's own virtual image
  "total sum". Any other detector (an annulus, a disc) has to be summed by the instrument or another program.
- Of images the grey levels at the listed positions are taken; all others were not visited.

A list that goes through one pattern again and again is a movie with one frame for each pass; so are repeats of a scan.
*_info.txt, where there is one, gives the size of the scan, pixel size, times and camera.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..counts import check_count
from ..movie import Acquisition, Movie, Visits, size_text
from .places import check_size, flat_places, size_of_largest

LIST, _INFO = "_scan_coordinates.csv", "_info.txt"
# Modes of the MRC format; Direct Electron writes counts of mode 0 without a sign.
_MODES = {0: "u1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def coordinates_beside(path: Path) -> Path | None:
    """The list of positions that belongs to an .mrc file: the longest of those whose name begins that of the file."""
    lists = [file for file in path.parent.glob(f"*{LIST}") if _belongs(path, file.name.removesuffix(LIST))]
    return max(lists, key=lambda file: len(file.name), default=None)


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open an .mrc file beside which there is a list of positions."""
    listed = coordinates_beside(path)
    if listed is None:
        raise InputError(f"{path.name} has no list of positions *{LIST} beside it; give the list, or whole frames")
    frames, info = _map_mrc(path), _read_info(path)
    x, y = _read_list(listed)
    notes: list[str] = []
    shape = _scan_shape(info)
    if shape is None:
        shape, text = size_of_largest(x, y, listed.name)
        notes.append(text)
    check_size(shape, listed.name)
    positions = flat_places(x, y, shape, listed.name)
    n_each = _whole(info, "Scan - Camera Frames Per Point", 1)
    n_repeats = _whole(info, "Scan - Repeats", 1)
    if len(frames) == len(positions) * n_each * n_repeats:
        scan = _Scan(positions, _period(positions), n_repeats)
        return CameraScan(path, frames, n_each, scan, shape, _acquisition(info, scan, notes, camera=True))
    if frames.shape[1:] == shape:
        scan = _Scan(positions, len(positions), len(frames))
        return ImageScan(path, frames, scan, shape, _acquisition(info, scan, notes, camera=False))
    raise InputError(
        f"{path.name} holds {len(frames):,} frames of {size_text(frames.shape[1:])}, {listed.name} {len(x):,} points "
        f"in {size_text(shape)} ({n_each} frames each, {n_repeats} repeats): neither a frame a visit nor images of the "
        "scan; if the two do not belong together, put them into different folders"
    )


@dataclass(frozen=True)
class _Scan:
    """The visits of one scan (n,), how many make one pass of its pattern, and how often it was repeated."""

    positions: np.ndarray
    period: int
    n_repeats: int

    @property
    def n_passes(self) -> int:
        return len(self.positions) // self.period


class CameraScan(Movie):
    """A camera frame for each visit, summed when asked for."""

    def __init__(
        self,
        path: Path,
        frames: np.ndarray,
        n_each: int,
        scan: _Scan,
        shape: tuple[int, int],
        acquisition: Acquisition,
    ) -> None:
        largest = np.iinfo(frames.dtype).max * frames[0].size * n_each if frames.dtype.kind == "u" else np.inf
        super().__init__(
            name=path.name,
            shape=shape,
            dtype=np.dtype(np.uint32 if largest < 2**32 else np.float64),
            n_frames=scan.n_passes * scan.n_repeats,
            acquisition=acquisition,
            sampled=True,
        )
        self._frames, self._n_each, self._scan = frames, n_each, scan

    def _read_visits(self, t: int) -> Visits:
        period = self._scan.period
        first = t % self._scan.n_passes * period
        part = self._frames[t * period * self._n_each : (t + 1) * period * self._n_each]
        sums = part.reshape(period, -1).sum(axis=1, dtype=self.dtype)
        return Visits(self._scan.positions[first : first + period], sums)


class ImageScan(Movie):
    """Images of the scan, of which the listed positions count; a pixel visited twice has one grey level there."""

    def __init__(
        self, path: Path, frames: np.ndarray, scan: _Scan, shape: tuple[int, int], acquisition: Acquisition
    ) -> None:
        super().__init__(
            name=path.name,
            shape=shape,
            dtype=frames.dtype,
            n_frames=len(frames),
            acquisition=acquisition,
            sampled=True,
        )
        self._frames, self._positions = frames, np.unique(scan.positions)

    def _read_visits(self, t: int) -> Visits:
        return Visits(self._positions, np.asarray(self._frames[t]).reshape(-1)[self._positions])


# ---- files -----------------------------------------------------------------------------------------------------------


def _belongs(path: Path, start: str) -> bool:
    return path.stem == start or path.stem.startswith(f"{start}_")


def _map_mrc(path: Path) -> np.ndarray:
    """(n, height, width) of an MRC file: a header of 1024 bytes, an extended one, then the frames."""
    with path.open("rb") as file:
        header = file.read(1024)
    if len(header) < 1024:
        raise InputError(f"{path.name} is truncated: {len(header)} bytes of its header are there; copy it again")
    width, height, n_frames, mode = (int(number) for number in np.frombuffer(header, "<i4", 4))
    extended = int(np.frombuffer(header, "<i4", 1, 92)[0])
    if mode not in _MODES or min(width, height, n_frames) < 1 or extended < 0:
        raise InputError(f"{path.name} is no MRC file that is known here (mode {mode}); export it as TIFF")
    dtype, start = np.dtype("<" + _MODES[mode]), 1024 + extended
    expected, there = start + width * height * n_frames * dtype.itemsize, path.stat().st_size
    if there < expected:
        raise InputError(f"{path.name} is truncated: {there:,} of {expected:,} bytes are there; copy it again")
    check_count(path.name, n_frames, (there - start) // (width * height * dtype.itemsize))
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(n_frames, height, width))


def _read_list(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each visit."""
    if not path.read_bytes().strip():
        raise InputError(f"{path.name} lists no positions; copy it again, or take it away if the frames are whole")
    try:
        columns = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no list of positions ({error}); each line is x,y") from None
    if columns.shape[1] != 2:
        raise InputError(f"{path.name} has {columns.shape[1]} columns, which are not known here; each line is x,y")
    return columns[:, 0], columns[:, 1]


def _read_info(path: Path) -> dict[str, str]:
    """What the instrument wrote about the scan, ``name = value`` a line; empty without its file."""
    files = [file for file in path.parent.glob(f"*{_INFO}") if _belongs(path, file.name.removesuffix(_INFO))]
    if not files:
        return {}
    text = max(files, key=lambda file: len(file.name)).read_text(encoding="utf-8", errors="replace")
    return {key.strip(): value.strip() for key, value in re.findall(r"^([^=\n]+)=(.*)$", text, re.MULTILINE)}


def _period(positions: np.ndarray) -> int:
    """Visits after which the list begins again, if it does so to its end; else all of them."""
    n = len(positions)
    starts = np.flatnonzero(positions == positions[0])[1:]
    for period in starts[n % np.maximum(starts, 1) == 0] if starts.size else ():
        if np.array_equal(positions[period:], positions[:-period]):
            return int(period)
    return n


# ---- what the instrument wrote ---------------------------------------------------------------------------------------


def _scan_shape(info: Mapping[str, str]) -> tuple[int, int] | None:
    part = "ROI Size" if info.get("Scan - ROI Enable") == "Enable" else "Size"
    height, width = (_whole(info, f"Scan - {part} {axis}", 0) for axis in "YX")
    return (height, width) if height > 0 and width > 0 else None


def _acquisition(info: Mapping[str, str], scan: _Scan, notes: list[str], *, camera: bool) -> Acquisition:
    x, y = (_real(info, f"Specimen Pixel Size {axis} (nanometers)") for axis in "XY")
    if x is not None and y is not None and abs(x - y) > 1e-3 * x:
        notes.append(
            f"The pixels of the scan are not square ({x:g} x {y:g} nm); no pixel size was taken from the file."
        )
        x = None
    if camera:
        notes.append(
            "The grey level of each visit is the sum of its camera frame, as in the instrument's total sum. For "
            "another detector (an annulus, a disc) open the virtual image that the instrument wrote."
        )
    repeats = len(scan.positions) - np.unique(scan.positions[: scan.period]).size * scan.n_passes
    if repeats and not camera:
        notes.append(
            f"{repeats:,} visits went to pixels visited before; the image holds one grey level for each pixel."
        )
    return Acquisition(
        pixel_size_um=None if x is None else x * 1e-3,
        times_s=_times(info, scan),
        detector=info.get("Camera Model") or None if camera else None,
        notes=tuple(notes),
    )


def _times(info: Mapping[str, str], scan: _Scan) -> np.ndarray | None:
    """(T,) start of each pass, s: passes follow each other, repeats of the scan after a delay."""
    duration, delay = _real(info, "Scan - Time Per Scan (seconds)"), _real(info, "Scan - Repeat Delay (seconds)")
    if duration is None or scan.n_passes * scan.n_repeats == 1 or (scan.n_repeats > 1 and delay is None):
        return None
    scans = np.arange(scan.n_repeats) * (duration + (delay or 0.0))
    return (scans[:, None] + np.arange(scan.n_passes) * duration / scan.n_passes).reshape(-1)


def _real(info: Mapping[str, str], name: str) -> float | None:
    """A number above 0; the instrument writes -1 where it does not know."""
    try:
        value = float(info.get(name, ""))
    except ValueError:
        return None
    return value if value > 0 else None


def _whole(info: Mapping[str, str], name: str, default: int) -> int:
    value = _real(info, name)
    return default if value is None else int(value)
