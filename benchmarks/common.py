"""Data that the benchmarks share: one frame like the paper's, four Gaussian phases on a quadratic trend."""

from __future__ import annotations

import numpy as np

from gmrm_gpu.backend import n_cores

TREND = "quadratic+electrode"
K = 4


def paper_like_frame(side: int, seed: int = 7) -> np.ndarray:
    """(side, side) uint8 frame with four phases of known share and the paper's five trend terms."""
    rng = np.random.Generator(np.random.Philox(seed))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    phase = rng.choice(K, size=(side, side), p=(0.2, 0.45, 0.25, 0.1))
    means, sigmas = np.array([45.0, 100.0, 135.0, 180.0]), np.array([7.0, 9.0, 9.0, 11.0])
    trend = 8 * x + 4 * x**2 - 5 * y + 3 * x * y - 2 * x**2 * y
    frame = means[phase] + sigmas[phase] * rng.standard_normal((side, side)) + trend
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def all_cores() -> str:
    """What a benchmark runs on whose threads are as many as there are cores."""
    return f"{n_cores()} CPU cores"


def subsample(frame: np.ndarray, n_samples: int, n_replicates: int, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Values (R, m) and positions (R, m) of random pixels without replacement."""
    rng = np.random.Generator(np.random.Philox(seed))
    positions = np.stack([rng.permutation(frame.size)[:n_samples] for _ in range(n_replicates)]).astype(np.int32)
    return frame.reshape(-1)[positions], positions
