"""A normal prior on the trend's coefficients: the penalised fit against loops in float64, and its two limits."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from oracle import channels as channel_oracle
from oracle import ecm

from gmrm_gpu.cli.options import analysis_config
from gmrm_gpu.cli.parser import build_parser
from gmrm_gpu.config import SCHEDULES, MixtureConfig, trend_terms
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.mixture.channels import fit_channels
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.results import FitStatus

SHAPE = (37, 53)
TREND = "quadratic+electrode"
TERMS = trend_terms(TREND)
TRUTH = ecm.params([0.3, 0.45, 0.25], [45, 100, 155], [7, 10, 9], [6, -3, 4, 2, -2])


def data(seed, n=500, rows=2):
    rng = np.random.default_rng(seed)
    draws = [ecm.draw(rng, n, TRUTH, SHAPE, TERMS) for _ in range(rows)]
    return np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]), [d[2] for d in draws]


def config(**options):
    return MixtureConfig(**{"n_components": 3, "trend": TREND, "tol": 1e-13, "max_iter": 20000} | options)


def fit(values, positions, cfg, backend=NUMPY64, **options):
    return fit_mixture(values, positions, SHAPE, cfg, backend=backend, **options)


def params_of(result, r):
    return ecm.params(result.weights[r], result.means[r], result.sigmas[r], result.coef[r])


def test_a_reference_step_is_the_ecm_step():
    values, positions, designs = data(1)
    options = {"schedule": "reference", "starts": ("quantile",), "tol": 1e-15, "trend_prior": 0.7}
    steps = [fit(values, positions, config(max_iter=i, **options)) for i in range(1, 5)]
    for r, f in enumerate(designs):
        par = params_of(steps[0], r)
        for step in steps[1:]:
            par = ecm.ecm_step(values[r], f, par, prior=0.7)
            for name in ("weights", "means", "sigmas", "coef"):
                np.testing.assert_allclose(getattr(step, name)[r], getattr(par, name), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prior", [0.3, 3.0])
def test_ends_at_a_fixed_point_of_the_oracle(schedule, prior):
    """The log-likelihood that is returned is that of the data alone."""
    values, positions, designs = data(2)
    result = fit(values, positions, config(schedule=schedule, trend_prior=prior))
    assert (result.status == FitStatus.CONVERGED).all()
    for r, f in enumerate(designs):
        par = params_of(result, r)
        assert result.log_likelihood[r] == pytest.approx(ecm.log_likelihood(values[r], f, par), rel=1e-11)
        after = ecm.ecm_step(values[r], f, par, prior=prior)
        for name in ("weights", "means", "sigmas", "coef"):
            np.testing.assert_allclose(getattr(after, name), getattr(par, name), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_objective_never_falls(schedule, backend):
    """Log-likelihood plus log prior; an extrapolation that fell is taken back in the next pass."""
    values, positions, _ = data(3, rows=4)
    allowance = 3e-7 * 500 if backend is NUMPY32 else 1e-9
    for prior in (0.05, 2.0):
        trace = []
        cfg = config(schedule=schedule, trend_prior=prior, starts=("spread",), n_start_iter=1, tol=1e-10)
        fit(values, positions, cfg, backend, trace=trace)
        for r in range(4):
            best, fell = -np.inf, False
            for index, value in trace:
                if r not in index:
                    continue
                now = float(value[list(index).index(r)])
                below = now < best - allowance
                assert not (below and (fell or schedule == "reference"))
                best, fell = max(best, now), below
            assert now >= best - allowance


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_limits(schedule):
    """A wide prior changes nothing, a narrow one leaves no trend."""
    values, positions, _ = data(4)
    plain = fit(values, positions, config(schedule=schedule))
    wide = fit(values, positions, config(schedule=schedule, trend_prior=1e8))
    none = fit(values, positions, config(schedule=schedule, trend="none"))
    narrow = fit(values, positions, config(schedule=schedule, trend_prior=1e-6))
    for a, b in ((wide, plain), (narrow, none)):
        np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-9)
        for name in ("weights", "means", "sigmas"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(wide.coef, plain.coef, atol=1e-3)
    np.testing.assert_allclose(narrow.coef, 0, atol=1e-6)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_samples_in_two_adjacent_rows(backend):
    """There y is nearly a constant: its terms reach 100s of grey levels; a prior of 10 keeps them in order."""
    rng = np.random.default_rng(5)
    positions = 18 * SHAPE[1] + np.arange(2 * SHAPE[1])
    f = ecm.design(positions, SHAPE, TERMS)
    k = rng.choice(3, (20, len(positions)), p=TRUTH.weights)
    values = TRUTH.means[k] + TRUTH.sigmas[k] * rng.standard_normal(k.shape) + f @ TRUTH.coef
    free = fit(values, positions, config(tol=1e-8), backend)
    held = fit(values, positions, config(tol=1e-8, trend_prior=10.0), backend)
    assert np.nanmedian(np.abs(free.coef[:, 2])) > 30
    assert np.nanmax(np.abs(held.coef)) < 30
    assert np.isfinite(held.log_likelihood).all()
    assert (np.abs(np.nanmedian(held.means, axis=0) - TRUTH.means) < 6).all()


def test_grey_levels_are_the_unit():
    values, positions, _ = data(6)
    base = fit(values, positions, config(trend_prior=1.0))
    moved = fit(values * 50 + 7, positions, config(trend_prior=50.0))
    np.testing.assert_allclose(moved.coef / 50, base.coef, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose((moved.means - 7) / 50, base.means, rtol=1e-6)


@pytest.mark.parametrize("make", other_backends())
def test_other_backends(make):
    values, positions, _ = data(7)
    cfg = config(trend_prior=1.0, tol=1e-11)
    a, b = fit(values, positions, cfg), fit(values, positions, cfg, make())
    np.testing.assert_allclose(b.log_likelihood, a.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(b.coef, a.coef, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_channels(schedule):
    """A prior of one grey level in each channel: a fixed point of the oracle, and limits as for one channel."""
    values, positions, designs = data(8, n=200, rows=1)
    second = 0.5 * values + np.random.default_rng(8).normal(0, 6, values.shape)
    both = np.stack([values, second], axis=1)
    cfg = config(trend_prior=1.0, schedule=schedule, n_components=2)
    found = fit_channels(both, positions, SHAPE, cfg, backend=NUMPY64)[0]
    par = channel_oracle.Params(found.weights, found.means, found.covariances, found.coef)
    after = channel_oracle.ecm_step(both[0].T, designs[0], par, prior=1.0)
    for a, b in zip(after, par, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    narrow = fit_channels(both, positions, SHAPE, replace(cfg, trend_prior=1e-6), backend=NUMPY64)
    none = fit_channels(both, positions, SHAPE, replace(cfg, trend="none"), backend=NUMPY64)
    np.testing.assert_allclose(narrow.log_likelihood, none.log_likelihood, rtol=1e-9)


def test_settings():
    args = build_parser().parse_args(["analyze", "movie.npy", "--trend-prior", "15"])
    assert analysis_config(args).mixture.trend_prior == 15.0
    assert MixtureConfig().trend_prior is None
    for bad in (0, -1.0, float("nan"), "5"):
        with pytest.raises(ConfigError, match="trend_prior"):
            MixtureConfig(trend_prior=bad)
