"""One movie analysed: shares against the truth, statuses instead of exceptions, clear refusals."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import (
    SCHEMES,
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
    StudyConfig,
)
from gmrm_gpu.errors import ConfigError, InputError, MemoryBudgetError
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.frames.cache import CachedMovie
from gmrm_gpu.pipeline import analyze, fit_frames
from gmrm_gpu.results import FitStatus
from gmrm_gpu.runner import Runner
from gmrm_gpu.survey import survey_movie
from gmrm_gpu.synthetic import simulate

# The method of the paper; tests/test_movie_method.py has the other.
AnalysisConfig = partial(gg.AnalysisConfig, method="paper")
# A quadratic trend swallows part of the Li of this small movie: there the likelihood optimum itself is wrong.
THREE = MixtureConfig(n_components=3, trend="linear")
GENTLE = CorrectionConfig(radius=3, gamma=0.2, window="symmetric")


@pytest.fixture(scope="module")
def sim():
    return simulate("battery", shape=(72, 80), n_frames=9, seed=4, n_empty=0)


@pytest.fixture(scope="module")
def full(sim):
    return analyze(sim.movie, AnalysisConfig(mixture=THREE, correction=GENTLE))


def test_shares_follow_the_truth(sim, full):
    # From the second frame on: in the first there is hardly any Li, and `brightest` calls something Li all the same.
    error = np.abs(full.share_raw - sim.truth_share)[1:]
    assert error.max() < 0.02
    assert np.corrcoef(full.share[1:], sim.truth_share[1:])[0, 1] > 0.99
    assert np.abs(full.posterior - full.share_raw)[1:].max() < 0.02


def test_labels_are_those_counted(sim, full):
    assert full.labels.shape == sim.truth.shape
    assert set(np.unique(full.labels)) <= {1, 2}
    assert np.allclose((full.labels == 2).mean(axis=(1, 2)), full.share)
    # The electrode is never called Li once there is Li to be found.
    peak = int(np.argmax(sim.truth_share))
    assert (full.labels[peak][sim.truth[peak] == 1] == 2).mean() < 0.01


def test_result_carries_units_and_calibration(sim, full):
    side = sim.movie.pixel_size_um
    assert np.allclose(full.area_px, full.share * 72 * 80)
    assert np.allclose(full.area_um2, full.area_px * side**2)
    assert full.volume_um3 is None
    assert full.scale.unit == "um2"
    assert np.allclose(full.time_s, np.arange(9) * sim.movie.frame_time_s)
    thick = analyze(sim.movie, AnalysisConfig(THREE, quantity=QuantityConfig(thickness_um=0.5)))
    assert np.allclose(thick.volume_um3, thick.area_um2 * 0.5)
    bare = analyze(np.array([sim.movie.frame(5)]), AnalysisConfig(THREE))
    assert bare.area_um2 is None
    assert bare.time_s is None
    assert bare.scale.unit == "px"


def test_volume_of_revolution_is_summed_over_labels(sim):
    quantity = QuantityConfig(geometry="revolution", axis="y=35.5", wedge_fraction=0.5, pixel_size_um=0.02)
    result = analyze(sim.movie, AnalysisConfig(THREE, correction=GENTLE, quantity=quantity))
    rows = np.abs(np.arange(72) - 35.5) * 0.02
    ring = 2 * np.pi * 0.5 * rows[:, None] * 0.02**2
    expected = ((result.labels == 2) * ring).sum(axis=(1, 2))
    assert np.allclose(result.volume_um3, expected)
    assert result.scale.unit == "um3"


def test_sub_sampling_visits_what_was_asked(sim):
    config = AnalysisConfig(THREE, correction=GENTLE, sampling=SamplingConfig(seed=8))
    result = analyze(sim.movie, config, rate=0.2)
    assert (result.n_samples == 1152).all()
    assert ((result.labels > 0).sum(axis=(1, 2)) == 1152).all()
    again = analyze(sim.movie, config, rate=0.2)
    assert np.array_equal(result.share, again.share)
    other = analyze(sim.movie, replace(config, sampling=SamplingConfig(seed=9)), rate=0.2)
    assert not np.array_equal(result.labels, other.labels)


def test_masks_follow_the_frame_number_not_the_selection(sim):
    config = AnalysisConfig(THREE, correction=CorrectionConfig(radius=0))
    whole = analyze(sim.movie, config, rate=0.2)
    part = analyze(gg.open_movie(sim.movie, frames="4:7"), config, rate=0.2)
    assert np.array_equal(part.frame, [4, 5, 6])
    assert np.array_equal(part.labels, whole.labels[4:7])


def test_excluded_pixels_are_neither_seen_nor_counted(sim):
    mask = np.zeros((72, 80), dtype=bool)
    mask[:, :30] = True
    movie = gg.open_movie(sim.movie, exclude=mask)
    for rate in (1.0, 0.3):
        result = analyze(movie, AnalysisConfig(THREE, correction=GENTLE), rate=rate)
        assert (result.labels[:, :, :30] == 0).all()
        assert result.scale.n_pixels == 72 * 50
    poisoned = np.stack([np.where(mask, 255, sim.movie.frame(t)) for t in range(9)])
    clean = analyze(movie, AnalysisConfig(THREE, correction=GENTLE))
    dirty = analyze(gg.open_movie(poisoned, exclude=mask), AnalysisConfig(THREE, correction=GENTLE))
    assert np.array_equal(clean.share, dirty.share)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_excluded_pixels_may_be_nan(sim, scheme):
    """A stratified block or a line may fall on an excluded pixel, which is then no sample."""
    valid = np.ones((72, 80), dtype=bool)
    valid[5:9, 10:30] = False
    stack = np.stack([sim.movie.frame(t) for t in range(2)]).astype(np.float32)
    config = AnalysisConfig(THREE, sampling=SamplingConfig(rate=0.3, scheme=scheme))
    movies = [ArrayMovie(s, valid=valid) for s in (stack, np.where(valid, stack, np.nan))]
    expected, result = (analyze(movie, config) for movie in movies)
    assert np.isfinite(result.share).all()
    np.testing.assert_array_equal(result.share, expected.share)


def test_posterior_estimator(sim):
    config = AnalysisConfig(THREE, quantity=QuantityConfig(estimator="posterior"))
    result = analyze(sim.movie, config)
    assert np.array_equal(result.share, result.posterior)


def test_one_bad_frame_is_a_status_and_no_neighbour(sim):
    frames = np.stack([sim.movie.frame(t) for t in range(9)])
    frames[4] = 77
    result = analyze(frames, AnalysisConfig(THREE, correction=GENTLE))
    assert result.status[4] == FitStatus.DEGENERATE
    assert np.isnan(result.share[4])
    assert (result.labels[4] == 0).all()
    assert np.isfinite(np.delete(result.share, 4)).all()


def test_named_phases_are_merged(sim):
    phases = PhaseConfig("anode,electrolyte,electrolyte,li")
    result = analyze(sim.movie, AnalysisConfig(MixtureConfig(n_components=4, trend="linear"), phases, GENTLE))
    assert result.examples.phase_names == ("anode", "electrolyte", "li")
    assert set(np.unique(result.labels)) == {1, 2, 3}
    peak = int(np.argmax(sim.truth_share))
    anode = result.labels[peak] == 1
    assert (sim.truth[peak][anode] == 1).mean() > 0.98


def test_separated_finds_nothing_where_there_is_nothing():
    empty = simulate("battery", shape=(72, 80), n_frames=3, seed=4, n_empty=3)
    phases = PhaseConfig("separated")
    result = analyze(empty.movie, AnalysisConfig(THREE, phases, CorrectionConfig(radius=0)))
    assert empty.truth_share.max() == 0
    assert result.share_raw.max() < 0.003
    plain = analyze(empty.movie, AnalysisConfig(THREE, correction=CorrectionConfig(radius=0)))
    assert plain.share_raw.max() > 0.05  # what METHOD.md 5 warns of


def test_fit_frames_returns_every_fit(sim):
    fits = fit_frames(sim.movie, AnalysisConfig(THREE), frames="2:6")
    assert fits.means.shape == (4, 3)
    assert (np.diff(fits.means, axis=1) > 0).all()
    surface, (a, b) = fits[0].trend((72, 80)), fits.coef[0]  # linear: a x + b y on coordinates from -1 to 1
    assert surface.shape == (72, 80)
    assert surface[0, 0] == pytest.approx(-a - b)
    assert surface[71, 0] == pytest.approx(b - a)


def test_float_and_16_bit_movies_agree_with_8_bit(sim, full):
    frames = np.stack([sim.movie.frame(t) for t in range(9)])
    for movie in (frames.astype(np.float32), frames.astype(np.uint16) * 257, frames.astype(">f8")):
        result = analyze(movie, AnalysisConfig(THREE, correction=GENTLE))
        assert np.abs(result.share - full.share).max() < 2e-3


def test_to_xarray(full):
    pytest.importorskip("xarray")
    data = full.to_xarray()
    assert data["share"].dims == ("time_s",)
    assert data["labels"].shape == full.labels.shape


def test_progress_ends_at_its_total(sim):
    seen = []
    analyze(sim.movie, AnalysisConfig(THREE), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 9) for i in range(9)]


@pytest.mark.parametrize(
    ("movie", "config", "words"),
    [
        (np.tile([[[10, 200]]], (2, 30, 20)).astype(np.uint8), AnalysisConfig(THREE), "2 distinct grey levels"),
        (np.arange(3 * 40, dtype=np.uint8).reshape(3, 20, 2), AnalysisConfig(), "too small for a trend"),
        (
            ArrayMovie(np.arange(80, dtype=np.uint8).reshape(1, 20, 4), valid=np.ones((20, 1)) * [1, 1, 0, 0]),
            AnalysisConfig(),
            "20 x 2 usable rows and columns are too small for a trend",
        ),
        (np.arange(2 * 9, dtype=np.uint8).reshape(2, 3, 3), AnalysisConfig(THREE), "usable pixels"),
        (np.zeros((0, 9, 9), np.uint8), AnalysisConfig(THREE), "no frames"),
    ],
)
def test_impossible_movies_are_refused(movie, config, words):
    with pytest.raises(InputError, match=words):
        analyze(movie, config)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixtureConfig(n_components=2.5), "n_components is 2.5; it must be a whole number"),
        (lambda: MixtureConfig(max_iter=10.5), "max_iter"),
        (lambda: SamplingConfig(seed=1.5), "seed"),
        (lambda: ComputeConfig(n_threads=1.5), "n_threads"),
        (lambda: StudyConfig(rates=(0.1,), n_replicates=(1.5,)), "n_replicates"),
        (lambda: MixtureConfig(trend=((1,),)), "trend is"),
        (lambda: MixtureConfig(trend=((1.5, 0),)), "trend is"),
        (lambda: MixtureConfig(trend=5), "trend is 5"),
        (lambda: MixtureConfig(trend=((0, 5),)), "outside"),
        (lambda: QuantityConfig(axis="x=1.2.3"), "must look like"),
        (lambda: QuantityConfig(axis="x=."), "must look like"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_too_few_samples_are_refused_with_the_rate_that_would_do(sim):
    with pytest.raises(InputError, match="rate of at least 0\\.0019"):
        analyze(sim.movie, AnalysisConfig(THREE), rate=0.001)


def test_warnings_come_with_the_result(sim):
    few = analyze(sim.movie, AnalysisConfig(THREE), rate=0.005)  # 29 samples for 10 parameters
    assert few.n_samples[0] == 29
    assert "29 samples for 10 parameters" in few.provenance["warnings"][0]
    quantity = QuantityConfig(geometry="revolution", axis="x=80", pixel_size_um=0.01)
    outside = analyze(sim.movie, AnalysisConfig(THREE, quantity=quantity))
    assert "outside the frame (x from 0 to 79)" in outside.provenance["warnings"][0]
    assert analyze(sim.movie, AnalysisConfig(THREE)).provenance["warnings"] == []


def test_hot_pixels_are_warned_of_and_can_be_clipped(sim):
    frames = np.stack([sim.movie.frame(t) for t in range(9)]).astype(np.uint16)
    frames[:, 10, 10] = 65535
    config = AnalysisConfig(THREE, correction=CorrectionConfig(radius=0))
    spoiled = analyze(frames, config)
    assert "--clip" in spoiled.provenance["warnings"][0]
    assert "65535" in spoiled.provenance["warnings"][0]
    clean = analyze(sim.movie, config)
    mended = analyze(gg.open_movie(frames, clip="10,250"), config)
    assert mended.provenance["warnings"] == []
    # The first frame holds hardly any Li, and one pixel more decides what `brightest` calls foreground there.
    assert np.abs(mended.share - clean.share)[1:].max() < 2e-3
    assert np.nanmax(np.abs(spoiled.share - clean.share)[1:]) > 0.05


def test_a_blank_first_frame_does_not_set_the_floor_of_a_real_movie(sim):
    frames = np.stack([sim.movie.frame(t) for t in range(9)]).astype(np.float32)
    floor = survey_movie(ArrayMovie(frames)).sigma_floor
    frames[0] = 3.5
    assert survey_movie(ArrayMovie(frames)).sigma_floor == pytest.approx(floor, rel=0.3)
    assert 0.01 < floor < 0.1


def test_memory_budget_too_small_for_one_replicate(sim):
    with pytest.raises(MemoryBudgetError, match="one replicate needs"):
        analyze(sim.movie, AnalysisConfig(THREE, compute=ComputeConfig(memory_bytes=1000)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("k", "trend", "radius", "window"),
    [
        (4, "quadratic+electrode", 1, "past"),
        (6, "none", 1, "past"),
        (2, "x4,y4,x3y,x2y2,xy3,x3,y3", 1, "past"),
        (3, "linear", 20, "symmetric"),
        (3, "linear", 40, "past"),
    ],
)
def test_memory_estimate_is_from_above(sim, k, trend, radius, window, dtype):
    """What NumPy takes, ten megabytes of look-ups and cache-sized groups aside; a ring is no longer than the movie."""
    mixture = MixtureConfig(k, trend, max_iter=12, n_start_iter=3, tol=1e-4)
    correction = CorrectionConfig(radius=radius, window=window)
    runner = Runner(sim.movie, AnalysisConfig(mixture, correction=correction, compute=ComputeConfig(dtype=dtype)))
    for rate, n in ((1.0, 1), (0.5, 24)):
        estimate = n * runner.bytes_per_replicate(rate)
        tracemalloc.start()
        runner.run(rate, np.arange(n))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < estimate + 10e6
        assert estimate < 3 * peak + 10e6


def test_nothing_waits_for_the_garbage_collector(sim):
    """A reference cycle would keep a block's arrays, and the memory budget knows nothing of them."""
    runner = Runner(sim.movie, AnalysisConfig(THREE, correction=GENTLE))
    gc.collect()
    gc.disable()
    try:
        runner.run(0.2, np.arange(3))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_revolution_needs_a_pixel_size(sim):
    frames = np.stack([sim.movie.frame(t) for t in range(2)])
    with pytest.raises(ConfigError, match="--pixel-size"):
        analyze(frames, AnalysisConfig(THREE, quantity=QuantityConfig(geometry="revolution")))


def test_gpu_is_refused_with_a_reason_or_used(sim):
    from gmrm_gpu.backend import probe_gpu
    from gmrm_gpu.errors import DeviceError

    config = AnalysisConfig(THREE, compute=ComputeConfig(device="gpu"))
    if probe_gpu()[0]:
        assert Runner(sim.movie, config).backend.name == "cupy"
    else:
        with pytest.raises(DeviceError, match="no usable GPU"):
            Runner(sim.movie, config)


def test_cached_movie_keeps_what_fits_and_reads_the_rest():
    reads = []

    class Counting(ArrayMovie):
        def frame(self, t):
            reads.append(t)
            return super().frame(t)

    cached = CachedMovie(Counting(np.arange(4 * 30, dtype=np.uint8).reshape(4, 5, 6)), 2 * 30)
    for _ in range(3):
        for t in range(4):
            assert cached.frame(t)[0, 0] == t * 30
    assert reads.count(0) == reads.count(1) == 1
    assert reads.count(2) == reads.count(3) == 3
