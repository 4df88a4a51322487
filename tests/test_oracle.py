"""The references hold against each other and against what is known in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
from oracle import correct, ecm, philox

TERMS = ((1, 0), (2, 0), (0, 1), (1, 1), (2, 1))
SHAPE = (37, 53)


def sample(seed, n=400, q=5):
    truth = ecm.params([0.3, 0.45, 0.25], [40, 90, 140], [7, 9, 8], [6, -3, 4, 2, -2][:q])
    z, _, f = ecm.draw(np.random.default_rng(seed), n, truth, SHAPE, TERMS[:q])
    return truth, z, f


def test_design_spans_the_frame():
    f = ecm.design([0, SHAPE[1] - 1, SHAPE[0] * SHAPE[1] - 1], SHAPE, ((1, 0), (0, 1), (2, 1)))
    assert f.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, 1]]


def test_log_likelihood_equals_the_scalar_loop():
    truth, z, f = sample(1)
    assert ecm.log_likelihood(z, f, truth) == pytest.approx(ecm.log_likelihood_scalar(z, f, truth), rel=1e-14)


def test_one_component_without_trend_is_the_normal_distribution():
    z = np.random.default_rng(2).normal(100, 5, 300)
    f = np.empty((300, 0))
    par, _ = ecm.ecm(z, f, ecm.params([1], [0], [50]))
    assert par.means[0] == pytest.approx(z.mean(), rel=1e-13)
    assert par.sigmas[0] == pytest.approx(z.std(), rel=1e-13)
    assert ecm.log_likelihood(z, f, par) == pytest.approx(-150 * (math.log(2 * math.pi * z.var()) + 1), rel=1e-13)


def test_gradient_equals_finite_differences():
    truth, z, f = sample(3)
    theta = ecm.to_theta(truth)
    analytic = ecm.gradient(z, f, theta, 3)
    for j in range(len(theta)):
        h = np.zeros(len(theta))
        h[j] = 1e-5 * max(1.0, abs(theta[j]))
        up, down = (ecm.log_likelihood(z, f, ecm.from_theta(theta + s * h, 3)) for s in (1, -1))
        assert analytic[j] == pytest.approx((up - down) / (2 * h[j]), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("q", [0, 2, 5])
def test_ecm_rises_to_the_direct_maximum(q):
    truth, z, f = sample(4 + q, q=q)
    par, trace = ecm.ecm(z, f, truth, tol=1e-13)
    direct, best = ecm.maximise(z, f, truth)
    assert all(b >= a - 1e-12 * abs(a) for a, b in pairwise(trace))
    assert trace[-1] == pytest.approx(best, rel=1e-10)
    assert np.abs(ecm.gradient(z, f, ecm.to_theta(direct), 3)).max() < 1e-4
    np.testing.assert_allclose(par.means, direct.means, atol=1e-3)
    np.testing.assert_allclose(par.coef, direct.coef, atol=1e-3)


def test_standard_errors_of_a_single_normal():
    z = np.random.default_rng(5).normal(100, 5, 400)
    f = np.empty((400, 0))
    par = ecm.params([1], [z.mean()], [z.std()])
    np.testing.assert_allclose(ecm.standard_errors(z, f, par), [z.std() / 20, 1 / math.sqrt(800)], rtol=1e-6)


def test_philox_known_answers():
    for counter, key, expected in philox.KNOWN:
        assert philox.philox4x32(counter, key) == expected


@pytest.mark.parametrize(("radius", "count"), [(5, 217), (10, 1926)])
def test_number_of_past_l2_neighbours_is_the_published_one(radius, count):
    near = correct.offsets(
        (radius + 1, 2 * radius + 1, 2 * radius + 1), metric="l2", radius=radius, time_scale=1, window="past"
    )
    assert len(near) == count


def test_a_vote_by_hand():
    labels = np.array([[[1, 1, 0]], [[0, 0, 0]], [[1, 0, 1]]], dtype=np.uint8)
    visited = np.ones(labels.shape, dtype=bool)
    rule = {"metric": "l1", "radius": 1, "window": "past", "time_scale": 1, "n_phases": 2, "foreground": 1}
    out, alone = correct.correct(labels, visited, gamma=0.5, sides="foreground", **rule)
    assert out.tolist() == [[[1, 1, 0]], [[0, 0, 0]], [[0, 0, 0]]]
    assert alone.tolist() == [2, 0, 0]
    out, alone = correct.correct(labels, visited, gamma=0.5, sides="both", **rule)
    assert out.tolist() == [[[1, 1, 0]], [[1, 1, 0]], [[0, 0, 0]]]
    assert alone.tolist() == [3, 0, 0]
