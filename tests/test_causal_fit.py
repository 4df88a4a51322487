"""The causal fit of a movie against plain loops, and on every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from movie_cases import BACKENDS, ODD, SMALL, host, tiny
from oracle import causal as oracle

from gmrm_gpu.mixture.causal import CausalModel
from gmrm_gpu.mixture.drift import walk_precision
from gmrm_gpu.mixture.maps import CellMaps
from gmrm_gpu.mixture.movie import MovieModel
from gmrm_gpu.mixture.neighbours import leave_one_out, placed, placed_evidence
from gmrm_gpu.mixture.reservoir import BURST, N_FRAMES, N_LATEST, N_SAMPLES, Reservoir
from gmrm_gpu.results import FitStatus

STREAMS = np.arange(2, dtype=np.uint32)[None] * 2**30


def started(backend, z, places, config=SMALL, rate=0.05):
    """A model that was fitted to the first two frames and has judged the second."""
    model, past = CausalModel(ODD, config, rate=rate, sigma_floor=0.3, backend=backend), Reservoir()
    for t in range(2):
        past.add(z[0, t], places[0, t])
    proposal = model.fit(past.rows(), STREAMS[:, : config.n_components])
    model.adopt(proposal, past.latest[:-1])
    return model, [model.step(z[0, t], places[0, t]) for t in range(1, z.shape[1])]


@pytest.mark.parametrize("make_backend", BACKENDS)
def test_neighbours_say_what_the_loops_say(make_backend):
    backend, rng = make_backend(), np.random.default_rng(1)
    maps = CellMaps(ODD, 2, backend, purest=1.0)
    held, resp = rng.random((3, *maps.grid)), rng.dirichlet(np.ones(3), 12)
    cells, weights = rng.integers(0, maps.n_cells, 12), np.array([0.5, 0.2, 0.3])
    cells[3] = cells[4]
    blocked = backend.real(resp.T[None, None])
    device = backend.asarray(cells.astype(np.int32)[None, None])
    levels = maps.levels(backend.real(held[None]) + maps.deposit(device, blocked))
    found = leave_one_out(levels, backend.asarray(weights[None]), device, blocked, maps)
    wanted = oracle.neighbour_weights(held, weights, cells, resp, grid=maps.grid, n_levels=2)
    assert np.allclose(host(backend, found)[0, 0].T, wanted, atol=1e-4)  # deposits are multiples of 1/65536


def test_the_deviation_of_one_component_is_a_regression():
    """With one component there is nothing hidden, and a pass solves the frame exactly."""
    z, places = tiny(n_frames=4, m=300, levels=(90.0, 90.0))
    backend = BACKENDS[0].values[0]()
    config = replace(SMALL, n_components=1)
    model, _ = started(backend, z[:, :3], places[:, :3], config)
    carried = replace(model.carried)
    now, q = carried.now, 2
    step, _ = walk_precision(q, 1.0, backend)
    model.step(z[0, 3], places[0, 3])
    y, x = np.divmod(places[0, 3], ODD[1])
    features = np.stack([2 * x / (ODD[1] - 1) - 1, 2 * y / (ODD[0] - 1) - 1], axis=1)
    # The contrast stays: about its own mean it changes nothing but the sigma, whose information is not used.
    wanted, _ = oracle.deviation(
        (z[0, 3] - carried.centre) / carried.scale,
        features,
        now.means[0, 0],
        now.sigmas[0, 0] * now.gain[0, 0, 0],
        now.coef[0],
        now.drift[0, 0, : q + 1],
        carried.cov[: q + 1, : q + 1],
        1 / step[: q + 1],
    )
    assert np.allclose(model.carried.now.drift[0, 0, : q + 1], wanted, atol=2e-4)


@pytest.mark.parametrize("make_backend", BACKENDS[1:])
def test_other_backends_say_what_numpy_says(make_backend):
    z, places = tiny(n_frames=4, m=200)
    _, wanted = started(BACKENDS[0].values[0](), z, places)
    backend = make_backend()
    model, found = started(backend, z, places)
    for a, b in zip(found, wanted, strict=True):
        assert np.allclose(host(backend, a.resp), b.resp, atol=1e-6)
        assert np.allclose(host(backend, a.predicted), b.predicted, atol=1e-6)
        assert np.allclose(a.predicted_mean, b.predicted_mean, atol=1e-6)
        assert np.allclose(a.shift, b.shift, atol=1e-4, equal_nan=True)
    assert np.isfinite(host(backend, model.carried.held)).all()


def test_components_come_in_ascending_mean_and_frames_have_a_status():
    z, places = tiny(n_frames=5, m=300)
    model, seen = started(BACKENDS[0].values[0](), z, places)
    fit, order = model.frame_fit(seen[-1], 300)
    assert (np.diff(fit.means) > 0).all()
    assert np.array_equal(order, [0, 1])
    assert FitStatus(int(fit.status)).usable
    assert fit.weights.sum() == pytest.approx(1)
    disk = (places[0, 4] % ODD[1] - 0.3 * ODD[1] - 4) ** 2 + (places[0, 4] // ODD[1] - 0.5 * ODD[0]) ** 2
    assert (seen[-1].best == (disk < 0.15 * ODD[0] * ODD[1])).mean() > 0.98


def test_samples_of_a_constant_past_give_no_model():
    past = Reservoir()
    past.add(np.full(50, 7, np.uint8), np.arange(50, dtype=np.int32))
    model = CausalModel(ODD, SMALL, rate=0.05, backend=BACKENDS[0].values[0]())
    assert model.fit(past.rows(), STREAMS).carried is None


def test_the_sample_of_the_past_is_bounded_and_spread_over_it():
    past, n = Reservoir(), 1000
    for t in range(n):
        past.add(np.full(2000, t, np.int32), np.arange(2000, dtype=np.int32))
    kept = np.array(list(past.kept))
    assert N_FRAMES // 2 < kept.size <= N_FRAMES
    assert kept.size % BURST == 0
    assert np.diff(kept).max() < n / 5
    assert kept.max() > n - n / 5
    values, positions, valid = past.rows()
    assert valid.all()
    assert values.shape == positions.shape
    assert N_SAMPLES // 2 < values.size <= N_SAMPLES
    assert np.array_equal(values[-N_LATEST:, 0], np.arange(n - N_LATEST, n))
    assert (values == values[:, :1]).all()
    spread = np.sort(positions, axis=1)
    assert np.diff(spread, axis=1).max() <= 3 * 2000 / positions.shape[1]  # even, not a stretch


def test_numbers_that_break_down_are_no_proposal_and_no_error(monkeypatch):
    def singular(self, **options):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(MovieModel, "fit", singular)
    past, (z, places) = Reservoir(), tiny()
    past.add(z[0, 0], places[0, 0])
    model = CausalModel(ODD, SMALL, rate=0.05, backend=BACKENDS[0].values[0]())
    assert model.fit(past.rows(), STREAMS).carried is None


@pytest.mark.parametrize(
    "config", [replace(SMALL, drift=0.0), replace(SMALL, trend="none"), replace(SMALL, trend_prior=5.0)]
)
def test_models_of_every_kind_go_forward(config):
    z, places = tiny(n_frames=5, m=300)
    model, seen = started(BACKENDS[0].values[0](), z, places, config)
    fit, _ = model.frame_fit(seen[-1], 300)
    assert np.isfinite(fit.means).all()
    disk = (places[0, 4] % ODD[1] - 0.3 * ODD[1] - 4) ** 2 + (places[0, 4] // ODD[1] - 0.5 * ODD[0]) ** 2
    assert (seen[-1].best == (disk < 0.15 * ODD[0] * ODD[1])).mean() > 0.97
    if config.drift == 0:
        assert not model.carried.now.drift.any()


@pytest.mark.parametrize("weights", [(0.6, 0.4), (0.4, 0.6)])
@pytest.mark.parametrize("placed_there", [False, True])
def test_only_components_that_lie_together_are_placed(weights, placed_there):
    backend, rng, n = BACKENDS[0].values[0](), np.random.default_rng(3), 4000
    near = np.where(rng.random(n) < 0.5, 0.9, 0.1) * weights[1]  # what neighbours say of the second component
    truth = rng.random(n) < (near if placed_there else weights[1])
    z = rng.standard_normal(n) + 2.0 * truth
    prior = np.stack([1 - near, near])
    resp = prior * np.exp(-0.5 * (z - np.array([[0.0], [2.0]])) ** 2)
    resp /= resp.sum(axis=0)
    evidence = placed_evidence(np.array([weights]), prior[None, None], resp[None, None], backend=backend)
    correlation, score = placed(evidence)
    assert (score > 8).all() if placed_there else (np.abs(score) < 4).all()
    assert (correlation > 0.15).all() if placed_there else (np.abs(correlation) < 0.08).all()
