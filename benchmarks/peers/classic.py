"""Ways to tell phases apart that fit no mixture to samples, and what they need: shared by the scripts."""

from __future__ import annotations

import importlib.util

import numpy as np

N_BINS = 256


def available(package):
    """Whether an optional package is installed."""
    return importlib.util.find_spec(package) is not None


def basis_of(positions, shape, terms):
    """(m, q) monomials x^a y^b, coordinates from -1 to 1 on the whole frame (METHOD.md 1)."""
    y, x = np.divmod(np.asarray(positions), shape[1])
    x, y = 2 * x / (shape[1] - 1) - 1, 2 * y / (shape[0] - 1) - 1
    return np.stack([x**a * y**b for a, b in terms], axis=-1) if terms else np.empty((len(x), 0))


def least_squares_slopes(values, basis):
    """(q,) slopes of the least-squares trend with an intercept, blind to phases."""
    design = np.column_stack([np.ones(len(values)), basis])
    return np.linalg.lstsq(design, values, rcond=None)[0][1:]


def detrended(values, positions, shape, terms):
    """Values less their least-squares trend, the mean kept."""
    basis = basis_of(positions, shape, terms)
    return values - basis @ least_squares_slopes(values, basis)


def otsu_thresholds(values, k):
    """(k - 1,) ascending thresholds of Otsu's method for k classes (Otsu 1979), on a histogram of 256 bins.

    The cuts with the largest variance between classes, found by dynamic programming over the number of classes.
    """
    edges = np.linspace(values.min(), values.max(), N_BINS + 1)
    counts = np.histogram(values, edges)[0].astype(float)
    middle = 0.5 * (edges[1:] + edges[:-1])
    n, total = (np.concatenate([[0.0], a.cumsum()]) for a in (counts, counts * middle))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.nan_to_num((total[None] - total[:, None]) ** 2 / (n[None] - n[:, None]))
    # part[i, j]: what a class of the bins i..j-1 adds; empty ranges of bins are no class.
    part[np.tril_indices(N_BINS + 1)] = -np.inf
    best, cuts = part[0], []
    for _ in range(k - 1):
        gains = best[:, None] + part
        cuts.append(np.argmax(gains, axis=0))
        best = gains.max(axis=0)
    found, last = [], N_BINS
    for cut in reversed(cuts):
        last = cut[last]
        found.append(edges[last])
    return np.array(found[::-1])


def flattened(image):
    """(H, W) image over its N4 bias field (Tustison et al. 2010), by ANTs; plus one, as 0 has no logarithm."""
    import ants

    return ants.n4_bias_field_correction(ants.from_numpy(image.astype(np.float32) + 1)).numpy() - 1


def atropos_classes(image, k, mrf):
    """(H, W) classes 0..k-1 in ascending brightness, by ANTs Atropos with its Markov random field."""
    import ants

    picture = ants.from_numpy(image.astype(np.float32))
    found = ants.atropos(a=picture, x=picture * 0 + 1, i=f"kmeans[{k}]", m=mrf, c="[10,0]")["segmentation"].numpy()
    classes = found.astype(np.int64) - 1
    means = [image[classes == c].mean() if (classes == c).any() else -np.inf for c in range(k)]
    return np.argsort(np.argsort(means))[classes]
