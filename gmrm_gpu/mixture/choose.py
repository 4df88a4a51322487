"""The rules by which `select_model` recommends K and a trend, and what it warns of (METHOD.md 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..config import trend_terms
from ..results import FitStatus, MixtureFit
from .local import LocalFit
from .select import Candidate

Local = dict[tuple[str, int], LocalFit | None]
"""Fits with weights per part of the frame, by trend and K."""
Halves = tuple[LocalFit, ...]
"""Such fits to the halves of a movie, each by itself: a trend that turns over from one to the other is seen in neither
the mean surface nor its likelihood. One fit where there is a single frame, none where a fit failed."""

EVIDENCE = 10.0
"""Difference of BIC that counts as very strong evidence (Kass & Raftery 1995); a larger model needs that much."""
IMMATERIAL = 0.1
"""A trend is left out if its surface differs by less, root mean square, relative to the narrowest sigma."""
SUFFICIENT = 0.25
"""So much, in the same unit, a simpler trend may differ where BIC does not speak against it; it widens the narrowest
component by 3 %. Beyond it an ordinary fit whose trend differs from the local one is warned about."""
RARE = 0.02
"""Components of a smaller weight, such as a burnt-in text, are not what a trend is measured by."""


def key_of(candidate: Candidate) -> tuple[str, int]:
    """Trend and K."""
    return candidate.trend, candidate.config.n_components


def bic_of(local: LocalFit | None) -> float:
    """Its BIC, NaN where there is no fit."""
    return float("nan") if local is None else local.bic


def best_of(candidates: Sequence[Candidate], bic: Callable[[Candidate], float]) -> dict[int, float]:
    """For each K the lowest BIC over the trends, where there is one."""
    best: dict[int, float] = {}
    for c in candidates:
        k, value = c.config.n_components, bic(c)
        if np.isfinite(value):
            best[k] = min(best.get(k, np.inf), value)
    return best


def choose_components(best: dict[int, float], most: int = 6) -> tuple[int | None, str]:
    """The smallest K, at most `most`, whose BIC is within `EVIDENCE` of the best, and why. best : BIC of each K."""
    allowed = {n: value for n, value in best.items() if n <= most}
    if not allowed:
        return None, "No model could be fitted to these pixels, so nothing is decided."
    least = min(allowed.values())
    k = min(n for n, value in allowed.items() if value <= least + EVIDENCE)
    parts = []
    if k - 1 in best:
        parts.append(f"BIC falls by {best[k - 1] - best[k]:,.0f} from {k - 1} to {k}")
    if k + 1 in best:
        change = round(best[k + 1] - best[k])
        moves = f"{'rises' if change > 0 else 'falls'} by {abs(change):,}" if change else "stays"
        parts.append(f"{moves} from {k} to {k + 1}" if parts else f"BIC {moves} from {k} to {k + 1}")
    noun = "component" if k == 1 else "components"
    why = f": {' and '.join(parts)} (a larger model needs a fall of {EVIDENCE:g})" if parts else ", as asked for"
    return k, f"{k} {noun}{why}."


def choose_trend(candidates: Sequence[Candidate], halves: dict[tuple[str, int], Halves]) -> tuple[str | None, str]:
    """Among candidates of one K: the trend of lowest BIC over both halves, or the simplest with nearly its surfaces."""
    if len(candidates) == 1 and candidates[0].fit.status[0] < FitStatus.DEGENERATE:
        return candidates[0].trend, f"Trend {candidates[0].trend}, as asked for."
    fitted = {c.trend: found for c in candidates if (found := halves.get(key_of(c)))}
    if not fitted:
        ordinary = [c for c in candidates if c.fit.status[0] < FitStatus.DEGENERATE]
        if not ordinary:
            return None, ""
        trend = min(ordinary, key=lambda c: float(c.fit.bic[0])).trend
        return trend, f"Trend {trend}: the lowest BIC."
    bic = {name: sum(part.bic for part in parts) for name, parts in fitted.items()}
    best = min(bic, key=lambda name: bic[name])
    for trend in sorted(fitted, key=lambda name: len(trend_terms(name))):
        if trend == best:
            break
        apart = surface_difference(*([part.fit[0] for part in fitted[name]] for name in (trend, best)))
        behind = bic[trend] - bic[best]
        if apart < IMMATERIAL or (behind <= EVIDENCE and apart < SUFFICIENT):
            text = f"its surface differs by only {apart:.2f} of the narrowest sigma and its BIC by {behind:,.0f}"
            return trend, f"Trend {trend}: the simplest that is as good as {best}, which fits best ({text})."
    others = [value for name, value in bic.items() if name != best]
    lead = f" by {min(others) - bic[best]:,.0f}" if others else ""
    return best, f"Trend {best}: the lowest BIC{lead}, the halves of the movie by themselves."


def surface_difference(first: Sequence[MixtureFit], second: Sequence[MixtureFit]) -> float:
    """Rms over frame and pairs of fits of the difference of trends, its mean left out, in narrowest sigmas."""
    side = (33, 33)
    square = [(one.trend(side) - other.trend(side)).var() for one, other in zip(first, second, strict=True)]
    narrowest = min(float(f.sigmas[f.weights >= min(RARE, f.weights.max())].min()) for f in (*first, *second))
    return float(np.sqrt(np.mean(square))) / narrowest


def cautions(fit: MixtureFit | None, local: LocalFit | None) -> list[str]:
    """What a user of the recommended model should look at."""
    found = []
    apart = 0.0 if fit is None or local is None else surface_difference([fit], [local.fit[0]])
    if apart > SUFFICIENT:
        found.append(
            "With weights common to the whole frame the fitted trend follows the specimen (it differs by "
            f"{apart:.2f} sigma from a fit that knows where the phases are): look at the labels, and if they are wrong "
            "try --trend none, --trend-prior 2, or a mask over the electrode."
        )
    if fit is not None:
        gap, widest = np.diff(fit.means), np.maximum(fit.sigmas[1:], fit.sigmas[:-1])
        for i in np.flatnonzero(gap < widest):
            found.append(
                f"Components {i + 1} and {i + 2} lie closer than their widths: they may share one phase of an uneven "
                "grey level; name the phases to merge them, or use fewer components."
            )
    return found
