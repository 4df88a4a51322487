"""From components to phases (METHOD.md 5), by loops. A dropped component has weight 0 and NaN mean."""

from __future__ import annotations

import math


def foreground(weights, means, sigmas, *, rule, contrast=2.5, polarity="bright"):
    """One bool a component."""
    alive = [k for k in range(len(means)) if weights[k] > 0 and not math.isnan(means[k])]
    out = [False] * len(means)
    if not alive:
        return out
    if rule == "brightest":
        out[max(alive, key=lambda k: means[k])] = True
    elif rule == "darkest":
        out[min(alive, key=lambda k: means[k])] = True
    elif rule == "separated":
        dom = max(alive, key=lambda k: weights[k])
        for k in alive:
            d = means[k] - means[dom]
            distance = {"bright": d, "dark": -d, "both": abs(d)}[polarity]
            out[k] = distance > contrast * sigmas[dom]
    else:
        raise ValueError(rule)
    return out


def named(names, foreground_name):
    """(phase index per component, phase names in order of first use, bool per component)."""
    phases, index = [], []
    for name in names:
        if name not in phases:
            phases.append(name)
        index.append(phases.index(name))
    return index, phases, [name == foreground_name for name in names]
