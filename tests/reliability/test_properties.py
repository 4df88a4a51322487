"""What holds for any draw, movie, vote, curve, setting and line of text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from backends import NUMPY64
from hypothesis import assume
from hypothesis import strategies as st
from properties import holds

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import (
    ESTIMATORS,
    METRICS,
    SCHEDULES,
    SCHEMES,
    SIDES,
    TREND_PRESETS,
    WINDOWS,
    AnalysisConfig,
    CorrectionConfig,
    MixtureConfig,
    QuantityConfig,
    SamplingConfig,
    StudyConfig,
)
from gmrm_gpu.config.files import config_to_dict, load_toml, save_toml, study_from_dict
from gmrm_gpu.correct import correct_labels
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.estimate import sample_mean, smooth, smooth_with_gaps, steady_variance
from gmrm_gpu.frames import open_movie
from gmrm_gpu.philox import permute
from gmrm_gpu.quantify import make_scale, volume_weights
from gmrm_gpu.results.estimate import Estimate
from gmrm_gpu.results.tables import rate_name
from gmrm_gpu.sampling import Sampler, effective_pixels
from gmrm_gpu.study.shards import plan_shards
from gmrm_gpu.thinning import thin_movie
from gmrm_gpu.visited import FrameVisits, sampler_of

NUMPY32 = make_backend(np)
seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
rates = st.floats(0.02, 1.0)
schemes = st.sampled_from(SCHEMES)


def generator(seed):
    return np.random.default_rng(seed)


def mask_of(rng, shape):
    """Some pixels of a frame, at least one."""
    inside = rng.random(shape) < rng.uniform(0.2, 1)
    inside[rng.integers(shape[0]), rng.integers(shape[1])] = True
    return inside


# -- draws ---------------------------------------------------------------------------------------------------------


@holds(seed=st.integers(0, 2**64 - 1), shape=shapes, rate=rates, scheme=schemes, length=st.integers(1, 20))
def test_a_draw_visits_allowed_pixels_once(seed, shape, rate, scheme, length):
    allowed = mask_of(generator(seed), shape)
    s = Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, seed=seed, line_length=length), allowed)
    draw = s.draw(np.array([0, 7]), 3, backend=NUMPY32)
    valid = np.ones(draw.positions.shape, bool) if draw.valid is None else draw.valid
    assert draw.positions.shape == (2, s.capacity)
    assert ((draw.positions >= 0) & (draw.positions < allowed.size)).all()  # padding too
    np.testing.assert_array_equal(valid.sum(axis=1), draw.n_samples)
    for row, inside in zip(draw.positions, valid, strict=True):
        assert len(set(row[inside].tolist())) == inside.sum()
        assert allowed.reshape(-1)[row[inside]].all()


@holds(seed=seeds, shape=shapes, rate=rates, scheme=schemes, frame=st.integers(0, 2**31), data=st.data())
def test_replicates_have_the_same_draw_alone_and_in_any_company(seed, shape, rate, scheme, frame, data):
    s = Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, seed=seed))
    several = np.array(data.draw(st.lists(st.integers(0, 2**31), min_size=2, max_size=5, unique=True)))
    together = s.draw(several, frame, backend=NUMPY32)
    for row, replicate in enumerate(several):
        alone = s.draw(np.array([replicate]), frame, backend=NUMPY32)
        np.testing.assert_array_equal(alone.positions[0], together.positions[row])
        assert alone.n_samples[0] == together.n_samples[row]


@holds(n=st.integers(1, 3000), keys=st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8), cut=st.floats(0, 1))
def test_a_keyed_permutation_is_one_whole_or_in_parts(n, keys, cut):
    table, index = np.array([keys], dtype=np.uint32), np.arange(n, dtype=np.uint32)
    found = permute(index, n, table, backend=NUMPY32)[0]
    np.testing.assert_array_equal(np.sort(found), np.arange(n))
    part = index[int(cut * n) :]
    if part.size:
        np.testing.assert_array_equal(permute(part, n, table, backend=NUMPY32)[0], found[int(cut * n) :])


@holds(counts=st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_visits_that_repeat_are_worth_as_many_pixels_as_kish_says(counts):
    worth = effective_pixels(np.repeat(np.arange(len(counts)), counts))
    assert worth == pytest.approx(sum(counts) ** 2 / sum(c * c for c in counts))
    assert 1 <= worth <= len(counts) * (1 + 1e-12)


@holds(seed=seeds, shape=shapes, n=st.integers(1, 40), lines=st.booleans())
def test_visits_of_one_pixel_or_stretch_share_a_number(seed, shape, n, lines):
    places = np.sort(generator(seed).integers(shape[0] * shape[1], size=n)).astype(np.int32)
    found = FrameVisits(places, places).clusters(shape[1], lines=lines)
    number, wanted = 0, [0]
    for before, here in zip(places[:-1].tolist(), places[1:].tolist(), strict=True):
        next_in_row = here == before + 1 and here // shape[1] == before // shape[1]
        number += not (here == before or (lines and next_in_row))
        wanted.append(number)
    assert found.tolist() == wanted


@holds(seed=seeds, shape=shapes, rate=rates, scheme=schemes)
def test_draws_from_visits_are_visits_with_their_grey_levels(seed, shape, rate, scheme):
    rng = generator(seed)
    stack = rng.integers(0, 255, (2, *shape)).astype(np.uint8)
    movie = open_movie(stack, visited=mask_of(rng, shape))
    seen = movie.visits(1)
    n = max(1, round(rate * shape[0] * shape[1]))
    assume(rate == 1 or n <= seen.positions.size)
    draw = sampler_of(movie, SamplingConfig(rate=rate, scheme=scheme, seed=seed)).draw(np.arange(3), 1, backend=NUMPY32)
    for places, values in zip(draw.positions, draw.values, strict=True):
        assert len(set(places.tolist())) == (seen.positions.size if rate == 1 else n)
        assert set(places.tolist()) <= set(seen.positions.tolist())
        np.testing.assert_array_equal(values, stack[1].reshape(-1)[places])


@holds(seed=seeds, shape=shapes, rate=st.floats(0.02, 0.99), scheme=schemes, replicate=st.integers(0, 1000))
def test_a_thinned_movie_has_the_visits_of_that_replicate(seed, shape, rate, scheme, replicate):
    stack = generator(seed).integers(0, 65535, (2, *shape)).astype(np.uint16)
    sampling = SamplingConfig(rate=rate, scheme=scheme, seed=seed)
    movie = open_movie(stack)
    draw = sampler_of(movie, sampling).draw(np.array([replicate]), 1, backend=NUMPY32)
    wanted = draw.positions[0] if draw.valid is None else draw.positions[0][draw.valid[0]]
    seen = thin_movie(movie, sampling, replicate=replicate).visits(1)
    np.testing.assert_array_equal(seen.positions, wanted)
    np.testing.assert_array_equal(seen.values, stack[1].reshape(-1)[wanted])


# -- the vote ------------------------------------------------------------------------------------------------------

votes = {
    "seed": seeds,
    "metric": st.sampled_from(METRICS),
    "window": st.sampled_from(WINDOWS),
    "sides": st.sampled_from(SIDES),
    "radius": st.sampled_from([1, 1.5, 2, 3]),
    "gamma": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
}
SHAPE, FRAMES = (6, 7), 4


def voted(labels, *, shape=SHAPE, n_phases=2, **settings):
    """Labels (T, pixels) of all pixels, corrected."""
    positions = np.broadcast_to(np.arange(labels.shape[1], dtype=np.int32), labels.shape)
    config = CorrectionConfig(**settings)
    found, _ = correct_labels(
        labels[None], positions[None], shape, config, n_phases=n_phases, foreground=1, backend=NUMPY32
    )
    return found[0]


def random_labels(seed, n_phases=2):
    """(T, pixels), 255 where not visited."""
    rng = generator(seed)
    labels = rng.integers(n_phases, size=(FRAMES, SHAPE[0] * SHAPE[1])).astype(np.uint8)
    return np.where(rng.random(labels.shape) < 0.7, labels, np.uint8(255))


@holds(**votes, n_phases=st.integers(2, 4))
def test_flipped_and_transposed_labels_have_flipped_and_transposed_votes(seed, n_phases, **settings):
    labels = random_labels(seed, n_phases)
    wanted = voted(labels, n_phases=n_phases, **settings).reshape(FRAMES, *SHAPE)
    images = labels.reshape(FRAMES, *SHAPE)
    flipped = voted(images[:, ::-1, ::-1].reshape(FRAMES, -1).copy(), n_phases=n_phases, **settings)
    np.testing.assert_array_equal(flipped.reshape(FRAMES, *SHAPE)[:, ::-1, ::-1], wanted)
    turned = images.transpose(0, 2, 1).reshape(FRAMES, -1).copy()
    found = voted(turned, shape=SHAPE[::-1], n_phases=n_phases, **settings)
    np.testing.assert_array_equal(found.reshape(FRAMES, *SHAPE[::-1]).transpose(0, 2, 1), wanted)


@holds(**votes, higher=st.sampled_from([0.0, 0.4, 0.8, 1.0]))
def test_a_higher_gamma_keeps_no_more_foreground(seed, higher, gamma, sides, **settings):
    labels = random_labels(seed)
    few, many = (
        voted(labels, gamma=g, sides="foreground", **settings) for g in (max(gamma, higher), min(gamma, higher))
    )
    assert ((few == 1) <= (many == 1)).all()
    assert ((many == 1) <= (labels == 1)).all()
    assert ((many == 255) == (labels == 255)).all()


@holds(**votes, keep=st.integers(0, FRAMES - 1))
def test_a_vote_hears_only_its_window(seed, keep, window, **settings):
    """The future changes nothing in the past; with the symmetric window, nothing beyond the radius."""
    labels = random_labels(seed)
    other = random_labels(seed + 1)
    changed = np.concatenate([labels[: keep + 1], other[keep + 1 :]])
    reach = math.floor(settings["radius"]) if window == "symmetric" else 0
    found, wanted = voted(changed, window=window, **settings), voted(labels, window=window, **settings)
    np.testing.assert_array_equal(found[: max(0, keep + 1 - reach)], wanted[: max(0, keep + 1 - reach)])


# -- estimates -----------------------------------------------------------------------------------------------------


@holds(seed=seeds, m=st.integers(1, 30), scheme=st.sampled_from(["fixed", "bernoulli"]), shift=st.floats(-3, 3))
def test_a_mean_of_samples_moves_with_them_in_any_order(seed, m, scheme, shift):
    rng = generator(seed)
    values, valid = rng.random((1, m)), rng.random((1, m)) < 0.8
    n, order = valid.sum(axis=1), rng.permutation(m)
    plain = sample_mean(values, valid, n, 50, scheme, 1, backend=NUMPY64)
    moved = sample_mean(values[:, order] + shift, valid[:, order], n, 50, scheme, 1, backend=NUMPY64)
    np.testing.assert_allclose(moved[0], plain[0] + shift, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moved[1], plain[1], rtol=1e-9, atol=1e-15)
    if n[0]:
        assert values[valid].min() - 1e-12 <= plain[0][0] <= values[valid].max() + 1e-12


@holds(seed=seeds, n_frames=st.integers(1, 25), lost=st.floats(0, 1))
def test_steady_variances_lie_between_those_around_them(seed, n_frames, lost):
    rng = generator(seed)
    variance = np.where(rng.random((2, n_frames)) < lost, np.nan, 1 + rng.random((2, n_frames)))
    found = steady_variance(variance, np.full((2, n_frames), 10), 1000)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(variance))
    for (r, t), value in np.ndenumerate(found):
        near = variance[r, max(0, t - 4) : t + 5]
        if np.isfinite(value):
            assert np.nanmin(near) - 1e-9 <= value <= np.nanmax(near) + 1e-9


@holds(seed=seeds, n_frames=st.integers(3, 12), lost=st.floats(0, 1), scale=st.sampled_from([0.0, 1e-9, 0.01, 1.0]))
def test_a_smoothed_curve_is_finite_and_goes_through_what_is_sure(seed, n_frames, lost, scale):
    rng = generator(seed)
    share, sd = rng.random((2, n_frames)), scale * rng.random((2, n_frames))
    gone = rng.random(share.shape) < lost
    share[gone] = np.nan
    found = smooth(Estimate(share, sd))
    assert np.isfinite(found.share).all()
    assert (np.isfinite(found.sd) & (found.sd >= 0)).all()
    sure = ~gone & (sd < 1e-7)
    np.testing.assert_allclose(found.share[sure], share[sure], atol=1e-5)


@holds(seed=seeds, n_frames=st.integers(3, 10), step=st.integers(1, 5), first=st.integers(0, 1000))
def test_frames_numbered_in_larger_steps_are_smoothed_alike(seed, n_frames, step, first):
    rng = generator(seed)
    curve = Estimate(rng.random((1, n_frames)), 0.1 * rng.random((1, n_frames)) + 1e-3)
    places = np.sort(rng.permutation(3 * n_frames)[:n_frames])
    places[1] = places[0] + 1  # the usual distance
    places = np.unique(places)
    cut = Estimate(curve.share[:, : places.size], curve.sd[:, : places.size])
    found, wanted = smooth_with_gaps(cut, first + step * places), smooth_with_gaps(cut, places)
    np.testing.assert_array_equal(found.share, wanted.share)
    np.testing.assert_array_equal(found.sd, wanted.sd)


@holds(share=st.floats(0, 1), size=st.floats(1e-4, 10), thickness=st.floats(1e-3, 10), n_pixels=st.integers(1, 10**8))
def test_a_slab_is_worth_its_area_times_its_thickness(share, size, thickness, n_pixels):
    slab = make_scale(QuantityConfig(thickness_um=thickness), n_pixels, size)
    assert slab.unit == "um3"
    assert share * slab.factor == pytest.approx(share * n_pixels * size * size * thickness, rel=1e-12)
    assert make_scale(QuantityConfig(), n_pixels, None).factor == n_pixels


@holds(shape=shapes, position=st.integers(-5, 15), moved=st.integers(0, 5), axis=st.sampled_from(["x", "y"]))
def test_a_volume_of_revolution_moves_with_its_axis(shape, position, moved, axis):
    near, far = (QuantityConfig(geometry="revolution", axis=f"{axis}={p}") for p in (position, position + moved))
    larger = (shape[0] + moved * (axis == "y"), shape[1] + moved * (axis == "x"))
    wanted = volume_weights(shape, near, 0.5).reshape(shape)
    found = volume_weights(larger, far, 0.5).reshape(larger)
    np.testing.assert_allclose(found[larger[0] - shape[0] :, larger[1] - shape[1] :], wanted, rtol=1e-12, atol=1e-12)


# -- settings ------------------------------------------------------------------------------------------------------

terms = st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda t: 1 <= sum(t) <= 4)
mixtures = st.builds(
    MixtureConfig,
    n_components=st.integers(1, 6),
    trend=st.sampled_from(sorted(TREND_PRESETS)) | st.lists(terms, max_size=6, unique=True).map(tuple),
    schedule=st.sampled_from(SCHEDULES),
    tol=st.floats(0, 1, exclude_min=True),
    max_iter=st.integers(1, 10**7),
    sigma_floor=st.none() | st.floats(1e-9, 1e9),
    trend_prior=st.none() | st.floats(1e-9, 1e9),
    drift=st.floats(0, 1000),
)
samplings = st.builds(
    SamplingConfig,
    rate=st.floats(0, 1, exclude_min=True),
    scheme=schemes,
    seed=st.integers(0, 2**64 - 1),
    line_length=st.integers(1, 2**16),
)
quantities = st.builds(
    QuantityConfig,
    estimator=st.none() | st.sampled_from(ESTIMATORS),
    interval=st.floats(0.01, 0.9999),
    pixel_size_um=st.none() | st.floats(0, 1e12, exclude_min=True),
    axis=st.sampled_from(["x=0", "y = 3.25", "x=-17"]),
)
analyses = st.builds(AnalysisConfig, mixture=mixtures, sampling=samplings, quantity=quantities)


@holds(config=analyses)
def test_settings_survive_a_toml_file(config, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    save_toml(config, path)
    assert load_toml(path) == config


@holds(
    analysis=analyses,
    design=st.lists(st.tuples(st.floats(0, 1, exclude_min=True), st.integers(1, 2**31)), min_size=1, max_size=4),
    methods=st.sampled_from([("paper",), ("movie", "paper")]),
)
def test_settings_of_a_study_survive_a_dictionary(analysis, design, methods):
    assume(len({rate_name(rate) for rate, _ in design}) == len(design))
    rates, replicates = zip(*design, strict=True)
    config = StudyConfig(analysis, rates=rates, n_replicates=replicates, methods=methods)
    assert study_from_dict(config_to_dict(config)) == config


def study_of(rates, number):
    return StudyConfig(rates=tuple(rates), n_replicates=(number,) * len(rates))


def shards_of(study, n_frames, n_pixels, device):
    return plan_shards(study, n_frames, lambda rate: max(1, round(rate * n_pixels)), device)


@holds(
    rates=st.lists(st.floats(1e-4, 1), min_size=1, max_size=4, unique=True),
    twin=st.sampled_from([0.0, 1e-16, 1e-12, 1e-9, 1e-6]),
    number=st.integers(1, 3000),
    more=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 500), st.integers(1, 2**22)),
    device=st.sampled_from(["numpy", "cupy"]),
)
def test_shards_hold_every_replicate_once_and_stay_when_more_are_asked_for(rates, twin, number, more, size, device):
    try:
        study = study_of(dict.fromkeys([*rates, rates[0] * (1 - twin)]), number)
    except ConfigError:
        assert 0 < twin < 1e-8  # so near to each other that they have one name
        return
    shards = shards_of(study, *size, device)
    assert len({shard.name for shard in shards}) == len(shards)
    for method in study.methods:
        part = study.of_method(method)
        for rate, total in zip(part.rates, part.n_replicates, strict=True):
            mine = [s for s in shards if (s.method, s.rate, s.reference) == (method, rate, False)]
            assert [r for s in mine for r in range(s.start, s.stop)] == list(range(total))
    longer = set(shards_of(study_of(study.rates, number + more), *size, device))
    last = {(s.method, s.rate): s for s in shards}  # of each rate, the one that may grow
    assert set(shards) - set(last.values()) <= longer
