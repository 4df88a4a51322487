"""What a result remembers of its movie: names, calibration, a few pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..archives import load_npz
from .fit import MixtureFit


@dataclass(frozen=True)
class MovieInfo:
    """What is known of a movie: enough to label axes and to find it again.

    `sampled`: whether only some pixels of its frames were ever visited. `detector`, `bit_depth`: None where unknown.
    """

    name: str
    n_frames: int
    shape: tuple[int, int]
    dtype: str
    n_pixels: int
    pixel_size_um: float | None = None
    frame_time_s: float | None = None
    frame_numbers: tuple[int, ...] = ()
    detector: str | None = None
    bit_depth: int | None = None
    sampled: bool = False


@dataclass(frozen=True)
class Scale:
    """From a share of the frame to pixels, um^2 and um^3 (METHOD.md 8).

    `n_pixels` is the number of pixels a share refers to (excluded ones are not among them). `pixel_area_um2` and
    `pixel_volume_um3` are None without calibration. For a slab `pixel_volume_um3` is pixel area x thickness. For a
    solid of revolution the shares themselves are weighted by 2 pi x distance to the axis (um) x wedge fraction, so
    `pixel_volume_um3` is the bare pixel area.
    """

    n_pixels: int
    pixel_area_um2: float | None = None
    pixel_volume_um3: float | None = None

    @property
    def unit(self) -> str:
        """The best unit available: ``"um3"``, ``"um2"`` or ``"px"``."""
        if self.pixel_volume_um3 is not None:
            return "um3"
        return "um2" if self.pixel_area_um2 is not None else "px"

    @property
    def factor(self) -> float:
        """Multiplies a share into `unit`."""
        per_pixel = {"um3": self.pixel_volume_um3, "um2": self.pixel_area_um2, "px": 1.0}[self.unit]
        return float(self.n_pixels) * float(per_pixel)  # type: ignore[arg-type]


UNIT_TEXT = {"um3": "µm³", "um2": "µm²", "px": "px"}


@dataclass(frozen=True)
class Examples:
    """Pictures for a report: a few frames with their labels.

    Attributes
    ----------
    frames : (F,), indices into the movie.
    images : (F, height, width), as `Movie.picture` has them: NaN where a sub-sampled movie was not visited.
    labels_raw, labels : (F, height, width) uint8, fully sampled, before and after correction; 0: not visited,
        p + 1: phase p.
    settings : list of ``(radius, gamma)``; `labels_settings` (len(settings), F, height, width) uint8, fully
        sampled labels corrected with each of them.
    sampled_rate, labels_sampled : rate and (F, height, width) uint8 labels of one sub-sampling, corrected.
    fits : (F,) fits of the full frames.
    foreground : (F, K) bool, components that are foreground.
    """

    frames: np.ndarray
    images: np.ndarray
    labels_raw: np.ndarray
    labels: np.ndarray
    settings: tuple[tuple[float, float], ...]
    labels_settings: np.ndarray
    sampled_rate: float
    labels_sampled: np.ndarray
    fits: MixtureFit
    foreground: np.ndarray
    phase_names: tuple[str, ...] = ("background", "foreground")
    foreground_index: int = 1
    valid: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays, for an npz without pickles."""
        arrays: dict[str, Any] = {f"fit_{k}": v for k, v in self.fits.arrays().items()}
        arrays |= {name: getattr(self, name) for name in _PICTURES}
        if self.valid is not None:
            arrays["valid"] = self.valid
        meta = {
            "settings": self.settings,
            "sampled_rate": self.sampled_rate,
            "terms": self.fits.terms,
            "phase_names": self.phase_names,
            "foreground_index": self.foreground_index,
        }
        return {"meta": np.array(json.dumps(meta)), **arrays}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> Examples:
        """Inverse of `arrays`."""
        data = dict(arrays)
        meta = json.loads(str(data.pop("meta")))
        fit = {name[4:]: data.pop(name) for name in list(data) if name.startswith("fit_")}
        return Examples(
            **data,
            settings=tuple((float(r), float(g)) for r, g in meta["settings"]),
            sampled_rate=meta["sampled_rate"],
            fits=MixtureFit.from_arrays(fit, meta["terms"]),
            phase_names=tuple(meta["phase_names"]),
            foreground_index=meta["foreground_index"],
        )

    def save(self, path: str | Path) -> None:
        """Write one compressed npz without pickles."""
        arrays: dict[str, Any] = self.arrays()
        np.savez_compressed(path, **arrays)

    @staticmethod
    def load(path: str | Path) -> Examples:
        """Read what `save` wrote."""
        return Examples.from_arrays(load_npz(path))


_PICTURES = ("frames", "images", "labels_raw", "labels", "labels_settings", "labels_sampled", "foreground")
