"""The movie-level kernels against the generic implementation: parameters, labels, expectations."""

from dataclasses import fields, replace

import fused_cases
import numpy as np
import pytest
from backends import NUMPY64
from devices import kernel_device, missing, on_harness
from host.device import HostDevice

from gmrm_gpu.classify import component_phases, movie_foreground
from gmrm_gpu.config import MixtureConfig, PhaseConfig
from gmrm_gpu.engines.fused import movie_plan
from gmrm_gpu.engines.fused.fit import FitArrays, FitKeys, plan_fit
from gmrm_gpu.engines.fused.movie import pool_samples, settle_movies
from gmrm_gpu.engines.fused.movie_fit import fit_movies, label_movie, movie_launches, on_host
from gmrm_gpu.engines.fused.movie_plan import (
    MovieSizes,
    Room,
    movie_bytes,
    plan_labels,
    plan_past,
    plan_settle,
    shares_bytes,
)
from gmrm_gpu.engines.generic import GenericEngine
from gmrm_gpu.mixture import movie, movie_settle
from gmrm_gpu.mixture.movie import MovieModel
from gmrm_gpu.philox import STREAM_START, stream_words
from gmrm_gpu.results import FitStatus

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.usefixtures("each_device"),
]

SHAPE = (24, 20)
FLOOR = 0.3
PHASES = PhaseConfig(phases="brightest")
USUAL = MixtureConfig(n_components=4)
LINEAR = MixtureConfig(n_components=3, trend="linear")
PLAIN = MixtureConfig(n_components=2, trend="none", drift=0.0)
CUBIC = "x,y,x2,xy,y2,x3,x2y,xy2,y3"
LARGEST = MixtureConfig(n_components=6, trend=CUBIC, drift=3.0)
LEVELS = {1: (90,), 2: (90, 140), 3: (50, 100, 150), 4: (40, 90, 135, 190), 6: (40, 70, 100, 130, 160, 190)}
# A responsibility is off by the rounding of a log-density of up to a few tens, 3e-6; the sums average that, and
# settling divides it by one minus the rate of convergence, here at most 0.9, in units of sigma, here 11 grey levels.
GREY = 1e-3
PROBABILITY = 1e-4
MARGIN = 1e-4  # of the posterior, beyond which labels are the same


def scene(config, *, rows=2, n_frames=6, m=150, seed=0, shape=SHAPE):
    """Grey levels and flat positions (R, T, m): an electrode at the left, disks that move, noise of 9 grey levels."""
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    places = np.stack([[rng.permutation(n)[:m] for _ in range(n_frames)] for _ in range(rows)]).astype(np.int32)
    y, x = np.divmod(places, shape[1])
    t = np.arange(n_frames)[None, :, None]
    phase = np.ones(places.shape, np.int64)
    phase[x < 4] = 0
    phase[(x - 0.4 * shape[1] - t) ** 2 + (y - 0.5 * shape[0]) ** 2 < 0.07 * n] = 2
    phase[(x - 0.7 * shape[1]) ** 2 + (y - 0.1 * shape[0]) ** 2 < 0.05 * n] = 3
    phase = np.minimum(phase, config.n_components - 1)
    values = np.array(LEVELS[config.n_components])[phase] + 0.5 * t + rng.normal(scale=9, size=places.shape)
    if config.n_terms:
        values = values + 4 * x / shape[1]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8), places


def pack(values, places, valid=None, *, wide=False, shape=SHAPE):
    return fused_cases.pack(values, places, valid, wide, shape)


def model_of(values, places, config, valid=None, allowed=None, shape=SHAPE):
    return MovieModel(
        *(values, places, shape, config),
        valid=valid,
        allowed=allowed,
        sigma_floor=FLOOR,
        drift=config.drift,
        backend=NUMPY64,
    )


def generic(model, pixel_weights=None, valid=None):
    """Everything that the generic implementation says, by name."""
    fit = model.fit()
    foreground = movie_foreground(fit, PHASES)
    found = model.label(foreground, pixel_weights)
    phase = component_phases(fit.common, PHASES, foreground)
    best = np.take_along_axis(phase, found.best.reshape(len(phase), -1).astype(np.int64), axis=1)
    seen = np.broadcast_to((fit.common.status < FitStatus.DEGENERATE)[:, None, None], found.best.shape)
    labels = np.where(seen if valid is None else seen & valid, best.reshape(found.best.shape), 255)
    return as_names(fit, labels, found)


def as_names(fit, labels, found):
    names = {f"common.{name}": value for name, value in fit.common.arrays().items()}
    names |= {f"frames.{name}": value for name, value in fit.frames.arrays().items()}
    names |= {"drift": fit.drift, "labels": labels, "posterior": found.posterior, "expected": found.expected}
    names |= {"expected_mean": found.expected_mean}
    return names | ({} if found.expected_weighted is None else {"expected_weighted": found.expected_weighted})


def start_of(model):
    """Where the generic model starts from, as the fit kernel writes it; host arrays."""
    now, status = model.now, model.start_status.astype(np.uint8)
    alive, centre, scale = now.alive, model.centre[:, None], model.scale[:, None]
    grey = (np.where(alive, a, np.nan) for a in (now.means * scale + centre, now.sigmas * scale))
    count = np.zeros(len(status), np.int32)
    parts = (now.weights[:, 0] * alive, *grey, now.coef * scale, 0.0 * model.scale, count, count, status)
    return FitArrays(*parts)


def parts_of(found, device):
    """Parameters, labels and all of a `LabelledMovie`, on the host."""
    names = ("labels", "posterior", "expected")
    found = replace(found, **{name: device.to_host(getattr(found, name)) for name in names})
    return found.fit, found.labels, found


def sizes_of(words, config, shape=SHAPE, **options):
    return MovieSizes(*words.shape, shape, config, shape[0] * shape[1], wide=words.dtype == np.uint64, **options)


def fused(words, config, start, *, blocks=2, pixel_weights=None, allowed=None, device=None, scratch=None, shape=SHAPE):
    """Everything that the kernels say from a given start, by name."""
    device = device or kernel_device(blocks=64)
    start = FitArrays(*(device.asarray(getattr(start, f.name)) for f in fields(FitArrays)))
    sizes = sizes_of(words, config, shape, n_ways=1 if pixel_weights is None else 2)
    if allowed is not None:
        sizes = replace(sizes, n_pixels=int(allowed.sum()))
    words = device.asarray(words)

    def room(launch):
        return Room(blocks, scratch)

    pooled = pool_samples(words, sizes, device)
    plan = plan_settle(sizes, room(None))
    arrays = settle_movies(plan, sizes, words, pooled, start, sigma_floor=FLOOR, device=device)
    fitted = on_host(arrays, sizes, pooled, start, device)
    options = {"allowed": allowed, "pixel_weights": pixel_weights, "room": room, "device": device}
    return as_names(*parts_of(label_movie(words, fitted, sizes, PHASES, **options), device))


def check(found, wanted, valid=None, grey=GREY, probability=PROBABILITY):
    """Whether two say the same, to rounding; labels wherever the posterior is not a draw."""
    assert found.keys() == wanted.keys()
    for name in ("n_iter", "n_samples", "status"):
        for level in ("common", "frames"):
            np.testing.assert_array_equal(found[f"{level}.{name}"], wanted[f"{level}.{name}"], err_msg=name)
    for name, value in wanted.items():
        last = name.rpartition(".")[2]
        if last in ("means", "sigmas", "coef", "drift"):
            np.testing.assert_allclose(found[name], value, rtol=0, atol=grey, err_msg=name)
        elif last == "weights" or name.startswith("expected") or name == "posterior":
            inside = slice(None) if valid is None or value.shape != valid.shape else valid
            scale = np.abs(value[inside]).max() if name == "expected_weighted" else 1.0
            np.testing.assert_allclose(
                found[name][inside], value[inside], rtol=0, atol=probability * scale, err_msg=name
            )
        elif last == "log_likelihood":
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    clear = ~(np.abs(wanted["posterior"] - 0.5) < MARGIN)
    np.testing.assert_array_equal(found["labels"][clear], wanted["labels"][clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, drift=2.0), LINEAR], ids=["plain", "drift", "linear"])
def test_a_settled_movie_is_the_generic_one(config):
    values, places = scene(config)
    model = model_of(values, places, config)
    start = start_of(model)
    check(fused(pack(values, places), config, start), generic(model))


@pytest.mark.parametrize("config", [MixtureConfig(n_components=1, trend="y3"), USUAL, LARGEST], ids=["1", "4", "6"])
def test_steps_are_the_generic_ones(config, monkeypatch):
    # Few steps, whatever they lead to: in a large model of a small movie rounding would grow on the way.
    monkeypatch.setattr(movie_settle, "MAX_ITER", 7)
    monkeypatch.setattr(movie_settle, "LONGEST", 1.5)
    values, places = scene(config, m=300)
    model = model_of(values, places, config)
    start = start_of(model)
    check(fused(pack(values, places), config, start), generic(model))


def test_padding_exclusion_and_volumes():
    values, places = scene(LINEAR)
    valid = np.random.default_rng(2).random(values.shape) > 0.2
    valid[0, 2] = False
    valid[1, 3, 1:] = False
    allowed = np.ones(SHAPE, bool)
    allowed[:, 17:] = False
    weights = np.abs(np.arange(SHAPE[0] * SHAPE[1]) % SHAPE[1] - 8.0)
    model = model_of(values, places, LINEAR, valid, allowed)
    options = {"pixel_weights": weights, "allowed": allowed}
    found = fused(pack(values, places, valid), LINEAR, start_of(model), **options)
    check(found, generic(model, weights, valid), valid)
    assert (found["labels"][~valid] == 255).all()
    assert found["frames.n_samples"][0, 2] == 0


def test_even_subsets_of_the_samples(monkeypatch):
    for name, n in (("START_SAMPLES", 400), ("FIT_SAMPLES", 660)):
        monkeypatch.setattr(movie, name, n)
        monkeypatch.setattr(movie_plan, name, n)
    config = replace(LINEAR, trend_prior=5.0)
    values, places = scene(config, m=181)
    model = model_of(values, places, config)
    found = fused(pack(values, places), config, start_of(model))
    check(found, generic(model))
    assert (found["frames.n_samples"] == 110).all()


def test_dropped_components_and_replicates_without_parameters():
    values, places = scene(LINEAR, rows=4, seed=3)
    values[1] = 77
    model = model_of(values, places, LINEAR)
    model.now.alive[2, 1] = False  # as if the start had lost it
    model.now.means[3, 0] = -40.0  # holds nothing, and is lost at once
    wanted = generic(model)
    assert wanted["common.status"].tolist()[1:] == [FitStatus.DEGENERATE, FitStatus.DROPPED, FitStatus.DROPPED]
    model = model_of(values, places, LINEAR)
    model.now.alive[2, 1], model.now.means[3, 0] = False, -40.0
    found = fused(pack(values, places), LINEAR, start_of(model))
    check(found, wanted)
    assert (found["labels"][1] == 255).all()
    assert np.isnan(found["posterior"][1]).all()


@pytest.mark.parametrize(("n_frames", "shape", "m"), [(1, SHAPE, 300), (2, (40, 50), 1100), (35, SHAPE, 60)])
def test_few_and_many_frames(n_frames, shape, m):
    values, places = scene(LINEAR, n_frames=n_frames, m=m, shape=shape)
    model = model_of(values, places, LINEAR, shape=shape)
    check(fused(pack(values, places, shape=shape), LINEAR, start_of(model), shape=shape), generic(model))


def test_the_contrast_of_a_frame_keeps_within_its_bounds(monkeypatch):
    monkeypatch.setattr(movie_settle, "MAX_ITER", 3)
    config = replace(LINEAR, drift=100.0)
    values, places = scene(config, rows=1, n_frames=2, m=300)
    values = values.astype(float)
    values[0, 1] = 90 - 40 * (values[0, 1] - 90)
    model = model_of(values, places, config)
    start = start_of(model)
    check(fused(pack(values, places, wide=True), config, start), generic(model), grey=0.1)


def test_answers_depend_on_neither_batch_nor_blocks():
    values, places = scene(LINEAR, rows=3, m=120, seed=4)
    words, start = pack(values, places), start_of(model_of(values, places, LINEAR))
    whole = fused(words, LINEAR, start, blocks=3)
    for blocks, scratch in ((1, None), (12, None), (17, 250_000)):
        other = fused(words, LINEAR, start, blocks=blocks, scratch=scratch)
        assert all(np.array_equal(other[name], whole[name], equal_nan=True) for name in whole), (blocks, scratch)
    alone = FitArrays(*(getattr(start, f.name)[1:2] for f in fields(FitArrays)))
    found = fused(words[1:2], LINEAR, alone, device=kernel_device(schedule="random:5", blocks=64))
    assert all(np.array_equal(found[name], whole[name][1:2], equal_nan=True) for name in whole)


def run(words, config, device, *, blocks=4):
    """From the samples to the labels, with the start of the fit kernel."""
    sizes = sizes_of(words, config)
    words = device.asarray(words)
    numbers = (np.arange(len(words), dtype=np.uint32), np.zeros(1, np.uint32))
    keys = FitKeys(7, 0.1, *(device.asarray(a) for a in numbers))
    options = {"room": lambda launch: Room(blocks), "device": device}
    fitted = fit_movies(words, sizes, keys=keys, sigma_floor=FLOOR, **options)
    return parts_of(label_movie(words, fitted, sizes, PHASES, allowed=None, pixel_weights=None, **options), device)[2]


def engine(values, places, config, valid=None):
    streams = stream_words(7, 0.1, np.arange(len(values)), 0, STREAM_START, config.n_components)
    options = {"allowed": None, "streams": streams, "sigma_floor": FLOOR, "pixel_weights": None}
    return GenericEngine(NUMPY64, "").fit_and_label_movie(values, places, valid, SHAPE, config, PHASES, **options)


def test_from_the_samples_alone():
    # Both pooled fits end where a pass gains less than 1e-8 a sample, not at the same point.
    values, places = scene(LINEAR, seed=5)
    device = kernel_device(blocks=64)
    found, wanted = run(pack(values, places), LINEAR, device), engine(values, places, LINEAR)
    np.testing.assert_allclose(found.fit.frames.means, wanted.fit.frames.means, atol=0.02)
    np.testing.assert_allclose(found.posterior, wanted.posterior, atol=2e-3)
    np.testing.assert_allclose(found.expected_mean, wanted.expected_mean, atol=2e-3)
    np.testing.assert_array_equal(found.foreground, wanted.foreground)
    clear = np.abs(wanted.posterior - 0.5) > 2e-3
    np.testing.assert_array_equal(found.labels[clear], wanted.labels[clear])
    assert not on_harness() or device.launches == ["fit", "movie_settle", "movie_label", "movie_past"]


def test_wide_samples_that_are_no_numbers():
    values, places = scene(LINEAR, rows=3, seed=6)
    values = values * 11.5 - 700.25
    values[1, 2, 3] = np.nan
    valid = np.ones(values.shape, bool)
    valid[2, 1, 1] = False
    values[2, 1, 1] = np.nan
    device = kernel_device(blocks=64)
    found = run(pack(values, places, valid, wide=True), LINEAR, device)
    wanted = engine(values, places, LINEAR, valid)
    np.testing.assert_array_equal(found.fit.common.status, wanted.fit.common.status)
    assert found.fit.common.status.tolist() == [0, FitStatus.DEGENERATE, 0]
    np.testing.assert_allclose(found.fit.frames.means, wanted.fit.frames.means, atol=0.2)
    np.testing.assert_allclose(found.posterior[valid], wanted.posterior[valid], atol=2e-3)
    assert not on_harness() or device.launches[0] == "movie_pool"


class Counting(HostDevice):
    """Adds up the memory that is asked for."""

    def filled(self, shape, dtype, fill):
        found = super().filled(shape, dtype, fill)
        self.taken = getattr(self, "taken", 0) + found.nbytes
        return found


@pytest.mark.harness
def test_launches_and_memory_are_as_planned(monkeypatch):
    monkeypatch.setattr(movie_plan, "START_SAMPLES", 400)
    values, places = scene(LINEAR, rows=3, m=181)
    words, device = pack(values, places), Counting(blocks=64)
    sizes, room = sizes_of(words, LINEAR), Room(7)
    start = plan_fit(3, 6 * 67, LINEAR, wide=False).launch
    run(words, LINEAR, device, blocks=7)
    planned = movie_launches(sizes, lambda launch: room, start)
    assert device.launches == [launch.kernel.name for launch in planned]
    plans = [plan(sizes, room) for plan in (plan_settle, plan_labels, plan_past)]
    assert [plan.launch for plan in plans] == planned[-3:]
    assert [(plan.n_teams, plan.team_size) for plan in plans] == [(3, 2)] * 3
    expected = shares_bytes(sizes) + 3 * movie_bytes(sizes) + sum(plan.scratch_bytes for plan in plans)
    assert expected == pytest.approx(device.taken, rel=0.003)


@pytest.mark.harness
def test_plans_keep_within_their_room():
    sizes = MovieSizes(1000, 300, 2621, (512, 512), USUAL, 512 * 512)
    assert (sizes.n_start, sizes.n_fit, sizes.settle_levels, sizes.label_levels) == (110, 437, 2, 3)
    for plan in (plan_settle, plan_labels, plan_past):
        free = plan(sizes, Room(264))
        assert (free.n_teams, free.team_size, free.launch.cooperative) == (264, 1, False)
        tight = plan(sizes, Room(264, free.scratch_bytes // 20))
        assert tight.scratch_bytes <= free.scratch_bytes // 20
        assert tight.launch.blocks == tight.n_teams * tight.team_size <= 264
        assert plan(sizes, Room(264, 1)).n_teams == 1
        few = plan(replace(sizes, n_replicates=10), Room(264))
        assert (few.n_teams, few.team_size) == (10, 26)
        assert few.launch.cooperative
    assert plan_settle(replace(sizes, n_replicates=1, n_frames=30), Room(264)).team_size == 30


@pytest.mark.harness
def test_maps_that_no_index_reaches_are_left_to_arrays():
    assert movie_plan.movie_obstacle((4096, 4096), LARGEST) is None
    assert "20000 x 20000" in movie_plan.movie_obstacle((20000, 20000), USUAL)


@pytest.mark.harness
@pytest.mark.parametrize("sanitize", ["asan", "tsan"])
def test_nothing_is_out_of_bounds_or_raced(sanitize, monkeypatch):
    monkeypatch.setattr(movie_plan, "FIT_SAMPLES", 560)
    monkeypatch.setattr(movie_settle, "MAX_ITER", 2)
    config = MixtureConfig(n_components=2, trend="x")
    values, places = scene(config, n_frames=2, m=290)  # one more than a round of the warps
    valid = np.random.default_rng(8).random(values.shape) > 0.1
    start = start_of(model_of(values, places, config, valid))
    start.status[1] = FitStatus.TOO_FEW
    words = pack(values, places, valid)
    device = kernel_device(sanitize=sanitize, schedule="random:3", blocks=64)
    found = fused(words, config, start, blocks=4, device=device)
    wanted = fused(words, config, start, blocks=1)
    assert all(np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted)
