"""The M-steps of a movie from the sums of one pass over all its frames (`kernels/movie_steps.cuh`); float64.

`mixture.movie_steps` says what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .jit import compiled
from .movie_walk import add_information, eliminate, smooth_walk
from .sums import NO_COMPONENT

PSEUDO_COUNT = 0.5
"""Samples added to each component of each frame's weights."""
MIN_COUNT = 2.0
"""A component that holds fewer samples in all frames is dropped."""
_RIDGE = 64 * 1.1920928955078125e-07


class Common(NamedTuple):
    """Parameters common to all frames, standardised.

    In frame t, whose deviation is (b_1..b_q, o, g), the trend is coef + b, the means are
    means + o + g (means - pivot), and the sigmas (1 + g) sigmas.

    Attributes
    ----------
    means, sigmas : (K,). coef : (max(q, 1),). pivot : (1,). alive : (K,) 1, or 0 for a dropped component.
    """

    means: Any
    sigmas: Any
    coef: Any
    pivot: Any
    alive: Any


def common_at(numbers: np.ndarray, n_components: int) -> Common:
    """Views of the numbers (3 K + max(q, 1) + 1,) of a replicate."""
    k = n_components
    return Common(numbers[:k], numbers[k : 2 * k], numbers[2 * k : -k - 1], numbers[-k - 1 : -k], numbers[-k:])


class Movie(NamedTuple):
    """Numbers of the frames of a replicate.

    Attributes
    ----------
    weights : (T, K). drift : (T, q + 2). theta : (T, 3 K + q) that the last pass was made with, see `frame_theta`.
    sums : (T, N_SUMS). walk : (T, q + 2, q + 3).
    """

    weights: Any
    drift: Any
    theta: Any
    sums: Any
    walk: Any


@compiled
def frame_theta(common, drift, theta):
    """Parameters of a frame with deviation `drift`; log weights are 0, for samples that carry their own, or dropped."""
    k, q = common.means.size, drift.size - 2
    gain = 1.0 + drift[q + 1]
    for i in range(k):
        theta[i] = 0.0 if common.alive[i] > 0.0 else NO_COMPONENT
        theta[k + i] = common.pivot[0] + drift[q] + gain * (common.means[i] - common.pivot[0])
        theta[2 * k + i] = np.log(common.sigmas[i]) + np.log(gain)
    for j in range(q):
        theta[3 * k + j] = common.coef[j] + drift[j]


@compiled
def write_theta(common, movie):
    """Parameters of all frames."""
    for t in range(movie.theta.shape[0]):
        frame_theta(common, movie.drift[t], movie.theta[t])


@compiled
def frame_weights(count, alive, weights):
    """Weights of a frame from its counts (K,)."""
    total = 0.0
    for k in range(count.size):
        weights[k] = count[k] + PSEUDO_COUNT if alive[k] > 0.0 else 0.0
        total += weights[k]
    for k in range(count.size):
        weights[k] /= total if total > 0.0 else 1.0


@compiled
def reweight(movie, common, model):
    """Drops components that hold too few samples; each frame's weights. Returns the counts (K,) of all frames."""
    size, n_frames = model.p + model.q + 2, movie.sums.shape[0]
    count, of_frame = np.zeros(model.k), np.empty(model.k)
    for t in range(n_frames):
        for k in range(model.k):
            count[k] += movie.sums[t, k * size]
    for k in range(model.k):
        if not count[k] >= MIN_COUNT:
            common.alive[k] = 0.0
    for t in range(n_frames):
        for k in range(model.k):
            of_frame[k] = movie.sums[t, k * size]
        frame_weights(of_frame, common.alive, movie.weights[t])
    return count


@compiled
def move_sums(sums, component, shift, step, model):
    """The sums of one component about a mean moved by `shift` and a trend moved by step (q,), same responsibilities."""
    p, q = model.p, model.q
    resp, dev = component * (p + q + 2), component * (p + q + 2) + p
    square = sums[dev + 1 + q] + shift * (shift * sums[resp] - 2.0 * sums[dev])
    first = sums[dev] - shift * sums[resp]
    for i in range(q):
        moved = 0.0
        for j in range(q):
            moved += sums[resp + model.pair[i, j]] * step[j]
        square += step[i] * (2.0 * (shift * sums[resp + 1 + i] - sums[dev + 1 + i]) + moved)
        first -= sums[resp + 1 + i] * step[i]
        sums[dev + 1 + i] -= shift * sums[resp + 1 + i] + moved
    sums[dev] = first
    sums[dev + 1 + q] = square


class Totals(NamedTuple):
    """What the common step needs, summed over frames.

    Attributes
    ----------
    own, right : (K,). cross : (K, q). second : (P,). wanted : (q,).
    """

    own: Any
    right: Any
    cross: Any
    second: Any
    wanted: Any


@compiled
def add_totals(sums, gain, inverse, model, totals):
    """Add the part of one frame; inverse : (K,) 1 / sigma^2."""
    p, q = model.p, model.q
    for k in range(model.k):
        resp, dev = k * (p + q + 2), k * (p + q + 2) + p
        tie = inverse[k] / (gain * gain)
        totals.own[k] += inverse[k] * sums[resp]
        totals.right[k] += inverse[k] / gain * sums[dev]
        for j in range(q):
            totals.cross[k, j] += inverse[k] / gain * sums[resp + 1 + j]
            totals.wanted[j] += tie * sums[dev + 1 + j]
        for i in range(p):
            totals.second[i] += tie * sums[resp + i]


@compiled
def common_trend(totals, coef, pull, model):
    """The step (q,) of the common trend, with the means' eliminated; pull : precision of the trend's prior."""
    q, largest = model.q, 0.0
    a = np.empty((q, q + 1))
    for i in range(q):
        for j in range(q + 1):
            total = totals.second[model.pair[i, j]] if j < q else totals.wanted[i]
            for k in range(model.k):
                other = totals.cross[k, j] if j < q else totals.right[k]
                total -= totals.cross[k, i] / totals.own[k] * other
            if i == j:
                total += pull
            if j == q:
                total -= pull * coef[i]
            a[i, j] = total
            if j < q and not abs(total) <= largest:
                largest = abs(total)
    usable = largest > 0.0 and largest < 1e300
    # A ridge above the rounding of the sums: a term that the samples cannot see must not run away.
    for i in range(q):
        for j in range(q + 1):
            if usable:
                a[i, j] /= largest
            elif j < q:
                a[i, j] = 1.0 if i == j else 0.0
        a[i, i] += _RIDGE
    eliminate(a)
    return a[:, q].copy()


@compiled
def common_step(movie, common, inverse, pull, model):
    """Means and trend of all frames by one weighted least squares; the sums are moved to the new ones."""
    q, n_frames = model.q, movie.sums.shape[0]
    totals = Totals(np.zeros(model.k), np.zeros(model.k), np.zeros((model.k, q)), np.zeros(model.p), np.zeros(q))
    for t in range(n_frames):
        add_totals(movie.sums[t], 1.0 + movie.drift[t, q + 1], inverse, model, totals)
    for k in range(model.k):
        if not (common.alive[k] > 0.0 and totals.own[k] > 0.0):
            totals.own[k] = 1.0
    step, shift = common_trend(totals, common.coef, pull, model), np.zeros(model.k)
    for k in range(model.k):
        right = totals.right[k]
        for j in range(q):
            right -= totals.cross[k, j] * step[j]
        if common.alive[k] > 0.0:
            shift[k] = right / totals.own[k]
        common.means[k] += shift[k]
    for j in range(q):
        common.coef[j] += step[j]
    for t in range(n_frames):
        for k in range(model.k):
            move_sums(movie.sums[t], k, (1.0 + movie.drift[t, q + 1]) * shift[k], step, model)


@compiled
def move_pivot(movie, common, model):
    """The pivot moved to the mean of the commonest component: other numbers for the same frames."""
    total = np.zeros(model.k)
    for t in range(movie.weights.shape[0]):
        total += movie.weights[t]
    pivot = common.means[np.argmax(total)]
    for t in range(movie.drift.shape[0]):
        movie.drift[t, model.q] += movie.drift[t, model.q + 1] * (pivot - common.pivot[0])
    common.pivot[0] = pivot


@compiled
def take_drift(movie, common, most_contrast, model):
    """With the deviations found (the last column of the walk), what all frames have in common moved to `common`.

    The frames stay the same; their sums are moved to the deviations.
    """
    q, n_frames = model.q, movie.drift.shape[0]
    mean, step = np.zeros(q + 2), np.empty(q)
    for t in range(n_frames):
        found, drift = movie.walk[t, :, q + 2], movie.drift[t]
        found[q + 1] = min(max(found[q + 1], 1.0 / most_contrast - 1.0), most_contrast - 1.0)
        for j in range(q):
            step[j] = found[j] - drift[j]
        for k in range(model.k):
            contrast = common.means[k] - common.pivot[0]
            shift = (found[q] - drift[q]) + (found[q + 1] - drift[q + 1]) * contrast
            move_sums(movie.sums[t], k, shift, step, model)
        for j in range(q + 2):
            mean[j] += found[j] / n_frames
    gain, pivot = 1.0 + mean[q + 1], common.pivot[0] + mean[q]
    for t in range(n_frames):
        for j in range(q + 2):
            movie.drift[t, j] = (movie.walk[t, j, q + 2] - mean[j]) / (gain if j == q + 1 else 1.0)
    for k in range(model.k):
        common.means[k] = pivot + gain * (common.means[k] - common.pivot[0])
    for j in range(q):
        common.coef[j] += mean[j]
    common.pivot[0] = pivot


@compiled
def drift_step(movie, common, inverse, tie, model):
    """Each frame's deviation, tied to its neighbours'; the sums are moved to the new ones. After `common_step`."""
    d = model.q + 2
    move_pivot(movie, common, model)
    for t in range(movie.drift.shape[0]):
        out, drift = movie.walk[t], movie.drift[t]
        out[:, :] = 0.0
        gain = 1.0 + drift[d - 1]
        for k in range(model.k):
            contrast = common.means[k] - common.pivot[0]
            add_information(movie.sums[t], k, inverse[k] / (gain * gain), contrast, model, out)
        for i in range(d):
            for j in range(d):
                out[i, d] += out[i, j] * drift[j]
    smooth_walk(movie.walk, tie)
    take_drift(movie, common, tie.most_contrast, model)


@compiled
def sigma_step(movie, common, count, floor, model):
    """Sigmas at the new means and trends; count : (K,) of all frames."""
    size = model.p + model.q + 2
    for k in range(model.k):
        total = 0.0
        for t in range(movie.sums.shape[0]):
            gain = 1.0 + movie.drift[t, model.q + 1]
            total += movie.sums[t, (k + 1) * size - 1] / (gain * gain)
        variance = total / (count[k] if count[k] > MIN_COUNT else MIN_COUNT)
        if variance <= floor * floor:  # NaN stays NaN
            variance = floor * floor
        if common.alive[k] > 0.0:
            common.sigmas[k] = np.sqrt(variance)


@compiled
def _larger(a, b):
    """The larger, NaN if there is one."""
    return a if b <= a or a != a else b


@compiled
def measure_move(movie, common, model):
    """The largest change of a mean or trend coefficient of any frame, in the smallest sigma."""
    k, most, smallest = model.k, 0.0, np.inf
    theta = np.empty(movie.theta.shape[1])
    for t in range(movie.theta.shape[0]):
        frame_theta(common, movie.drift[t], theta)
        for i in range(k):
            if common.alive[i] > 0.0:
                most = _larger(most, abs(theta[k + i] - movie.theta[t, k + i]))
        for i in range(3 * k, theta.size):
            most = _larger(most, abs(theta[i] - movie.theta[t, i]))
    for i in range(k):
        if common.alive[i] > 0.0 and not common.sigmas[i] >= smallest:
            smallest = common.sigmas[i]
    return most / smallest


@compiled
def refit(movie, common, floor, pull, tie, model):
    """All M-steps after a pass; returns what `measure_move` says."""
    count, inverse = reweight(movie, common, model), np.zeros(model.k)
    for k in range(model.k):
        if common.alive[k] > 0.0:
            inverse[k] = 1.0 / (common.sigmas[k] * common.sigmas[k])
    common_step(movie, common, inverse, pull, model)
    if tie.step[0] > 0.0 and movie.drift.shape[0] > 1:
        drift_step(movie, common, inverse, tie, model)
    sigma_step(movie, common, count, floor, model)
    return measure_move(movie, common, model)


@compiled
def _vector(at, sigmas, smallest, out):
    k = sigmas.size
    for i in range(k):
        out[i] = at.means[i] / sigmas[i]
        out[k + i] = np.log(at.sigmas[i])
    for j in range(at.coef.size):
        out[2 * k + j] = at.coef[j] / smallest


@compiled
def leap(common, first, second, longest):
    """The common parameters, extrapolated from three successive iterates (SQUAREM).

    Two components of one phase trade samples along a ridge that plain steps follow for hundreds of iterations.
    """
    k, smallest = common.means.size, common.sigmas.min()
    a, b, c = np.empty((3, 2 * k + common.coef.size))
    _vector(first, common.sigmas, smallest, a)
    _vector(second, common.sigmas, smallest, b)
    _vector(common, common.sigmas, smallest, c)
    step, bend = b - a, (c - b) - (b - a)
    length = np.sqrt(np.sum(step * step)) / max(np.sqrt(np.sum(bend * bend)), 1e-12)
    length = min(max(length, 1.0), longest)
    for i in range(a.size):
        a[i] += 2.0 * length * step[i] + length * length * bend[i]
    for i in range(k):
        common.means[i] = a[i] * common.sigmas[i]
        common.sigmas[i] = np.exp(a[k + i])
    for j in range(common.coef.size):
        common.coef[j] = a[2 * k + j] * smallest
