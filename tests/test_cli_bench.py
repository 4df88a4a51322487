"""`gmrm-gpu bench` and what measures for it: real measurements at toy size, extrapolation against numbers by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import enter, entries, fails, need, ok
from host import build
from host.device import HostDevice

from gmrm_gpu import throughput
from gmrm_gpu.backend import make_backend
from gmrm_gpu.cli import bench
from gmrm_gpu.config import AnalysisConfig, ComputeConfig, CorrectionConfig, MixtureConfig, StudyConfig
from gmrm_gpu.engines import FusedEngine, GenericEngine
from gmrm_gpu.results.throughput import EngineSpec, Speed, StudyPart, Throughput, duration_text
from gmrm_gpu.runner import Runner
from gmrm_gpu.synthetic import simulate
from gmrm_gpu.throughput import Contestant, find_contestants, measure_throughput, study_parts

TOY = ("--size", "40x48x9", "--components", "3", "--trend", "linear", "--radius", "3", "--seconds", "30")
ANALYSIS = AnalysisConfig(MixtureConfig(3, "linear"), correction=CorrectionConfig(radius=3), method="paper")
STUDY = StudyConfig(ANALYSIS, rates=(0.2, 0.1), n_replicates=(2, 3), methods=("paper",))
"""So few replicates that each measurement ends with all of them: what comes out does not depend on the clock."""
CPU, ARRAYS = EngineSpec("cpu", "CPU", "a processor", "NumPy"), EngineSpec("arrays", "GPU, arrays", "a GPU", "CuPy")


def movie():
    return simulate("battery", shape=(40, 48), n_frames=6, seed=2, n_empty=0).movie


def by_hand(**changes):
    """Paper at two rates, the slow engine 2 fits a second; the reference of `arrays` was not measured."""
    speeds = [
        Speed("cpu", "paper", 0.1, 4, 5, 100, seconds=10.0, first_s=1.0),
        Speed("cpu", "paper", 0.01, 8, 5, 10, seconds=4.0, first_s=1.0),
        Speed("cpu", "paper", 1.0, 1, 5, 1000, seconds=20.0, first_s=1.0),
        Speed("arrays", "paper", 0.1, 40, 5, 100, seconds=1.0, first_s=3.0),
        Speed("arrays", "paper", 0.01, 40, 5, 10, seconds=0.5, first_s=3.0),
    ]
    study = (StudyPart("paper", 0.01, 1000), StudyPart("paper", 0.1, 101), StudyPart("paper", 1.0, 1))
    found = Throughput("a movie", (50, 20), 30, "uint8", 5, (CPU, ARRAYS), tuple(speeds), study, read_s=0.1)
    return replace(found, **changes)


def test_speeds_and_study_time_are_what_one_would_compute_by_hand():
    found = by_hand()
    cpu, arrays = found.find("cpu", "paper", 0.1), found.find("arrays", "paper", 0.1)
    assert cpu.fits_per_s == 2
    assert cpu.pixels_per_s == 200
    assert found.speed_up(arrays) == 100
    time = found.study_time("cpu")
    assert time.guessed == ()
    assert time.parts == pytest.approx(
        {("paper", 0.01): 1000 * 30 / 10, ("paper", 0.1): 101 * 30 / 2, ("paper", 1.0): 30 * 4}
    )
    assert time.seconds == pytest.approx(3000 + 1515 + 120 + 30 * 0.1)
    time = found.study_time("arrays")
    assert time.guessed == (("paper", 1.0),)
    assert time.parts["paper", 1.0] == pytest.approx(10 * 30 / 200), "in proportion to the pixels of the nearest rate"
    assert found.study_time("kernels") is None


def test_a_study_runs_a_replicate_more_and_the_reference():
    parts = study_parts(StudyConfig(ANALYSIS, rates=(0.1, 0.01), n_replicates=(100, 1000)))
    assert [(p.method, p.rate, p.n_replicates) for p in parts] == [
        *(("paper", 0.01, 1000), ("paper", 0.1, 101), ("paper", 1.0, 1)),
        *(("movie", 0.01, 50), ("movie", 0.1, 11), ("movie", 1.0, 1)),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.84 s"), (42.4, "42 s"), (378, "6.3 min"), (5040, "84 min"), (7560, "2.1 h"), (276480, "3.2 days")],
)
def test_durations_read_well(seconds, text):
    assert duration_text(seconds) == text


def test_the_cpu_is_measured_at_every_rate():
    found = measure_throughput(movie(), STUDY, seconds=30, contestants=[throughput.contestant(CPU, "cpu", "generic")])
    assert [(s.method, s.rate) for s in found.speeds] == [("paper", 0.1), ("paper", 0.2), ("paper", 1.0)]
    assert found.notes == ()
    for speed in found.speeds:
        assert speed.n_pixels == round(40 * 48 * speed.rate)
        assert speed.n_frames == 6
        assert speed.n_replicates == {0.1: 3, 0.2: 3, 1.0: 1}[speed.rate]
        assert 0 < speed.seconds < 10
    assert found.study_time("cpu").seconds > 0
    assert json.dumps(found.summary())


@pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))
def test_kernels_are_measured_beside_the_cpu():
    backend, device = make_backend(np), HostDevice()
    engine = FusedEngine(GenericEngine(backend, "test"), device, "test")
    kernels = Contestant(
        EngineSpec("kernels", "host harness", "the CPU", "fibers"), lambda m, a: Runner(m, a, backend, engine)
    )
    cpu = throughput.contestant(CPU, "cpu", "generic")
    rates = replace(STUDY, rates=(0.1,), n_replicates=(2,))
    steps = []
    found = measure_throughput(
        movie(), rates, seconds=30, contestants=[cpu, kernels], progress=lambda *step: steps.append(step)
    )
    assert {s.engine for s in found.speeds} == {"cpu", "kernels"}
    assert "fit" in device.launches
    assert math.isfinite(found.speed_up(found.find("kernels", "paper", 0.1)))
    assert steps == [(n, 4) for n in range(1, 5)]


def test_what_cannot_be_measured_is_a_note():
    study = replace(STUDY, rates=(0.2, 0.003), n_replicates=(2, 2))
    found = measure_throughput(movie(), study, seconds=30, contestants=[throughput.contestant(CPU, "cpu", "generic")])
    assert found.find("cpu", "paper", 0.003) is None
    assert len(found.notes) == 1
    assert "at 0.3 %: not measured" in found.notes[0]
    assert ("paper", 0.003) in found.study_time("cpu").guessed


def test_slow_parts_are_left_out(monkeypatch):
    """A clock that knows only the work: a millisecond a pixel."""
    monkeypatch.setattr(
        throughput._Timing,
        "_time",
        lambda self, runner, part, n: 1e-3 * n * len(runner.movie) * runner.sampler(part.rate).capacity,
    )
    cpu = throughput.contestant(CPU, "cpu", "generic")
    found = measure_throughput(movie(), STUDY, seconds=3.0, contestants=[cpu])
    rates = {s.rate: s for s in found.speeds}
    assert set(rates) == {0.1, 0.2}
    assert rates[0.1].pixels_per_s == pytest.approx(1000)
    assert found.notes == ("CPU, paper at 100 %: not measured, it would have taken too long.",)
    assert found.study_time("cpu").parts["paper", 1.0] == pytest.approx(6 * 40 * 48 * 1e-3)


def test_compiling_takes_no_time_from_the_measurements(monkeypatch):
    """A GPU whose first call at each rate takes a minute of a clock that only it moves."""
    now, seen = [0.0], set()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    def clock(self, runner, part, n):
        took = 1e-3 if part.rate in seen else 60.0
        seen.add(part.rate)
        now[0] += took
        return took

    monkeypatch.setattr(throughput._Timing, "_time", clock)
    gpu = throughput.contestant(replace(CPU, key="kernels"), "cpu", "generic")
    found = measure_throughput(movie(), STUDY, seconds=6.0, contestants=[gpu])
    assert [(s.rate, s.first_s, s.seconds) for s in found.speeds] == [(r, 60.0, 1e-3) for r in (0.1, 0.2, 1.0)]


def test_measurements_grow_until_they_fill_their_time(monkeypatch):
    """A machine that takes 1 ms whatever it does, and 1 us a pixel."""
    asked = []

    def clock(self, runner, part, n):
        asked.append(n)
        return 1e-3 + 1e-6 * n * len(runner.movie) * runner.sampler(part.rate).capacity

    monkeypatch.setattr(throughput._Timing, "_time", clock)
    study = replace(STUDY, rates=(0.1,), n_replicates=(10_000,))
    found = measure_throughput(movie(), study, seconds=4.0, contestants=[throughput.contestant(CPU, "cpu", "generic")])
    speed = found.find("cpu", "paper", 0.1)
    assert 1.0 <= speed.seconds <= 2.0, "half to all of the two seconds that each of two measurements has"
    assert speed.pixels_per_s == pytest.approx(1e6, rel=0.01)
    assert len(asked) < 12


def test_every_thread_has_a_block_and_frames_come_from_the_whole_movie(monkeypatch):
    ran = []

    def run(self, rate, replicates, **more):
        ran.append((rate, replicates.tolist(), self.movie.frame_numbers.tolist()))

    monkeypatch.setattr(Runner, "run", run)
    two = replace(ANALYSIS, compute=ComputeConfig(n_threads=2))
    study = StudyConfig(two, rates=(0.2,), n_replicates=(4,), methods=("paper",))
    frames = np.stack([movie().frame(0)] * 60)
    measure_throughput(frames, study, seconds=30, contestants=[throughput.contestant(CPU, "cpu", "generic")])
    sampled = [(replicates, numbers) for rate, replicates, numbers in ran if rate < 1]
    assert sorted(replicates for replicates, _ in sampled[-2:]) == [[0, 1], [2, 3, 4]], "one more for the pictures"
    assert sampled[0][1] == [11, 31, 51]
    assert sampled[-1][1] == [1 + 5 * i // 2 for i in range(24)]


def test_without_a_gpu_one_line_says_so():
    found, notes = find_contestants(movie(), replace(ANALYSIS, compute=ComputeConfig(device="cpu")))
    assert [c.spec.key for c in found] == ["cpu", "compiled"]
    assert notes == ["The CPU alone was asked for, so no GPU was looked for."]


def test_without_numba_one_line_says_how_to_get_it(monkeypatch):
    reason = "Numba is not installed; pip install it"
    monkeypatch.setattr("gmrm_gpu.engines.compiled.device.compiled_obstacle", lambda: reason)
    found, notes = find_contestants(movie(), replace(ANALYSIS, compute=ComputeConfig(device="cpu")))
    assert [c.spec.key for c in found] == ["cpu"]
    assert notes[0].startswith("The compiled functions were not measured: array-API implementation on numpy")
    assert "Numba is not installed; pip install it" in notes[0]


def test_others_are_compared_with_the_better_engine_of_the_cpu():
    found = by_hand()
    both = (CPU, replace(CPU, key="compiled"), ARRAYS)
    fast = [replace(s, engine="compiled", seconds=s.seconds / 8) for s in found.speeds if s.engine == "cpu"]
    better = replace(found, engines=both, speeds=(*found.speeds, *fast))
    speed = found.find("arrays", "paper", 0.1)
    assert (found.cpu, better.cpu) == ("cpu", "compiled")
    assert better.speed_up(speed) == pytest.approx(found.speed_up(speed) / 8)
    assert better.speed_up(better.find("cpu", "paper", 0.1)) == pytest.approx(1 / 8)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(throughput, "probe_gpu", lambda number=0: (False, "CuPy is not installed; pip install it"))


def test_bench_prints_a_table_and_writes_nothing(tmp_path, monkeypatch, capsys, no_gpu):
    enter(tmp_path, monkeypatch)
    before = entries()
    ok("bench", *TOY, "--rates", "0.2,0.1", "--replicates", "2,3", "--method", "paper")
    out = capsys.readouterr().out
    assert entries() == before
    assert "9 frames of 40 x 48" in out
    assert "(paper: 3 at 20 %, 3 at 10 %, all pixels once), extrapolated" in out
    assert "note: No GPU was measured: CuPy is not installed; pip install it." in out
    rows = [line.split() for line in out.splitlines() if line.lstrip().startswith("paper ")]
    assert [row[1] for row in rows] == ["20", "20", "10", "10", "100", "100"]
    assert [row[3] for row in rows] == ["384", "384", "192", "192", "1,920", "1,920"]
    assert ["array" in row for row in rows] == 3 * [True, False]


def test_bench_writes_numbers_and_a_picture(tmp_path, monkeypatch, capsys, no_gpu):
    need("matplotlib", "jinja2")
    enter(tmp_path, monkeypatch)
    ok("bench", "movie.npy", *TOY[2:], "--rates", "0.2", "--replicates", "2", "--out", "speed", "--method", "both")
    assert entries("speed") == ["bench.json", "bench.png", "bench.svg"]
    with open("speed/bench.json", encoding="utf-8") as file:
        found = json.load(file)
    assert {row["method"] for row in found["measured"]} == {"paper", "movie"}
    assert found["extrapolated_study_s"]["cpu"] > 0
    assert found["extrapolated_study_s"]["compiled"] > 0
    assert found["command"].startswith("gmrm-gpu bench movie.npy")
    words = ("--rates", "0.2", "--replicates", "2", "--method", "paper", "--overwrite", "--no-report")
    ok("bench", "movie.npy", *TOY[2:], *words, "--out", "speed")
    assert entries("speed") == ["bench.json"]
    assert "written: speed" in capsys.readouterr().out


def test_bench_refuses_what_contradicts_itself(tmp_path, monkeypatch, capsys):
    enter(tmp_path, monkeypatch)
    fails(capsys, 2, ["bench", "movie.npy", "--size", "40x48x5"], "--size takes the place of MOVIE")
    fails(capsys, 2, ["bench", "--crop", "0:20,:"], "--crop is about reading MOVIE")
    fails(capsys, 2, ["bench", "--seconds", "0"], "--seconds")
    fails(capsys, 2, ["bench", "--seconds", "nan"], "--seconds")


def test_bench_with_a_gpu_that_is_not_there(tmp_path, monkeypatch, capsys, no_gpu):
    enter(tmp_path, monkeypatch)
    fails(capsys, 1, ["bench", *TOY, "--device", "gpu"], "no usable GPU: CuPy is not installed")


def test_the_table_names_the_gain_and_what_was_guessed():
    text = bench.bench_text(by_hand(notes=("A note.",)))
    row = next(line for line in text.splitlines() if "GPU, arrays" in line and " 10 %" in line)
    assert row.split() == [
        *("paper", "10", "%", "100", "GPU,", "arrays", "200", "2e+04", "100", "40", "x", "5", "frames,", "1", "s")
    ]
    assert f"GPU, arrays: {duration_text(by_hand().study_time('arrays').seconds)} (paper at" in text
    assert "(paper at 100 % not measured: in proportion to the pixels)" in text
    assert text.endswith("note: A note.")


@pytest.mark.parametrize("n", [1, 2])
def test_the_picture_shows_every_engine(n):
    need("matplotlib", "jinja2")
    from gmrm_gpu.report.throughput import throughput_figure

    figure = throughput_figure(by_hand(engines=(CPU, ARRAYS)[:n]))
    words = [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]
    assert ("GPU, arrays" in words) == (n == 2)
    assert duration_text(by_hand().study_time("cpu").seconds) in words
    assert any(word.startswith("The whole study of this movie would take about") for word in words)
