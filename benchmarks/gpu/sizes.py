"""How much is measured: everything, a quick look, or just enough to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, MixtureConfig, StudyConfig
from gmrm_gpu.frames import ArrayMovie

FULL_BUDGET_S = 480.0
PATCH = 8
"""Pixels along the side of a patch of one level."""


@dataclass(frozen=True)
class Sizes:
    """Of every part.

    Attributes
    ----------
    side, n_frames, rates, replicates : of the study. repeats : of it.
    fulls : (side, frames) of movies whose full frames are fitted.
    base : replicates and rate of the runs that vary one size at a time; the factors multiply each.
    components, passes : numbers of components tried, and passes that each such fit takes.
    check_side, check_frames : of the comparison with the generic engine.
    """

    side: int = 512
    n_frames: int = 300
    rates: tuple[float, ...] = (0.1, 0.05, 0.01)
    replicates: tuple[int, ...] = (100, 200, 1000)
    repeats: int = 3
    fulls: tuple[tuple[int, int], ...] = ((512, 32), (1024, 16), (2048, 8), (4096, 4))
    base: tuple[int, float] = (80, 0.025)
    factors: tuple[int, ...] = (1, 2, 4)
    components: tuple[int, ...] = (2, 3, 4, 5, 6)
    passes: int = 40
    check_side: int = 96
    check_frames: int = 12
    trend: str = "quadratic+electrode"
    n_components: int = 4
    radius: float | None = None

    def scaled(self, budget_s: float) -> Sizes:
        """With as many frames as a smaller budget has time for."""
        part = min(1.0, budget_s / FULL_BUDGET_S)
        return replace(self, n_frames=max(12, round(self.n_frames * part)), repeats=self.repeats if part == 1 else 2)

    @property
    def analysis(self) -> AnalysisConfig:
        """Settings of every run."""
        mixture = MixtureConfig(self.n_components, self.trend)
        return AnalysisConfig(mixture, correction=CorrectionConfig(radius=self.radius), method="paper")

    @property
    def study(self) -> StudyConfig:
        """The three rates, by the method of the paper."""
        return StudyConfig(self.analysis, self.rates, self.replicates, ("paper",))


FULL = Sizes()
QUICK = Sizes(
    side=256,
    n_frames=60,
    replicates=(20, 40, 200),
    repeats=2,
    fulls=((512, 8), (1024, 4)),
    base=(20, 0.05),
    components=(2, 4, 6),
    check_side=64,
    check_frames=6,
)
TOY = Sizes(
    side=40,
    n_frames=3,
    rates=(0.2, 0.1),
    replicates=(2, 3),
    repeats=2,
    fulls=((24, 2), (32, 1)),
    base=(1, 0.1),
    factors=(1, 2),
    components=(2, 3),
    passes=3,
    check_side=40,
    check_frames=3,
    trend="linear",
    n_components=3,
    radius=3.0,
)


def growing_movie(side: int, n_frames: int, seed: int = 7) -> ArrayMovie:
    """(T, side, side) uint8: four grey levels in patches of 8 x 8, the brightest growing, on a trend, noisy.

    The patches lie at random, so that no trend can take one of the levels for illumination: fits converge as usual.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    n_patches = -(-side // PATCH)
    patches = np.kron(rng.random((n_patches, n_patches)), np.ones((PATCH, PATCH)))[:side, :side]
    trend, levels = 8 * x + 4 * x**2 - 5 * y + 3 * x * y - 2 * x**2 * y, np.array([45, 100, 135, 180], np.float32)
    frames = np.empty((n_frames, side, side), np.uint8)
    for t in range(n_frames):
        bright = 0.05 + 0.15 * (t + 1) / n_frames
        level = levels[np.digitize(patches, np.array([0.2, 0.65, 0.9]) * (1 - bright) / 0.9)]
        noise = rng.standard_normal((side, side), dtype=np.float32)
        frames[t] = np.clip(np.rint(level + trend + 9 * noise), 0, 255)
    return ArrayMovie(frames, name=f"growing-{side}")
