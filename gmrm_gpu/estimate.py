"""Shares with intervals from one sub-sampled movie, without replicates (METHOD.md 8).

`assisted` is the difference estimator of survey sampling (Saerndal, Swensson & Wretman 1992, ch. 6): earlier frames
predict every pixel, and the visited pixels correct the prediction. `smoothed` joins the assisted curve of all frames:
their errors are independent, since every frame draws its own pixels.
"""

from __future__ import annotations

import numpy as np

from .backend import Array, Backend
from .results.estimate import Estimate

VARIANCE_FRAMES = 9
"""Frames over which variances are averaged: that of a single frame is itself uncertain."""
LONGEST_GAP = 64
"""Frames that a gap in a recording counts as at most."""
_LEAST = 0.5
"""Samples, wrongly expected, that a frame's variance stands for at least: none found does not mean none there."""
_STEPS = np.logspace(-5, -1.5, 29)
"""Candidate standard deviations of the change of slope from frame to frame, in shares of the frame."""


def sample_mean(
    values: Array,
    valid: Array | None,
    n_samples: np.ndarray,
    n_pixels: int,
    clusters: str,
    length: int,
    *,
    groups: Array | None = None,
    n_effective: np.ndarray | None = None,
    backend: Backend,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the samples of one frame and its design variance, (R,) each on the host.

    Parameters
    ----------
    values : (R, m) float. valid : (R, m) bool or None. n_samples : (R,) number of valid samples.
    clusters : sampling scheme. ``fixed`` and ``bernoulli``: the variance of a simple random sample without
        replacement. ``stratified``: half the mean squared difference of successive samples, which lie in neighbouring
        blocks: too large by what neighbouring blocks differ more than the pixels of one. ``lines``: between segments
        of `length` samples, since those of one segment are neighbours.
    groups : (R, m) int32; samples that share a number, repeated visits of one pixel or a stretch of a line, are one
        look: the variance is that between groups, whatever the scheme.
    n_effective : (R,) different pixels that would say as much (`sampling.effective_pixels`); None: all are different.
    """
    xp = backend.xp
    values = xp.astype(values, xp.float64)
    weight = xp.ones_like(values) if valid is None else xp.astype(valid, xp.float64)
    values = values if valid is None else xp.where(valid, values, xp.zeros_like(values))
    n = np.maximum(n_samples, 1)
    mean = np.where(n_samples > 0, backend.to_host(xp.sum(values, axis=1)) / n, np.nan)
    deviation = (values - backend.asarray(np.nan_to_num(mean))[:, None]) * weight
    seen = n_samples if n_effective is None else n_effective
    unseen = np.where(n_samples > 0, np.maximum(0.0, 1 - seen / n_pixels), np.nan)
    if groups is not None:
        return mean, unseen * _spread_of_groups(deviation, weight, n, groups, backend)
    return mean, unseen * _spread(deviation, weight, n, clusters, length, backend)


def _spread_of_groups(deviation: Array, weight: Array, n: np.ndarray, groups: Array, backend: Backend) -> np.ndarray:
    """As `_spread`, between groups (R, m) of samples: their sums are the observations (Cochran 1977, ch. 9A)."""
    xp, (rows, m) = backend.xp, deviation.shape
    index = xp.reshape(xp.astype(groups, xp.int64) + backend.arange(rows, dtype=xp.int64)[:, None] * m, (-1,))
    sums, counts = (
        xp.reshape(backend.count(index, xp.reshape(a, (-1,)), rows * m), (rows, m)) for a in (deviation, weight)
    )
    n_groups = backend.to_host(xp.sum(xp.astype(counts > 0, xp.float64), axis=1))
    return backend.to_host(xp.sum(sums * sums, axis=1)) / n**2 * n_groups / np.maximum(n_groups - 1, 1)


def _spread(deviation: Array, weight: Array, n: np.ndarray, clusters: str, length: int, backend: Backend) -> np.ndarray:
    """(R,) variance of the mean of a frame of which next to nothing was visited."""
    xp = backend.xp
    rows, m = deviation.shape
    if clusters == "lines":
        sums = xp.sum(xp.reshape(deviation, (rows, m // length, length)), axis=2)
        n_segments = max(m // length, 1)
        return backend.to_host(xp.sum(sums * sums, axis=1)) / n**2 * n_segments / max(n_segments - 1, 1)
    if clusters == "stratified" and m > 1:
        pairs = weight[:, 1:] * weight[:, :-1]
        step = (deviation[:, 1:] - deviation[:, :-1]) * pairs
        count = np.maximum(backend.to_host(xp.sum(pairs, axis=1)), 1)
        return 0.5 * backend.to_host(xp.sum(step * step, axis=1)) / count / n
    return backend.to_host(xp.sum(deviation * deviation, axis=1)) / np.maximum(n - 1, 1) / n


def steady_variance(variance: np.ndarray, n_samples: np.ndarray, n_pixels: int) -> np.ndarray:
    """Variances (R, T) averaged over neighbouring frames, and never below that of half a sample."""
    known = np.isfinite(variance)
    half = VARIANCE_FRAMES // 2
    total, count = (np.pad(a, ((0, 0), (half + 1, half))).cumsum(axis=1) for a in (np.where(known, variance, 0), known))
    width = VARIANCE_FRAMES
    mean = (total[:, width:] - total[:, :-width]) / np.maximum(count[:, width:] - count[:, :-width], 1)
    least = np.maximum(0.0, 1 - n_samples / n_pixels) * _LEAST / np.maximum(n_samples, 1) ** 2
    return np.where(known, np.maximum(mean, least), np.nan)


def places_in_time(numbers: np.ndarray) -> np.ndarray:
    """(T,) places of frames of ascending `numbers` in a row without gaps, counted in their usual distance, from 0.

    After more than `LONGEST_GAP` missing frames the curve may be anywhere, and more would only take memory.
    """
    steps = np.diff(numbers)
    usual = steps.min(initial=steps[0]) if steps.size else 1
    return np.concatenate([[0], np.cumsum(np.clip(steps // usual, 1, LONGEST_GAP))])


def smooth_with_gaps(assisted: Estimate, numbers: np.ndarray) -> Estimate:
    """`smooth`, where frames `numbers` (T,) of a recording are there: the curve moved on in those that are not."""
    places = places_in_time(numbers)
    if places[-1] == places.size - 1:
        return smooth(assisted)
    share, sd = (np.full((assisted.share.shape[0], places[-1] + 1), np.nan) for _ in range(2))
    share[:, places], sd[:, places] = assisted.share, assisted.sd
    found = smooth(Estimate(share, sd))
    return Estimate(found.share[:, places], found.sd[:, places])


def smooth(assisted: Estimate) -> Estimate:
    """The curve that all frames together support: a local linear trend, filtered forwards and smoothed back.

    Frames are evenly spaced; one without a share is NaN.

    The level moves by its slope from frame to frame, the slope by a random step. How large steps are is not known:
    every candidate size is run, and curves and variances are averaged by their marginal likelihood, so that the
    interval holds the doubt about it too (a single best size is often zero by chance, and its interval too narrow).

    Rauch, Tung & Striebel (1965), AIAA Journal 3:1445; Harvey (1989), ch. 4.
    """
    y, v = assisted.share, assisted.sd**2
    if y.shape[1] < 3:
        return assisted
    seen = np.isfinite(y) & np.isfinite(v)
    y, v = np.where(seen, y, 0.0)[..., None], np.where(seen, np.maximum(v, 1e-18), 1.0)[..., None]
    log_likelihood, filtered, predicted = _filter(y, v, seen[..., None])
    level, variance = _smooth_back(filtered, predicted)
    weight = np.exp(log_likelihood - log_likelihood.max(axis=-1, keepdims=True))
    weight = (weight / weight.sum(axis=-1, keepdims=True))[:, None, :]
    mean = (weight * level).sum(axis=-1)
    total = (weight * (variance + (level - mean[..., None]) ** 2)).sum(axis=-1)
    return Estimate(mean, np.sqrt(total))


_State = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Level, slope; variance of the level, covariance, variance of the slope; each (R, steps)."""


def _filter(y: np.ndarray, v: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, list[_State], list[_State]]:
    """Log-likelihood (R, steps) and, per frame, the state after and before its observation."""
    rows, n_frames, _ = y.shape
    shape = (rows, _STEPS.size)
    zero = np.zeros(shape)
    state: _State = (zero, zero, zero + 1.0, zero, zero + 0.01)
    log_likelihood, filtered, predicted = np.zeros(shape), [], []
    for t in range(n_frames):
        if t:
            a, b, p, c, s = state
            state = (a + b, b, p + 2 * c + s, c + s, s + _STEPS**2)
        predicted.append(state)
        a, b, p, c, s = state
        total, error = p + v[:, t], y[:, t] - a
        log_likelihood += np.where(seen[:, t], -0.5 * (np.log(total) + error**2 / total), 0.0)
        k, h = np.where(seen[:, t], p / total, 0.0), np.where(seen[:, t], c / total, 0.0)
        state = (a + k * error, b + h * error, p - k * p, c - k * c, s - h * c)
        filtered.append(state)
    return log_likelihood, filtered, predicted


def _smooth_back(filtered: list[_State], predicted: list[_State]) -> tuple[np.ndarray, np.ndarray]:
    """Level and its variance given all frames, (R, T, steps)."""
    a, b, p, c, s = filtered[-1]
    levels, variances = [a], [p]
    for (fa, fb, fp, fc, fs), (qa, qb, qp, qc, qs) in zip(filtered[-2::-1], predicted[:0:-1], strict=True):
        # Gain G = F M' Q^-1 with M = [[1, 1], [0, 1]].
        det = qp * qs - qc * qc
        up, down = (fp + fc, fc), (fc + fs, fs)
        g = [[(r[0] * qs - r[1] * qc) / det, (r[1] * qp - r[0] * qc) / det] for r in (up, down)]
        da, db, dp, dc, ds = a - qa, b - qb, p - qp, c - qc, s - qs
        a, b = fa + g[0][0] * da + g[0][1] * db, fb + g[1][0] * da + g[1][1] * db
        p, c, s = (
            f + g[i][0] * (g[j][0] * dp + g[j][1] * dc) + g[i][1] * (g[j][0] * dc + g[j][1] * ds)
            for f, i, j in ((fp, 0, 0), (fc, 0, 1), (fs, 1, 1))
        )
        levels.append(a)
        variances.append(p)
    return np.stack(levels[::-1], axis=1), np.maximum(np.stack(variances[::-1], axis=1), 0.0)
