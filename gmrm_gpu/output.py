"""What the commands write into their folders; see `folders` for the folders themselves.

>>> from gmrm_gpu.output import write_analysis
>>> write_analysis(result, "run1", overwrite=True)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from .config import config_to_dict
from .errors import InputError, MissingDependencyError, OutputError
from .folders import MARKERS, make_part, new_folder
from .results import AnalysisResult, MixtureFit, StudyResult, status_counts
from .results.planning import SamplingPlan
from .results.selection import ModelSelection
from .results.throughput import Throughput

# Past this size ImageJ's flavour of TIFF, whose offsets have 32 bits, cannot hold the stack.
_IMAGEJ_LIMIT = 2**32 - 2**25


def check_extras(*, labels: bool = False, report: bool = False) -> None:
    """Raise `MissingDependencyError` now, before hours of work, if what is to be written needs a missing package."""
    if labels and find_spec("tifffile") is None:
        raise MissingDependencyError("labels.tif needs tifffile: pip install 'gmrm-gpu[tiff]'")
    if report:
        from .report import need_plot

        try:
            need_plot()
        except MissingDependencyError as error:
            raise MissingDependencyError(f"{error}, or give --no-report") from None


def write_analysis(
    result: AnalysisResult, path: str | os.PathLike[str], *, overwrite: bool = False, report: bool = True
) -> Path:
    """Write growth.csv, fits.csv, analysis.json, labels.tif, and figures/ and report.html if `report`.

    labels.tif is (T, height, width) uint8: 0 not visited, p + 1 phase p of ``result.config.phases.names``.

    Returns
    -------
    Path of the folder.

    Raises
    ------
    MissingDependencyError
        Without tifffile or, for the report, matplotlib and jinja2; nothing is written then.
    OutputError
        The folder exists or cannot be written. If only the report fails, all else is kept.
    """
    check_extras(labels=result.labels is not None, report=report)
    with new_folder(path, overwrite=overwrite) as folder:
        failure = fill_analysis(result, folder, report=report)
    return finished(path, failure)


def write_study(
    result: StudyResult, path: str | os.PathLike[str], *, overwrite: bool = False, report: bool = True
) -> Path:
    """Write study.json, replicates.npz, curves.csv, table1.csv, examples.npz, and the report if `report`.

    Returns
    -------
    Path of the folder.

    Raises
    ------
    MissingDependencyError
        Without matplotlib or jinja2 where a report is asked for; nothing is written then.
    OutputError
        The folder exists or cannot be written. If only the report fails, all else is kept.
    """
    check_extras(report=report)
    with new_folder(path, overwrite=overwrite) as folder:
        failure = fill_study(result, folder, report=report)
    return finished(path, failure)


def finished(path: str | os.PathLike[str], failure: str | None) -> Path:
    """`path`, or `OutputError` where `fill_analysis` or `fill_study` could not write the report."""
    if failure is not None:
        raise OutputError(f"the report could not be written ({failure}); all numbers are in {path}")
    return Path(path)


def fill_analysis(
    result: AnalysisResult, folder: Path, *, report: bool, labels: Iterable[np.ndarray] | None = None
) -> str | None:
    """Write an analysis into an existing folder; returns why the report could not be written, or None.

    labels : (height, width) uint8 of each frame in turn, where they are too many for ``result.labels``.
    """
    meta = {
        "config": {"analysis": config_to_dict(result.config)},
        "movie": asdict(result.movie),
        "scale": asdict(result.scale),
        "provenance": result.provenance,
        "phases": ["not visited", *result.config.phases.names],
        "status": status_counts(result.status),
    }
    with _disk(folder):
        result.write_growth_csv(folder / "growth.csv")
        result.write_fits_csv(folder / "fits.csv")
        write_json(folder / "analysis.json", meta)
        images = result.labels if labels is None else labels
        if images is not None:
            _write_labels(result, images, folder / "labels.tif")
    return _add_report(result, folder) if report else None


def fill_study(result: StudyResult, folder: Path, *, report: bool) -> str | None:
    """Write a study into an existing folder; returns why the report could not be written, or None."""
    with _disk(folder):
        result.write(folder)
    return _add_report(result, folder) if report else None


def fill_fit(result: AnalysisResult, folder: Path) -> None:
    """Write fit.json and fits.csv of a one-frame analysis into an existing folder."""
    fit: MixtureFit = result.fits[0]
    meta = {
        "config": {"analysis": config_to_dict(result.config)},
        "movie": asdict(result.movie),
        "frame": result.frame[0],
        "fit": fit.arrays() | {"terms": fit.terms, "aic": fit.aic, "bic": fit.bic},
        "n_parameters": fit.n_parameters,
        "foreground": result.foreground[0],
        "status": status_counts(result.status),
        "provenance": result.provenance,
    }
    with _disk(folder):
        write_json(folder / "fit.json", meta)
        result.write_fits_csv(folder / "fits.csv")


def fill_selection(result: ModelSelection, folder: Path, *, picture: bool) -> None:
    """Write selection.json and selection.csv, and selection.png and .svg if `picture`, into an existing folder."""
    with _disk(folder):
        write_json(folder / "selection.json", result.summary())
        result.write_csv(folder / "selection.csv")
        if picture:
            from .report import save_figure
            from .report.selection import selection_figure

            save_figure(selection_figure(result), folder / "selection")


def fill_plan(result: SamplingPlan, folder: Path, *, picture: bool) -> None:
    """Write plan.json and plan.csv, and plan.png and .svg if `picture`, into an existing folder."""
    with _disk(folder):
        write_json(folder / "plan.json", result.summary())
        result.write_csv(folder / "plan.csv")
        if picture:
            from .report import save_figure
            from .report.planning import plan_figure

            save_figure(plan_figure(result), folder / "plan")


def fill_bench(result: Throughput, folder: Path, *, command: str, picture: bool) -> None:
    """Write bench.json, and bench.png and .svg if `picture`, into an existing folder."""
    with _disk(folder):
        write_json(folder / "bench.json", result.summary() | {"command": command})
        if picture:
            from .report import save_figure
            from .report.throughput import throughput_figure

            save_figure(throughput_figure(result), folder / "bench")


def renew_report(result: StudyResult, folder: str | os.PathLike[str]) -> Path:
    """Draw figures/ and report.html of a finished study again; the old ones stay until the new ones are complete."""
    from .report import write_report

    folder = Path(folder).expanduser()
    part = make_part(folder / "report.html", folder.resolve() / "report")
    try:
        write_report(result, part)
        old = folder / "figures"
        shutil.rmtree(old, ignore_errors=True)
        (part / "figures").rename(old)
        return (part / "report.html").replace(folder / "report.html")
    except OSError as error:
        raise OutputError(f"cannot write the report into {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    """Indented JSON; arrays become lists, NaN and infinity null."""
    path.write_text(json.dumps(_plain(data), indent=2, allow_nan=False) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _add_report(result: AnalysisResult | StudyResult, folder: Path) -> str | None:
    from .report import write_report

    try:
        write_report(result, folder)
    except Exception as error:  # hours of numbers must not be lost to a picture
        shutil.rmtree(folder / "figures", ignore_errors=True)
        (folder / "report.html").unlink(missing_ok=True)
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
    return None


def _write_labels(result: AnalysisResult, images: Iterable[np.ndarray], path: Path) -> None:
    """TIFF stack that opens in Fiji with its calibration, and shows the phases as distinct greys.

    Past what ImageJ's flavour holds it is compressed: label images shrink to a few per cent.
    """
    import tifffile

    shape = (len(result.frame), *result.movie.shape)
    frames = (np.ascontiguousarray(image, dtype=np.uint8) for image in images)
    # tifffile takes a generator of one image for its rows.
    data: Any = frames if shape[0] > 1 else np.stack(list(frames))
    common: dict[str, Any] = {"shape": shape, "dtype": np.uint8, "photometric": "minisblack"}
    if math.prod(shape) > _IMAGEJ_LIMIT:
        tifffile.imwrite(path, data, bigtiff=True, compression="zlib", **common)
        return
    size = result.config.quantity.pixel_size_um or result.movie.pixel_size_um
    interval = result.config.quantity.frame_time_s or result.movie.frame_time_s
    options: dict[str, Any] = {}
    metadata: dict[str, Any] = {"axes": "TYX", "min": 0.0, "max": float(len(result.config.phases.names))}
    if size is not None:
        options["resolution"] = (1 / size, 1 / size)
        metadata["unit"] = "um"
    if interval is not None:
        steps = np.unique(np.diff(result.frame))
        metadata["finterval"] = interval * (int(steps[0]) if steps.size == 1 else 1)
    tifffile.imwrite(path, data, imagej=True, metadata=metadata, **common, **options)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or f"{error} (is the disk full?)"
        raise OutputError(f"cannot write into {folder.parent}: {reason}") from None


def load_study(folder: str | os.PathLike[str]) -> StudyResult:
    """`StudyResult.load`, with one clear error for whatever is wrong with the folder."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{folder} {what}; give a folder that study wrote")
    if not (path / "study.json").exists():
        other = next((name for name in MARKERS if (path / name).exists()), None)
        holds = "no study.json" if other is None else f"{other}, the result of another command"
        raise InputError(f"{folder} is not a finished study (it holds {holds}); give a folder that study wrote")
    for name in ("replicates.npz", "examples.npz"):
        # NumPy would leave a damaged archive open.
        if (path / name).exists() and not is_zipfile(path / name):
            raise InputError(f"{folder} is not a finished study ({name} is damaged); give a folder that study wrote")
    try:
        return StudyResult.load(path)
    except InputError:
        raise
    except Exception as error:  # JSON, npz and zip each have their own; all mean the same here
        raise InputError(
            f"{folder} is not a finished study ({type(error).__name__}: {error}); give a folder that study wrote"
        ) from None
