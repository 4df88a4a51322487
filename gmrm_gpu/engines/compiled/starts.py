"""Starting values (METHOD.md 4), the twin of `kernels/starts.cuh`."""

from __future__ import annotations

import numpy as np

from .jit import exactly

QUANTILE, SPREAD, KMEANS = 1, 2, 3
SUBSET_BLOCKS, SUBSET_BLOCK = 4, 512
"""Starts are compared on about so many of the blocks of so many samples; the blocks interleave the samples."""


@exactly
def take_subset(words, subset):
    """An even subset of the words of a fit, for its starts.

    subset : room, see `engines.fused.fit.start_rooms`; returns how many words there are.
    """
    m = words.size
    n_blocks = (m + SUBSET_BLOCK - 1) // SUBSET_BLOCK
    stride = max(n_blocks // SUBSET_BLOCKS, 1)
    each, size = (m + n_blocks - 1) // n_blocks, 0
    for s in range(each):
        for block in range(0, n_blocks, stride):
            place = block + n_blocks * s
            if place < m:
                subset[size] = words[place]
                size += 1
    return size


@exactly
def _value_at(ascending, level):
    n = ascending.size
    return np.float64(ascending[min(int(level * n), n - 1)]) if n else 0.0


@exactly
def _come_nearer(ascending, centre, mass):
    for i in range(ascending.size):
        distance = np.float64(ascending[i]) - centre
        mass[i] = min(mass[i], distance * distance)


@exactly
def _drawn_index(mass, uniform):
    """Of the first value at which the running sum of masses reaches `uniform` of the whole."""
    whole = running = 0.0
    for i in range(mass.size):
        whole += mass[i]
    for i in range(mass.size):
        running += mass[i]
        if running >= uniform * whole:
            return i
    return mass.size - 1


@exactly
def seed_centres(ascending, words, mass, means):
    """k-means++ seeding (Arthur & Vassilvitskii 2007): each centre drawn with the squared distance to the nearest.

    ascending : (n,) float32. words : (K,) random uint32. mass : (n,) float64, room. means : (K,), ascending at the end.
    """
    for i in range(mass.size):
        mass[i] = 1.0
    for k in range(means.size):
        means[k] = ascending[_drawn_index(mass, (np.float64(words[k]) + 0.5) * 2.0**-32)]
        if k == 0:
            for i in range(mass.size):
                mass[i] = np.inf
        _come_nearer(ascending, means[k], mass)
    for i in range(1, means.size):
        for j in range(i, 0, -1):
            if means[j - 1] > means[j]:
                means[j - 1], means[j] = means[j], means[j - 1]


@exactly
def start_means(kind, ascending, words, mass, means):
    """Means (K,) of one start, of `kind`; see `seed_centres`."""
    if kind == KMEANS and ascending.size:
        seed_centres(ascending, words, mass, means)
        return
    low, high = _value_at(ascending, 0.002), _value_at(ascending, 0.998)
    for k in range(means.size):
        step = (k + 0.5) / means.size
        means[k] = _value_at(ascending, step) if kind == QUANTILE else low + (high - low) * step


@exactly
def start_theta(means, theta):
    """Parameters with these means, equal weights and sigmas, no trend."""
    k_all = means.size
    sigma = 1.0
    if k_all > 1:
        low = high = means[0]
        for k in range(1, k_all):
            low, high = min(low, means[k]), max(high, means[k])
        sigma = min(max((high - low) / (2.0 * (k_all - 1)), 0.1), 1.0)
    for j in range(3 * k_all, theta.size):
        theta[j] = 0.0
    for k in range(k_all):
        theta[k] = -np.log(np.float64(k_all))
        theta[k_all + k] = means[k]
        theta[2 * k_all + k] = np.log(sigma)
