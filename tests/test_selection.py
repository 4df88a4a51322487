"""Choosing K and trend: criteria and tests against the oracle, the bootstrap, what is recommended, bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from backends import NUMPY64, other_backends
from oracle import ecm
from oracle import select as oracle

import gmrm_gpu as gg
from gmrm_gpu import selection
from gmrm_gpu.config import AnalysisConfig, MixtureConfig, PhaseConfig, SamplingConfig, trend_terms
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.mixture import choose, local, select
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.results import FitStatus, MixtureFit
from gmrm_gpu.sampling import Sampler

SHAPE = (37, 53)
TRUTH = ecm.params([0.2, 0.5, 0.3], [45, 100, 155], [7, 10, 9], [6.0, -3.0])
TRENDS = ("none", "linear", "quadratic", "linear+electrode", "quadratic+electrode")
CONFIG = MixtureConfig(tol=1e-8, max_iter=5000)


def data(seed=0, n=500, rows=2, truth=TRUTH):
    """values (R, n) and positions (R, n) from the truth, whose trend is linear."""
    rng = np.random.default_rng(seed)
    draws = [ecm.draw(rng, n, truth, SHAPE, trend_terms("linear")) for _ in range(rows)]
    return np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws])


def candidates(values, positions, *, components=(1, 2, 3, 4), trends=TRENDS, backend=NUMPY64):
    return select.fit_candidates(
        values, positions, SHAPE, CONFIG, trends=trends, components=components, backend=backend
    )


# ---------------------------------------------------------------- criteria and tests


@pytest.mark.parametrize("make", [pytest.param(lambda: NUMPY64, id="numpy"), *other_backends()])
def test_criteria_are_those_of_the_oracle(make):
    values, positions = data()
    for candidate in candidates(values, positions, components=(1, 3), trends=("none", "linear"), backend=make()):
        fit = candidate.fit
        for r in range(2):
            par = ecm.params(fit.weights[r], fit.means[r], fit.sigmas[r], fit.coef[r])
            expected = oracle.criteria(values[r], ecm.design(positions[r], SHAPE, fit.terms), par)
            got = fit.log_likelihood[r], fit.aic[r], fit.bic[r], candidate.icl[r]
            np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_chi_square_p_values_are_those_of_the_oracle():
    values, positions = data()
    small, middle, large = (c.fit for c in candidates(values, positions, components=(3,), trends=TRENDS[:3]))
    for one, other, extra in ((small, middle, 2), (middle, large, 2), (small, large, 4)):
        statistic, df, p = select.likelihood_ratio_test(one, other)
        assert df == extra
        np.testing.assert_allclose(statistic, 2 * (other.log_likelihood - one.log_likelihood))
        np.testing.assert_allclose(p, [oracle.chi_square_tail(x, df) for x in statistic], rtol=1e-6, atol=1e-13)


def test_chi_square_is_refused_where_it_does_not_hold():
    values, positions = data()
    two, three, other = (
        fit_mixture(values, positions, SHAPE, MixtureConfig(n_components=k, trend=t), backend=NUMPY64)
        for k, t in ((2, "linear"), (3, "quadratic"), (3, "linear+electrode"))
    )
    for small, large in ((two, three), (three, other), (three, three)):
        with pytest.raises(ValueError, match="not nested"):
            select.likelihood_ratio_test(small, large)


@pytest.mark.parametrize("seed", range(2))
def test_log_likelihood_does_not_fall_when_a_model_grows(seed):
    values, positions = data(seed, n=150)
    made = {(c.trend, c.config.n_components): c.fit.log_likelihood for c in candidates(values, positions)}
    slack = 1e-8 * np.abs(made["none", 1])
    for (trend, k), value in made.items():
        if (trend, k + 1) in made:
            assert (made[trend, k + 1] >= value - slack).all()
        for larger in TRENDS:
            if set(trend_terms(trend)) < set(trend_terms(larger)):
                assert (made[larger, k] >= value - slack).all()


def test_a_component_that_finds_nothing_is_reported_and_costs_nothing():
    fit = fit_mixture(*data(), SHAPE, MixtureConfig(n_components=3, trend="linear"), backend=NUMPY64)
    padded = select.with_empty_component(fit)
    assert padded.n_components == 4
    assert (padded.status == FitStatus.DROPPED).all()
    np.testing.assert_array_equal(padded.bic, fit.bic)


def test_better_takes_the_better_of_each_row():
    fit = fit_mixture(*data(), SHAPE, MixtureConfig(n_components=2, trend="none"), backend=NUMPY64)
    one, other = (
        MixtureFit.from_arrays({**fit.arrays(), "log_likelihood": np.array(v), "n_iter": np.array(n)}, fit.terms)
        for v, n in (([-5.0, np.nan], [1, 1]), ([-6.0, -9.0], [2, 2]))
    )
    assert select.better(one, other).n_iter.tolist() == [1, 2]


# ---------------------------------------------------------------- bootstrap


def bootstrap(values, positions, k, seed=3, n_bootstrap=19, backend=NUMPY64):
    config = MixtureConfig(n_components=k, trend="linear", tol=1e-6, max_iter=300, starts=("quantile",))
    return select.bootstrap_components(
        values, positions, SHAPE, config, n_bootstrap=n_bootstrap, seed=seed, backend=backend
    )


def test_bootstrap_is_a_pure_function_of_data_and_seed():
    values, positions = data(n=200)
    first, again, other = (bootstrap(values, positions, 1, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.null, again.null)
    alone = bootstrap(values[:1], positions[:1], 1)
    np.testing.assert_array_equal(first.null[:1], alone.null)
    assert not np.array_equal(first.null, other.null)


def test_bootstrap_rejects_too_few_components_and_keeps_enough():
    values, positions = data(n=400)
    few, enough = (bootstrap(values, positions, k) for k in (2, 3))
    assert few.p_value.tolist() == [0.05, 0.05]
    assert (enough.p_value > 0.1).all()
    for test in (few, enough):
        assert (test.null >= 0).all()
        expected = (1 + (test.null >= test.statistic[:, None]).sum(axis=1)) / 20
        np.testing.assert_array_equal(test.p_value, expected)


def test_bootstrap_of_data_that_cannot_be_fitted_has_no_p_value():
    values, positions = data(n=200)
    values[0] = 7.0
    test = bootstrap(values, positions, 1)
    assert np.isnan(test.p_value[0])
    assert np.isfinite(test.p_value[1])


def test_bootstrap_level_under_the_null():
    """40 sets of one component, 19 draws each: 2 rejections expected at 5 %; 8 would be 4.4 sd above."""
    truth = ecm.params([1.0], [100], [10], [5.0, -3.0])
    p = bootstrap(*data(5, n=100, rows=40, truth=truth), 1).p_value
    assert (p <= 0.05).sum() < 8
    assert 0.3 < np.median(p) < 0.7


@pytest.mark.parametrize("make", other_backends())
def test_bootstrap_on_other_backends(make):
    values, positions = data(n=80, rows=1)
    expected, got = (bootstrap(values, positions, 1, n_bootstrap=3, backend=b) for b in (NUMPY64, make()))
    np.testing.assert_allclose(got.null, expected.null, rtol=1e-3, atol=1e-3)


def test_drawn_values_follow_the_mixture():
    """Share, mean and spread of 20,000 draws, each within 4 standard errors."""
    n = 20_000
    arrays = {"weights": [[0.3, 0.7, 0.0]], "means": [[50.0, 120.0, np.nan]], "sigmas": [[6.0, 10.0, np.nan]]}
    rest = dict.fromkeys(("log_likelihood", "n_iter", "n_samples", "status"), np.zeros(1))
    fit = MixtureFit(**{k: np.array(v) for k, v in arrays.items()}, coef=np.array([[4.0]]), **rest, terms=((1, 0),))
    positions = np.random.default_rng(1).integers(0, SHAPE[0] * SHAPE[1], (1, n))
    z = select.simulate(fit, positions, SHAPE, np.arange(1), seed=2, backend=NUMPY64)[0]
    z = z - 4.0 * ecm.design(positions[0], SHAPE, ((1, 0),))[:, 0]
    low = z < 85
    assert abs(low.mean() - 0.3) < 4 * np.sqrt(0.21 / n)
    for values, mean, sigma in ((z[low], 50, 6), (z[~low], 120, 10)):
        assert abs(values.mean() - mean) < 4 * sigma / np.sqrt(values.size)
        assert abs(values.std() - sigma) < 4 * sigma / np.sqrt(2 * values.size)


# ---------------------------------------------------------------- weights that vary over the frame


@pytest.mark.parametrize("make", [pytest.param(lambda: NUMPY64, id="numpy"), *other_backends()])
def test_local_weights_are_fitted_as_by_the_oracle(make):
    values, positions = data(n=400, rows=1)
    start = fit_mixture(values, positions, SHAPE, MixtureConfig(n_components=2, trend="linear"), backend=NUMPY64)
    got = local.fit_local(values[0], positions[0], SHAPE, start, sigma_floor=1e-3, tol=0.0, max_iter=5, backend=make())
    y, x = positions[0] // SHAPE[1], positions[0] % SHAPE[1]
    cell = (y * 2 // SHAPE[0]) * 2 + x * 2 // SHAPE[1]
    f = ecm.design(positions[0], SHAPE, start.terms)
    par = ecm.params(start.weights[0], start.means[0], start.sigmas[0], start.coef[0])
    weights = np.tile(par.weights, (4, 1))
    for _ in range(4):
        weights, par = oracle.local_step(values[0], f, cell, weights, par)
    value = oracle.local_log_likelihood(values[0], f, cell, weights, par)
    assert got.n_cells == 4
    np.testing.assert_allclose(got.fit.log_likelihood[0], value, rtol=1e-9)
    np.testing.assert_allclose(got.fit.means[0], par.means, rtol=1e-7)
    np.testing.assert_allclose(got.fit.sigmas[0], par.sigmas, rtol=1e-6)
    np.testing.assert_allclose(got.fit.coef[0], par.coef, rtol=1e-6, atol=1e-6)
    assert got.bic == pytest.approx((2 * 2 + 2 + 1 * 4) * np.log(400) - 2 * value, rel=1e-9)


def test_local_weights_keep_a_trend_from_following_the_specimen():
    """No trend in this movie: with common weights BIC wants one all the same, with local weights it does not."""
    movie = gg.simulate("battery", shape=(96, 96), n_frames=12, seed=1018, difficulty="hard", trend=0.0, sei=0.0).movie
    chosen = gg.select_model(movie, components=[3], trends=("none", "quadratic"), n_bootstrap=0)
    none, quadratic = chosen.rows
    assert quadratic.bic < none.bic - 30
    assert none.bic_local < quadratic.bic_local - 10
    assert chosen.trend == "none"


def test_local_weights_need_a_fit_to_start_from():
    values, positions = data(n=100, rows=1)
    start = fit_mixture(values * 0, positions, SHAPE, MixtureConfig(n_components=2), backend=NUMPY64)
    assert local.fit_local(values[0], positions[0], SHAPE, start, sigma_floor=0.3, backend=NUMPY64) is None


# ---------------------------------------------------------------- recommendation


@pytest.mark.parametrize(
    ("scenario", "options", "k", "trends"),
    [
        ("battery", {"difficulty": "easy"}, 3, TRENDS[1:]),
        ("battery", {"difficulty": "mid", "trend": 0.0}, 3, TRENDS),
        ("nanoparticles", {"difficulty": "mid"}, 2, TRENDS[1:]),
        ("nanoparticles", {"difficulty": "easy", "trend": 0.0}, 2, ("none",)),
    ],
)
def test_recommendation(scenario, options, k, trends):
    movie = gg.simulate(scenario, shape=(64, 64), n_frames=8, seed=4, **options).movie
    options = {"components": (k - 1, k, k + 1), "trends": TRENDS[:3], "max_samples": 2000}
    chosen = gg.select_model(movie, **options, n_bootstrap=0)
    assert (chosen.n_components, chosen.decided) == (k, True)
    assert chosen.trend in trends
    assert chosen.reason.startswith(f"{k} components: BIC falls by")
    assert 1900 < chosen.n_samples <= 2000
    config = chosen.apply(AnalysisConfig())
    assert (config.mixture.n_components, config.mixture.trend) == (k, chosen.trend)


@pytest.mark.parametrize(
    ("best", "most", "k", "says"),
    [
        ({1: 500.0, 2: 100.0, 3: 95.0}, 6, 2, "BIC falls by 400 from 1 to 2 and falls by 5 from 2 to 3"),
        ({1: 500.0, 2: 100.0, 3: 80.0}, 6, 3, "BIC falls by 20 from 2 to 3 ("),
        ({1: 500.0, 2: 100.0, 3: 80.0}, 2, 2, "BIC falls by 400 from 1 to 2 and falls by 20 from 2 to 3"),
        ({1: 7.0, 2: 7.0}, 6, 1, "1 component: BIC stays from 1 to 2"),
        ({4: 7.0}, 6, 4, "4 components, as asked for."),
        ({}, 6, None, "nothing is decided"),
    ],
)
def test_components_are_the_fewest_that_none_beats_by_far(best, most, k, says):
    chosen, why = choose.choose_components(best, most)
    assert chosen == k
    assert says in why


@pytest.fixture(scope="module")
def movie():
    return gg.simulate("battery", shape=(64, 72), n_frames=6, seed=2).movie


@pytest.fixture(scope="module")
def chosen(movie):
    seen = []
    result = gg.select_model(
        movie,
        components=(2, 3),
        trends=("none", "x,y", ((1, 0), (0, 1), (1, 1))),
        n_bootstrap=19,
        max_samples=1000,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    return result


def test_rows_and_tests_are_complete(chosen):
    assert [(r.trend, r.n_components) for r in chosen.rows] == [
        (t, k) for t in ("none", "x,y", "x,y,xy") for k in (2, 3)
    ]
    kinds = [t.kind for t in chosen.tests]
    assert kinds.count("trend") == 6
    assert kinds.count("trend, local weights") == 6
    tests = [t for t in chosen.tests if t.kind == "components"]
    assert [(t.n_components, t.larger_n_components, t.n_bootstrap) for t in tests] == [(2, 3, 19), (3, 4, 19)]
    assert tests[0].p_value == 0.05 < tests[1].p_value
    assert chosen.row(chosen.trend, 3).bic == min(r.bic for r in chosen.rows if r.trend == chosen.trend)
    assert chosen.row("none", 6) is None


def test_same_movie_same_answer(movie):
    options = {"components": (2,), "trends": ("linear",), "n_bootstrap": 5, "max_samples": 500}
    first, again = (gg.select_model(movie, **options) for _ in range(2))
    assert first.rows == again.rows
    assert first.tests == again.tests


def test_files(chosen, tmp_path):
    chosen.write_csv(tmp_path / "selection.csv")
    with open(tmp_path / "selection.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["trend"], int(r["n_components"])) for r in rows if r["recommended"] == "1"] == [(chosen.trend, 3)]
    assert float(rows[1]["bic"]) == pytest.approx(chosen.rows[1].bic, rel=1e-8)
    summary = chosen.summary()
    assert summary["n_components"] == 3
    assert len(summary["rows"]) == 6
    assert "BIC takes pixels for independent" in summary["note"]


def test_only_pixels_that_the_rate_draws_are_looked_at(movie):
    config = AnalysisConfig(sampling=SamplingConfig(rate=0.05, seed=9))
    stack = np.stack([movie.frame(t) for t in range(len(movie))])
    hidden = np.zeros_like(stack)
    sampler = Sampler(movie.shape, config.sampling)
    for t in range(len(movie)):
        seen = sampler.draw(np.array([0]), t, backend=NUMPY64).positions[0]
        hidden[t].reshape(-1)[seen] = stack[t].reshape(-1)[seen]
    options = {"components": (2, 3), "trends": ("none", "linear"), "n_bootstrap": 0}
    whole, part = (gg.select_model(m, config, **options) for m in (stack, hidden))
    np.testing.assert_array_equal(whole.values, part.values)
    assert whole.n_samples == 6 * sampler.capacity
    assert (whole.reason, [r.bic for r in whole.rows]) == (part.reason, [r.bic for r in part.rows])


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli", "stratified", "lines"])
def test_every_scheme_and_an_excluded_region(movie, scheme):
    mask = np.zeros(movie.shape, bool)
    mask[:, :30] = True
    masked = gg.open_movie(movie, exclude=mask)
    for rate in (0.1, 1.0):
        config = AnalysisConfig(sampling=SamplingConfig(rate=rate, scheme=scheme))
        pool = selection.pool_pixels(masked, config, 3, 600, NUMPY64)
        assert pool.frames == (0, 2, 5) or len(pool.frames) == 6
        assert 100 < pool.values.size <= 600
        assert not mask.reshape(-1)[pool.positions].any()


def test_a_model_that_one_frame_cannot_carry_is_not_recommended(movie):
    config = AnalysisConfig(sampling=SamplingConfig(rate=9 / (64 * 72)))
    chosen = gg.select_model(movie, config, trends=TRENDS[:2], n_bootstrap=0)
    mixture = chosen.apply(config).mixture
    assert mixture.n_parameters < 9


# ---------------------------------------------------------------- never fails, bad input


@pytest.mark.parametrize(
    "frames", [np.full((3, 20, 20), 9, np.uint8), np.array([[[1, 2]]], np.uint8)], ids=["constant", "two-pixels"]
)
def test_a_fallback_where_nothing_can_be_decided(frames):
    chosen = gg.select_model(frames)
    assert not chosen.decided
    assert "nothing is decided" in chosen.reason
    assert f"Fallback: K = {chosen.n_components}, trend none." in chosen.reason
    assert chosen.trend == "none"
    assert chosen.fit is None


@pytest.mark.parametrize(
    "frames",
    [
        np.random.default_rng(0).integers(0, 2, (3, 20, 20)).astype(np.uint8),
        np.random.default_rng(0).normal(100, 5, (1, 1, 300)),
        np.random.default_rng(0).normal(100, 5, (2, 9, 9)).astype(np.float32),
        np.arange(4, dtype=np.uint8).reshape(1, 2, 2),
    ],
    ids=["two-levels", "one-row", "small", "four-pixels"],
)
def test_odd_movies_get_an_answer(frames):
    chosen = gg.select_model(frames, components=(1, 2, 3), n_bootstrap=3)
    assert chosen.decided
    assert 1 <= chosen.n_components <= 3
    assert chosen.apply(AnalysisConfig()).mixture.n_components == chosen.n_components


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"components": ()}, "nothing to choose from"),
        ({"trends": ()}, "nothing to choose from"),
        ({"components": (0, 1)}, r"components is 0; it must lie in \[1, 6\]"),
        ({"components": (7,)}, "components is 7"),
        ({"components": (2.5,)}, "components is 2.5"),
        ({"trends": ("wavy",)}, "not a monomial"),
        ({"n_frames": 0}, "n_frames is 0"),
        ({"max_samples": 10}, "max_samples is 10"),
        ({"n_bootstrap": -1}, "n_bootstrap is -1"),
    ],
)
def test_bad_arguments(movie, options, says):
    with pytest.raises(ConfigError, match=says):
        gg.select_model(movie, **options)


def test_components_closer_than_their_widths_are_warned_of():
    fit = fit_mixture(*data(rows=1), SHAPE, MixtureConfig(n_components=3, trend="linear"), backend=NUMPY64)[0]
    assert choose.cautions(fit, None) == []
    near = MixtureFit.from_arrays({**fit.arrays(), "means": np.array([45.0, 100.0, 104.0])}, fit.terms)
    assert "Components 2 and 3 lie closer" in choose.cautions(near, None)[0]


def test_named_phases_are_checked_when_the_choice_is_applied(chosen):
    config = AnalysisConfig(mixture=MixtureConfig(n_components=2), phases=PhaseConfig("a,b"))
    with pytest.raises(ConfigError, match="phases names 2 components"):
        chosen.apply(config)


def test_summary_is_plain(chosen, tmp_path):
    from gmrm_gpu.output import write_json

    write_json(tmp_path / "selection.json", chosen.summary())
    assert json.loads((tmp_path / "selection.json").read_text("utf-8"))["trend"] == chosen.trend
