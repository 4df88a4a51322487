"""Everything that a live run finds, on disk as soon as it is found; a killed run loses at most its last frame.

A journal is a folder: ``journal.json`` (what is analysed, and how), ``frames.bin`` (one record a frame, with a check
sum), ``labels.bin`` (the compressed label images one after the other; the records say where), ``alarms.csv``,
``notices.txt``, ``files.txt`` (which frame came from which file), ``pictures/`` (a few frames for the report),
``valid.npy`` where pixels are excluded, ``state-N.npz``, the state of the analysis after N frames, and ``lock``, held
by the run that writes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..claim import claim
from ..config import AnalysisConfig, analysis_from_dict, config_to_dict
from ..durable import write_all, write_bytes
from ..errors import InputError, OutputError, printable
from ..frames.movie import Acquisition
from ..quantify import make_scale
from ..results import Scale, inert
from .update import LiveFrame

FORMAT, VERSION = "gmrm-gpu live journal", 1
SUFFIX = ".live"
MOST_PICTURES = 12
_SHARES = ("share", "count", "posterior", "assisted")
_REALS = (*(f"{name}{end}" for name in _SHARES for end in ("", "_sd")), "share_raw", "visited_share", "latency_s")
_WHOLES = ("index", "number", "n_samples", "n_without_neighbours")


@dataclass(frozen=True)
class Subject:
    """What a live run analyses, and how.

    Attributes
    ----------
    source : what opens it again. name : for titles. shape, dtype : of every frame. config : the settings.
    acquisition : what is known of the recording. n_pixels : of a frame that are not excluded. origin_s : time of the
        first frame on the source's clock. sampled : whether frames came sub-sampled. opening : of `open_source`.
    """

    source: str
    name: str
    shape: tuple[int, int]
    dtype: str
    config: AnalysisConfig
    acquisition: Acquisition
    n_pixels: int
    origin_s: float | None
    sampled: bool
    opening: dict[str, Any]

    @property
    def pixel_size_um(self) -> float | None:
        """The user's pixel size, else the recording's."""
        return self.config.quantity.pixel_size_um or self.acquisition.pixel_size_um

    @property
    def scale(self) -> Scale:
        """What a share is worth."""
        return make_scale(self.config.quantity, self.n_pixels, self.pixel_size_um)


def record_type(n_components: int, n_terms: int) -> np.dtype:
    """Type of the records of ``frames.bin``; ``crc`` is that of the bytes before it."""
    k = (n_components,)
    fields: list[tuple[Any, ...]] = [(name, "<i8") for name in _WHOLES]
    fields += [("n_dropped", "<i8"), ("time_s", "<f8"), *((name, "<f8") for name in _REALS), ("status", "u1")]
    fields += [("weights", "<f8", k), ("means", "<f8", k), ("sigmas", "<f8", k), ("coef", "<f8", (n_terms,))]
    fields += [("log_likelihood", "<f8"), ("n_iter", "<i8"), ("fit_samples", "<i8"), ("fit_status", "u1")]
    fields += [("foreground", "u1", k), ("labels_at", "<i8"), ("labels_bytes", "<i8"), ("labels_crc", "<u4")]
    return np.dtype([*fields, ("crc", "<u4")])


class Journal:
    """A journal that is being written. Make one with `create` or `resume`."""

    def __init__(
        self, folder: Path, subject: Subject, valid: np.ndarray | None, n_frames: int, labels_end: int
    ) -> None:
        self.folder, self.subject, self.valid, self.n_frames = folder, subject, valid, n_frames
        mixture = subject.config.mixture
        self._claim = claim(folder)
        self._type = record_type(mixture.n_components, mixture.n_terms)
        # Unbuffered: what is written is the system's, whatever happens to this process.
        self._records: BinaryIO = (folder / "frames.bin").open("ab", buffering=0)
        self._labels: BinaryIO = (folder / "labels.bin").open("ab", buffering=0)
        self._labels_end = labels_end
        self._pictures = sorted(int(path.stem) for path in (folder / "pictures").glob("*.npy"))
        self._stride = max(1, min(np.diff(self._pictures), default=1))

    @staticmethod
    def create(folder: Path, subject: Subject, valid: np.ndarray | None = None) -> Journal:
        """Begin a journal in a new folder.

        Raises
        ------
        OutputError
            The folder exists, or cannot be made.
        """
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=False)
            if valid is not None:
                np.save(folder / "valid.npy", valid)
            with open(folder / "alarms.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(("frame", "time_s", "what", "score", "text"))
            for name in ("notices.txt", "frames.bin", "labels.bin"):
                (folder / name).touch()
            (folder / "journal.json").write_text(json.dumps(_described(subject), indent=2) + "\n", "utf-8")
        except FileExistsError:
            raise OutputError(_unfinished(folder)) from None
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)  # half a journal could not be resumed
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None
        return Journal(folder, subject, valid, 0, 0)

    @staticmethod
    def resume(folder: Path) -> Journal:
        """Go on with a journal; what a crash has left of a half-written frame is cut off.

        Raises
        ------
        InputError
            The folder holds no journal, or one that is damaged.
        OutputError
            A run is still writing it, or it cannot be written.
        """
        subject, valid = read_subject(folder)
        with claim(folder):
            records = read_records(folder, subject)
            end = int(records["labels_at"][-1] + records["labels_bytes"][-1]) if len(records) else 0
            os.truncate(folder / "frames.bin", records.nbytes)
            os.truncate(folder / "labels.bin", end)
        return Journal(folder, subject, valid, len(records), end)

    def add(self, frame: LiveFrame, n_dropped: int = 0, origin: str | None = None) -> None:
        """Write one frame: its labels, then its record, then its alarms.

        n_dropped : frames that were lost so far. origin : file that it came from.

        Raises
        ------
        OutputError
            The disk is full, or gone. What is written already can be resumed.
        """
        packed = zlib.compress(frame.labels.astype(np.uint8, copy=False).tobytes(), 1)
        record = np.zeros((), self._type)
        for name in (*_WHOLES, *_REALS):
            record[name] = getattr(frame, name)
        record["index"], record["n_dropped"] = self.n_frames, n_dropped
        record["time_s"] = np.nan if frame.time_s is None else frame.time_s
        record["status"], record["foreground"] = int(frame.status), frame.foreground
        fit = frame.fit
        for name in ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter"):
            record[name] = getattr(fit, name)
        record["fit_samples"], record["fit_status"] = fit.n_samples, fit.status
        record["labels_at"], record["labels_bytes"] = self._labels_end, len(packed)
        record["labels_crc"] = zlib.crc32(packed)
        record["crc"] = zlib.crc32(record.tobytes()[:-4])
        try:
            if origin is not None:
                self._append("files.txt", f"{json.dumps([frame.number, origin])}\n")
            write_all(self._labels.write, packed)
            write_all(self._records.write, record.tobytes())
            self._labels_end += len(packed)
            self._keep_picture(frame)
            self._add_alarms(frame)
        except OSError as error:
            raise self._cannot_write(error) from None
        self.n_frames += 1

    def notice(self, text: str) -> None:
        """Append a sentence, with the time of day.

        Raises
        ------
        OutputError
            As `add`.
        """
        try:
            self._append("notices.txt", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {printable(text)}\n")
        except OSError as error:
            raise self._cannot_write(error) from None

    def _append(self, name: str, text: str) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    def save_state(self, analysis: Any) -> None:
        """Keep the state of the analysis after the frames so far, and the one before."""
        path = self.folder / f"state-{self.n_frames:09d}.npz"
        analysis.save(path)
        for file in (self._labels, self._records):
            os.fsync(file.fileno())
        # Two are kept: a crash may lose the record of the last frame that the latest has seen.
        for old in sorted(self.folder.glob("state-*.npz"))[:-2]:
            old.unlink()

    def close(self) -> None:
        """Close the files; the journal stays."""
        for file in (self._records, self._labels, self._claim):
            file.close()

    def _keep_picture(self, frame: LiveFrame) -> None:
        """Keep at most `MOST_PICTURES` of the frames so far, evenly spread."""
        index = self.n_frames
        if index % self._stride:
            return
        picture = io.BytesIO()
        np.save(picture, frame.picture.astype(np.float32, copy=False))
        path = self.folder / "pictures" / f"{index}.npy"
        write_bytes(path, picture.getvalue())  # half of it must not count as one
        self._pictures.append(index)
        if len(self._pictures) > MOST_PICTURES:
            self._stride *= 2
            for other in [n for n in self._pictures if n % self._stride]:
                (self.folder / "pictures" / f"{other}.npy").unlink(missing_ok=True)
                self._pictures.remove(other)

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write into {self.folder}: {error.strerror or error}; {_cure(self.folder)}")

    def _add_alarms(self, frame: LiveFrame) -> None:
        if not frame.alarms:
            return
        with open(self.folder / "alarms.csv", "a", newline="", encoding="utf-8") as file:
            for alarm in frame.alarms:
                time_s = "" if alarm.time_s is None else f"{alarm.time_s:.9g}"
                csv.writer(file).writerow((alarm.number, time_s, alarm.what, f"{alarm.score:.4g}", inert(alarm.text)))


def read_subject(folder: Path) -> tuple[Subject, np.ndarray | None]:
    """What a journal is about, and which pixels may be used (None: all).

    Raises
    ------
    InputError
        The folder holds no journal, or one that is damaged.
    """
    path = folder / "journal.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no journal.json; give the folder ending in {SUFFIX} that live has left")
    try:
        told = json.loads(path.read_text("utf-8"))
        if (told.pop("format"), told.pop("version")) != (FORMAT, VERSION):
            raise ValueError("of another version")
        told["config"] = analysis_from_dict(told["config"])
        known = {**told["acquisition"], "notes": tuple(told["acquisition"]["notes"])}
        told["acquisition"], told["shape"] = Acquisition(**known), tuple(told["shape"])
        valid = np.load(folder / "valid.npy", allow_pickle=False) if (folder / "valid.npy").exists() else None
        return Subject(**told), valid
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); it cannot be resumed") from None


def read_records(folder: Path, subject: Subject) -> np.ndarray:
    """(T,) records of `record_type`, up to the first that is not whole, or whose labels are not."""
    mixture = subject.config.mixture
    kind = record_type(mixture.n_components, mixture.n_terms)
    held = np.fromfile(folder / "frames.bin", np.uint8)
    records = held[: held.size // kind.itemsize * kind.itemsize].view(kind)
    n_labels = (folder / "labels.bin").stat().st_size
    good = len(records)
    for i in range(len(records)):
        whole = zlib.crc32(records[i].tobytes()[:-4]) == records["crc"][i]
        if not whole or records["labels_at"][i] + records["labels_bytes"][i] > n_labels:
            good = i
            break
    return records[:good]


def read_files(folder: Path, records: np.ndarray) -> list[tuple[int, str]]:
    """Number and file of each of the `records` that came from a file."""
    path = folder / "files.txt"
    if not path.exists() or not len(records):
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        with suppress(ValueError):  # a crash may leave half a line, of a frame that was not recorded
            number, name = json.loads(line)
            if number <= records["number"][-1]:
                found.append((number, name))
    return found


def read_labels(folder: Path, subject: Subject, records: np.ndarray) -> Iterator[np.ndarray]:
    """The (height, width) uint8 label images of `records`, one at a time.

    Raises
    ------
    InputError
        The labels of a frame are damaged.
    """
    with open(folder / "labels.bin", "rb") as file:
        for record in records:
            file.seek(int(record["labels_at"]))
            packed = file.read(int(record["labels_bytes"]))
            if zlib.crc32(packed) != record["labels_crc"]:
                raise InputError(f"the labels of frame {record['number']} in {folder} are damaged; copy it again")
            yield np.frombuffer(zlib.decompress(packed), np.uint8).reshape(subject.shape)


def read_pictures(folder: Path, most: int) -> dict[int, np.ndarray]:
    """Index -> (height, width) float32, of at most so many kept frames, evenly spread."""
    kept = sorted((folder / "pictures").glob("*.npy"), key=lambda path: int(path.stem))
    places = np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))
    return {int(kept[i].stem): np.load(kept[i], allow_pickle=False) for i in places}


def saved_state(folder: Path, records: np.ndarray) -> tuple[Path, int] | None:
    """The latest state of the analysis and how many of the `records` it has seen; None where there is none."""
    found = [(path, int(path.stem.removeprefix("state-"))) for path in sorted(folder.glob("state-*.npz"))]
    usable = [pair for pair in found if 0 < pair[1] <= len(records)]
    return usable[-1] if usable else None


def _described(subject: Subject) -> dict[str, Any]:
    known = asdict(replace(subject.acquisition, times_s=None))
    told = {name: getattr(subject, name) for name in subject.__dataclass_fields__}
    told |= {"config": config_to_dict(subject.config), "acquisition": known}
    return {"format": FORMAT, "version": VERSION, **told}


def _unfinished(folder: Path) -> str:
    return f"{folder} is an unfinished live run; go on with --resume {folder}, or remove it"


def _cure(folder: Path) -> str:
    return f"make room, then go on with --resume {folder}"


__all__ = [
    "SUFFIX",
    "Journal",
    "Subject",
    "read_files",
    "read_labels",
    "read_pictures",
    "read_records",
    "read_subject",
    "record_type",
    "saved_state",
]
