"""What holds for any fit: each example draws a model, a sample and a transformation."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
from backends import NUMPY64
from hypothesis import strategies as st
from oracle import ecm
from properties import holds

from gmrm_gpu.config import SCHEDULES, STARTS, TREND_PRESETS, MixtureConfig
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.mixture.fit import fit_mixture, fit_samples, posterior, refit_samples
from gmrm_gpu.mixture.moments import Layout, Moments, join_moments, moments
from gmrm_gpu.mixture.steps import moved
from gmrm_gpu.results import FitStatus

SHAPE = (11, 16)
N_PIXELS = SHAPE[0] * SHAPE[1]
ARRAYS = ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter", "n_samples", "status")
seeds, components = st.integers(0, 2**31), st.integers(1, 4)
trends, schedules = st.sampled_from(sorted(TREND_PRESETS)), st.sampled_from(SCHEDULES)


def config(k, trend, schedule="fast", **options):
    """Few passes from one start: two ways to the same parameters are compared before rounding parts them."""
    return MixtureConfig(n_components=k, trend=trend, schedule=schedule, **{"starts": ("spread",), **options})


def sample(seed, k, n=70, rows=1):
    """Grey levels (R, n) of k phases on distinct pixels: phases apart or one upon another, a trend, rarely rounded."""
    rng = np.random.default_rng(seed)
    positions = np.stack([rng.permutation(N_PIXELS)[:n] for _ in range(rows)]).astype(np.int32)
    levels = rng.uniform(0, 60 * k, k)[rng.integers(k, size=positions.shape)]
    slope = rng.uniform(-10, 10) * (positions % SHAPE[1]) / SHAPE[1]
    values = levels + slope + rng.uniform(2, 15) * rng.standard_normal(positions.shape)
    return (np.rint(values) if rng.integers(4) == 0 else values), positions


def fit(values, positions, cfg, *, shape=SHAPE, floor=0.3, **options):
    return fit_mixture(values, positions, shape, cfg, backend=NUMPY64, sigma_floor=floor, **options)


def dropped(result):
    return (result.weights == 0).any()


def assert_alike(found, wanted):
    """The same fit; whether its last pass gained anything may be a matter of rounding."""
    np.testing.assert_array_equal(found.status > FitStatus.MAX_ITER, wanted.status > FitStatus.MAX_ITER)
    np.testing.assert_array_equal(found.n_samples, wanted.n_samples)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-7)
    for name in ("means", "sigmas", "coef"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-8, atol=1e-6)


def assert_same_bits(found, wanted):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


# -- the likelihood ------------------------------------------------------------------------------------------------


@holds(seed=seeds, k=components, trend=trends, start=st.sampled_from(STARTS), prior=st.sampled_from([None, 0.5]))
def test_every_pass_of_the_reference_schedule_gains(seed, k, trend, start, prior):
    values, positions = sample(seed, k)
    trace = []
    cfg = config(k, trend, "reference", starts=(start,), trend_prior=prior, max_iter=12, tol=1e-15)
    result = fit(values, positions, cfg, trace=trace)
    seen = np.array([float(value[0]) for _, value in trace])
    if not dropped(result):  # which takes its likelihood with it
        assert (np.diff(seen) >= -1e-12 * np.abs(seen).max()).all()


@holds(seed=seeds, k=components, trend=trends, n_iter=st.integers(1, 20))
def test_what_is_returned_is_the_best_point_seen_and_has_its_likelihood(seed, k, trend, n_iter):
    values, positions = sample(seed, k)
    trace = []
    result = fit(values, positions, config(k, trend, max_iter=n_iter, tol=1e-15), trace=trace)
    keep = result.weights[0] > 0
    par = ecm.params(*(getattr(result, name)[0][keep] for name in ("weights", "means", "sigmas")), result.coef[0])
    f = ecm.design(positions[0], SHAPE, result.terms)
    np.testing.assert_allclose(result.log_likelihood[0], ecm.log_likelihood(values[0], f, par), rtol=1e-9, atol=1e-7)
    if not dropped(result):
        seen = np.array([float(value[0]) for _, value in trace])
        last = result.log_likelihood[0] + values.size * np.log(values.std())
        assert last >= seen.max() - 1e-9 * np.abs(seen).max()


@holds(seed=seeds, k=components, trend=trends, n_iter=st.integers(1, 6))
def test_a_fit_that_goes_on_ends_no_lower(seed, k, trend, n_iter):
    values, positions = sample(seed, k)
    cfg = config(k, trend, max_iter=n_iter, tol=1e-15)
    samples = make_samples(values, positions, SHAPE, TrendBasis(cfg.terms), backend=NUMPY64)
    first = fit_samples(samples, cfg, sigma_floor=0.3, backend=NUMPY64)
    further = refit_samples(samples, first, replace(cfg, max_iter=5), sigma_floor=0.3, backend=NUMPY64)
    if not dropped(further):
        assert further.log_likelihood[0] >= first.log_likelihood[0] - 1e-9 * abs(first.log_likelihood[0])


# -- what a fit must not depend on ---------------------------------------------------------------------------------


@holds(
    seed=seeds,
    k=components,
    trend=trends,
    schedule=schedules,
    shift=st.floats(-2000, 2000),
    scale=st.sampled_from([1e-9, 1e-3, 0.05, 0.7, 3.0, 256.0, 1e9]),
)
def test_shift_and_scale_of_the_grey_levels(seed, k, trend, schedule, shift, scale):
    values, positions = sample(seed, k)
    cfg = config(k, trend, schedule, max_iter=6, tol=1e-15)
    plain, result = (
        fit(v, positions, cfg, floor=f) for v, f in ((values, 0.3), ((values + shift) * scale, 0.3 * scale))
    )
    back = {"means": result.means / scale - shift, "sigmas": result.sigmas / scale, "coef": result.coef / scale}
    logs = result.log_likelihood + values.size * np.log(scale)
    assert_alike(replace(result, **back, log_likelihood=logs), plain)


@holds(seed=seeds, k=components, trend=trends, schedule=schedules)
def test_order_of_the_samples(seed, k, trend, schedule):
    values, positions = sample(seed, k)
    order = np.random.default_rng(seed + 1).permutation(values.shape[1])
    cfg = config(k, trend, schedule, starts=("quantile", "spread"), max_iter=5, tol=1e-15)
    assert_alike(fit(values[:, order], positions[:, order], cfg), fit(values, positions, cfg))


@holds(seed=seeds, k=components, trend=trends, in_x=st.booleans(), in_y=st.booleans())
def test_flips_of_the_frame(seed, k, trend, in_x, in_y):
    values, positions = sample(seed, k)
    y, x = np.divmod(positions, SHAPE[1])
    flipped = (SHAPE[0] - 1 - y if in_y else y) * SHAPE[1] + (SHAPE[1] - 1 - x if in_x else x)
    cfg = config(k, trend, max_iter=6, tol=1e-15)
    result = fit(values, flipped, cfg)
    sign = np.array([(-1.0) ** (a * in_x + b * in_y) for a, b in result.terms])
    assert_alike(replace(result, coef=result.coef * sign), fit(values, positions, cfg))


@holds(seed=seeds, k=components, trend=trends)
def test_a_transposed_frame(seed, k, trend):
    values, positions = sample(seed, k)
    y, x = np.divmod(positions, SHAPE[1])
    cfg = config(k, TREND_PRESETS[trend], max_iter=6, tol=1e-15)
    other = replace(cfg, trend=tuple((b, a) for a, b in cfg.terms))
    assert_alike(fit(values, x * SHAPE[0] + y, other, shape=SHAPE[::-1]), fit(values, positions, cfg))


@holds(seed=seeds, k=components, trend=trends, times=st.integers(2, 4))
def test_samples_that_count_several_times(seed, k, trend, times):
    values, positions = sample(seed, k)
    cfg = config(k, trend, max_iter=6, tol=1e-15)
    once, often = fit(values, positions, cfg), fit(np.tile(values, times), np.tile(positions, times), cfg)
    shared = replace(often, n_samples=often.n_samples // times, log_likelihood=often.log_likelihood / times)
    if not dropped(once) and not dropped(often):  # two samples of many are another part of them
        assert_alike(shared, once)


@holds(seed=seeds, k=components, trend=trends)
def test_negative_contrast_reverses_the_components(seed, k, trend):
    values, positions = sample(seed, k)
    cfg = config(k, trend, max_iter=5, tol=1e-15)
    plain, result = fit(values, positions, cfg), fit(-values, positions, cfg)
    turned = {name: getattr(result, name)[:, ::-1] for name in ("weights", "means", "sigmas")}
    # Starts lie at quantiles of n samples, which are not the same from above: compare only where they were.
    ordered = np.sort(values[0] - values.mean())
    low, high = int(0.002 * ordered.size), int(0.998 * ordered.size)
    if low == ordered.size - 1 - high and not dropped(plain):
        assert_alike(replace(result, **turned | {"means": -turned["means"]}, coef=-result.coef), plain)


@holds(
    seed=seeds, k=components, trend=trends, n_padding=st.integers(1, 60), filling=st.sampled_from([0.0, np.nan, 1e30])
)
def test_padding_may_hold_anything_anywhere(seed, k, trend, n_padding, filling):
    values, positions = sample(seed, k)
    rng, n = np.random.default_rng(seed + 1), values.shape[1]
    places = np.sort(rng.permutation(n + n_padding)[:n])
    wide, where = np.full((1, n + n_padding), filling), rng.integers(N_PIXELS, size=(1, n + n_padding))
    wide[:, places], where[:, places] = values, positions
    valid = np.zeros(wide.shape, dtype=bool)
    valid[:, places] = True
    cfg = config(k, trend, max_iter=5, tol=1e-15)
    assert_alike(fit(wide, where, cfg, valid=valid), fit(values, positions, cfg))


@holds(seed=seeds, k=components, trend=trends, rows=st.integers(2, 4), bad=st.sampled_from(["equal", "nan", "few"]))
def test_a_bad_fit_leaves_the_bits_of_the_others_alone(seed, k, trend, rows, bad):
    values, positions = sample(seed, k, rows=rows)
    valid, cfg = np.ones(values.shape, dtype=bool), config(k, trend, max_iter=4, tol=1e-15)
    good, victim = fit(values, positions, cfg, valid=valid), seed % rows
    if bad == "few":
        valid[victim, 1:] = False
    else:
        values[victim, :: 1 if bad == "equal" else 9] = 7.0 if bad == "equal" else np.nan
    spoilt, others = fit(values, positions, cfg, valid=valid), np.arange(rows) != victim
    assert spoilt.status[victim] == (FitStatus.TOO_FEW if bad == "few" else FitStatus.DEGENERATE)
    assert_same_bits(spoilt[others], good[others])


@holds(seed=seeds, k=components, trend=trends)
def test_posteriors_are_those_of_the_parameters(seed, k, trend):
    values, positions = sample(seed, k)
    result = fit(values, positions, config(k, trend, max_iter=3))
    resp = posterior(values, positions, SHAPE, result, backend=NUMPY64)[0]
    keep, f = result.weights[0] > 0, ecm.design(positions[0], SHAPE, result.terms)
    par = ecm.params(*(getattr(result, name)[0][keep] for name in ("weights", "means", "sigmas")), result.coef[0])
    np.testing.assert_allclose(resp[keep], ecm.responsibilities(values[0], f, par).T, atol=1e-9)
    assert (resp[~keep] == 0).all()


# -- the sums ------------------------------------------------------------------------------------------------------


def blocks_of_samples(seed, k, trend):
    """Samples in many short blocks, and parameters near them."""
    values, positions = sample(seed, k, n=150)
    basis = TrendBasis(MixtureConfig(n_components=k, trend=trend).terms)
    samples = make_samples(values, positions, SHAPE, basis, backend=NUMPY64)
    shape = (1, 15, 10)
    cut = {"z": samples.z.reshape(shape), "valid": samples.valid.reshape(shape)}
    features = np.moveaxis(samples.features[0, 0].reshape(-1, *shape[1:]), 0, 1)[None]
    rng = np.random.default_rng(seed + 1)
    numbers = [np.log(rng.dirichlet(np.ones(k))), rng.normal(size=k), rng.normal(-1, 0.3, k)]
    theta = np.concatenate([*numbers, 0.2 * rng.normal(size=basis.n_terms)])[None]
    return replace(samples, **cut, features=np.ascontiguousarray(features)), theta, Layout(k, basis.n_terms)


def sums_of(samples, theta, layout, blocks=slice(None)):
    part = {name: getattr(samples, name)[:, blocks] for name in ("z", "features", "valid")}
    return moments(replace(samples, **part), theta, layout, backend=NUMPY64)


@holds(seed=seeds, k=components, trend=trends, cuts=st.sets(st.integers(1, 14), max_size=4))
def test_any_split_of_the_samples_has_the_same_sums(seed, k, trend, cuts):
    samples, theta, layout = blocks_of_samples(seed, k, trend)
    edges = [0, *sorted(cuts), 15]
    parts = [sums_of(samples, theta, layout, slice(a, b)) for a, b in pairwise(edges)]
    whole = sums_of(samples, theta, layout)
    for f in fields(Moments):
        total = np.sum([getattr(part, f.name) for part in parts], axis=0)
        np.testing.assert_allclose(total, getattr(whole, f.name), rtol=1e-12, atol=1e-10, err_msg=f.name)


@holds(seed=seeds, k=components, trend=trends, size=st.sampled_from([1e-6, 0.1, 3.0]))
def test_sums_moved_to_other_means_and_trends_are_those_about_them(seed, k, trend, size):
    """The responsibilities stay those of the old parameters, so the sums are compared with a loop of their own."""
    samples, theta, layout = blocks_of_samples(seed, k, trend)
    rng, q = np.random.default_rng(seed + 2), layout.n_terms
    shift, step = size * rng.normal(size=(1, k)), size * rng.normal(size=(1, q))
    found = moved(sums_of(samples, theta, layout), shift, step, samples.basis, backend=NUMPY64)
    z, f = (
        samples.z.reshape(-1),
        np.moveaxis(samples.features[0], 0, 1).reshape(samples.features.shape[2], -1)[1 : q + 1],
    )
    log_weights, means, log_sigmas, coef = (a[0] for a in layout.split(theta))
    resp = ecm.responsibilities(z, f.T, ecm.Params(np.exp(log_weights), means, np.exp(log_sigmas), coef))
    deviation = z - (coef + step[0]) @ f - (means + shift[0])[:, None]
    ones = np.concatenate([np.ones((1, z.size)), f])
    np.testing.assert_allclose(found.dev[0], (resp.T * deviation) @ ones.T, rtol=1e-9, atol=1e-8 * (1 + size))
    np.testing.assert_allclose(
        found.square[0], (resp.T * deviation**2).sum(axis=1), rtol=1e-8, atol=1e-8 * (1 + size**2)
    )


@holds(seed=seeds, k=components, trend=trends, rows=st.integers(2, 5))
def test_joined_sums_are_those_of_all_rows(seed, k, trend, rows):
    values, positions = sample(seed, k, rows=rows)
    cfg = config(k, trend)
    samples = make_samples(values, positions, SHAPE, TrendBasis(cfg.terms), backend=NUMPY64)
    layout, theta = Layout(k, cfg.n_terms), np.random.default_rng(seed).normal(size=(rows, 3 * k + cfg.n_terms))
    parts = [moments(samples.rows(r, r + 1), theta[r : r + 1], layout, backend=NUMPY64) for r in range(rows)]
    joined, whole = join_moments(parts, backend=NUMPY64), moments(samples, theta, layout, backend=NUMPY64)
    for f in fields(Moments):
        np.testing.assert_array_equal(getattr(joined, f.name), getattr(whole, f.name), err_msg=f.name)
