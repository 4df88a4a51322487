"""What a worker process is asked to do; nothing of Dask is needed for it.

A worker computes one shard at a time, with the threads and the memory that are its part of the machine. The functions
that the client calls directly are coroutines, for a worker answers others while it works.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ... import __version__
from ...backend import Backend, get_backend, n_cores
from ...config import StudyConfig
from ...engines import select_engine
from ...engines.device import describe_gpu
from ...errors import DeviceError, GmrmError
from ...runner import memory_budget
from ..identity import movie_digest
from ..job import Job, Part, compute
from ..shards import Shard
from ..source import CopiedMovie, FrameBlock, hold

MOST_JOBS = 8
"""Studies that a worker remembers; several clients may share it."""


class NotPrepared(GmrmError, RuntimeError):
    """The process was never told of the study: it took the place, and the address, of one that was."""


@dataclass(frozen=True)
class Facts:
    """What a worker is.

    Attributes
    ----------
    versions : (package, version) pairs of all that its numbers depend on. engines : (method, engine) pairs.
    device : name of the backend. processor : model of what computes.
    unit : what it shares with other workers of its host: a GPU, or ``"cpu"``.
    """

    versions: tuple[tuple[str, str], ...]
    engines: tuple[tuple[str, str], ...]
    device: str
    processor: str
    unit: str

    @property
    def kind(self) -> tuple[Any, ...]:
        """Workers of one kind compute the same bits, as far as their processors do."""
        return self.engines, self.device, self.versions

    @property
    def text(self) -> str:
        """The kind in words."""
        engines = " and ".join(sorted({name for _, name in self.engines}))
        return f"engine {engines}, {self.device}, {', '.join(f'{name} {n}' for name, n in self.versions)}"


@dataclass(frozen=True)
class Share:
    """With how many worker processes one shares its host, and its GPU or CPU; itself counted."""

    host: int
    unit: int


@lru_cache
def build() -> str:
    """Version and digest of this package's own files. Only of plain types, so that any version can answer.

    Found once a process: files that are changed later are not what runs.
    """
    found = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".cu", ".cuh"):
            found.update(path.read_bytes())
    return f"{__version__} ({found.hexdigest()[:12]})"


async def answer_build() -> str:
    """`build`."""
    return await asyncio.to_thread(build)


async def describe(config: StudyConfig, shape: tuple[int, int], dtype: str, sampled: bool) -> Facts:
    """What this worker is, and which engines it takes for frames of that size and type."""
    return await asyncio.to_thread(_describe, config, shape, dtype, sampled)


def _describe(config: StudyConfig, shape: tuple[int, int], dtype: str, sampled: bool) -> Facts:
    asked = config.analysis.compute
    backend = get_backend(asked.device, asked.dtype)
    engines = {}
    for method in config.methods:
        settings = config.of_method(method).analysis.resolved
        engines[method] = select_engine(backend, settings, shape, np.dtype(dtype), sampled=sampled).name
    versions = [(name, version(name)) for name in ("numpy", "scipy")]
    if "compiled" in engines.values():
        versions.append(("numba", version("numba")))
    processor, unit = _cpu_model(), "cpu"
    if backend.name == "cupy":
        about = describe_gpu(backend.number)
        versions.append(("cupy", about["cupy"]))
        processor, unit = about["gpu"], _gpu(backend)
    return Facts(tuple(versions), tuple(engines.items()), backend.name, processor, unit)


def _gpu(backend: Backend) -> str:
    """The GPU as the machine numbers it, not as this process sees it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[backend.number] if backend.number < len(visible) and visible[0] else str(backend.number)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


_jobs: dict[str, Job] = {}
_copies: dict[str, CopiedMovie] = {}
_turn = Lock()


async def prepare(job: Job, share: Share, engines: dict[str, str], dask_worker: Any = None) -> None:
    """Get ready for the shards of a study: the movie, the checks of its pixels, the engines.

    Raises
    ------
    MovieNotHere
        It must be sent first. GmrmError: this worker cannot do it, and why.
    """
    limit = dask_worker.memory_manager.memory_limit if dask_worker is not None else None
    await asyncio.to_thread(_prepare, job, share, engines, limit)


def _prepare(job: Job, share: Share, engines: dict[str, str], limit: int | None) -> None:
    job = replace(job, config=part_of(job.config, share, limit))
    found = job.workplace().engines
    if found != engines:
        raise DeviceError(f"it would take the engines {found} for {engines}, for want of memory; give it more")
    while len(_jobs) >= MOST_JOBS:
        del _jobs[next(iter(_jobs))]
    _jobs[job.fingerprint] = job


def part_of(config: StudyConfig, share: Share, limit: int | None) -> StudyConfig:
    """`config` with the threads and the memory of one of several workers on a machine.

    limit : bytes at which Dask calls the worker full; None: never. Half of them are for what no budget knows of.
    """
    asked = config.analysis.compute
    on_host = memory_budget(config.analysis, get_backend("cpu")) // share.host
    if limit:
        on_host = min(on_host, limit // 2)
    backend = get_backend(asked.device, asked.dtype)
    n_bytes = on_host
    if backend.name == "cupy":
        # A fourth of the budget holds frames on the host.
        n_bytes = min(memory_budget(config.analysis, backend) // share.unit, 4 * on_host)
    n_threads = asked.n_threads or (None if backend.name == "cupy" else max(1, n_cores() // share.host))
    part = replace(asked, memory_bytes=max(1, n_bytes), n_threads=n_threads)
    return replace(config, analysis=replace(config.analysis, compute=part))


async def begin_movie(token: str, about: dict[str, Any], dask_worker: Any) -> None:
    """A movie will be sent; `token` is this sending's. It is kept in the worker's own folder, which Dask removes."""
    folder = Path(dask_worker.local_directory) / f"movie-{token}"
    folder.mkdir()
    _copies[token] = CopiedMovie(folder, **about)


async def take_frames(token: str, block: FrameBlock) -> None:
    """The next frames of a movie."""
    await asyncio.to_thread(_copies[token].add, block)


async def end_movie(token: str, digest: str) -> None:
    """All frames were sent. Raises `OSError` where they are not those that left the client."""
    movie = _copies.pop(token)
    if await asyncio.to_thread(movie_digest, movie) != digest:
        raise OSError("the movie that was sent arrived damaged")
    hold(digest, movie)


def work(fingerprint: str, shard: Shard) -> Part:
    """Compute a shard of a study that this process is prepared for."""
    job = _jobs.get(fingerprint)
    if job is None:
        raise NotPrepared("this process took the place of another")
    with _turn:
        return compute(job, shard)
