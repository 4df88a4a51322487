"""Random models and samples fitted by the package and, independently, in plain float64 (tests/oracle).

The oracle starts at the truth, makes ECM steps and then climbs by L-BFGS-B and Newton; it shares no code with the
package, whose starts know nothing of the truth. Each of its fits is held to three things:

- its log-likelihood is that of its parameters, worked out again;
- there is no higher point next to it: climbing on from there gains next to nothing and moves no parameter. On a ridge,
  at the floor of sigma (a grey level that fills a component) or where a component was dropped, ECM steps gain nothing;
- it is not below the oracle's: the same optimum, or a better one, which the run counts. Of three short starts that
  know nothing of the truth none may lead there: some end at another, lower maximum, which is one to the oracle too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64
from oracle import ecm
from scale import cases
from test_fused_fit import FLOOR, fused

from gmrm_gpu.config import SCHEDULES, TREND_PRESETS, MixtureConfig
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.results import FitStatus

ROWS = 4
N_MODELS = cases(200, 2000) // ROWS
GROUPS = 10
DTYPES = ("uint8", "uint16", "float32", "float64")
WAYS = list(product(("float64", "float32", "compiled"), SCHEDULES))
MOST = {"lower": 0.03, "other": 0.02}
"""The parts of the fits that may end lower, or on a ridge."""
HIGHER = {"float64": 1e-8, "float32": 3e-6, "compiled": 3e-6}
"""What climbing on may gain, relative to the log-likelihood: plain ECM creeps where the tolerance ends it."""
SAME = 5e-6
"""Two optima are one if their log-likelihoods differ by less."""
MOVES = {"float64": (1e-3, 1e-3), "float32": (0.02, 0.15), "compiled": (0.02, 0.15)}
"""How far it may move a parameter: grey levels, and standard errors (0.15 of one are worth 0.01 of log-likelihood)."""


@dataclass(frozen=True)
class Model:
    """A random model, `ROWS` samples of it, and how the package is to fit them."""

    number: int
    way: str
    config: MixtureConfig
    truth: ecm.Params
    shape: tuple[int, int]
    values: np.ndarray
    positions: np.ndarray


def random_model(number):
    """Phases 2.5 to 8 sigmas apart under a trend; frames and samples of any size."""
    rng = np.random.default_rng([6, number])
    way, schedule = WAYS[number % len(WAYS)]
    k, trend = int(rng.integers(1, 5)), str(rng.choice(sorted(TREND_PRESETS)))
    sigmas = rng.uniform(3, 12, k)
    gaps = rng.uniform(2.5, 8, k - 1) * np.maximum(sigmas[1:], sigmas[:-1])
    means = 40 + np.concatenate([[0], np.cumsum(gaps)])
    n_terms = len(TREND_PRESETS[trend])
    truth = ecm.params(rng.dirichlet(np.full(k, 8.0)), means, sigmas, rng.uniform(-6, 6, n_terms))
    shape = tuple(int(n) for n in rng.integers(25, 60, 2))
    n = int(rng.integers(60 * k + 40, 600))
    draws = [ecm.draw(rng, n, truth, shape, TREND_PRESETS[trend]) for _ in range(ROWS)]
    config = MixtureConfig(
        n_components=k,
        trend=trend,
        schedule=schedule,
        tol=1e-12 if way == "float64" else 1e-8,  # below which float32 is noise
        max_iter=20000,
        trend_prior=None if rng.integers(2) else float(rng.uniform(1, 20)),
    )
    values = stored(np.stack([z for z, _, _ in draws]), str(rng.choice(DTYPES)))
    return Model(number, way, config, truth, shape, values, np.stack([p for _, p, _ in draws]).astype(np.int32))


def stored(values, dtype):
    """Grey levels as a movie of that type holds them."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return values.astype(kind)
    return np.clip(np.rint(values), 0, np.iinfo(kind).max).astype(kind)


def fitted(model):
    """The package's fits, and the grey levels that they saw."""
    values = model.values
    if model.way == "compiled":
        from gmrm_gpu.engines.compiled.device import CompiledDevice

        wide = values.dtype != np.uint8
        values = values.astype(np.float32) if wide else values
        options = {"wide": wide, "shape": model.shape, "device": CompiledDevice(1)}
        return fused(values, model.positions, model.config, **options), values.astype(np.float64)
    backend = NUMPY64 if model.way == "float64" else NUMPY32
    fit = fit_mixture(values, model.positions, model.shape, model.config, sigma_floor=FLOOR, backend=backend)
    return fit, values.astype(np.float64)


def objective(z, f, par, prior):
    return ecm.log_likelihood(z, f, par) + ecm.log_prior(par.coef, prior)


def is_the_maximum(z, f, par, model):
    """Whether climbing on from there gains next to nothing and moves no parameter."""
    prior = model.config.trend_prior
    top, best = ecm.maximise(z, f, par, prior)
    if best - objective(z, f, par, prior) > HIGHER[model.way] * abs(best):
        return False
    moved = np.abs(ecm.to_theta(par) - ecm.to_theta(top))
    level, error = MOVES[model.way]
    sizes = [np.full(len(par.weights) - 1, 1e-4), np.full_like(par.means, level), level / top.sigmas]
    allowed = np.concatenate([*sizes, np.full_like(par.coef, level)]) + error * ecm.standard_errors(z, f, top, prior)
    return bool((moved <= allowed).all())


def is_at_rest(z, f, par, model, n_steps=20):
    """Whether ECM steps from there gain what the tolerance of a fit leaves, and no more."""
    prior, before = model.config.trend_prior, objective(z, f, par, model.config.trend_prior)
    for _ in range(n_steps):
        par = ecm.ecm_step(z, f, par, FLOOR, prior)
    return objective(z, f, par, prior) - before <= 10 * n_steps * model.config.tol * len(z)


def compared(model, row, fit, z):
    """How far the package's optimum lies above the oracle's, relative to the log-likelihood; and of what kind it is."""
    name, prior = f"model {model.number}, sample {row}", model.config.trend_prior
    assert fit.status[row] in (FitStatus.CONVERGED, FitStatus.DROPPED), name
    f, alive = ecm.design(model.positions[row], model.shape, fit.terms), fit.weights[row] > 0
    par = ecm.Params(*(getattr(fit, part)[row][alive] for part in ("weights", "means", "sigmas")), fit.coef[row])
    value = ecm.log_likelihood(z, f, par)
    assert fit.log_likelihood[row] == pytest.approx(value, rel=1e-9 if model.way == "float64" else 1e-6), name
    inside = alive.all() and par.sigmas.min() > 1.01 * FLOOR
    kind = "maximum" if inside and is_the_maximum(z, f, par, model) else "other"
    assert kind == "maximum" or is_at_rest(z, f, par, model), name
    begin = model.truth
    for _ in range(10):
        begin = ecm.ecm_step(z, f, begin, FLOOR, prior)
    return (objective(z, f, par, prior) - ecm.maximise(z, f, begin, prior)[1]) / abs(value), kind


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_fit_that_loses_a_component_goes_on_with_the_others(schedule):
    """It takes likelihood with it, and a fall is not a gain that has become small."""
    model = random_model(54)
    model = replace(model, way="float64", config=replace(model.config, schedule=schedule))
    fit, levels = fitted(model)
    assert fit.status[1] == FitStatus.DROPPED
    assert compared(model, 1, fit, levels[1])[1] == "other"  # and at rest


@pytest.fixture(scope="module")
def odd():
    """Of all groups, the fits that ended below the oracle's, and those that ended at no maximum."""
    return {"lower": [], "other": []}


@pytest.mark.parametrize("group", range(GROUPS))
def test_fits_are_those_of_an_independent_one(group, odd, counted):
    pytest.importorskip("numba", reason="the extra cpu (Numba) is not installed")
    found = {}
    for number in range(group, N_MODELS, GROUPS):
        model = random_model(number)
        fit, levels = fitted(model)
        found |= {(number, row): compared(model, row, fit, levels[row]) for row in range(ROWS)}
    lower = [case for case, (gap, kind) in found.items() if gap < -SAME and kind == "maximum"]
    other = [case for case, (_, kind) in found.items() if kind == "other"]
    odd["lower"] += lower
    odd["other"] += other
    for name, ends in odd.items():
        assert len(ends) <= MOST[name] * N_MODELS * ROWS, f"{name} (model, sample): {ends}"
    counted("independent float64 fits compared", len(found))
    counted("... that end above the one from the truth", sum(gap > SAME for gap, _ in found.values()))
    counted("... that end below it, at another maximum", len(lower))
    counted("... that end on a ridge, at the floor of sigma or with a component dropped", len(other))
