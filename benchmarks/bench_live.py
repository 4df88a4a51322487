"""Latency of a frame of a live analysis: vote (r = 5, past frames) and assisted estimate included, 512 x 512 pixels.

A microscope sends a frame every now and then and the fits to the past run in between, beside the frames; so the frames
come at a fixed rate here too. Median and 95th percentile over all frames after the first 16, those that adopt a fit
included; the first 16 wait for their fits.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from common import all_cores

import gmrm_gpu as gg
from gmrm_gpu.config import AnalysisConfig, ComputeConfig, CorrectionConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.live.analysis import LiveAnalysis
from gmrm_gpu.live.refit import AT_ONCE

FPS = 10.0
AIMS_MS = {0.1: 40.0, 0.01: 10.0}


@pytest.fixture
def two_cores(one_core):
    """The analysis on one core, its fits to the past on the other."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    os.sched_setaffinity(0, range(os.cpu_count()))
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    yield
    os.sched_setaffinity(0, cores[:1])


def config_of(rate: float, n_components: int, device: str = "cpu") -> AnalysisConfig:
    """Sub-sampled at `rate`, corrected with r = 5."""
    return AnalysisConfig(
        MixtureConfig(n_components=n_components),
        correction=CorrectionConfig(radius=5.0, gamma=0.05),
        sampling=SamplingConfig(rate=rate),
        compute=ComputeConfig(device=device),
    )


def play(analysis: LiveAnalysis, frames: list[np.ndarray], fps: float) -> np.ndarray:
    """Latencies, ms, of frames that come at `fps`; one that is late comes at once."""
    found, start = [], time.perf_counter()
    for t, frame in enumerate(frames):
        time.sleep(max(0.0, start + t / fps - time.perf_counter()))
        found.append(1e3 * analysis.process(frame).latency_s)
        start = max(start, time.perf_counter() - (t + 1) / fps)
    return np.array(found)


@pytest.mark.parametrize(("rate", "n_components"), [(0.1, 3), (0.1, 4), (0.01, 3), (0.01, 4)])
def test_latency(benchmark, toy, two_cores, rate, n_components):
    """Milliseconds from a frame to its answer; the aims are 40 and 10."""
    side, n_frames = (64, 20) if toy else (512, 200)
    simulation = gg.simulate("battery", shape=(side, side), n_frames=n_frames, difficulty="mid", seed=0)
    frames = [simulation.movie.frame(t) for t in range(n_frames)]
    latencies = []

    def run() -> None:
        analysis = LiveAnalysis((side, side), frames[0].dtype, config_of(rate, n_components))
        latencies.append(play(analysis, frames, 1e6 if toy else FPS)[AT_ONCE:])

    benchmark.pedantic(run, rounds=1)
    steady = latencies[0]
    benchmark.extra_info["device"] = all_cores()
    benchmark.extra_info["latency_median_ms"] = float(np.median(steady))
    benchmark.extra_info["latency_p95_ms"] = float(np.percentile(steady, 95))
    benchmark.extra_info["latency_most_ms"] = float(steady.max())
    benchmark.extra_info["aim_ms"] = AIMS_MS[rate]
