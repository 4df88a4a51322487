"""Memory that runs out at any allocation costs time, no bit and no byte; and what is planned is what is used."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from allocations import ALLOCATIONS
from bit_cases import ENGINES, METHODS, differing
from scale import LONG, cases

import gmrm_gpu.runner
from gmrm_gpu.backend import make_backend, ran_out_of_memory, release_memory
from gmrm_gpu.config import AnalysisConfig, ComputeConfig, CorrectionConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.engines.compiled.pool import Pool
from gmrm_gpu.errors import DeviceMemoryError, MemoryBudgetError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.frames.cache import CachedMovie
from gmrm_gpu.pipeline import analyze
from gmrm_gpu.runner import Runner

BOTH = [(engine, method) for engine in ENGINES for method in METHODS]
WHAT = "allocations that failed, same bits"
LEFT = 20_000
"""Bytes that may stay after an attempt: curves of the half that is done, sizes that are kept."""


def frames(shape: tuple[int, int] = (40, 44), n_frames: int = 2) -> np.ndarray:
    """(T, height, width) uint8, a disk on a trend."""
    y, x = np.indices(shape)
    inside = np.hypot(y - shape[0] / 2, x - shape[1] / 2) < min(shape) / 4
    noise = np.random.default_rng(5).normal(scale=7, size=(n_frames, *shape))
    return np.clip(np.rint(np.where(inside, 160, 60) + 0.2 * x + noise), 0, 255).astype(np.uint8)


def settings(engine: str, method: str, **keywords) -> AnalysisConfig:
    """A quick analysis on the CPU in one thread."""
    compute = ComputeConfig(engine=engine, device="cpu", n_threads=1)
    mixture = MixtureConfig(n_components=2, trend="linear", max_iter=6, n_start_iter=3)
    return AnalysisConfig(mixture, compute=compute, method=method, **keywords)


@pytest.fixture
def live_at_start(monkeypatch):
    """Bytes that are live when an attempt begins, of all attempts; no garbage is collected between them."""
    seen, run = [], gmrm_gpu.runner.run_replicates

    def watched(*args):
        seen.append(ALLOCATIONS.live)
        return run(*args)

    monkeypatch.setattr(gmrm_gpu.runner, "run_replicates", watched)
    monkeypatch.setattr(gmrm_gpu.runner, "release_memory", lambda backend: None)
    gc.collect()
    gc.disable()
    yield seen
    gc.enable()


@pytest.mark.parametrize(("engine", "method"), BOTH)
def test_any_allocation_may_fail(engine, method, live_at_start, counted):
    excluded = np.zeros((40, 44), dtype=bool)
    excluded[5:9, 20:] = True
    config = settings(engine, method, sampling=SamplingConfig(scheme="bernoulli"))
    runner = Runner(open_movie(frames(), exclude=excluded), config)
    replicates = np.arange(3)
    wanted = runner.run(0.3, replicates)
    with ALLOCATIONS:
        ALLOCATIONS.reset()
        runner.run(0.3, replicates)
        n, peak = ALLOCATIONS.n, ALLOCATIONS.peak - live_at_start[-1]
        some = np.unique(np.linspace(1, n, cases(10, 150)).astype(int))
        for at in some:
            live_at_start.clear()
            ALLOCATIONS.reset(at, at + 1)
            found = runner.run(0.3, replicates)
            assert ALLOCATIONS.failed == 1
            assert not differing(found, wanted), at
            first, *again = live_at_start
            assert len(again) == 2, "the block was to be done in halves"
            assert max(again) - first < LEFT < peak, "arrays of the attempt that failed are still there"
            del found
    counted(WHAT, len(some))


@pytest.mark.parametrize(("engine", "method"), BOTH)
def test_a_single_replicate_is_tried_once_more(engine, method, live_at_start, monkeypatch, counted):
    """With all that an analysis keeps for its pictures, which must not come twice."""
    config, run, at = settings(engine, method), Runner.run, [0]
    wanted = analyze(frames(), config, rate=0.5)

    def failing(self, *args, **keywords):
        ALLOCATIONS.reset(at[0], at[0] + 1)
        return run(self, *args, **keywords)

    monkeypatch.setattr(Runner, "run", failing)
    with ALLOCATIONS:
        analyze(frames(), config, rate=0.5)
        n, tried = ALLOCATIONS.n, cases(4, 30)
        # The count goes on after the run: what comes last belongs to the report.
        for number in np.linspace(1, 0.9 * n, tried).astype(int):
            at[0] = number
            live_at_start.clear()
            found = analyze(frames(), config, rate=0.5)
            assert ALLOCATIONS.failed == 1
            assert len(live_at_start) == 2
            for name in ("share", "share_sd", "labels", "status"):
                assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes(), name
            assert found.fits.means.tobytes() == wanted.fits.means.tobytes()
            assert np.array_equal(found.examples.labels, wanted.examples.labels)
    counted(WHAT, tried)


@pytest.mark.parametrize(("engine", "method"), BOTH)
def test_memory_that_stays_away_is_an_error_that_says_so(engine, method):
    runner = Runner(open_movie(frames()), settings(engine, method))
    replicates = np.arange(2)
    runner.run(0.3, replicates)
    with ALLOCATIONS:
        ALLOCATIONS.reset(3, 10**9, least=2000)  # errors are small
        with pytest.raises(MemoryBudgetError, match=r"one replicate needs [\d.e+]+ MB of memory, \S+ MB are free"):
            runner.run(0.3, replicates)
        assert ALLOCATIONS.failed == 3, "the block, one replicate, and that once more"


LIMITED = """
import ctypes, gc, resource, sys
import numpy as np
from bit_cases import digest
from test_memory import frames, settings
import gmrm_gpu.runner as module
from gmrm_gpu.frames import open_movie

runner = module.Runner(open_movie(frames((200, 200), 10)), settings(*sys.argv[1:3]))
wanted, calls, run = digest(runner.run(0.1, np.arange(32))), [], module.run_replicates
module.run_replicates = lambda *args: calls.append(1) or run(*args)
runner._free()
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]) * 1_000_000,) * 2)
assert digest(runner.run(0.1, np.arange(32))) == wanted
print(len(calls))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits and sizes of processes are Linux's")
@pytest.mark.parametrize(("engine", "method"), BOTH if LONG else BOTH[-1:])
@pytest.mark.parametrize("megabytes", [4, 8, 12] if LONG else [4])
def test_a_process_that_gets_no_more_memory_ends_with_the_same_bits(engine, method, megabytes, counted):
    """Also within compiled functions, whose arrays NumPy does not make."""
    here = Path(__file__).parent
    code = f"import sys; sys.path[:0] = {[str(here), str(here.parent)]}" + LIMITED
    command = [sys.executable, "-c", code, engine, method, str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "MemoryBudgetError: one replicate needs" in done.stderr:
        assert method == "movie", "a frame fits"
    else:
        assert done.returncode == 0, done.stderr
        assert (engine, method, megabytes) != ("compiled", "movie", 4) or int(done.stdout) > 1, "there was enough"
        counted("processes short of memory, same bits", int(done.stdout) > 1)


def test_a_budget_that_is_too_small_is_no_lack_of_memory(monkeypatch):
    runner, calls = Runner(open_movie(frames()), settings("generic", "paper")), []

    def refuse(*args):
        calls.append(1)
        raise MemoryBudgetError("one replicate needs more; lower --radius")

    monkeypatch.setattr(gmrm_gpu.runner, "run_replicates", refuse)
    with pytest.raises(MemoryBudgetError, match="needs more"):
        runner.run(0.3, np.arange(4))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (DeviceMemoryError("the GPU is out of memory"), True),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), True),
        (MemoryBudgetError("one replicate needs 9 MB"), False),
        (RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error, is_memory, monkeypatch):
    assert ran_out_of_memory(error) == is_memory
    runner, run = Runner(open_movie(frames()), settings("generic", "paper")), gmrm_gpu.runner.run_replicates
    errors = [error]

    def once(*args):
        if errors:
            raise errors.pop()
        return run(*args)

    wanted = runner.run(0.3, np.arange(2))
    monkeypatch.setattr(gmrm_gpu.runner, "run_replicates", once)
    if is_memory:
        assert not differing(runner.run(0.3, np.arange(2)), wanted)
    else:
        with pytest.raises(type(error)):
            runner.run(0.3, np.arange(2))


def test_the_pools_of_a_gpu_are_emptied(monkeypatch):
    freed = []
    pools = {
        name: lambda name=name: SimpleNamespace(free_all_blocks=lambda: freed.append(name))
        for name in ("get_default_memory_pool", "get_default_pinned_memory_pool")
    }
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(**pools))
    backend = make_backend(np)
    release_memory(backend)
    assert freed == []
    release_memory(type(backend)(backend.xp, None, backend.dtype, "cupy", "asked for"))
    assert freed == list(pools)


def test_frames_that_are_kept_go_first(monkeypatch):
    stack = frames(n_frames=4)
    movie, errors = CachedMovie(open_movie(stack), stack.nbytes), [MemoryError()]
    runner, run = Runner(movie, settings("generic", "paper")), gmrm_gpu.runner.run_replicates

    def once(*args):
        if errors:
            assert len(movie._frames) > 0
            raise errors.pop()
        assert len(movie._frames) == 0
        return run(*args)

    wanted = runner.run(0.3, np.array([0]))
    monkeypatch.setattr(gmrm_gpu.runner, "run_replicates", once)
    assert not differing(runner.run(0.3, np.array([0])), wanted)
    assert len(movie._frames) == 0
    assert np.array_equal(movie.frame(2), stack[2])


def test_an_error_in_a_thread_keeps_nothing_alive():
    pool, held = Pool(3), []

    def work(i):
        array = np.zeros(10)
        held.append(sys.getrefcount(array))
        raise MemoryError

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with pytest.raises(MemoryError):
                pool.run(work, 50)
        assert held
        assert gc.collect() == 0
    finally:
        gc.enable()


LARGE = [(0.05, 6, 4.0, "past"), (0.05, 6, 12.0, "symmetric"), (1.0, 1, 4.0, "past")]


@pytest.mark.parametrize(("engine", "method"), BOTH)
@pytest.mark.parametrize(("rate", "n", "radius", "window"), LARGE if LONG else LARGE[1:2])
def test_what_is_planned_is_what_is_used(engine, method, rate, n, radius, window, counted):
    """Arrays at their peak against the plan; without those that compiled functions make for themselves."""
    vote = CorrectionConfig(radius=radius, window=window)
    runner = Runner(open_movie(frames((160, 170), 12)), settings(engine, method, correction=vote))
    runner.run(rate, np.arange(1))
    runner._free()
    planned = runner.fixed_bytes + n * runner.bytes_per_replicate(rate)
    tracemalloc.start()
    runner.run(rate, np.arange(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{engine} {method}: planned {planned / 1e6:.1f} MB, used {peak / 1e6:.1f} MB")
    assert peak < 1.3 * planned
    assert planned < 5 * peak
    counted("plans of memory against the peak", 1)
