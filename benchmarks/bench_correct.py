"""The spatio-temporal vote: on full frames against shifted images, and a neighbour counted against other programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import CorrectionConfig, PhaseConfig, SamplingConfig
from gmrm_gpu.correct import Corrector, ball_rows, correct_labels
from gmrm_gpu.sampling import Sampler


def blobs(side: int, n_frames: int) -> np.ndarray:
    """(T, side * side) uint8 labels: a growing disc with 2 % of the pixels flipped."""
    rng = np.random.Generator(np.random.Philox(3))
    y, x = np.mgrid[:side, :side]
    radius = np.linspace(0.1, 0.35, n_frames)[:, None, None] * side
    labels = (np.hypot(y - side / 2, x - side / 2) < radius) ^ (rng.random((n_frames, side, side)) < 0.02)
    return labels.reshape(n_frames, -1).astype(np.uint8)


def by_shifts(volume: np.ndarray, t: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and total neighbour counts of frame `t` in the past, one shifted image per neighbour."""
    _, height, width = volume.shape
    pad = np.pad(volume, ((0, 0), (radius, radius), (radius, radius)))
    seen = np.pad(np.ones((height, width), np.int32), radius)
    foreground, total = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
    for dt in range(1, min(t, radius) + 1):
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if dt * dt + dy * dy + dx * dx <= radius * radius:
                    rows, columns = slice(radius + dy, radius + dy + height), slice(radius + dx, radius + dx + width)
                    foreground += pad[t - dt, rows, columns]
                    total += seen[rows, columns]
    return foreground, total


@pytest.mark.parametrize("radius", [5, 10])
def test_full_frame(benchmark, toy, radius):
    """The last of several frames, foreground samples only; `times_faster` is against shifted images."""
    side, n_frames = (40, 4) if toy else (512, radius + 1)
    labels = blobs(side, n_frames)
    backend = make_backend(np)
    positions = np.arange(side * side, dtype=np.int32)[None, :]

    def before_last():
        corrector = Corrector((side, side), CorrectionConfig(radius=radius), 2, 1, backend)
        for t in range(n_frames - 1):
            corrector.push(positions, labels[None, t])
        return (corrector,), {}

    done = benchmark.pedantic(
        lambda corrector: corrector.push(positions, labels[None, -1]), setup=before_last, rounds=1 if toy else 5
    )
    start = time.perf_counter()
    foreground, total = by_shifts(labels.reshape(n_frames, side, side).astype(np.int32), n_frames - 1, radius)
    baseline = time.perf_counter() - start
    share = foreground.reshape(-1) / np.maximum(total.reshape(-1), 1)
    expected = labels[-1].astype(bool) & (share >= 0.4)
    assert np.array_equal(done[0].labels[0] == 1, expected)
    benchmark.extra_info["shifted_images_s"] = baseline
    if benchmark.stats:
        benchmark.extra_info["times_faster"] = baseline / benchmark.stats["median"]


@dataclass(frozen=True)
class Movie:
    """Samples of labelled frames; the vote is the paper's: the past, a ball of radius `radius`, foreground alone."""

    side: int
    n_frames: int
    rate: float
    radius: int

    @cached_property
    def positions(self) -> np.ndarray:
        """(T, m) int32."""
        sampler = Sampler((self.side, self.side), SamplingConfig(rate=self.rate))
        draws = [sampler.draw(np.zeros(1, np.uint32), t, backend=make_backend(np)) for t in range(self.n_frames)]
        return np.concatenate([draw.positions for draw in draws])

    @cached_property
    def labels(self) -> np.ndarray:
        """(T, m) uint8."""
        return np.take_along_axis(blobs(self.side, self.n_frames), self.positions, axis=1)

    @property
    def config(self) -> CorrectionConfig:
        """Of the vote."""
        return CorrectionConfig(radius=self.radius)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Dense frames (T, side, side) uint16: which pixels are foreground, and which were visited."""
        visited, foreground = np.zeros((2, self.n_frames, self.side**2), np.uint16)
        np.put_along_axis(visited, self.positions, 1, axis=1)
        np.put_along_axis(foreground, self.positions, self.labels, axis=1)
        shape = (self.n_frames, self.side, self.side)
        return foreground.reshape(shape), visited.reshape(shape)

    def asked(self) -> np.ndarray:
        """Positions of the last frame's foreground samples."""
        return self.positions[-1][self.labels[-1] == 1]


def by_numba(movie: Movie) -> tuple[np.ndarray, float]:
    """All labels corrected by the compiled engine, and seconds: the bit maps painted, and the vote."""
    from gmrm_gpu.engines.compiled.device import CompiledDevice
    from gmrm_gpu.engines.compiled.label import paint
    from gmrm_gpu.engines.fused.correct import run_correct
    from gmrm_gpu.engines.fused.label import map_shape

    y, x = np.divmod(movie.positions.astype(np.uint32), np.uint32(movie.side))
    words, labels, shape = y << 12 | x, movie.labels.copy(), (movie.side, movie.side)
    device, maps = CompiledDevice(1), np.zeros((1, movie.n_frames, *map_shape(shape, 2)), np.uint32)
    maps[...] = 0  # pages are there
    start = time.thread_time()
    paint(0, movie.n_frames, words, False, labels, maps.reshape(movie.n_frames, -1), movie.side, 2)
    run_correct(words[None], labels[None], maps, shape, movie.config, PhaseConfig(), device=device)
    return labels, time.thread_time() - start


def by_running_sums(movie: Movie) -> tuple[np.ndarray, float]:
    """All labels corrected by array operations (the generic engine), and seconds."""
    shape, keywords = (movie.side, movie.side), {"n_phases": 2, "foreground": 1, "backend": make_backend(np)}
    start = time.thread_time()
    labels, _ = correct_labels(movie.labels[None], movie.positions[None], shape, movie.config, **keywords)
    return labels[0], time.thread_time() - start


def by_ndimage(movie: Movie) -> tuple[np.ndarray, float]:
    """Neighbours of the last frame's foreground samples, (2, n) foreground and all, and seconds."""
    images, start = movie.images(), time.thread_time()
    counts = np.zeros((2, movie.side, movie.side), np.uint16)
    for dt in range(1, min(movie.radius, movie.n_frames - 1) + 1):
        disc = np.zeros((2 * movie.radius + 1, 2 * movie.radius + 1), np.uint16)
        for dy, half in ball_rows(movie.config, dt):
            disc[movie.radius + dy, movie.radius - half : movie.radius + half + 1] = 1
        for count, image in zip(counts, images, strict=True):
            count += ndimage.correlate(image[-1 - dt], disc, mode="constant")
    return counts.reshape(2, -1)[:, movie.asked()], time.thread_time() - start


def by_tree(movie: Movie) -> tuple[np.ndarray, float]:
    """As `by_ndimage`, from trees of the samples within reach in time; growing them is part of it."""

    def points(t: int, positions: np.ndarray) -> np.ndarray:
        return np.column_stack([*np.divmod(positions, movie.side), np.full(len(positions), t)]).astype(np.float64)

    past = range(max(0, movie.n_frames - 1 - movie.radius), movie.n_frames - 1)
    chosen = [(movie.positions[t][movie.labels[t] == 1], movie.positions[t]) for t in past]
    kinds = [np.concatenate([points(t, own[i]) for t, own in zip(past, chosen, strict=True)]) for i in (0, 1)]
    asked, start = points(movie.n_frames - 1, movie.asked()), time.thread_time()
    counts = [cKDTree(kind).query_ball_point(asked, movie.radius, return_length=True) for kind in kinds]
    return np.stack(counts), time.thread_time() - start


def n_neighbours(movie: Movie) -> int:
    """Neighbours of all foreground samples of all frames, from running sums of rows."""
    _, visited = movie.images()
    sums = np.pad(visited.astype(np.int64).cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    total = 0
    for t in range(movie.n_frames):
        y, x = np.divmod(movie.positions[t][movie.labels[t] == 1], movie.side)
        for dt in range(1, min(t, movie.radius) + 1):
            for dy, half in ball_rows(movie.config, dt):
                inside = (y + dy >= 0) & (y + dy < movie.side)
                row, here = y[inside] + dy, x[inside]
                ends = (np.minimum(here + half + 1, movie.side), np.maximum(here - half, 0))
                total += int((sums[t - dt, row, ends[0]] - sums[t - dt, row, ends[1]]).sum())
    return total


def best(function: Callable[[Movie], tuple[np.ndarray, float]], movie: Movie, rounds: int) -> tuple[np.ndarray, float]:
    """What `function` returns, with the least seconds of several."""
    found = [function(movie) for _ in range(rounds)]
    return found[0][0], min(seconds for _, seconds in found)


@pytest.mark.parametrize("radius", [5, 10, 20])
@pytest.mark.parametrize("rate", [1.0, 0.1, 0.05, 0.01])
def test_a_neighbour(benchmark, toy, rate, radius):
    """Nanoseconds a neighbour counted, in `extra_info`; the same counts and labels.

    One thread each, by that thread's own clock, which other programs do not disturb.

    The engines correct a whole movie, the others count the last frame's neighbours, each divided by its own number.
    """
    pytest.importorskip("numba")
    movie = Movie(40, 4, max(rate, 0.1), min(radius, 5)) if toy else Movie(512, radius + 8, rate, radius)
    by_numba(Movie(32, 2, 0.5, radius))  # compiled
    ours, seconds = benchmark.pedantic(best, (by_numba, movie, 1 if toy else 7), rounds=1)
    labels, of_arrays = best(by_running_sums, movie, 1 if toy else 3)
    counts, of_tree = by_tree(movie)
    dense, of_images = by_ndimage(movie)
    foreground, total = counts
    kept = (foreground / np.maximum(total, 1) >= movie.config.gamma) | (total == 0)
    assert np.array_equal(ours, labels)
    assert np.array_equal(dense, counts)
    assert np.array_equal(ours[-1][movie.labels[-1] == 1] == 1, kept)
    everywhere, last = n_neighbours(movie), int(total.sum())
    found = {
        "compiled": seconds / everywhere,
        "generic": of_arrays / everywhere,
        "ndimage": of_images / last,
        "k-d tree": of_tree / last,
    }
    benchmark.extra_info["neighbours_a_sample"] = last / len(kept)
    benchmark.extra_info["ns_a_neighbour"] = {name: 1e9 * value for name, value in found.items()}
