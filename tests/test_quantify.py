"""Shares, areas and volumes against loops and against solids of known volume."""

import math

import numpy as np
import pytest
from backends import NUMPY32, other_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import quantify as oracle

from gmrm_gpu.config import QuantityConfig
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.estimate import sample_mean
from gmrm_gpu.quantify import make_scale, volume_weights

SHAPE = (9, 14)
N = SHAPE[0] * SHAPE[1]


def sample(seed, rows=3, m=60, n_phases=3, padding=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_phases, (rows, m)).astype(np.uint8)
    labels[rng.random((rows, m)) < padding] = 255
    positions = np.stack([rng.permutation(N)[:m] for _ in range(rows)]).astype(np.int32)
    return labels, positions


def weighted_share(labels, positions, foreground, weights, *, backend):
    """Mean over the visited samples of label times weight, as the curves take it."""
    xp = backend.xp
    labels, visited = backend.asarray(labels), backend.asarray(labels) != 255
    weight = xp.reshape(xp.take(backend.asarray(weights), xp.reshape(backend.asarray(positions), (-1,))), labels.shape)
    values = xp.astype(labels == foreground, xp.float64) * xp.astype(weight, xp.float64)
    n = backend.to_host(xp.sum(xp.astype(visited, xp.int64), axis=1))
    return sample_mean(values, visited, n, 10**9, "fixed", 1, backend=backend)[0]


def count_share(labels, foreground, *, backend):
    positions = np.zeros(labels.shape, dtype=np.int32)
    return weighted_share(labels, positions, foreground, np.ones(1), backend=backend)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2), st.integers(1, N))
def test_share_equals_the_loop(seed, foreground, m):
    labels, _ = sample(seed, m=m, padding=0.1)
    labels[:, 0] = foreground
    found = count_share(labels, foreground, backend=NUMPY32)
    assert found.tolist() == [oracle.share(row, foreground) for row in labels]


def test_no_sample_is_nan_not_zero():
    labels, positions = sample(1)
    labels[1] = 255
    share = count_share(labels, 1, backend=NUMPY32)
    assert np.isnan(share).tolist() == [False, True, False]
    weighted = weighted_share(labels, positions, 1, np.ones(N), backend=NUMPY32)
    np.testing.assert_array_equal(weighted, share)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    axis=st.sampled_from(["x=0", "x=12.5", "y=0", "y=-3", "y=4.25", "x=30"]),
    size=st.floats(0.001, 2),
    wedge=st.floats(0.05, 1),
)
def test_volume_of_revolution_equals_the_loop(seed, axis, size, wedge):
    quantity = QuantityConfig(geometry="revolution", axis=axis, pixel_size_um=size, wedge_fraction=wedge)
    labels, positions = sample(seed)
    scale = make_scale(quantity, N, None)
    assert scale.unit == "um3"
    weights = volume_weights(SHAPE, quantity, None)
    found = weighted_share(labels, positions, 1, weights, backend=NUMPY32) * scale.factor
    where = (axis[0], float(axis[2:]))
    for row, place, volume in zip(labels, positions, found, strict=True):
        expected = oracle.revolution_volume(row, place, 1, SHAPE, N, size, where, wedge)
        assert volume == pytest.approx(expected, rel=1e-12)


def test_volume_of_a_slab_equals_the_loop():
    quantity = QuantityConfig(pixel_size_um=0.005, thickness_um=0.5)
    labels, _ = sample(2)
    scale = make_scale(quantity, N, None)
    found = count_share(labels, 2, backend=NUMPY32) * scale.factor
    assert volume_weights(SHAPE, quantity, None) is None
    assert scale.unit == "um3"
    for row, volume in zip(labels, found, strict=True):
        assert volume == pytest.approx(oracle.slab_volume(row, 2, N, 0.005, 0.5), rel=1e-12)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_half_disc_turns_into_a_ball(axis):
    """Radius 60 px, 20 nm a pixel: 4/3 pi r^3 within 0.5 % (pixel centres half a pixel off the axis)."""
    radius, size, shape = 60, 0.02, (140, 140)
    y, x = np.indices(shape)
    along, away = (y, x) if axis == "x" else (x, y)
    labels = ((along - 70) ** 2 + (away - 9.5) ** 2 <= radius**2) & (away > 9.5)
    quantity = QuantityConfig(geometry="revolution", axis=f"{axis}=9.5", pixel_size_um=size)
    n = shape[0] * shape[1]
    share = weighted_share(
        labels.astype(np.uint8).reshape(1, -1),
        np.arange(n)[None],
        1,
        volume_weights(shape, quantity, None),
        backend=NUMPY32,
    )
    volume = share[0] * make_scale(quantity, n, None).factor
    assert volume == pytest.approx(4 / 3 * math.pi * (radius * size) ** 3, rel=5e-3)


def test_units_follow_the_calibration():
    assert make_scale(QuantityConfig(), N, None).unit == "px"
    assert make_scale(QuantityConfig(), N, None).factor == N
    assert make_scale(QuantityConfig(thickness_um=0.5), N, None).unit == "px"
    area = make_scale(QuantityConfig(), N, 0.01)
    assert (area.unit, area.factor) == ("um2", pytest.approx(N * 1e-4))
    assert make_scale(QuantityConfig(thickness_um=0.5), N, 0.01).factor == pytest.approx(N * 5e-5)
    assert make_scale(QuantityConfig(pixel_size_um=0.1), N, 0.01).factor == pytest.approx(N * 0.01), "the user's wins"
    assert volume_weights(SHAPE, QuantityConfig(geometry="revolution", pixel_size_um=0.1), 5.0)[1] == pytest.approx(
        2 * math.pi * 0.1
    )


def test_revolution_without_pixel_size_says_which_option_to_give():
    with pytest.raises(ConfigError, match="--pixel-size"):
        make_scale(QuantityConfig(geometry="revolution"), N, None)


@pytest.mark.parametrize("make", other_backends())
def test_other_backends(make):
    backend = make()
    labels, positions = sample(3)
    weights = volume_weights(SHAPE, QuantityConfig(geometry="revolution", pixel_size_um=0.1), None)
    on_device = [backend.asarray(a) for a in (labels, positions, weights)]
    np.testing.assert_array_equal(
        count_share(on_device[0], 1, backend=backend), count_share(labels, 1, backend=NUMPY32)
    )
    np.testing.assert_allclose(
        weighted_share(on_device[0], on_device[1], 1, on_device[2], backend=backend),
        weighted_share(labels, positions, 1, weights, backend=NUMPY32),
        rtol=1e-13,
    )
