"""Which model a movie asks for: the table, the tests, and what is recommended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import AnalysisConfig
from .fit import MixtureFit
from .tables import write_csv

BIC_NOTE = (
    "BIC takes pixels for independent. Neighbours are not, so it favours large K, the more so the more pixels it gets; "
    "that is why it gets few, spread over the movie. Trust no K beyond the grey levels that you could name."
)


LOCAL_NOTE = (
    "BIC here lets every part of the frame have weights of its own, so that no trend gains by telling where a phase is."
)
TREND, TREND_LOCAL, COMPONENTS = "trend", "trend, local weights", "components"
"""Kinds of `SelectionTest`."""


@dataclass(frozen=True)
class SelectionRow:
    """One model. Smaller criteria are better; NaN where the fit failed.

    trend : preset or monomials as in `MixtureConfig`. n_parameters : 3K - 1 + q, less three for a dropped component.
    bic_local : BIC with weights of their own in each part of the frame, by which K is chosen; NaN for numbers of
        components that ordinary BIC has ruled out.
    bic_halves : the same for each half of the movie by itself, summed, by which the trend is chosen; NaN for other K.
    """

    trend: str
    n_components: int
    n_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    bic_local: float
    bic_halves: float
    status: str


@dataclass(frozen=True)
class SelectionTest:
    """One likelihood-ratio test: the smaller model (trend, n_components) against the larger one.

    kind : ``"trend"`` (chi-square), ``"trend, local weights"`` (the same, with weights per part of the frame) or
        ``"components"`` (bootstrap); the constants above. df : degrees of freedom, or None.
    n_bootstrap : draws, or None.
    """

    kind: str
    trend: str
    n_components: int
    larger_trend: str
    larger_n_components: int
    statistic: float
    df: int | None
    n_bootstrap: int | None
    p_value: float


@dataclass(frozen=True)
class ModelSelection:
    """What `select_model` found.

    Attributes
    ----------
    movie : its name. shape : (height, width). frames : numbers of the frames looked at. rate : of the sampling.
    rows, tests : the table, first trend first, and the tests.
    n_components, trend : the recommended model. decided : False where nothing could be decided and it is a fallback.
    reason, cautions : plain sentences.
    fit : the recommended model fitted to the pooled pixels, no leading axes; None where that failed.
    values, positions : (m,) grey levels and flat pixel indices that all this rests on.
    provenance : versions, device, seed, wall time.
    """

    movie: str
    shape: tuple[int, int]
    frames: tuple[int, ...]
    rate: float
    rows: tuple[SelectionRow, ...]
    tests: tuple[SelectionTest, ...]
    n_components: int
    trend: str
    decided: bool
    reason: str
    cautions: tuple[str, ...]
    fit: MixtureFit | None
    values: np.ndarray
    positions: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Pixels that the table rests on."""
        return self.values.size

    def apply(self, config: AnalysisConfig) -> AnalysisConfig:
        """`config` with the recommended number of components and trend."""
        return replace(config, mixture=replace(config.mixture, n_components=self.n_components, trend=self.trend))

    def row(self, trend: str, n_components: int) -> SelectionRow | None:
        """The row of one model, None if it was not tried."""
        return next((r for r in self.rows if (r.trend, r.n_components) == (trend, n_components)), None)

    def summary(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON."""
        names = ("movie", "shape", "frames", "rate", "n_samples", "n_components", "trend", "decided", "reason")
        fit = None if self.fit is None else self.fit.arrays() | {"terms": self.fit.terms}
        return {name: getattr(self, name) for name in names} | {
            "cautions": self.cautions,
            "note": f"{LOCAL_NOTE} {BIC_NOTE}",
            "rows": [asdict(row) for row in self.rows],
            "tests": [asdict(test) for test in self.tests],
            "fit": fit,
            "provenance": self.provenance,
        }

    def write_csv(self, path: str | Path) -> None:
        """selection.csv: one row a model; empty cells where there is no number."""
        columns: dict[str, Any] = {name: [getattr(r, name) for r in self.rows] for name in _COLUMNS}
        columns["recommended"] = [int((r.trend, r.n_components) == (self.trend, self.n_components)) for r in self.rows]
        write_csv(path, columns, len(self.rows))


_COLUMNS = tuple(SelectionRow.__dataclass_fields__)
