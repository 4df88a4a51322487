"""Settings of the synthetic movies: the named difficulties, and the checks on what overrides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..config import check_choice, check_within
from ..errors import ConfigError

SCENARIOS = ("battery", "nanoparticles")
DIFFICULTIES = ("easy", "mid", "hard")
SIDES = ("left", "right", "top", "bottom")
POLARITIES = ("bright", "dark")
MIN_SIDE, MAX_SIDE, MAX_FRAMES = 16, 16384, 1_000_000

# Grey levels of 8-bit data. Battery: electrode, electrolyte, Li (METHOD.md section 6). Nanoparticles: film, particle.
_PHASES: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "battery": {
        "easy": ((45, 118, 172), (7, 9, 12)),
        "mid": ((45, 118, 158), (9, 12, 14)),
        "hard": ((60, 118, 150), (9, 13, 15)),
    },
    "nanoparticles": {
        "easy": ((62, 140), (9, 13)),
        "mid": ((64, 116), (11, 14)),
        "hard": ((66, 104), (12, 15)),
    },
}
_COMMON: dict[str, dict[str, float]] = {
    "easy": {"feature_px": 5.0, "trend": 12.0, "gain_step": 0.03},
    "mid": {"feature_px": 4.0, "trend": 16.0, "gain_step": 0.05},
    "hard": {"feature_px": 3.0, "trend": 20.0, "gain_step": 0.07},
}


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What a movie shows and how it was recorded; grey levels are those of 8-bit data, whatever ``bits`` is.

    Parameters
    ----------
    means : mean grey level of (electrode, electrolyte, Li), or of (background, particle); set by the difficulty.
    sigmas : standard deviation of the grey level in the same phases, texture included; set by the difficulty.
    feature_px : width of the thinnest features, pixels; set by the difficulty (5, 4, 3).
    n_empty : frames at the start without Li or particles; None: a tenth of the movie.
    peak_share : share of the frame that Li or particles cover at most.
    trend : largest absolute value of the intensity trend over the movie, grey levels; set by the difficulty.
    trend_drift : how far the trend changes from the first to the last frame, relative to the trend, 0 to 1.
    n_refocus : number of frames at which the operator refocuses and the contrast jumps.
    gain_step : relative change of contrast at such a frame; set by the difficulty.
    drift_px : largest displacement of the specimen, pixels.
    poisson : part of the noise variance, 0 to 1, that scales with the signal; the rest is Gaussian.
    texture : part of each phase's sigma, 0 to 0.9, that is fixed to the specimen (a mottled look).
    blur_px : standard deviation of the probe's Gaussian blur, pixels; the truth stays sharp.
    """

    means: tuple[float, ...]
    sigmas: tuple[float, ...]
    feature_px: float
    trend: float
    gain_step: float
    n_empty: int | None = None
    peak_share: float = 0.287
    trend_drift: float = 0.6
    n_refocus: int = 2
    drift_px: float = 3.0
    poisson: float = 0.5
    texture: float = 0.4
    blur_px: float = 0.0

    def __post_init__(self) -> None:
        for name, high in (("means", 255), ("sigmas", 128)):
            values = _numbers(name, getattr(self, name), self.n_phases)
            for value in values:
                check_within(name, value, 0, high)
            object.__setattr__(self, name, tuple(float(value) for value in values))
        check_within("feature_px", self.feature_px, 1, 64)
        check_within("trend", self.trend, 0, 128)
        check_within("gain_step", self.gain_step, 0, 0.5)
        check_within("peak_share", self.peak_share, 0, 0.6, open_low=True)
        check_within("trend_drift", self.trend_drift, 0, 1)
        _integer("n_refocus", self.n_refocus, 0, 100)
        check_within("drift_px", self.drift_px, 0, 64)
        check_within("poisson", self.poisson, 0, 1)
        check_within("texture", self.texture, 0, 0.9)
        check_within("blur_px", self.blur_px, 0, 10)

    @property
    def n_phases(self) -> int:
        """Number of phases whose means and sigmas are given."""
        return 3

    @property
    def truth_of_phase(self) -> tuple[int, ...]:
        """Truth label of each entry of `means`."""
        return (1, 0, 2)


@dataclass(frozen=True, kw_only=True)
class BatteryOptions(SceneOptions):
    """`SceneOptions` and what only the battery has.

    Parameters
    ----------
    side : edge of the frame at which the electrode enters.
    electrode_radius : radius of the electrode's half disc relative to the smaller side of the frame.
    dead_share : part of the peak Li that is left, detached, at the end.
    whiskers : number of thin dendrites at the peak.
    sei : brightness of the ring that forms around the electrode, in sigmas of the electrolyte (0: no ring).
    """

    side: str = "left"
    electrode_radius: float = 0.27
    dead_share: float = 0.1
    whiskers: int = 14
    sei: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("side", self.side, SIDES)
        check_within("electrode_radius", self.electrode_radius, 0.05, 0.45)
        check_within("dead_share", self.dead_share, 0, 1)
        _integer("whiskers", self.whiskers, 0, 1000)
        check_within("sei", self.sei, 0, 5)


@dataclass(frozen=True, kw_only=True)
class ParticleOptions(SceneOptions):
    """`SceneOptions` and what only the nanoparticles have.

    Parameters
    ----------
    polarity : ``"bright"`` particles on a dark film (HAADF), or ``"dark"`` on a bright film (bright field); it
        mirrors the difficulty's means, not means that are given.
    n_particles : number of nuclei; None: as many as reach `peak_share` at the usual size.
    """

    peak_share: float = 0.22
    polarity: str = "bright"
    n_particles: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("polarity", self.polarity, POLARITIES)
        if self.n_particles is not None:
            _integer("n_particles", self.n_particles, 1, 5000)

    @property
    def n_phases(self) -> int:
        return 2

    @property
    def truth_of_phase(self) -> tuple[int, ...]:
        return (0, 2)


def scene_options(scenario: str, difficulty: str, overrides: dict[str, Any]) -> BatteryOptions | ParticleOptions:
    """Options of a scenario at a difficulty, with `overrides` in place of its values."""
    check_choice("scenario", scenario, SCENARIOS)
    check_choice("difficulty", difficulty, DIFFICULTIES)
    kind: type[BatteryOptions] | type[ParticleOptions]
    kind = BatteryOptions if scenario == "battery" else ParticleOptions
    known = [f.name for f in fields(kind)]
    for name in overrides:
        if name not in known:
            raise ConfigError(f"{name!r} is no option of the {scenario} scenario; options: {', '.join(known)}")
    means, sigmas = _PHASES[scenario][difficulty]
    if overrides.get("polarity") == "dark":
        means = tuple(220 - mean for mean in means)
    return kind(**{"means": means, "sigmas": sigmas, **_COMMON[difficulty], **overrides})


def check_movie(shape: Any, n_frames: Any, seed: Any, bits: Any) -> tuple[int, int, int, int]:
    """Height, width, number of frames and seed as int; raises `ConfigError` for any of the four arguments."""
    height, width = (_integer("shape", side, MIN_SIDE, MAX_SIDE) for side in _numbers("shape", shape, 2))
    if bits not in (8, 16):
        raise ConfigError(f"bits is {bits!r}; use 8 or 16")
    return height, width, _integer("n_frames", n_frames, 1, MAX_FRAMES), _integer("seed", seed, 0, 2**63 - 1)


def n_empty_frames(options: SceneOptions, n_frames: int) -> int:
    """Number of frames at the start without Li or particles."""
    if options.n_empty is None:
        return round(0.1 * n_frames)
    return _integer("n_empty", options.n_empty, 0, n_frames)


def _numbers(name: str, values: Any, count: int) -> tuple[Any, ...]:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str) or len(values) != count:
        raise ConfigError(f"{name} is {values!r}; give {count} numbers")
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    number = int(value) if isinstance(value, np.integer) else value
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")
    return number
