"""The vote equals the brute-force loop of tests/oracle on random label volumes."""

import numpy as np
import pytest
from backends import NUMPY32, other_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import correct as oracle

from gmrm_gpu.config import METRICS, SIDES, WINDOWS, CorrectionConfig
from gmrm_gpu.correct import Corrector, correct_labels

PADDING = 255


def volumes(seed, n_replicates=2, shape=(5, 8, 11), rate=0.4, n_phases=2, blob=True):
    """(labels (R, T, H, W), visited): noisy blobs, so that votes of every size occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_phases, size=(n_replicates, *shape)).astype(np.uint8)
    if blob:
        labels[:, :, : shape[1] // 2] = np.where(
            rng.random(labels[:, :, : shape[1] // 2].shape) < 0.8, 1, labels[:, :, : shape[1] // 2]
        )
    return labels, rng.random(labels.shape) < rate


def pack(labels, visited, seed=0):
    """(R, T, m) labels and positions in shuffled order; padding repeats a legal position."""
    rng = np.random.default_rng(seed)
    r, t, h, w = labels.shape
    m = max(1, int(visited.sum(axis=(2, 3)).max()))
    out = np.full((r, t, m), PADDING, dtype=np.uint8)
    positions = np.zeros((r, t, m), dtype=np.int32)
    for i, j in np.ndindex(r, t):
        at = rng.permutation(np.flatnonzero(visited[i, j]))
        positions[i, j, : len(at)] = at
        positions[i, j, len(at) :] = rng.integers(0, h * w, m - len(at))
        out[i, j, : len(at)] = labels[i, j].reshape(-1)[at]
    return out, positions


def compare(labels, visited, config, *, n_phases=2, foreground=1, backend=NUMPY32):
    shape = labels.shape[2:]
    packed, positions = pack(labels, visited)
    before = packed.copy()
    corrected, alone = correct_labels(
        backend.asarray(packed),
        backend.asarray(positions),
        shape,
        config,
        n_phases=n_phases,
        foreground=foreground,
        backend=backend,
    )
    corrected = backend.to_host(corrected)
    np.testing.assert_array_equal(packed, before, err_msg="the input was changed")
    np.testing.assert_array_equal(corrected == PADDING, packed == PADDING)
    rule = {name: getattr(config, name) for name in ("metric", "radius", "gamma", "window", "sides", "time_scale")}
    changed = 0
    for r in range(labels.shape[0]):
        expected, lonely = oracle.correct(labels[r], visited[r], n_phases=n_phases, foreground=foreground, **rule)
        changed += (expected != labels[r])[visited[r]].sum()
        for t in range(labels.shape[1]):
            used = packed[r, t] != PADDING
            np.testing.assert_array_equal(corrected[r, t, used], expected[t].reshape(-1)[positions[r, t, used]])
        np.testing.assert_array_equal(alone[r], lonely)
    return changed


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_equals_brute_force(metric, window, sides, rate):
    labels, visited = volumes(1, rate=rate, shape=(5, 7, 9))
    config = CorrectionConfig(metric=metric, radius=2, gamma=0.6, window=window, sides=sides)
    assert compare(labels, visited, config) > 0


@pytest.mark.parametrize("radius", [0.5, 1, 1.5, 2.9, 3, 6, 30])
@pytest.mark.parametrize("metric", METRICS)
def test_radii_whole_fractional_and_beyond_the_frame(metric, radius):
    labels, visited = volumes(2, shape=(4, 6, 9), rate=0.5)
    for window in ("past", "symmetric"):
        compare(
            labels, visited, CorrectionConfig(metric=metric, radius=radius, gamma=0.55, window=window, sides="both")
        )


@pytest.mark.parametrize("time_scale", [0.5, 0.7, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("window", ["past", "symmetric"])
def test_time_scale(metric, window, time_scale):
    labels, visited = volumes(3, shape=(7, 6, 7), rate=0.5)
    compare(
        labels, visited, CorrectionConfig(metric=metric, radius=2.5, gamma=0.5, window=window, time_scale=time_scale)
    )


@pytest.mark.parametrize(
    ("metric", "radius", "time_scale"), [("l1", 1.3, 0.1), ("l1", 0.3, 0.1), ("l2", 2.6, 0.8), ("l2", 2.1, 0.7)]
)
def test_a_neighbour_on_the_edge_of_the_ball_counts(metric, radius, time_scale):
    """The ball is closed in the decimals the user wrote: binary rounding must not lose its edge."""
    labels, visited = volumes(4, shape=(6, 5, 5), rate=0.7, n_replicates=1)
    compare(labels, visited, CorrectionConfig(metric=metric, radius=radius, gamma=0.5, time_scale=time_scale))


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("sides", SIDES)
def test_gamma_is_met_exactly(gamma, sides):
    labels, visited = volumes(5, shape=(4, 6, 7), rate=0.6)
    compare(labels, visited, CorrectionConfig(radius=1.5, gamma=gamma, window="symmetric", sides=sides))


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("n_phases", [3, 4, 5, 6])
def test_several_phases(n_phases, sides):
    labels, visited = volumes(6, shape=(4, 7, 8), n_phases=n_phases, blob=False, rate=0.8)
    for foreground in (0, n_phases - 1):
        config = CorrectionConfig(radius=2, gamma=0.4, window="past+current", sides=sides)
        assert compare(labels, visited, config, n_phases=n_phases, foreground=foreground) > 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    rate=st.sampled_from([0.05, 0.3, 1.0]),
    metric=st.sampled_from(METRICS),
    window=st.sampled_from(WINDOWS),
    sides=st.sampled_from(SIDES),
    radius=st.sampled_from([0.75, 1, 1.25, 2, 2.5, 4]),
    gamma=st.sampled_from([0.1, 0.4, 0.5, 0.8]),
    time_scale=st.sampled_from([0.5, 1.0, 1.25]),
    n_phases=st.integers(2, 3),
)
def test_equals_brute_force_anywhere(seed, shape, rate, n_phases, **settings):
    labels, visited = volumes(seed, n_replicates=1, shape=shape, rate=rate, n_phases=n_phases, blob=False)
    compare(labels, visited, CorrectionConfig(**settings), n_phases=n_phases)


@pytest.mark.parametrize("make", other_backends())
@pytest.mark.parametrize("window", WINDOWS)
def test_other_backends(make, window):
    labels, visited = volumes(7, shape=(4, 6, 7), n_phases=3)
    config = CorrectionConfig(radius=2, gamma=0.5, window=window, sides="both")
    compare(labels, visited, config, n_phases=3, backend=make())


def test_radius_zero_changes_nothing():
    labels, visited = volumes(8)
    packed, positions = pack(labels, visited)
    config = CorrectionConfig(radius=0, gamma=1.0)
    corrected, alone = correct_labels(
        packed, positions, labels.shape[2:], config, n_phases=2, foreground=1, backend=NUMPY32
    )
    np.testing.assert_array_equal(corrected, packed)
    assert not alone.any()


@pytest.mark.parametrize("window", WINDOWS)
def test_replicates_do_not_see_each_other(window):
    labels, visited = volumes(9, n_replicates=5)
    packed, positions = pack(labels, visited)
    config = CorrectionConfig(radius=2, gamma=0.5, window=window)
    rule = {"n_phases": 2, "foreground": 1, "backend": NUMPY32}
    whole, alone = correct_labels(packed, positions, labels.shape[2:], config, **rule)
    for r in range(5):
        one, lonely = correct_labels(packed[r : r + 1], positions[r : r + 1], labels.shape[2:], config, **rule)
        np.testing.assert_array_equal(one[0], whole[r])
        np.testing.assert_array_equal(lonely[0], alone[r])


def test_many_replicates_in_groups_equal_one_by_one(monkeypatch):
    """Groups of images and chunks of queries are cut for memory only."""
    import gmrm_gpu.correct as module

    labels, visited = volumes(10, n_replicates=6)
    packed, positions = pack(labels, visited)
    config = CorrectionConfig(radius=2, gamma=0.5, window="symmetric", sides="both")
    rule = {"n_phases": 2, "foreground": 1, "backend": NUMPY32}
    whole, alone = correct_labels(packed, positions, labels.shape[2:], config, **rule)
    monkeypatch.setattr(module, "_GROUP_PIXELS", 500)
    monkeypatch.setattr(module, "_LOOK_UPS", 70)
    cut, lonely = correct_labels(packed, positions, labels.shape[2:], config, **rule)
    np.testing.assert_array_equal(cut, whole)
    np.testing.assert_array_equal(lonely, alone)


@pytest.mark.parametrize("n_phases", [2, 3, 6])
def test_largest_radius_does_not_overflow(n_phases):
    """A row of the ball holds up to 201 visits, which the packed 8-bit fields just hold."""
    labels, visited = volumes(12, n_replicates=1, shape=(1, 2, 215), rate=1.0, n_phases=n_phases, blob=False)
    labels[0, 0, 0] = n_phases - 1
    labels[0, 0, 1, :60] = 0
    config = CorrectionConfig(radius=100, gamma=0.6, window="spatial", sides="both")
    assert compare(labels, visited, config, n_phases=n_phases, foreground=n_phases - 1) > 0


def test_lone_samples_keep_their_label_and_are_counted():
    labels = np.zeros((1, 3, 9, 9), dtype=np.uint8)
    labels[0, :, 4, 4] = 1
    visited = np.zeros(labels.shape, dtype=bool)
    visited[0, 0, 4, 4] = visited[0, 1, 0, 0] = visited[0, 2, 4, 4] = True
    packed, positions = pack(labels, visited)
    config = CorrectionConfig(radius=1, gamma=0.9)
    out, alone = correct_labels(packed, positions, (9, 9), config, n_phases=2, foreground=1, backend=NUMPY32)
    np.testing.assert_array_equal(out, packed)
    assert alone.tolist() == [[1, 0, 1]]


def test_read_only_and_strided_input():
    labels, visited = volumes(11)
    packed, positions = pack(labels, visited)
    config = CorrectionConfig(radius=2, gamma=0.5)
    rule = {"n_phases": 2, "foreground": 1, "backend": NUMPY32}
    expected, _ = correct_labels(packed, positions, labels.shape[2:], config, **rule)
    spread = np.repeat(packed, 2, axis=2)[:, :, ::2]
    places = np.asfortranarray(positions)
    for array in (spread, places):
        array.flags.writeable = False
    out, _ = correct_labels(spread, places, labels.shape[2:], config, **rule)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("window", ["past", "past+current", "symmetric", "spatial"])
def test_only_wanted_frames_are_corrected(window):
    rng = np.random.default_rng(5)
    shape, n_frames, m = (12, 15), 9, 60
    config = CorrectionConfig(radius=2, gamma=0.5, window=window)
    labels = rng.integers(2, size=(n_frames, 1, m)).astype(np.uint8)
    positions = np.stack([rng.permutation(180)[None, :m] for _ in range(n_frames)]).astype(np.int32)

    def run(wanted):
        corrector = Corrector(shape, config, 2, 1, NUMPY32, wanted)
        done = [c for t in range(n_frames) for c in corrector.push(positions[t], labels[t])] + corrector.flush()
        return {c.frame: c.labels for c in done}

    everything, some = run(None), run(frozenset({1, 6}))
    assert set(some) == {1, 6}
    for t, found in some.items():
        np.testing.assert_array_equal(found, everything[t])
