"""The method `movie` from frames to curves: shares, intervals, foreground, replicates, awkward movies."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import ESTIMATORS, ComputeConfig, MixtureConfig, PhaseConfig, QuantityConfig, SamplingConfig
from gmrm_gpu.errors import ConfigError, InputError, MemoryBudgetError
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.results import FitStatus, StudyResult
from gmrm_gpu.runner import Runner

THREE = gg.AnalysisConfig(MixtureConfig(n_components=3), compute=ComputeConfig(device="cpu"))


@pytest.fixture(scope="module")
def sim():
    return gg.simulate("battery", shape=(96, 88), n_frames=16, seed=3)


@pytest.fixture(scope="module")
def tenth(sim):
    return gg.analyze(sim.movie, THREE, rate=0.1)


def test_it_is_the_default_of_analyze_and_says_what_it_did(tenth):
    assert gg.AnalysisConfig().method == "movie"
    assert tenth.estimator == "smoothed"
    assert np.array_equal(tenth.share, tenth.smoothed)
    assert "Foreground at grey level 17" in tenth.provenance["foreground"]
    assert (tenth.foreground == [False, False, True]).all()
    assert (tenth.status == FitStatus.CONVERGED).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_near_the_truth(sim, tenth, name):
    # 845 of 8,448 pixels: the counting error alone is 0.013 at a share of 0.2.
    error = getattr(tenth, name) - sim.truth_share
    assert abs(error.mean()) < 0.004
    assert np.sqrt((error**2).mean()) < (0.008 if name in ("assisted", "smoothed") else 0.014)


def test_smoothed_is_narrower_than_assisted_and_that_than_count(tenth):
    width = {name: np.mean(np.diff(tenth.interval(name), axis=0)) for name in ("count", "assisted", "smoothed")}
    # Sixteen frames give little to smooth.
    assert width["smoothed"] < 0.9 * width["assisted"]
    assert width["assisted"] < 0.8 * width["count"]


def test_all_pixels_leave_no_sampling_error(sim):
    full = gg.analyze(sim.movie, THREE)
    assert np.allclose(full.count_sd, 0)
    assert np.allclose(full.smoothed, full.count)
    assert np.abs(full.share - sim.truth_share).max() < 0.004


def test_a_movie_without_foreground_reports_none(sim):
    empty = gg.simulate("battery", shape=(96, 88), n_frames=8, seed=3, n_empty=8)
    result = gg.analyze(empty.movie, THREE, rate=0.05)
    assert result.share.max() < 0.003
    low, high = result.interval()
    assert (low == 0).all()
    assert (high > 0).all()  # none found among 422 samples is not none there


@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_dark_foreground_needs_the_polarity(polarity):
    sim = gg.simulate("nanoparticles", shape=(64, 64), n_frames=8, seed=2, polarity=polarity)
    config = replace(THREE, mixture=MixtureConfig(n_components=2), phases=PhaseConfig(polarity=polarity))
    result = gg.analyze(sim.movie, config, rate=0.2)
    assert np.abs(result.share - sim.truth_share).mean() < 0.01


def test_named_phases_and_the_other_rules(sim):
    named = gg.analyze(sim.movie, replace(THREE, phases=PhaseConfig("anode,liquid,li")), rate=0.1)
    auto = gg.analyze(sim.movie, THREE, rate=0.1)
    assert set(np.unique(named.labels)) == {0, 1, 2, 3}
    assert np.array_equal(named.share, auto.share)


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli", "stratified", "lines"])
def test_schemes(sim, scheme):
    config = replace(THREE, sampling=SamplingConfig(rate=0.1, scheme=scheme))
    result = gg.analyze(sim.movie, config)
    # Segments of 29 pixels: some 29 independent looks at a frame, not 845.
    assert np.abs(result.share - sim.truth_share).mean() < (0.02 if scheme == "lines" else 0.01)
    assert (result.smoothed_sd > 0).all()


def test_curve_is_a_pure_function_of_the_replicate(sim):
    runner = Runner(sim.movie, THREE)
    together = runner.run(0.05, np.arange(3))
    alone = runner.run(0.05, np.array([1]))
    assert np.array_equal(together.smoothed[1:2], alone.smoothed)
    assert np.array_equal(together.smoothed_sd[1:2], alone.smoothed_sd)


def test_a_rate_that_says_nothing_is_refused(sim):
    with pytest.raises(InputError, match="8 samples a frame, which says nothing of a frame; use a rate of at least"):
        gg.analyze(sim.movie, THREE, rate=0.001)
    with pytest.raises(InputError, match="12 samples in all, but the model has 13 parameters"):
        gg.analyze(gg.open_movie(sim.movie, frames="0:6"), THREE, rate=0.0002)


def test_memory_is_refused_before_the_work(sim):
    with pytest.raises(MemoryBudgetError, match="one replicate needs"):
        gg.analyze(sim.movie, replace(THREE, compute=ComputeConfig(memory_bytes=10_000)))


@pytest.mark.parametrize("n_frames", [1, 2])
def test_few_frames(sim, n_frames):
    result = gg.analyze(gg.open_movie(sim.movie, frames=f"10:{10 + n_frames}"), THREE, rate=0.3)
    assert np.abs(result.share - sim.truth_share[10 : 10 + n_frames]).max() < 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["constant", "saturated", "two levels"])
def test_trouble_is_a_status(sim, kind):
    frames = np.stack([sim.movie.frame(t) for t in range(6)]).astype(np.float32)
    if kind == "saturated":
        frames = np.minimum(frames, 100.0)
    elif kind == "two levels":
        frames = np.where(frames > 100, 200.0, 50.0).astype(np.float32) + (np.arange(88) % 2)
    else:
        frames[3:] = 7.0
    result = gg.analyze(ArrayMovie(frames), THREE, rate=0.2)
    usable = result.status < FitStatus.DEGENERATE
    assert np.isfinite(result.share[usable]).all()
    assert np.isnan(result.share[~usable]).all()


def test_excluded_pixels_take_no_part(sim, tmp_path):
    frames = np.stack([sim.movie.frame(t) for t in range(8)])
    mask = np.zeros(frames.shape[1:], bool)
    mask[:20, 50:] = True
    poisoned = np.where(mask, 255, frames).astype(np.uint8)
    clean = gg.analyze(gg.open_movie(frames, exclude=mask), THREE, rate=0.2)
    dirty = gg.analyze(gg.open_movie(poisoned, exclude=mask), THREE, rate=0.2)
    assert np.array_equal(clean.share, dirty.share)


def test_volume_of_revolution_has_an_interval(sim):
    quantity = QuantityConfig(geometry="revolution", axis="x=0", pixel_size_um=0.01)
    config = replace(THREE, quantity=quantity)
    full, tenth = gg.analyze(sim.movie, config), gg.analyze(sim.movie, config, rate=0.1)
    low, high = tenth.quantity_interval
    inside = (low <= full.quantity) & (full.quantity <= high)
    assert inside.mean() > 0.5
    assert np.abs(tenth.quantity - full.quantity).mean() < 0.05 * full.quantity.max()


def test_settings_of_the_other_method_are_refused():
    with pytest.raises(ConfigError, match="smoothed needs --method movie"):
        gg.AnalysisConfig(quantity=QuantityConfig(estimator="smoothed"), method="paper")
    with pytest.raises(ConfigError, match="auto needs --method movie"):
        gg.AnalysisConfig(phases=PhaseConfig("auto"), method="paper")
    both = gg.AnalysisConfig(quantity=QuantityConfig(estimator="smoothed"), phases=PhaseConfig("auto"))
    assert both.with_method("paper").resolved.estimator == "count"
    assert both.with_method("paper").resolved.phases.phases == "brightest"


@pytest.fixture(scope="module")
def study(sim):
    config = gg.StudyConfig(THREE, rates=(0.1, 0.02), n_replicates=(12, 30))
    return gg.run_study(sim.movie, config, truth=sim.truth_share)


def test_study_runs_both_methods_side_by_side(sim, study):
    assert [part.method for part in study.every] == ["paper", "movie"]
    movie = study.others[0]
    assert {rate: share.shape[0] for rate, share in movie.shares.items()} == {0.1: 10, 0.02: 10}
    rows = {(row["method"], row["rate"]): row for row in study.table()}
    assert rows["movie", 0.02]["avg_width"] < 0.5 * rows["paper", 0.02]["avg_width"]
    assert rows["movie", 0.02]["rmse_truth"] < 0.5 * rows["paper", 0.1]["rmse_truth"]


def test_study_does_not_depend_on_the_cut(sim, study, monkeypatch):
    run, calls = Runner.run, []
    monkeypatch.setattr(Runner, "run", lambda self, *args, **more: calls.append(args) or run(self, *args, **more))
    compute = ComputeConfig(device="cpu", memory_bytes=10_000_000, n_threads=1)
    config = gg.StudyConfig(
        replace(THREE, compute=compute), rates=(0.1, 0.02), n_replicates=(12, 10), methods=("movie",)
    )
    alone = gg.run_study(sim.movie, config)
    assert len(calls) > 4  # the reference, its pictures, and each rate in one
    assert np.array_equal(alone.shares[0.02], study.others[0].shares[0.02])
    assert np.array_equal(alone.shares[0.1][:10], study.others[0].shares[0.1])


def test_study_comes_back_from_its_folder(study, tmp_path):
    study.write(tmp_path)
    back = StudyResult.load(tmp_path)
    for mine, theirs in zip(study.every, back.every, strict=True):
        assert mine.method == theirs.method
        assert all(np.array_equal(mine.shares[rate], theirs.shares[rate]) for rate in mine.rates)
    assert back.table() == study.table()


def test_intervals_hold_the_full_sample_about_as_often_as_they_say(sim):
    """Eight draws of sixteen frames: 80 % intervals, within what so few can show (seed 3)."""
    full = gg.analyze(sim.movie, THREE).count
    curves = Runner(sim.movie, THREE).run(0.05, np.arange(8))
    z = (curves.assisted - full) / curves.assisted_sd
    assert 0.7 < (np.abs(z) < 1.2816).mean() < 0.93


def test_notices_nothing_to_warn_about(sim):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gg.analyze(sim.movie, THREE, rate=0.1).provenance["warnings"] == []
