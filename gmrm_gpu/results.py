"""What an analysis returns: fits, growth curves, studies. Host arrays only; save, load, to_xarray.

Shapes: T frames, B replicates, K components, q trend terms; images are (height, width). Missing calibration is
None, never an invented unit.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from .config import AnalysisConfig, StudyConfig, analysis_from_dict, config_to_dict, study_from_dict
from .errors import InputError, MissingDependencyError


class FitStatus(IntEnum):
    """Outcome of one fit, the worst that happened. Only the last two have no usable parameters."""

    CONVERGED = 0
    MAX_ITER = 1
    DROPPED = 2
    DEGENERATE = 3
    TOO_FEW = 4

    @property
    def label(self) -> str:
        """The word used in tables."""
        return _STATUS_LABELS[self]

    @property
    def usable(self) -> bool:
        """Whether the parameters (and so the share) mean anything."""
        return self < FitStatus.DEGENERATE


_STATUS_LABELS = {
    FitStatus.CONVERGED: "converged",
    FitStatus.MAX_ITER: "max_iter",
    FitStatus.DROPPED: "dropped components",
    FitStatus.DEGENERATE: "degenerate",
    FitStatus.TOO_FEW: "too few samples",
}


def status_counts(status: np.ndarray) -> dict[str, int]:
    """How many fits ended how, as ``{"converged": 990, "max_iter": 10}``; absent outcomes are left out."""
    values, counts = np.unique(np.asarray(status), return_counts=True)
    return {FitStatus(int(v)).label: int(c) for v, c in zip(values, counts, strict=True)}


@dataclass(frozen=True)
class MixtureFit:
    """Parameters of one or many fits; the leading axes (``...``) are frames or replicates.

    Attributes
    ----------
    weights, means, sigmas : (..., K), components in ascending mean; grey levels. A dropped component has weight
        0 and NaN mean and sigma and stands last.
    coef : (..., q), trend coefficients in grey levels, on coordinates scaled to [-1, 1] over the frame.
    log_likelihood : (...), natural log, of the grey levels.
    n_iter : (...), passes over the samples (the starts not counted).
    n_samples : (...), samples the fit saw.
    status : (...), `FitStatus` values.
    terms : exponents (a, b) of the monomials x^a y^b that `coef` multiplies.
    """

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray
    coef: np.ndarray
    log_likelihood: np.ndarray
    n_iter: np.ndarray
    n_samples: np.ndarray
    status: np.ndarray
    terms: tuple[tuple[int, int], ...] = ()

    def __getitem__(self, index: Any) -> MixtureFit:
        """The fits at `index` of the leading axes."""
        return MixtureFit(**{name: getattr(self, name)[index] for name in _FIT_ARRAYS}, terms=self.terms)

    @property
    def n_components(self) -> int:
        """K."""
        return self.weights.shape[-1]

    @property
    def n_parameters(self) -> int:
        """3K - 1 + q."""
        return 3 * self.n_components - 1 + len(self.terms)

    @property
    def aic(self) -> np.ndarray:
        """Akaike's criterion, smaller is better."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> np.ndarray:
        """Schwarz's criterion, smaller is better; spatial correlation makes it favour large K."""
        return self.n_parameters * np.log(self.n_samples) - 2 * self.log_likelihood

    def trend(self, shape: tuple[int, int]) -> np.ndarray:
        """The fitted trend surface of one fit (no leading axes), (height, width), grey levels, float64."""
        height, width = shape
        x = np.linspace(-1.0, 1.0, width) if width > 1 else np.zeros(1)
        y = np.linspace(-1.0, 1.0, height) if height > 1 else np.zeros(1)
        surface = np.zeros(shape)
        for coef, (a, b) in zip(self.coef, self.terms, strict=True):
            surface += coef * np.outer(y**b, x**a)
        return surface

    @staticmethod
    def stack(fits: Iterable[MixtureFit]) -> MixtureFit:
        """Join fits of equal shape along a new first axis."""
        items = list(fits)
        arrays = {name: np.stack([getattr(fit, name) for fit in items]) for name in _FIT_ARRAYS}
        return MixtureFit(**arrays, terms=items[0].terms)

    def arrays(self) -> dict[str, np.ndarray]:
        """Field name -> array, for saving."""
        return {name: getattr(self, name) for name in _FIT_ARRAYS}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], terms: Any) -> MixtureFit:
        """Inverse of `arrays`."""
        return MixtureFit(**{n: arrays[n] for n in _FIT_ARRAYS}, terms=tuple((int(a), int(b)) for a, b in terms))


_FIT_ARRAYS = ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter", "n_samples", "status")


@dataclass(frozen=True)
class MovieInfo:
    """What is known of a movie: enough to label axes and to find it again."""

    name: str
    n_frames: int
    shape: tuple[int, int]
    dtype: str
    n_pixels: int
    pixel_size_um: float | None = None
    frame_time_s: float | None = None
    frame_numbers: tuple[int, ...] = ()


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
    images : (F, height, width), as stored in the movie.
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

    def save(self, path: str | Path) -> None:
        """Write one compressed npz without pickles."""
        arrays: dict[str, Any] = {f"fit_{k}": v for k, v in self.fits.arrays().items()}
        for name in (
            "frames",
            "images",
            "labels_raw",
            "labels",
            "labels_settings",
            "labels_sampled",
            "foreground",
        ):
            arrays[name] = getattr(self, name)
        if self.valid is not None:
            arrays["valid"] = self.valid
        meta = {
            "settings": self.settings,
            "sampled_rate": self.sampled_rate,
            "terms": self.fits.terms,
            "phase_names": self.phase_names,
            "foreground_index": self.foreground_index,
        }
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)

    @staticmethod
    def load(path: str | Path) -> Examples:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
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
    share_raw : (T,), `count` before the correction. posterior : (T,), mean posterior of the foreground.
    n_samples, n_without_neighbours, status : (T,).
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
    share_raw: np.ndarray
    posterior: np.ndarray
    n_samples: np.ndarray
    n_without_neighbours: np.ndarray
    status: np.ndarray
    fits: MixtureFit
    foreground: np.ndarray
    labels: np.ndarray | None = None
    examples: Examples | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

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

    def write_growth_csv(self, path: str | Path) -> None:
        """growth.csv: one row a frame; empty cells where there is no calibration."""
        columns = {
            "frame": self.frame,
            "time_s": self.time_s,
            "share": self.share,
            "area_px": self.area_px,
            "area_um2": self.area_um2,
            "volume_um3": self.volume_um3,
            "n_samples": self.n_samples,
            "n_without_neighbours": self.n_without_neighbours,
            "status": [FitStatus(int(s)).label for s in self.status],
            "share_raw": self.share_raw,
            "posterior": self.posterior,
        }
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
        """The curve as an `xarray.Dataset` over ``time`` (or ``frame``)."""
        xarray = _xarray()
        dim = "frame" if self.time_s is None else "time_s"
        coords = {dim: self.frame if self.time_s is None else self.time_s}
        names = (
            "share",
            "share_raw",
            "posterior",
            "area_px",
            "area_um2",
            "volume_um3",
            "n_samples",
            "status",
        )
        data: dict[str, Any] = {name: (dim, getattr(self, name)) for name in names if getattr(self, name) is not None}
        if self.labels is not None:
            data["labels"] = ((dim, "y", "x"), self.labels)
        return xarray.Dataset(data, coords=coords, attrs={"movie": self.movie.name, "unit": self.scale.unit})


@dataclass(frozen=True)
class StudyResult:
    """A replicate study (METHOD.md 9).

    Attributes
    ----------
    shares : rate -> (B, T), share of each replicate and frame; NaN where the fit failed.
    status : rate -> (B, T) uint8 `FitStatus`. without_neighbours : rate -> (B, T), counted samples.
    reference : (T,), the same method on all pixels. reference_status : (T,).
    truth : (T,) or None, the real share where it is known (synthetic movies).
    Shares are those that multiply into `scale.unit` (weighted for a volume of revolution).
    """

    movie: MovieInfo
    config: StudyConfig
    scale: Scale
    frame: np.ndarray
    time_s: np.ndarray | None
    shares: dict[float, np.ndarray]
    status: dict[float, np.ndarray]
    without_neighbours: dict[float, np.ndarray]
    reference: np.ndarray
    reference_status: np.ndarray
    truth: np.ndarray | None = None
    examples: Examples | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def rates(self) -> tuple[float, ...]:
        """Sampling rates, in the order of the study."""
        return tuple(self.shares)

    def curves(self, rate: float) -> dict[str, np.ndarray]:
        """mean, p10, p50, p90 over replicates at `rate`, each (T,), in `scale.unit`; failed fits left out."""
        values = self.shares[rate] * self.scale.factor
        good = np.isfinite(values).any(axis=0)
        out = {name: np.full(values.shape[1], np.nan) for name in ("mean", "p10", "p50", "p90")}
        if good.any():
            out["mean"][good] = np.nanmean(values[:, good], axis=0)
            for name, level in (("p10", 10), ("p50", 50), ("p90", 90)):
                out[name][good] = np.nanpercentile(values[:, good], level, axis=0)
        return out

    def table(self) -> list[dict[str, Any]]:
        """Table 1: one dict a rate, with avg_bias, avg_width and, with a truth, avg_bias_truth, rmse_truth.

        Bias(t) is the mean over replicates less the reference, width(t) the 90th less the 10th percentile; both
        are averaged over frames. avg_abs_bias averages the absolute bias, so that signs cannot cancel.
        """
        reference = self.reference * self.scale.factor
        rows = []
        for rate in self.rates:
            curve = self.curves(rate)
            bias = curve["mean"] - reference
            row: dict[str, Any] = {
                "rate": rate,
                "n_replicates": self.shares[rate].shape[0],
                "avg_bias": _mean(bias),
                "avg_width": _mean(curve["p90"] - curve["p10"]),
                "unit": self.scale.unit,
                "avg_abs_bias": _mean(np.abs(bias)),
                "n_failed": int((~np.isfinite(self.shares[rate])).sum()),
            }
            if self.truth is not None:
                truth = self.truth * self.scale.factor
                row["avg_bias_truth"] = _mean(curve["mean"] - truth)
                row["rmse_truth"] = _mean((self.shares[rate] * self.scale.factor - truth) ** 2) ** 0.5
            rows.append(row)
        return rows

    def write(self, folder: str | Path) -> None:
        """study.json, replicates.npz, curves.csv, table1.csv and examples.npz into an existing folder."""
        folder = Path(folder)
        meta = {
            "config": config_to_dict(self.config),
            "movie": asdict(self.movie),
            "scale": asdict(self.scale),
            "provenance": self.provenance,
            "status": {rate_name(r): status_counts(s) for r, s in self.status.items()},
            "reference_status": status_counts(self.reference_status),
        }
        (folder / "study.json").write_text(json.dumps(meta, indent=2) + "\n", "utf-8")
        arrays: dict[str, Any] = {"frame": self.frame, "share_reference": self.reference}
        arrays["status_reference"] = self.reference_status
        if self.time_s is not None:
            arrays["time_s"] = self.time_s
        if self.truth is not None:
            arrays["share_truth"] = self.truth
        for rate in self.rates:
            arrays[f"share_{rate_name(rate)}"] = self.shares[rate]
            arrays[f"status_{rate_name(rate)}"] = self.status[rate]
            arrays[f"without_neighbours_{rate_name(rate)}"] = self.without_neighbours[rate]
        np.savez_compressed(folder / "replicates.npz", **arrays)
        self._write_curves(folder / "curves.csv")
        rows = self.table()
        write_csv(folder / "table1.csv", {key: [row[key] for row in rows] for key in rows[0]}, len(rows))
        if self.examples is not None:
            self.examples.save(folder / "examples.npz")

    def _write_curves(self, path: Path) -> None:
        n, factor = len(self.frame), self.scale.factor
        time = self.time_s if self.time_s is not None else [None] * n
        columns: dict[str, list[Any]] = {"rate": [], "frame": [], "time_s": [], "reference": []}
        columns |= {name: [] for name in ("mean", "p10", "p50", "p90", "unit")}
        if self.truth is not None:
            columns["truth"] = []
        for rate in self.rates:
            columns["rate"] += [rate_name(rate)] * n
            columns["frame"] += list(self.frame)
            columns["time_s"] += list(time)
            columns["reference"] += list(self.reference * factor)
            columns["unit"] += [self.scale.unit] * n
            for name, values in self.curves(rate).items():
                columns[name] += list(values)
            if self.truth is not None:
                columns["truth"] += list(self.truth * factor)
        write_csv(path, columns, len(columns["rate"]))

    @staticmethod
    def load(folder: str | Path) -> StudyResult:
        """Read a study folder; raises `InputError` where it is none."""
        folder = Path(folder)
        try:
            meta = json.loads((folder / "study.json").read_text("utf-8"))
            with np.load(folder / "replicates.npz", allow_pickle=False) as file:
                data = {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is not a finished study: {error}") from None
        config = study_from_dict(meta["config"])
        info = dict(meta["movie"])
        info["shape"], info["frame_numbers"] = tuple(info["shape"]), tuple(info["frame_numbers"])
        examples = folder / "examples.npz"

        def by_rate(name: str) -> dict[float, np.ndarray]:
            return {rate: data[f"{name}_{rate_name(rate)}"] for rate in config.rates}

        return StudyResult(
            movie=MovieInfo(**info),
            config=config,
            scale=Scale(**meta["scale"]),
            frame=data["frame"],
            time_s=data.get("time_s"),
            shares=by_rate("share"),
            status=by_rate("status"),
            without_neighbours=by_rate("without_neighbours"),
            reference=data["share_reference"],
            reference_status=data["status_reference"],
            truth=data.get("share_truth"),
            examples=Examples.load(examples) if examples.exists() else None,
            provenance=meta["provenance"],
        )

    def to_xarray(self) -> Any:
        """All replicates as an `xarray.Dataset`: share_<rate> over (replicate_<rate>, frame)."""
        xarray = _xarray()
        data: dict[str, Any] = {"share_reference": ("frame", self.reference)}
        if self.truth is not None:
            data["share_truth"] = ("frame", self.truth)
        for rate in self.rates:
            dims = (f"replicate_{rate_name(rate)}", "frame")
            data[f"share_{rate_name(rate)}"] = (dims, self.shares[rate])
        coords: dict[str, Any] = {"frame": self.frame}
        if self.time_s is not None:
            coords["time_s"] = ("frame", self.time_s)
        return xarray.Dataset(data, coords=coords, attrs={"movie": self.movie.name, "unit": self.scale.unit})


def rate_name(rate: float) -> str:
    """A rate as it stands in file contents: 0.1, 0.05, 0.01."""
    return f"{rate:.10g}"


def analysis_config_from_json(path: str | Path) -> AnalysisConfig:
    """The analysis settings of a finished study's study.json."""
    return analysis_from_dict(json.loads(Path(path).read_text("utf-8"))["config"]["analysis"])


def write_csv(path: str | Path, columns: dict[str, Any], n_rows: int) -> None:
    """Write columns of length `n_rows` (None: an empty column); NaN and None become empty cells."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(n_rows):
            writer.writerow([_cell(None if values is None else values[i]) for values in columns.values()])


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    value = float(value)
    return "" if np.isnan(value) else f"{value:.9g}"


def _mean(values: np.ndarray) -> float:
    """Mean over what is finite; NaN, without a warning, where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise MissingDependencyError("to_xarray needs xarray: pip install xarray") from None
    return xarray
