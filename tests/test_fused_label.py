"""The label kernel, run on the CPU, against `classify.label_samples` in float64."""

import numpy as np
import pytest
from backends import NUMPY64
from devices import kernel_device, missing

from gmrm_gpu.classify import NOT_VISITED, label_samples
from gmrm_gpu.config import MixtureConfig, PhaseConfig
from gmrm_gpu.engines.fused.cut import MOST_A_BLOCK
from gmrm_gpu.engines.fused.draw import word_type
from gmrm_gpu.engines.fused.fit import FitArrays
from gmrm_gpu.engines.fused.label import Labels, map_shape, plan_label, posterior_means, run_label
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.mixture.fit import responsibilities
from gmrm_gpu.results import FitStatus, MixtureFit

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.usefixtures("each_device"),
]
MARGIN = 1e-6
POSTERIOR_TOL = 5e-6
"""Float32 leaves a residual of 200 grey levels wrong by 2e-5 at most; a posterior changes by at most a quarter of
(distance of means / sigma^2), here below 0.25 a grey level."""
RULES = [
    PhaseConfig(),
    PhaseConfig("darkest"),
    PhaseConfig("separated", polarity="bright"),
    PhaseConfig("separated", polarity="dark", contrast=1.5),
    PhaseConfig("separated", polarity="both", contrast=4.0),
]


def pack(values, positions, valid, width, wide):
    """Words of samples.cuh, written out independently of the package."""
    y, x = np.divmod(positions.astype(np.uint64), width)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    words = bits << 32 | y << 16 | x if wide else values.astype(np.uint64) << 24 | y << 12 | x
    return np.where(valid, words, 2**64 - 1 if wide else 2**32 - 1).astype(word_type(wide))


def random_fits(rng, n, mixture, *, sigma=(3.0, 8.0)):
    """Fits of grey levels; some with dropped components, one of each status."""
    k, q = mixture.n_components, mixture.n_terms
    weights = rng.dirichlet(np.full(k, 2.0), size=n)
    means = np.sort(rng.uniform(40, 210, size=(n, k)), axis=1)
    sigmas = rng.uniform(*sigma, size=(n, k))
    coef = rng.normal(0, 6, size=(n, q))
    status = np.arange(n) % 5
    if k > 1:
        dropped = status == FitStatus.DROPPED
        weights[dropped, -1] = 0
        means[dropped, -1] = sigmas[dropped, -1] = np.nan
    lost = status >= FitStatus.DEGENERATE
    weights[lost] = 0
    for array in (means, sigmas, coef):
        array[lost] = np.nan
    zero = np.zeros(n, dtype=np.int64)
    return MixtureFit(
        weights, means, sigmas, coef, np.zeros(n), zero, zero.copy(), status.astype(np.uint8), mixture.terms
    )


def random_samples(rng, n, m, shape, *, wide, padding=0.2):
    """Values, positions and validity (n, m); the last frame holds nothing."""
    pixels = shape[0] * shape[1]
    positions = np.stack([rng.permutation(pixels)[:m] for _ in range(n)]).astype(np.int32)
    values = rng.normal(120, 50, size=(n, m)).astype(np.float32) if wide else rng.integers(0, 256, size=(n, m))
    valid = rng.random((n, m)) >= padding
    valid[-1] = False
    return values, positions, valid


def device_fits(fit, device):
    arrays = {name: getattr(fit, name) for name in FitArrays.__dataclass_fields__}
    arrays |= {name: arrays[name].astype(np.int32) for name in ("n_iter", "n_samples")}
    return FitArrays(**{name: device.asarray(array) for name, array in arrays.items()})


def run(values, positions, valid, fit, shape, mixture, phases, *, wide, maps=True, size=None, device=None):
    """Labels (n, m), posterior mean (n,), foreground counts (n,), maps (n, words, height, phases)."""
    device = device or kernel_device()
    n, m = values.shape
    size = size or (1, n)
    out = Labels.empty((*size, m), map_shape(shape, len(phases.names)) if maps else None, device)
    words = device.asarray(pack(values, positions, valid, shape[1], wide).reshape(*size, m))
    run_label(words, device_fits(fit, device), shape, mixture, phases, out=out, device=device)
    means = posterior_means(device.to_host(out.posterior), valid.sum(axis=1).reshape(size))
    found = [device.to_host(out.labels), means, device.to_host(out.n_foreground)]
    found += [device.to_host(out.maps)] if maps else []
    return [array.reshape(n, *array.shape[2:]) for array in found]


def generic(values, positions, valid, fit, shape, mixture, phases):
    """Labels, posterior mean, and the margin (n, m) by which each sample's component won; all float64."""
    samples = make_samples(
        values.astype(np.float64), positions, shape, TrendBasis(mixture.terms), valid=valid, backend=NUMPY64
    )
    m = values.shape[1]
    fit = MixtureFit(**{**vars(fit), "n_samples": valid.sum(axis=1)})
    labels, posterior = label_samples(samples, fit, phases, m, valid=valid, backend=NUMPY64)
    resp = np.sort(responsibilities(samples, fit, backend=NUMPY64), axis=1)
    blocks = (resp[:, -1] - resp[:, -2]) if mixture.n_components > 1 else np.ones_like(resp[:, -1])
    return labels, posterior, blocks.transpose(0, 2, 1).reshape(len(values), -1)[:, :m]


def compare(rng, shape, m, mixture, phases, *, n=5, wide=False, sigma=(3.0, 8.0), **keywords):
    fit = random_fits(rng, n, mixture, sigma=sigma)
    values, positions, valid = random_samples(rng, n, m, shape, wide=wide)
    found = run(values, positions, valid, fit, shape, mixture, phases, wide=wide, **keywords)
    labels, posterior, margin = generic(values, positions, valid, fit, shape, mixture, phases)
    sure = (labels == NOT_VISITED) | (margin > MARGIN)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found[0][sure], labels[sure])
    np.testing.assert_allclose(found[1], posterior, rtol=0, atol=POSTERIOR_TOL)
    np.testing.assert_array_equal(found[2], (found[0] == phases.foreground_index).sum(axis=1))
    if len(found) > 3:
        np.testing.assert_array_equal(found[3], painted(found[0], positions, shape, len(phases.names)))
    return found


def painted(labels, positions, shape, n_phases):
    """(n, words, height, phases) maps, pixel by pixel."""
    maps = np.zeros((len(labels), *map_shape(shape, n_phases)), dtype=np.uint32)
    for i, j in np.argwhere(labels != NOT_VISITED):
        y, x = divmod(int(positions[i, j]), shape[1])
        maps[i, x // 32, y, labels[i, j]] |= np.uint32(1 << (x % 32))
    return maps


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("k", "trend"),
    [(1, "none"), (2, "linear"), (3, "none"), (4, "quadratic+electrode"), (6, "x,y,x2,xy,y2,x3,xy3,x4,y4")],
)
def test_equals_the_generic_engine(k, trend, wide):
    rng = np.random.default_rng(k)
    mixture = MixtureConfig(n_components=k, trend=trend)
    for phases in RULES:
        found = compare(rng, (37, 70), 331, mixture, phases, wide=wide)
    assert k == 1 or len(np.unique(found[0])) == 3


@pytest.mark.parametrize(("names", "foreground"), [("a,b,b,c", "b"), ("a,b,a,c", None), ("a,b,c,d", "a")])
def test_named_phases(names, foreground):
    mixture = MixtureConfig(n_components=4, trend="linear")
    phases = PhaseConfig(names, foreground)
    found = compare(np.random.default_rng(7), (20, 33), 300, mixture, phases, n=6)
    assert set(np.unique(found[0])) == {*range(len(phases.names)), NOT_VISITED}


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (64, 64), (1, 1)])
def test_shapes(shape):
    m = min(60, shape[0] * shape[1])
    mixture = MixtureConfig(n_components=2, trend="quadratic+electrode")
    rng = np.random.default_rng(3)
    fit = random_fits(rng, 2, mixture)
    values, positions, valid = random_samples(rng, 2, m, shape, wide=False, padding=0.0)
    valid[...] = True
    found = run(values, positions, valid, fit, shape, mixture, PhaseConfig(), wide=False)
    labels, posterior, _ = generic(values, positions, valid, fit, shape, mixture, PhaseConfig())
    if m > 1:
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_allclose(found[1], posterior, rtol=0, atol=POSTERIOR_TOL)
    np.testing.assert_array_equal(found[3], painted(found[0], positions, shape, 2))


def one_fit(means, sigmas, coef, terms):
    """A converged fit of two components of equal weight."""
    one, count = np.ones(1), np.ones(1, dtype=int)
    arrays = (np.array([[0.5, 0.5]]), np.array([means]), np.array([sigmas]), np.array([coef]))
    return MixtureFit(*arrays, one, count, count, np.zeros(1, np.uint8), terms)


@pytest.mark.parametrize(("sigmas", "slope"), [((0.5, 0.5), 2e-6), ((2.0, 9.0), 2e-5)])
def test_near_ties_are_decided_in_float64(sigmas, slope):
    """Where two components are equally likely, with a trend that float32 cannot follow."""
    mixture = MixtureConfig(n_components=2, trend="linear")
    shape, rng = (60, 60), np.random.default_rng(5)
    _, positions, valid = random_samples(rng, 1, 3600, shape, wide=False, padding=0.0)
    valid[...] = True
    away = 14 / sigmas[0]
    means = (100.0, 114 + sigmas[1] * np.sqrt(away**2 + 2 * np.log(sigmas[0] / sigmas[1])))
    fit = one_fit(means, sigmas, (slope, 0.5 * slope), mixture.terms)
    values = np.full((1, 3600), 114)
    values[:, ::400] = 90  # constant values would not be standardised
    labels, _, margin = generic(values, positions, valid, fit, shape, mixture, PhaseConfig())
    sure = margin > MARGIN
    assert sure.mean() > 0.9
    assert 0.3 < (labels == 1).mean() < 0.7
    found = run(values, positions, valid, fit, shape, mixture, PhaseConfig(), wide=False)
    np.testing.assert_array_equal(found[0][sure], labels[sure])


def test_of_equals_the_first_wins():
    mixture = MixtureConfig(n_components=2, trend="none")
    values, positions, valid = random_samples(np.random.default_rng(1), 1, 50, (9, 9), wide=False, padding=0.0)
    valid[...] = True
    fit = one_fit((100.0, 100.0), (8.0, 8.0), (), ())
    found = run(values, positions, valid, fit, (9, 9), mixture, PhaseConfig("first,second"), wide=False)
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found[1], 0.5, rtol=1e-6)


def test_many_blocks_a_fit():
    """Partial sums, atomics, and replicates cut apart: the same bits."""
    mixture = MixtureConfig(n_components=3, trend="linear")
    shape, rng, n = (120, 110), np.random.default_rng(11), 4
    m = 2 * MOST_A_BLOCK + 77
    fit = random_fits(rng, n, mixture)
    values, positions, valid = random_samples(rng, n, m, shape, wide=False)
    whole = run(values, positions, valid, fit, shape, mixture, RULES[2], wide=False, size=(2, 2))
    labels, posterior, margin = generic(values, positions, valid, fit, shape, mixture, RULES[2])
    sure = (labels == NOT_VISITED) | (margin > MARGIN)
    np.testing.assert_array_equal(whole[0][sure], labels[sure])
    np.testing.assert_allclose(whole[1], posterior, rtol=0, atol=POSTERIOR_TOL)
    np.testing.assert_array_equal(whole[2], (whole[0] == 1).sum(axis=1))
    for device in (kernel_device(schedule="reverse"), kernel_device(schedule="random:5")):
        part = slice(2, 4)
        arrays = (a[part] for a in (values, positions, valid))
        found = run(*arrays, fit[part], shape, mixture, RULES[2], wide=False, size=(2, 1), device=device)
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_array_equal(a, b[part])


def test_no_maps_and_one_sample():
    mixture = MixtureConfig(n_components=2, trend="none")
    rng = np.random.default_rng(2)
    fit = random_fits(rng, 5, mixture)
    values, positions = np.full((5, 1), 200), np.zeros((5, 1), np.int32)
    valid = np.ones((5, 1), bool)
    found = run(values, positions, valid, fit, (9, 8), mixture, PhaseConfig(), wide=False, maps=False)
    usable = fit.status < FitStatus.DEGENERATE
    assert (found[0][~usable] == NOT_VISITED).all()
    assert (found[0][usable] != NOT_VISITED).all()
    assert np.isfinite(found[1][usable]).all()
    assert np.isnan(found[1][~usable]).all()


@pytest.mark.harness
def test_the_launch_is_sized_by_the_samples():
    mixture = MixtureConfig()
    assert plan_label(7, 2621, mixture, wide=False).blocks == 7
    assert plan_label(7, 26214, mixture, wide=False).blocks == 49


@pytest.mark.harness
@pytest.mark.parametrize("sanitize", ["asan", "tsan"])
def test_sanitized(sanitize):
    mixture = MixtureConfig(n_components=3, trend="linear")
    device = kernel_device(sanitize=sanitize, schedule="random:2")
    compare(np.random.default_rng(1), (9, 40), 301, mixture, RULES[0], n=3 if sanitize == "asan" else 2, device=device)
