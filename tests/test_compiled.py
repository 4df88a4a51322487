"""The compiled engine as a whole: when it is taken, its threads, its progress and its memory."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from backends import strict
from fused_cases import NUMPY, assert_same, growing, settings

from gmrm_gpu.config import ComputeConfig, QuantityConfig, StudyConfig
from gmrm_gpu.engines import compiled, select_engine
from gmrm_gpu.engines.compiled.device import CompiledDevice
from gmrm_gpu.engines.compiled.pool import Pool
from gmrm_gpu.errors import ConfigError, DeviceError, MemoryBudgetError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.pipeline import analyze
from gmrm_gpu.runner import Runner
from gmrm_gpu.study import run_study

SHAPE, UINT8 = (64, 64), np.dtype(np.uint8)


def by(engine, **compute):
    return ComputeConfig(device="cpu", engine=engine, **compute)


def chosen(backend=NUMPY, shape=SHAPE, dtype=UINT8, **changes):
    return select_engine(backend, settings(**changes).resolved, shape, dtype)


def test_it_is_taken_wherever_it_can():
    assert (chosen().name, chosen(method="movie").name) == ("compiled", "compiled")
    assert chosen().reason.startswith("compiled functions on numpy")
    assert chosen(compute=by("compiled")).name == "compiled"
    arrays = chosen(compute=by("auto", dtype="float64"))
    assert arrays.name == "generic"
    assert "not the compiled functions because of the precision float64" in arrays.reason
    assert chosen(strict("float32")).name == "generic"
    by_hand = chosen(compute=by("generic"))
    assert by_hand.name == "generic"
    assert by_hand.reason.endswith("; asked for")


def test_where_it_cannot_it_refuses():
    revolution = QuantityConfig(geometry="revolution", pixel_size_um=1.0)
    with pytest.raises(ConfigError, match="compiled engine cannot be used because of the geometry revolution"):
        chosen(compute=by("compiled"), quantity=revolution)
    with pytest.raises(ConfigError, match="compiled engine cannot be used because of the device, which is not the CPU"):
        chosen(replace(NUMPY, name="cupy"), compute=ComputeConfig(engine="compiled"))


def test_without_numba_arrays_work_and_the_reason_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    engine = chosen()
    assert engine.name == "generic"
    assert engine.reason.endswith(
        "not the compiled functions because Numba is not installed; pip install 'gmrm-gpu[cpu]'"
    )
    assert Runner(open_movie(growing()), settings(), NUMPY).warnings((0.25,)) == []
    with pytest.raises(DeviceError, match=r"Numba is not installed; pip install 'gmrm-gpu\[cpu\]'"):
        chosen(compute=by("compiled"))
    with pytest.raises(DeviceError, match="Numba is not installed"):
        CompiledDevice()


def test_importing_and_choosing_arrays_does_not_load_numba():
    code = (
        "import sys, numpy as np, gmrm_gpu as gg\n"
        "movie = np.random.default_rng(0).integers(0, 255, (2, 40, 40)).astype(np.uint8)\n"
        "gg.analyze(movie, gg.AnalysisConfig(method='paper', compute=gg.ComputeConfig(engine='generic')), rate=0.5)\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", ["paper", "movie"])
def test_the_answer_does_not_depend_on_threads_or_blocks(method):
    movie = open_movie(growing())

    def run(threads, *parts):
        runner = Runner(movie, settings(method=method, compute=by("compiled", n_threads=threads)))
        assert runner.n_threads == threads
        return [runner.run(0.25, np.array(part)) for part in parts]

    (whole,) = run(1, [0, 1, 2, 3, 4])
    for threads in (2, 3, 5):
        assert_same(run(threads, [0, 1, 2, 3, 4])[0], whole, exactly=True)
    for part, rows in zip(run(2, [0], [1, 2, 3, 4]), (slice(0, 1), slice(1, 5)), strict=True):
        wanted = replace(whole, **{name: getattr(whole, name)[rows] for name in whole.__dataclass_fields__})
        assert_same(part, wanted, exactly=True)


def test_an_analysis_and_a_study_are_those_of_the_arrays(tmp_path):
    path = tmp_path / "movie.npy"
    np.save(path, growing())  # read lazily, and read-only
    found, wanted = (analyze(path, settings(compute=by(e)), rate=0.3) for e in ("compiled", "generic"))
    np.testing.assert_array_equal(found.labels, wanted.labels)
    assert (found.provenance["engine"], wanted.provenance["engine"]) == ("compiled", "generic")
    assert found.provenance["numba"]
    assert "numba" not in wanted.provenance
    studies = [
        run_study(path, StudyConfig(settings(compute=by(engine, n_threads=3)), (0.2, 0.1), (2, 3), ("paper", "movie")))
        for engine in ("compiled", "generic")
    ]
    for rate in (0.2, 0.1):
        np.testing.assert_allclose(studies[0].shares[rate], studies[1].shares[rate], rtol=0, atol=1e-12)
    assert studies[0].provenance["n_threads"] == 3


@pytest.mark.parametrize("method", ["paper", "movie"])
def test_progress_rises_from_the_start_to_the_end(method):
    runner, ticks = Runner(open_movie(growing()), settings(method=method, compute=by("compiled", n_threads=1))), []
    seen = []
    with runner.engine.telling(seen.append):
        runner.engine.device.pool.run(lambda i: None, 4, tell=True)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    runner.run(0.25, np.arange(3), tick=lambda: ticks.append(runner.engine.device.pool.notify is not None))
    assert len(ticks) == 4
    assert ticks[0], "the first tick came from within the engine"


def explode(shape, dtype):
    raise MemoryError


@pytest.mark.parametrize("method", ["paper", "movie"])
def test_running_out_of_memory_halves_the_block(method, monkeypatch):
    movie, config = open_movie(growing()), settings(method=method, compute=by("compiled"))
    wanted = Runner(movie, config).run(0.25, np.arange(4))
    make, asked = CompiledDevice._memory, []

    def short(function, *args):
        asked.append(args)
        return make(explode if len(asked) == 3 else function, *args)

    monkeypatch.setattr(CompiledDevice, "_memory", staticmethod(short))
    assert_same(Runner(movie, config).run(0.25, np.arange(4)), wanted, exactly=True)
    assert len(asked) > 3


def test_a_replicate_that_does_not_fit_says_what_it_needs(monkeypatch):
    runner = Runner(open_movie(growing()), settings(compute=by("compiled")))
    make = CompiledDevice._memory
    monkeypatch.setattr(CompiledDevice, "_memory", staticmethod(lambda function, *args: make(explode, *args)))
    with pytest.raises(MemoryBudgetError, match=r"one replicate needs [\d.]+ MB of memory, \S+ MB are free; close"):
        runner.run(0.25, np.arange(2))


def test_a_movie_too_large_at_once_is_analysed_frame_by_frame():
    movie, paper = open_movie(growing()), settings()
    kernels = Runner(movie, paper)
    assert kernels.engine.name == "compiled"
    needed = kernels.fixed_bytes + kernels.bytes_per_replicate(1.0)

    def engine(budget, **options):
        runner = Runner(movie, settings(compute=by("auto", memory_bytes=budget)), **options)
        return runner.engine.name, runner.warnings((0.25,))

    assert engine(needed * 4 // 3 + 2) == ("compiled", [])
    arrays = settings(compute=by("generic", memory_bytes=10**9))
    enough = Runner(movie, arrays).bytes_per_replicate(1.0) * 4 // 3 + 2
    assert needed < enough  # so few frames take less at once than an array operation needs
    assert engine(needed)[0] == "compiled"  # neither fits
    many = open_movie(np.tile(growing(), (40, 1, 1)))
    runner = Runner(many, settings(compute=by("auto", memory_bytes=enough)))
    assert runner.engine.name == "generic"
    assert runner.warnings((0.25,))[0].startswith("The CPU works by arrays because all frames at once need ")
    small = Runner(many, settings(compute=by("auto", memory_bytes=enough)), largest_rate=0.05)
    assert small.engine.name == "compiled"


def test_a_study_is_the_same_in_many_blocks(monkeypatch):
    runner = Runner(open_movie(growing()), settings(compute=by("compiled")))
    run, blocks, studies, counts = Runner.run, [], [], []
    monkeypatch.setattr(Runner, "run", lambda self, *args, **more: blocks.append(args) or run(self, *args, **more))
    for memory in (None, (runner.fixed_bytes + runner.bytes_per_replicate(1.0)) * 4 // 3 + 2):
        config = settings(compute=by("compiled", memory_bytes=memory))
        studies.append(run_study(growing(), StudyConfig(config, (0.1, 0.05), (20, 60), ("paper",))))
        counts.append(len(blocks))
        blocks.clear()
    assert counts[0] == 4 < counts[1]  # the reference, its pictures, and two rates
    for rate in (0.1, 0.05):
        np.testing.assert_array_equal(studies[0].shares[rate], studies[1].shares[rate])


def test_blocks_of_a_study_are_large_but_not_all_of_memory(monkeypatch):
    from gmrm_gpu.study.plan import plan_blocks

    runner = Runner(open_movie(growing()), settings(compute=by("compiled")))
    study = StudyConfig(settings(), (0.25,), (40,), ("paper",))
    assert len(plan_blocks(runner, study, 2**40, 1)) == 1
    a_replicate = runner.sampler(0.25).capacity * 4
    monkeypatch.setattr("gmrm_gpu.runner.CPU_BLOCK_SAMPLES", 10 * a_replicate)
    assert [b.stop - b.start for b in plan_blocks(runner, study, 2**40, 1)] == [10] * 4


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_pool_does_everything_once(workers):
    done = []
    Pool(workers).run(done.append, 100)
    assert sorted(done) == list(range(100))
    Pool(workers).run(done.append, 0)
    assert len(done) == 100


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("in_caller", [True, False])
def test_the_first_error_ends_the_work_of_a_pool(error, in_caller):
    pool, caller, done = Pool(2), threading.current_thread(), []
    both = threading.Barrier(2, timeout=10)

    def work(i):
        if i < 2:
            both.wait()  # one item a thread
            if (threading.current_thread() is caller) == in_caller:
                raise error("planted")
        done.append(i)

    with pytest.raises(error, match="planted"):
        pool.run(work, 10**6)
    assert len(done) < 10**6
    pool.run(done.append, 3)


def test_an_exact_function_stays_exact_below_a_fast_one(monkeypatch, tmp_path):
    from gmrm_gpu.engines.compiled.jit import compiled, exactly

    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))  # code kept by an earlier run cannot be read

    @exactly
    def remainder(a, b):
        return (a + b) - a

    @compiled
    def fast(a, b):
        return remainder(a, b), a * b + a + b

    fast(1.0, 2.0)
    for function, wanted in ((remainder, False), (fast, True)):
        (text,) = function.inspect_llvm().values()
        assert ("reassoc" in text) == wanted
    assert remainder(1e16, 1.0) == 0.0


def test_the_first_use_says_that_it_compiles(tmp_path):
    code = (
        "import logging, sys, numpy as np\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')\n"
        "from gmrm_gpu.engines.compiled.jit import compiled\n"
        "from gmrm_gpu.engines.compiled.tally import __name__ as module\n"
        "def square(x):\n    return x * x\n"
        "square.__module__ = module\n"
        "f = compiled(square)\n"
        "f(1), f(1.0)\n"
    )
    path = tmp_path / "script.py"
    path.write_text(code)
    out = subprocess.run(
        [sys.executable, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={"GMRM_GPU_CACHE": str(tmp_path / "cache"), "PATH": ""},
    ).stdout
    assert out.count("compiling the CPU engine, once for this machine") == 1
    assert list((tmp_path / "cache").glob("cpu-*"))
