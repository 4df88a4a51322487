"""The histogram of the fit kernel against the generic engine in float64: the same settled points, optima and counts."""

from dataclasses import replace

import numpy as np
import pytest
from devices import kernel_device, missing
from test_fit import check_never_falls, history
from test_fused_fit import CUBIC, FLOAT64, FLOOR, SHAPE, STEEP, assert_close, bits, blurred, fused, generic, scene

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.engines.fused import fit as fit_module
from gmrm_gpu.engines.fused.fit import FitArrays, fit_source, plan_fit
from gmrm_gpu.engines.fused.model import n_sums
from gmrm_gpu.mixture import histogram as histogram_module
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.mixture.histogram import BINS
from gmrm_gpu.results import FitStatus

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.usefixtures("each_device"),
]


def binned(k, trend, **settings):
    return MixtureConfig(n_components=k, trend=trend, histogram=True, **settings)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("k", "trend"), [(1, "none"), (2, "linear"), (3, "quadratic"), (4, "quadratic+electrode")])
def test_the_first_settled_point_is_the_generic_one(k, trend, wide):
    # Two passes from one start: the second is at a settled point, which may be far from the start.
    values, positions = scene(3, 700, k)
    config = binned(k, trend, starts=("spread",), max_iter=2, tol=1e-9)
    found, wanted = fused(values, positions, config, wide=wide, frames=3), generic(values, positions, config, frames=3)
    np.testing.assert_array_equal(found.status, wanted.status)
    assert_close(found, wanted, atol=2e-3)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=0, atol=3e-7 * 700)
    plain = fused(values, positions, replace(config, histogram=False), wide=wide, frames=3)
    assert k == 1 or (found.log_likelihood > plain.log_likelihood).all()


@pytest.mark.parametrize("n_passes", [3, 4, 5, 6, 7])
def test_the_way_is_the_generic_one(n_passes):
    values, positions = blurred(*scene(4, 1500, 3, seed=1))
    config = binned(3, "linear", starts=("spread",), max_iter=n_passes, tol=1e-8)
    found, wanted = fused(values, positions, config), generic(values, positions, config)
    assert_close(found, wanted, atol=0.02)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=0, atol=2e-3)


@pytest.mark.parametrize("tol", [1e-3, 1e-4])
def test_a_fit_ends_where_the_generic_one_ends(tol):
    # The tolerance is far above rounding, and so is a hundredth of it on the bins.
    values, positions = blurred(*scene(4, 1500, 3, seed=1))
    config = binned(3, "linear", starts=("spread",), tol=tol)
    found, wanted = fused(values, positions, config), generic(values, positions, config)
    np.testing.assert_array_equal(found.n_iter, wanted.n_iter)
    assert_close(found, wanted, atol=0.02)


@pytest.mark.parametrize(
    ("k", "trend"),
    [(1, "none"), (2, "linear"), (2, STEEP), (3, "quadratic"), (4, "quadratic+electrode"), (5, "y3"), (6, CUBIC)],
)
def test_the_optimum_is_the_generic_one(k, trend):
    values, positions = scene(4, 1301, k, seed=1)
    config = binned(k, trend, tol=1e-9)
    found, wanted = fused(values, positions, config, frames=2), generic(values, positions, config, frames=2)
    np.testing.assert_array_equal(found.status, FitStatus.CONVERGED)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-8)
    assert_close(found, wanted, atol=1e-3)
    plain = generic(values, positions, replace(config, histogram=False, tol=1e-12), frames=2)
    np.testing.assert_allclose(found.log_likelihood, plain.log_likelihood, rtol=1e-8)


def test_it_spares_passes():
    # Phases that overlap, 6,000 pixels: less than half the passes, at the same optimum or a higher one.
    values, positions = blurred(*scene(3, 6000, 3, seed=1, shape=(80, 90)))
    found = fused(values, positions, binned(3, "quadratic+electrode"), shape=(80, 90))
    plain = fused(values, positions, replace(binned(3, "quadratic+electrode"), histogram=False), shape=(80, 90))
    assert found.n_iter.sum() < 0.5 * plain.n_iter.sum()
    assert (found.log_likelihood > plain.log_likelihood - 1e-8 * 6000).all()


def test_coarse_bins_are_not_used():
    # A spike of one grey level beside a broad phase: the fit goes on without, as the generic one does.
    values, positions = scene(3, 900, 2, seed=2)
    values[:, :400] = 77
    config = binned(3, "none", tol=1e-9)
    found, wanted = fused(values, positions, config), generic(values, positions, config)
    assert_close(found, wanted, atol=1e-3)
    assert found.sigmas.min() < 0.31


def test_padding_prior_and_floor():
    values, positions = scene(3, 1025, 2, seed=3)
    valid = np.random.default_rng(4).random((3, 1025)) < 0.8
    values[~valid] = 255
    config = binned(2, "quadratic", trend_prior=0.2, sigma_floor=9.0, tol=1e-10)
    found = fused(values, positions, config, valid=valid)
    assert_close(found, generic(values, positions, config, valid=valid), atol=1e-3)


def test_a_component_that_holds_nothing_is_dropped():
    rng = np.random.default_rng(6)
    positions = np.stack([rng.permutation(2000)[:800] for _ in range(3)]).astype(np.int32)
    values = np.rint(np.where(np.arange(800) < 400, 50, 200) + 4 * rng.standard_normal((3, 800)))
    values[:, 0] = 120  # a component on one sample cannot stay
    config = binned(4, "none", starts=("spread",), max_iter=3000)
    found, wanted = (f(values.astype(np.uint8), positions, config) for f in (fused, generic))
    np.testing.assert_array_equal(found.status, wanted.status)
    assert (found.status == FitStatus.DROPPED).any()
    np.testing.assert_array_equal(found.weights > 0, wanted.weights > 0)


def test_bits_depend_neither_on_the_batch_nor_on_the_order_of_threads():
    values, positions = scene(4, 700, 3)
    config = binned(3, "quadratic", max_iter=6)
    whole, alone = (fused(values[:n], positions[:n], config, frames=2) for n in (4, 2))
    assert bits(whole[:2]) == bits(alone)
    for schedule in ("reverse", "random:1"):
        device = kernel_device(schedule=schedule)
        assert bits(fused(values[:2], positions[:2], config, frames=2, device=device)) == bits(alone)


def test_bits_do_not_depend_on_the_size_of_a_team(monkeypatch):
    # Five chunks, the last of them short; teams of 1, 2 and 5 blocks, and more than one team.
    monkeypatch.setattr(fit_module, "TEAM_SAMPLES", 1000)
    monkeypatch.setattr(fit_module, "CHUNK", 400)
    values, positions = scene(3, 1900, 3)
    config = binned(3, "linear", max_iter=8, starts=("spread",))
    one = fused(values, positions, config, resident=1)
    for resident in (2, 5, 15):
        assert bits(fused(values, positions, config, resident=resident)) == bits(one)
    assert_close(one, generic(values, positions, config), atol=1e-3)


@pytest.mark.parametrize("sanitize", ["asan", "tsan"])
@pytest.mark.parametrize("resident", [None, 6])
def test_nothing_is_out_of_bounds_or_raced(sanitize, resident, monkeypatch):
    if resident:
        monkeypatch.setattr(fit_module, "TEAM_SAMPLES", 100)
        monkeypatch.setattr(fit_module, "CHUNK", 128)
    values, positions = scene(2, 300, 2)
    config = binned(2, "linear", max_iter=3, n_start_iter=2, starts=("spread",), tol=1e-4)
    device = kernel_device(sanitize=sanitize, schedule="random:3")
    found = fused(values, positions, config, device=device, resident=resident)
    assert bits(found) == bits(fused(values, positions, config, resident=resident))


def test_what_the_plan_counts():
    with_it, without = binned(4, "quadratic+electrode"), MixtureConfig()
    for m, resident in ((2621, None), (512 * 512, 396)):
        more, plain = (plan_fit(300, m, c, wide=False, resident_blocks=resident) for c in (with_it, without))
        assert more.launch.shared_bytes == plain.launch.shared_bytes + 4096 + 12 * BINS
        assert (more.launch.blocks, more.launch.threads) == (plain.launch.blocks, plain.launch.threads)
        parts = more.n_teams * 2 * more.team_size * BINS * 4 if resident else 0
        assert more.scratch_bytes == plain.scratch_bytes + parts
    assert plain.scratch_bytes == plain.n_teams * (2 * 16 * n_sums(without) * 8 + 4)
    assert FitArrays.bytes_per_fit(with_it) == FitArrays.bytes_per_fit(without)


def test_it_is_another_instance_of_the_kernel():
    sources = [fit_source(2621, binned(4, "quadratic+electrode", tol=t), wide=False) for t in (1e-8, 1e-3)]
    assert sources[0].digest == sources[1].digest
    assert sources[0].digest != fit_source(2621, MixtureConfig(), wide=False).digest


def test_an_outlier_counts_in_the_last_bin():
    values, positions = scene(2, 1500, 2, shape=SHAPE)
    values[:, :2] = 255
    values[:, 2:4] = 0
    config = binned(2, "linear", tol=1e-9, sigma_floor=1.0)
    assert_close(fused(values, positions, config), generic(values, positions, config), atol=1e-3)


def test_a_point_that_falls_is_taken_back(monkeypatch):
    # Bins just narrow enough to be used, few samples: some settled points lie lower.
    for place in (fit_module, histogram_module):
        monkeypatch.setattr(place, "BINS", 28)
    values, positions = blurred(*scene(8, 400, 2, seed=3))
    config, trace = binned(2, "linear", starts=("spread",), tol=1e-9), []
    fit_mixture(values, positions, SHAPE, config, sigma_floor=FLOOR, backend=FLOAT64, trace=trace)
    refused = [check_never_falls(history(trace, r), 1e-9, fast=True)[1] for r in range(8)]
    assert sum(refused) > 3, "nothing is taken back: this scene tests nothing"
    for n_passes in (*range(3, 9), 50):
        config = replace(config, max_iter=n_passes)
        assert_close(fused(values, positions, config), generic(values, positions, config), atol=0.01)
