"""The spatio-temporal vote on full frames, against the plain loop over neighbours with array shifts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import CorrectionConfig
from gmrm_gpu.correct import Corrector


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
