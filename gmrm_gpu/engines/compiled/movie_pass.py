"""One pass over the samples of a frame, whose weights come from the maps (`kernels/movie_pass.cuh`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .jit import compiled, exp2
from .movie_deposits import deposit
from .movie_maps import Strip, clear, fill, make_priors, make_strip
from .samples import aligned, standardise, unpack
from .sums import (
    BLOCK,
    LN_2,
    Model,
    Work,
    add_moments,
    find_top,
    make_basis,
    make_densities,
    make_log_densities,
    make_residuals,
    make_work,
    share_out,
)

# Smaller shares of a sample change no sum; times the least weight they are no subnormal numbers.
_LEAST_LOG2 = np.float32(-80.0)


class Scratch(NamedTuple):
    """What one thread works in.

    Attributes
    ----------
    work : see `Work`. values, x, y : (BLOCK,) float32 samples. cells : (BLOCK,) uint32, their cells.
    weights : (K,) float32 of the frame. densities : (3 K + q,) float32. strip : see `Strip`.
    maps : (2 K cells,) float32 sums and priors of the levels.
    """

    work: Work
    values: Any
    x: Any
    y: Any
    cells: Any
    weights: Any
    densities: Any
    strip: Strip
    maps: Any


def make_scratch(model: Model, columns: int, maps: np.ndarray) -> Scratch:
    """Scratch for maps of so many columns, and `maps` for the maps themselves."""
    cells, weights = aligned((BLOCK,), np.uint32), np.zeros(model.k, np.float32)
    densities, (values, x, y) = np.zeros(3 * model.k + model.q, np.float32), aligned((3, BLOCK))
    strip = make_strip(model.k, columns)
    return Scratch(make_work(model), values, x, y, cells, weights, densities, strip, maps)


@compiled
def find_cells(words, maps, cells):
    """Cells of the samples among `words`, in their order, as `unpack` finds the samples; unsigned as all places."""
    wide = words.itemsize == 8
    bits, side = (16, 0xFFFF) if wide else (12, 0xFFF)
    no_sample = ~words.dtype.type(0)
    n = 0
    for i in range(words.size):
        word = words[i]
        x, y = np.int32(word & side), np.int32((word >> bits) & side)
        cells[n] = np.uint32((y >> maps.shift) * maps.columns + (x >> maps.shift))
        n += word != no_sample


@compiled
def open_frame(maps, held, theta, weights, model, scratch):
    """Make densities from `theta` and the maps of a frame; returns (K, cells) weights in every cell.

    held : (K cells,) float32, what the other frames left; empty: every cell has the frame's weights.
    weights : (K,) float64 of the frame.
    """
    make_densities(theta, model, scratch.densities)
    for k in range(model.k):
        scratch.weights[k] = np.float32(weights[k])
    if held.size:
        shape = (model.k, maps.rows, maps.columns)
        prior = make_priors(maps, held.reshape(shape), scratch.weights, scratch.maps, scratch.strip)
        return prior.reshape((model.k, maps.rows * maps.columns))
    prior = scratch.maps[: model.k * maps.rows * maps.columns].reshape((model.k, maps.rows * maps.columns))
    for k in range(model.k):
        fill(prior, k, scratch.weights[k], prior.shape[1])
    return prior


@compiled
def _weighted_powers(resp, k, top, prior, cells, total, n):
    for i in range(n):
        below = resp[k, i] - top[i]
        power = prior[k, cells[i]] * exp2(_LEAST_LOG2 if below < _LEAST_LOG2 else below)  # NaN stays NaN
        resp[k, i] = power
        total[i] += power


@compiled
def read_block(words, height, width, units, maps, prior, model, scratch):
    """Responsibilities of at most `BLOCK` places, samples only, in scratch.work.resp.

    Returns
    -------
    (int, float)
        How many samples there are, and the sum of their log2 densities.
    """
    n = unpack(words, height, width, scratch.values, scratch.x, scratch.y)
    find_cells(words, maps, scratch.cells)
    z = scratch.values[:n]
    standardise(z, units)
    make_basis(scratch.x[:n], scratch.y[:n], model, scratch.work.basis)
    make_residuals(z, model, scratch.densities, scratch.work)
    make_log_densities(model, scratch.densities, scratch.work, n)
    find_top(model, scratch.work, n)
    for k in range(model.k):
        _weighted_powers(scratch.work.resp, k, scratch.work.top, prior, scratch.cells, scratch.work.total, n)
    return n, share_out(model, scratch.work, n)


@compiled
def frame_pass(words, shape, units, maps, prior, model, made, sums, scratch):
    """Sums and deposits of a frame.

    Parameters
    ----------
    words : (n,) samples. prior : (K, cells). made : (K cells,) int32, overwritten. sums : float64, overwritten.
    """
    clear(sums)
    clear(made)
    deposits = made.reshape(prior.shape)
    for first in range(0, words.size, BLOCK):
        mine = words[first : min(first + BLOCK, words.size)]
        n, logs = read_block(mine, shape[0], shape[1], units, maps, prior, model, scratch)
        sums[-1] += LN_2 * logs
        add_moments(model, scratch.densities, scratch.work, n, sums)
        for k in range(model.k):
            deposit(scratch.work.resp, k, scratch.cells, n, deposits)


@compiled
def pass_frames(first, last, words, shape, units, maps, mapped, held, weights, model, made, movie, scratch):
    """The E-step of frames `first` to `last`.

    Parameters
    ----------
    words : (T, n). held, made : (T, K cells); held counts if `mapped`. weights : (T, K).
    movie : `movie_steps.Movie`, whose theta is read and whose sums are written.
    """
    for t in range(first, last):
        prior = open_frame(maps, held[t] if mapped else held[t, :0], movie.theta[t], weights[t], model, scratch)
        frame_pass(words[t], shape, units, maps, prior, model, made[t], movie.sums[t], scratch)
