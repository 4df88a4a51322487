"""The compiled fit: sums against float64, and the same bits whatever the number of threads and how they share work."""

import numpy as np
import pytest
from fused_cases import pack
from test_fused_fit import CUBIC, FLOAT64, MODELS, bits, fused, generic, scene

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.engines.fused import fit as fit_module
from gmrm_gpu.engines.fused.fit import fit_source
from gmrm_gpu.mixture.design import TrendBasis
from gmrm_gpu.results import FitStatus

pytest.importorskip("numba", reason="the extra cpu (Numba) is not installed")

from gmrm_gpu.engines.compiled import fit as compiled_fit
from gmrm_gpu.engines.compiled.device import Call, CompiledDevice
from gmrm_gpu.engines.compiled.jit import compiled, exp2
from gmrm_gpu.engines.compiled.pool import Pool
from gmrm_gpu.engines.compiled.samples import Units, aligned, make_units, squares_of, standardise, total_of, unpack
from gmrm_gpu.engines.compiled.sums import (
    HALF_LOG_2PI,
    make_densities,
    make_model,
    make_work,
    n_sums,
    rounding_of,
    sum_samples,
)


def model_of(k, trend):
    config = MixtureConfig(n_components=k, trend=trend)
    return make_model(Call(dict(fit_source(1000, config, wide=False).constants), Pool(1))), config


def standard_scene(model, n, *, seed=0):
    """float32 samples z, x, y and parameters near them."""
    rng, k = np.random.default_rng(seed), model.k
    z, x, y = (aligned((n,)) for _ in range(3))
    means = np.linspace(-1.5, 1.5, k)
    x[:], y[:] = rng.uniform(-1, 1, (2, n))
    z[:] = means[rng.integers(k, size=n)] + rng.normal(0, 0.3, n)
    log_weights, log_sigmas = np.log(rng.dirichlet(np.full(k, 5.0))), np.log(rng.uniform(0.2, 0.6, k))
    coef = rng.normal(0, 0.05, model.q)
    return (z, x, y), np.concatenate([log_weights, means + rng.normal(0, 0.05, k), log_sigmas, coef])


def found_sums(samples, theta, model):
    densities, sums = np.zeros(theta.size, np.float32), np.full(n_sums(model), np.nan)
    make_densities(theta, model, densities)
    sum_samples(*samples, model, densities, make_work(model), sums)
    return sums


def exact_sums(samples, theta, config):
    """What `sums.Model` lists, float64."""
    z, x, y = (a.astype(np.float64) for a in samples)
    k, q = config.n_components, config.n_terms
    basis = np.stack([x**a * y**b for a, b in TrendBasis(config.terms).monomials])
    log_weights, means, log_sigmas = theta[: 3 * k].reshape(3, k, 1)
    deviations = z - theta[3 * k :] @ basis[1 : 1 + q] - means
    logs = log_weights - log_sigmas - HALF_LOG_2PI - 0.5 * (deviations * np.exp(-log_sigmas)) ** 2
    log_density = np.logaddexp.reduce(logs, axis=0)
    resp = np.exp(logs - log_density)
    parts = [(basis @ w, basis[: 1 + q] @ (w * d), [np.sum(w * d * d)]) for w, d in zip(resp, deviations, strict=True)]
    return np.concatenate([*(part for component in parts for part in component), [log_density.sum()]])


@pytest.mark.parametrize(("k", "trend"), [*MODELS, (4, "x4"), (3, "x3y,xy3")])
@pytest.mark.parametrize("n", [1, 15, 511, 512, 1025, 3000])
def test_sums_are_those_of_float64(k, trend, n):
    model, config = model_of(k, trend)
    samples, theta = standard_scene(model, n)
    found, wanted = found_sums(samples, theta, model), exact_sums(samples, theta, config)
    # Single numbers of size 1 are rounded by 6e-8, some of them several times; exponents are of size 10.
    np.testing.assert_allclose(found[:-1], wanted[:-1], rtol=0, atol=1e-6 * np.sqrt(n) + 1e-7 * n)
    likelihood = found[-1] + rounding_of(theta, found, model)
    np.testing.assert_allclose(likelihood, wanted[-1], rtol=0, atol=2e-6 * np.sqrt(n))


@pytest.mark.parametrize(("k", "trend"), [(4, "quadratic+electrode"), (6, CUBIC)])
def test_noise_of_the_log_likelihood_is_below_the_tolerance(k, trend):
    # The tolerance of a fit is 1e-8 a sample.
    model, config = model_of(k, trend)
    errors = []
    for seed in range(40):
        samples, theta = standard_scene(model, 4000, seed=seed)
        found = found_sums(samples, theta, model)
        exact = exact_sums(samples, theta, config)[-1]
        errors.append((found[-1] + rounding_of(theta, found, model) - exact) / 4000)
    assert np.sqrt(np.mean(np.square(errors))) < 4e-9
    assert abs(np.mean(errors)) < 1.5e-9


def test_a_component_far_away_and_a_dropped_one_hold_nothing():
    model, _ = model_of(3, "linear")
    samples, theta = standard_scene(model, 700)
    theta[0], theta[5], theta[8] = -1e30, 30.0, np.log(0.01)
    found = found_sums(samples, theta, model)
    size = model.p + model.q + 2
    alive = np.delete(theta, [0, 2, 3, 5, 6, 8])
    assert np.abs(found[:size]).max() < 1e-24
    assert np.abs(found[2 * size : 3 * size]).max() < 1e-24
    wanted = exact_sums(samples, alive, MixtureConfig(n_components=1, trend="linear"))
    np.testing.assert_allclose(found[size : 2 * size], wanted[:-1], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found[-1], wanted[-1], rtol=1e-6)


@pytest.mark.parametrize("place", range(8))
def test_a_parameter_that_is_no_number_spoils_the_log_likelihood(place):
    model, _ = model_of(2, "linear")
    samples, theta = standard_scene(model, 600)
    theta[place] = np.nan
    if place in (0, 1):  # a log weight that is no number is none: as in the CUDA kernel
        assert np.isfinite(found_sums(samples, theta, model)[-1])
    else:
        assert np.isnan(found_sums(samples, theta, model)[-1])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shape", [(40, 50), (1, 2000), (4095, 4095)])
def test_samples_are_unpacked_in_order(wide, shape):
    rng, m = np.random.default_rng(2), 1500
    values = rng.integers(255, size=(1, m)).astype(np.float32 if wide else np.uint8)
    positions = rng.permutation(min(shape[0] * shape[1], 10**6))[None, :m].astype(np.int32)
    valid = rng.random((1, m)) < 0.7
    words = pack(values, positions, valid, wide, shape)[0]
    z, x, y = (np.full(m, np.nan, np.float32) for _ in range(3))
    n = unpack(words, *shape, z, x, y)
    assert n == valid.sum()
    np.testing.assert_array_equal(z[:n], values[valid])
    for found, place, size in zip((y, x), np.divmod(positions[valid], shape[1]), shape, strict=True):
        wanted = place / (size - 1) * 2 - 1 if size > 1 else 0 * place
        np.testing.assert_allclose(found[:n], wanted, rtol=0, atol=3e-7)
    kept = z[:n].astype(np.float64)
    np.testing.assert_allclose(total_of(z[:n]), kept.sum(), rtol=1e-14)
    np.testing.assert_allclose(squares_of(z[:n], kept.mean()), kept.var() * n, rtol=1e-13)


def test_standardising_rounds_no_difference_of_grey_levels():
    levels = np.arange(256.0)
    found = levels.astype(np.float32)
    standardise(found, Units(*(np.float32(number) for number in make_units(117.3, 41.9))))
    np.testing.assert_allclose(found, (levels - 117.3) / 41.9, rtol=1.5e-7, atol=1e-9)


@pytest.mark.parametrize("schedule", ["fast", "reference"])
def test_bits_do_not_depend_on_threads(schedule):
    values, positions = scene(7, 1700, 3)
    config = MixtureConfig(n_components=3, trend="quadratic", schedule=schedule)
    found = [bits(fused(values, positions, config, device=CompiledDevice(n))) for n in (1, 2, 3)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("trend", ["none", "linear", "quadratic+electrode"])
@pytest.mark.parametrize("chunk", [64, 100, 16384])
def test_bits_do_not_depend_on_how_threads_share_a_fit(trend, chunk, monkeypatch):
    monkeypatch.setattr(fit_module, "TEAM_SAMPLES", 100)
    monkeypatch.setattr(fit_module, "CHUNK", chunk)
    values, positions = scene(5, 1301, 3)
    valid = np.random.default_rng(4).random(values.shape) < 0.9
    valid[0, :200] = False  # chunks without a sample
    valid[1, 3:] = False  # too few
    values[2] = 70  # constant
    config = MixtureConfig(n_components=3, trend=trend)
    found = []
    for n_threads, fits_a_thread in ((1, 4), (2, 0), (2, 4), (3, 4)):  # alone, alone, together, together
        monkeypatch.setattr(compiled_fit, "FITS_A_THREAD", fits_a_thread)
        fit = fused(values, positions, config, valid=valid, device=CompiledDevice(n_threads))
        assert list(fit.status[1:3]) == [FitStatus.TOO_FEW, FitStatus.DEGENERATE]
        found.append(bits(fit))
    assert found[0] == found[1] == found[2] == found[3]


def test_a_subset_for_the_starts_without_a_sample():
    # 5,000 samples are ten blocks, of which every second is asked; a fit before must leave no trace.
    values, positions = scene(2, 5000, 3, shape=(80, 90))
    valid = np.ones((2, 5000), dtype=bool)
    valid[1, ::2] = False
    config = MixtureConfig(n_components=3, trend="linear")
    device = CompiledDevice(1)
    both = fused(values, positions, config, valid=valid, shape=(80, 90), frames=2, device=device)
    values[0] = 7
    other = fused(values, positions, config, valid=valid, shape=(80, 90), frames=2, device=device)
    assert bits(both[1:]) == bits(other[1:])
    assert both.n_samples[1] == 2500


@compiled
def powers_of_two(x, out):
    for i in range(x.size):
        out[i] = exp2(x[i])


@pytest.mark.parametrize("n", [3, 4096])  # numbers one by one, and whole vectors
def test_exp2(n):
    rng = np.random.default_rng(3)
    x, out = (-126 * rng.random(n)).astype(np.float32), np.empty(n, np.float32)
    powers_of_two(x, out)
    np.testing.assert_allclose(out, np.exp2(x.astype(np.float64)), rtol=1.5e-7)
    whole = -np.arange(n, dtype=np.float32) % 127
    powers_of_two(-whole, out)
    np.testing.assert_array_equal(out, np.exp2(-whole))
    powers_of_two(np.full(n, -1e30, np.float32), out)
    assert (out == np.float32(2.0**-126)).all()


def test_large_fits_shared_by_threads():
    shape = (270, 300)
    values, positions = scene(1, 270 * 300, 3, shape=shape)
    config = MixtureConfig(n_components=3, trend="linear", starts=("quantile",), max_iter=6, tol=1e-300)
    assert fit_source(values.shape[1], config, wide=False).constants[-1]
    shared = fused(values, positions, config, shape=shape, device=CompiledDevice(2))
    alone = fused(values, positions, config, shape=shape, device=CompiledDevice(1))
    assert bits(shared) == bits(alone)
    wanted = generic(values, positions, config, shape=shape, backend=FLOAT64)
    np.testing.assert_allclose(shared.means, wanted.means, atol=2e-3)
    np.testing.assert_allclose(shared.log_likelihood, wanted.log_likelihood, rtol=1e-8)


def test_progress_is_told():
    values, positions = scene(5, 300, 2)
    device, told = CompiledDevice(1), []
    device.pool.notify = told.append
    fused(values, positions, MixtureConfig(n_components=2, trend="none"), device=device)
    np.testing.assert_allclose(told, np.arange(1, 6) / 5)
