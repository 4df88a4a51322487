"""The residual histogram against loops over samples and bins, direct maximisation, and the fit without it."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends, strict
from oracle import ecm
from oracle import histogram as oracle
from test_fit import COEF, TRENDS, assert_close, assert_same_bits, check_never_falls, history, params_of

from gmrm_gpu.cli.options import analysis_config
from gmrm_gpu.cli.parser import build_parser
from gmrm_gpu.config import MixtureConfig, trend_terms
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.mixture import histogram as module
from gmrm_gpu.mixture.channels import fit_channels
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.mixture.histogram import BINS, BinModel, Histogram
from gmrm_gpu.mixture.moments import Layout, moments
from gmrm_gpu.results import FitStatus

SHAPE = (61, 53)
TRUTH = {
    1: ([1.0], [110], [12]),
    2: ([0.35, 0.65], [70, 120], [10, 13]),
    3: ([0.3, 0.45, 0.25], [60, 100, 140], [9, 12, 11]),
    4: ([0.2, 0.4, 0.25, 0.15], [40, 85, 125, 170], [9, 12, 10, 12]),
}


def data(seed, k, q, *, n=2000, rows=2, shape=SHAPE):
    """Values and positions (R, n), and the designs, of seeded replicates whose phases overlap."""
    rng, truth = np.random.default_rng(seed), ecm.params(*TRUTH[k], COEF[:q])
    draws = [ecm.draw(rng, n, truth, shape, trend_terms(TRENDS[q])) for _ in range(rows)]
    return np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]), [d[2] for d in draws]


def config(k, q, **options):
    return MixtureConfig(**{"n_components": k, "trend": TRENDS[q], "histogram": True, "tol": 1e-12} | options)


def fit(values, positions, cfg, backend=NUMPY64, shape=SHAPE, **options):
    return fit_mixture(values, positions, shape, cfg, backend=backend, **options)


def one_pass(backend=NUMPY64, *, valid=None, k=3, q=5):
    """Samples, a point theta (R, 3K + q) off the optimum, its sums, and the same samples as plain arrays."""
    values, positions, designs = data(5, k, q)
    basis = TrendBasis(trend_terms(TRENDS[q]))
    samples = make_samples(values, positions, SHAPE, basis, valid=valid, backend=backend)
    rng = np.random.default_rng(6)
    weights, means, sigmas = (np.array(a, dtype=float) for a in TRUTH[k])
    theta = np.concatenate([np.log(weights), (means - 105) / 33, np.log(sigmas / 30), np.array(COEF[:q]) / 40])
    theta = theta[None, :] + 0.05 * rng.standard_normal((2, theta.size))
    theta[:, :k] -= np.log(np.exp(theta[:, :k]).sum(axis=1, keepdims=True))
    found = backend.asarray(theta)
    sums = moments(samples, found, Layout(k, q), backend=backend)
    plain = []
    for r in range(2):
        keep = slice(None) if valid is None else valid[r]
        centre, scale = (float(backend.to_host(a)[r]) for a in (samples.centre, samples.scale))
        plain.append(((values[r, keep] - centre) / scale, designs[r][keep]))
    return samples, found, sums, theta, plain


def settled(backend, samples, theta, sums, *, k=3, wanted=(True, True), **options):
    """What `Histogram.settle` makes of a point that is its own target."""
    histogram = Histogram(config(k, theta.shape[1] - 3 * k, **options), backend)
    state = histogram.bins_of(2) | {"theta": theta, "settled": backend.zeros((2,), backend.xp.bool)}
    floor = backend.zeros((2,), backend.xp.float64) + 1e-6
    return histogram, histogram.settle(samples, sums, theta, state, floor, backend.asarray(np.array(wanted)))


# -- the bins ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [pytest.param(lambda: NUMPY64, id="numpy"), *other_backends()])
def test_bins_are_those_of_a_loop(make):
    """Whole parts of samples, exactly; padding counts nowhere."""
    backend = make()
    valid = np.random.default_rng(7).random((2, 2000)) < 0.9
    samples, found, sums, theta, plain = one_pass(backend, valid=valid)
    _, new = settled(backend, samples, found, sums)
    centres, counts = (backend.to_host(new[name]) for name in ("centres", "counts"))
    assert backend.to_host(new["settled"]).all()
    for r, (z, f) in enumerate(plain):
        residual, bend = z - f @ theta[r, 9:], np.abs(theta[r, 9:]).sum()
        means, sigmas = theta[r, 3:6], np.exp(theta[r, 6:9])
        # Padding stands at zero, the mean, which is never the lowest or the highest value.
        low = max((means - 6 * sigmas).min(), z.min() - bend)
        width = (min((means + 6 * sigmas).max(), z.max() + bend) - low) / (BINS - 1)
        np.testing.assert_allclose(centres[r], low + width * np.arange(BINS), rtol=0, atol=1e-12)
        wanted = np.array(oracle.shares(residual, low, width, BINS, 64)) / 64
        assert counts[r].sum() == valid[r].sum()
        # A part is rounded: an error of the last bit of a residual may move one.
        assert np.abs(counts[r] - wanted).max() <= 1 / 64
        assert (counts[r] != wanted).sum() <= 4


def test_bins_in_float32_hold_every_sample():
    samples, found, sums, _, _ = one_pass(NUMPY32)
    _, new = settled(NUMPY32, samples, found, sums)
    assert (new["counts"].sum(axis=1) == 2000).all()
    assert (new["counts"] * 64 == np.rint(new["counts"] * 64)).all()


def test_what_lies_beyond_counts_at_the_ends():
    values, positions, _ = data(8, 2, 0, rows=1)
    values[0, :3] = [-4000, 3000, 6000]  # hot pixels, far beyond six sigmas
    samples = make_samples(values, positions, SHAPE, TrendBasis(()), backend=NUMPY64)
    scale, centre = samples.scale[0], samples.centre[0]
    theta = np.array([[-0.7, -0.7, (70 - centre) / scale, (120 - centre) / scale, *np.log([10 / scale, 13 / scale])]])
    histogram = Histogram(config(2, 0), NUMPY64)
    centres, counts, fine = histogram._binned(samples, theta, np.array([True]))
    assert fine.all()
    np.testing.assert_allclose(centres[0, [0, -1]] * scale + centre, [70 - 60, 120 + 78], rtol=1e-12)
    assert counts[0, 0] >= 1
    assert counts[0, -1] >= 2
    assert counts.sum() == 2000


def test_coarse_bins_are_not_used():
    """A component so narrow that bins would be wider than half its sigma keeps its point."""
    samples, _, _, theta, _ = one_pass()
    narrow = theta.copy()
    narrow[1, 7] = np.log(1e-3)
    _, new = settled(NUMPY64, samples, narrow, moments(samples, narrow, Layout(3, 5), backend=NUMPY64))
    assert new["settled"].tolist() == [True, False]
    np.testing.assert_array_equal(new["theta"][1], narrow[1])
    assert (new["theta"][0] != narrow[0]).any()


def test_bins_drop_no_component():
    """One that holds less than two samples is left to the step on the samples."""
    samples, _, _, theta, _ = one_pass()
    rare = theta.copy()
    rare[1, 2], rare[1, 5] = np.log(3e-4), 9.0
    _, new = settled(NUMPY64, samples, rare, moments(samples, rare, Layout(3, 5), backend=NUMPY64))
    np.testing.assert_array_equal(new["theta"][1], rare[1])
    assert (new["theta"][0] != rare[0]).any()


def test_only_what_is_wanted_moves():
    samples, found, sums, theta, _ = one_pass()
    both, one = (settled(NUMPY64, samples, found, sums, wanted=w)[1] for w in ((True, True), (False, True)))
    assert one["settled"].tolist() == [False, True]
    np.testing.assert_array_equal(one["theta"][0], theta[0])
    np.testing.assert_array_equal(one["theta"][1], both["theta"][1])
    np.testing.assert_array_equal(both["theta"][:, 9:], theta[:, 9:])
    none = settled(NUMPY64, samples, found, sums, wanted=(False, False))[1]
    assert not none["settled"].any()
    assert "theta" not in none


# -- the mixture of the bins ----------------------------------------------------------------------------------------


def bins_at(samples, found, sums):
    histogram, new = settled(NUMPY64, samples, found, sums)
    bins = histogram._bins(new["centres"], new["counts"], samples.n)
    bins.missing = histogram._missing(
        bins, replace(sums, resp=sums.resp[:, :, :1], dev=sums.dev[:, :, :1]), found[:, :9]
    )
    return bins, BinModel(MixtureConfig(n_components=3, trend="none"), NUMPY64)


def test_at_the_point_of_the_pass_the_step_is_that_of_the_samples():
    """With what the bins lack added, weights, means and sigmas follow as from every sample by itself."""
    samples, found, sums, theta, plain = one_pass()
    bins, model = bins_at(samples, found, sums)
    value, there = model.evaluate(bins, found[:, :9])
    after = model.step(bins, there, found[:, :9], np.full(2, 1e-6), "fast")
    for r, (z, f) in enumerate(plain):
        residual = z - f @ theta[r, 9:]
        parts = np.exp(theta[r, :3]), theta[r, 3:6], np.exp(theta[r, 6:9])
        exact, _ = oracle.sums(residual, np.ones_like(residual), *parts)
        weights, means, sigmas = oracle.step(exact)
        np.testing.assert_allclose(np.exp(after[r, :3]), weights, rtol=1e-10)
        np.testing.assert_allclose(after[r, 3:6], means, rtol=0, atol=1e-10)
        np.testing.assert_allclose(np.exp(after[r, 6:9]), sigmas, rtol=1e-10)
        binned, log_likelihood = oracle.sums(bins.z[r, 0], bins.valid[r, 0], *parts)
        np.testing.assert_allclose(bins.missing[r], exact - binned, rtol=0, atol=1e-8)
        assert np.abs(bins.missing[r]).max() > 1e-3, "the bins lack nothing: this test tests nothing"
        wanted = log_likelihood + oracle.complete(exact - binned, *parts)
        assert value[r] == pytest.approx(wanted, rel=1e-11)


def test_elsewhere_the_sums_are_those_of_the_bins_and_what_they_lack():
    samples, found, sums, _, _ = one_pass()
    bins, model = bins_at(samples, found, sums)
    other = found[:, :9] + 0.05
    other[:, :3] -= 0.05
    _, there = model.evaluate(bins, other)
    for r in range(2):
        parts = np.exp(other[r, :3]), other[r, 3:6], np.exp(other[r, 6:9])
        count, first, second = oracle.sums(bins.z[r, 0], bins.valid[r, 0], *parts)[0] + bins.missing[r]
        means = other[r, 3:6]
        np.testing.assert_allclose(there.resp[r, :, 0], count, rtol=1e-10)
        np.testing.assert_allclose(there.dev[r, :, 0], first - means * count, rtol=0, atol=1e-8)
        np.testing.assert_allclose(there.square[r], second - 2 * means * first + means**2 * count, rtol=0, atol=1e-8)


def test_its_steps_never_let_its_objective_fall():
    samples, found, sums, _, _ = one_pass()
    bins, model = bins_at(samples, found, sums)
    theta, last = found[:, :9], -np.inf
    for _ in range(60):
        value, there = model.evaluate(bins, theta)
        assert (value >= last - 1e-9).all()
        theta, last = model.step(bins, there, theta, np.full(2, 1e-6), "fast"), value


def test_it_settles_at_the_optimum_of_its_trend():
    """Weights, means and sigmas nearly as if every sample had been visited until nothing changed."""
    samples, found, sums, theta, plain = one_pass()
    _, new = settled(NUMPY64, samples, found, sums)
    for r, (z, f) in enumerate(plain):
        residual = (z - f @ theta[r, 9:]).reshape(-1)
        start = ecm.params(np.exp(theta[r, :3]), theta[r, 3:6], np.exp(theta[r, 6:9]))
        exact, _ = ecm.maximise(residual, np.zeros((len(residual), 0)), start)
        np.testing.assert_allclose(new["theta"][r, 3:6], exact.means, rtol=0, atol=2e-4)
        np.testing.assert_allclose(np.exp(new["theta"][r, 6:9]), exact.sigmas, rtol=0, atol=2e-4)
        assert np.abs(theta[r, 3:6] - exact.means).max() > 0.01


# -- the fit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "q"), [(1, 0), (1, 5), (2, 0), (2, 3), (3, 5), (4, 0), (4, 5)])
def test_ends_at_the_direct_maximum(k, q):
    """METHOD.md 3: log-likelihood within 1e-8 relative, parameters within 1e-3 grey level."""
    values, positions, designs = data(10 * k + q, k, q)
    found, plain = (fit(values, positions, config(k, q, histogram=h, tol=1e-13, max_iter=20000)) for h in (True, False))
    assert (found.status == FitStatus.CONVERGED).all()
    np.testing.assert_allclose(found.log_likelihood, plain.log_likelihood, rtol=1e-8)
    for r, f in enumerate(designs):
        own = params_of(found, r)
        assert found.log_likelihood[r] == pytest.approx(ecm.log_likelihood(values[r], f, own), rel=1e-11)
        direct, best = ecm.maximise(values[r], f, own)
        assert found.log_likelihood[r] == pytest.approx(best, rel=1e-8)
        for name in ("means", "sigmas", "coef"):
            np.testing.assert_allclose(getattr(own, name), getattr(direct, name), atol=1e-3, rtol=0, err_msg=name)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_log_likelihood_never_falls(backend):
    values, positions, _ = data(20, 4, 5, rows=4)
    trace = []
    found = fit(values, positions, config(4, 5, starts=("quantile",), tol=1e-9), backend, trace=trace)
    slack = 3e-7 * 2000 if backend is NUMPY32 else 1e-8
    for r in range(4):
        seen = history(trace, r)
        assert len(seen) == found.n_iter[r]
        best, _ = check_never_falls(seen, slack, fast=True)
        assert seen[-1] >= best - slack


def test_more_passes_never_end_lower():
    values, positions, designs = data(21, 4, 5, rows=3)
    last = np.full(3, -np.inf)
    for max_iter in range(2, 16):
        found = fit(values, positions, config(4, 5, starts=("spread",), max_iter=max_iter, tol=1e-15))
        for r, f in enumerate(designs):
            assert found.log_likelihood[r] == pytest.approx(ecm.log_likelihood(values[r], f, params_of(found, r)))
        assert (found.log_likelihood >= last - 1e-9).all(), f"max_iter {max_iter}"
        last = found.log_likelihood


def test_a_histogram_that_misleads_is_given_up(monkeypatch):
    """Bins as wide as a component, let through: what they lead to is refused, and the optimum is the same."""
    values, positions, _ = data(22, 3, 2, rows=6)
    plain = fit(values, positions, config(3, 2, histogram=False))
    monkeypatch.setattr(module, "BINS", 16)
    monkeypatch.setattr(module, "_COARSE", np.inf)
    trace = []
    found = fit(values, positions, config(3, 2), trace=trace)
    refused = [check_never_falls(history(trace, r), 1e-8, fast=True)[1] for r in range(6)]
    assert max(refused) > 0, "nothing is refused: this test tests nothing"
    np.testing.assert_array_equal(found.status, plain.status)
    np.testing.assert_allclose(found.log_likelihood, plain.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(found.means, plain.means, atol=1e-3)


def full_frame(seed, k, *, side=160):
    """All pixels of a frame under the default trend, 8 bits."""
    rng = np.random.default_rng(seed)
    positions, (weights, means, sigmas) = np.arange(side * side), TRUTH[k]
    f = ecm.design(positions, (side, side), trend_terms(TRENDS[5]))
    phase = rng.choice(k, side * side, p=weights)
    values = np.array(means)[phase] + np.array(sigmas)[phase] * rng.standard_normal(side * side) + f @ COEF
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)[None, :], positions, (side, side)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_spares_passes_over_a_full_frame(dtype):
    """25,600 pixels, four components for three phases: a third of the passes, and no lower optimum."""
    values, positions, shape = full_frame(23, 3)
    backend = NUMPY32 if dtype == "float32" else NUMPY64
    found, plain = (
        fit(values, positions, MixtureConfig(histogram=h), backend, shape=shape, sigma_floor=0.2887)
        for h in (True, False)
    )
    assert found.n_iter[0] <= plain.n_iter[0] / 3
    assert found.log_likelihood[0] >= plain.log_likelihood[0] - 1e-8 * abs(plain.log_likelihood[0])


@pytest.mark.parametrize("scale", [1e-4, 1.0, 257.0])
def test_units_do_not_matter(scale):
    values, positions, _ = data(24, 3, 3)
    base = fit(values, positions, config(3, 3))
    found = fit(values * scale - 5 * scale, positions, config(3, 3), sigma_floor=1e-6 * scale)
    np.testing.assert_allclose(found.means / scale + 5, base.means, atol=1e-4)
    np.testing.assert_allclose(found.sigmas / scale, base.sigmas, atol=1e-4)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_results_do_not_depend_on_the_batch(backend):
    """Fits at different places of their cycles, with padding, a heavy tail and a constant one: the same bits alone."""
    values, positions, _ = data(25, 3, 5, rows=6)
    values[3] = 100 + 30 * np.random.default_rng(1).standard_t(3, 2000)
    values[4] = 90
    valid = np.ones(values.shape, dtype=bool)
    valid[2, 1900:] = valid[5, :300] = False
    streams = np.random.default_rng(2).integers(0, 2**32, (6, 3), dtype=np.uint32)

    def part(rows):
        rows = np.array(rows)
        return fit(
            values[rows], positions[rows], config(3, 5, tol=1e-7), backend, valid=valid[rows], streams=streams[rows]
        )

    whole = part(range(6))
    assert whole.status[4] == FitStatus.DEGENERATE
    assert len(set(whole.n_iter.tolist())) > 2
    for rows in ([0], [3], [5], [1, 2], [5, 4, 3, 2, 1, 0]):
        assert_same_bits(part(rows), whole[np.array(rows)])


@pytest.mark.parametrize("make", other_backends())
def test_other_backends(make):
    values, positions, _ = data(26, 3, 5, rows=3)
    values[1] = 60.0
    valid = np.ones(values.shape, dtype=bool)
    valid[2, 1500:] = False
    a, b = (fit(values, positions, config(3, 5, tol=1e-11), m, valid=valid) for m in (NUMPY64, make()))
    assert a.status[1] == FitStatus.DEGENERATE
    np.testing.assert_allclose(b.log_likelihood, a.log_likelihood, rtol=1e-10)
    assert_close(b, a, atol=1e-4)


def test_several_fits_are_visited_in_parts(monkeypatch):
    values, positions, _ = data(27, 2, 2, rows=5)
    whole = fit(values, positions, config(2, 2, tol=1e-8))
    monkeypatch.setattr(module, "GROUP_SAMPLES", 4500)
    assert_same_bits(fit(values, positions, config(2, 2, tol=1e-8)), whole)


def test_a_prior_holds_the_trend():
    values, positions, _ = data(28, 3, 5)
    held, plain = (fit(values, positions, config(3, 5, histogram=h, trend_prior=0.3)) for h in (True, False))
    np.testing.assert_allclose(held.log_likelihood, plain.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(held.coef, plain.coef, atol=1e-3)
    free = fit(values, positions, config(3, 5))
    assert (np.abs(held.coef).sum(axis=1) < 0.8 * np.abs(free.coef).sum(axis=1)).all()


def test_empty_components_are_dropped():
    rng = np.random.default_rng(29)
    values = np.where(rng.random((4, 800)) < 0.5, 50.0, 200.0) + 4 * rng.standard_normal((4, 800))
    values[:, 0] = 120  # a component on one sample cannot stay
    positions = np.stack([rng.permutation(SHAPE[0] * SHAPE[1])[:800] for _ in range(4)])
    found = fit(values, positions, config(4, 2, starts=("spread",), tol=1e-9))
    assert (found.status == FitStatus.DROPPED).any()
    for r in range(4):
        kept = found.weights[r] > 0
        assert found.status[r] == (FitStatus.CONVERGED if kept.all() else FitStatus.DROPPED)
        assert found.weights[r].sum() == pytest.approx(1, abs=1e-12)
        f = ecm.design(positions[r], SHAPE, found.terms)
        assert found.log_likelihood[r] == pytest.approx(ecm.log_likelihood(values[r], f, params_of(found, r)), rel=1e-9)


def test_no_sigma_is_below_the_floor():
    values, positions, _ = data(30, 2, 0)
    values[:, :900] = 77  # a phase without noise
    found = fit(values, positions, config(3, 0, sigma_floor=2.5, tol=1e-10))
    np.testing.assert_allclose(found.sigmas.min(axis=1), 2.5, rtol=1e-12)


# -- where it is asked for ------------------------------------------------------------------------------------------


def test_channels_have_no_histogram():
    with pytest.raises(ConfigError, match="one number a pixel"):
        fit_channels(np.zeros((2, 2, 50)), np.arange(50), (5, 10), config(2, 0), backend=strict())


def test_flag():
    def parsed(*flags):
        return analysis_config(build_parser().parse_args(["analyze", "movie.npy", *flags])).mixture.histogram

    assert parsed("--histogram") is True
    assert parsed("--no-histogram") is False
    assert parsed() is MixtureConfig().histogram is False
    with pytest.raises(ConfigError, match="schedule fast"):
        parsed("--histogram", "--schedule", "reference")
