"""Labels the samples of finished fits (``kernels/label.cu``): phases, the foreground's posterior, counts, bit maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...classify import NOT_VISITED
from ...results import FitStatus
from .blocks import run_blocks
from .density import (
    Trend,
    exactly_likeliest,
    make_densities,
    make_log_densities,
    make_powers,
    make_scratch,
)
from .jit import compiled, exactly, exp2, float_of_bits
from .phases import PhaseRule, foreground_bits, phases_of
from .philox import shifted
from .sums import BLOCK
from .words import NO_SAMPLE, as_words, column, row

if TYPE_CHECKING:
    from .device import Call

_UNUSABLE = int(FitStatus.DEGENERATE)
_NOT_VISITED, _LOWEST = np.uint8(NOT_VISITED), np.float32(-3e38)
_ZERO, _ONE, _FIRST, _BIT = np.float32(0.0), np.float32(1.0), np.uint32(0), np.uint32(1)


def label(
    call: Call,
    samples,
    weights,
    means,
    sigmas,
    coef,
    status,
    labels,
    posterior,
    n_foreground,
    maps,
    m,
    length,
    chunks,
    height,
    width,
    n_phases,
    *rule,
) -> None:
    """See ``label.cu``: blocks of `length` samples, `chunks` a fit; rule : as `phases.PhaseRule`."""
    n_fits, wide = status.size, samples.itemsize == 8
    words, out, sums = as_words(samples), labels.reshape(n_fits, -1), posterior.reshape(-1)
    trend = Trend(call.integers("TERM_X"), call.integers("TERM_Y"), int(height), int(width))
    fits = (weights, means, sigmas, coef)
    asked, found = PhaseRule(*(number.item() for number in rule)), np.zeros(n_fits * int(chunks), np.int32)
    sizes, states = (int(m), int(length), int(chunks)), status.reshape(-1)

    def work(start: int, stop: int) -> None:
        _label_blocks(start, stop, words, wide, fits, states, trend, asked, sizes, out, sums, found)

    run_blocks(call.pool, work, found.size, min(sizes[:2]))
    n_foreground += found.reshape(*n_foreground.shape, -1).sum(axis=-1, dtype=np.int32)
    if maps is not None:
        images = maps.reshape(n_fits, -1)
        run_blocks(call.pool, lambda a, b: paint(a, b, words, wide, out, images, int(height), int(n_phases)), n_fits, m)


class Choice(NamedTuple):
    """Of a block, (BLOCK,) each: likeliest components, the two largest densities, the foreground's posterior."""

    best: np.ndarray
    top: np.ndarray
    second: np.ndarray
    whole: np.ndarray
    part: np.ndarray


@compiled
def _make_choice():
    top, second, whole = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    return Choice(np.empty(BLOCK, np.uint32), top, second, whole, np.empty(BLOCK, np.float32))


@compiled
def _label_blocks(start, stop, words, wide, fits, status, trend, rule, sizes, labels, posterior, found):
    (m, length, chunks), (weights, means, sigmas, coef) = sizes, fits
    n_components = weights.shape[1]
    scratch, choice = make_scratch(n_components), _make_choice()
    for block in range(start, stop):
        fit, begin = block // chunks, block % chunks * length
        end = min(begin + length, m)
        if status[fit] >= _UNUSABLE:
            labels[fit, begin:end] = _NOT_VISITED
            posterior[block] = np.nan
            continue
        chosen = foreground_bits(rule, weights[fit], means[fit], sigmas[fit])
        phases = phases_of(rule, chosen, n_components)
        density = make_densities(weights[fit], means[fit], sigmas[fit], coef[fit])
        total = 0.0
        for at in range(begin, end, BLOCK):
            n = min(BLOCK, end - at)
            part = words[fit, at * (1 + wide) : (at + n) * (1 + wide)]
            _unpack(part, wide, trend, scratch, n)
            make_log_densities(trend, density, scratch, n)
            _choose(scratch.density, choice, n)
            _settle(part, wide, trend, density, choice, n)
            _weigh(scratch.density, chosen, choice, n)
            out = labels[fit, at : at + n]
            found[block] += _write(part, wide, choice, np.uint32(phases), rule.foreground, out)
            total += _sum(part, wide, choice, n)
        posterior[block] = total


@exactly
def _unpack(words, wide, trend, scratch, n):
    """Values, and the powers of the scaled coordinates."""
    values, of_x, of_y = scratch.values, scratch.of_x, scratch.of_y
    step_x = np.float32(2.0 / max(trend.width - 1, 1))
    step_y = np.float32(2.0 / max(trend.height - 1, 1))
    first_x, first_y = np.float32(-(trend.width > 1)), np.float32(-(trend.height > 1))
    if wide:
        for i in range(n):
            word = words[np.uint32(2 * i)]
            values[i] = float_of_bits(np.int32(words[np.uint32(2 * i + 1)]))
            of_x[1, i] = np.float32(np.int32(column(word, True))) * step_x + first_x
            of_y[1, i] = np.float32(np.int32(row(word, True))) * step_y + first_y
    else:
        for i in range(n):
            word = words[i]
            values[i] = np.float32(np.int32(word >> np.uint32(24)))
            of_x[1, i] = np.float32(np.int32(column(word, False))) * step_x + first_x
            of_y[1, i] = np.float32(np.int32(row(word, False))) * step_y + first_y
    make_powers(of_x, n)
    make_powers(of_y, n)


@exactly
def _choose(density, choice, n):
    """The first component of largest density, the largest and the second."""
    best, top, second = choice.best, choice.top, choice.second
    for i in range(n):
        best[i], top[i], second[i] = _FIRST, density[0, i], _LOWEST
    for k in range(1, density.shape[0]):
        number = np.uint32(k)
        for i in range(n):
            here, highest = density[k, i], top[i]
            lower = highest if here > highest else here
            second[i] = lower if lower > second[i] else second[i]
            best[i] = number if here > highest else best[i]
            top[i] = here if here > highest else highest


@exactly
def _settle(words, wide, trend, fit, choice, n):
    """Where two components are so near that float32 may misplace them, float64 decides."""
    slack, slope = np.float32(fit.bounds[1]), np.float32(fit.bounds[2])
    best, top, second, near = choice.best, choice.top, choice.second, 0
    for i in range(n):
        near += top[i] - second[i] <= slack - slope * second[i]
    if near == 0 or len(fit.level) == 1:
        return
    for i in range(n):
        if top[i] - second[i] <= slack - slope * second[i]:
            word = words[i * (1 + wide)]
            value = float_of_bits(np.int32(words[2 * i + 1])) if wide else np.float32(word >> np.uint32(24))
            x, y = np.float64(column(word, wide)), np.float64(row(word, wide))
            best[i] = exactly_likeliest(trend, fit, np.float64(value), x, y)


@compiled
def _weigh(density, chosen, choice, n):
    """Odds against the likeliest: of all components, and of the foreground's."""
    top, whole, part = choice.top, choice.whole, choice.part
    for i in range(n):
        whole[i], part[i] = _ZERO, _ZERO
    for k in range(density.shape[0]):
        counts = _ONE if chosen >> k & 1 else _ZERO
        for i in range(n):
            odds = exp2(density[k, i] - top[i])
            whole[i] += odds
            part[i] += counts * odds


@compiled
def _sum(words, wide, choice, n):
    """Sum of the foreground's posterior over the samples, float64."""
    whole, part, total = choice.whole, choice.part, 0.0
    step = np.uint32(1 + wide)
    for i in range(n):
        share = part[i] / whole[i]
        total += np.float64(share if words[np.uint32(i) * step] != NO_SAMPLE else _ZERO)
    return total


@compiled
def _write(words, wide, choice, phases, foreground, labels):
    """Labels of a block; returns how many are foreground."""
    best, step, found = choice.best, np.uint32(1 + wide), 0
    for i in range(len(labels)):
        phase = np.uint8(shifted(phases, best[i] << np.uint32(2)) & np.uint32(15))
        here = phase if words[np.uint32(i) * step] != NO_SAMPLE else _NOT_VISITED
        labels[i] = here
        found += here == foreground
    return found


@compiled
def paint(start, stop, words, wide, labels, maps, height, n_phases):
    """The bit maps of fits, see ``maps.cuh``; maps : (F, words * height * phases)."""
    for fit in range(start, stop):
        for j in range(labels.shape[1]):
            phase = labels[fit, j]
            if phase != _NOT_VISITED:
                word = words[fit, j * (1 + wide)]
                x, y = column(word, wide), row(word, wide)
                place = (np.int64(x >> np.uint32(5)) * height + np.int64(y)) * n_phases + phase
                maps[fit, place] |= _BIT << (x & np.uint32(31))
