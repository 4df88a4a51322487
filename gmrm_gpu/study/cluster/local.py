"""Worker processes on this machine, for as long as a study runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ClusterError
from .crew import reason_of

LOOPBACK = "127.0.0.1"


@contextmanager
def local_cluster(n_workers: int, device: str) -> Iterator[Any]:
    """A Dask cluster of `n_workers` processes that nobody else can reach; they have ended when the context ends.

    device : of the study; on GPUs the processes take them in turn.

    Dask's log is silenced: that a worker died or was started again is told by those who watch the crew, and that a busy
    one was killed at the end is as it should be.
    """
    from distributed import Nanny, Scheduler

    common = {"host": LOOPBACK, "dashboard": False, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    workers = {i: {"cls": Nanny, "options": common | {"env": gpu_of(i, device)}} for i in range(n_workers)}
    options = {"host": LOOPBACK, "port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    before = dict(os.environ)
    try:
        with _started(workers, {"cls": Scheduler, "options": options}) as cluster:
            yield cluster
    finally:
        _restore(before)


def _started(workers: dict[int, Any], scheduler: dict[str, Any]) -> Any:
    """The cluster, when all its processes are there."""
    from distributed import SpecCluster

    try:
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
    except Exception as error:
        raise ClusterError(
            f"the worker processes do not start ({reason_of(error.__cause__ or error)}); use fewer --workers, or in a "
            "program of your own begin with: if __name__ == '__main__':"
        ) from error


def gpu_of(i: int, device: str) -> dict[str, str]:
    """What the environment of process `i` says of the GPU it has; nothing where there is none, or one was named."""
    visible = visible_gpus()
    if device == "cpu" or ":" in device or not visible:
        return {}
    return {"CUDA_VISIBLE_DEVICES": visible[i % len(visible)]}


def visible_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Numbers or names of the GPUs this process may use, found without starting CUDA."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def _restore(before: dict[str, str]) -> None:
    """The environment, into which Dask puts what its processes shall inherit."""
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
