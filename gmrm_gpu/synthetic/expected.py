"""A movie yet to be recorded, from what is expected of its phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import AnalysisConfig, MixtureConfig, PhaseConfig, check_within
from ..errors import ConfigError
from ..frames import Movie
from . import simulate


@dataclass(frozen=True)
class ExpectedPhases:
    """Phases that are expected in a movie yet to be recorded; everything else is as in the synthetic movie ``easy``.

    Parameters
    ----------
    means, sigmas : mean and standard deviation of the grey level (0 to 255) of background and particle (two numbers),
        or of electrode, electrolyte and Li (three). The last one is measured.
    shape, n_frames : (height, width) and T. peak_share : part of the frame that it covers at most; None: the usual.
    seed : of the synthetic movie.
    """

    means: Sequence[float]
    sigmas: Sequence[float]
    shape: tuple[int, int] = (256, 256)
    n_frames: int = 60
    peak_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.means) not in (2, 3):
            raise ConfigError(
                f"{len(self.means)} expected phases; give the grey levels of background and particle, or of electrode, "
                "electrolyte and Li"
            )
        if len(self.sigmas) != len(self.means):
            raise ConfigError(f"{len(self.means)} expected means and {len(self.sigmas)} sigmas; give one sigma each")
        for sigma in self.sigmas:
            check_within("sigma", sigma, 0, 128, open_low=True)

    @property
    def polarity(self) -> str:
        """On which side of the background the foreground lies."""
        return "bright" if self.means[-1] >= self.means[-2] else "dark"

    def config(self) -> AnalysisConfig:
        """Settings that suit these phases."""
        mixture = MixtureConfig(n_components=len(self.means))
        return AnalysisConfig(mixture=mixture, phases=PhaseConfig(polarity=self.polarity))

    def movie(self) -> Movie:
        """A synthetic movie of them, without calibration."""
        more: dict[str, Any] = {} if self.peak_share is None else {"peak_share": self.peak_share}
        made = simulate(
            "nanoparticles" if len(self.means) == 2 else "battery",
            shape=self.shape,
            n_frames=self.n_frames,
            seed=self.seed,
            pixel_size_um=None,
            frame_time_s=None,
            means=tuple(self.means),
            sigmas=tuple(self.sigmas),
            **more,
        )
        made.movie.name = f"expected {', '.join(f'{mean:g}' for mean in self.means)}"
        return made.movie
