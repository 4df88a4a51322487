"""Estimators of a share with their design variance, and the smoother, against the oracle and by enumeration."""

import itertools

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from oracle import movie as oracle

from gmrm_gpu import estimate
from gmrm_gpu.config import SamplingConfig
from gmrm_gpu.results.estimate import Estimate
from gmrm_gpu.sampling import Sampler

RNG = np.random.default_rng(11)


def sample_mean(values, n_pixels, scheme="fixed", length=1, valid=None, backend=NUMPY64):
    """One or many rows of samples."""
    values = np.atleast_2d(values)
    n = np.full(len(values), values.shape[1]) if valid is None else valid.sum(axis=1)
    inside = None if valid is None else backend.asarray(valid)
    return estimate.sample_mean(backend.real(values), inside, n, n_pixels, scheme, length, backend=backend)


@pytest.mark.parametrize("backend", [lambda: NUMPY64, *other_backends()])
def test_mean_and_variance_equal_the_oracle(backend):
    backend = backend()
    values = RNG.normal(size=(3, 24))
    for scheme, oracle_of in (
        ("fixed", lambda v: oracle.simple_variance(v, 100)),
        ("bernoulli", lambda v: oracle.simple_variance(v, 100)),
        ("stratified", lambda v: oracle.successive_variance(v, 100)),
        ("lines", lambda v: oracle.segment_variance(v, 6, 100)),
    ):
        mean, variance = sample_mean(values, 100, scheme, 6, backend=backend)
        np.testing.assert_allclose(mean, values.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(variance, [oracle_of(v.tolist()) for v in values], rtol=1e-12)


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli"])
def test_padding_counts_for_nothing_whatever_it_holds(scheme):
    values, valid = RNG.normal(size=(2, 12)), np.arange(12) < np.array([[9], [5]])
    wild = np.where(valid, values, np.nan)
    mean, variance = sample_mean(wild, 50, scheme, valid=valid)
    for row, n in enumerate((9, 5)):
        alone = sample_mean(values[row, :n], 50, scheme)
        np.testing.assert_allclose([mean[row], variance[row]], [alone[0][0], alone[1][0]], rtol=1e-12)


def test_sums_are_float64_whatever_the_samples_are():
    values = np.full((1, 100_000), 0.1, dtype=np.float32)
    mean, _ = sample_mean(values, 10**6, backend=NUMPY32)
    assert abs(mean[0] - np.float64(np.float32(0.1))) < 1e-15


def test_variance_of_a_simple_random_sample_is_unbiased_over_all_samples():
    population = RNG.normal(size=9)
    every = np.array([population[list(c)] for c in itertools.combinations(range(9), 4)])
    mean, variance = sample_mean(every, 9)
    assert mean.mean() == pytest.approx(population.mean(), abs=1e-12)
    assert variance.mean() == pytest.approx(mean.var(), rel=1e-12)


def test_variance_between_segments_is_unbiased_over_all_samples():
    population = np.repeat(RNG.normal(size=8), 3) + 0.1 * RNG.normal(size=24)
    segments = population.reshape(8, 3)
    every = np.array([segments[list(c)].reshape(-1) for c in itertools.combinations(range(8), 4)])
    mean, variance = sample_mean(every, 24, "lines", 3)
    assert mean.mean() == pytest.approx(population.mean(), abs=1e-12)
    assert variance.mean() == pytest.approx(mean.var(), rel=1e-12)


def draws(scheme, rate, shape, n, seed=0):
    """Positions (n, m) and valid of n replicates of frame 0."""
    draw = Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, seed=seed)).draw(np.arange(n), 0, backend=NUMPY64)
    return draw.positions, draw.valid, draw.n_samples


@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [("fixed", 0.9, 1.1), ("bernoulli", 0.9, 1.1), ("lines", 0.85, 1.15), ("stratified", 1.0, 2.3)],
)
def test_variance_is_that_of_many_draws(scheme, low, high):
    # Ratio of the mean stated variance to the variance of 2,000 draws of seed 0. That of `stratified` errs on the
    # safe side, neighbouring blocks differing more than the pixels within one: 1.9 for the labels of a disk.
    shape = (48, 64)
    y, x = np.mgrid[:48, :64]
    label = ((x - 30) ** 2 + (y - 20) ** 2 < 300).astype(float).reshape(-1)
    length = Sampler(shape, SamplingConfig(rate=0.1, scheme=scheme)).cluster_length if scheme == "lines" else 1
    positions, valid, n = draws(scheme, 0.1, shape, 2000)
    mean, variance = estimate.sample_mean(label[positions], valid, n, label.size, scheme, length, backend=NUMPY64)
    assert low < variance.mean() / mean.var() < high
    assert abs(mean.mean() - label.mean()) < 4 * np.sqrt(mean.var() / 2000)


@pytest.mark.parametrize("quality", ["perfect", "useless", "inverted"])
def test_assisted_is_unbiased_for_any_prediction(quality):
    # 4 standard errors of 3,000 draws, seed 1.
    label = (np.arange(1200) % 40 < 13).astype(float)
    expected = {"perfect": label, "useless": RNG.random(1200), "inverted": 1 - label}[quality]
    positions, _, _ = draws("fixed", 0.05, (30, 40), 3000, seed=1)
    error, _ = sample_mean((label - expected)[positions], 1200)
    share = error + expected.mean()
    one = oracle.difference(label[positions[0]].tolist(), expected[positions[0]].tolist(), expected.tolist())
    assert share[0] == pytest.approx(one, abs=1e-12)
    assert abs(share.mean() - label.mean()) <= 4 * share.std() / np.sqrt(3000) + 1e-12
    assert (share.std() < 1e-12) == (quality == "perfect")


def test_intervals_cover_what_they_say():
    # Share of 60 x 400 simulated frames whose 80 % interval holds the truth, seed 2: within four standard errors of
    # frames that share their variance with the neighbours, about 0.02.
    label = (RNG.random(2500) < 0.3).astype(float)
    sampler = Sampler((50, 50), SamplingConfig(rate=0.08, seed=2))
    shares, variances = [], []
    for t in range(60):
        draw = sampler.draw(np.arange(400), t, backend=NUMPY64)
        mean, variance = estimate.sample_mean(
            label[draw.positions], None, draw.n_samples, 2500, "fixed", 1, backend=NUMPY64
        )
        shares.append(mean)
        variances.append(variance)
    shares, n = np.stack(shares, axis=1), np.full((400, 60), 200)
    steady = estimate.steady_variance(np.stack(variances, axis=1), n, 2500)
    low, high = Estimate(shares, np.sqrt(steady)).interval(0.8)
    assert abs(((low <= label.mean()) & (label.mean() <= high)).mean() - 0.8) < 0.02


def test_one_sample_and_none():
    valid = np.array([[True, False], [False, False]])
    mean, variance = sample_mean(np.array([[0.7, 9.0], [9.0, 9.0]]), 10, valid=valid)
    assert mean[0] == 0.7
    assert variance[0] == 0
    assert np.isnan([mean[1], variance[1]]).all()
    for scheme in ("stratified", "lines", "bernoulli"):
        assert np.isfinite(sample_mean(np.array([[0.3]]), 10, scheme)).all()


def test_steady_variance_is_a_mean_of_nine_frames_and_never_nothing():
    variance = RNG.random((2, 20))
    variance[0, 3] = np.nan
    n = np.full((2, 20), 50)
    found = estimate.steady_variance(variance, n, 1000)
    for r, t in itertools.product(range(2), range(20)):
        near = variance[r, max(t - 4, 0) : t + 5]
        wanted = np.nan if np.isnan(variance[r, t]) else np.nanmean(near)
        np.testing.assert_allclose(found[r, t], wanted, rtol=1e-12)
    least = estimate.steady_variance(np.zeros((1, 3)), np.full((1, 3), 50), 1000)
    np.testing.assert_allclose(least, 0.95 * 0.5 / 50**2)
    assert (estimate.steady_variance(np.zeros((1, 3)), np.full((1, 3), 1000), 1000) == 0).all()


def curve(n, seed, sd=0.02):
    rng = np.random.default_rng(seed)
    truth = 0.3 + 0.1 * np.sin(np.arange(n) / 5)
    spread = sd * (0.5 + rng.random(n))
    return truth, truth + spread * rng.normal(size=n), spread


def test_smoother_equals_the_joint_normal_law():
    for seed, gaps in ((0, []), (1, [0, 4, 5, 11])):
        _, y, sd = curve(12, seed)
        y[gaps] = np.nan
        found = estimate.smooth(Estimate(y[None], sd[None]))
        mean, variance = oracle.local_trend(y, sd**2, estimate._STEPS)
        np.testing.assert_allclose(found.share[0], mean, atol=1e-8)
        np.testing.assert_allclose(found.sd[0], np.sqrt(variance), rtol=1e-5)


def test_frames_that_are_missing_are_gaps_for_the_smoother():
    _, y, sd = curve(12, 1)
    kept = np.array([0, 1, 4, 5, 6, 9, 11])
    found = estimate.smooth_with_gaps(Estimate(y[None, kept], sd[None, kept]), 100 + 3 * kept)
    y[np.setdiff1d(np.arange(12), kept)] = np.nan
    mean, variance = oracle.local_trend(y, sd**2, estimate._STEPS)
    np.testing.assert_allclose(found.share[0], mean[kept], atol=1e-8)
    np.testing.assert_allclose(found.sd[0], np.sqrt(variance[kept]), rtol=1e-5)


def test_places_in_time():
    assert estimate.places_in_time(np.array([3])).tolist() == [0]
    assert estimate.places_in_time(np.array([0, 5, 10, 20, 35])).tolist() == [0, 1, 2, 4, 7]
    assert estimate.places_in_time(np.array([0, 1, 10_000])).tolist() == [0, 1, 65]


def test_smoothed_is_narrower_than_single_frames():
    # Errors of 200 curves of 60 frames, seeds 0-199.
    truth, y, sd = (np.stack(a) for a in zip(*(curve(60, seed) for seed in range(200)), strict=True))
    found = estimate.smooth(Estimate(y, sd))
    assert (found.share - truth).std() < 0.6 * (y - truth).std()
    assert (found.sd < sd).mean() > 0.99


def test_smoothed_covers_what_it_says_where_the_curve_is_such_a_walk():
    # 2,000 curves whose slope walks with a step of one of the candidate sizes, seed 3: 80 % within four standard
    # errors of 2,000 independent curves' single frames.
    rng = np.random.default_rng(3)
    step = rng.choice(estimate._STEPS, 2000)[:, None]
    slope = 0.1 * rng.normal(size=(2000, 1)) + np.cumsum(step * rng.normal(size=(2000, 30)), axis=1)
    truth = rng.normal(size=(2000, 1)) + np.cumsum(slope, axis=1) - slope[:, :1]
    sd = np.full_like(truth, 0.02)
    found = estimate.smooth(Estimate(truth + sd * rng.normal(size=truth.shape), sd))
    inside = np.abs(found.share - truth) <= 1.2815516 * found.sd
    assert np.abs(inside.mean(axis=0) - 0.8).max() < 4 * np.sqrt(0.16 / 2000)


def test_each_curve_is_smoothed_by_itself():
    _, y, sd = (np.stack(a) for a in zip(*(curve(20, seed) for seed in range(3)), strict=True))
    together = estimate.smooth(Estimate(y, sd))
    for r in range(3):
        alone = estimate.smooth(Estimate(y[r : r + 1], sd[r : r + 1]))
        assert np.array_equal(alone.share[0], together.share[r])
        assert np.array_equal(alone.sd[0], together.sd[r])


def test_curves_that_leave_nothing_to_smooth():
    exact = np.array([[0.0, 0.1, 0.4, 0.35, 0.9]])
    found = estimate.smooth(Estimate(exact, np.zeros((1, 5))))
    np.testing.assert_allclose(found.share, exact, atol=1e-6)
    assert (found.sd < 1e-6).all()
    lost = estimate.smooth(Estimate(np.full((1, 5), np.nan), np.full((1, 5), np.nan)))
    assert np.isfinite(lost.share).all()
    assert (lost.sd > 0.5).all()
    for n in (1, 2):
        short = Estimate(np.full((2, n), 0.3), np.full((2, n), 0.1))
        assert estimate.smooth(short) is short


def test_interval_lies_within_the_possible():
    low, high = Estimate(np.array([[0.01, 0.5, 0.99]]), np.array([[0.1, 0.1, 0.1]])).interval(0.9)
    np.testing.assert_allclose(low, [[0, 0.5 - 0.164485, 0.99 - 0.164485]], atol=1e-6)
    np.testing.assert_allclose(high, [[0.01 + 0.164485, 0.5 + 0.164485, 1]], atol=1e-6)
