"""A scheduler in this process, workers as processes of their own, and a study small enough to be run on them often."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gmrm_gpu.config import AnalysisConfig, ComputeConfig, MixtureConfig, StudyConfig
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.study import run_study

HERE = Path(__file__).parent


def small_config(engine: str = "generic", n: int = 6) -> StudyConfig:
    """`n` replicates at one rate."""
    mixture = MixtureConfig(n_components=2, trend="none", starts=("quantile",), tol=1e-4)
    analysis = AnalysisConfig(mixture=mixture, compute=ComputeConfig(device="cpu", engine=engine))
    return StudyConfig(analysis=analysis, rates=(0.5,), n_replicates=(n,), methods=("paper",))


def small_movie(seed: int = 0, n_frames: int = 3) -> ArrayMovie:
    """Frames of 12 x 16 pixels with two phases."""
    draw = np.random.default_rng(seed)
    levels = np.where(draw.random((n_frames, 12, 16)) < 0.3, 150, 60) + draw.normal(0, 5, (n_frames, 12, 16))
    return ArrayMovie(levels.round().astype(np.uint8), name="small")


def same_results(one, other) -> bool:
    """Whether two studies have the same bits."""
    return all(
        np.array_equal(getattr(a, name)[rate], getattr(b, name)[rate], equal_nan=True)
        for a, b in zip(one.every, other.every, strict=True)
        for name in ("shares", "status", "without_neighbours")
        for rate in a.shares
    ) and all(
        np.array_equal(a.reference, b.reference, equal_nan=True) for a, b in zip(one.every, other.every, strict=True)
    )


class Site:
    """A scheduler on loopback, and worker processes that can be killed.

    Attributes
    ----------
    hooks : folder that steers the workers, see `cluster_hooks`. said : what the executor of the last `study` told.
    """

    def __init__(self, folder: Path) -> None:
        from distributed import LocalCluster

        self.hooks, self.folder = folder / "hooks", folder
        self.hooks.mkdir(parents=True)
        self.cluster = LocalCluster(
            n_workers=0,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        self.address = self.cluster.scheduler_address
        self.processes: list[subprocess.Popen] = []
        self.said: list[str] = []

    def there(self) -> int:
        """Workers that the scheduler knows."""
        return len(self.cluster.scheduler.workers)

    def start(self, n: int = 1, *, wait: bool = True, path: Path | None = None) -> list[subprocess.Popen]:
        """Start workers; `path` goes before all others of Python."""
        command = [sys.executable, "-W", "ignore", "-m", "distributed.cli.dask_worker", self.address, "--no-nanny"]
        command += [
            "--nthreads",
            "1",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            "--preload",
            str(HERE / "cluster_hooks.py"),
        ]
        command += ["--local-directory", str(self.folder), "--memory-limit", "0"]
        paths = [str(p) for p in (path, os.environ.get("PYTHONPATH")) if p]
        env = os.environ | {"GMRM_GPU_HOOKS": str(self.hooks), "PYTHONPATH": os.pathsep.join(paths)}
        before = self.there()
        with (self.folder / "workers.log").open("ab") as out:
            started = [subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=out) for _ in range(n)]
        self.processes += started
        self.until(lambda: self.there() >= before + n, wait=wait)
        return started

    def have(self, n: int) -> list[subprocess.Popen]:
        """Exactly `n` able workers, those of earlier tests among them."""
        alive = [p for p in self.processes if p.poll() is None]
        self.kill(alive[n:])
        self.until(lambda: self.there() <= n)
        self.start(max(0, n - len(alive)))
        return [p for p in self.processes if p.poll() is None]

    def until(self, condition, *, wait: bool = True, seconds: float = 60.0) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while wait and not condition():
            assert time.monotonic() < end, (self.folder / "workers.log").read_text()[-2000:]
            time.sleep(0.02)

    def computed(self) -> list[tuple[int, str]]:
        """(process, shard) of all that was begun since `forget`."""
        log = self.hooks / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines]

    def forget(self) -> None:
        """No hooks any more."""
        for file in self.hooks.iterdir():
            file.unlink()
        self.said.clear()

    def study(self, movie, config, *, store: Path | None = None, **options):
        """Run a study on the workers."""
        from gmrm_gpu.study.cluster import ClusterExecutor

        with ClusterExecutor(self.address, notify=self.said.append, **options) as executor:
            return run_study(movie, config, executor=executor, store=store)

    def close(self) -> None:
        """End everything."""
        self.kill(self.processes)
        self.cluster.close()

    @staticmethod
    def kill(processes: list[subprocess.Popen]) -> None:
        """End processes as a crash would."""
        for process in processes:
            process.kill()
            process.wait()
