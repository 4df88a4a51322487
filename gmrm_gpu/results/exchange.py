"""Labels and curves as objects of other programs: xarray and HyperSpy, each imported when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import ESTIMATORS
from ..errors import MissingDependencyError
from .fit import FitStatus
from .movie import UNIT_TEXT
from .tables import import_xarray

if TYPE_CHECKING:
    from .analysis import AnalysisResult

_QUANTITIES = {"um3": "volume", "um2": "area", "px": "area"}
# Steps that differ by less than this part are one step.
_EVEN = 1e-6


def to_xarray(result: AnalysisResult) -> Any:
    """`AnalysisResult.to_xarray`."""
    xarray = import_xarray()
    dim = "frame" if result.time_s is None else "time_s"
    known = [curve for curve in _curves(result) if curve[1] is not None]
    data: dict[str, Any] = {name: (dim, values, {"units": unit}) for name, values, unit in known}
    data["status"] = (dim, result.status, _flags([(status.value, status.label) for status in FitStatus]))
    coords: dict[str, Any] = {"frame": (dim, result.frame, {"long_name": "number of the frame in the source"})}
    if result.time_s is not None:
        coords["time_s"] = (dim, result.time_s, {"units": "s"})
    if result.labels is not None:
        phases = ("not visited", *result.config.phases.names)
        data["labels"] = ((dim, "y", "x"), result.labels, _flags(list(enumerate(phases))))
        size, unit = _pixel(result)
        for axis, length in zip(("y", "x"), result.labels.shape[1:], strict=True):
            coords[axis] = (axis, np.arange(length) * size, {"units": unit})
    return xarray.Dataset(data, coords=coords, attrs=_attributes(result))


def to_hyperspy(result: AnalysisResult) -> dict[str, Any]:
    """`AnalysisResult.to_hyperspy`."""
    try:
        import hyperspy.api as hs
    except ImportError:
        raise MissingDependencyError("to_hyperspy needs HyperSpy: pip install 'gmrm-gpu[hyperspy]'") from None
    about = _attributes(result)
    low, high = result.quantity_interval
    level = f"{result.config.quantity.interval:.0%} interval"
    curves = {
        "curve": (result.quantity, "growth curve"),
        "low": (low, f"growth curve, lower end of the {level}"),
        "high": (high, f"growth curve, upper end of the {level}"),
    }
    unit = f"{_QUANTITIES[result.scale.unit]} ({UNIT_TEXT[result.scale.unit]})"
    out = {
        key: hs.signals.Signal1D(values, axes=[_time_axis(result)], metadata=_described(title, unit, about))
        for key, (values, title) in curves.items()
    }
    if result.labels is not None:
        size, length = _pixel(result)
        height, width = result.labels.shape[1:]
        axes = [
            _time_axis(result),
            {"name": "y", "size": height, "scale": size, "units": length},
            {"name": "x", "size": width, "scale": size, "units": length},
        ]
        phases = ", ".join(f"{p} {name}" for p, name in enumerate(("not visited", *result.config.phases.names)))
        metadata = _described("labels", phases, about)
        out["labels"] = hs.signals.Signal2D(result.labels, axes=axes, metadata=metadata)
    return out


def _curves(result: AnalysisResult) -> list[tuple[str, np.ndarray | None, str]]:
    """(name, values over frames, unit) of all that each frame has; a share has the unit "1", as in CF conventions."""
    share_low, share_high = result.interval()
    low, high = result.quantity_interval
    unit = result.scale.unit
    shares = ("share", "share_sd", "share_raw", *ESTIMATORS, *(f"{name}_sd" for name in ESTIMATORS))
    return [
        *((name, getattr(result, name), "1") for name in shares),
        ("share_low", share_low, "1"),
        ("share_high", share_high, "1"),
        ("quantity", result.quantity, unit),
        ("quantity_low", low, unit),
        ("quantity_high", high, unit),
        ("area_px", result.area_px, "px"),
        ("area_um2", result.area_um2, "um2"),
        ("volume_um3", result.volume_um3, "um3"),
        ("n_samples", result.n_samples, "1"),
        ("visited_share", result.visited_share, "1"),
        ("n_without_neighbours", result.n_without_neighbours, "1"),
    ]


def _attributes(result: AnalysisResult) -> dict[str, Any]:
    """What holds for the whole analysis, as text and numbers that any file can hold; the unknown is left out."""
    config, movie = result.config, result.movie
    about = {
        "movie": movie.name,
        "unit": result.scale.unit,
        "quantity": _QUANTITIES[result.scale.unit],
        "estimator": result.estimator,
        "interval": config.quantity.interval,
        "method": config.method,
        "phases": ", ".join(config.phases.names),
        "foreground": config.phases.names[config.phases.foreground_index],
        "rate": None if movie.sampled else config.sampling.rate,
        "pixel_size_um": config.quantity.pixel_size_um or movie.pixel_size_um,
        "frame_time_s": config.quantity.frame_time_s or movie.frame_time_s,
        "thickness_um": config.quantity.thickness_um,
        "detector": movie.detector,
        "bit_depth": movie.bit_depth,
        "gmrm_gpu": result.provenance.get("gmrm_gpu"),
    }
    return {name: value for name, value in about.items() if value is not None}


def _flags(named: list[tuple[int, str]]) -> dict[str, Any]:
    """Whole numbers that stand for words, as the CF conventions write them."""
    meanings = " ".join(word.replace(" ", "_") for _, word in named)
    return {"flag_values": [value for value, _ in named], "flag_meanings": meanings}


def _pixel(result: AnalysisResult) -> tuple[float, str]:
    """Side of a pixel and its unit."""
    size = result.config.quantity.pixel_size_um or result.movie.pixel_size_um
    return (1.0, "px") if size is None else (size, "um")


def _time_axis(result: AnalysisResult) -> dict[str, Any]:
    """HyperSpy's description of the axis along frames: evenly spaced where it is."""
    if result.time_s is None:
        places, about = result.frame.astype(np.float64), {"name": "frame", "units": ""}
    else:
        places, about = result.time_s, {"name": "time", "units": "s"}
    steps = np.diff(places)
    step = float(steps.mean()) if steps.size else 1.0
    if np.all(np.abs(steps - step) <= _EVEN * abs(step)):
        return {**about, "size": places.size, "offset": float(places[0]), "scale": step}
    return {**about, "axis": places}


def _described(title: str, quantity: str, about: dict[str, Any]) -> dict[str, Any]:
    general = {"title": f"{title} of {about['movie']}"}
    return {"General": general, "Signal": {"quantity": quantity}, "gmrm_gpu": about}
