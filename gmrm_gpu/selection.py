"""Choosing the number of components and the trend of a movie (METHOD.md 10).

>>> import gmrm_gpu as gg
>>> sim = gg.simulate("battery", shape=(64, 64), n_frames=6, seed=1)
>>> chosen = gg.select_model(sim.movie, n_bootstrap=0)
>>> chosen.n_components
3
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import __version__
from .backend import Backend, get_backend
from .config import TREND_PRESETS, AnalysisConfig, MixtureConfig, check_whole, trend_terms
from .errors import ConfigError
from .frames import Movie, open_movie
from .mixture.choose import Halves, Local, best_of, bic_of, cautions, choose_components, choose_trend, key_of
from .mixture.local import LocalFit, fit_local
from .mixture.select import Candidate, bootstrap_components, fit_candidates, likelihood_ratio_test
from .philox import STREAM_START, stream_words
from .results import FitStatus, MixtureFit
from .results.selection import COMPONENTS, TREND, TREND_LOCAL, ModelSelection, SelectionRow, SelectionTest
from .sampling import Sampler
from .survey import survey_movie
from .visited import drawn_values, sampler_of

Progress = Callable[[int, int], None]

MAX_SAMPLES = 4000
"""Pixels in all. Few enough that they are nearly independent, enough to see a phase of 2 % of the frame."""
BOOTSTRAP_SAMPLES = 2000
"""Pixels that the bootstrap works on, an even subset."""
TOL, MAX_ITER = 1e-7, 1000
"""A gain of 1e-7 per sample ends these fits: 4e-4 in all, nothing beside the 8.3 that a parameter costs."""

FALLBACK = 2
"""Components where nothing can be decided, with the trend of fewest terms."""


@dataclass(frozen=True)
class Pool:
    """Pixels of several frames.

    values : (m,) float64. positions : (m,) flat indices. half : (m,) bool, of the second half of the movie.
    frames : their numbers.
    """

    values: np.ndarray
    positions: np.ndarray
    half: np.ndarray
    frames: tuple[int, ...]


def select_model(
    movie: Any,
    config: AnalysisConfig | None = None,
    *,
    components: Iterable[int] = range(1, 7),
    trends: Iterable[Any] = tuple(TREND_PRESETS),
    n_frames: int = 8,
    max_samples: int = MAX_SAMPLES,
    n_bootstrap: int = 199,
    progress: Progress | None = None,
) -> ModelSelection:
    """Recommend how many components and which trend a movie needs.

    Pixels of frames spread over the movie are pooled, those that ``config.sampling`` draws and no others; so a movie
    analysed at 1 % is judged by these pixels alone. What decides is BIC with weights that vary over the frame (see
    `mixture.local`): the fewest components that no larger model beats by 10, and no more than ordinary BIC wants; then,
    each half of the movie by itself, the trend of lowest BIC, or a simpler one with nearly the same surface.

    Parameters
    ----------
    movie : Movie, array (T, height, width), or a path.
    config : settings; K and trend are ignored.
    components, trends : what is tried; K from 1 to 6.
    n_frames : frames looked at, more where a low rate leaves these with few pixels. max_samples : pixels in all.
    n_bootstrap : draws of the bootstrap tests for K; 0: none. progress : called with (steps done, steps in all).

    Returns
    -------
    ModelSelection. Where nothing can be decided it holds a stated fallback; only bad arguments raise.
    """
    started = time.perf_counter()
    config = config or AnalysisConfig()
    counts, names = _check(components, trends, n_frames, max_samples, n_bootstrap)
    movie = open_movie(movie)
    backend = get_backend(config.compute.device, "float64")
    pool = pool_pixels(movie, config, n_frames, max_samples, backend)
    survey = survey_movie(movie)
    counts = [k for k in counts if k <= survey.n_distinct] or counts[:1]
    usable = [name for name in names if _fits_frame(name, movie)] or names[:1]
    tick = _ticker(progress, 2 * len(usable) * len(counts) + 2 * bool(n_bootstrap))
    work = _Work(movie, config, pool, survey.sigma_floor, backend, tick)
    return work.select(counts, usable, n_bootstrap, started)


def pool_pixels(movie: Movie, config: AnalysisConfig, n_frames: int, max_samples: int, backend: Backend) -> Pool:
    """At most `max_samples` pixels that ``config.sampling`` draws (replicate 0), evenly from frames over the movie."""
    sampler = sampler_of(movie, config.sampling)
    n_frames = min(len(movie), max(n_frames, -(-max_samples // sampler.capacity)), max_samples)
    quota = max_samples // n_frames
    if sampler.is_full and quota < sampler.n_pixels and not movie.sampled:
        # Spread over the frame, so that few are neighbours.
        rate = min(1.0, quota / sampler.n_pixels)
        sampler = Sampler(movie.shape, replace(config.sampling, rate=rate, scheme="stratified"), movie.valid)
    values, positions = [], []
    chosen = np.unique(np.linspace(0, len(movie) - 1, n_frames).round().astype(int))
    for t in chosen:
        draw = sampler.draw(np.array([0]), int(movie.frame_numbers[t]), backend=backend)
        where, seen = (
            backend.to_host(a)[0] for a in (draw.positions, drawn_values(movie, int(t), draw, backend=backend))
        )
        if draw.valid is not None:
            inside = backend.to_host(draw.valid)[0]
            where, seen = where[inside], seen[inside]
        kept = _even(where.size, quota)
        where, seen = where[kept], seen[kept].astype(np.float64)
        values.append(seen[np.isfinite(seen)])
        positions.append(where[np.isfinite(seen)])
    frames = tuple(int(movie.frame_numbers[t]) for t in chosen)
    half = np.repeat(np.arange(len(values)) >= (len(values) + 1) // 2, [v.size for v in values])
    return Pool(np.concatenate(values), np.concatenate(positions).astype(np.int32), half, frames)


def _even(n: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0..n-1, evenly."""
    return np.arange(n) if n <= most else (np.arange(most) * n) // most


@dataclass
class _Work:
    """One selection: the pixels and how they are fitted."""

    movie: Movie
    config: AnalysisConfig
    pool: Pool
    sigma_floor: float
    backend: Backend
    tick: Callable[[], None]

    @property
    def per_frame(self) -> int:
        """Pixels that the analysis sees of a frame."""
        return sampler_of(self.movie, self.config.sampling).capacity

    @property
    def mixture(self) -> MixtureConfig:
        """All settings but K and trend; without a prior, which no criterion or ratio knows of."""
        return replace(self.config.mixture, tol=TOL, max_iter=MAX_ITER, trend_prior=None)

    def select(self, counts: Sequence[int], trends: Sequence[str], n_bootstrap: int, started: float) -> ModelSelection:
        """The whole of `select_model` but its checks."""
        candidates = self.candidates(counts, trends)
        # A model that one frame's pixels cannot carry is in the table, but cannot be recommended.
        carried = [c for c in candidates if c.config.n_parameters < self.per_frame]
        most, _ = choose_components(best_of(carried, lambda c: float(c.fit.bic[0])))
        local = {key_of(c): self.local(c, most) for c in carried}
        k, k_reason = choose_components(best_of(carried, lambda c: bic_of(local[key_of(c)])), most or 0)
        if k is None:
            k, k_reason = choose_components(best_of(carried, lambda c: float(c.fit.bic[0])))
        halves = {key_of(c): self.halves(local[key_of(c)]) for c in carried if c.config.n_components == k}
        trend, trend_reason = choose_trend([c for c in carried if c.config.n_components == k], halves)
        decided = k is not None
        if k is None or trend is None:
            k, trend = min(counts, key=lambda n: abs(n - FALLBACK)), min(trends, key=lambda t: len(trend_terms(t)))
        fit = next((c.fit[0] for c in candidates if key_of(c) == (trend, k)), None)
        fit = fit if fit is not None and fit.status < FitStatus.DEGENERATE else None
        tests = trend_tests(candidates, local) + (self.bootstrap(k, trend, counts, n_bootstrap) if decided else [])
        reason = f"{k_reason} {trend_reason}" if decided else f"{k_reason} Fallback: K = {k}, trend {trend}."
        return ModelSelection(
            movie=self.movie.name,
            shape=self.movie.shape,
            frames=self.pool.frames,
            rate=self.config.sampling.rate,
            rows=tuple(_row(c, local.get(key_of(c)), halves.get(key_of(c), ())) for c in candidates),
            tests=tuple(tests),
            n_components=k,
            trend=trend,
            decided=decided,
            reason=reason,
            cautions=tuple(cautions(fit, local.get((trend, k)))),
            fit=fit,
            values=self.pool.values,
            positions=self.pool.positions,
            provenance={
                "gmrm_gpu": __version__,
                "device": self.backend.name,
                "seed": self.config.sampling.seed,
                "scheme": self.config.sampling.scheme,
                "wall_s": round(time.perf_counter() - started, 3),
            },
        )

    def candidates(self, counts: Sequence[int], trends: Sequence[str]) -> list[Candidate]:
        """Every model fitted to the pooled pixels; none where there are no pixels."""
        if self.pool.values.size == 0:
            return []
        seed = self.config.sampling.seed
        return fit_candidates(
            self.pool.values[None, :],
            self.pool.positions[None, :],
            self.movie.shape,
            self.mixture,
            trends=trends,
            components=counts,
            streams=stream_words(seed, 1.0, np.array([0]), 0, STREAM_START, max(counts)),
            sigma_floor=self.sigma_floor,
            backend=self.backend,
            tick=self.tick,
        )

    def local(self, candidate: Candidate, most: int | None) -> LocalFit | None:
        """The candidate with weights that vary over the frame; None well beyond the `most` components in question."""
        self.tick()
        if most is None or candidate.config.n_components > most + 1:
            return None
        return self.fit_local(candidate.fit, np.ones(self.pool.half.shape, bool))

    def halves(self, whole: LocalFit | None) -> Halves:
        """`whole` fitted to the two halves of the movie, each by itself; none where it, or one of them, failed."""
        second = self.pool.half
        if whole is None or not second.any():
            return () if whole is None else (whole,)
        fits = [self.fit_local(whole.fit, part) for part in (~second, second)]
        return tuple(f for f in fits if f is not None) if None not in fits else ()

    def fit_local(self, start: MixtureFit, part: np.ndarray) -> LocalFit | None:
        """`mixture.local.fit_local` on the pixels `part` (m,) bool."""
        floor = self.config.mixture.sigma_floor or self.sigma_floor
        values, positions = self.pool.values[part], self.pool.positions[part]
        if values.size <= start.n_parameters or values.min() == values.max():
            return None
        return fit_local(values, positions, self.movie.shape, start, sigma_floor=floor, backend=self.backend)

    def bootstrap(self, k: int, trend: str, counts: Sequence[int], n_bootstrap: int) -> list[SelectionTest]:
        """K - 1 against K, and K against K + 1."""
        found = []
        few = _even(self.pool.values.size, BOOTSTRAP_SAMPLES)
        for n in (k - 1, k):
            self.tick()
            if n_bootstrap and n >= 1 and n + 1 <= max(6, *counts):
                test = bootstrap_components(
                    self.pool.values[None, few],
                    self.pool.positions[None, few],
                    self.movie.shape,
                    replace(self.mixture, n_components=n, trend=trend),
                    n_bootstrap=n_bootstrap,
                    seed=self.config.sampling.seed,
                    sigma_floor=self.sigma_floor,
                    backend=self.backend,
                )
                statistic, p = float(test.statistic[0]), float(test.p_value[0])
                found.append(SelectionTest(COMPONENTS, trend, n, trend, n + 1, statistic, None, n_bootstrap, p))
        return found


def trend_tests(candidates: Sequence[Candidate], local: Local) -> list[SelectionTest]:
    """Likelihood-ratio tests of all nested pairs of trends at each K; where `local` holds both, with those fits too."""
    found = []
    for small in candidates:
        for large in candidates:
            k, names = small.config.n_components, (small.trend, large.trend)
            if large.config.n_components != k or not set(small.config.terms) < set(large.config.terms):
                continue
            pairs = [(TREND, small.fit, large.fit)]
            fits = [f.fit for name in names if (f := local.get((name, k))) is not None]
            if len(fits) == 2:
                pairs.append((TREND_LOCAL, fits[0], fits[1]))
            for kind, one, other in pairs:
                statistic, df, p = likelihood_ratio_test(one, other)
                found.append(SelectionTest(kind, names[0], k, names[1], k, float(statistic[0]), df, None, float(p[0])))
    return found


def _row(candidate: Candidate, local: LocalFit | None, halves: Halves) -> SelectionRow:
    fit, config = candidate.fit, candidate.config
    usable = fit.status[0] < FitStatus.DEGENERATE
    return SelectionRow(
        trend=candidate.trend,
        n_components=config.n_components,
        n_parameters=int(fit.n_free[0]) if usable else fit.n_parameters,
        log_likelihood=float(fit.log_likelihood[0]),
        aic=float(fit.aic[0]),
        bic=float(fit.bic[0]),
        icl=float(candidate.icl[0]),
        bic_local=bic_of(local),
        bic_halves=sum(part.bic for part in halves) if halves else float("nan"),
        status=FitStatus(int(fit.status[0])).label,
    )


def _check(components: Iterable[int], trends: Iterable[Any], *numbers: int) -> tuple[list[int], list[str]]:
    """Sorted numbers of components and the trends as text, without repeats; `ConfigError` for anything else."""
    counts = sorted(set(components))
    names = list(dict.fromkeys(trend_text(trend) for trend in trends))
    if not counts or not names:
        raise ConfigError("nothing to choose from; give at least one number of components and one trend")
    for k in counts:
        check_whole("components", k, 1, 6)
    for name, value, low in zip(("n_frames", "max_samples", "n_bootstrap"), numbers, (1, 50, 0), strict=True):
        check_whole(name, value, low, 10**6)
    return counts, names


def trend_text(trend: Any) -> str:
    """A trend as text that `MixtureConfig` takes; `ConfigError` for no trend."""
    terms = trend_terms(trend)
    if isinstance(trend, str):
        return trend

    def power(letter: str, exponent: int) -> str:
        return "" if exponent == 0 else letter if exponent == 1 else f"{letter}{exponent}"

    return ",".join(power("x", a) + power("y", b) for a, b in terms) or "none"


def _fits_frame(trend: str, movie: Movie) -> bool:
    """Whether frames have more usable columns and rows than the powers of x and y need."""
    height, width = movie.shape if movie.valid is None else (int(movie.valid.any(axis=i).sum()) for i in (1, 0))
    return all(width > a and height > b for a, b in trend_terms(trend))


def _ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(min(done, total), total)

    return tick


__all__ = ["select_model"]
