"""Control charts: planted jumps, steady streams, slow drifts."""

from __future__ import annotations

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import ComputeConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.live.alarms import HISTORY, LEAST_HISTORY, LIMIT, QUIET, ControlCharts, watched
from gmrm_gpu.live.analysis import LiveAnalysis

TERMS = ((1, 0), (2, 1))
CHARTS = watched(TERMS, 2, sigma=10.0)  # two terms, brightness, contrast, two means, likelihood
SCALE = np.array([0.1, 0.2, 0.05, 0.001, 9.0, 9.0, 0.01])


def alarms_of(shifts):
    charts = ControlCharts()
    found = []
    for t, shift in enumerate(shifts):
        found += charts.watch(np.stack([shift, shift]), CHARTS, t, 0.5 * t)
        assert len(charts.history) <= HISTORY
    return found


def noise(n, seed=0):
    return SCALE * np.random.default_rng(seed).standard_normal((n, SCALE.size))


def test_a_steady_stream_raises_next_to_no_alarm():
    # Normal noise, 7 charts of 3,000 frames: beyond 6.5 robust standard deviations of the 60 (first 15) frames before.
    assert len(alarms_of(noise(3000))) <= 1


@pytest.mark.parametrize(("chart", "what"), [(0, "trend"), (2, "contrast"), (3, "contrast"), (5, "mean"), (6, "fit")])
def test_a_planted_jump_is_one_alarm_of_its_frame(chart, what):
    shifts = noise(120, seed=1)
    shifts[80, chart] -= 12 * SCALE[chart]
    shifts[82, chart] += 12 * SCALE[chart]  # and back: the same jump
    (alarm,) = alarms_of(shifts)
    assert (alarm.number, alarm.time_s, alarm.what) == (80, 40.0, what)
    assert alarm.score > LIMIT
    assert alarm.text.startswith("Frame 80: the ")
    assert "for example" in alarm.text


def test_the_text_has_the_size_of_the_jump():
    shifts = noise(60, seed=2) * 0.01
    shifts[50, 3] = -0.07
    (alarm,) = alarms_of(shifts)
    assert "the contrast jumped by -7" in alarm.text
    assert " %" in alarm.text


def test_jumps_of_several_numbers_at_once_are_one_alarm():
    shifts = noise(60, seed=3)
    shifts[50, [0, 2, 3]] += 20 * SCALE[[0, 2, 3]]
    (alarm,) = alarms_of(shifts)
    assert "2 more" in alarm.text


def test_two_jumps_far_apart_are_two_alarms():
    shifts = noise(100, seed=4)
    shifts[[40, 41 + QUIET], 0] += 20 * SCALE[0]
    assert [alarm.number for alarm in alarms_of(shifts)] == [40, 41 + QUIET]


def test_a_frame_that_is_described_better_is_none():
    shifts = noise(60, seed=8)
    shifts[50, 6] += 30 * SCALE[6]
    assert alarms_of(shifts) == []


def test_a_slow_drift_is_none():
    shifts = noise(400, seed=5) + np.linspace(0, 8, 400)[:, None] * SCALE
    assert alarms_of(shifts) == []


def test_nothing_is_said_before_there_is_a_past():
    shifts = noise(LEAST_HISTORY, seed=6)
    shifts[-1] *= 100
    assert alarms_of(shifts) == []


def test_numbers_that_are_missing_are_left_out():
    shifts = noise(100, seed=7)
    shifts[:, 4] = np.nan
    shifts[::2, 5] = np.nan
    shifts[70, 0] += 20 * SCALE[0]
    assert [alarm.number for alarm in alarms_of(shifts)] == [70]


def test_exactly_constant_numbers_raise_none():
    assert alarms_of(np.zeros((100, SCALE.size))) == []


@pytest.fixture(scope="module")
def recorded():
    """Alarms of a recording with one change of contrast by a tenth, and of the same without."""
    found = {}
    config = gg.AnalysisConfig(
        MixtureConfig(n_components=3), sampling=SamplingConfig(rate=0.3), compute=ComputeConfig(device="cpu")
    )
    for n_refocus in (0, 1):
        sim = gg.simulate("battery", shape=(96, 88), n_frames=36, seed=5, n_refocus=n_refocus, gain_step=0.1)
        analysis = LiveAnalysis(sim.movie.shape, sim.movie.dtype, config)
        alarms = [a for t in range(36) for a in analysis.process(sim.movie.frame(t)).alarms]
        found[n_refocus] = sim.parameters["refocus"], alarms
    return found


def test_a_refocused_recording_raises_an_alarm_at_that_frame(recorded):
    refocus, alarms = recorded[1]
    assert [alarm.number for alarm in alarms] == list(refocus)
    assert alarms[0].what in ("contrast", "mean")  # a contrast held back by the past leaves some to the means


def test_a_recording_without_jumps_raises_none(recorded):
    assert recorded[0][1] == []
