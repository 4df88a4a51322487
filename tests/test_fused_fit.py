"""The fit kernel against the generic engine in float64: the same starts, steps, optima, statuses."""

from dataclasses import replace

import numpy as np
import pytest
from devices import ON_GPU, kernel_device, missing
from fused_cases import pack

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.engines.fused import fit as fit_module
from gmrm_gpu.engines.fused.fit import TEAM_SAMPLES, FitArrays, FitKeys, fit_source, plan_fit, run_fit
from gmrm_gpu.engines.fused.model import n_sums
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.mixture.fit import fit_mixture
from gmrm_gpu.mixture.moments import Layout, moments
from gmrm_gpu.philox import STREAM_START, stream_words
from gmrm_gpu.results import FitStatus

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.usefixtures("each_device"),
]

FLOAT64, FLOAT32 = make_backend(np, dtype="float64"), make_backend(np)
SHAPE = (40, 50)
FLOOR = 0.3
SEED, RATE = 2**40 + 7, 0.05
CUBIC = "x,y,x2,xy,y2,x3,x2y,xy2,y3"
STEEP = "x4,x2y2,y4,x3,x,y,xy3,x3y,y2"
MODELS = [(1, "none"), (2, "linear"), (2, STEEP), (3, "quadratic"), (4, "quadratic+electrode"), (5, "y3"), (6, CUBIC)]


def fused(values, positions, config, *, valid=None, wide=False, shape=SHAPE, frames=1, resident=None, device=None):
    """Fits (F, m) samples; row f is frame f % frames of replicate f // frames."""
    device = device or kernel_device()
    if resident and hasattr(device, "blocks"):
        device.blocks = resident
    n_fits, m = values.shape
    plan = plan_fit(n_fits, m, config, wide=wide, resident_blocks=resident)
    out = FitArrays.empty(n_fits, config, device)
    numbers = (device.asarray(np.arange(n, dtype=np.uint32)) for n in (n_fits // frames, frames))
    words = device.asarray(pack(values, positions, valid, wide, shape))
    run_fit(plan, words, shape, config, keys=FitKeys(SEED, RATE, *numbers), sigma_floor=FLOOR, out=out, device=device)
    return out.to_host(config.terms, device)


def generic(values, positions, config, *, valid=None, shape=SHAPE, frames=1, backend=FLOAT64):
    replicates = np.arange(len(values) // frames)
    words = [stream_words(SEED, RATE, replicates, t, STREAM_START, config.n_components) for t in range(frames)]
    streams = np.stack(words, axis=1).reshape(len(values), -1)
    return fit_mixture(
        values, positions, shape, config, valid=valid, streams=streams, sigma_floor=FLOOR, backend=backend
    )


def scene(n_fits, m, n_components, *, seed=0, shape=SHAPE):
    """Grey levels of `n_components` phases under a mild trend, at distinct random pixels."""
    rng = np.random.default_rng(seed)
    positions = np.stack([rng.permutation(shape[0] * shape[1])[:m] for _ in range(n_fits)]).astype(np.int32)
    y, x = (a / (s - 1) * 2 - 1 for a, s in zip(np.divmod(positions, shape[1]), shape, strict=True))
    levels = np.linspace(40, 210, n_components)[rng.integers(n_components, size=(n_fits, m))]
    noise = rng.normal(scale=20 / n_components**0.7, size=(n_fits, m))
    values = np.clip(np.rint(levels + noise + 3 * x - 2 * y + 2 * x * x), 0, 255)
    return values.astype(np.uint8), positions


def assert_close(found, wanted, atol):
    np.testing.assert_array_equal(found.n_samples, wanted.n_samples)
    for name in ("weights", "means", "sigmas", "coef"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("k", "trend"), MODELS)
def test_a_step_is_the_generic_one(k, trend, wide):
    # Two passes from one start: the second point is one M-step away from it, before rounding can take another turn.
    values, positions = scene(3, 333, k)
    for schedule in ("fast", "reference"):
        config = MixtureConfig(
            n_components=k, trend=trend, schedule=schedule, starts=("spread",), max_iter=2, tol=1e-300
        )
        found = fused(values, positions, config, wide=wide, frames=3)
        # In float32: the ridge of the normal equations depends on the precision, and shortens steps.
        wanted = generic(values, positions, config, frames=3, backend=FLOAT32)
        np.testing.assert_array_equal(found.status, wanted.status)
        np.testing.assert_array_equal(found.n_iter, wanted.n_iter)
        assert_close(found, wanted, atol=1e-3 if trend == STEEP else 1e-4)
        np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=0, atol=3e-7 * 333)


def blurred(values, positions):
    """The same scene with phases that overlap."""
    noise = np.random.default_rng(1).normal(scale=9, size=values.shape)
    return np.clip(np.rint((values - 128.0) * 0.35 + 128 + noise), 0, 255).astype(np.uint8), positions


def overlapping(trend, **settings):
    """Four fits that take many cycles: extrapolations that are taken back and limits that grow are among them."""
    values, positions = blurred(*scene(4, 400, 3, seed=1))
    config = MixtureConfig(n_components=3, trend=trend, starts=("spread",), **settings)
    return fused(values, positions, config), generic(values, positions, config)


@pytest.mark.parametrize("trend", ["none", "linear"])
def test_the_way_is_the_generic_one(trend):
    for n_passes in (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20):
        found, wanted = overlapping(trend, max_iter=n_passes, tol=1e-300)
        np.testing.assert_array_equal(found.n_iter, wanted.n_iter)
        # Rounding grows along the way, most where an extrapolation is long.
        assert_close(found, wanted, atol=0.02)
        np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=0, atol=1e-3)


@pytest.mark.parametrize("m", [900, 5000])  # all samples, every second block of them
def test_the_best_point_of_the_short_runs_is_the_generic_one(m):
    shape = (80, 90)
    values, positions = blurred(*scene(3, m, 3, seed=4, shape=shape))
    for n_passes in (1, 2, 3, 4, 7, 9):
        config = MixtureConfig(n_components=3, trend="linear", n_start_iter=n_passes, max_iter=1)
        found = fused(values, positions, config, shape=shape)
        assert_close(found, generic(values, positions, config, shape=shape), atol=5e-3)


@pytest.mark.parametrize("schedule", ["fast", "reference"])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4, 1e-5])
def test_a_fit_ends_where_the_generic_one_ends(schedule, tol):
    # The tolerance is far above rounding, which may yet send one of four fits another way where the way is long.
    found, wanted = overlapping("linear", schedule=schedule, tol=tol)
    same = found.n_iter == wanted.n_iter
    assert same.sum() >= (4 if tol > 1e-5 else 3)
    assert_close(found[same], wanted[same], atol=0.02)
    just = int(found.n_iter[0])
    found, _ = overlapping("linear", schedule=schedule, tol=tol, max_iter=just)
    assert (found.status[0], found.n_iter[0]) == (FitStatus.CONVERGED, just)


def exactly_standardised(n_fits, n_pairs, n_components):
    """Values (F, 2 n_pairs) of centre 0 and scale 1 to the last bit of float32: standardising them rounds nothing."""
    rng = np.random.default_rng(8)
    levels = np.linspace(-1.6, 1.6, n_components)[rng.integers(n_components, size=(n_fits, n_pairs - 1))]
    half = levels + rng.normal(scale=0.4, size=levels.shape)
    half = (0.99 * half / np.sqrt((half**2).mean(axis=1, keepdims=True))).astype(np.float32)
    last = np.sqrt(n_pairs - (half.astype(np.float64) ** 2).sum(axis=1, keepdims=True)).astype(np.float32)
    half = np.concatenate([half, last], axis=1)
    return np.concatenate([half, -half], axis=1)


@pytest.mark.parametrize(("k", "trend"), [(4, "quadratic+electrode"), (6, CUBIC)])
def test_the_objective_is_that_of_float64_within_the_tolerance(k, trend):
    # Noise above the tolerance of 1e-8 a sample would decide when a fit ends.
    shape, values = (65, 129), exactly_standardised(3, 2000, k)
    rng = np.random.default_rng(9)
    positions = np.stack([rng.permutation(shape[0] * shape[1])[: values.shape[1]] for _ in values]).astype(np.int32)
    errors = []
    for n_passes in (1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30):
        config = MixtureConfig(n_components=k, trend=trend, starts=("spread",), max_iter=n_passes, tol=1e-300)
        fit = fused(values, positions, config, wide=True, shape=shape)
        exact = log_likelihood_at(fit, values, positions, shape, config)
        errors.append((fit.log_likelihood - exact) / values.shape[1])
    assert np.sqrt(np.mean(np.square(errors))) < (1e-8 if ON_GPU else 4.3e-9)


def log_likelihood_at(fit, values, positions, shape, config):
    """Of the parameters of a fit, in float64."""
    samples = make_samples(values, positions, shape, TrendBasis(config.terms), backend=FLOAT64)
    centre, scale = samples.centre[:, None], samples.scale[:, None]
    theta = [np.log(fit.weights), (fit.means - centre) / scale, np.log(fit.sigmas / scale), fit.coef / scale]
    layout = Layout(config.n_components, config.n_terms)
    found = moments(samples, np.concatenate(theta, axis=1), layout, backend=FLOAT64).log_likelihood
    return found - samples.n * np.log(samples.scale)


@pytest.mark.parametrize("k", [1, 4, 6])
@pytest.mark.parametrize("start", ["quantile", "spread", "kmeans++"])
def test_starts_are_the_generic_ones(start, k):
    # After one pass the parameters are those of the start.
    values, positions = scene(6, 900, k)
    config = MixtureConfig(n_components=k, trend="linear", starts=(start,), max_iter=1)
    found, wanted = fused(values, positions, config, frames=2), generic(values, positions, config, frames=2)
    assert (found.status == FitStatus.MAX_ITER).all()
    assert_close(found, wanted, atol=2e-5)


@pytest.mark.parametrize(("k", "trend"), MODELS)
@pytest.mark.parametrize("schedule", ["fast", "reference"])
def test_the_optimum_is_the_generic_one(k, trend, schedule):
    values, positions = scene(4, 1301, k, seed=1)
    config = MixtureConfig(n_components=k, trend=trend, schedule=schedule, tol=1e-9)
    found, wanted = fused(values, positions, config, frames=2), generic(values, positions, config, frames=2)
    np.testing.assert_array_equal(found.status, FitStatus.CONVERGED)
    # METHOD.md 3: log-likelihood within 1e-8 relative, parameters within 1e-3 grey level. The other 1e-8 is rounding of
    # standardised grey levels, the same for all samples of a level: 40 such fits differ by 6e-9 rms, 1.5e-8 at most.
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=2e-8)
    assert_close(found, wanted, atol=1e-3 if schedule == "fast" else 0.02)


def test_rounding_does_not_keep_a_fit_going():
    # With so few samples rounding is above the tolerance: each gain that it makes up must not count again.
    values, positions = scene(200, 60, 2, seed=11)
    found = fused(values, positions, MixtureConfig(n_components=2, trend="linear"))
    np.testing.assert_array_equal(found.status, FitStatus.CONVERGED)
    assert found.n_iter.max() < 50


def test_the_best_of_several_starts_is_kept():
    # A rare phase that the quantile start misses.
    values, positions = scene(4, 1000, 2, seed=2)
    values[:, :30] = 250
    alone = [
        fused(values, positions, MixtureConfig(n_components=3, trend="linear", starts=(name,))).log_likelihood
        for name in ("quantile", "spread", "kmeans++")
    ]
    assert (np.ptp(alone, axis=0) > 1).any(), "the starts do not differ: this scene tests nothing"
    config = MixtureConfig(n_components=3, trend="linear")
    together = fused(values, positions, config)
    # A component on 30 pixels is a flat ridge: where on it a fit stops is a matter of rounding.
    np.testing.assert_allclose(together.log_likelihood, generic(values, positions, config).log_likelihood, rtol=3e-7)
    assert (together.log_likelihood > np.min(alone, axis=0) - 0.01).all()


def test_no_sigma_is_below_the_floor():
    values, positions = scene(3, 400, 2)
    values[:, :200] = 77  # a phase without noise
    for floor in (None, 2.5):
        config = MixtureConfig(n_components=3, trend="none", sigma_floor=floor, tol=1e-10)
        found, wanted = fused(values, positions, config), generic(values, positions, config)
        assert_close(found, wanted, atol=1e-3)
        np.testing.assert_allclose(found.sigmas.min(axis=1), floor or FLOOR, rtol=1e-12)


def test_a_prior_holds_the_trend():
    values, positions = scene(2, 500, 2)
    config = MixtureConfig(n_components=2, trend="quadratic", trend_prior=0.2, tol=1e-10)
    found, wanted = fused(values, positions, config), generic(values, positions, config)
    assert_close(found, wanted, atol=1e-3)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=0, atol=1e-4)
    free = fused(values, positions, replace(config, trend_prior=None))
    assert (np.abs(found.coef).sum(axis=1) < 0.7 * np.abs(free.coef).sum(axis=1)).all()


@pytest.mark.parametrize(("shape", "wide"), [((4096, 4096), False), ((16384, 65535), True), ((65535, 16384), True)])
def test_the_largest_frames(shape, wide):
    rng = np.random.default_rng(5)
    positions = rng.integers(shape[0] * shape[1], size=(1, 600), dtype=np.int32)
    y, x = (a / (s - 1) * 2 - 1 for a, s in zip(np.divmod(positions, shape[1]), shape, strict=True))
    values = np.rint(np.where(rng.random(x.shape) < 0.4, 60, 150) + rng.normal(scale=4, size=x.shape) + 20 * x - 30 * y)
    config = MixtureConfig(n_components=2, trend="linear", tol=1e-10)
    found = fused(values.astype(np.uint8), positions, config, shape=shape, wide=wide)
    assert_close(found, generic(values, positions, config, shape=shape), atol=1e-3)
    assert_close(found, replace(found, coef=np.array([[20.0, -30.0]])), atol=1.0)


@pytest.mark.parametrize("trend", ["x", "linear"])
@pytest.mark.parametrize("shape", [(900, 1), (1, 900)])
def test_a_frame_of_one_row_or_column(shape, trend):
    # What a term says that is the same everywhere belongs to the means.
    values, positions = scene(2, 900, 2, shape=(30, 30))
    config = MixtureConfig(n_components=2, trend=trend, tol=1e-10)
    found = fused(values, positions, config, shape=shape)
    assert_close(found, generic(values, positions, config, shape=shape), atol=1e-3)
    unseen = config.terms.index((1, 0)) if shape[1] == 1 else config.terms.index((0, 1)) if trend == "linear" else None
    assert unseen is None or (found.coef[:, unseen] == 0).all()


@pytest.mark.parametrize("m", [40, 511, 513, 1025])
@pytest.mark.parametrize("wide", [False, True])
def test_padding_is_not_seen(m, wide):
    values, positions = scene(3, m, 2, seed=3)
    valid = np.random.default_rng(4).random((3, m)) < 0.8
    values[~valid] = 255
    config = MixtureConfig(n_components=2, trend="linear", tol=1e-10)
    found = fused(values, positions, config, valid=valid, wide=wide)
    assert_close(found, generic(values, positions, config, valid=valid), atol=1e-3)


def test_trouble_is_a_status():
    values, positions = scene(8, 100, 2, seed=5)
    valid = np.ones((8, 100), dtype=bool)
    values[0] = 80  # constant
    valid[1] = False  # nothing
    valid[2, 1:] = False  # one sample
    valid[3, 7:] = False  # as many samples as parameters
    values[4, 5:] = 90  # one component left
    values[4, :5] = 91
    found_values = values.astype(np.float32)
    found_values[5, 50] = np.nan
    found_values[6, 50] = np.inf
    config = MixtureConfig(n_components=2, trend="linear", max_iter=500)
    found = fused(found_values, positions, config, valid=valid, wide=True)
    with np.errstate(invalid="ignore"):
        wanted = generic(found_values, positions, config, valid=valid)
    np.testing.assert_array_equal(found.status, wanted.status)
    assert set(found.status) >= {FitStatus.CONVERGED, FitStatus.DEGENERATE, FitStatus.TOO_FEW}
    bad = found.status >= FitStatus.DEGENERATE
    for name in ("means", "sigmas", "coef"):
        assert np.isnan(getattr(found, name)[bad]).all()
    assert (found.weights[bad] == 0).all()
    assert np.isnan(found.log_likelihood[bad]).all()
    assert_close(found, wanted, atol=1e-3)


def test_a_component_that_holds_nothing_is_dropped():
    rng = np.random.default_rng(6)
    positions = np.stack([rng.permutation(2000)[:400] for _ in range(3)]).astype(np.int32)
    values = np.where(np.arange(400) < 200, 50, 200) + rng.integers(-2, 3, size=(3, 400))
    values[:, 0] = 120  # a component on one sample cannot stay
    config = MixtureConfig(n_components=4, trend="none", starts=("spread",), max_iter=3000)
    found = fused(values.astype(np.uint8), positions, config)
    wanted = generic(values, positions, config)
    np.testing.assert_array_equal(found.status, wanted.status)
    assert (found.status == FitStatus.DROPPED).any()
    np.testing.assert_array_equal(found.weights > 0, wanted.weights > 0)
    np.testing.assert_array_equal(np.isnan(found.means), found.weights == 0)


def bits(fit):
    return [getattr(fit, n).tobytes() for n in ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter")]


def test_bits_depend_neither_on_the_batch_nor_on_the_order_of_threads():
    values, positions = scene(6, 700, 3)
    config = MixtureConfig(n_components=3, trend="quadratic", max_iter=12)
    whole = fused(values, positions, config, frames=2)
    alone = fused(values[:2], positions[:2], config, frames=2)
    assert bits(whole[:2]) == bits(alone)
    for schedule in ("reverse", "random:1"):
        assert bits(
            fused(values[:2], positions[:2], config, frames=2, device=kernel_device(schedule=schedule))
        ) == bits(alone)


def test_a_team_of_blocks_fits_a_full_frame():
    shape = (260, 300)
    m = shape[0] * shape[1]
    assert m > TEAM_SAMPLES
    values, positions = scene(2, m, 2, seed=7, shape=shape)
    order = np.argsort(positions, axis=1)
    values, positions = np.take_along_axis(values, order, axis=1), np.sort(positions, axis=1)
    config = MixtureConfig(n_components=2, trend="linear")
    found = fused(values, positions, config, shape=shape, resident=5)
    assert_close(found, generic(values, positions, config, shape=shape), atol=1e-3)
    for resident in (1, 3, 10):  # one block alone, teams of three, two teams of five at a time
        assert bits(fused(values, positions, config, shape=shape, resident=resident)) == bits(found)


@pytest.mark.parametrize(("sanitize", "schedule"), [("plain", "random:1"), ("plain", "reverse"), ("tsan", "random:2")])
def test_a_team_waits_for_its_blocks(sanitize, schedule, monkeypatch):
    # Small chunks make small teams, of 3 and 2 chunks' blocks each; the last chunk is short.
    monkeypatch.setattr(fit_module, "TEAM_SAMPLES", 100)
    monkeypatch.setattr(fit_module, "CHUNK", 64)
    values, positions = scene(3, 180, 2)
    config = MixtureConfig(n_components=2, trend="linear", max_iter=4, starts=("spread",))
    device = kernel_device(sanitize=sanitize, schedule=schedule)
    found = fused(values, positions, config, device=device, resident=6)
    assert bits(found) == bits(fused(values, positions, config, resident=1))
    assert_close(found, generic(values, positions, config), atol=1e-3)


def test_plan_of_teams():
    config = MixtureConfig()
    alone = plan_fit(2, TEAM_SAMPLES, config, wide=False)
    assert (alone.team_size, alone.launch.cooperative) == (1, False)
    small = plan_fit(300_000, 2621, config, wide=False)
    assert (small.launch.blocks, small.team_size, small.scratch_bytes) == (300_000, 1, 0)
    assert not small.launch.cooperative
    frames = plan_fit(300, 512 * 512, config, wide=False, resident_blocks=396)
    assert (frames.team_size, frames.n_teams, frames.launch.blocks) == (16, 24, 384)
    assert frames.launch.cooperative
    assert frames.scratch_bytes == 24 * (2 * 16 * n_sums(config) * 8 + 4)
    large = plan_fit(3, 4096 * 4096, config, wide=False, resident_blocks=396)
    assert (large.team_size, large.n_teams) == (396, 1)
    assert plan_fit(2, 512 * 512, config, wide=False, resident_blocks=396).launch.blocks == 32


@pytest.mark.parametrize("sanitize", ["asan", "tsan"])
def test_nothing_is_out_of_bounds_or_raced(sanitize):
    values, positions = scene(1, 150, 2)
    config = MixtureConfig(n_components=2, trend="linear", max_iter=3, n_start_iter=3)
    device = kernel_device(sanitize=sanitize, schedule="random:3")
    assert bits(fused(values, positions, config, device=device)) == bits(fused(values, positions, config))


def test_the_last_block_of_the_starts_subset_ends_with_the_samples():
    # 1,025 samples are three blocks of 342 places: the last place holds no sample.
    values, positions = scene(1, 1025, 2)
    config = MixtureConfig(n_components=2, trend="none", max_iter=1, n_start_iter=1, starts=("spread",))
    device = kernel_device(sanitize="asan")
    assert bits(fused(values, positions, config, device=device)) == bits(fused(values, positions, config))


def test_an_instance_is_its_model_and_size_class():
    # Settings that are arguments of the launch must not compile anything anew.
    digest = fit_source(2621, MixtureConfig(), wide=False).digest
    assert digest == fit_source(2621, MixtureConfig(tol=1e-3, max_iter=7, schedule="reference"), wide=False).digest
    others = [fit_source(2621, MixtureConfig(n_components=3), wide=False), fit_source(2621, MixtureConfig(), wide=True)]
    assert digest not in [source.digest for source in others]
