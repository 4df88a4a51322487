"""How wide the interval of one sub-sampled movie is, by sampling rate and scheme, and which rate is enough."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .movie import UNIT_TEXT
from .tables import write_csv

INTERVAL_NOTE = (
    "The interval is for the value that all pixels would give, not for the truth: it holds what sub-sampling leaves "
    "open, not what the method gets wrong on all pixels too."
)


NARROW = 1.3
"""Distance to the curve at the highest rate, in claimed standard deviations, above which an interval is too narrow.
Where intervals held, sound recommendations for synthetic movies had 0.5 to 1.1 (0.8 is right)."""


def rates_text(rates: Iterable[float]) -> str:
    """``"0.5 %, 1 %"``."""
    return ", ".join(f"{100 * rate:.3g} %" for rate in rates)


@dataclass(frozen=True)
class PlanRow:
    """One scheme at one rate.

    width : of the interval, mean over frames and draws, in `unit` (``"share"`` of the frame, ``"px"``, ``"um2"`` or
        ``"um3"``); NaN where a fit failed. n_samples : visited pixels a frame, mean. n_draws : sub-samplings looked at.
    deviation : mean distance to the curve at the highest rate, in standard deviations that the intervals claim; 0.8
        where these are right, NaN for that curve itself.
    reliable : False where the distance is far larger, or a fit failed, or no other curve agrees with that at the
        highest rate: the width then means nothing.
    is_check : whether the rate was tried because it was about to be recommended.
    """

    scheme: str
    rate: float
    width: float
    unit: str
    n_samples: float
    n_draws: int
    deviation: float
    reliable: bool = True
    is_check: bool = False

    @property
    def dose_factor(self) -> float:
        """How many times less dose than all pixels take."""
        return 1 / self.rate

    @property
    def dose_text(self) -> str:
        """``"1/3.1"``, ``"1/91"``."""
        return f"1/{self.dose_factor:.2g}" if self.dose_factor < 10 else f"1/{self.dose_factor:,.0f}"

    @property
    def dose_saved(self) -> float:
        """Part of the dose of all pixels that is saved, 0 to 1."""
        return 1 - self.rate


@dataclass(frozen=True)
class SamplingPlan:
    """What `plan_sampling` found.

    Attributes
    ----------
    movie : its name. n_frames, shape : (height, width) of it.
    estimator, interval : whose interval, and the part of the cases that it should hold.
    unit : of all widths. wanted : the width asked for, None without one.
    rows : every scheme and rate that was tried, rates rising within a scheme.
    answers : for each scheme that can reach the width, the smallest rate that does, as found there.
    recommended : the answer of smallest rate, None where there is none.
    notes : on rates that were not tried, plain sentences.
    provenance : versions, device, seed, wall time.
    """

    movie: str
    n_frames: int
    shape: tuple[int, int]
    estimator: str
    interval: float
    unit: str
    wanted: float | None
    rows: tuple[PlanRow, ...]
    answers: tuple[PlanRow, ...]
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def recommended(self) -> PlanRow | None:
        """The answer of smallest rate, of equal ones the narrower; None where there is none."""
        return min(self.answers, key=lambda row: (row.rate, row.width), default=None)

    @property
    def reason(self) -> str:
        """Why this rate, or why none, in a sentence or two."""
        if self.wanted is None:
            return "No width was asked for."
        unit = UNIT_TEXT.get(self.unit, "of the frame")
        wanted, best = f"{self.wanted:.3g} {unit}", self.recommended
        if best is None:
            sound = [row for row in self.rows if row.reliable]
            if not sound:
                return "No interval can be believed: the curves at different rates contradict each other."
            least = min(sound, key=lambda row: row.width)
            return (
                f"No rate that was tried reaches {wanted}: the narrowest interval is {least.width:.3g} {unit}, with "
                f"{least.scheme} at {100 * least.rate:.3g} %."
            )
        text = (
            f"{best.scheme.capitalize()} at {100 * best.rate:.3g} %: the interval is {best.width:.3g} {unit} wide, "
            f"{wanted} was wanted; {best.dose_text} of the dose, {100 * best.dose_saved:.3g} % saved."
        )
        if best.rate == self.of_scheme(best.scheme)[0].rate:
            text += " That is the smallest rate that was tried, so a lower one might do."
        rates = {row.scheme: f"{100 * row.rate:.3g} %" for row in self.answers}
        others = [f"{name}: {rates.get(name, 'not reached')}" for name in self.schemes if name != best.scheme]
        return text + (f" The same with {', '.join(others)}." if others else "")

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader should know beforehand: the notes, and which intervals are too narrow."""
        found = list(self.notes)
        for scheme in self.schemes:
            doubtful = [row for row in self.of_scheme(scheme) if not row.reliable]
            if failed := [row.rate for row in doubtful if not math.isfinite(row.width)]:
                found.append(f"{scheme}: fits failed at {rates_text(failed)}.")
            if far := [row.rate for row in doubtful if math.isfinite(row.width)]:
                found.append(
                    f"{scheme}: the curve at {rates_text(far)} and that at the highest rate differ by more than the "
                    "interval allows, so the model does not hold; no such rate is recommended."
                )
        best = self.recommended
        if best is not None and best.deviation > NARROW:
            found.append(
                f"{best.scheme} at {rates_text([best.rate])}: the curve is {best.deviation:.2g} claimed standard "
                "deviations from that at the highest rate on average, where 0.8 is right: the interval is too narrow."
            )
        return tuple(found)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that were tried."""
        return tuple(dict.fromkeys(row.scheme for row in self.rows))

    def of_scheme(self, scheme: str) -> list[PlanRow]:
        """The rows of one scheme, rates rising."""
        return [row for row in self.rows if row.scheme == scheme]

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        names = ("movie", "n_frames", "shape", "estimator", "interval", "unit", "wanted", "reason", "cautions")
        best = self.recommended
        return {name: getattr(self, name) for name in names} | {
            "note": INTERVAL_NOTE,
            "recommended": None if best is None else _cells(best),
            "answers": [_cells(row) for row in self.answers],
            "rows": [_cells(row) for row in self.rows],
            "provenance": self.provenance,
        }

    def write_csv(self, path: str | Path) -> None:
        """plan.csv: one row a scheme and rate."""
        cells = [_cells(row) | {"recommended": row == self.recommended} for row in self.rows]
        columns: dict[str, Any] = {name: [cell[name] for cell in cells] for name in (*_COLUMNS, "recommended")}
        write_csv(path, columns, len(self.rows))


_COLUMNS = (
    *("scheme", "rate", "width", "unit", "dose_saved", "dose_factor", "n_samples", "n_draws", "deviation"),
    *("reliable", "is_check"),
)


def _cells(row: PlanRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}
