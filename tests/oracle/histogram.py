"""The residual histogram and its mixture by loops over samples and bins (METHOD.md 3).

Nothing is shared with the package.
"""

from __future__ import annotations

import math

import numpy as np


def shares(residuals, low, width, n_bins, parts):
    """(n_bins,) how often each bin counts, in `parts` of a sample: each is shared between the two centres beside it."""
    counts = [0] * n_bins
    for r in residuals:
        place = min(max((r - low) / width, 0.0), n_bins - 1.0)
        left = min(int(place), n_bins - 2)
        upper = round((place - left) * parts)
        counts[left] += parts - upper
        counts[left + 1] += upper
    return counts


def sums(values, times, weights, means, sigmas):
    """(3, K) sums of w, w r, w r^2 over values r that count `times`, and their log-likelihood."""
    out, total = np.zeros((3, len(weights))), 0.0
    for r, n in zip(values, times, strict=True):
        each = [
            math.log(p / s) - 0.5 * ((r - m) / s) ** 2 - 0.5 * math.log(2 * math.pi) if p > 0 else -math.inf
            for p, m, s in zip(weights, means, sigmas, strict=True)
        ]
        top = max(each)
        density = math.fsum(math.exp(v - top) for v in each)
        total += n * (top + math.log(density))
        for k, v in enumerate(each):
            w = n * math.exp(v - top) / density
            out[:, k] += [w, w * r, w * r * r]
    return out, total


def step(found):
    """Weights, means, sigmas from the sums of `sums`."""
    count, first, second = found
    means = first / count
    return count / count.sum(), means, np.sqrt(second / count - means**2)


def complete(missing, weights, means, sigmas):
    """Log-likelihood, but for a constant, of the sums `missing` as if their components were known."""
    count, first, second = missing
    square = second - 2 * means * first + means**2 * count
    return float(np.sum(count * np.log(weights / sigmas) - square / (2 * sigmas**2)))
