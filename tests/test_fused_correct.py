"""The vote and the tally, run on the CPU, against `correct_labels` and `estimate.sample_mean`."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY32
from devices import kernel_device, missing

from gmrm_gpu.classify import NOT_VISITED
from gmrm_gpu.config import METRICS, SCHEMES, SIDES, WINDOWS, CorrectionConfig, PhaseConfig, SamplingConfig
from gmrm_gpu.correct import correct_labels
from gmrm_gpu.engines.fused.correct import is_active, neighbourhood, plan_correct, run_correct, window_words
from gmrm_gpu.engines.fused.cut import MOST_A_BLOCK
from gmrm_gpu.engines.fused.label import map_shape
from gmrm_gpu.engines.fused.tally import plan_tally, run_tally, share_and_variance
from gmrm_gpu.estimate import sample_mean
from gmrm_gpu.sampling import Sampler

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.usefixtures("each_device"),
]


def volume(seed, shape, *, m, replicates=2, n_phases=2, padding=0.15):
    """Labels and positions (R, T, m): samples of noisy stripes, so that votes of every size occur."""
    rng = np.random.default_rng(seed)
    frames, height, width = shape
    pixels = height * width
    size = (replicates, frames, m)
    positions = np.argsort(rng.random((replicates, frames, pixels)), axis=2)[..., :m].astype(np.int32)
    labels = (positions // width * n_phases // height).astype(np.uint8)
    labels = np.where(rng.random(size) < 0.35, rng.integers(0, n_phases, size=size), labels).astype(np.uint8)
    labels[rng.random(size) < padding] = NOT_VISITED
    if frames > 3:
        labels[:, 2] = NOT_VISITED  # a frame whose fit failed
    return labels, positions


def names_of(n_phases, foreground):
    """A phase configuration with that many phases and that foreground."""
    if n_phases == 2 and foreground == 1:
        return PhaseConfig()
    names = [f"p{i}" for i in range(n_phases)]
    return PhaseConfig(",".join(names), names[foreground])


def paint(labels, positions, shape, n_phases):
    """(R, T, words, height, phases) bit maps."""
    maps = np.zeros((*labels.shape[:2], *map_shape(shape, n_phases)), dtype=np.uint32)
    r, t, j = np.nonzero(labels != NOT_VISITED)
    y, x = np.divmod(positions[r, t, j], shape[1])
    np.bitwise_or.at(maps, (r, t, x // 32, y, labels[r, t, j]), np.uint32(1) << (x % 32).astype(np.uint32))
    return maps


def words_of(labels, positions, width, wide):
    y, x = np.divmod(positions.astype(np.uint64), width)
    words = np.uint64(0x42 << 56) | y << 16 | x if wide else np.uint64(7 << 24) | y << 12 | x
    return np.where(labels == NOT_VISITED, 2**64 - 1 if wide else 2**32 - 1, words).astype(
        np.uint64 if wide else np.uint32
    )


def compare(labels, positions, shape, config, *, n_phases=2, foreground=1, wide=False, device=None):
    """Number of labels that the vote changed."""
    device, phases = device or kernel_device(), names_of(n_phases, foreground)
    corrected, words = device.asarray(labels.copy()), device.asarray(words_of(labels, positions, shape[1], wide))
    maps = device.asarray(paint(labels, positions, shape, n_phases))
    without = run_correct(words, corrected, maps, shape, config, phases, device=device)
    keywords = {"n_phases": n_phases, "foreground": foreground, "backend": NUMPY32}
    expected, alone = correct_labels(labels, positions, shape, config, **keywords)
    np.testing.assert_array_equal(device.to_host(corrected), expected)
    np.testing.assert_array_equal(device.to_host(without), alone)
    return (expected != labels).sum(), alone.sum()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_corrector(metric, window):
    shape, changed, alone = (11, 37), 0, 0
    for sides in SIDES:
        for radius in (0.5, 1, 2.9, 7):
            for gamma in (0.3, 0.5, 1.0):
                labels, positions = volume(1, (6, *shape), m=133)
                config = CorrectionConfig(metric, radius, gamma, window, sides)
                found = compare(labels, positions, shape, config)
                changed, alone = changed + found[0], alone + found[1]
    assert changed > 100
    assert alone > 10


@pytest.mark.parametrize(("n_phases", "foreground"), [(3, 0), (4, 3), (5, 2), (6, 5), (2, 0)])
@pytest.mark.parametrize("sides", SIDES)
def test_several_phases(n_phases, foreground, sides):
    shape, phases = (13, 40), {"n_phases": n_phases, "foreground": foreground}
    labels, positions = volume(n_phases, (5, *shape), m=260, n_phases=n_phases)
    for window in ("past", "symmetric"):
        assert compare(labels, positions, shape, CorrectionConfig("l2", 3, 0.6, window, sides), **phases)[0] > 0
    if n_phases == 6:
        for radius in (17, 33):
            compare(labels, positions, shape, CorrectionConfig("l2", radius, 0.3, "past", sides), **phases)


@pytest.mark.parametrize(
    ("metric", "radius", "scale"), [("l1", 1.3, 0.1), ("l2", 2.6, 0.8), ("l2", 4, 0.5), ("l2", 5, 9)]
)
def test_time_scale_and_the_edge_of_the_ball(metric, radius, scale):
    labels, positions = volume(5, (9, 6, 9), m=40)
    for window in ("past+current", "symmetric"):
        config = CorrectionConfig(metric, radius, 0.5, window, "both", scale)
        assert compare(labels, positions, (6, 9), config)[0] > 0


@pytest.mark.parametrize("shape", [(1, 64), (70, 1), (1, 1), (3, 130)])
def test_shapes_and_words(shape):
    m = min(shape[0] * shape[1], 90)
    labels, positions = volume(6, (4, *shape), m=m)
    for wide in (False, True):
        compare(labels, positions, shape, CorrectionConfig("l2", 4, 0.5, "symmetric", "both"), wide=wide)


def test_radius_of_a_hundred():
    """Rows of one window, of several words, and everything in reach."""
    shape = (40, 215)
    labels, positions = volume(7, (3, *shape), m=2000, replicates=1)
    for radius in (15.9, 16, 31.5, 32, 100):
        config = CorrectionConfig("l2", radius, 0.5, "past+current", "both")
        assert compare(labels, positions, shape, config)[0] > 0


def test_shares_that_equal_gamma():
    """2 of 5 neighbours meet gamma = 0.4, and miss the next larger number."""
    labels, positions = volume(8, (3, 8, 9), m=72, padding=0)
    for gamma in (0.0, 0.2, 0.25, 0.4, float(np.nextafter(0.4, 1)), 0.6, 0.7, 1.0):
        compare(labels, positions, (8, 9), CorrectionConfig("l2", 1.5, gamma, "past", "both"))


def test_many_blocks_a_fit_and_any_order():
    shape = (90, 110)
    m = 2 * MOST_A_BLOCK + 45
    labels, positions = volume(9, (3, *shape), m=m, replicates=1)
    config = CorrectionConfig("l2", 2, 0.5, "past+current", "foreground")
    compare(labels, positions, shape, config)
    labels, positions = volume(10, (4, 12, 33), m=150)
    for schedule in ("reverse", "random:1"):
        compare(labels, positions, (12, 33), config, device=kernel_device(schedule=schedule))


def test_nobody_within_reach():
    labels, positions = volume(12, (3, 5, 9), m=40, padding=0)
    config = CorrectionConfig(radius=2, time_scale=3, sides="both")
    assert compare(labels, positions, (5, 9), config) == (0, labels.size)


def test_no_samples_at_all():
    labels, positions = volume(11, (3, 5, 6), m=7, padding=1.1)
    assert compare(labels, positions, (5, 6), CorrectionConfig(radius=3, sides="both")) == (0, 0)


@pytest.mark.harness
def test_neighbourhood_of_the_paper():
    """How many neighbours METHOD.md 7 counts in the past on full sampling."""
    for radius, neighbours, window in ((5, 217, 1), (10, 1926, 1), (20, 16072, 2)):
        config = CorrectionConfig(radius=radius)
        assert window_words(config, (512, 512), 2) == window
        rows = neighbourhood(config, 300, window)
        assert np.bitwise_count(rows[:, 1:]).sum() == neighbours
        assert (2 * neighbourhood(config, 300, 0)[:, 1] + 1).sum() == neighbours
        assert set(rows[:, 0].astype(np.int16)) == set(range(-radius, 0))
    assert set(neighbourhood(config, 3, 2)[:, 0].astype(np.int16)) == {-1, -2}
    assert len(neighbourhood(config, 1, 2)) == 0
    assert [window_words(CorrectionConfig(radius=r), (9, 9), 2) for r in (15.9, 16, 31.9, 32)] == [1, 2, 2, 0]
    assert window_words(CorrectionConfig(radius=10, time_scale=0.01), (8192, 8192), 2) == 0
    assert not is_active(CorrectionConfig(radius=0))
    assert plan_correct(10, 26214, (512, 512), config, 2, wide=False).blocks == 70


def sampler_of(scheme, shape, rate, *, masked=False):
    allowed = np.random.default_rng(3).random(shape) < 0.8 if masked else None
    return Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, line_length=7), allowed)


def check_tally(sampler, *, foreground=1, n_phases=3, device=None):
    device, rng = device or kernel_device(), np.random.default_rng(17)
    m, frames = sampler.capacity, 4
    labels = rng.integers(0, n_phases, size=(3, frames, m)).astype(np.uint8)
    for t in range(frames):
        draw = sampler.draw(np.arange(3), t, backend=NUMPY32)
        if draw.valid is not None:
            labels[:, t][~draw.valid] = NOT_VISITED
    labels[1, 2] = NOT_VISITED
    labels[2, 3][labels[2, 3] != NOT_VISITED] = foreground
    sums = device.to_host(run_tally(device.asarray(labels), sampler, foreground, device=device))
    found = share_and_variance(sums, sampler)
    visited = labels != NOT_VISITED
    np.testing.assert_array_equal(sums[..., 0], visited.sum(axis=2))
    np.testing.assert_array_equal(sums[..., 1], (labels == foreground).sum(axis=2))
    scheme, length = sampler.config.scheme, sampler.cluster_length
    for t in range(frames):
        values, n = (labels[:, t] == foreground).astype(np.float64), visited[:, t].sum(axis=1)
        mean, variance = sample_mean(values, visited[:, t], n, sampler.n_pixels, scheme, length, backend=NUMPY32)
        np.testing.assert_allclose(found[0][:, t], mean, rtol=1e-12)
        np.testing.assert_allclose(found[1][:, t], variance, rtol=1e-12, atol=1e-30)
    assert np.isnan(found[1][1, 2])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_share_and_variance(scheme, masked):
    for shape, rate in (((23, 31), 0.3), ((23, 31), 0.004), ((5, 4), 1.0), ((1, 60), 0.2), ((95, 103), 0.9)):
        sampler = sampler_of(scheme, shape, rate, masked=masked)
        for foreground in (0, 1):
            check_tally(sampler, foreground=foreground)


def test_tally_of_many_blocks_in_any_order():
    for scheme in SCHEMES:
        sampler = sampler_of(scheme, (130, 140), 0.9)
        assert plan_tally(1, sampler).blocks > 1 or scheme == "lines"
        for schedule in ("reverse", "random:4"):
            check_tally(sampler, device=kernel_device(schedule=schedule))


@pytest.mark.harness
@pytest.mark.parametrize(("sanitize", "frames"), [("asan", 3), ("tsan", 1)])
def test_sanitized(sanitize, frames):
    shape, device = (7, 40), kernel_device(sanitize=sanitize, schedule="random:2")
    labels, positions = volume(12, (frames, *shape), m=75, replicates=1)
    config = CorrectionConfig("l2", 2, 0.5, "past+current", "both")
    assert compare(labels, positions, shape, config, device=device)[0] > 0
    if sanitize == "asan":
        for radius in (16, 32):
            compare(labels, positions, shape, replace(config, radius=radius), device=device)
        check_tally(sampler_of("lines", (9, 31), 0.5, masked=True), device=device)
