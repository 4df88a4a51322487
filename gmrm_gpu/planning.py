"""How much of the dose a movie needs: the interval of one sub-sampled movie against the sampling rate.

>>> import gmrm_gpu as gg
>>> expected = gg.ExpectedPhases(means=(45, 118, 172), sigmas=(7, 9, 12), shape=(64, 64), n_frames=10)
>>> plan = gg.plan_sampling(expected, width="5%")
>>> plan.recommended.scheme
'stratified'
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from .backend import get_backend
from .config import SCHEMES, AnalysisConfig, check_choice, check_whole, check_within, parse_width
from .errors import ConfigError, InputError
from .frames import open_movie
from .frames.cache import CachedMovie
from .recorder import Observer
from .results import FitStatus, Scale
from .results.planning import PlanRow, SamplingPlan, rates_text
from .runner import Curves, Progress, Runner, memory_budget
from .synthetic.expected import ExpectedPhases

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
PLAN_SCHEMES = ("fixed", "stratified")
LEAST_SAMPLES, LEAST_SEGMENTS = 50, 10
"""Pixels, and segments of the scheme ``lines``, that a frame must have: from fewer no spread can be told."""
FAR = 2.5
"""Distance to the densest curve, in claimed standard deviations, beyond which no interval is believed (right: 0.8)."""
AIM = 0.95
"""Part of the wanted width that is aimed at: widths of two draws differ by 1 to 3 % (``lines``: 5 to 10 %)."""
MAX_CHECKS = 4


def plan_sampling(
    movie: Any,
    config: AnalysisConfig | None = None,
    *,
    width: str | float | None = None,
    rates: Iterable[float] = RATES,
    schemes: Iterable[str] = PLAN_SCHEMES,
    n_draws: int = 2,
    progress: Progress | None = None,
) -> SamplingPlan:
    """How wide the interval of one sub-sampled movie is, and the smallest rate that makes it as narrow as wanted.

    The movie is analysed at rising rates, with each scheme. Between them the width is interpolated on logarithms, as
    if it never rose with the rate, and the rate found so is tried before it is recommended. With a wanted width a
    scheme's rates end after two in a row that reach it.

    Parameters
    ----------
    movie : Movie, array (T, height, width) or a path, fully or well sampled; or `ExpectedPhases`.
    config : settings; the rate and the scheme are ignored. ``config.quantity`` has the estimator and the level of the
        interval, and the calibration.
    width : wanted, mean over frames: ``"0.5um3"``, ``"0.2um2"``, ``"500px"``, ``"1%"`` or a share of the frame;
        None: no rate is recommended.
    rates : tried, above 0 and below 1. schemes : tried; of a sub-sampled movie ``fixed`` alone.
    n_draws : sub-samplings at each rate.
    progress : called with (work done, work in all), in samples.

    Returns
    -------
    SamplingPlan.

    Raises
    ------
    InputError
        No foreground was found, or no rate leaves enough samples.
    """
    started = time.perf_counter()
    if isinstance(movie, ExpectedPhases):
        config, movie = config or movie.config(), movie.movie()
    config = config or AnalysisConfig()
    wanted = None if width is None else parse_width(str(width))
    ladder, names = _check(rates, schemes, n_draws)
    backend = get_backend(config.compute.device, config.compute.dtype)
    budget = memory_budget(config, backend)
    movie = CachedMovie(open_movie(movie), budget // 4)
    names = ["fixed"] if movie.sampled else names
    samplings = [replace(config.sampling, scheme=name) for name in names]
    runners = {s.scheme: Runner(movie, replace(config, sampling=s), backend) for s in samplings}
    return _Work(runners, wanted, n_draws, budget, progress).plan(ladder, started)


def _check(rates: Iterable[float], schemes: Iterable[str], n_draws: int) -> tuple[list[float], list[str]]:
    ladder, names = sorted(set(rates)), list(dict.fromkeys(schemes))
    if not ladder or not names:
        raise ConfigError("nothing to try; give at least one rate and one scheme")
    for rate in ladder:
        check_within("rate", rate, 0, 1, open_low=True)
        if rate == 1:
            raise ConfigError("rate 1 looks at all pixels, so there is no interval; give rates below 1")
    for name in names:
        check_choice("scheme", name, SCHEMES)
    check_whole("n_draws", n_draws, 1, 1000)
    return ladder, names


def smallest_rate(rates: Sequence[float], widths: Sequence[float], wanted: float) -> float | None:
    """The rate at which the width falls to `wanted`; None if it never does, the first if it is there from the start.

    Parameters
    ----------
    rates : rising. widths : at these; not finite where nothing is known. A width counts as no less than those at
        higher rates. Between two rates both are interpolated on logarithms.
    """
    known = np.where(np.isfinite(widths), widths, np.inf)
    known = np.maximum.accumulate(known[::-1])[::-1]
    if not (known <= wanted).any():
        return None
    i = int(np.argmax(known <= wanted))
    if i == 0 or not np.isfinite(known[i - 1]):
        return float(rates[i])
    low, high = math.log(rates[i - 1]), math.log(rates[i])
    wide, narrow = math.log(known[i - 1]), math.log(max(known[i], 1e-300))
    return math.exp(low + (high - low) * (wide - math.log(wanted)) / (wide - narrow))


def round_up(rate: float) -> float:
    """To two significant digits, upwards: 0.01234 -> 0.013."""
    step = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f"{math.ceil(rate / step - 1e-9) * step:.2g}")


@dataclass
class _Tried:
    """A row and the curves (draws, T) behind it."""

    row: PlanRow
    curve: np.ndarray
    sd: np.ndarray
    found: bool


_ONLY_FIXED = "The movie is sub-sampled: of its visits only a fixed number can be drawn, so no other scheme was tried."


class _Foreground(Observer):
    """Notes whether any component of any frame was foreground."""

    def __init__(self) -> None:
        self.found = False

    def fitted(self, t: int, fit: Any, foreground: np.ndarray, positions: Any, labels: Any) -> None:
        self.found = self.found or bool(np.any(foreground))


class _Work:
    """One plan: the movie with each scheme, and what has been tried."""

    def __init__(
        self,
        runners: dict[str, Runner],
        wanted: tuple[float, str] | None,
        n_draws: int,
        budget: int,
        progress: Progress | None,
    ) -> None:
        self.runners, self.n_draws, self.budget, self.progress = runners, n_draws, budget, progress
        self.first = next(iter(runners.values()))
        scale = self.first.scale
        self.wanted = None if wanted is None else wanted[0]
        self.unit = scale.unit if wanted is None else wanted[1]
        self.factor = unit_factor(scale, self.unit)
        self.tried: dict[str, dict[float, _Tried]] = {name: {} for name in runners}
        self.left: dict[str, list[float]] = {name: [] for name in runners}
        self.notes: list[str] = [_ONLY_FIXED] if self.first.movie.sampled else []
        self.done = self.total = 0

    def plan(self, ladder: list[float], started: float) -> SamplingPlan:
        """The whole of `plan_sampling` but its checks."""
        usable = {name: self.usable(runner, ladder) for name, runner in self.runners.items()}
        self.total = sum(self.work(name, rate) for name, rates in usable.items() for rate in rates)
        for name, rates in usable.items():
            self.climb(name, rates)
        self.refuse_nothing()
        self.judge()
        self.climb_on()
        answers = [] if self.wanted is None else [row for name in usable if (row := self.answer(name)) is not None]
        self.report()  # of late some work may have turned out not to be needed
        movie, quantity = self.first.movie, self.first.config.quantity
        rows = [self.tried[name][rate].row for name in usable for rate in sorted(self.tried[name])]
        return SamplingPlan(
            movie=movie.name,
            n_frames=len(movie),
            shape=movie.shape,
            estimator=self.first.config.estimator,
            interval=quantity.interval,
            unit=self.unit,
            wanted=self.wanted,
            rows=tuple(rows),
            answers=tuple(answers),
            notes=tuple(self.notes),
            provenance=self.first.provenance(started, (max(ladder),)),
        )

    def usable(self, runner: Runner, ladder: list[float]) -> list[float]:
        """The rates that leave enough samples and fit into the memory; says which do not."""
        scheme, few, large = runner.config.sampling.scheme, [], []
        for rate in ladder:
            if not has_enough(runner, rate):
                few.append(rate)
            elif runner.bytes_per_replicate(rate) > self.budget:
                large.append(rate)
        left = [rate for rate in ladder if rate not in few + large]
        if few:
            least = f"{LEAST_SEGMENTS} segments" if scheme == "lines" else f"{LEAST_SAMPLES} pixels"
            self.notes.append(f"{scheme}: not tried at {rates_text(few)}, which leave less than {least} of a frame.")
        if large:
            self.notes.append(
                f"{scheme}: not tried at {rates_text(large)}, which take more memory than {self.budget / 1e6:.3g} MB; "
                "raise --memory or crop the movie."
            )
        return left

    def work(self, scheme: str, rate: float) -> int:
        """Samples of all frames and draws."""
        runner = self.runners[scheme]
        return runner.sampler(rate).capacity * len(runner.movie) * self.n_draws

    def climb(self, scheme: str, rates: list[float]) -> None:
        """The rates from the smallest; those after two in a row that reach the wanted width are not needed."""
        reached = 0
        for i, rate in enumerate(rates):
            width = self.run(scheme, rate).row.width
            reached = reached + 1 if self.wanted is not None and width <= AIM * self.wanted else 0
            if reached == 2:
                self.left[scheme] = rates[i + 1 :]
                self.total -= sum(self.work(scheme, r) for r in self.left[scheme])
                return

    def climb_on(self) -> None:
        """Higher rates for the schemes whose narrow intervals turned out not to be believed."""
        while True:
            short = [name for name, left in self.left.items() if left and self.aim(name) is None]
            if not short:
                return
            rate = self.left[short[0]].pop(0)
            self.total += self.work(short[0], rate)
            self.run(short[0], rate)
            self.judge()

    def run(self, scheme: str, rate: float, *, is_check: bool = False) -> _Tried:
        """Analyse the draws at one rate and keep what comes out."""
        runner, watch = self.runners[scheme], _Foreground()
        step = self.work(scheme, rate) // (len(runner.movie) * self.n_draws)
        curves = [runner.run(rate, np.array([d]), observer=watch, tick=self.ticker(step)) for d in range(self.n_draws)]
        curve, sd = (np.concatenate(parts) for parts in zip(*map(self.curve_of, curves), strict=True))
        reach = NormalDist().inv_cdf(0.5 + runner.config.quantity.interval / 2) * sd
        widths = (curve + reach - np.maximum(curve - reach, 0)) * self.factor
        good = all((c.status < FitStatus.DEGENERATE).all() for c in curves) and bool(np.isfinite(widths).all())
        row = PlanRow(
            scheme=scheme,
            rate=rate,
            width=float(widths.mean()) if good else math.nan,
            unit=self.unit,
            n_samples=float(np.mean([c.n_samples for c in curves])),
            n_draws=self.n_draws,
            deviation=math.nan,
            reliable=good,
            is_check=is_check,
        )
        found = _Tried(row, curve, sd, watch.found)
        self.tried[scheme][rate] = found
        return found

    def curve_of(self, curves: Curves) -> tuple[np.ndarray, np.ndarray]:
        """(1, T) shares and their standard deviations; for volumes the shares that are multiplied into these."""
        volume = self.unit == "um3"
        return (curves.volume_share, curves.volume_share_sd) if volume else (curves.share, curves.share_sd)

    def ticker(self, step: int) -> Any:
        """Counts `step` samples as done at each call."""

        def tick() -> None:
            self.done += step
            self.report()

        return tick

    def report(self) -> None:
        """How much of the work is done, as far as it is known by now."""
        if self.progress is not None:
            self.progress(self.done, self.total)

    @property
    def every(self) -> list[_Tried]:
        """All that has been tried."""
        return [tried for by_rate in self.tried.values() for tried in by_rate.values()]

    @property
    def densest(self) -> _Tried:
        """What the others are held against: the sound run at the highest rate, of the tightest interval."""
        sound = [tried for tried in self.every if math.isfinite(tried.row.width)]
        return max(sound, key=lambda tried: (tried.row.rate, -tried.row.width))

    def refuse_nothing(self) -> None:
        """Raise where there is no interval, or one around nothing."""
        name, runner = self.first.movie.name, self.first
        if not self.every:
            raise InputError(f"nothing can be planned for {name}: {' '.join(self.notes)} Use higher --rates.")
        if not any(math.isfinite(tried.row.width) for tried in self.every):
            raise InputError(f"no rate gave an interval for {name}; use fewer --components, a simpler --trend, or info")
        if not self.densest.found:
            why = f" ({runner.decision.rstrip('.')})" if runner.decision else ""
            raise InputError(f"no foreground was found in {name}{why}, so there is nothing to plan for; see --phases")

    def judge(self) -> None:
        """Compare every curve with the densest one, which is itself believed if any other agrees with it."""
        dense = self.densest
        others = [tried for tried in self.every if tried is not dense and math.isfinite(tried.row.width)]
        for tried in others:
            far = _distance(tried, dense)
            tried.row = replace(tried.row, deviation=far, reliable=tried.found and far <= FAR)
        agreed = not others or any(tried.row.reliable for tried in others)
        dense.row = replace(dense.row, deviation=math.nan, reliable=agreed)

    def answer(self, scheme: str) -> PlanRow | None:
        """The smallest rate of a scheme whose interval, as found there, is no wider than wanted."""
        assert self.wanted is not None
        for _ in range(MAX_CHECKS):
            rate = self.aim(scheme)
            if rate is None:
                break
            if rate not in self.tried[scheme]:
                self.total += self.work(scheme, rate)
                self.run(scheme, rate, is_check=True)
                self.judge()
            row = self.tried[scheme][rate].row
            if row.reliable and row.width <= self.wanted:
                return row
        # What was tried has to do: the lowest rate from which on no width is above the wanted one.
        rates, widths = self.known(scheme)
        enough = [rate for i, rate in enumerate(rates) if max(widths[i:]) <= self.wanted]
        return self.tried[scheme][enough[0]].row if enough else None

    def aim(self, scheme: str) -> float | None:
        """Where the width should be reached, from what is known by now; rounded, but no higher than a rate tried."""
        assert self.wanted is not None
        rates, widths = self.known(scheme)
        rate = smallest_rate(rates, widths, AIM * self.wanted)
        return None if rate is None else min(round_up(rate), next(r for r in rates if r >= rate * (1 - 1e-9)))

    def known(self, scheme: str) -> tuple[list[float], list[float]]:
        """Rising rates and their widths, infinite where they are not believed."""
        rates = sorted(self.tried[scheme])
        rows = [self.tried[scheme][rate].row for rate in rates]
        return rates, [row.width if row.reliable else math.inf for row in rows]


def has_enough(runner: Runner, rate: float) -> bool:
    """Whether a frame has enough samples, and segments, at `rate`."""
    try:
        sampler = runner.sampler(rate)
    except InputError:
        return False
    if sampler.cluster_length > 1 and sampler.capacity // sampler.cluster_length < LEAST_SEGMENTS:
        return False
    return sampler.capacity >= LEAST_SAMPLES


def unit_factor(scale: Scale, unit: str) -> float:
    """What a share of the frame is in `unit`; `ConfigError` without the calibration for it."""
    per_pixel = {"share": 1 / scale.n_pixels, "px": 1.0, "um2": scale.pixel_area_um2, "um3": scale.pixel_volume_um3}
    factor = per_pixel[unit]
    if factor is None:
        needs = ["--pixel-size"] * (scale.pixel_area_um2 is None) + ["--thickness"] * (unit == "um3")
        raise ConfigError(f"a width in {unit} needs {' and '.join(needs)}; give that, or a width such as 500px or 1%")
    return scale.n_pixels * factor


def _distance(one: _Tried, dense: _Tried) -> float:
    """Mean distance of the curves of `one` to the mean of the dense ones, in claimed standard deviations."""
    centre, error = dense.curve.mean(axis=0), dense.sd.mean(axis=0) / math.sqrt(len(dense.sd))
    claimed = np.hypot(one.sd, error).mean()
    return float(np.abs(one.curve - centre).mean() / claimed) if claimed > 0 else math.nan


__all__ = ["plan_sampling", "smallest_rate"]
