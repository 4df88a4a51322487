"""The settings of each stage of an analysis, as frozen dataclasses that check themselves."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass

from ..errors import ConfigError

TREND_PRESETS: dict[str, tuple[tuple[int, int], ...]] = {
    "none": (),
    "linear": ((1, 0), (0, 1)),
    "quadratic": ((1, 0), (0, 1), (2, 0), (0, 2)),
    "linear+electrode": ((1, 0), (0, 1), (1, 1)),
    "quadratic+electrode": ((1, 0), (2, 0), (0, 1), (1, 1), (2, 1)),
}
SCHEDULES = ("fast", "reference")
STARTS = ("quantile", "spread", "kmeans++")
PHASE_RULES = ("auto", "brightest", "darkest", "separated")
POLARITIES = ("bright", "dark", "both")
METRICS = ("l1", "l2")
WINDOWS = ("past", "past+current", "symmetric", "spatial")
SIDES = ("foreground", "both")
SCHEMES = ("fixed", "bernoulli", "stratified", "lines")
ESTIMATORS = ("count", "posterior", "assisted", "smoothed")
GEOMETRIES = ("slab", "revolution")
DEVICES = ("auto", "cpu", "gpu")
ENGINES = ("auto", "fused", "compiled", "generic")
DTYPES = ("float32", "float64")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; use one of {', '.join(allowed)}")


def check_within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Raise `ConfigError` unless `value` is a finite number in [low, high], or (low, high] with `open_low`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value > high or value < low or (open_low and value == low):
        raise ConfigError(f"{name} is {value!r}; it must lie in {'(' if open_low else '['}{low:g}, {high:g}]")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Raise `ConfigError` unless `value` is an int in [low, high]."""
    if not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}; it must be a whole number (int) in [{low}, {high}]")
    check_within(name, value, low, high)


def trend_terms(trend: str | tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Exponents (a, b) of the monomials x^a y^b of a trend preset, or of an explicit list such as ``"x,y,x2y"``.

    METHOD.md section 1: a + b <= 4, no constant term.
    """
    if isinstance(trend, str):
        if trend in TREND_PRESETS:
            return TREND_PRESETS[trend]
        return _check_terms(tuple(_monomial(term) for term in trend.split(",")))
    try:
        terms = tuple((operator.index(a), operator.index(b)) for a, b in trend)
    except (TypeError, ValueError):
        raise ConfigError(
            f"trend is {trend!r}; use a preset, text such as x,y,x2y, or exponents such as [[1, 0], [0, 1]]"
        ) from None
    return _check_terms(terms)


def _monomial(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(?:x\^?(\d)?)?(?:y\^?(\d)?)?", text.strip().replace("*", ""))
    if not match or not text.strip():
        raise ConfigError(
            f"trend term {text!r} is not a monomial such as x, y2 or x2y; presets: {', '.join(TREND_PRESETS)}"
        )
    a = int(match[1] or 1) if "x" in text else 0
    b = int(match[2] or 1) if "y" in text else 0
    return a, b


def _check_terms(terms: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    if len(set(terms)) != len(terms):
        raise ConfigError(f"trend {terms} names a term twice")
    for a, b in terms:
        if a < 0 or b < 0 or not 1 <= a + b <= 4:
            raise ConfigError(f"trend term x^{a} y^{b} is outside 1 <= a + b <= 4 (a constant is in the means)")
    return terms


@dataclass(frozen=True)
class MixtureConfig:
    """The Gaussian mixture regression of one frame and how it is fitted (METHOD.md 1-4).

    Parameters
    ----------
    n_components : K, 1 to 6.
    trend : preset name, ``"x,y,x2y"``, or exponents; see `trend_terms`.
    schedule : ``"fast"`` (joint solve with SQUAREM) or ``"reference"`` (plain ECM); same fixed point.
    histogram : let weights, means and sigmas settle on a histogram of the residuals between passes (METHOD.md 3): the
        same optimum in a fraction of the passes. It pays for full frames, from about 100,000 samples a fit; in the
        compiled engine from about 20,000. Schedule ``"fast"`` only; the method ``"movie"`` makes no use of it.
    tol : gain of the log-likelihood per sample below which a fit has converged.
    max_iter : passes over the samples before a fit is given up as `FitStatus.MAX_ITER`.
    starts : which starts are tried; the best after `n_start_iter` passes is converged.
    sigma_floor : smallest sigma, grey levels; None: the quantisation step / sqrt(12).
    drift : method ``"movie"``: scale of the random walk that each frame's trend, offset and contrast may take away from
        the movie's; 0: none.
    trend_prior : standard deviation, grey levels, of a zero-mean normal prior on every trend coefficient, so that a
        trend does not take up a phase; None: no prior.
    """

    n_components: int = 4
    trend: str | tuple[tuple[int, int], ...] = "quadratic+electrode"
    schedule: str = "fast"
    tol: float = 1e-8
    max_iter: int = 2000
    starts: tuple[str, ...] = STARTS
    n_start_iter: int = 9
    sigma_floor: float | None = None
    drift: float = 1.0
    trend_prior: float | None = None
    histogram: bool = False

    def __post_init__(self) -> None:
        terms = trend_terms(self.trend)
        if not isinstance(self.trend, str):
            object.__setattr__(self, "trend", terms)
        starts = self.starts.split(",") if isinstance(self.starts, str) else self.starts
        object.__setattr__(self, "starts", tuple(starts))
        check_whole("n_components", self.n_components, 1, 6)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_within("tol", self.tol, 0, 1, open_low=True)
        check_whole("max_iter", self.max_iter, 1, 10**7)
        if not self.starts:
            raise ConfigError(f"starts is empty; name one or more of {', '.join(STARTS)}")
        for start in self.starts:
            check_choice("starts", start, STARTS)
        if not isinstance(self.histogram, bool):
            raise ConfigError(f"histogram is {self.histogram!r}; use true or false")
        if self.histogram and self.schedule != "fast":
            raise ConfigError(f"histogram goes with the schedule fast, not {self.schedule}; leave one of them out")
        check_whole("n_start_iter", self.n_start_iter, 1, 10**4)
        if self.sigma_floor is not None:
            check_within("sigma_floor", self.sigma_floor, 0, math.inf, open_low=True)
        check_within("drift", self.drift, 0, 1000)
        if self.trend_prior is not None:
            check_within("trend_prior", self.trend_prior, 1e-9, 1e9)

    @property
    def terms(self) -> tuple[tuple[int, int], ...]:
        """Exponents (a, b) of the trend's monomials."""
        return trend_terms(self.trend)

    @property
    def n_terms(self) -> int:
        """q, the number of trend terms."""
        return len(self.terms)

    @property
    def n_parameters(self) -> int:
        """3K - 1 + q (METHOD.md 1)."""
        return 3 * self.n_components - 1 + self.n_terms


@dataclass(frozen=True)
class PhaseConfig:
    """From components to phases (METHOD.md 5).

    Parameters
    ----------
    phases : ``"auto"``, ``"brightest"``, ``"darkest"``, ``"separated"``, or one name per component in ascending mean,
        separated by commas (``"anode,electrolyte,electrolyte,li"``); equal names are merged. ``"auto"`` needs the
        method ``"movie"``. None: ``"auto"`` with ``"movie"``, ``"brightest"`` with ``"paper"``.
    foreground : with names, which of them is the foreground; None: the last.
    contrast : c of ``separated``: foreground is beyond c sigma of the component of largest weight.
    polarity : of ``separated`` and ``auto``: ``"bright"``, ``"dark"`` or ``"both"``.
    """

    phases: str | None = None
    foreground: str | None = None
    contrast: float = 2.5
    polarity: str = "bright"

    def __post_init__(self) -> None:
        check_choice("polarity", self.polarity, POLARITIES)
        check_within("contrast", self.contrast, 0, 100, open_low=True)
        if not self.is_named:
            if self.phases is not None and self.phases not in PHASE_RULES:
                raise ConfigError(
                    f"phases is {self.phases!r}; use one of {', '.join(PHASE_RULES)}, or one name per component "
                    "separated by commas"
                )
            if self.foreground is not None:
                rule = "the default" if self.phases is None else repr(self.phases)
                raise ConfigError(f"foreground {self.foreground!r} needs named phases, not {rule}")
        elif "" in self.component_names:
            raise ConfigError(f"phases {self.phases!r} has an empty name")
        elif self.foreground is not None and self.foreground not in self.component_names:
            raise ConfigError(f"foreground {self.foreground!r} is none of the phases {self.phases!r}")

    @property
    def rule(self) -> str:
        """The rule where it is used by itself: None is the paper's ``"brightest"``."""
        return self.phases or "brightest"

    @property
    def is_named(self) -> bool:
        """Whether the phases were given by name."""
        return self.phases is not None and "," in self.phases

    @property
    def component_names(self) -> tuple[str, ...]:
        """One phase name per component in ascending mean; empty unless `is_named`."""
        return tuple(name.strip() for name in str(self.phases).split(",")) if self.is_named else ()

    @property
    def names(self) -> tuple[str, ...]:
        """Phase names in label order; label 0 of an image means not visited, phase p is label p + 1."""
        return tuple(dict.fromkeys(self.component_names)) if self.is_named else ("background", "foreground")

    @property
    def foreground_index(self) -> int:
        """Index of the foreground in `names`."""
        return self.names.index(self.foreground or self.component_names[-1]) if self.is_named else 1


@dataclass(frozen=True)
class CorrectionConfig:
    """The spatio-temporal vote (METHOD.md 7).

    Parameters
    ----------
    metric : ``"l2"`` or ``"l1"``.
    radius : r in pixels; 0 switches the correction off. At most 100. None: 10 with the method ``"paper"``, 0 with
        ``"movie"``, whose labels have heard their neighbours already.
    gamma : a foreground sample stays if at least this share of its neighbours is foreground.
    window : ``"past"``, ``"past+current"``, ``"symmetric"`` or ``"spatial"``.
    sides : ``"foreground"`` (only foreground samples are visited) or ``"both"``.
    time_scale : s, pixels per frame; at least 0.01.
    """

    metric: str = "l2"
    radius: float | None = None
    gamma: float = 0.4
    window: str = "past"
    sides: str = "foreground"
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        if self.radius is not None:
            check_within("radius", self.radius, 0, 100)
        check_within("gamma", self.gamma, 0, 1)
        check_choice("window", self.window, WINDOWS)
        check_choice("sides", self.sides, SIDES)
        check_within("time_scale", self.time_scale, 0.01, 1e6)

    @property
    def radius_px(self) -> float:
        """r where it is used by itself: None is the paper's 10."""
        return 10.0 if self.radius is None else self.radius


@dataclass(frozen=True)
class SamplingConfig:
    """Which pixels are visited (METHOD.md 9). `rate` 1 visits all; `seed` is any 64-bit unsigned integer."""

    rate: float = 1.0
    scheme: str = "fixed"
    seed: int = 0
    line_length: int = 32

    def __post_init__(self) -> None:
        check_within("rate", self.rate, 0, 1, open_low=True)
        check_choice("scheme", self.scheme, SCHEMES)
        check_whole("seed", self.seed, 0, 2**64 - 1)
        check_whole("line_length", self.line_length, 1, 2**16)


@dataclass(frozen=True)
class QuantityConfig:
    """From a share of the frame to area and volume (METHOD.md 8). None where the user gave no calibration.

    Parameters
    ----------
    estimator : ``"count"`` (share of corrected labels), ``"posterior"`` (mean posterior probability), ``"assisted"``
        (earlier frames predict, the visited pixels correct) or ``"smoothed"`` (the assisted curve of all frames
        together). The last two need the method ``"movie"``. None: ``"smoothed"`` with it, else ``"count"``.
    interval : part of the cases that the interval around the estimate should hold, 0 to 1.
    pixel_size_um, thickness_um, frame_time_s : calibration; None: report pixels, frames.
    geometry : ``"slab"`` (volume = area x thickness) or ``"revolution"``.
    axis : of ``revolution``: ``"x=12.5"`` (a vertical axis at column 12.5) or ``"y=0"`` (a horizontal one).
    wedge_fraction : of ``revolution``: the part of the full turn that the specimen fills, in (0, 1].
    """

    estimator: str | None = None
    interval: float = 0.8
    pixel_size_um: float | None = None
    thickness_um: float | None = None
    frame_time_s: float | None = None
    geometry: str = "slab"
    axis: str = "x=0"
    wedge_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.estimator is not None:
            check_choice("estimator", self.estimator, ESTIMATORS)
        check_within("interval", self.interval, 0.01, 0.9999)
        check_choice("geometry", self.geometry, GEOMETRIES)
        for name in ("pixel_size_um", "thickness_um", "frame_time_s"):
            if getattr(self, name) is not None:
                check_within(name, getattr(self, name), 0, 1e12, open_low=True)
        check_within("wedge_fraction", self.wedge_fraction, 0, 1, open_low=True)
        if self.estimator == "posterior" and self.geometry == "revolution":
            raise ConfigError("the posterior estimator has no volume of revolution; use --estimator count or smoothed")
        self.axis_position  # noqa: B018 - raises on a malformed axis

    @property
    def axis_position(self) -> tuple[str, float]:
        """``("x", column)`` or ``("y", row)`` of the axis of revolution, in pixels."""
        match = re.fullmatch(r"\s*([xy])\s*=\s*(-?(?:\d+\.?\d*|\.\d+))\s*", self.axis)
        if not match:
            raise ConfigError(f"axis {self.axis!r} must look like x=12.5 (a column) or y=0 (a row)")
        return match[1], float(match[2])


@dataclass(frozen=True)
class ComputeConfig:
    """Where and how the numbers are computed. `memory_bytes` None: half of what is free.

    `n_threads` None: one thread per core on the CPU, one on a GPU. `engine`: ``"fused"`` are CUDA kernels that do whole
    stages in one launch, ``"compiled"`` the same for the CPU (extra ``cpu``), ``"generic"`` is the array-API
    implementation; ``"auto"`` takes kernels wherever it can. The answer depends on none of these but `dtype`, up to
    rounding.
    """

    device: str = "auto"
    dtype: str = "float32"
    memory_bytes: int | None = None
    n_threads: int | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, ENGINES)
        if self.device.split(":")[0] not in DEVICES:
            raise ConfigError(f"device is {self.device!r}; use one of {', '.join(DEVICES)}, or gpu:1")
        check_choice("dtype", self.dtype, DTYPES)
        if self.memory_bytes is not None:
            check_whole("memory_bytes", self.memory_bytes, 1, 2**60)
        if self.n_threads is not None:
            check_whole("n_threads", self.n_threads, 1, 4096)
