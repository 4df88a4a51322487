"""The cluster as an executor of a study: one that is running, or some processes on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from ...config import StudyConfig
from ...errors import ClusterError, ConfigError, GmrmError, MissingDependencyError
from ...frames import Movie
from ..identity import fingerprint
from ..job import Part
from ..shards import Shard
from ..source import MovieSource
from .crew import Crew, Notify
from .dispatch import Dispatch
from .local import local_cluster

CONNECT_S = 5
"""Seconds within which a scheduler must answer."""
GRACE_S = 20.0
"""Seconds to wait for new workers when all are gone."""


class ClusterExecutor:
    """Computes shards on a Dask cluster; a context, at whose end nothing that it started is left.

    Parameters
    ----------
    address : of a running scheduler, such as ``"tcp://host:8786"``. n_workers : processes to start on this machine
        instead, each with its part of the cores and the memory; on GPUs, one a GPU is best.
    notify : is told, in a line of text, of workers that come, go or cannot be used.
    grace_s : how long to wait for new workers when all are gone.

    Raises
    ------
    ConfigError
        Neither or both of `address` and `n_workers` are given, or not of their kind.
    MissingDependencyError
        Without the extra ``cluster``.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        n_workers: int | None = None,
        notify: Notify | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        if (address is None) == (n_workers is None):
            raise ConfigError("give --scheduler, the address of a running cluster, or --workers, a number; one of them")
        if n_workers is not None and not 1 <= n_workers <= 4096:
            raise ConfigError(f"--workers is {n_workers}; it must be 1 to 4096")
        if address is not None and not re.fullmatch(r"(\w+://)?\S+:\d{1,5}", address):
            raise ConfigError(f"--scheduler {address!r} is no address; write it like tcp://host:8786")
        _check_installed()
        self._address, self._n_workers, self._grace_s = address, n_workers, grace_s
        self._notify: Notify = notify or (lambda text: None)
        self._open = ExitStack()
        self._client: Any = None
        self._crew: Crew | None = None

    def __str__(self) -> str:
        return f"cluster {self._address}" if self._n_workers is None else f"{self._n_workers} worker processes"

    def __enter__(self) -> ClusterExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; the processes of one that was started here end."""
        self._crew = self._client = None
        self._open.close()

    def engines(self, movie: Movie, config: StudyConfig) -> tuple[dict[str, str], str]:
        """method -> name of the engine, and the device, of the workers that will compute a study.

        Raises
        ------
        ClusterError
            The scheduler does not answer, it has no workers, or none of them is able.
        """
        if self._client is None:
            self._connect(config)
        self._crew = Crew(self._client, movie, config, self._notify)
        with self._answered():
            self._crew.survey()
        return self._crew.engines, self._crew.device

    def run(
        self, movie: Movie, config: StudyConfig, known: dict[str, Any], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Part]]:
        """Compute `shards`; they come as they are done, in any order.

        Parameters
        ----------
        movie, config : of the study, as `engines` was given them. known : its `identity`, with the digest of the movie.

        Raises
        ------
        ClusterError
            The scheduler or all workers are gone, or some shards cannot be computed; the others have come before.
        """
        if self._crew is None:
            self.engines(movie, config)
        assert self._crew is not None
        mark = fingerprint(known)
        self._crew.employ(MovieSource.of(movie, known["movie"]["pixels"]), mark)
        dispatch = Dispatch(self._client, self._crew, mark, shards, notify=self._notify, grace_s=self._grace_s)
        with self._answered():
            yield from dispatch.run()

    def _connect(self, config: StudyConfig) -> None:
        import dask
        from distributed import Client

        cluster: Any = self._address
        if self._n_workers is not None:
            cluster = self._open.enter_context(local_cluster(self._n_workers, config.analysis.compute.device))
        # How long is waited for a scheduler that does not answer, now and whenever it is asked something.
        self._open.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_S}s"}))
        try:
            self._client = self._open.enter_context(Client(cluster, timeout=CONNECT_S, set_as_default=False))
        except (OSError, TimeoutError) as error:
            raise ClusterError(f"no scheduler answers at {cluster}; start one with: dask scheduler") from error

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """What Dask raises when its scheduler is gone, in words."""
        try:
            yield
        except GmrmError:
            raise
        except Exception as error:
            if self._client.status == "running" and not isinstance(error, (OSError, TimeoutError)):
                raise
            raise ClusterError(
                f"the scheduler of the {self} is gone; start it and its workers, and go on with --resume"
            ) from error


def _check_installed() -> None:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            f"--scheduler and --workers need {error.name}: pip install 'gmrm-gpu[cluster]'"
        ) from None
    del dask, distributed
