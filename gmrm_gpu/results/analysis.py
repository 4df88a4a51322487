"""One movie, analysed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from ..config import ESTIMATORS, AnalysisConfig
from .estimate import Estimate
from .fit import FitStatus, MixtureFit
from .movie import Examples, MovieInfo, Scale
from .tables import write_csv


@dataclass(frozen=True)
class AnalysisResult:
    """One movie, analysed once.

    Attributes
    ----------
    movie, config, scale : what was analysed, how, and what a share is worth.
    frame : (T,), frame numbers in the source. time_s : (T,) or None without a frame time.
    share : (T,), share of the pixels that is foreground, by the chosen estimator; NaN where the fit failed.
    volume_share : (T,), the share to multiply into a volume: equal to `share` for a slab, weighted by the
        distance to the axis for a solid of revolution.
    share_sd, volume_share_sd : (T,), standard deviation of their sampling errors (METHOD.md 8); NaN where there is
        none to be had. It speaks of the pixels that were not visited, not of a wrong model.
    share_raw : (T,), `count` before the correction.
    count, posterior, assisted, smoothed : (T,), all estimators, and count_sd ... their standard deviations.
    n_samples, n_without_neighbours, status : (T,).
    visited_share : (T,), part of each frame's pixels that was visited.
    fits : (T,) fits; foreground : (T, K) bool, components that are foreground.
    labels : (T, height, width) uint8 or None; 0 not visited, p + 1 phase p of `config.phases.names`.
    provenance : versions, device, seed, wall time.
    """

    movie: MovieInfo
    config: AnalysisConfig
    scale: Scale
    frame: np.ndarray
    time_s: np.ndarray | None
    share: np.ndarray
    volume_share: np.ndarray
    share_sd: np.ndarray
    volume_share_sd: np.ndarray
    share_raw: np.ndarray
    count: np.ndarray
    count_sd: np.ndarray
    posterior: np.ndarray
    posterior_sd: np.ndarray
    assisted: np.ndarray
    assisted_sd: np.ndarray
    smoothed: np.ndarray
    smoothed_sd: np.ndarray
    n_samples: np.ndarray
    n_without_neighbours: np.ndarray
    visited_share: np.ndarray
    status: np.ndarray
    fits: MixtureFit
    foreground: np.ndarray
    labels: np.ndarray | None = None
    examples: Examples | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether every pixel was visited."""
        return bool(np.all(self.visited_share >= 1))

    @property
    def area_px(self) -> np.ndarray:
        """(T,), foreground area in pixels."""
        return self.share * self.scale.n_pixels

    @property
    def area_um2(self) -> np.ndarray | None:
        """(T,), foreground area in um^2; None without a pixel size."""
        return None if self.scale.pixel_area_um2 is None else self.area_px * self.scale.pixel_area_um2

    @property
    def volume_um3(self) -> np.ndarray | None:
        """(T,), foreground volume in um^3; None without a pixel size and (for a slab) a thickness."""
        if self.scale.pixel_volume_um3 is None:
            return None
        return self.volume_share * self.scale.n_pixels * self.scale.pixel_volume_um3

    @property
    def quantity(self) -> np.ndarray:
        """(T,), the curve in `scale.unit`: volume, else area, else pixels."""
        return (self.volume_share if self.scale.unit == "um3" else self.share) * self.scale.factor

    @property
    def estimator(self) -> str:
        """The chosen estimator."""
        return self.config.estimator

    def interval(self, estimator: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end, (T,) each, of the interval around an estimator's share (None: the chosen one).

        It should hold the share of the fully sampled movie in `config.quantity.interval` of the cases.
        """
        name = estimator or self.estimator
        return Estimate(getattr(self, name), getattr(self, f"{name}_sd")).interval(self.config.quantity.interval)

    @property
    def quantity_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the interval around `quantity`, (T,) each, in `scale.unit`."""
        volume = self.scale.unit == "um3"
        share, sd = (self.volume_share, self.volume_share_sd) if volume else (self.share, self.share_sd)
        reach = NormalDist().inv_cdf(0.5 + self.config.quantity.interval / 2) * sd
        return np.maximum(share - reach, 0) * self.scale.factor, (share + reach) * self.scale.factor

    def write_growth_csv(self, path: str | Path) -> None:
        """growth.csv: one row a frame; empty cells where there is no calibration."""
        columns = {
            "frame": self.frame,
            "time_s": self.time_s,
            "share": self.share,
            "share_low": self.interval()[0],
            "share_high": self.interval()[1],
            "area_px": self.area_px,
            "area_um2": self.area_um2,
            "volume_um3": self.volume_um3,
            "n_samples": self.n_samples,
            "visited_share": self.visited_share,
            "n_without_neighbours": self.n_without_neighbours,
            "status": [FitStatus(int(s)).label for s in self.status],
            "share_raw": self.share_raw,
        }
        for name in ESTIMATORS:
            columns[name] = getattr(self, name)
            columns[f"{name}_low"], columns[f"{name}_high"] = self.interval(name)
        write_csv(path, columns, len(self.frame))

    def write_fits_csv(self, path: str | Path) -> None:
        """fits.csv: one row a frame and component, the frame's trend coefficients repeated."""
        n_frames, n_components = self.fits.weights.shape
        rows = n_frames * n_components
        columns: dict[str, Any] = {
            "frame": np.repeat(self.frame, n_components),
            "component": np.tile(np.arange(n_components), n_frames),
            "weight": self.fits.weights.reshape(rows),
            "mean": self.fits.means.reshape(rows),
            "sigma": self.fits.sigmas.reshape(rows),
            "foreground": self.foreground.reshape(rows).astype(int),
        }
        for j, (a, b) in enumerate(self.fits.terms):
            columns[f"coef_x{a}y{b}"] = np.repeat(self.fits.coef[:, j], n_components)
        columns["log_likelihood"] = np.repeat(self.fits.log_likelihood, n_components)
        columns["n_iter"] = np.repeat(self.fits.n_iter, n_components)
        columns["status"] = np.repeat([FitStatus(int(s)).label for s in self.fits.status], n_components)
        write_csv(path, columns, rows)

    def to_xarray(self) -> Any:
        """Curves and labels as an `xarray.Dataset` over ``time_s`` (or ``frame``), y and x.

        Every variable and coordinate has its unit in ``attrs["units"]``; labels and status say in ``flag_meanings``
        what each number stands for. The attributes of the dataset hold the calibration, detector and settings.
        """
        from .exchange import to_xarray

        return to_xarray(self)

    def to_hyperspy(self) -> dict[str, Any]:
        """The growth curve and the labels as HyperSpy signals with calibrated axes.

        Returns
        -------
        dict with ``"curve"``, ``"low"`` and ``"high"`` (`Signal1D`, the quantity in `scale.unit` against time, and
        the ends of its interval) and, where there are labels, ``"labels"`` (`Signal2D`).

        Raises
        ------
        MissingDependencyError
            Without HyperSpy.
        """
        from .exchange import to_hyperspy

        return to_hyperspy(self)
