"""The replicate study: the shape of Table 1, independence of the cut, memory, saving and loading."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.config import ComputeConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.errors import InputError
from gmrm_gpu.pipeline import analyze
from gmrm_gpu.results import StudyResult
from gmrm_gpu.runner import Runner
from gmrm_gpu.study import run_study
from gmrm_gpu.study.plan import plan_blocks, threads_within
from gmrm_gpu.synthetic import simulate

# The method of the paper; tests/test_movie_method.py has the other.
AnalysisConfig = partial(gg.AnalysisConfig, method="paper")
StudyConfig = partial(gg.StudyConfig, methods=("paper",))
THREE = MixtureConfig(n_components=3)


@pytest.fixture(scope="module")
def sim():
    return simulate("battery", shape=(61, 53), n_frames=6, seed=1)


def small(**compute):
    analysis = AnalysisConfig(THREE, sampling=SamplingConfig(seed=5), compute=ComputeConfig(**compute))
    return StudyConfig(analysis, rates=(0.1, 0.05), n_replicates=(7, 20))


@pytest.fixture(scope="module")
def result(sim):
    return run_study(sim.movie, small(), truth=sim.truth_share)


def test_shapes(sim, result):
    assert result.rates == (0.1, 0.05)
    assert result.shares[0.1].shape == (7, 6)
    assert result.shares[0.05].shape == (20, 6)
    assert result.reference.shape == (6,)
    assert len(np.unique(result.shares[0.05], axis=0)) == 20


def test_reference_is_the_analysis_of_all_pixels(sim, result):
    alone = analyze(sim.movie, small().analysis)
    assert np.array_equal(result.reference, alone.volume_share)


def test_replicate_zero_is_the_analysis_at_that_rate(sim, result):
    alone = analyze(sim.movie, small().analysis, rate=0.1)
    assert np.array_equal(result.shares[0.1][0], alone.volume_share)


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli", "stratified", "lines"])
def test_answer_does_not_depend_on_the_cut(scheme, monkeypatch):
    run, sizes = Runner.run, []
    monkeypatch.setattr(Runner, "run", lambda self, rate, r, **more: sizes.append(len(r)) or run(self, rate, r, **more))
    sim = simulate("battery", shape=(61, 53), n_frames=3, seed=1)
    seen, blocks = [], []
    for memory, workers in ((None, 2), (1_200_000, 1), (700_000, 1)):
        analysis = AnalysisConfig(
            MixtureConfig(n_components=2, trend="linear"),
            sampling=SamplingConfig(scheme=scheme),
            compute=ComputeConfig(memory_bytes=memory, n_threads=workers, engine="generic"),
        )
        study = run_study(sim.movie, StudyConfig(analysis, rates=(0.1, 0.05), n_replicates=(9, 27)))
        seen.append(np.concatenate([study.shares[r].ravel() for r in study.rates]))
        blocks.append(len(sizes))
        sizes.clear()
    assert blocks[0] < blocks[1] < blocks[2]
    assert np.array_equal(seen[0], seen[1], equal_nan=True)
    assert np.array_equal(seen[0], seen[2], equal_nan=True)


def test_blocks_cover_every_replicate_once_and_fit_the_budget(sim):
    config = small()
    runner = Runner(sim.movie, config.analysis)
    budget = 3 * runner.bytes_per_replicate(0.1)
    blocks = plan_blocks(runner, config, budget, 1)
    for rate, total in zip(config.rates, config.n_replicates, strict=True):
        mine = [block for block in blocks if block.rate == rate]
        assert np.array_equal(np.concatenate([block.replicates for block in mine]), np.arange(total))
        assert max(block.stop - block.start for block in mine) * runner.bytes_per_replicate(rate) <= budget


def test_highest_rate_comes_first_whatever_the_order(sim):
    config = replace(small(), rates=(0.05, 0.1), n_replicates=(3, 2))
    blocks = plan_blocks(Runner(sim.movie, config.analysis), config, 2**30, 1)
    assert [block.rate for block in blocks] == [0.1, 0.05]


def test_workers_leave_room_for_a_replicate_each(sim):
    config = small(n_threads=4, engine="generic")
    runner = Runner(sim.movie, config.analysis)
    each = runner.bytes_per_replicate(max(config.rates))
    assert [threads_within(runner, config, b) for b in (10 * each, 3 * each, each, each // 2)] == [4, 3, 1, 1]


def test_table_against_plain_numpy(sim, result):
    row = result.table()[1]
    values = result.shares[0.05] * result.scale.factor
    reference = result.reference * result.scale.factor
    assert row["avg_bias"] == pytest.approx((values.mean(axis=0) - reference).mean())
    assert row["avg_width"] == pytest.approx(
        (np.percentile(values, 90, axis=0) - np.percentile(values, 10, axis=0)).mean()
    )
    truth = sim.truth_share * result.scale.factor
    assert row["avg_bias_truth"] == pytest.approx((values.mean(axis=0) - truth).mean())
    assert row["rmse_truth"] == pytest.approx(np.sqrt(((values - truth) ** 2).mean()))


def test_failed_replicates_are_left_out_and_counted(sim, result):
    shares = {rate: values.copy() for rate, values in result.shares.items()}
    shares[0.1][2, 3] = np.nan
    broken = StudyResult(**{**result.__dict__, "shares": shares})
    row = broken.table()[0]
    assert row["n_failed"] == 1
    assert np.isfinite(row["avg_bias"])
    mean = broken.curves(0.1)["mean"][3] / result.scale.factor
    assert mean == pytest.approx(np.delete(result.shares[0.1][:, 3], 2).mean())


def test_saved_study_loads_unchanged(result, tmp_path):
    result.write(tmp_path)
    names = {"study.json", "replicates.npz", "curves.csv", "table1.csv", "examples.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    again = StudyResult.load(tmp_path)
    assert again.config == result.config
    assert again.scale == result.scale
    assert again.movie == result.movie
    for rate in result.rates:
        assert np.array_equal(again.shares[rate], result.shares[rate])
    assert np.array_equal(again.examples.labels, result.examples.labels)
    with np.load(tmp_path / "replicates.npz") as file:
        assert file["share_0.05"].shape == (20, 6)
        assert file["share_reference"].shape == (6,)
    meta = json.loads((tmp_path / "study.json").read_text())
    assert meta["provenance"]["seed"] == 5
    header = (tmp_path / "curves.csv").read_text().splitlines()[0]
    assert header == "rate,frame,time_s,reference,mean,p10,p50,p90,unit,truth"
    header = (tmp_path / "table1.csv").read_text().splitlines()[0]
    assert header.startswith("method,rate,n_replicates,avg_bias,avg_width,unit")
    assert "avg_bias_truth,rmse_truth" in header


def test_load_refuses_what_is_no_study(tmp_path):
    with pytest.raises(InputError, match="not a finished study"):
        StudyResult.load(tmp_path)


def test_truth_of_the_wrong_length(sim):
    with pytest.raises(InputError, match="the movie has 6 frames"):
        run_study(sim.movie, small(), truth=np.zeros(4))


def test_a_failure_in_one_block_stops_the_study(sim, monkeypatch):
    original = Runner.run

    def fail(self, rate, replicates, **keywords):
        if rate == 0.05:
            raise InputError("the disk is gone")
        return original(self, rate, replicates, **keywords)

    monkeypatch.setattr(Runner, "run", fail)
    with pytest.raises(InputError, match="the disk is gone"):
        run_study(sim.movie, small())


def test_progress_is_monotone_and_complete(sim):
    seen = []
    run_study(sim.movie, small(), progress=lambda done, total: seen.append((done, total)))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1][1]


def test_bias_and_width_grow_as_the_rate_falls():
    # The shape of the paper's Table 1, with its correction (r = 10, gamma = 0.4), `brightest`, its trend, and as many
    # components as there are phases. Seeds and replicates fixed; each step has to be a third, far above its error.
    sim = simulate("battery", shape=(160, 160), n_frames=14, seed=1, difficulty="mid", n_empty=0)
    study = run_study(sim.movie, StudyConfig(AnalysisConfig(THREE), n_replicates=(8, 16, 60)), truth=sim.truth_share)
    rows = study.table()
    bias, width = ([row[name] for row in rows] for name in ("avg_bias", "avg_width"))
    print(bias, width)
    assert width[2] > 1.3 * width[1] > 1.3 * width[0]
    assert bias[2] > bias[1] > bias[0]


LIMITED = """
import sys
import numpy as np
from gmrm_gpu.config import AnalysisConfig, ComputeConfig, MixtureConfig, StudyConfig
from gmrm_gpu.frames import open_movie
from gmrm_gpu.study import run_study

def peak():  # KiB; ru_maxrss would count what the parent took before this program began
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def run(movie, n_bytes):
    # Three passes a fit: this is about memory.
    mixture = MixtureConfig(n_components=2, trend="linear", max_iter=3, starts=("quantile",))
    analysis = AnalysisConfig(mixture, compute=ComputeConfig(memory_bytes=n_bytes, n_threads=1))
    run_study(movie, StudyConfig(analysis, rates=(0.01,), n_replicates=(4,), methods=("paper",)))

movie = open_movie(sys.argv[1])
run(open_movie(movie, frames="0:2"), 2**28)  # warm up
before = peak()
run(movie, int(sys.argv[2]))
print(peak() - before)
"""


def test_a_movie_larger_than_the_budget_is_studied_within_it(tmp_path):
    # Compressed pages are read one by one; a memory-mapped file would count as used memory, an npz is read whole.
    tifffile = pytest.importorskip("tifffile", reason="the movie is a TIFF file: pip install 'gmrm-gpu[tiff]'")
    n_frames, side, budget = 400, 128, 8_000_000
    rng = np.random.default_rng(1)
    base = np.where(np.hypot(*(np.indices((side, side)) - 64)) < 30, 160, 60)
    movie = np.stack([base + rng.integers(-20, 20, base.shape) for _ in range(n_frames)]).astype(np.uint16)
    assert movie.nbytes > 1.5 * budget
    tifffile.imwrite(tmp_path / "movie.tif", movie, compression="zlib", photometric="minisblack")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "movie.tif"), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # The interpreter's own growth is in it too; the movie alone would take more.
    assert int(done.stdout.split()[-1]) * 1024 < 1.5 * budget
