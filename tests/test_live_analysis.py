"""The live analysis: frame by frame, from the past alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import ComputeConfig, CorrectionConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.frames.movie import Visits
from gmrm_gpu.live.analysis import LiveAnalysis
from gmrm_gpu.results import FitStatus
from gmrm_gpu.sampling import Sampler

TENTH = gg.AnalysisConfig(
    MixtureConfig(n_components=3), sampling=SamplingConfig(rate=0.1), compute=ComputeConfig(device="cpu")
)


@pytest.fixture(scope="module")
def sim():
    return gg.simulate("battery", shape=(96, 88), n_frames=16, seed=3)


def live(movie, config=TENTH, frames=None):
    analysis = LiveAnalysis(movie.shape, movie.dtype, config, valid=movie.valid)
    return [analysis.process(movie.frame(t)) for t in frames or range(len(movie))]


@pytest.fixture(scope="module")
def tenth(sim):
    return live(sim.movie)


def test_labels_and_shares_are_near_the_truth(sim, tenth):
    hit = [((f.labels == 2) == (truth == 2))[f.labels > 0].mean() for f, truth in zip(tenth, sim.truth, strict=True)]
    assert np.mean(hit) > 0.99
    share = np.array([f.share for f in tenth])
    assert np.abs(share - sim.truth_share).max() < 0.02
    assert all(f.status.usable for f in tenth)


def test_a_frame_is_sampled_where_analyze_would_sample_it(sim, tenth):
    drawn = Sampler(sim.movie.shape, TENTH.sampling).draw(
        np.array([0]), 5, backend=LiveAnalysis((16, 16), np.uint8).backend
    )
    assert np.array_equal(np.flatnonzero(tenth[5].labels), np.sort(drawn.positions[0]))


def test_visits_give_what_the_same_draw_of_whole_frames_gives(sim, tenth):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    sampler = Sampler(sim.movie.shape, TENTH.sampling)
    for t in range(4):
        places = sampler.draw(np.array([0]), t, backend=analysis.backend).positions[0]
        found = analysis.process(Visits(places, sim.movie.frame(t).reshape(-1)[places]))
        # Summed up in another order.
        assert found.share == pytest.approx(tenth[t].share, abs=1e-4)
        assert (found.labels == tenth[t].labels).mean() > 0.999
        assert found.visited_share == tenth[t].visited_share
        assert np.isfinite(found.picture).sum() == found.n_samples


def test_the_present_frame_changes_nothing_in_the_past(sim, tenth):
    again = live(sim.movie, frames=range(8))
    assert [f.share for f in again] == [f.share for f in tenth[:8]]


@pytest.mark.parametrize(
    "frame",
    [np.zeros((96, 87), np.uint8), np.zeros((96, 88), np.uint16), np.zeros((96, 88), np.float32)],
    ids=["size", "type", "real"],
)
def test_a_frame_unlike_the_others_is_refused_and_leaves_no_trace(sim, tenth, frame):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    for t in range(3):
        analysis.process(sim.movie.frame(t))
        with pytest.raises(InputError):
            analysis.process(frame)
    assert analysis.process(sim.movie.frame(3)).share == tenth[3].share


@pytest.mark.parametrize(
    "config",
    [TENTH.with_method("paper"), gg.AnalysisConfig(correction=CorrectionConfig(window="symmetric"))],
    ids=["paper", "symmetric"],
)
def test_what_needs_the_future_is_refused(config):
    with pytest.raises(ConfigError):
        LiveAnalysis((32, 32), np.uint8, config)


def test_constant_frames_have_a_status_and_no_share():
    found = live(ArrayMovie(np.full((2, 32, 40), 7, np.uint8)))
    assert [f.status for f in found] == [FitStatus.DEGENERATE] * 2
    assert all(np.isnan(f.share) and not f.labels.any() for f in found)


def same(a, b):
    return (
        all(
            np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=True)
            for f in fields(a)
            if f.name not in ("fit", "alarms", "latency_s", "time_s", "labels", "foreground")
        )
        and np.array_equal(a.labels, b.labels)
        and a.alarms == b.alarms
        and np.array_equal(a.fit.means, b.fit.means)
    )


def test_a_stopped_analysis_goes_on_with_the_same_bits(sim, tmp_path):
    config = replace(TENTH, correction=CorrectionConfig(radius=3.0, gamma=0.3))
    whole = live(sim.movie, config)
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, config)
    for t in range(len(sim.movie)):
        assert same(analysis.process(sim.movie.frame(t)), whole[t]), t
        analysis.save(tmp_path / "state.npz")
        analysis = LiveAnalysis.load(tmp_path / "state.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_repeated_visits_are_samples_but_no_new_pixels(sim):
    places = np.sort(np.random.default_rng(0).permutation(96 * 88)[:800]).astype(np.int32)
    twice = np.concatenate([places, places[:400]])
    config = replace(TENTH, correction=CorrectionConfig(radius=3.0, window="past+current"))
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, config)
    for t in range(3):
        found = analysis.process(Visits(twice, sim.movie.frame(t).reshape(-1)[twice]))
        assert (found.n_samples, found.visited_share) == (1200, 800 / (96 * 88))
        assert np.array_equal(np.flatnonzero(found.labels), places)


def test_a_frame_without_visits_has_no_share_and_leaves_no_trace(sim, tenth):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    analysis.process(sim.movie.frame(0))
    found = analysis.process(Visits(np.zeros(0, np.int32), np.zeros(0, np.uint8)), number=77)
    assert (found.status, found.index) == (FitStatus.TOO_FEW, 1)
    assert np.isnan(found.share)
    assert analysis.process(sim.movie.frame(1), number=1).share == tenth[1].share


def test_a_closed_shutter_is_no_part_of_the_movie(sim, tenth):
    dark = np.random.default_rng(0).poisson(3.0, sim.movie.shape).astype(np.uint8)
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    for t in range(len(sim.movie)):
        found = analysis.process(sim.movie.frame(t), number=t)
        assert found.share == tenth[t].share
        if t in (4, 9):
            for shut in (dark, np.zeros_like(dark)):
                found = analysis.process(shut, number=100 + t)
                assert found.status == FitStatus.DEGENERATE
                assert np.isnan(found.share)
                assert not found.labels.any()


def test_a_new_scene_is_learned_after_a_few_frames(sim):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    for t in range(8, 12):
        analysis.process(sim.movie.frame(t))
    found = [analysis.process(255 - sim.movie.frame(t)) for t in range(5, 16)]
    assert [f.status.usable for f in found] == [False] * 5 + [True] * 6
    assert found[-1].fit.means[-1] == pytest.approx(255 - 45, abs=4)
