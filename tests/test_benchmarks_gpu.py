"""`python -m benchmarks.gpu` without a GPU: the whole program on the CPU harness, which is never taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from host import build
from host.device import HostDevice

from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import ComputeConfig
from gmrm_gpu.engines.device import count_gpus
from gmrm_gpu.errors import DeviceError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from benchmarks.gpu import __main__ as program  # noqa: E402
from benchmarks.gpu import floor, rig, stages, study, suite  # noqa: E402
from benchmarks.gpu.check import CheckError, check_against_generic, same_bits  # noqa: E402
from benchmarks.gpu.rig import CudaClock, HostClock, Rig, WatchedDevice  # noqa: E402
from benchmarks.gpu.sizes import FULL, QUICK, TOY, growing_movie  # noqa: E402

sys.path.remove(str(ROOT))

needs_compiler = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))
NUMPY = make_backend(np)


def harness(device=None, **more) -> Rig:
    return Rig({"device": "host harness"}, NUMPY, device or HostDevice(), HostClock(), **more)


def run(capsys, *words, **options) -> tuple[int, str, str]:
    code = program.main([*words], **{"sizes": TOY, **options})
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@needs_compiler
def test_the_whole_program_runs_and_keeps_nothing_of_the_harness(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "RESULTS", tmp_path / "gpu.jsonl")
    code, out, err = run(
        capsys, "--budget-s", "100", "--results", str(tmp_path / "x"), open_rig=lambda n: harness(user_device="cpu")
    )
    assert (code, err) == (0, "")
    assert out.startswith("device host harness\n")
    assert "the same bits each time: yes" in out
    assert "bit_equal NO" not in out
    assert "NOT AS PLANNED" not in out
    for part in (
        "check:",
        "study ",
        "fit kernel",
        "eager",
        "cpu",
        "full frames",
        "cost against",
        "movie method",
        "run_study",
    ):
        assert part in out, part
    assert out.endswith("this is no GPU, so nothing is kept\n")
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_one_line_tells_why_and_what_to_install(capsys, monkeypatch, tmp_path):
    reason = "CuPy is not installed; pip install 'gmrm-gpu[cuda13]' (or cuda12, to match the driver)"
    monkeypatch.setattr(rig, "probe_gpu", lambda number: (False, reason))
    results = tmp_path / "gpu.jsonl"
    code, out, err = run(capsys, "--results", str(results))
    assert (code, out) == (3, "")
    assert err == f"benchmarks.gpu: no usable GPU: {reason}; nothing was measured\n"
    assert not results.exists()


@needs_compiler
def test_rows_of_a_gpu_are_kept_as_they_come(capsys, monkeypatch, tmp_path):
    """A harness that claims to be a GPU; one part fails, and all others are kept."""
    monkeypatch.setattr(suite, "measure_eager", lambda *args: 1 / 0)
    for name in ("measure_cpu", "measure_movie_method", "measure_movie_eager", "measure_full_frames", "measure_growth"):
        monkeypatch.setattr(suite, name, lambda *args: [])
    results = tmp_path / "gpu.jsonl"
    claim = harness(publish=True, multiprocessors=132, clock_hz=1.98e9)
    code, out, err = run(capsys, "--results", str(results), open_rig=lambda n: claim)
    assert code == 1
    assert "failed: eager" in err
    assert f"appended to {results}" in out
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    assert [row["what"] for row in rows] == [
        *("check", "first use", "study", "study", "study", "cut", "fit", "fit", "eager", "summary")
    ]
    for row in rows:
        assert {"device", "commit", "processor", "python", "date", "what"} <= set(row)
    assert rows[8]["note"] == "failed: ZeroDivisionError: division by zero"
    whole = rows[4]
    assert whole["launches"] == whole["launches_planned"] == 10
    assert whole["bit_equal"]
    fit = rows[6]
    # 161 instructions over 128 issue slots of 132 multiprocessors at 1.98 GHz, three components: in picoseconds.
    assert fit["floor_ps_computed"] == pytest.approx(161 / (128 * 132 * 1.98e9) / 3 * 1e12, rel=1e-3)
    assert fit["instructions_from"] == "the design's prototype"
    expected = fit["fit_s"] * 1e12 / 3 / (fit["pixel_passes"] + fit["pixel_passes_of_starts"])
    assert fit["ps_per_pixel_component_pass"] == pytest.approx(expected, rel=1e-3)


@needs_compiler
def test_launches_of_several_blocks_are_as_planned():
    movie = growing_movie(40, 5)
    whole, _ = study.fused_runner(harness(), movie, TOY.analysis)
    least = whole.fixed_bytes + 1.5 * whole.bytes_per_replicate(0.2)
    little = replace(TOY.analysis, compute=ComputeConfig(memory_bytes=int(least * 4 / 3)))
    used = harness()
    runner, device = study.fused_runner(used, movie, little)
    row, curves = study._measure_rate(used, runner, device, 0.2, 3)
    assert row["blocks"] == 3
    assert row["as_planned"]
    assert row["launches"] == 3 * 5
    assert same_bits(study._joined(curves), whole.run(0.2, np.arange(3)))


@needs_compiler
def test_a_budget_that_is_over_leaves_parts_out(capsys):
    code, out, _ = run(capsys, "--budget-s", "0.001", open_rig=lambda n: harness())
    assert code == 0
    assert "check:" in out
    assert "growth: left out, the budget of time is over" in out
    assert "fit kernel" not in out


class Wrong(HostDevice):
    """Forgets to launch a kernel."""

    def kernel(self, source, *, cooperative=False):
        kernel = super().kernel(source, cooperative=cooperative)
        return (lambda *args, **more: None) if source.name == "correct" else kernel


@needs_compiler
def test_wrong_kernels_are_not_timed(capsys):
    with pytest.raises(CheckError):
        check_against_generic(harness(Wrong()), TOY)
    code, out, err = run(capsys, open_rig=lambda n: harness(Wrong()))
    assert code == 1
    assert err.startswith("benchmarks.gpu: paper at rate 0.2: ")
    assert err.endswith("; nothing was measured\n")
    assert "study" not in out


@needs_compiler
def test_stages_of_both_kinds_do_the_same_work():
    job = stages.Job.make(growing_movie(40, 3), TOY.analysis, 0.2, 2)
    kernels, arrays = stages.KernelStages(harness(), job), stages.ArrayStages(NUMPY, job)
    for name in stages.STAGES:
        for made in (kernels, arrays):
            work, setup = made.stage(name)
            arguments, keywords = setup() if setup else ((), {})
            work(*arguments, **keywords)
    visited, foreground = kernels.tally()[..., :2].astype(int).transpose(2, 0, 1)
    assert (visited == job.sampler.capacity).all()
    assert foreground.tolist() == np.stack([(labels == 1).sum(axis=1) for labels in arrays.labels], axis=1).tolist()
    assert foreground.min() > 0


def test_a_copy_without_git_is_measured_all_the_same(monkeypatch):
    assert record.stamp()["commit"]
    monkeypatch.setenv("PATH", "")
    assert record.stamp()["commit"] == "unknown"


def test_a_smaller_budget_measures_fewer_frames():
    assert FULL.scaled(480) == FULL
    assert FULL.scaled(240).n_frames == 150
    assert FULL.scaled(1).n_frames == 12
    assert QUICK.side < FULL.side


class FakeEvent:
    """Knows when it was recorded, in milliseconds, on which GPU and stream."""

    now = 0.0

    def __init__(self, cuda):
        self.cuda, self.at, self.waited = cuda, None, False

    def record(self, stream):
        assert stream == ("stream of", self.cuda.current)
        FakeEvent.now += 250.0
        self.at = FakeEvent.now

    def synchronize(self):
        self.waited = True


class FakeCuda:
    """The part of `cupy.cuda` that the clock uses."""

    def __init__(self):
        self.current, self.waits = None, 0

    def Device(self, number):
        cuda = self

        class Current:
            def __enter__(self):
                cuda.current = number

            def __exit__(self, *error):
                cuda.current = None

            def synchronize(self):
                cuda.waits += 1

        return Current()

    def Event(self):
        return FakeEvent(self)

    def get_current_stream(self):
        return ("stream of", self.current)

    def get_elapsed_time(self, first, second):
        assert second.waited, "the time of an event that has not happened is an error"
        return second.at - first.at


@pytest.fixture
def cupy(monkeypatch):
    fake = FakeCuda()
    fake.runtime = SimpleNamespace(
        cudaDevAttrClockRate=13,
        deviceGetAttribute=lambda which, number: {13: 1_980_000}[which],
        deviceGetPCIBusId=lambda number: f"0000:6{number}:00.0",
    )
    pool = SimpleNamespace(total_bytes=lambda: 4096, free_all_blocks=lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=fake, get_default_memory_pool=lambda: pool))
    return fake


def test_cuda_events_are_recorded_on_the_current_stream_and_waited_for(cupy):
    clock = CudaClock(1)
    first, second = clock.mark(), clock.mark()
    assert clock.between(first, second) == 0.25
    clock.wait()
    assert cupy.waits == 1


@pytest.mark.parametrize(("told", "highest"), [(None, 1.98e9), (2.1e9, 2.1e9), (1.5e9, 1.98e9)])
def test_a_gpu_is_opened_with_what_the_floor_needs(cupy, monkeypatch, told, highest):
    device = SimpleNamespace(multiprocessors=132, arch="sm_90", describe=lambda: {"gpu": "NVIDIA H200", "cupy": "14"})
    monkeypatch.setattr(rig, "probe_gpu", lambda number: (True, "works"))
    monkeypatch.setattr(rig, "get_backend", lambda name: {"gpu:1": NUMPY}[name])
    monkeypatch.setattr("gmrm_gpu.engines.device.CudaDevice", lambda number: device)
    asked = []
    monkeypatch.setattr(rig, "ask_clock", lambda *which: asked.append(which) or (lambda: told))
    found = rig.open_gpu(1)
    assert asked == [("0000:61:00.0", "clocks.max.sm")]
    assert (found.multiprocessors, found.clock_hz, found.arch, found.bus) == (132, highest, "sm_90", "0000:61:00.0")
    assert found.publish
    assert found.what == {"device": "gpu", "gpu": "NVIDIA H200", "cupy": "14"}
    assert found.high_water() == 4096


def test_the_clock_under_load_is_asked_for_and_may_be_missing(monkeypatch, tmp_path):
    asked = harness(bus="0000:65:00.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked.clock_during(lambda: "done") == (None, "done")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho $1 $5 >> asked\necho ' 1755'\n")
    monkeypatch.chdir(tmp_path)
    tool.chmod(0o755)
    assert asked.clock_during(lambda: "done") == (1.755e9, "done")
    assert (tmp_path / "asked").read_text() == "--query-gpu=clocks.sm\n"
    tool.write_text("#!/bin/sh\necho '[N/A]'\n")
    assert asked.clock_during(lambda: "done") == (None, "done")


@needs_compiler
def test_a_watched_device_counts_launches_and_adds_up_their_time():
    ticking = iter(range(1000))
    clock = SimpleNamespace(mark=lambda: next(ticking), between=lambda a, b: float(b - a), wait=lambda: None)
    host = HostDevice()
    watched = WatchedDevice(host, clock)
    from gmrm_gpu.engines.device import probe_kernels

    probe_kernels(watched)
    watched.asarray(np.zeros(3))
    assert host.launches == ["probe", "probe"]
    assert [(ran.name, ran.blocks, ran.threads) for ran in watched.launches] == [("probe", 3, 64)] * 2
    assert watched.stages() == {"probe": 2.0, "upload": 1.0}


def test_a_grid_without_blocks_is_no_launch():
    device = SimpleNamespace(kernel=lambda source, cooperative: lambda *args, **more: None)
    watched = WatchedDevice(device, HostClock())
    launch = watched.kernel(SimpleNamespace(name="nothing"))
    launch((0,), (64,), ())
    launch((2,), (64,), ())
    assert [ran.blocks for ran in watched.launches] == [2]


LOOP = """
extern "C" __global__ void tiny(const float* x, float* y, int n) {
    float sum = 0.0f;
    #pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 32) sum += exp2f(x[i]) BODY;
    y[threadIdx.x] = sum;
}
"""


def compiled(body: str, arch: str) -> bytes:
    from gmrm_gpu.engines.nvrtc import find_compiler

    try:
        compiler = find_compiler()
    except DeviceError as error:
        pytest.skip(str(error))
    flags = (f"--gpu-architecture={arch}", "--ftz=true")
    binary, log = compiler.compile(LOOP.replace("BODY", body), "tiny.cu", flags)
    assert binary is not None, log
    return binary


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"])
def test_instructions_of_a_loop_are_counted(arch):
    one = floor.loops(compiled("", arch), "tiny")
    two = floor.loops(compiled("* exp2f(x[i] * 3.0f - 1.0f)", arch), "tiny")
    assert [(loop.exponentials, loop.reads_global) for loop in (*one, *two)] == [(1, True), (2, True)]
    assert 5 <= one[0].instructions <= 20
    assert 2 <= two[0].instructions - one[0].instructions <= 8
    assert floor.instructions_a_pixel(compiled("", arch), "tiny", 1) == one[0].instructions


def test_instructions_of_the_fit_kernel_are_counted():
    from gmrm_gpu.engines.fused.fit import fit_source
    from gmrm_gpu.engines.nvrtc import compile_kernel

    source = fit_source(26_214, FULL.analysis.mixture, wide=False)
    compiled("", "sm_90")
    found = floor.instructions_a_pixel(compile_kernel(source, "sm_90").binary, "fit", 4)
    assert 100 < found < 260
    slow = floor.seconds_a_pixel(found, 132, 1e9)
    assert slow == pytest.approx(found / 128 / 132 / 1e9)


def test_code_without_a_loop_over_samples_is_refused():
    with pytest.raises(ValueError, match="no code of fit"):
        floor.loops(compiled("", "sm_90"), "fit")
    with pytest.raises(ValueError, match="not machine code"):
        floor.loops(b".version 8.0", "tiny")


@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU, which this command would measure for minutes")
def test_the_command_says_in_one_line_that_there_is_no_gpu():
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert "no usable GPU" in done.stderr
