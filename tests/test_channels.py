"""Two detectors at the same pixels: the fit against loops in float64, the truth, and the fit of one channel."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from oracle import channels as oracle
from oracle import ecm

import gmrm_gpu as gg
from gmrm_gpu.config import SCHEDULES, MixtureConfig, trend_terms
from gmrm_gpu.errors import InputError
from gmrm_gpu.mixture.channels import channel_posterior, fit_channels
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.results import ChannelFit, FitStatus

SHAPE = (37, 53)
TERMS = trend_terms("linear")
TRUTH = oracle.Params(
    weights=np.array([0.2, 0.5, 0.3]),
    means=np.array([[45.0, 150.0], [118.0, 90.0], [172.0, 140.0]]),
    covariances=np.array([[[64.0, 24.0], [24.0, 58.0]], [[81.0, -36.0], [-36.0, 41.0]], [[49.0, 0.0], [0.0, 81.0]]]),
    coef=np.array([[6.0, -3.0], [-4.0, 5.0]]),
)
FIELDS = ("weights", "means", "covariances", "coef", "log_likelihood")


def design(positions):
    return ecm.design(positions, SHAPE, TERMS)


def data(seed, n=300, rows=2, truth=TRUTH):
    """values (R, 2, n), positions (R, n), components (R, n) of seeded replicates."""
    rng = np.random.default_rng(seed)
    draws = [oracle.draw(rng, n, truth, SHAPE, design) for _ in range(rows)]
    return tuple(np.stack(parts) for parts in zip(*draws, strict=True))


def config(**options):
    return MixtureConfig(**{"n_components": 3, "trend": "linear", "tol": 1e-12, "max_iter": 20000} | options)


def fit(values, positions, cfg=None, backend=NUMPY64, **options):
    return fit_channels(values, positions, SHAPE, cfg or config(), backend=backend, **options)


def params_of(result, r):
    keep = result.weights[r] > 0
    return oracle.Params(result.weights[r][keep], result.means[r][keep], result.covariances[r][keep], result.coef[r])


def assert_close(a, b, **tolerance):
    np.testing.assert_array_equal(a.status, b.status)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), err_msg=name, **tolerance)


# -- against the oracle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trend", ["none", "linear"])
def test_a_reference_step_is_the_ecm_step(trend):
    """Passes 1..4 of the reference schedule from one start equal the oracle's steps."""
    values, positions, _ = data(1, n=150)
    options = {"schedule": "reference", "starts": ("spread",), "tol": 1e-15, "trend": trend}
    steps = [fit(values, positions, config(max_iter=i, **options)) for i in range(1, 5)]
    for r in range(2):
        z, f = values[r].T, ecm.design(positions[r], SHAPE, trend_terms(trend))
        par = params_of(steps[0], r)
        for step in steps[1:]:
            par = oracle.ecm_step(z, f, par)
            for name in FIELDS[:4]:
                np.testing.assert_allclose(getattr(step, name)[r], getattr(par, name), rtol=1e-8, atol=1e-8)
            assert step.log_likelihood[r] == pytest.approx(oracle.log_likelihood(z, f, par), rel=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ends_at_a_fixed_point_of_the_oracle(schedule):
    values, positions, _ = data(2)
    result = fit(values, positions, config(schedule=schedule))
    assert (result.status == FitStatus.CONVERGED).all()
    for r in range(2):
        z, f, par = values[r].T, design(positions[r]), params_of(result, r)
        assert result.log_likelihood[r] == pytest.approx(oracle.log_likelihood(z, f, par), rel=1e-11)
        after = oracle.ecm_step(z, f, par)
        for name in FIELDS[:4]:
            np.testing.assert_allclose(getattr(after, name), getattr(par, name), rtol=1e-4, atol=1e-3)
        resp = channel_posterior(values[r], positions[r], SHAPE, result[r], backend=NUMPY64)
        np.testing.assert_allclose(resp.T, oracle.responsibilities(z, f, par), atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_channel_is_fit_mixture(schedule):
    values, positions, _ = data(3, n=700, rows=3)
    values = values[:, :1]
    cfg = config(schedule=schedule, trend="quadratic+electrode", tol=1e-13)
    a = fit_mixture(values[:, 0], positions, SHAPE, cfg, backend=NUMPY64)
    b = fit(values, positions, cfg)
    np.testing.assert_allclose(b.log_likelihood, a.log_likelihood, rtol=1e-11)
    for name in ("weights", "means", "sigmas", "coef"):
        np.testing.assert_allclose(getattr(b.channel(0), name), getattr(a, name), rtol=1e-6, atol=2e-5)
    np.testing.assert_allclose(b.bic, a.bic, rtol=1e-11)
    assert b.n_parameters == a.n_parameters == 13


# -- the likelihood and the truth ------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("start", ["quantile", "spread", "kmeans++"])
def test_log_likelihood_never_falls(start, schedule):
    """float64: to 1e-12 of it; an extrapolation that fell is taken back in the next pass."""
    values, positions, _ = data(4, rows=3)
    trace = []
    result = fit(values, positions, config(starts=(start,), n_start_iter=1, schedule=schedule), trace=trace)
    for r in range(3):
        seen = [float(value[list(index).index(r)]) for index, value in trace if r in index]
        best, fell = -np.inf, False
        for value in seen:
            below = value < best - 1e-12 * abs(best)
            assert not (below and (fell or schedule == "reference"))
            best, fell = max(best, value), below
        assert len(seen) == result.n_iter[r]
        assert seen[-1] >= best - 1e-12 * abs(best)


def test_truth_is_within_its_standard_errors():
    """60 simulations of 1,200 pixels, seed 5: the mean of each estimate within 4.5 of its standard errors.

    29 parameters: one normal score beyond 4.5 has a probability of 2e-4. The spread must be that of the truth's
    order, so the errors are taken from the simulations.
    """
    values, positions, _ = data(5, n=1200, rows=60)
    result = fit(values, positions, config(tol=1e-9))
    assert (result.status == FitStatus.CONVERGED).all()
    for name in FIELDS[:4]:
        found, truth = getattr(result, name), getattr(TRUTH, name)
        score = (found.mean(axis=0) - truth) / (found.std(axis=0, ddof=1) / np.sqrt(60))
        # A maximum-likelihood covariance is too small by about one part in its number of samples.
        limit = 4.5 if name != "covariances" else 5.5
        assert np.abs(score).max() < limit, name
    assert result.means.std(axis=0).max() < 1.0


@pytest.mark.parametrize("dtype", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_two_channels_tell_apart_what_one_cannot(dtype):
    """Li at the electrolyte's level in one channel, at the electrode's in the other (20 replicates, seed 6).

    Pixels with the right component, components named after the fact as suits best: 66 % and 79 % with one channel,
    99.95 % with both.
    """
    means = np.array([[60.0, 120.0], [120.0, 60.0], [120.0, 120.0]])
    truth = TRUTH._replace(means=means, covariances=np.array([[[100.0, 40.0], [40.0, 100.0]]] * 3))
    values, positions, component = data(6, n=800, rows=20, truth=truth)
    both = fit(values, positions, config(tol=1e-8), dtype)
    resp = channel_posterior(values, positions, SHAPE, both, backend=dtype)
    assert accuracy(resp, component) > 0.995
    for c in (0, 1):
        alone = fit(values[:, c : c + 1], positions, config(tol=1e-8), dtype)
        resp = channel_posterior(values[:, c : c + 1], positions, SHAPE, alone, backend=dtype)
        assert accuracy(resp, component) < 0.85


def accuracy(resp, component):
    from itertools import permutations

    label = resp.argmax(axis=1)
    ways = [np.take(way, label) == component for way in permutations(range(3))]
    return np.max([way.mean(axis=1) for way in ways], axis=0).mean()


# -- invariances -------------------------------------------------------------------------------------------------


def test_shift_and_scale_of_each_channel():
    values, positions, _ = data(7)
    shift, scale = np.array([-30.0, 500.0]), np.array([0.1, 7.0])
    base = fit(values, positions)
    moved = fit(values * scale[:, None] + shift[:, None], positions)
    back = replace(
        moved,
        means=(moved.means - shift) / scale,
        covariances=moved.covariances / np.outer(scale, scale),
        coef=moved.coef / scale[:, None],
        log_likelihood=moved.log_likelihood + 300 * np.log(scale).sum(),
    )
    assert_close(back, base, rtol=1e-6, atol=1e-5)


def test_order_of_the_channels():
    """Means of both channels ascend here, so that the order of the components stays."""
    truth = TRUTH._replace(means=np.array([[45.0, 60.0], [118.0, 90.0], [172.0, 140.0]]))
    values, positions, _ = data(8, truth=truth)
    base, other = fit(values, positions), fit(values[:, ::-1], positions)
    back = replace(
        other, means=other.means[..., ::-1], covariances=other.covariances[..., ::-1, ::-1], coef=other.coef[:, ::-1]
    )
    assert_close(back, base, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_results_do_not_depend_on_the_batch(backend):
    values, positions, _ = data(9, n=1500, rows=5)
    streams = np.random.default_rng(9).integers(0, 2**32, (5, 3), dtype=np.uint32)
    cfg = config(tol=1e-7)
    whole = fit(values, positions, cfg, backend, streams=streams)
    for rows in ([0], [4], [3, 1, 2]):
        part = fit(values[rows], positions[rows], cfg, backend, streams=streams[rows])
        for name in (*FIELDS, "n_iter"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows], err_msg=name)


def test_float32_is_near_float64():
    values, positions, _ = data(10, n=1500)
    single, double = (fit(values, positions, config(tol=1e-9), b) for b in (NUMPY32, NUMPY64))
    np.testing.assert_allclose(single.means, double.means, atol=0.05)
    np.testing.assert_allclose(single.log_likelihood, double.log_likelihood, rtol=1e-6)


@pytest.mark.parametrize("make", other_backends())
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_other_backends(make, schedule):
    values, positions, _ = data(11, rows=3)
    values[1, 0] = 60.0
    valid = np.ones(positions.shape, dtype=bool)
    valid[2, 250:] = False
    backend, cfg = make(), config(schedule=schedule, tol=1e-10)
    a = fit(values, positions, cfg, valid=valid)
    b = fit(values, positions, cfg, backend, valid=valid)
    assert_close(b, a, rtol=1e-6, atol=1e-4)
    w = channel_posterior(values, positions, SHAPE, a, valid=valid, backend=NUMPY64)
    v = channel_posterior(backend.asarray(values), backend.asarray(positions), SHAPE, a, valid=valid, backend=backend)
    np.testing.assert_allclose(backend.to_host(v), w, atol=1e-9)


def test_three_channels():
    """The third is the sum of the first two with noise of its own: nothing new, and no trouble."""
    values, positions, _ = data(12)
    third = values.sum(axis=1, keepdims=True) + np.random.default_rng(12).normal(0, 3, (2, 1, 300))
    two, three = fit(values, positions), fit(np.concatenate([values, third], axis=1), positions)
    assert (three.status == FitStatus.CONVERGED).all()
    assert three.n_parameters == 2 + 9 + 18 + 6
    np.testing.assert_allclose(three.means[..., :2], two.means, atol=0.5)
    z, f = np.concatenate([values, third], axis=1)[0].T, design(positions[0])
    assert three.log_likelihood[0] == pytest.approx(oracle.log_likelihood(z, f, params_of(three, 0)), rel=1e-10)


# -- awkward input -------------------------------------------------------------------------------------------------


def test_trouble_is_a_status_and_spares_the_others():
    """A constant channel, a NaN, one sample, none: only these fits fail."""
    values, positions, _ = data(13, rows=6)
    good = fit(values, positions)
    values[1, 1] = 77.0
    values[2, 0, 17] = np.nan
    valid = np.ones(positions.shape, dtype=bool)
    valid[3, 1:] = valid[4] = False
    result = fit(values, positions, valid=valid)
    bad, few = FitStatus.DEGENERATE, FitStatus.TOO_FEW
    assert result.status.tolist() == [0, bad, bad, few, few, 0]
    assert np.isnan(result.means[1:5]).all()
    assert (result.weights[1:5] == 0).all()
    np.testing.assert_allclose(result.means[[0, 5]], good.means[[0, 5]], atol=1e-6)
    resp = channel_posterior(values, positions, SHAPE, result, valid=valid, backend=NUMPY64)
    assert np.isnan(resp[1:5]).all()


def test_empty_components_are_dropped():
    """Two needles and five components: what holds fewer than three samples goes, the rest is a proper mixture."""
    rng = np.random.default_rng(14)
    values = np.where(rng.random((4, 1, 400)) < 0.5, 50.0, 200.0) + 0.05 * rng.standard_normal((4, 2, 400))
    positions = np.stack([rng.permutation(1961)[:400] for _ in range(4)])
    result = fit(values, positions, config(n_components=5, starts=("spread",), tol=1e-9))
    assert (result.status == FitStatus.DROPPED).any()
    for r in range(4):
        dropped = result.weights[r] == 0
        assert (np.isnan(result.covariances[r]).all(axis=(1, 2)) == dropped).all()
        assert dropped.tolist() == sorted(dropped.tolist())
        assert result.weights[r].sum() == pytest.approx(1, abs=1e-12)
        assert result.n_free[r] == 33 - 6 * dropped.sum()
        z, f = values[r].T, design(positions[r])
        assert result.log_likelihood[r] == pytest.approx(oracle.log_likelihood(z, f, params_of(result, r)), rel=1e-9)
    resp = channel_posterior(values, positions, SHAPE, result, backend=NUMPY64)
    np.testing.assert_allclose(resp.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
def test_covariance_floor_holds_equal_channels(backend):
    """Both channels the same whole numbers: without the floor the likelihood is unbounded."""
    values, positions, _ = data(15, n=600)
    values = np.round(values[:, :1]).repeat(2, axis=1)
    trace = []
    result = fit(values, positions, config(tol=1e-8), backend, sigma_floor=12**-0.5, trace=trace)
    assert (result.status == FitStatus.CONVERGED).all()
    smallest = np.linalg.eigvalsh(result.covariances)[..., 0]
    np.testing.assert_allclose(smallest, 1 / 12, rtol=1e-3)
    best = max(float(value[list(index).index(0)]) for index, value in trace if 0 in index)
    last = [float(value[list(index).index(0)]) for index, value in trace if 0 in index][-1]
    assert last >= best - 3e-7 * 600 * (backend is NUMPY32) - 1e-9 * abs(best)


def test_a_spike_at_the_floor_of_each_channel():
    """A third of the pixels have one value in both channels; floors of 0.3 and 2 grey levels."""
    rng = np.random.default_rng(16)
    spike = rng.random((2, 1, 900)) < 1 / 3
    values = np.where(spike, 255.0, rng.normal(100, 10, (2, 2, 900)))
    positions = np.stack([rng.permutation(1961)[:900] for _ in range(2)])
    result = fit(values, positions, config(n_components=2, trend="none"), sigma_floor=(0.3, 2.0))
    np.testing.assert_allclose(result.covariances[:, 1], [np.diag([0.09, 4.0])] * 2, rtol=1e-9, atol=1e-9)


def test_wrong_number_of_axes():
    with pytest.raises(InputError, match=r"\(channels, pixels\)"):
        fit(np.zeros(5), np.arange(5))


def test_criteria_and_stack():
    values, positions, _ = data(17)
    result = fit(values, positions, config(tol=1e-8))
    assert result.n_parameters == 2 + 6 + 9 + 4
    np.testing.assert_allclose(result.aic, 2 * 21 - 2 * result.log_likelihood)
    np.testing.assert_allclose(result.bic, 21 * np.log(300) - 2 * result.log_likelihood)
    again = ChannelFit.stack([result[0], result[1]])
    assert_close(again, result, rtol=0)
    single = fit(values[0], positions[0], config(tol=1e-8))
    assert_close(single[np.newaxis], result[:1], rtol=1e-9)


# -- two movies ----------------------------------------------------------------------------------------------------


def two_movies(seed=1, n_frames=3):
    """A battery whose Li is near the electrolyte's level in the first movie, and near the electrode's in the second."""
    simulation = gg.simulate("battery", shape=(64, 64), n_frames=n_frames, seed=seed, n_empty=0)
    rng = np.random.default_rng(seed)

    def record(levels):
        noisy = np.array(levels)[simulation.truth] + 10 * rng.standard_normal(simulation.truth.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)

    return simulation, record([120.0, 45.0, 150.0]), record([60.0, 130.0, 140.0])


SETTINGS = gg.AnalysisConfig(mixture=MixtureConfig(n_components=3, trend="linear"))


def test_two_movies_are_labelled_together():
    """Labels of all pixels against the truth: all right; with one movie alone 92 %."""
    simulation, a, b = two_movies()
    result = gg.fit_two_channels(a, b, SETTINGS)
    assert (result.fits.status == FitStatus.CONVERGED).all()
    np.testing.assert_allclose(result.share, simulation.truth_share, atol=0.002)
    np.testing.assert_allclose(result.posterior, result.share, atol=0.01)
    assert ((result.labels == 2) == (simulation.truth == 2)).mean() > 0.995
    for movie in (a, b):
        alone = gg.analyze(movie, replace(SETTINGS, correction=gg.CorrectionConfig(radius=0)))
        assert alone.labels is not None
        assert ((alone.labels == 2) == (simulation.truth == 2)).mean() < 0.95


def test_two_movies_are_sampled_at_the_same_pixels():
    simulation, a, b = two_movies()
    result = gg.fit_two_channels(a, b, SETTINGS, rate=0.2, frames="1:3")
    assert result.frame.tolist() == [1, 2]
    assert (result.fits.n_samples == round(0.2 * 64 * 64)).all()
    assert ((result.labels > 0).sum(axis=(1, 2)) == result.fits.n_samples).all()
    np.testing.assert_allclose(result.share, simulation.truth_share[1:], atol=0.06)


def test_pixels_that_either_movie_excludes_are_not_used():
    _, a, b = two_movies()
    left, top = np.zeros((2, 64, 64), dtype=bool)
    left[:, :8] = top[:5] = True
    movies = gg.open_movie(a, exclude=left), gg.open_movie(b, exclude=top)
    for scheme in ("fixed", "stratified"):
        sampling = gg.SamplingConfig(rate=0.5, scheme=scheme)
        result = gg.fit_two_channels(*movies, replace(SETTINGS, sampling=sampling))
        assert not result.labels[:, left | top].any()
        assert ((result.labels > 0).sum(axis=(1, 2)) == result.fits.n_samples).all()


def test_a_frame_without_contrast_has_no_share():
    _, a, b = two_movies()
    a[1] = 7
    result = gg.fit_two_channels(a, b, SETTINGS)
    assert result.fits.status.tolist() == [0, FitStatus.DEGENERATE, 0]
    assert np.isnan(result.share[1])
    assert not result.labels[1].any()


def test_movies_that_do_not_match():
    _, a, b = two_movies()
    with pytest.raises(InputError, match="3 frames of 64 x 64 and 2 frames of 64 x 64"):
        gg.fit_two_channels(a, b[:2], SETTINGS)
    with pytest.raises(InputError, match="21 parameters"):
        gg.fit_two_channels(a, b, SETTINGS, rate=0.004)
