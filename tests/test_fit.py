"""The mixture fit against the float64 references, scipy.optimize, scikit-learn and the truth."""

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from oracle import ecm
from scipy import stats

from gmrm_gpu.config import SCHEDULES, MixtureConfig, trend_terms
from gmrm_gpu.mixture.fit import fit_mixture, posterior
from gmrm_gpu.results import FitStatus, MixtureFit

SHAPE = (37, 53)
TRENDS = {0: "none", 2: "linear", 3: "linear+electrode", 4: "quadratic", 5: "quadratic+electrode"}
COEF = (6.0, -3.0, 4.0, 2.0, -2.0)
TRUTH = {
    1: ([1.0], [110], [12]),
    2: ([0.35, 0.65], [60, 120], [8, 11]),
    3: ([0.3, 0.45, 0.25], [45, 100, 155], [7, 10, 9]),
    4: ([0.2, 0.4, 0.25, 0.15], [40, 85, 130, 185], [7, 9, 8, 10]),
}
FIELDS = ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter", "n_samples", "status")


def truth_of(k, q):
    return ecm.params(*TRUTH[k], COEF[:q])


def data(seed, k, q, n=600, rows=3, shape=SHAPE):
    """(values (R, n), positions (R, n), designs) of `rows` seeded replicates."""
    rng = np.random.default_rng(seed)
    draws = [ecm.draw(rng, n, truth_of(k, q), shape, trend_terms(TRENDS[q])) for _ in range(rows)]
    return np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]), [d[2] for d in draws]


def config(k, q, **options):
    options = {"tol": 1e-13, "max_iter": 50000} | options
    return MixtureConfig(n_components=k, trend=TRENDS[q], **options)


def fit(values, positions, cfg, backend=NUMPY64, shape=SHAPE, **options):
    return fit_mixture(values, positions, shape, cfg, backend=backend, **options)


def params_of(result, r):
    keep = result.weights[r] > 0
    return ecm.params(result.weights[r][keep], result.means[r][keep], result.sigmas[r][keep], result.coef[r])


def assert_same_bits(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def assert_close(a, b, atol=1e-5):
    np.testing.assert_array_equal(a.status, b.status)
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-9)
    for name in ("weights", "means", "sigmas", "coef"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, rtol=1e-6, err_msg=name)


# -- the optimum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("k", "q"), [(1, 0), (1, 5), (2, 0), (2, 3), (3, 2), (3, 5), (4, 0), (4, 4), (4, 5)])
def test_ends_at_the_direct_maximum(k, q, schedule):
    """Within 1e-8 relative of L-BFGS-B + Newton and of the reference ECM, parameters within 1e-3 grey level."""
    values, positions, designs = data(100 + 10 * k + q, k, q, rows=2)
    result = fit(values, positions, config(k, q, schedule=schedule))
    assert (result.status == FitStatus.CONVERGED).all()
    for r, f in enumerate(designs):
        z, found = values[r], params_of(result, r)
        value = result.log_likelihood[r]
        assert value == pytest.approx(ecm.log_likelihood(z, f, found), rel=1e-11)
        direct, best = ecm.maximise(z, f, found)
        assert value == pytest.approx(best, rel=1e-8)
        for name in ("means", "sigmas", "coef"):
            np.testing.assert_allclose(getattr(found, name), getattr(direct, name), atol=1e-3, rtol=0, err_msg=name)
        np.testing.assert_allclose(found.weights, direct.weights, atol=1e-5)
        from_truth, trace = ecm.ecm(z, f, truth_of(k, q), tol=1e-12)
        assert value >= trace[-1] - 1e-8 * abs(trace[-1]), "a better optimum lies next to the truth"
        assert value >= ecm.maximise(z, f, truth_of(k, q))[1] - 1e-8 * abs(value)
        if value <= trace[-1] + 1e-6 * abs(value):
            np.testing.assert_allclose(found.means, from_truth.means, atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_default_tolerance_is_near_the_optimum(schedule):
    """At tol 1e-8 from the package's own starts: log-likelihood within 1e-6 relative."""
    values, positions, designs = data(7, 4, 5, n=1000)
    result = fit(values, positions, config(4, 5, schedule=schedule, tol=1e-8))
    for r, f in enumerate(designs):
        best = ecm.maximise(values[r], f, params_of(result, r))[1]
        assert result.log_likelihood[r] == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("k", "q"), [(1, 2), (2, 0), (3, 3), (4, 5)])
def test_a_reference_step_is_the_ecm_step(k, q):
    """Passes 1..5 of the reference schedule from one start equal the oracle's steps."""
    values, positions, designs = data(20 + k, k, q)
    options = {"schedule": "reference", "starts": ("quantile",), "tol": 1e-15}
    steps = [fit(values, positions, config(k, q, max_iter=i, **options)) for i in range(1, 6)]
    for r, f in enumerate(designs):
        par = params_of(steps[0], r)
        for step in steps[1:]:
            par = ecm.ecm_step(values[r], f, par)
            for name in ("weights", "means", "sigmas", "coef"):
                np.testing.assert_allclose(getattr(step, name)[r], getattr(par, name), rtol=1e-8, atol=1e-8)
            assert step.log_likelihood[r] == pytest.approx(ecm.log_likelihood(values[r], f, par), rel=1e-11)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_without_trend_it_is_the_gaussian_mixture_of_scikit_learn(k):
    from sklearn.mixture import GaussianMixture

    values, positions, _ = data(30 + k, k, 0, n=1000, rows=1)
    result = fit(values, positions, config(k, 0))
    weights, means, sigmas = TRUTH[k]
    model = GaussianMixture(
        n_components=k,
        covariance_type="diag",
        tol=1e-14,
        reg_covar=0,
        max_iter=100000,
        weights_init=weights,
        means_init=np.array(means, dtype=float)[:, None],
        precisions_init=np.array(sigmas, dtype=float)[:, None] ** -2.0,
    ).fit(values[0][:, None])
    assert result.log_likelihood[0] == pytest.approx(1000 * model.score(values[0][:, None]), rel=1e-8)
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(result.means[0], model.means_[order, 0], atol=1e-3)
    np.testing.assert_allclose(result.sigmas[0], np.sqrt(model.covariances_[order, 0]), atol=1e-3)
    np.testing.assert_allclose(result.weights[0], model.weights_[order], atol=1e-5)


def test_a_rare_phase_is_found():
    """2 % of 4,000 samples, 6 sigma from the main phase (seed 40): some start must put a component there."""
    truth = ecm.params([0.3, 0.68, 0.02], [50, 118, 172], [7, 9, 8], COEF[:5])
    rng = np.random.default_rng(40)
    draws = [ecm.draw(rng, 4000, truth, (83, 97), trend_terms(TRENDS[5])) for _ in range(20)]
    values, positions = np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws])
    result = fit(values, positions, config(3, 5, tol=1e-9), shape=(83, 97))
    np.testing.assert_allclose(result.means, [[50, 118, 172]] * 20, atol=6)
    np.testing.assert_allclose(result.weights[:, 2], 0.02, atol=0.01)


# -- the truth -------------------------------------------------------------------------------------------------


def test_truth_is_within_its_standard_errors():
    """200 simulations of 1,500 samples, seed 50, K = 3, q = 2: estimates against truth in standard errors.

    Of 2,000 normal z-scores 5.4 are expected beyond 3; more than 16 has a probability of 1e-4. Means and
    variances of each parameter's scores, and the chi-square of all parameters jointly, are held likewise.
    """
    k, q, rows = 3, 2, 200
    values, positions, designs = data(50, k, q, n=1500, rows=rows)
    result = fit(values, positions, config(k, q, tol=1e-11))
    assert (result.status == FitStatus.CONVERGED).all()
    scores, distance = [], 0.0
    for r, f in enumerate(designs):
        found = params_of(result, r)
        gap = ecm.to_theta(found) - ecm.to_theta(truth_of(k, q))
        information = ecm.information(values[r], f, found)
        scores.append(gap / np.sqrt(np.diag(np.linalg.inv(information))))
        distance += gap @ information @ gap
    z = np.array(scores)
    assert (np.abs(z) > 3).sum() <= 16
    assert np.abs(z).max() < 5.5
    assert np.abs(z.mean(axis=0) * np.sqrt(rows)).max() < stats.norm.isf(1e-4 / z.shape[1] / 2)
    total = (z**2).sum(axis=0)
    low, high = stats.chi2.ppf([1e-5, 1 - 1e-5], rows)
    assert total.min() > low
    assert total.max() < high
    assert 1e-4 < stats.chi2.sf(distance, z.size) < 1 - 1e-4


# -- the likelihood never falls ----------------------------------------------------------------------------------


def history(trace, row):
    return [float(value[list(index).index(row)]) for index, value in trace if row in index]


def check_never_falls(values, allowance, *, fast):
    """An evaluated point below the best must be a rejected extrapolation: the next one is not below."""
    best, rejected, last_rejected = -np.inf, 0, False
    for i, value in enumerate(values):
        if value >= best - allowance:
            best, last_rejected = max(best, value), False
            continue
        assert fast, f"pass {i} fell by {best - value:.3g}"
        assert not last_rejected, f"pass {i}: two falls in a row"
        last_rejected, rejected = True, rejected + 1
    return best, rejected


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("starts", [("quantile",), ("spread",), ("kmeans++",)])
@pytest.mark.parametrize(("k", "q"), [(2, 0), (3, 5), (4, 5)])
def test_log_likelihood_never_falls(k, q, starts, schedule):
    """float64: to 1e-12 of the log-likelihood. What is returned is the best point that was seen."""
    values, positions, _ = data(60 + k, k, q, rows=4)
    trace = []
    result = fit(values, positions, config(k, q, schedule=schedule, starts=starts, tol=1e-10), trace=trace)
    for r in range(4):
        seen = history(trace, r)
        assert len(seen) == result.n_iter[r]
        allowance = 1e-12 * max(map(abs, seen))
        best, _ = check_never_falls(seen, allowance, fast=schedule == "fast")
        assert seen[-1] >= best - allowance


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_log_likelihood_never_falls_in_float32(schedule):
    """Rounding allowance 3e-7 a sample: a standardised log density of size 2 to 5 has half an ulp of about 2e-7."""
    values, positions, _ = data(65, 4, 5, n=1800, rows=4)
    trace = []
    fit(values, positions, config(4, 5, schedule=schedule, tol=1e-10), NUMPY32, trace=trace)
    for r in range(4):
        seen = history(trace, r)
        best, _ = check_never_falls(seen, 3e-7 * 1800, fast=schedule == "fast")
        assert seen[-1] >= best - 3e-7 * 1800


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_passes_never_end_lower(schedule):
    """Also when max_iter ends a fit in the middle of an extrapolation."""
    values, positions, designs = data(66, 4, 5, rows=6)
    last = np.full(6, -np.inf)
    for max_iter in range(1, 40):
        cfg = config(4, 5, schedule=schedule, starts=("spread",), max_iter=max_iter, tol=1e-15)
        result = fit(values, positions, cfg)
        for r, f in enumerate(designs):
            value = ecm.log_likelihood(values[r], f, params_of(result, r))
            assert value == pytest.approx(result.log_likelihood[r], rel=1e-11)
        assert (result.log_likelihood >= last - 1e-12 * np.abs(last)).all() or max_iter == 1, f"max_iter {max_iter}"
        last = result.log_likelihood


def test_the_fast_schedule_is_fast():
    """Overlapping phases, where plain ECM crawls (seed 67): less than half the passes at the same optimum."""
    truth = ecm.params([0.2, 0.4, 0.4], [60, 90, 125], [13, 12, 14], COEF[:5])
    rng = np.random.default_rng(67)
    draws = [ecm.draw(rng, 1500, truth, SHAPE, trend_terms(TRENDS[5])) for _ in range(8)]
    values, positions = np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws])
    fast, reference = (fit(values, positions, config(3, 5, schedule=s, tol=1e-10)) for s in ("fast", "reference"))
    assert fast.n_iter.mean() < 0.5 * reference.n_iter.mean()
    assert (fast.log_likelihood >= reference.log_likelihood * (1 + 1e-7)).all()


# -- order; invariances are in reliability/test_properties_fits.py ----------------------------------------------------


def test_components_are_sorted():
    values, positions, _ = data(71, 4, 5, rows=20)
    assert (np.diff(fit(values, positions, config(4, 5, tol=1e-8)).means, axis=1) > 0).all()


# -- the batch -----------------------------------------------------------------------------------------------------

BATCHES = {
    "small": {"k": 3, "q": 3, "n": 300},
    "blocks": {"k": 4, "q": 5, "n": 5003},
    "plain": {"k": 1, "q": 0, "n": 5003},
    "two": {"k": 2, "q": 0, "n": 1024},
}


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", BATCHES)
def test_results_do_not_depend_on_the_batch(name, schedule, backend):
    """Replicates together, alone, in pieces or in another order: the same bits."""
    k, q, n = BATCHES[name].values()
    values, positions, _ = data(80, k, q, n=n, rows=7, shape=(83, 97))
    values[3] = 100 + 30 * np.random.default_rng(1).standard_t(3, n)
    streams = np.random.default_rng(2).integers(0, 2**32, (7, max(k, 2)), dtype=np.uint32)[:, :k]
    valid = np.ones(values.shape, dtype=bool)
    valid[2, n - 50 :] = valid[5, :100] = False
    cfg = config(k, q, schedule=schedule, tol=1e-7)

    def part(rows):
        return fit(
            values[rows],
            positions[rows],
            cfg,
            backend,
            shape=(83, 97),
            valid=valid[rows],
            streams=streams[rows],
        )

    whole = part(np.arange(7))
    assert len(set(whole.n_iter.tolist())) > 1 or k == 1
    for rows in ([0], [3], [6], [1, 2, 3], [5, 4], [6, 5, 4, 3, 2, 1, 0]):
        assert_same_bits(part(np.array(rows)), whole[np.array(rows)])


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_a_shared_frame_gives_the_same_bits_for_any_batch(backend):
    """Positions (m,) of a fully visited frame, shared by all replicates."""
    rng = np.random.default_rng(81)
    f = ecm.design(np.arange(1961), SHAPE, trend_terms(TRENDS[5]))
    truth = truth_of(3, 5)
    values = np.stack([f @ truth.coef + truth.means[rng.choice(3, 1961)] + 9 * rng.standard_normal(1961)] * 3)
    values += rng.standard_normal(values.shape)
    positions, cfg = np.arange(1961, dtype=np.int32), config(3, 5, tol=1e-8)
    whole = fit(values, positions, cfg, backend)
    for r in range(3):
        assert_same_bits(fit(values[r : r + 1], positions, cfg, backend), whole[r : r + 1])
    repeated = fit(values, np.tile(positions, (3, 1)), cfg, backend)
    np.testing.assert_allclose(repeated.means, whole.means, atol=1e-2 if backend is NUMPY32 else 1e-3)


def test_one_bad_replicate_does_not_disturb_the_others():
    values, positions, _ = data(82, 3, 3, rows=5)
    good = fit(values, positions, config(3, 3, tol=1e-9))
    values[1] = 77.0
    valid = np.ones(values.shape, dtype=bool)
    valid[3, 5:] = False
    mixed = fit(values, positions, config(3, 3, tol=1e-9), valid=valid)
    assert mixed.status.tolist() == [0, FitStatus.DEGENERATE, 0, FitStatus.TOO_FEW, 0]
    for r in (0, 2, 4):
        np.testing.assert_allclose(mixed.means[r], good.means[r], atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", other_backends())
def test_other_backends(make, schedule):
    values, positions, _ = data(83, 3, 5, rows=4)
    values[1] = 60.0
    valid = np.ones(values.shape, dtype=bool)
    valid[2, 500:] = False
    cfg = config(3, 5, schedule=schedule, tol=1e-11)
    streams = np.arange(12, dtype=np.uint32).reshape(4, 3) * 357913941
    a = fit(values, positions, cfg, valid=valid, streams=streams)
    b = fit(values, positions, cfg, make(), valid=valid, streams=streams)
    assert a.status[1] == FitStatus.DEGENERATE
    np.testing.assert_allclose(b.log_likelihood, a.log_likelihood, rtol=1e-10)
    assert_close(b, a, atol=1e-4)
    w = posterior(values, positions, SHAPE, a, backend=NUMPY64)
    backend = make()
    v = posterior(backend.asarray(values), backend.asarray(positions), SHAPE, a, backend=backend)
    np.testing.assert_allclose(backend.to_host(v), w, atol=1e-10)


# -- awkward input -------------------------------------------------------------------------------------------------


def test_float32_is_near_float64():
    values, positions, designs = data(90, 4, 5, n=2500, rows=3, shape=(83, 97))
    double = fit(values, positions, config(4, 5, tol=1e-9), shape=(83, 97))
    single = fit(values, positions, config(4, 5, tol=1e-9), NUMPY32, shape=(83, 97))
    np.testing.assert_allclose(single.means, double.means, atol=0.05)
    np.testing.assert_allclose(single.log_likelihood, double.log_likelihood, rtol=1e-6)
    for r in range(3):
        true = ecm.log_likelihood(values[r], designs[r], params_of(single, r))
        assert single.log_likelihood[r] == pytest.approx(true, rel=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 13, 14, 16])
@pytest.mark.parametrize("k", [1, 4])
def test_few_samples(k, n):
    values, positions, _ = data(91, k, 5, n=n)
    result = fit(values, positions, config(k, 5, max_iter=500))
    assert (result.n_samples == n).all()
    if n <= 3 * k - 1 + 5:
        assert (result.status == FitStatus.TOO_FEW).all()
        assert np.isnan(result.means).all()
        assert np.isnan(result.log_likelihood).all()
        assert (result.weights == 0).all()
        assert np.isnan(posterior(values, positions, SHAPE, result, backend=NUMPY64)).all()
    else:
        assert (result.status != FitStatus.TOO_FEW).all()


def test_no_sample_at_all():
    values, positions, _ = data(92, 2, 2, rows=2)
    valid = np.ones(values.shape, dtype=bool)
    valid[0] = False
    result = fit(values, positions, config(2, 2, tol=1e-8), valid=valid)
    assert result.status.tolist() == [FitStatus.TOO_FEW, FitStatus.CONVERGED]
    assert result.n_samples.tolist() == [0, 600]


@pytest.mark.parametrize("level", [0, 77, 65535, -3.5])
@pytest.mark.parametrize("k", [1, 3])
def test_constant_data_is_degenerate(k, level):
    _, positions, _ = data(93, 2, 2, rows=2)
    for backend in (NUMPY32, NUMPY64):
        result = fit(np.full(positions.shape, level), positions, config(k, 2), backend)
        assert (result.status == FitStatus.DEGENERATE).all()
        assert np.isnan(result.means).all()


def test_constant_data_with_padding_is_degenerate():
    _, positions, _ = data(93, 2, 2, rows=2)
    valid = np.ones(positions.shape, dtype=bool)
    valid[:, 400:] = False
    values = np.where(valid, 50, 200).astype(np.uint8)
    result = fit(values, positions, config(2, 2), NUMPY32, valid=valid)
    assert (result.status == FitStatus.DEGENERATE).all()


def test_constant_data_whose_mean_is_rounded_is_degenerate():
    """The mean of 300 times 0.1 is not 0.1; with padding the standardised values then look like two levels."""
    values = np.full((1, 400), 0.1)
    result = fit(values, np.arange(400)[None], config(2, 0), valid=np.arange(400)[None] < 300)
    assert result.status[0] == FitStatus.DEGENERATE


def test_padding_may_hold_anything():
    values, positions, _ = data(94, 3, 3, rows=2)
    valid = np.random.default_rng(94).random(values.shape) < 0.8
    expected = fit(values, positions, config(3, 3, tol=1e-9), valid=valid)
    result = fit(np.where(valid, values, np.nan), positions, config(3, 3, tol=1e-9), valid=valid)
    assert (result.status == FitStatus.CONVERGED).all()
    assert_same_bits(result, expected)


def test_padding_does_not_count():
    values, positions, designs = data(94, 3, 5, rows=3)
    valid = np.ones(values.shape, dtype=bool)
    valid[0, ::7] = valid[1, 450:] = False
    filled = np.where(valid, values, 1e4)
    result = fit(filled, positions, config(3, 5), valid=valid)
    assert result.n_samples.tolist() == valid.sum(axis=1).tolist()
    for r in range(3):
        keep = valid[r]
        alone = fit(values[r : r + 1, keep], positions[r : r + 1, keep], config(3, 5))
        assert_close(result[r : r + 1], alone)
        assert result.log_likelihood[r] == pytest.approx(
            ecm.log_likelihood(values[r, keep], designs[r][keep], params_of(result, r)), rel=1e-11
        )


def test_empty_components_are_dropped():
    """Two needles and five components: what holds fewer than two samples goes, the rest is a proper mixture."""
    rng = np.random.default_rng(95)
    values = np.where(rng.random((4, 400)) < 0.5, 50.0, 200.0) + 0.05 * rng.standard_normal((4, 400))
    positions = np.stack([rng.permutation(1961)[:400] for _ in range(4)])
    result = fit(values, positions, config(5, 2, starts=("spread",), tol=1e-9))
    assert (result.status == FitStatus.DROPPED).any()
    for r in range(4):
        dropped = result.weights[r] == 0
        assert (np.isnan(result.means[r]) == dropped).all()
        assert (np.isnan(result.sigmas[r]) == dropped).all()
        assert dropped.tolist() == sorted(dropped.tolist())
        assert result.weights[r].sum() == pytest.approx(1, abs=1e-12)
        assert result.status[r] == (FitStatus.DROPPED if dropped.any() else FitStatus.CONVERGED)
        f = ecm.design(positions[r], SHAPE, result.terms)
        assert result.log_likelihood[r] == pytest.approx(
            ecm.log_likelihood(values[r], f, params_of(result, r)), rel=1e-9
        )
    resp = posterior(values, positions, SHAPE, result, backend=NUMPY64)
    np.testing.assert_allclose(resp.sum(axis=1), 1, atol=1e-12)
    assert (resp[result.weights == 0] == 0).all()


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_saturated_and_quantised_data(dtype, backend):
    values, positions, _ = data(96, 3, 5, n=1500, rows=3)
    top = 150 if dtype is np.uint8 else 20000
    scale = 1 if dtype is np.uint8 else 140
    values = np.clip(np.round(values * scale), 0, top).astype(dtype)
    floor = 12**-0.5
    result = fit(values, positions, config(3, 5, tol=1e-7, max_iter=5000), backend, sigma_floor=floor)
    assert (result.status <= FitStatus.DROPPED).all()
    assert np.nanmin(result.sigmas) >= floor * (1 - 1e-6)
    assert np.isfinite(result.log_likelihood).all()


def test_sigma_floor_holds_a_spike():
    """A third of the samples have one value: without the floor the likelihood is unbounded."""
    rng = np.random.default_rng(97)
    values = np.where(rng.random((2, 900)) < 1 / 3, 255.0, rng.normal(100, 10, (2, 900)))
    positions = np.stack([rng.permutation(1961)[:900] for _ in range(2)])
    result = fit(values, positions, config(2, 0, tol=1e-10), sigma_floor=0.3)
    np.testing.assert_allclose(result.sigmas[:, 1], 0.3, rtol=1e-9)
    np.testing.assert_allclose(result.means[:, 1], 255, atol=1e-6)
    wider = fit(values, positions, config(2, 0, tol=1e-10, sigma_floor=2.0), sigma_floor=0.3)
    np.testing.assert_allclose(wider.sigmas[:, 1], 2.0, rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_extrapolation_stays_above_the_sigma_floor(seed):
    """Below the floor the likelihood of a spike is too high: the next step must fall, and the gain looks small."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((4, 1200)) < 0.5, rng.normal(120, 15, (4, 1200)), rng.normal(60, 10, (4, 1200)))
    values[:, : rng.integers(30, 400)] = 0
    positions = np.stack([rng.permutation(1961)[:1200] for _ in range(4)])
    trace = []
    result = fit(values, positions, config(3, 2, tol=1e-10), sigma_floor=0.3, trace=trace)
    assert (result.status == FitStatus.CONVERGED).all()
    assert result.sigmas.min() >= 0.3 * (1 - 1e-12)
    for r in range(4):
        seen = history(trace, r)
        best, _ = check_never_falls(seen, 1e-10 * max(map(abs, seen)), fast=True)
        assert seen[-1] >= best - 1e-10 * abs(best)


def test_hot_pixels_do_not_overflow():
    """Ten samples 80 standard deviations out, in float32 (warnings are errors)."""
    rng = np.random.default_rng(91)
    values = np.where(rng.random((1, 60000)) < 0.5, rng.normal(120, 8, (1, 60000)), rng.normal(45, 8, (1, 60000)))
    values[:, :10] = 65535
    result = fit(values, rng.permutation(62500)[None, :60000], config(3, 2, tol=1e-8), NUMPY32, shape=(250, 250))
    assert np.nanmax(result.means) == pytest.approx(65535, abs=1)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_fewer_grey_levels_than_components(levels):
    rng = np.random.default_rng(98)
    values = rng.integers(0, levels, (5, 500)).astype(np.uint8) * 40
    positions = np.stack([rng.permutation(1961)[:500] for _ in range(5)])
    for backend in (NUMPY32, NUMPY64):
        result = fit(values, positions, config(4, 5, tol=1e-8, max_iter=2000), backend, sigma_floor=12**-0.5)
        usable = result.status < FitStatus.DEGENERATE
        assert np.isfinite(result.log_likelihood[usable]).all()
        np.testing.assert_allclose(result.weights[usable].sum(axis=1), 1, atol=1e-9)


def test_nan_in_one_replicate_is_its_status():
    values, positions, _ = data(99, 2, 2, rows=3)
    good = fit(values, positions, config(2, 2, tol=1e-9))
    values[1, 17] = np.nan
    result = fit(values, positions, config(2, 2, tol=1e-9))
    assert result.status.tolist() == [0, FitStatus.DEGENERATE, 0]
    np.testing.assert_array_equal(result.means[[0, 2]], good.means[[0, 2]])


def test_input_layout_and_type_do_not_matter():
    values, positions, _ = data(101, 3, 3, rows=3)
    values = np.round(values)
    cfg = config(3, 3, tol=1e-9)
    expected = fit(values, positions, cfg)
    spread = np.repeat(values, 2, axis=1)[:, ::2]
    fortran = np.asfortranarray(positions)
    for array in (spread, fortran):
        array.flags.writeable = False
    assert_same_bits(fit(spread, fortran, cfg), expected)
    assert_same_bits(fit(values.astype(np.uint8), positions.astype(np.int32), cfg), expected)
    assert_same_bits(fit(values.astype(">i2").astype(np.int16), positions, cfg), expected)


def test_input_is_not_changed():
    values, positions, _ = data(102, 2, 2)
    copies = values.copy(), positions.copy()
    fit(values, positions, config(2, 2, tol=1e-7))
    np.testing.assert_array_equal(values, copies[0])
    np.testing.assert_array_equal(positions, copies[1])


@pytest.mark.parametrize("shape", [(1, 900), (900, 1)])
def test_a_frame_one_pixel_wide(shape):
    """Terms that the samples cannot see leave the fit alone."""
    rng = np.random.default_rng(103)
    values = np.where(rng.random((2, 900)) < 0.4, 60, 120) + 8 * rng.standard_normal((2, 900))
    result = fit(values, np.arange(900), config(2, 5, tol=1e-9), shape=shape)
    assert (result.status == FitStatus.CONVERGED).all()
    np.testing.assert_allclose(result.means, [[60, 120]] * 2, atol=4)


def test_too_few_passes_are_reported():
    values, positions, _ = data(104, 3, 3)
    result = fit(values, positions, config(3, 3, max_iter=3, tol=1e-15))
    assert (result.status == FitStatus.MAX_ITER).all()
    assert (result.n_iter == 3).all()
    assert np.isfinite(result.means).all()


def test_posterior_is_that_of_the_oracle():
    values, positions, designs = data(105, 4, 5)
    result = fit(values, positions, config(4, 5, tol=1e-8))
    resp = posterior(values, positions, SHAPE, result, backend=NUMPY64)
    assert resp.shape == (3, 4, 600)
    for r, f in enumerate(designs):
        expected = ecm.responsibilities(values[r], f, params_of(result, r))
        np.testing.assert_allclose(resp[r].T, expected, atol=1e-9)


def test_information_criteria():
    values, positions, _ = data(106, 3, 3, rows=2)
    result = fit(values, positions, config(3, 3, tol=1e-8))
    np.testing.assert_allclose(result.aic, 2 * 11 - 2 * result.log_likelihood)
    np.testing.assert_allclose(result.bic, 11 * np.log(600) - 2 * result.log_likelihood)


def test_criteria_do_not_count_dropped_components():
    fits = MixtureFit(
        weights=np.array([[0.4, 0.6, 0.0]]),
        means=np.array([[1.0, 2.0, np.nan]]),
        sigmas=np.array([[1.0, 1.0, np.nan]]),
        coef=np.zeros((1, 2)),
        log_likelihood=np.array([-50.0]),
        n_iter=np.array([3]),
        n_samples=np.array([20]),
        status=np.array([FitStatus.DROPPED]),
        terms=((1, 0), (0, 1)),
    )
    assert fits.aic[0] == 2 * 7 + 100
    assert fits.bic[0] == pytest.approx(7 * np.log(20) + 100)


@pytest.mark.parametrize("factor", [1 / 255, 1e-12, 1e6])
def test_the_unit_of_the_data_does_not_matter(factor):
    """A fit ends after the same passes at the same place, whatever the grey levels are multiplied with."""
    rng = np.random.default_rng(5)
    positions = np.arange(30 * 40)
    values = rng.normal(np.where(rng.random(1200) < 0.3, 60.0, 90.0), 12.0)[None, :]
    config = MixtureConfig(n_components=2, trend="linear")
    plain = fit_mixture(values, positions, (30, 40), config, sigma_floor=0.01, backend=NUMPY64)
    scaled = fit_mixture(values * factor, positions, (30, 40), config, sigma_floor=0.01 * factor, backend=NUMPY64)
    assert scaled.n_iter[0] == plain.n_iter[0]
    assert np.allclose(scaled.means / factor, plain.means, rtol=1e-9)
    assert np.allclose(scaled.weights, plain.weights, rtol=1e-9)
