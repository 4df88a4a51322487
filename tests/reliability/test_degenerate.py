"""Degenerate fits end in an error with a name, or in finite numbers with a status: never otherwise, never late."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from degenerate import DTYPES, FAMILIES, HIDDEN, TRENDS, Call, Scene, T
from scale import LONG, cases

from gmrm_gpu.config import (
    SCHEDULES,
    SCHEMES,
    WINDOWS,
    AnalysisConfig,
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    SamplingConfig,
)
from gmrm_gpu.errors import ConfigError, GmrmError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.recorder import Observer
from gmrm_gpu.results import FitStatus
from gmrm_gpu.runner import Runner

LATEST_S = 10.0
"""Of the processor's time: how long others keep it is no matter of ours."""
KS = range(1, 9)
WAYS = list(product(("generic", "compiled"), ("paper", "movie"), ("hidden", "everywhere"), (0.5, 1.0)))


@dataclass(frozen=True)
class Case:
    """One analysis of a family."""

    family: str
    k: int
    trend: str
    dtype: str

    @property
    def key(self) -> list[int]:
        """What its random numbers start from."""
        return [list(FAMILIES).index(self.family), self.k, TRENDS.index(self.trend), DTYPES.index(self.dtype)]


ONCE_OTHERWISE = (
    Case("infinity", 1, "linear", "uint8"),  # OverflowError
    Case("quadratic trend on 2 x 2", 2, "none", "uint16"),  # LinAlgError
    Case("constant plus one outlier", 5, "none", "float64"),  # RuntimeWarning: overflow
    Case("K far too large", 4, "none", "float64"),  # the same
)
"""Cases that found something."""


def cases_of(family: str) -> list[Case]:
    """Every number of components with every trend: at every dtype, or in turn at one of them."""
    found = []
    for k, trend in product(KS, TRENDS):
        turn = (list(FAMILIES).index(family) + k + TRENDS.index(trend)) % len(DTYPES)
        found += [Case(family, k, trend, dtype) for dtype in (DTYPES if LONG else DTYPES[turn : turn + 1])]
    return found


class Watch(Observer):
    """Holds every fit and label that goes by to what its status says."""

    def __init__(self) -> None:
        self.n_fitted = 0

    def fitted(self, t, fit, foreground, positions, labels) -> None:
        self.n_fitted += 1
        usable = fit.status < FitStatus.DEGENERATE
        alive = fit.weights > 0
        assert (alive.any(axis=1) == usable).all()
        for name in ("means", "sigmas"):
            assert (np.isfinite(getattr(fit, name)) == alive).all(), name
        assert (fit.sigmas[alive] > 0).all()
        np.testing.assert_allclose(fit.weights.sum(axis=1), usable, atol=1e-6)
        for name in ("coef", "log_likelihood"):
            value = getattr(fit, name).reshape(len(usable), -1)
            assert np.isfinite(value[usable]).all(), name
            assert np.isnan(value[~usable]).all(), name
        assert not (foreground & ~alive).any()
        assert (np.asarray(labels)[~usable] == 255).all()


def check_curves(curves) -> None:
    """Shares and their errors are numbers in their range where there was a fit, NaN where there was none."""
    assert np.isin(curves.status, list(FitStatus)).all()
    lost = (curves.status >= FitStatus.DEGENERATE) | (curves.n_samples == 0)
    for name in ("share", "volume_share", "share_raw", "count"):
        value = getattr(curves, name)
        assert np.isnan(value[lost]).all(), name
        assert ((value[~lost] >= 0) & (value[~lost] <= 1 + 1e-9)).all(), name
    for name in ("share_sd", "count_sd"):
        value = getattr(curves, name)
        assert (np.isfinite(value[~lost]) & (value[~lost] >= 0)).all(), name


def settings(case: Case, rng: np.random.Generator) -> tuple[Scene, AnalysisConfig]:
    """A family's movie, and one of the ways to analyse it."""
    engine, method, where, rate = WAYS[rng.integers(len(WAYS))]
    scene = FAMILIES[case.family](
        Call(case.k, case.trend, np.dtype(case.dtype), HIDDEN if where == "hidden" else tuple(range(T)), rng)
    )
    sampled = not {"visited", "unvisited"}.isdisjoint(scene.options)
    if case.dtype == "float64":  # which is fitted by arrays
        engine = "generic"
    if sampled and engine == "compiled":  # visits of single frames are fitted by arrays
        method = "movie"
    schedule = str(rng.choice(SCHEDULES, p=(0.8, 0.2)))
    mixture = MixtureConfig(
        n_components=case.k,
        trend=scene.trend,
        schedule=schedule,
        histogram=schedule == "fast" and not rng.integers(8),
        trend_prior=(None, None, 1.0)[rng.integers(3)],
        drift=(0.0, 1.0, 100.0)[rng.integers(3)],
        max_iter=cases(300, 2000),
    )
    return scene, AnalysisConfig(
        mixture=mixture,
        phases=PhaseConfig(phases=str(rng.choice(("brightest", "separated")))),
        correction=CorrectionConfig(radius=2, gamma=0.3, window=str(rng.choice(WINDOWS))),
        sampling=SamplingConfig(seed=5, rate=1.0 if sampled else rate, scheme=str(rng.choice(SCHEMES))),
        compute=ComputeConfig(device="cpu", engine=engine, n_threads=1),
        method=method,
    )


def ended(scene: Scene, config: AnalysisConfig) -> str:
    """How an analysis of `scene` ended: an error's name and text, or ``finite``."""
    rate, watch = config.sampling.rate, Watch()
    try:
        runner = Runner(open_movie(scene.stack, **scene.options), config)
        curves = runner.run(rate, np.arange(2 if rate < 1 else 1), observer=watch)
    except GmrmError as error:
        return f"{type(error).__name__}: {error}"
    assert watch.n_fitted == T
    check_curves(curves)
    return f"finite {np.unique(curves.status)}"


def analysed(case: Case, unguarded: pytest.MonkeyPatch) -> str:
    """How a case ended; what was refused beforehand goes in once more by the back door, so that the fits see it."""
    try:
        scene, config = settings(case, np.random.default_rng(case.key))
    except ConfigError as error:
        return f"ConfigError: {error}"
    end = ended(scene, config)
    if not end.startswith("InputError"):
        return end
    with unguarded.context() as patch:
        patch.setattr("gmrm_gpu.runner.check_movie", lambda *movie: None)
        patch.setattr("gmrm_gpu.runner.LEAST_A_FRAME", 1)
        patch.setattr(Runner, "_samples_of_a_fit", lambda *sampler: (10**9, "in all"))
        return f"{end}; then {ended(scene, config)}"


@pytest.fixture(scope="module", autouse=True)
def _compiled_functions() -> None:
    """Compiling them is no part of an analysis."""
    pytest.importorskip("numba", reason="the extra cpu (Numba) is not installed")
    ways = product(DTYPES, ("paper", "movie"), ({}, {"schedule": "reference"}, {"histogram": True}))
    for dtype, method, options in ways:
        config = AnalysisConfig(mixture=MixtureConfig(n_components=2, trend="linear", **options), method=method)
        stack = np.arange(5 * 12 * 12).reshape(5, 12, 12).astype(dtype)
        movies = [open_movie(stack)]
        movies += [open_movie(stack, visited=np.ones((12, 12), dtype=bool))] if method == "movie" else []
        for movie in movies:
            Runner(movie, config).run(0.5, np.arange(2))


@pytest.mark.parametrize("case", ONCE_OTHERWISE, ids=str)
def test_what_once_ended_otherwise(case, monkeypatch):
    assert analysed(case, monkeypatch).startswith(("finite", "InputError"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_end_has_a_name(family, counted, monkeypatch):
    tried, wrong = cases_of(family), []
    for case in tried:
        began = time.process_time()
        try:
            end = analysed(case, monkeypatch)
        except Exception as error:
            end = f"{type(error).__name__}, which is no error of the package: {error}"
            wrong.append(f"{case}: {end}")
        seconds = time.process_time() - began
        if seconds > LATEST_S:
            wrong.append(f"{case}: took {seconds:.1f} s")
        if "\n" in end or (case.k > 6) != end.startswith("ConfigError: n_components"):
            wrong.append(f"{case}: {end}")
    assert not wrong, "\n".join(wrong)
    counted("degenerate fits", len(tried))
