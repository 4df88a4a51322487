"""The spatio-temporal vote of METHOD.md 7 by brute force over a label volume, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def exact(number):
    """The decimal a user wrote, without its binary rounding."""
    return Fraction(str(number))


def is_neighbour(dt, dy, dx, *, metric, radius, time_scale, window):
    """Whether a sample at offset (dt, dy, dx) votes; dt < 0 is the past."""
    if dt == dy == dx == 0:
        return False
    if window == "past" and not dt < 0:
        return False
    if window == "past+current" and not dt <= 0:
        return False
    if window == "spatial" and dt != 0:
        return False
    s, r = exact(time_scale), exact(radius)
    if metric == "l1":
        return abs(dx) + abs(dy) + s * abs(dt) <= r
    return dx * dx + dy * dy + (s * dt) ** 2 <= r * r


def offsets(shape, **rule):
    """Every (dt, dy, dx) within a volume of `shape` that votes."""
    n_frames, height, width = shape
    return [
        (dt, dy, dx)
        for dt in range(1 - n_frames, n_frames)
        for dy in range(1 - height, height)
        for dx in range(1 - width, width)
        if is_neighbour(dt, dy, dx, **rule)
    ]


def correct(labels, visited, *, n_phases, foreground, metric, radius, gamma, window, sides, time_scale):
    """Corrected (T, H, W) volume and (T,) number of examined samples without a neighbour.

    Examined are the visited foreground samples (`sides` "foreground") or all visited ones ("both"). Ties of the
    commonest label go to the smallest label.
    """
    shape = labels.shape
    near = offsets(shape, metric=metric, radius=radius, time_scale=time_scale, window=window)
    gamma = exact(gamma)
    out, alone = labels.copy(), np.zeros(shape[0], dtype=np.int64)
    for t, y, x in np.argwhere(visited).tolist():
        label = int(labels[t, y, x])
        if label != foreground and sides == "foreground":
            continue
        votes = [0] * n_phases
        for dt, dy, dx in near:
            a, b, c = t + dt, y + dy, x + dx
            if 0 <= a < shape[0] and 0 <= b < shape[1] and 0 <= c < shape[2] and visited[a, b, c]:
                votes[int(labels[a, b, c])] += 1
        total = sum(votes)
        if total == 0:
            alone[t] += 1
            continue
        share = Fraction(votes[foreground], total)
        if label == foreground:
            if share < gamma:
                out[t, y, x] = votes.index(max(votes))
        elif share > 1 - gamma:
            out[t, y, x] = foreground
    return out, alone
