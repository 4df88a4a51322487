"""Maps, drift and M-steps of the movie-level fit against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY64
from movie_cases import BACKENDS, ODD, host
from oracle import ecm
from oracle import movie as oracle

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.mixture.design import TrendBasis
from gmrm_gpu.mixture.drift import normal_equations, smooth_walk, walk_precision
from gmrm_gpu.mixture.maps import CellMaps, n_levels, through_time
from gmrm_gpu.mixture.moments import Layout, moments_and_resp
from gmrm_gpu.mixture.movie_steps import MovieParameters, MovieSteps
from gmrm_gpu.mixture.rows import FrameRows

# -- maps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_prior_maps_equal_the_oracle(backend, levels):
    backend = backend()
    rng = np.random.default_rng(levels)
    positions = rng.integers(0, ODD[0] * ODD[1], (4, 30)).astype(np.int32)
    resp = rng.dirichlet([0.3, 0.5, 0.4], (4, 30))
    weights = rng.dirichlet([1, 2, 3], 4)
    maps = CellMaps(ODD, levels, backend)
    cells = maps.cells(backend.asarray(positions[:, None, :]))
    made = maps.deposit(cells, backend.real(np.moveaxis(resp, 2, 1)[:, None]))
    held = through_time(made[None, ...], backend=backend)[0, ...]
    found = maps.prior(held, backend.asarray(weights))
    at_samples = host(backend, maps.at_samples(found, cells))
    for t in range(4):
        wanted = oracle.prior_map(positions, resp, weights[t], ODD, levels, t)
        np.testing.assert_allclose(host(backend, found)[t], wanted, atol=1e-12)
        np.testing.assert_allclose(at_samples[t, 0].T, oracle.at_pixels(wanted, positions[t], ODD, levels), atol=1e-12)
    np.testing.assert_allclose(host(backend, found).sum(axis=1), 1, atol=1e-12)


def test_levels_go_down_to_a_few_samples_a_gaussian():
    assert [n_levels(rate) for rate in (1.0, 0.1, 0.01, 0.001, 1e-9)] == [4, 4, 3, 1, 1]


def test_cells_cover_every_pixel_once_and_excluded_ones_do_not_count():
    maps = CellMaps(ODD, 3, NUMPY64)
    assert maps.pixel_shares(None).sum() == pytest.approx(1)
    allowed = np.zeros(ODD, dtype=bool)
    allowed[30:, :20] = True
    shares = maps.pixel_shares(allowed, np.full(ODD[0] * ODD[1], 2.0)).reshape(maps.grid)
    assert shares.sum() == pytest.approx(2)
    assert shares[:7].sum() == 0
    assert shares[:, 5:].sum() == 0


# -- steps ---------------------------------------------------------------------------------------------------------


def state(rng, rows, n_frames, k, q):
    """Random parameters, all parts of the deviations in use."""
    drift = 0.05 * rng.normal(size=(rows, n_frames, q + 2))
    return {
        "weights": rng.dirichlet(np.ones(k), (rows, n_frames)),
        "means": np.sort(rng.normal(size=(rows, k)), axis=1),
        "sigmas": 0.3 + 0.2 * rng.random((rows, k)),
        "coef": 0.2 * rng.normal(size=(rows, q)),
        "pivot": 0.1 * rng.normal(size=(rows, 1)),
        "drift": drift,
    }


def one_of(now, r):
    return {name: value[r] if name != "pivot" else float(value[r, 0]) for name, value in now.items()}


def steps_case(backend, k, trend, n_frames, strength, seed=5, rows=2, m=25):
    """(MovieSteps, parameters, samples with random priors) and the same for the oracle."""
    rng = np.random.default_rng(seed)
    basis = TrendBasis(MixtureConfig(trend=trend).terms)
    now = state(rng, rows, n_frames, k, basis.n_terms)
    z = rng.normal(size=(rows, n_frames, m))
    positions = rng.integers(0, ODD[0] * ODD[1], (rows, n_frames, m)).astype(np.int32)
    priors = rng.dirichlet(np.ones(k), (rows, n_frames, m))
    frames = FrameRows.of_movies(z, positions, None, ODD, basis, backend).standardised(np.zeros(rows), np.ones(rows))
    samples = frames.samples(slice(None), len(basis.monomials))
    blocked = np.moveaxis(priors, 3, 2).reshape(rows * n_frames, 1, k, m)
    samples = replace(samples, log_weights=backend.real(np.log(blocked)))
    steps = MovieSteps(basis, backend.asarray(np.full((rows, 1), 1e-3)), None, strength, backend)
    alive = backend.asarray(np.ones((rows, k), dtype=bool))
    parameters = MovieParameters(alive=alive, **{name: backend.asarray(value) for name, value in now.items()})
    f = np.array([[ecm.design(p, ODD, basis.terms) for p in row] for row in positions])
    return steps, parameters, samples, now, z, f, priors


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("k", "trend", "n_frames", "strength"),
    [
        (3, "quadratic+electrode", 4, 1.0),
        (2, "none", 3, 2.0),
        (1, "linear", 2, 1.0),
        (2, "linear", 1, 1.0),
        (2, "linear", 3, 0.0),
    ],
)
def test_one_round_of_steps_equals_explicit_regression(backend, k, trend, n_frames, strength):
    backend = backend()
    steps, now, samples, plain, z, f, priors = steps_case(backend, k, trend, n_frames, strength)
    theta = steps.theta(now, own_weights=False)
    sums, _ = moments_and_resp(samples, theta, Layout(k, steps.basis.n_terms), backend=backend)
    new = steps.refitted(steps.reweighted(now, sums), sums)
    for r in range(2):
        resp, log_likelihood = oracle.e_step(one_of(plain, r), z[r], f[r], priors[r])
        wanted = oracle.m_steps(one_of(plain, r), z[r], f[r], resp, strength, 1e-3)
        np.testing.assert_allclose(host(backend, sums.log_likelihood).reshape(2, -1)[r], log_likelihood, rtol=1e-10)
        for name, value in wanted.items():
            np.testing.assert_allclose(
                np.squeeze(host(backend, getattr(new, name))[r]), np.squeeze(value), atol=1e-8, err_msg=name
            )


def test_a_prior_on_the_trend_holds_it_back():
    steps, now, samples, *_ = steps_case(NUMPY64, 2, "linear", 3, 0.0)
    sums, _ = moments_and_resp(samples, steps.theta(now, own_weights=False), Layout(2, 2), backend=NUMPY64)
    held = replace(steps, pull=np.full(2, 1e12)).refitted(now, sums)
    np.testing.assert_allclose(held.coef, 0, atol=1e-9)
    free = replace(steps, pull=np.full(2, 1e-12)).refitted(now, sums)
    np.testing.assert_allclose(free.coef, steps.refitted(now, sums).coef, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_information_of_a_frame_equals_explicit_regression(backend):
    backend = backend()
    steps, now, samples, plain, z, f, priors = steps_case(backend, 3, "linear+electrode", 2, 1.0)
    sums, _ = moments_and_resp(samples, steps.theta(now, own_weights=False), Layout(3, 3), backend=backend)
    rng = np.random.default_rng(0)
    precision, contrast = 1 + rng.random((4, 3)), rng.normal(size=(4, 3))
    info, pull = normal_equations(sums, backend.asarray(precision), backend.asarray(contrast), steps.basis, backend)
    for r in range(2):
        one = one_of(plain, r)
        resp, _ = oracle.e_step(one, z[r], f[r], priors[r])
        for t in range(2):
            row = 2 * r + t
            trend = f[r, t] @ (one["coef"] + one["drift"][t][:3])
            residual = (z[r, t] - trend)[:, None] - oracle.frame_means(one, t)
            left, right = oracle.information(f[r, t], resp[t], residual, precision[row], contrast[row])
            np.testing.assert_allclose(host(backend, info)[row], left, atol=1e-9)
            np.testing.assert_allclose(host(backend, pull)[row], right, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_walk_equals_one_dense_system(backend, n_frames):
    backend = backend()
    rng = np.random.default_rng(n_frames)
    half = rng.normal(size=(2, n_frames, 5, 3))
    info, pull = half @ np.swapaxes(half, 2, 3), rng.normal(size=(2, n_frames, 5))
    step, first = walk_precision(3, 0.01, backend)
    found = smooth_walk(backend.asarray(info), backend.asarray(pull), step, first, backend=backend)
    for r in range(2):
        wanted = oracle.walk(info[r], pull[r], host(backend, step), host(backend, first))
        np.testing.assert_allclose(host(backend, found)[r], wanted, rtol=1e-6)


def test_step_sizes_of_the_walk():
    step, first = walk_precision(2, 0.5, NUMPY64)
    np.testing.assert_allclose(step**-0.5, 0.5 * np.array([0.006, 0.006, 0.003, 0.0025]))
    np.testing.assert_allclose(first**-0.5, [0.3, 0.3, 0.3, 0.2])
