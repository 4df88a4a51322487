"""Many replicates of one movie: bias, width, and the files of a study."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..archives import load_npz
from ..config import METHODS, StudyConfig, config_to_dict, study_from_dict
from ..errors import InputError
from .fit import status_counts
from .movie import Examples, MovieInfo, Scale
from .tables import import_xarray, mean, rate_name, write_csv


@dataclass(frozen=True)
class StudyResult:
    """A replicate study (METHOD.md 9).

    Attributes
    ----------
    shares : rate -> (B, T), share of each replicate and frame; NaN where the fit failed.
    status : rate -> (B, T) uint8 `FitStatus`. without_neighbours : rate -> (B, T), counted samples.
    reference : (T,), the same method on all pixels. reference_status : (T,).
    truth : (T,) or None, the real share where it is known (synthetic movies).
    others : the same study by other methods, see `StudyConfig.methods`.
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
    others: tuple[StudyResult, ...] = ()

    @property
    def method(self) -> str:
        """``"paper"`` or ``"movie"``."""
        return self.config.analysis.method

    @property
    def every(self) -> tuple[StudyResult, ...]:
        """This study and those of the other methods."""
        return (self, *self.others)

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
        rows: list[dict[str, Any]] = []
        for rate in self.rates:
            curve = self.curves(rate)
            bias = curve["mean"] - reference
            row: dict[str, Any] = {
                "method": self.method,
                "rate": rate,
                "n_replicates": self.shares[rate].shape[0],
                "avg_bias": mean(bias),
                "avg_width": mean(curve["p90"] - curve["p10"]),
                "unit": self.scale.unit,
                "avg_abs_bias": mean(np.abs(bias)),
                "n_failed": int((~np.isfinite(self.shares[rate])).sum()),
            }
            if self.truth is not None:
                truth = self.truth * self.scale.factor
                row["avg_bias_truth"] = mean(curve["mean"] - truth)
                row["rmse_truth"] = mean((self.shares[rate] * self.scale.factor - truth) ** 2) ** 0.5
            rows.append(row)
        return rows + [row for other in self.others for row in other.table()]

    def write(self, folder: str | Path) -> None:
        """study.json, replicates.npz, curves.csv, table1.csv and examples.npz into an existing folder.

        Another method's are study_METHOD.json and so on; table1.csv holds all methods.
        """
        folder = Path(folder)
        rows = self.table()
        write_csv(folder / "table1.csv", {key: [row[key] for row in rows] for key in rows[0]}, len(rows))
        self._write(folder, "")
        for other in self.others:
            other._write(folder, f"_{other.method}")

    def _write(self, folder: Path, suffix: str) -> None:
        meta = {
            "config": config_to_dict(self.config),
            "movie": asdict(self.movie),
            "scale": asdict(self.scale),
            "provenance": self.provenance,
            "status": {rate_name(r): status_counts(s) for r, s in self.status.items()},
            "reference_status": status_counts(self.reference_status),
            "others": [other.method for other in self.others],
        }
        (folder / f"study{suffix}.json").write_text(json.dumps(meta, indent=2) + "\n", "utf-8")
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
        np.savez_compressed(folder / f"replicates{suffix}.npz", **arrays)
        self._write_curves(folder / f"curves{suffix}.csv")
        if self.examples is not None:
            self.examples.save(folder / f"examples{suffix}.npz")

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
        return StudyResult._load(Path(folder), "")

    @staticmethod
    def _load(folder: Path, suffix: str) -> StudyResult:
        try:
            about = folder / f"study{suffix}.json"
            if not about.is_file():
                raise FileNotFoundError
            meta, data = json.loads(about.read_text("utf-8")), load_npz(folder / f"replicates{suffix}.npz")
            others = [] if suffix else list(meta.get("others", ()))
            if not set(others) <= set(METHODS):  # they are names of files: none may lead out of the folder
                raise ValueError
        except (OSError, ValueError, KeyError, BadZipFile):
            raise InputError(
                f"{folder} is not a finished study: study{suffix}.json and replicates{suffix}.npz are not both there "
                "and whole"
            ) from None
        config = study_from_dict(meta["config"])
        info = dict(meta["movie"])
        info["shape"], info["frame_numbers"] = tuple(info["shape"]), tuple(info["frame_numbers"])
        examples = folder / f"examples{suffix}.npz"

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
            others=tuple(StudyResult._load(folder, f"_{method}") for method in others),
        )

    def to_xarray(self) -> Any:
        """All replicates as an `xarray.Dataset`: share_<rate> over (replicate_<rate>, frame)."""
        xarray = import_xarray()
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
