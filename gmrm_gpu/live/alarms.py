"""Control charts of what a frame's fit should have in common with the frames before (after Shewhart 1931).

Each chart follows one number, by how much a frame differs from what the past expects of it, and knows how much that
usually is: the median and the median absolute deviation of the frames before, which neither a slow drift nor a few
outliers move. A frame beyond the limit raises an alarm. What caused it the numbers do not say; the text names what is
often behind it, as an example.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .update import Alarm

LIMIT, LIMIT_OF_FEW = 6.5, 5.0
"""Control limit in robust standard deviations of the past; wider by the second / frames, which know them less well."""
HISTORY, LEAST_HISTORY = 60, 15
"""Frames that a chart compares with, and how few are too few to judge."""
QUIET = 8
"""Frames after an alarm in which further jumps are taken for the same one."""
_TO_SD = 1.4826
"""Of a normal distribution, standard deviation / median absolute deviation."""


@dataclass(frozen=True)
class Watched:
    """One chart. what : as `Alarm.what`. name, unit : for the text. least : smallest standard deviation believed."""

    what: str
    name: str
    unit: str
    least: float


_CAUSES = {
    "trend": "for example a stage or beam that drifts, or charging",
    "contrast": "for example a change of focus, of brightness or of contrast",
    "mean": "for example beam damage setting in, or a phase that changes",
    "fit": "for example a frame out of focus, disturbed or blank",
}


def watched(terms: tuple[tuple[int, int], ...], n_components: int, sigma: float) -> list[Watched]:
    """The charts of `mixture.causal.Seen.shift`.

    sigma : noise, grey levels. What is less than a thousandth of it is no jump; of means, a quarter of their error.
    """
    least = 1e-3 * sigma
    names = [
        "".join(f"{axis}^{n}" if n > 1 else axis for axis, n in zip("xy", term, strict=True) if n) for term in terms
    ]
    charts = [Watched("trend", f"the trend's term {name}", " grey levels", least) for name in names]
    charts += [
        Watched("contrast", "the brightness", " grey levels", least),
        Watched("contrast", "the contrast", " %", 0.01),
    ]
    charts += [
        Watched("mean", f"the mean grey level of component {k + 1}", " grey levels", sigma / 4)
        for k in range(n_components)
    ]
    return [*charts, Watched("fit", "the log-likelihood of a pixel", "", 1e-4)]


@dataclass
class ControlCharts:
    """Charts over a stream; memory does not grow.

    Attributes
    ----------
    history : (frames, charts) of the past, at most `HISTORY` frames. quiet : frames left in which none is raised.
    """

    history: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    quiet: int = 0

    def watch(self, shift: np.ndarray, charts: list[Watched], number: int, time_s: float | None) -> tuple[Alarm, ...]:
        """The alarm that a frame raises, or none; then the frame is one of the past.

        shift : (2, charts) as `mixture.causal.Seen.shift`; NaN where there is nothing to look at. The first row is
        judged, the second is told.
        """
        values, free = shift * np.array([100.0 if chart.unit == " %" else 1.0 for chart in charts])
        if self.history.shape[1] != values.size:
            self.history = np.zeros((0, values.size))
        centre, score = self._scores(values, np.array([chart.least for chart in charts]))
        # A frame that the model describes better than those before is no alarm.
        score[[chart.what == "fit" for chart in charts] & (values > centre)] = 0.0
        self.history = np.concatenate([self.history, values[None, :]])[-HISTORY:]
        worst = int(np.argmax(score))
        if self.quiet:
            self.quiet -= 1
            return ()
        limit = LIMIT * (1.0 + LIMIT_OF_FEW / len(self.history))
        if score[worst] <= limit:
            return ()
        self.quiet = QUIET
        others = [chart.name for chart, beyond in zip(charts, score > limit, strict=True) if beyond]
        others.remove(charts[worst].name)
        text = _text(charts[worst], number, float(free[worst] - centre[worst]), float(score[worst]), others)
        return (Alarm(number, time_s, charts[worst].what, text, float(score[worst])),)

    def _scores(self, values: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is usual of each chart, and by how many robust standard deviations the values differ from it."""
        n_known = np.isfinite(self.history).sum(axis=0)
        ready = (n_known >= LEAST_HISTORY) & np.isfinite(values)
        centre, score = np.zeros_like(values), np.zeros_like(values)
        if ready.any():
            past = self.history[:, ready]
            centre[ready] = np.nanmedian(past, axis=0)
            spread = _TO_SD * np.nanmedian(np.abs(past - centre[ready]), axis=0)
            score[ready] = np.abs(values[ready] - centre[ready]) / np.maximum(spread, least[ready])
        return centre, score


def _text(chart: Watched, number: int, jump: float, score: float, others: list[str]) -> str:
    also = "" if not others else f" So did {others[0]}." if len(others) == 1 else f" So did {len(others)} more numbers."
    return (
        f"Frame {number}: {chart.name} jumped by {jump:+.3g}{chart.unit}, {score:.3g} times what frames usually differ "
        f"by.{also} Look at the picture: {_CAUSES[chart.what]}."
    )
