"""How fast each engine of a machine analyses a movie, and how long a whole study of it takes there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

ALL_PIXELS = 1.0
"""The rate of a study's reference curve."""


def duration_text(seconds: float) -> str:
    """``"0.84 s"``, ``"42 s"``, ``"6.3 min"``, ``"1.4 h"``, ``"3.2 days"``, to two digits."""
    for least, divisor, unit in ((172800.0, 86400.0, "days"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min")):
        if seconds >= least:
            value = seconds / divisor
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


@dataclass(frozen=True)
class EngineSpec:
    """Something that analyses.

    key : ``"cpu"``, ``"compiled"``, ``"arrays"`` or ``"kernels"``. label : for people. device, library : where, and
        what runs there.
    """

    key: str
    label: str
    device: str
    library: str


@dataclass(frozen=True)
class StudyPart:
    """A part of a study: `n_replicates` of the whole movie at `rate` by `method`; the reference is rate 1, once."""

    method: str
    rate: float
    n_replicates: int


@dataclass(frozen=True)
class Speed:
    """One engine, method and rate, measured on a few frames.

    Attributes
    ----------
    engine : key of it. n_replicates, n_frames, n_pixels : fitted, pixels a frame of a replicate.
    seconds : from frames in memory to shares, by the clock on the wall.
    first_s : the first call's, compilation and loading included.
    """

    engine: str
    method: str
    rate: float
    n_replicates: int
    n_frames: int
    n_pixels: int
    seconds: float
    first_s: float

    @property
    def fits(self) -> int:
        """Frames of replicates that were analysed; by the method ``"paper"`` each is one fit."""
        return self.n_replicates * self.n_frames

    @property
    def fits_per_s(self) -> float:
        """Frames of replicates a second."""
        return self.fits / self.seconds

    @property
    def pixels_per_s(self) -> float:
        """Visited pixels a second."""
        return self.fits * self.n_pixels / self.seconds


@dataclass(frozen=True)
class StudyTime:
    """Seconds that one engine would take for a whole study, extrapolated.

    Attributes
    ----------
    seconds : in all. parts : for each (method, rate). guessed : the parts that were not measured, but taken from the
        pixels a second at the nearest rate that was.
    """

    engine: str
    seconds: float
    parts: dict[tuple[str, float], float]
    guessed: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Throughput:
    """What `measure_throughput` found.

    Attributes
    ----------
    movie : its name. shape, n_frames, dtype : of it. n_measured : its frames that were looked at.
    engines : what was measured, the slowest kind first. speeds : of every engine, method and rate that was measured.
    study : the parts of the study whose time is extrapolated, the reference curves among them.
    notes : what could not be measured and why, plain sentences. read_s : of one frame, from its file.
    provenance : versions, devices, settings, wall time.
    """

    movie: str
    shape: tuple[int, int]
    n_frames: int
    dtype: str
    n_measured: int
    engines: tuple[EngineSpec, ...]
    speeds: tuple[Speed, ...]
    study: tuple[StudyPart, ...]
    notes: tuple[str, ...] = ()
    read_s: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)

    def find(self, engine: str, method: str, rate: float) -> Speed | None:
        """The measurement, None where there is none."""
        return next((s for s in self.speeds if (s.engine, s.method, s.rate) == (engine, method, rate)), None)

    @property
    def cpu(self) -> str:
        """The CPU's best engine, which the others are compared with: what is faster than a slow loop is not fast."""
        return "compiled" if any(engine.key == "compiled" for engine in self.engines) else "cpu"

    def speed_up(self, speed: Speed) -> float:
        """Times as fast as the CPU's best engine at the same; NaN where that was not measured."""
        base = self.find(self.cpu, speed.method, speed.rate)
        return math.nan if base is None else speed.fits_per_s / base.fits_per_s

    @property
    def methods(self) -> tuple[str, ...]:
        """Of the study."""
        return tuple(dict.fromkeys(part.method for part in self.study))

    @property
    def rates(self) -> tuple[float, ...]:
        """Of the study, the highest first, without the reference."""
        return tuple(sorted({part.rate for part in self.study if part.rate < ALL_PIXELS}, reverse=True))

    def study_time(self, engine: str) -> StudyTime | None:
        """The whole study's time; None where a method was not measured at any rate."""
        parts, guessed = {}, []
        for part in self.study:
            speed = self.find(engine, part.method, part.rate)
            if speed is None:
                speed = self._nearest(engine, part)
                guessed.append((part.method, part.rate))
            if speed is None:
                return None
            scale = 1.0 if speed.rate == part.rate else part.rate / speed.rate
            parts[part.method, part.rate] = scale * part.n_replicates * self.n_frames / speed.fits_per_s
        reading = self.read_s * self.n_frames
        return StudyTime(engine, reading + sum(parts.values()), parts, tuple(guessed))

    def _nearest(self, engine: str, part: StudyPart) -> Speed | None:
        """The measurement of the same engine and method at the nearest rate."""
        found = [s for s in self.speeds if (s.engine, s.method) == (engine, part.method)]
        return min(found, key=lambda s: abs(math.log(s.rate / part.rate)), default=None)

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        names = ("movie", "shape", "n_frames", "dtype", "n_measured", "read_s", "notes", "provenance")
        return {name: getattr(self, name) for name in names} | {
            "engines": [vars(engine) for engine in self.engines],
            "measured": [
                vars(s)
                | {name: getattr(s, name) for name in ("fits_per_s", "pixels_per_s")}
                | {"speed_up": self.speed_up(s)}
                for s in self.speeds
            ],
            "study": [vars(part) for part in self.study],
            "extrapolated_study_s": {
                engine.key: None if time is None else time.seconds
                for engine in self.engines
                for time in (self.study_time(engine.key),)
            },
            "extrapolated_parts": [
                {
                    "engine": engine.key,
                    "method": method,
                    "rate": rate,
                    "s": s,
                    "guessed": (method, rate) in time.guessed,
                }
                for engine in self.engines
                for time in (self.study_time(engine.key),)
                if time is not None
                for (method, rate), s in time.parts.items()
            ],
        }
