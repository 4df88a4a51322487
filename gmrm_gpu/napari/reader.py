"""Opens folders of `gmrm-gpu analyze`, files of sub-sampled movies, and Gatan's in-situ recordings in napari."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import AnalysisConfig, analysis_config_from_json
from ..errors import GmrmError, InputError
from ..frames import open_labels, open_movie
from ..results import Scale
from .layers import KEY, Curve, LayerData, movie_layer, phase_look, placing, quantity_label

_COLUMNS = ("frame", "time_s", "share", "share_low", "share_high", "area_px", "area_um2", "volume_um3")


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """What napari asks first: a function that reads `path`, or None where this plugin does not know it."""
    first = Path(path if isinstance(path, str) else path[0])
    if first.name == "analysis.json" or (first / "analysis.json").is_file():
        return _each(read_result)
    if first.is_dir():
        return _each(read_movie) if next(first.glob("Hour_*"), None) is not None else None
    try:
        return _each(read_movie) if open_movie(first).sampled else None
    except GmrmError:
        return None


def read_result(folder: Path) -> list[LayerData]:
    """The labels of a finished analysis as a Labels layer, with its growth curve in the metadata.

    Raises
    ------
    InputError
        The folder lacks labels.tif or growth.csv, or one of its files is damaged.
    """
    folder = folder.parent if folder.name == "analysis.json" else folder
    for name in ("labels.tif", "growth.csv"):
        if not (folder / name).is_file():
            raise InputError(f"{folder.name} has no {name}; give a folder that gmrm-gpu analyze wrote, complete")
    try:
        config = analysis_config_from_json(folder / "analysis.json")
        about = json.loads((folder / "analysis.json").read_text("utf-8"))
        movie = about["movie"]
        curve = _curve(folder / "growth.csv", config, Scale(**about["scale"]).unit)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.name} is not a finished analysis ({error}); run gmrm-gpu analyze again") from None
    options = {
        **phase_look(config.phases.names, config.phases.foreground_index),
        **placing(
            config.quantity.pixel_size_um or movie.get("pixel_size_um"),
            config.quantity.frame_time_s or movie.get("frame_time_s"),
        ),
        "name": f"{folder.name} phases",
        "metadata": {KEY: curve},
    }
    return [(open_labels(folder / "labels.tif"), options, "labels")]


def read_movie(path: Path) -> list[LayerData]:
    """A movie as an Image layer, its frames read when they are shown."""
    return [movie_layer(open_movie(path))]


def _each(read: Callable[[Path], list[LayerData]]) -> Callable[[Any], list[LayerData]]:
    def layers(path: str | Sequence[str]) -> list[LayerData]:
        paths = [path] if isinstance(path, str) else path
        return [layer for one in paths for layer in read(Path(one))]

    return layers


def _curve(path: Path, config: AnalysisConfig, unit: str) -> Curve:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in _COLUMNS}
    y = column[{"um3": "volume_um3", "um2": "area_um2", "px": "area_px"}[unit]]
    timed = np.isfinite(column["time_s"]).all()
    x, x_label = (column["time_s"], "time (s)") if timed else (column["frame"], "frame")
    low = high = None
    if config.quantity.geometry == "slab" or unit != "um3":
        # One factor for all frames; in a solid of revolution each pixel has its own.
        factor = np.nanmax(y) / np.nanmax(column["share"]) if np.nanmax(column["share"], initial=0) > 0 else np.nan
        low, high = column["share_low"] * factor, column["share_high"] * factor
    return Curve(x, y, x_label, quantity_label(config, unit), low, high, config.quantity.interval)
