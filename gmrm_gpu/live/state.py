"""A live analysis on disk: one npz without pickles, written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..archives import load_npz
from ..backend import Backend
from ..config import analysis_from_dict, config_to_dict
from ..durable import whole_file
from ..errors import InputError
from ..frames.movie import Acquisition
from ..mixture.causal_steps import Carried
from ..mixture.moments import Moments
from ..mixture.movie_steps import MovieParameters
from ..mixture.reservoir import Frame, Reservoir
from ..results import MixtureFit
from .alarms import ControlCharts

if TYPE_CHECKING:
    from .analysis import LiveAnalysis

FORMAT, VERSION = "gmrm-gpu live state", 1
_ROWS = ("refit_values", "refit_positions", "refit_valid")
_NESTED: dict[str, Any] = {"now": MovieParameters, "sums": Moments}


def write(path: str | Path, meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write `meta` (JSON) and `arrays`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION, **meta})
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez(file, meta=np.array(header), **arrays)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Inverse of `write`.

    Raises
    ------
    InputError
        There is no such file, it is damaged, or it is something else.
    """
    try:
        arrays = load_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["format"] != FORMAT:
            raise KeyError("format")
    except OSError as error:
        raise InputError(f"cannot read the state {path}: {error.strerror or 'it is damaged'}") from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, zipfile.BadZipFile):
        raise InputError(f"{path} is no state of a live analysis, or it is damaged; start afresh without it") from None
    if meta["version"] != VERSION:
        raise InputError(
            f"{path} is of version {meta['version']}, this program knows {VERSION}; start afresh without it"
        )
    return meta, arrays


def pack_frames(name: str, frames: Iterable[Frame]) -> dict[str, np.ndarray]:
    """Frames of samples end to end, with their lengths."""
    held = list(frames)
    values, positions = ([frame[i] for frame in held] for i in (0, 1))
    return {
        f"{name}_n": np.array([v.size for v in values], dtype=np.int64),
        f"{name}_values": np.concatenate(values) if held else np.zeros(0),
        f"{name}_positions": np.concatenate(positions) if held else np.zeros(0, np.int32),
    }


def unpack_frames(name: str, arrays: dict[str, np.ndarray]) -> list[Frame]:
    """Inverse of `pack_frames`."""
    edges = np.cumsum(arrays[f"{name}_n"])[:-1]
    values, positions = (np.split(arrays[f"{name}_{part}"], edges) for part in ("values", "positions"))
    return list(zip(values, positions, strict=True)) if arrays[f"{name}_n"].size else []


def pack_past(past: Reservoir) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The sample of the past, as JSON and arrays."""
    meta = {"n_seen": past.n_seen, "stride": past.stride, "kept": list(past.kept)}
    return meta, pack_frames("kept", past.kept.values()) | pack_frames("latest", past.latest)


def unpack_past(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reservoir:
    """Inverse of `pack_past`."""
    kept = dict(zip(meta["kept"], unpack_frames("kept", arrays), strict=True))
    return Reservoir(meta["n_seen"], meta["stride"], kept, unpack_frames("latest", arrays))


def pack_carried(carried: Carried, backend: Backend) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What goes from frame to frame, as JSON and arrays."""
    arrays: dict[str, np.ndarray] = {}
    for name, kind in _NESTED.items():
        part = getattr(carried, name)
        arrays |= {f"{name}_{f.name}": backend.to_host(getattr(part, f.name)) for f in fields(kind)}
    for name in ("cov", "held", "evidence", "usual"):
        arrays[name] = backend.to_host(getattr(carried, name))
    return {"centre": carried.centre, "scale": carried.scale}, arrays


def unpack_carried(meta: dict[str, Any], arrays: dict[str, np.ndarray], backend: Backend) -> Carried:
    """Inverse of `pack_carried`."""
    parts: dict[str, Any] = {
        name: kind(*(backend.asarray(arrays[f"{name}_{f.name}"]) for f in fields(kind)))
        for name, kind in _NESTED.items()
    }
    parts |= {name: backend.asarray(arrays[name]) for name in ("cov", "held")}
    parts |= {name: arrays[name] for name in ("evidence", "usual")}
    return Carried(**parts, centre=meta["centre"], scale=meta["scale"])


_PLAIN = ("index", "first_time_s", "next_fit", "n_strange", "repeats", "fit_level", "last_fit")
_HELD = ("candidates", "foreground", "phase_of")


def write_state(analysis: LiveAnalysis, path: str | Path) -> None:
    """What `LiveAnalysis.save` does."""
    backend, model, refit = analysis.backend, analysis.model, analysis.refit
    past, arrays = pack_past(analysis.past)
    meta: dict[str, Any] = {name: getattr(analysis, name) for name in _PLAIN} | {"past": past}
    meta |= {"shape": analysis.shape, "dtype": analysis.dtype.name, "config": config_to_dict(analysis.config)}
    known = {f.name: getattr(analysis.acquisition, f.name) for f in fields(analysis.acquisition)}
    times_s = known.pop("times_s")
    meta |= {"acquisition": known, "quiet": analysis.charts.quiet}
    meta["variances"] = {name: list(held) for name, held in analysis.variances.items()}
    arrays |= {name: getattr(analysis, name) for name in _HELD} | {"charts": analysis.charts.history}
    arrays |= {f"common_{name}": value for name, value in analysis.common.arrays().items()}
    arrays |= pack_frames("voters", analysis.voters)
    arrays |= {} if times_s is None else {"times_s": times_s}
    arrays |= {} if analysis.valid is None else {"valid": analysis.valid}
    if model is not None:
        meta["model"] = {"rate": model.rate, "sigma_floor": model.floor}
        if model.carried is not None:
            meta["carried"], held = pack_carried(model.carried, backend)
            arrays |= held
    if refit is not None:  # begun anew from the same samples, it ends the same
        meta["refit"] = {"number": refit.number, "n_seen": refit.n_seen}
        arrays |= dict(zip(_ROWS, refit.rows, strict=True))
    write(path, meta, arrays)


def read_state(path: str | Path, cls: type[LiveAnalysis]) -> LiveAnalysis:
    """What `LiveAnalysis.load` does."""
    meta, arrays = read(path)
    known = meta["acquisition"] | {"notes": tuple(meta["acquisition"]["notes"]), "times_s": arrays.get("times_s")}
    config = analysis_from_dict(meta["config"])
    shape = (meta["shape"][0], meta["shape"][1])
    analysis = cls(shape, np.dtype(meta["dtype"]), config, acquisition=Acquisition(**known), valid=arrays.get("valid"))
    for name in _PLAIN:
        setattr(analysis, name, meta[name])
    for name in _HELD:
        setattr(analysis, name, arrays[name])
    analysis.past = unpack_past(meta["past"], arrays)
    analysis.charts = ControlCharts(arrays["charts"], meta["quiet"])
    common = {name[7:]: value for name, value in arrays.items() if name.startswith("common_")}
    analysis.common = MixtureFit.from_arrays(common, config.mixture.terms)
    for name, held in meta["variances"].items():
        analysis.variances[name].extend(held)
    for best, positions in unpack_frames("voters", arrays):
        analysis.vote(best, positions)
    if "model" in meta:
        analysis.model = analysis.new_model(**meta["model"])
        if "carried" in meta:
            analysis.model.carried = unpack_carried(meta["carried"], arrays, analysis.backend)
    if "refit" in meta:
        values, positions, valid = (arrays[name] for name in _ROWS)
        analysis.refit = analysis.new_refit((values, positions, valid), **meta["refit"])
    return analysis


__all__ = ["read", "read_state", "write", "write_state"]
