"""The same seed gives the same bits, however the work is cut, in whatever order, on however many threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bit_cases import ENGINES, METHODS, SCHEMES, SIZES, differing, digest, drawn, in_parts
from scale import LONG, cases

from gmrm_gpu.config import AnalysisConfig, ComputeConfig, MixtureConfig, SamplingConfig, StudyConfig
from gmrm_gpu.frames import open_movie
from gmrm_gpu.mixture import movie_settle
from gmrm_gpu.runner import Runner
from gmrm_gpu.study import job as study_job
from gmrm_gpu.study import run_study
from gmrm_gpu.study.plan import Block

BOTH = [(engine, method) for engine in ENGINES for method in METHODS]
WHAT = "ways to cut an analysis, same bits"


def in_any_order(n: int, size: int, seed: int) -> list[np.ndarray]:
    """Replicates 0..n-1 in parts of `size`, in any order within and among them."""
    rng = np.random.default_rng([n, size, seed])
    order = rng.permutation(n) if seed % 2 else np.arange(n)
    parts = [order[i : i + size] for i in range(0, n, size)]
    return [parts[i] for i in rng.permutation(len(parts))]


@pytest.mark.parametrize(("engine", "method"), BOTH)
def test_bits_do_not_depend_on_the_cut(engine, method, monkeypatch, counted):
    """Schemes, grey levels, models, votes, estimators, masks, sub-sampled movies, dtypes and threads as they come."""
    monkeypatch.setattr(movie_settle, "MAX_ITER", 12)  # as good as 200 for this
    n_cases, tried = cases(4, 24), 0
    for number in range(n_cases):
        sizes = (1, 2, 3, 7) if LONG else ((1, 3), (2, 7))[number % 2]
        case = drawn(engine, method, number)
        runner = case.runner()
        wanted = runner.run(case.rate, np.arange(case.n))
        for size in sizes:
            found = in_parts(runner, case.rate, case.n, in_any_order(case.n, size, number))
            assert not differing(found, wanted), (number, size, case.config)
            tried += 1
    counted(WHAT, tried)


def disk(n_frames: int, side: int) -> np.ndarray:
    """(T, side, side) uint8."""
    y, x = np.indices((side, side)) - side / 2
    inside = np.hypot(y, x)[None] < side / 5 + np.arange(n_frames)[:, None, None]
    noise = np.random.default_rng(3).normal(scale=8, size=(n_frames, side, side))
    return np.clip(np.rint(np.where(inside, 170, 70) + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("engine", "method"), BOTH)
@pytest.mark.parametrize("scheme", SCHEMES if LONG else SCHEMES[1:2])
def test_a_batch_of_all_is_what_batches_of_any_size_are(engine, method, scheme, counted):
    excluded = np.zeros((24, 24), dtype=bool)
    excluded[3:8, 5:20] = True
    config = AnalysisConfig(
        MixtureConfig(n_components=2, trend="linear", max_iter=20),
        sampling=SamplingConfig(scheme=scheme),
        compute=ComputeConfig(engine=engine, device="cpu"),
        method=method,
    )
    runner, n = Runner(open_movie(disk(2, 24), exclude=excluded), config), 66
    wanted = runner.run(0.2, np.arange(n))
    for size in SIZES:
        # Of small parts the last ones, so that none begins where the whole does.
        some = np.arange(n) if size == SIZES[-1] else np.arange(n)[-2 * size - 1 :]
        for part in [some[i : i + size] for i in range(0, len(some), size)]:
            found = runner.run(0.2, part)
            for name in wanted.__dataclass_fields__:
                assert getattr(found, name).tobytes() == getattr(wanted, name)[part].tobytes(), (size, name)
    counted(WHAT, len(SIZES))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_study_does_not_depend_on_its_blocks_and_threads(engine, monkeypatch, counted):
    mixture, found = MixtureConfig(n_components=2, trend="linear", max_iter=20), []
    cuts = [(7, 1), (3, 2), (2, 3), (1, 2)] if LONG else [(7, 1), (2, 3)]
    for size, threads in cuts:

        def cut(runner, whole, budget, n_threads, size=size):
            edges = range(whole.start, whole.stop, size)
            return [Block(whole.rate, a, min(a + size, whole.stop)) for a in edges]

        monkeypatch.setattr(study_job, "cut_blocks", cut)
        compute = ComputeConfig(engine=engine, device="cpu", n_threads=threads)
        config = StudyConfig(AnalysisConfig(mixture, compute=compute), rates=(0.3, 0.2), n_replicates=(4, 7))
        study = run_study(disk(3, 30), config)
        found.append([s.shares[r].tobytes() for s in (study, *study.others) for r in study.rates])
    assert all(other == found[0] for other in found[1:])
    counted(WHAT, len(cuts) - 1)


def models() -> list[tuple[str, str, np.ndarray, MixtureConfig, float]]:
    """What takes the largest products: the largest model on full blocks of samples, and wide frames."""
    largest = MixtureConfig(n_components=6, trend="x,y,x2,xy,y2,x3,x2y,xy2,y3,x4,x3y,x2y2,xy3,y4", max_iter=4)
    small = MixtureConfig(n_components=2, trend="linear", max_iter=4)
    wide = np.concatenate([disk(1, 40)] * 55, axis=2)  # more cells than are smoothed at a time
    found = [("generic", method, disk(2, 80), largest, 0.9) for method in METHODS]
    found += [("generic", "movie", wide, small, 0.5)]
    return found + [("compiled", method, disk(2, 80), small, 0.9) for method in METHODS]


def print_digests(n_threads: int) -> None:
    """Of all `models`; run in a process of its own, since BLAS counts its threads once."""
    for engine, method, frames, mixture, rate in models():
        for dtype in ("float32", "float64") if engine == "generic" else ("float32",):
            compute = ComputeConfig(engine=engine, device="cpu", dtype=dtype, n_threads=n_threads)
            runner = Runner(open_movie(frames), AnalysisConfig(mixture, compute=compute, method=method))
            print(engine, method, dtype, digest(runner.run(rate, np.arange(2))))


def digests_with(threads: int, blas: int, core: str | None) -> list[str]:
    """The lines of `print_digests`; core : the processor that OpenBLAS takes this one for."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    env = os.environ | dict.fromkeys(names, str(blas)) | ({"OPENBLAS_CORETYPE": core} if core else {})
    here = Path(__file__).parent
    code = f"import sys; sys.path[:0] = {[str(here), str(here.parent)]}; import test_bits; "
    command = [sys.executable, "-c", code + f"test_bits.print_digests({threads})"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("core", [None, "Haswell", "Nehalem"] if LONG else [None])
def test_bits_do_not_depend_on_threads(core, counted):
    wanted = digests_with(1, 1, core)
    assert len(wanted) == 8
    others = [(2, 2), (1, 2), (2, 1), (3, 3)] if LONG else [(2, 2)]
    for threads, blas in others:
        assert digests_with(threads, blas, core) == wanted, (threads, blas)
    counted("numbers of threads, same bits", len(others) * len(wanted))
