"""Random fields and arrival times from which the scenes are made."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

# Steps to 16 neighbours (each with its opposite): arrival times are then within 3 % of isotropic.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))

GEOMETRY, RECORDING, NOISE = 1, 2, 3


def stream(seed: int, purpose: int, frame: int = 0) -> np.random.Generator:
    """The random numbers of one purpose and frame: a pure function of the three."""
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, frame], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float] | float) -> np.ndarray:
    """Gaussian noise of `shape`, smoothed with a Gaussian of sd `scale` (rows, columns; periodic), mean 0, sd 1."""
    rows, columns = (scale, scale) if isinstance(scale, (int, float)) else scale
    white = rng.standard_normal(shape, dtype=np.float32)
    fy = fft.fftfreq(shape[0])[:, None] * rows
    fx = fft.rfftfreq(shape[1])[None, :] * columns
    spectrum = fft.rfft2(white) * np.exp(-2 * np.pi**2 * (fy**2 + fx**2)).astype(np.float32)
    field = fft.irfft2(spectrum, s=shape)
    field -= field.mean()
    spread = float(field.std())
    return field / spread if spread > 0 else field


def smooth_path(rng: np.random.Generator, n: int, n_waves: int = 4) -> np.ndarray:
    """(n,) random smooth curve that starts at 0 and reaches at most 1 in absolute value."""
    time = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
    waves = np.arange(1, n_waves + 1)
    phase = rng.uniform(0, 2 * np.pi, n_waves)
    size = rng.normal(size=n_waves) / waves**1.5
    path = (size * (np.sin(np.pi * np.outer(time, waves) + phase) - np.sin(phase))).sum(axis=1)
    largest = np.abs(path).max()
    return path / largest if largest > 0 else path


def arrival_time(slowness: np.ndarray, domain: np.ndarray, sources: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """Time at which a front from `sources` reaches each pixel of `domain`, infinite elsewhere.

    First-passage times on the pixel grid: the front needs ``slowness`` time units a pixel, and leaves a source
    after its ``delay``. What has been reached at some time hangs together with the sources, all but single pixels.

    Parameters
    ----------
    slowness, delay : (H, W) positive.
    domain, sources : (H, W) bool; the front runs only inside the domain, and sources outside it are ignored.
    """
    height, width = slowness.shape
    index = np.arange(height * width).reshape(height, width)
    starts, ends, costs = [], [], []
    for dy, dx in _STEPS:
        cells = [_shifted((height, width), (dy, dx), cell) for cell in _crossed(dy, dx)]
        inside = np.logical_and.reduce([domain[cell] for cell in cells])
        starts.append(index[cells[0]][inside])
        ends.append(index[cells[-1]][inside])
        costs.append(np.hypot(dy, dx) * np.mean([slowness[cell][inside] for cell in cells], axis=0))
    first = index[sources & domain]
    starts.append(np.full(first.size, height * width))
    ends.append(first)
    costs.append(delay[sources & domain])
    i, j, cost = np.concatenate(starts), np.concatenate(ends), np.concatenate(costs)
    graph = coo_matrix((np.maximum(cost, 1e-9), (i, j)), shape=(height * width + 1,) * 2).tocsr()
    time = dijkstra(graph, directed=False, indices=height * width)
    return time[:-1].reshape(height, width)


def _crossed(dy: int, dx: int) -> list[tuple[int, int]]:
    """Pixels that a step touches, from its start to its end; a knight's step crosses two others."""
    if max(dy, abs(dx)) < 2:
        return [(0, 0), (dy, dx)]
    sign = 1 if dx > 0 else -1
    between = [(0, sign), (1, sign)] if dy == 1 else [(1, 0), (1, sign)]
    return [(0, 0), *between, (dy, dx)]


def _shifted(shape: tuple[int, int], step: tuple[int, int], cell: tuple[int, int]) -> tuple[slice, slice]:
    """Slices that pick, for every start from which `step` stays inside, the pixel `cell` away from it."""
    (height, width), (dy, dx) = shape, step
    left = max(0, -dx)
    return slice(cell[0], cell[0] + height - dy), slice(left + cell[1], left + cell[1] + width - abs(dx))


def rank(values: np.ndarray) -> np.ndarray:
    """Rank (0, 1, ...) of each finite value among them, as int64; the others get the largest int64."""
    flat = values.ravel()
    finite = np.flatnonzero(np.isfinite(flat))
    ranks = np.full(flat.size, np.iinfo(np.int64).max)
    ranks[finite[np.argsort(flat[finite], kind="stable")]] = np.arange(finite.size)
    return ranks.reshape(values.shape)
