"""From components to phases (METHOD.md 5); port of ``kernels/phases.cuh``."""

from __future__ import annotations

from typing import NamedTuple

from .jit import compiled

BRIGHTEST, DARKEST, SEPARATED, NAMED = range(4)
BRIGHT, DARK, BOTH = range(3)
_NOTHING = -1e300


class PhaseRule(NamedTuple):
    """rule, polarity : one of those above. foreground : the foreground's phase. named : four bits a component."""

    rule: int
    polarity: int
    foreground: int
    named: int
    contrast: float


@compiled
def _first_largest(values, weights, sign):
    """First component of the largest value times `sign` among those present."""
    best, largest = 0, _NOTHING
    for k in range(len(values)):
        value = sign * values[k] if weights[k] > 0 else _NOTHING
        if value > largest:
            best, largest = k, value
    return best


@compiled
def foreground_bits(rule, weights, means, sigmas):
    """Which components of a fit are foreground, one bit each; (K,) each, dropped ones with weight 0."""
    chosen = 0
    heaviest = _first_largest(weights, weights, 1.0)
    extreme = _first_largest(means, weights, -1.0 if rule.rule == DARKEST else 1.0)
    for k in range(len(weights)):
        if rule.rule == NAMED:
            yes = (rule.named >> 4 * k & 15) == rule.foreground
        elif rule.rule == SEPARATED:
            distance = (means[k] - means[heaviest]) / sigmas[heaviest]
            side = abs(distance) if rule.polarity == BOTH else -distance if rule.polarity == DARK else distance
            yes = side > rule.contrast
        else:
            yes = k == extreme
        chosen |= int(yes and weights[k] > 0) << k
    return chosen


@compiled
def phases_of(rule, foreground, n_components):
    """Each component's phase, four bits each: its name's, or 1 for foreground and 0 for the rest."""
    if rule.rule == NAMED:
        return rule.named
    phases = 0
    for k in range(n_components):
        phases |= (foreground >> k & 1) << 4 * k
    return phases
