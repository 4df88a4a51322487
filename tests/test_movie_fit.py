"""The movie-level fit as a whole: against plain loops, replicate by replicate, and on movies with truth."""

from dataclasses import fields, replace

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from movie_cases import BACKENDS, ODD, SMALL, THREE, everything, host, tiny
from oracle import ecm
from oracle import movie as oracle

import gmrm_gpu as gg
from gmrm_gpu.classify import movie_foreground
from gmrm_gpu.config import PhaseConfig, SamplingConfig
from gmrm_gpu.mixture import movie_settle
from gmrm_gpu.mixture.design import TrendBasis
from gmrm_gpu.mixture.maps import n_levels
from gmrm_gpu.mixture.movie import MovieModel
from gmrm_gpu.mixture.movie_steps import MovieParameters
from gmrm_gpu.mixture.rows import FrameRows
from gmrm_gpu.results import FitStatus
from gmrm_gpu.sampling import Sampler

# -- the whole fit -------------------------------------------------------------------------------------------------


def priors_of(positions, resp, weights, levels):
    """(T, m, K) prior of every sample from the other frames."""
    maps = [oracle.prior_map(positions, resp, weights[t], ODD, levels, t) for t in range(len(resp))]
    return np.array([oracle.at_pixels(a, p, ODD, levels) for a, p in zip(maps, positions, strict=True)])


def oracle_start(model, backend):
    """The dict of the oracle, of the first replicate of a model not yet fitted."""
    now = {f.name: host(backend, getattr(model.now, f.name))[0] for f in fields(MovieParameters) if f.name != "alive"}
    now["pivot"] = float(now["pivot"][0])
    return now


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_iteration_and_the_labels_equal_the_oracle(backend, monkeypatch):
    backend = backend()
    monkeypatch.setattr(movie_settle, "MAX_ITER", 1)
    values, positions = tiny(sd=20.0)
    model = MovieModel(values, positions, ODD, SMALL, drift=1.0, backend=backend)
    now, levels, finest = oracle_start(model, backend), 3, n_levels(60 / (ODD[0] * ODD[1]))
    assert finest == 4
    z = (values[0] - model.centre[0]) / model.scale[0]
    f = np.array([ecm.design(p, ODD, SMALL.terms) for p in positions[0]])
    fit = model.fit()

    resp, _ = oracle.e_step(now, z, f, np.broadcast_to(now["weights"][:, None, :], (*z.shape, 2)))
    resp, log_likelihood = oracle.e_step(now, z, f, priors_of(positions[0], resp, now["weights"], levels))
    new = oracle.m_steps(now, z, f, resp, 1.0, 1e-6 / model.scale[0])
    order, scale, centre = np.argsort(new["means"]), model.scale[0], model.centre[0]
    np.testing.assert_allclose(fit.common.means[0], new["means"][order] * scale + centre, rtol=1e-8)
    np.testing.assert_allclose(fit.common.sigmas[0], new["sigmas"][order] * scale, rtol=1e-8)
    np.testing.assert_allclose(fit.common.coef[0], new["coef"] * scale, rtol=1e-7)
    np.testing.assert_allclose(fit.common.weights[0], new["weights"].mean(axis=0)[order], rtol=1e-8)
    np.testing.assert_allclose(fit.frames.log_likelihood[0], log_likelihood - 60 * np.log(scale), rtol=1e-8)
    for t in range(3):
        means = oracle.frame_means(new, t)[order] * scale + centre
        np.testing.assert_allclose(fit.frames.means[0, t], means, rtol=1e-8)
        gain = 1 + new["drift"][t, -1]
        np.testing.assert_allclose(fit.frames.sigmas[0, t], new["sigmas"][order] * scale * gain, rtol=1e-8)
        np.testing.assert_allclose(fit.frames.weights[0, t], new["weights"][t][order], rtol=1e-8)
        coef = (new["coef"] + new["drift"][t, :2]) * scale
        np.testing.assert_allclose(fit.frames.coef[0, t], coef, rtol=1e-7)
    grey = np.array([scale, scale, scale, 1.0])
    np.testing.assert_allclose(fit.drift[0], new["drift"] * grey, atol=1e-8)

    weights_of_pixels = np.linspace(0, 2, ODD[0] * ODD[1])
    labels = model.label(np.array([[False, True]]), backend.asarray(weights_of_pixels))
    for now_levels in (levels, finest, finest):
        priors = priors_of(positions[0], resp, new["weights"], now_levels)
        resp, _ = oracle.e_step(new, z, f, priors)
        count = resp.sum(axis=1) + 0.5
        new["weights"] = count / count.sum(axis=1, keepdims=True)
    check_labels(labels, new, resp, z, f, positions[0], finest, order, weights_of_pixels, backend)


def check_labels(labels, new, resp, z, f, positions, levels, order, weights_of_pixels, backend):
    """Labels and expectations of one movie, foreground the brighter of two."""
    bright = order[1]
    after, _ = oracle.e_step(new, z, f, priors_of(positions, resp, new["weights"], levels))
    np.testing.assert_allclose(host(backend, labels.posterior)[0], after[..., bright], atol=1e-8)
    np.testing.assert_array_equal(host(backend, labels.best)[0], after.argmax(axis=2) == bright)
    weights, past, levels = np.full(2, 0.5), [], levels + 1  # expectations come from maps one level finer
    everywhere = np.arange(ODD[0] * ODD[1])
    for t in range(len(z)):
        prior = oracle.prior_map(
            positions[: t + 1], [*past, np.zeros_like(resp[0])], weights, ODD, levels, t, past=True
        )
        at_samples = oracle.at_pixels(prior, positions[t], ODD, levels)
        np.testing.assert_allclose(host(backend, labels.expected)[0, t], at_samples[:, bright], atol=1e-8)
        all_pixels = oracle.at_pixels(prior, everywhere, ODD, levels)[:, bright]
        assert host(backend, labels.expected_mean)[0, t] == pytest.approx(all_pixels.mean(), abs=1e-9)
        weighted = (all_pixels * weights_of_pixels).mean()
        assert host(backend, labels.expected_weighted)[0, t] == pytest.approx(weighted, abs=1e-9)
        one = {**new, "drift": new["drift"][t : t + 1]}
        now_resp, _ = oracle.e_step(one, z[t : t + 1], f[t : t + 1], at_samples[None])
        past.append(now_resp[0])
        weights = (now_resp[0].sum(axis=0) + 0.5) / (now_resp[0].sum() + 1.0)


@pytest.mark.parametrize(("dtype", "padded"), [("float32", False), ("float32", True), ("float64", True)])
def test_a_replicate_does_not_depend_on_the_others_to_the_last_bit(dtype, padded):
    # 700 samples a frame: two blocks, the second with padding; the replicates stop after different numbers of steps.
    backend = NUMPY32 if dtype == "float32" else NUMPY64
    values, positions = tiny(seed=4, n_frames=3, m=701, rows=3)
    values[2] = tiny(seed=9, n_frames=3, m=701, levels=(60.0, 75.0))[0][0]
    config = replace(SMALL, n_components=3)  # one to spare: slow, so that extrapolations come in
    valid = np.arange(701) < np.array([701, 650, 600])[:, None, None] + np.arange(3)[:, None] if padded else None
    streams = np.random.default_rng(0).integers(0, 2**32, (3, 3)).astype(np.uint32)

    def run(rows):
        inside = None if valid is None else valid[rows]
        model = MovieModel(
            values[rows], positions[rows], ODD, config, valid=inside, streams=streams[rows], backend=backend
        )
        return everything(model, ((False, False, True),))

    together = run(slice(0, 3))
    assert len(set(together["common.n_iter"].tolist())) > 1
    assert together["common.n_iter"].max() > 10
    for r in range(3):
        for name, value in run(slice(r, r + 1)).items():
            np.testing.assert_array_equal(value[0], together[name][r], err_msg=f"{name} of {r}")


def test_a_replicate_sees_only_its_own_samples():
    values, positions = tiny(rows=2, m=200)
    changed = values.copy()
    changed[1] = 255 - changed[1][:, ::-1]
    first, second = (everything(MovieModel(v, positions, ODD, SMALL, backend=NUMPY64)) for v in (values, changed))
    for name, value in first.items():
        np.testing.assert_array_equal(value[0], second[name][0], err_msg=name)
    assert not np.array_equal(first["posterior"][1], second["posterior"][1])


def test_strict_backend_agrees_with_numpy():
    values, positions = tiny(m=80, rows=2)
    valid = np.arange(80) < np.array([80, 70])[:, None, None] + np.zeros((2, 3, 1), dtype=int)
    wanted = everything(MovieModel(values, positions, ODD, SMALL, valid=valid, backend=NUMPY64))
    for backend in other_backends():
        if backend.id == "strict":
            other = backend.values[0]()
            found = everything(MovieModel(values, positions, ODD, SMALL, valid=valid, backend=other))
            for name, value in wanted.items():
                np.testing.assert_allclose(
                    np.nan_to_num(host(other, found[name])), np.nan_to_num(value), atol=1e-6, err_msg=name
                )


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (250.0, -4e4), (-1.0, 255.0)])
def test_another_unit_gives_the_same_labels(scale, shift):
    values, positions = tiny(m=400, n_frames=4)
    config = replace(SMALL, starts=("quantile", "spread"))  # k-means++ draws other samples of turned values
    one = everything(MovieModel(values, positions, ODD, config, backend=NUMPY64))
    foreground = ((False, True),) if scale > 0 else ((True, False),)
    other = everything(
        MovieModel(values * scale + shift, positions, ODD, config, sigma_floor=1e-9, backend=NUMPY64), foreground
    )
    means = np.sort(one["common.means"] * scale + shift, axis=1)
    np.testing.assert_allclose(other["common.means"], means, atol=1e-3 * abs(scale))
    np.testing.assert_allclose(other["posterior"], one["posterior"], atol=1e-3)
    np.testing.assert_allclose(other["expected"], one["expected"], atol=1e-3)


def test_a_flipped_movie_gives_flipped_maps():
    shape = (32, 48)  # whole cells, so that a flip maps them onto each other
    values, positions = tiny(shape=shape, m=300)
    one = everything(MovieModel(values, positions, shape, SMALL, backend=NUMPY64))
    flipped = positions // 48 * 48 + 47 - positions % 48
    other = everything(MovieModel(values, flipped, shape, SMALL, backend=NUMPY64))
    np.testing.assert_allclose(other["common.coef"], one["common.coef"] * [-1, 1], atol=1e-6)
    np.testing.assert_allclose(other["posterior"], one["posterior"], atol=1e-6)
    np.testing.assert_allclose(other["expected_mean"], one["expected_mean"], atol=1e-6)


def test_it_has_settled_when_it_stops(monkeypatch):
    values, positions = tiny(m=400, n_frames=5)
    found = everything(MovieModel(values, positions, ODD, SMALL, backend=NUMPY64))
    monkeypatch.setattr(movie_settle, "TOL", 0.0)
    monkeypatch.setattr(movie_settle, "MAX_ITER", 400)
    end = everything(MovieModel(values, positions, ODD, SMALL, backend=NUMPY64))
    assert (found["common.status"] == FitStatus.CONVERGED).all()
    assert found["common.n_iter"] < 60
    np.testing.assert_allclose(found["common.means"], end["common.means"], atol=0.01 * end["common.sigmas"].min())
    np.testing.assert_allclose(found["posterior"], end["posterior"], atol=0.02)


# -- subsets -------------------------------------------------------------------------------------------------------


def test_the_subset_of_a_full_frame_is_spread_over_rows_and_columns():
    shape = (32, 64)
    positions = np.broadcast_to(np.arange(2048, dtype=np.int32), (2, 3, 2048))
    values = positions + 10_000 * np.arange(3)[:, None]
    rows = FrameRows.of_movies(values, positions, None, shape, TrendBasis(()), NUMPY64)
    part = rows.even(64)
    assert rows.even(2048) is rows
    for t in range(3):
        places = part.positions[t]
        assert np.array_equal(part.values[t], places + 10_000 * t)
        assert np.array_equal(places, part.positions[3 + t])  # another replicate
        assert len(set(places.tolist())) == 64
        corners = np.histogram2d(places // 64, places % 64, bins=(4, 4), range=((0, 32), (0, 64)))[0]
        assert corners.min() >= 1
    assert not set(part.positions[0].tolist()) & set(part.positions[1].tolist())


def test_a_subset_and_all_samples_find_the_same_parameters(monkeypatch):
    values, positions = tiny(seed=2, m=1200, n_frames=4)
    everything_seen = MovieModel(values, positions, ODD, SMALL, backend=NUMPY64).fit()
    monkeypatch.setattr("gmrm_gpu.mixture.movie.FIT_SAMPLES", 1600)
    model = MovieModel(values, positions, ODD, SMALL, backend=NUMPY64)
    fit = model.fit()
    assert (fit.frames.n_samples == 400).all()
    labels = model.label(np.array([[False, True]]))
    assert labels.posterior.shape == (1, 4, 1200)
    # 1,600 samples: five standard errors of a mean
    np.testing.assert_allclose(fit.common.means, everything_seen.common.means, atol=5 * 6 / np.sqrt(500))


# -- what it is for ------------------------------------------------------------------------------------------------


def sampled(sim, rate, scheme="fixed", rows=1):
    """Values, positions and valid (R, T, m) of a simulated movie."""
    sampler = Sampler(sim.movie.shape, SamplingConfig(rate=rate, scheme=scheme))
    draws = [sampler.draw(np.arange(rows), t, backend=NUMPY32) for t in range(len(sim.movie))]
    values = np.stack([sim.movie.frame(t).reshape(-1)[d.positions] for t, d in enumerate(draws)], axis=1)
    valid = None if draws[0].valid is None else np.stack([d.valid for d in draws], axis=1)
    return values, np.stack([d.positions for d in draws], axis=1), valid


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli", "stratified", "lines"])
def test_labels_of_a_synthetic_movie_are_right(scheme):
    sim = gg.simulate("battery", shape=(96, 112), n_frames=12, seed=2)
    values, positions, valid = sampled(sim, 0.05, scheme)
    found = everything(
        MovieModel(values, positions, sim.movie.shape, THREE, valid=valid, sigma_floor=0.29, backend=NUMPY32),
        ((False, False, True),),
    )
    truth = np.take_along_axis(sim.truth.reshape(12, -1), positions[0], axis=1) == 2
    hit = (found["best"][0] == 2) == truth
    assert (hit if valid is None else hit[valid[0]]).mean() > 0.99  # measured: .998
    assert found["common.status"][0] == FitStatus.CONVERGED


def test_a_movie_without_foreground_has_none():
    sim = gg.simulate("battery", shape=(96, 112), n_frames=8, n_empty=8, seed=1)
    assert (sim.truth != 2).all()
    values, positions, _ = sampled(sim, 0.05)
    model = MovieModel(values, positions, sim.movie.shape, THREE, sigma_floor=0.29, backend=NUMPY32)
    fit = model.fit()
    labels = model.label(movie_foreground(fit, PhaseConfig("auto")))
    assert labels.posterior.mean() < 0.005


def test_frames_without_foreground_have_almost_none():
    sim = gg.simulate("battery", shape=(96, 112), n_frames=12, n_empty=4, seed=3)
    values, positions, _ = sampled(sim, 0.05)
    found = everything(
        MovieModel(values, positions, sim.movie.shape, THREE, sigma_floor=0.29, backend=NUMPY32),
        ((False, False, True),),
    )
    empty = sim.truth_share == 0
    assert empty.sum() >= 4
    assert found["posterior"][0][empty].mean() < 0.002
