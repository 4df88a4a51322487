"""The residual histogram: components settle at a trend without a pass (METHOD.md 3), as in `kernels/histogram.cuh`.

What the sums over the bins lack where a pass has been is added everywhere, so the fixed point is that of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .cycle import (
    DEGENERATE,
    MAX_ITER,
    RUNNING,
    Fit,
    advance_cycle,
    begin_cycles,
    copy_point,
    end_fit,
    make_fit,
)
from .jit import compiled, double_of_bits, exactly, inlined
from .step import MIN_COUNT
from .sums import BLOCK, NO_COMPONENT, Model, make_basis, make_densities, make_residuals

PARTS = 64
"""A sample is shared between the two bins beside it, in so many parts."""
REACH = 6.0
"""The bins end so many sigmas beyond the means."""
COARSE = 0.5
"""Bins wider than this part of the smallest sigma tell too little."""
MOST_STEPS = 300
"""Steps on the bins for one on the samples."""
MOST_REFUSED = 3
"""So often a histogram may lead downhill."""
GAIN = 0.01
"""Of the tolerance: what counts as a gain on the bins."""
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG2_E, _LN_2, _LOWEST = math.log2(math.e), math.log(2.0), -700.0
_C = tuple(1.0 / math.factorial(i) for i in range(14))

GRID = np.dtype([(name, np.float64) for name in ("low", "width", "lowest", "highest")] + [("fine", np.bool_)])
"""First centre and width of the bins, whether they are narrow enough; lowest and highest value, standardised."""


class Histogram(NamedTuple):
    """What the histogram of one fit keeps.

    Attributes
    ----------
    trend : the model with the monomials of the trend alone. fit : its own cycles, whose coefficients never change.
    grid : (1,) of `GRID`. here : (3 K + q,) where the pass was. missing : (3, K) what sums of w, w r, w r^2 over the
        bins lack. sums : (3 K + 1,) of w, w d, w d^2, and the log-likelihood.
    parts : (chunks, bins) int64, of each chunk's samples. times : (bins,) how often each counts. centres, resp :
        (bins,), (K + 2, bins), scratch.
    """

    trend: Any
    fit: Any
    grid: Any
    here: Any
    missing: Any
    sums: Any
    parts: Any
    times: Any
    centres: Any
    resp: Any


def make_histogram(model: Model, n_chunks: int, n_bins: int) -> Histogram:
    """Room for the histogram of a fit in so many chunks."""
    k = model.k
    return Histogram(
        trend=_trend_of(model),
        fit=make_fit(model),
        grid=np.zeros(1, GRID),
        here=np.zeros(3 * k + model.q),
        missing=np.zeros((3, k)),
        sums=np.zeros(3 * k + 1),
        parts=np.zeros((n_chunks, n_bins), np.int64),
        times=np.zeros(n_bins),
        centres=np.zeros(n_bins),
        resp=np.zeros((k + 2, n_bins)),
    )


def _trend_of(model: Model) -> Model:
    """The model without monomials that are only products of terms."""
    steps, needed = model.steps.tolist(), set(range(1, model.q + 1))
    for row, parent, _ in reversed(steps):  # parents come before their children
        if row in needed:
            needed.add(parent)
    kept = [step for step in steps if step[0] in needed]
    return model._replace(steps=np.array(kept, dtype=np.int64).reshape(-1, 3))


@inlined
def _exp(x: Any) -> Any:
    """e^x of a float64 that is at most 0, within 1e-14; below -700 as there. By hand, as `jit.exp2`, for vectors."""
    x = max(x, _LOWEST)
    whole = np.int32(x * _LOG2_E - 0.5)  # towards 0, hence to the nearest
    f = x - np.float64(whole) * _LN_2
    p = _C[13] * f + _C[12]
    p = p * f + _C[11]
    p = p * f + _C[10]
    p = p * f + _C[9]
    p = p * f + _C[8]
    p = p * f + _C[7]
    p = p * f + _C[6]
    p = p * f + _C[5]
    p = p * f + _C[4]
    p = p * f + _C[3]
    p = p * f + _C[2]
    p = p * f + 1.0
    p = p * f + 1.0
    return p * double_of_bits((np.int64(whole) + np.int64(1023)) << np.int64(52))


@inlined
def _log(x: Any) -> Any:
    """log of a float64 from 1 to 6, within 1e-15, for vectors: of a power of two, and 2 artanh u of the rest."""
    halves = (1.0 if x >= 1.5 else 0.0) + (1.0 if x >= 3.0 else 0.0)
    m = x * (1.0 if x < 1.5 else 0.5 if x < 3.0 else 0.25)
    u = (m - 1.0) / (m + 1.0)
    s = u * u
    p = s * (1.0 / 21.0) + 1.0 / 19.0
    p = p * s + 1.0 / 17.0
    p = p * s + 1.0 / 15.0
    p = p * s + 1.0 / 13.0
    p = p * s + 1.0 / 11.0
    p = p * s + 1.0 / 9.0
    p = p * s + 1.0 / 7.0
    p = p * s + 1.0 / 5.0
    p = p * s + 1.0 / 3.0
    return halves * _LN_2 + 2.0 * u * (p * s + 1.0)


@compiled
def find_extent(chunks, grid):
    """Lowest and highest standardised value of a fit."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for c in range(chunks.counts.size):
        a = c * chunks.size
        for i in range(a, a + chunks.counts[c]):
            low, high = min(low, chunks.z[i]), max(high, chunks.z[i])
    grid[0].lowest, grid[0].highest = low, high


@exactly
def make_grid(theta, model, histogram):
    """Bins at theta, within six sigmas of a mean and the range of the residuals, none yet counted."""
    grid, k_all = histogram.grid[0], model.k
    low, high, least, bend = 1e300, -1e300, 1e300, 0.0
    for k in range(k_all):
        if theta[k] > 0.5 * NO_COMPONENT:
            sigma = np.exp(theta[2 * k_all + k])
            low, high = min(low, theta[k_all + k] - REACH * sigma), max(high, theta[k_all + k] + REACH * sigma)
            least = min(least, sigma)
    for j in range(3 * k_all, theta.size):
        bend += abs(theta[j])  # no term is larger than one
    grid.low = max(low, grid.lowest - bend)
    grid.width = (min(high, grid.highest + bend) - grid.low) / (histogram.times.size - 1)
    grid.fine = 0.0 < grid.width <= COARSE * least
    make_densities(theta, model, histogram.fit.densities)


@compiled
def count_parts(first, last, model, chunks, histogram, work):
    """Count the samples of chunks first..last - 1 by the parts of a bin; their shares of the bins to parts[first]."""
    fine = np.zeros((histogram.times.size, PARTS), np.int32)
    for c in range(first, last):
        histogram.parts[c, :] = 0
        end = c * chunks.size + chunks.counts[c]
        for a in range(c * chunks.size, end, BLOCK):
            b = min(a + BLOCK, end)
            make_basis(chunks.x[a:b], chunks.y[a:b], histogram.trend, work.basis)
            make_residuals(chunks.z[a:b], model, histogram.fit.densities, work)
            _count(work.residual, b - a, histogram.grid[0], fine)
    for b in range(fine.shape[0]):
        for i in range(PARTS):
            histogram.parts[first, b] += (PARTS - i) * np.int64(fine[b, i])
            if i:
                histogram.parts[first, b + 1] += i * np.int64(fine[b, i])


@compiled
def _count(residual, n, grid, fine):
    """One more at each residual's place in `fine` (bins, PARTS)."""
    n_bins, flat = fine.shape[0], fine.reshape(-1)
    inverse, top = np.float32(PARTS / grid.width), np.float32((n_bins - 1.0) * PARTS)
    low, zero, half = np.float32(grid.low), np.float32(0.0), np.float32(0.5)
    for i in range(n):
        place = (residual[i] - low) * inverse
        residual[i] = min(place if place > zero else zero, top) + half
    for i in range(n):
        flat[np.int32(residual[i])] += np.int32(1)


@compiled
def add_parts(histogram):
    """The parts of all chunks to `times`."""
    grid = histogram.grid[0]
    for b in range(histogram.times.size):
        total = 0
        for c in range(histogram.parts.shape[0]):
            total += histogram.parts[c, b]
        histogram.times[b] = total / PARTS
        histogram.centres[b] = grid.low + b * grid.width


@compiled
def _log_densities(theta, model, centres, resp):
    """Rows 0..K-1 of `resp`; row K: the highest of each bin, row K + 1: zero."""
    k_all = model.k
    for b in range(centres.size):
        resp[k_all, b], resp[k_all + 1, b] = NO_COMPONENT, 0.0
    for k in range(k_all):
        alive = theta[k] > 0.5 * NO_COMPONENT
        level = theta[k] - theta[2 * k_all + k] - _HALF_LOG_2PI if alive else NO_COMPONENT
        inverse = np.exp(-theta[2 * k_all + k]) if alive else 0.0
        for b in range(centres.size):
            scaled = (centres[b] - theta[k_all + k]) * inverse
            resp[k, b] = level - 0.5 * scaled * scaled
            resp[k_all, b] = max(resp[k_all, b], resp[k, b])


@compiled
def sum_bins(theta, model, histogram):
    """All of histogram.sums at theta."""
    k_all, resp, centres, times = model.k, histogram.resp, histogram.centres, histogram.times
    _log_densities(theta, model, centres, resp)
    for k in range(k_all):
        for b in range(centres.size):
            resp[k, b] = _exp(resp[k, b] - resp[k_all, b])
            resp[k_all + 1, b] += resp[k, b]
    value = 0.0
    for b in range(centres.size):
        value += times[b] * (resp[k_all, b] + _log(resp[k_all + 1, b]))
        resp[k_all + 1, b] = times[b] / resp[k_all + 1, b]
    for k in range(k_all):
        count = first = second = 0.0
        for b in range(centres.size):
            w, deviation = resp[k, b] * resp[k_all + 1, b], centres[b] - theta[k_all + k]
            count += w
            first += w * deviation
            second += w * deviation * deviation
        histogram.sums[k], histogram.sums[k_all + k], histogram.sums[2 * k_all + k] = count, first, second
    histogram.sums[3 * k_all] = value


@exactly
def make_missing(sums, model, histogram):
    """What the bins' sums at histogram.here lack of those of the pass there, about zero instead of the means."""
    k_all, p, q = model.k, model.p, model.q
    for k in range(k_all):
        own = histogram.here[k_all + k]
        mean = np.float64(np.float32(own))  # as the pass took it
        at = k * (p + q + 2)
        count, dev, second = sums[at], sums[at + p], sums[at + p + q + 1]
        binned, first, square = histogram.sums[k], histogram.sums[k_all + k], histogram.sums[2 * k_all + k]
        histogram.missing[0, k] = count - binned
        histogram.missing[1, k] = dev + mean * count - (first + own * binned)
        lacked = second + mean * (2.0 * dev + mean * count)
        histogram.missing[2, k] = lacked - (square + own * (2.0 * first + own * binned))


@exactly
def _bin_step(model, histogram, floor):
    """What is maximised at the inner theta, whose sums are there; its M-step to follow.

    The log-likelihood of the bins, and that of what they lack as if its components were known.
    """
    fit, missing, sums, k_all = histogram.fit, histogram.missing, histogram.sums, model.k
    value, held = sums[3 * k_all], 0.0
    copy_point(fit.theta, fit.follow)
    for k in range(k_all):
        fit.follow[k] = NO_COMPONENT
        if not fit.theta[k] > 0.5 * NO_COMPONENT:
            continue
        mean, log_sigma, lacked = fit.theta[k_all + k], fit.theta[2 * k_all + k], missing[0, k]
        dev = missing[1, k] - mean * lacked
        square = missing[2, k] - mean * (missing[1, k] + dev)
        value += lacked * (fit.theta[k] - log_sigma) - 0.5 * np.exp(-2.0 * log_sigma) * square
        count = sums[k] + lacked
        if not count >= MIN_COUNT:
            continue
        shift = (sums[k_all + k] + dev) / count
        variance = (sums[2 * k_all + k] + square) / count - shift * shift
        variance = floor * floor if variance <= floor * floor else variance  # NaN stays NaN
        fit.follow[k], held = np.log(count), held + count
        fit.follow[k_all + k] = mean + shift
        fit.follow[2 * k_all + k] = 0.5 * np.log(variance)
    for k in range(k_all):
        if fit.follow[k] > 0.5 * NO_COMPONENT:
            fit.follow[k] -= np.log(max(held, 1.0))
    return value


@exactly
def converge_bins(target, floor, gain, model, histogram):
    """Settle the components of `target`, in place; the bins are those of its trend."""
    fit = histogram.fit
    copy_point(target, fit.theta)
    begin_cycles(fit, model)
    state = fit.state[0]
    state.floor = floor
    while state.status == RUNNING:
        sum_bins(fit.theta, model, histogram)
        value = _bin_step(model, histogram, floor)
        state.n_iter += 1
        if not np.isfinite(value) and state.phase != 2:
            end_fit(fit, value, DEGENERATE)
        else:
            advance_cycle(fit, value, gain, model)
        if state.status == RUNNING and state.n_iter >= MOST_STEPS:
            state.status = MAX_ITER
    sound = True
    for i in range(target.size):
        sound = sound and np.isfinite(fit.last[i])
    for k in range(model.k):  # only a step on the samples may drop a component
        sound = sound and (fit.last[k] > 0.5 * NO_COMPONENT or target[k] <= 0.5 * NO_COMPONENT)
    if sound:
        copy_point(fit.last, target)


def settle(fit: Fit, tol: float, model: Model, histogram: Histogram, count: Callable[[], None]) -> None:
    """After a pass at histogram.here, settle the point that comes next, where the fit gains and nothing was taken back.

    count : calls `count_parts` for all chunks, on one thread or on several.
    """
    state = fit.state[0]
    known = bool(state["settled"])
    wanted = state["status"] == RUNNING and state["phase"] != 0 and state["quiet"] == 0
    state["settled"] = 0
    if not wanted or state["refused"] >= MOST_REFUSED:
        return
    if not known and not _fill(histogram.here, model, histogram, count):
        return
    sum_bins(histogram.here, model, histogram)
    make_missing(fit.sums, model, histogram)
    if not _fill(fit.theta, model, histogram, count):
        return
    converge_bins(fit.theta, state["floor"], GAIN * tol * state["n"], model, histogram)
    make_densities(fit.theta, model, fit.densities)
    state["settled"] = 1


def _fill(theta: np.ndarray, model: Model, histogram: Histogram, count: Callable[[], None]) -> bool:
    """Bins of all samples at the trend of theta; False where they would be too coarse."""
    make_grid(theta, model, histogram)
    if not histogram.grid["fine"][0]:
        return False
    count()
    add_parts(histogram)
    return True
