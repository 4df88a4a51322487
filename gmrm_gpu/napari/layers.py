"""What napari shows of a movie and of a result: arrays, colours, scales, and the curve beside them. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from ..config import AnalysisConfig
from ..frames import Movie
from ..report.style import BACKGROUND_COLOURS, FOREGROUND
from ..results import UNIT_TEXT, AnalysisResult

LayerData = tuple[Any, dict[str, Any], str]
KEY = "gmrm_gpu"
"""Where a layer of labels has its `Curve`, in its metadata."""
# The foreground must be seen, the picture under the rest too.
_FOREGROUND_ALPHA, _BACKGROUND_ALPHA = 1.0, 0.35


@dataclass(frozen=True)
class Curve:
    """A quantity over frames with its interval.

    Attributes
    ----------
    x : (T,) seconds or frame numbers, as `x_label` says. y : (T,) the quantity; NaN where the fit failed.
    low, high : (T,) ends of the interval that holds the share `level` of the cases; None where there is none.
    """

    x: np.ndarray
    y: np.ndarray
    x_label: str
    y_label: str
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    level: float = 0.8

    def at(self, t: int) -> str:
        """The quantity of the frame at index `t` in words: ``"0.5 s: 1.23 µm² (80 %: 1.20 to 1.26)"``."""
        name, _, unit = self.x_label.partition(" (")
        place = f"{self.x[t]:.4g} {unit[:-1]}" if unit else f"{name} {self.x[t]:.0f}"
        if not np.isfinite(self.y[t]):
            return f"{place}: no usable fit"
        unit = self.y_label.partition(" (")[2].removesuffix(")")
        said = f"{place}: {self.y[t]:.4g} {unit}".rstrip()
        if self.low is None or self.high is None or not np.isfinite(self.low[t]):
            return said
        return f"{said} ({self.level * 100:.4g} %: {self.low[t]:.4g} to {self.high[t]:.4g})"


class FrameStack:
    """A movie sliced like an array (time, height, width), each frame read when it is shown."""

    ndim = 3

    def __init__(self, movie: Movie) -> None:
        self.movie = movie
        self.shape = (len(movie), *movie.shape)
        self.dtype = np.dtype(np.float32) if movie.sampled else movie.dtype
        self.size = int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        if any(part is Ellipsis or part is None for part in index):
            return np.asarray(self)[index]
        if not index:
            return np.asarray(self)
        chosen = np.arange(len(self))[index[0]]
        if chosen.ndim == 0:
            return self.movie.picture(int(chosen))[index[1:]]
        if chosen.size == 0:
            return np.empty(self.shape, self.dtype)[index] if self.size == 0 else np.zeros((0, *self.shape[1:]))
        return np.stack([self.movie.picture(int(t))[index[1:]] for t in chosen])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack([self.movie.picture(t) for t in range(len(self))]).astype(dtype or self.dtype, copy=False)


def movie_layer(movie: Movie) -> LayerData:
    """An Image layer of a movie; NaN where a sub-sampled movie was not visited."""
    first = movie.picture(0).astype(np.float64)
    low, high = np.nanpercentile(first, (0.5, 99.5))
    options = {
        "name": movie.name,
        "contrast_limits": (float(low), float(high) if high > low else float(low) + 1),
        **placing(movie.pixel_size_um, None if movie.acquisition.times_s is not None else movie.frame_time_s),
        "metadata": {"notes": movie.acquisition.notes, "detector": movie.acquisition.detector},
    }
    return FrameStack(movie), options, "image"


def result_layer(result: AnalysisResult, name: str) -> LayerData:
    """A Labels layer of the phases of an analysis, in the colours of its report."""
    config = result.config
    size = config.quantity.pixel_size_um or result.movie.pixel_size_um
    interval = config.quantity.frame_time_s or result.movie.frame_time_s
    options = {
        **phase_look(config.phases.names, config.phases.foreground_index),
        **placing(size, interval),
        "name": name,
        "metadata": {KEY: curve_of(result)},
    }
    return result.labels, options, "labels"


def curve_of(result: AnalysisResult) -> Curve:
    """The growth curve of an analysis."""
    low, high = result.quantity_interval
    x, x_label = (result.frame, "frame") if result.time_s is None else (result.time_s, "time (s)")
    label = quantity_label(result.config, result.scale.unit)
    x = np.asarray(x, dtype=np.float64)
    return Curve(x, result.quantity, x_label, label, low, high, result.config.quantity.interval)


def quantity_label(config: AnalysisConfig, unit: str) -> str:
    """``"li, volume (µm³)"``."""
    phase = config.phases.names[config.phases.foreground_index]
    return f"{phase}, {'volume' if unit == 'um3' else 'area'} ({UNIT_TEXT[unit]})"


def phase_look(names: Sequence[str], foreground: int) -> dict[str, Any]:
    """Colours of labels and, for the status bar of napari, the names of the phases; what was not visited is clear."""
    others = islice(cycle(BACKGROUND_COLOURS), len(names))
    colours: dict[int | None, np.ndarray] = {None: np.zeros(4, np.float32), 0: np.zeros(4, np.float32)}
    for p in range(len(names)):
        colours[p + 1] = (
            rgba(FOREGROUND, _FOREGROUND_ALPHA) if p == foreground else rgba(next(others), _BACKGROUND_ALPHA)
        )
    features = {"index": range(len(names) + 1), "phase": ["not visited", *names]}
    return {"colormap": colours, "features": features, "opacity": 0.7}


def rgba(colour: str, alpha: float) -> np.ndarray:
    """``"#E69F00"`` -> (4,) float32 in 0..1."""
    return np.array([*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), alpha], np.float32)


def placing(pixel_size_um: float | None, frame_time_s: float | None) -> dict[str, Any]:
    """Scale and units of the axes (time, y, x); pixels where there is no calibration."""
    size, length = (1.0, "pixel") if pixel_size_um is None else (pixel_size_um, "micrometer")
    step, time = (1.0, "pixel") if frame_time_s is None else (frame_time_s, "second")
    return {"scale": (step, size, size), "units": (time, length, length)}
