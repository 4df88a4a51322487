"""The live analysis: frame by frame, from the past alone."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import (
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
)
from gmrm_gpu.errors import ConfigError, InputError, OutputError
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.frames.movie import Visits
from gmrm_gpu.live import refit
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


@pytest.fixture
def early_threads(monkeypatch):
    """Fits run beside the analysis, and are adopted later, from the third frame on."""
    monkeypatch.setattr(refit, "AT_ONCE", 2)
    monkeypatch.setattr(refit, "_DELAY", 2)


def test_a_fit_under_way_is_begun_anew_from_a_saved_state(sim, tmp_path, early_threads):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    whole, under_way = live(sim.movie), 0
    for t in range(len(sim.movie)):
        assert same(analysis.process(sim.movie.frame(t)), whole[t]), t
        under_way += analysis.refit is not None
        analysis.save(tmp_path / "state.npz")
        analysis = LiveAnalysis.load(tmp_path / "state.npz")
    assert under_way > 3


def test_what_is_in_the_future_and_how_fast_fits_run_changes_nothing(sim, early_threads):
    slow = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    fit = slow._fit

    def delayed(rows, number):
        time.sleep(0.05)
        return fit(rows, number)

    slow._fit = delayed
    for frame, wanted in zip(range(10), live(sim.movie), strict=False):
        assert same(slow.process(sim.movie.frame(frame)), wanted)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other", "absent", "version"])
def test_a_damaged_state_is_told(sim, tmp_path, damage):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    analysis.process(sim.movie.frame(0))
    path = tmp_path / "state.npz"
    analysis.save(path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "bit":
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        np.savez(path, a=np.zeros(3))
    elif damage == "absent":
        path.unlink()
    else:
        np.savez(path, meta=np.array('{"format": "gmrm-gpu live state", "version": 99}'))
    with pytest.raises(InputError) as told:
        LiveAnalysis.load(path)
    assert "\n" not in str(told.value)
    assert path.name in str(told.value)


def test_a_state_that_cannot_be_written_leaves_the_old_one(sim, tmp_path, monkeypatch):
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH)
    analysis.process(sim.movie.frame(0))
    analysis.save(tmp_path / "state.npz")
    before = (tmp_path / "state.npz").read_bytes()
    analysis.process(sim.movie.frame(1))

    def full(*args, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left"):
        analysis.save(tmp_path / "state.npz")
    assert (tmp_path / "state.npz").read_bytes() == before
    with pytest.raises(OutputError):
        analysis.save(tmp_path / "absent" / "state.npz")


def test_the_state_does_not_grow(sim, tmp_path):
    small = [sim.movie.frame(t)[:24, :24] for t in range(len(sim.movie))]
    analysis = LiveAnalysis((24, 24), np.uint8, replace(TENTH, mixture=MixtureConfig(n_components=2, trend="none")))
    sizes = []
    for t in range(330):
        analysis.process(small[t % len(small)])
        if t > 100 and t % 10 == 9:
            analysis.save(tmp_path / "state.npz")
            sizes.append((tmp_path / "state.npz").stat().st_size)
    # Of 33 to 64 frames some samples are kept, once more of those a fit is under way to.
    assert max(sizes[len(sizes) // 2 :]) < 1.25 * max(sizes[: len(sizes) // 2])
    assert len(analysis.past.kept) <= 64


def test_excluded_pixels_are_neither_sampled_nor_counted(sim):
    valid = np.ones(sim.movie.shape, dtype=bool)
    valid[:, :40] = False
    analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, TENTH, valid=valid)
    for t in range(3):
        found = analysis.process(sim.movie.frame(t))
        assert not found.labels[~valid].any()
        assert found.n_samples == round(0.1 * valid.sum())
        assert found.visited_share == found.n_samples / valid.sum()


@pytest.mark.parametrize("scheme", ["bernoulli", "stratified", "lines"])
def test_every_scheme_is_near_the_truth(sim, scheme):
    found = live(sim.movie, replace(TENTH, sampling=SamplingConfig(rate=0.1, scheme=scheme)))
    share, sd = (np.array([getattr(f, name) for f in found]) for name in ("share", "share_sd"))
    assert (sd > 0).all()
    assert (np.abs(share - sim.truth_share) < 0.01 + 4 * sd).all()
    assert np.abs(share - sim.truth_share).mean() < (0.03 if scheme == "lines" else 0.01)  # 26 segments a frame


def test_named_phases_and_the_estimator_are_as_asked(sim):
    config = replace(
        TENTH,
        phases=PhaseConfig(phases="anode,electrolyte,li"),
        quantity=QuantityConfig(estimator="posterior"),
    )
    found = live(sim.movie, config)[-1]
    assert found.share == found.posterior
    assert np.array_equal(found.foreground, [False, False, True])
    assert set(np.unique(found.labels)) == {0, 1, 2, 3}


# Not so at the frames of `refit.EARLY`, whose fit must find a phase in the very frame in which it comes.
@pytest.mark.parametrize("n_before", [11, 18, 21])  # at the 21st, a fit that was begun earlier is adopted
def test_what_is_expected_of_a_frame_does_not_depend_on_its_own_samples(tmp_path, monkeypatch, n_before):
    movie = gg.simulate("battery", shape=(64, 64), n_frames=24, seed=3).movie
    analysis = LiveAnalysis(movie.shape, movie.dtype, TENTH)
    for t in range(n_before):
        analysis.process(movie.frame(t))
    analysis.save(tmp_path / "s.npz")
    found, real = [], LiveAnalysis._shares

    def note(self, seen, labels, arrived):
        found.append((seen.predicted, seen.predicted_mean, seen.resp))
        return real(self, seen, labels, arrived)

    monkeypatch.setattr(LiveAnalysis, "_shares", note)
    for frame in (movie.frame(n_before), np.roll(movie.frame(n_before), 5, axis=1)):
        LiveAnalysis.load(tmp_path / "s.npz").process(frame)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert (found[0][2] != found[1][2]).mean() > 0.1
