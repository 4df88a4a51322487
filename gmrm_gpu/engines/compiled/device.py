"""The CPU as a `Device`: NumPy arrays, and Numba functions in the place of CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ...backend import free_memory, make_backend, n_cores
from ...errors import DeviceError, DeviceMemoryError
from . import compiled_obstacle
from .pool import Pool

if TYPE_CHECKING:
    from ..source import KernelSource


@dataclass(frozen=True)
class Call:
    """How a kernel is called here.

    Attributes
    ----------
    constants : those a CUDA instance is compiled with; here they are ordinary numbers. pool : the threads.
    """

    constants: dict[str, int | str]
    pool: Pool

    def integers(self, name: str) -> np.ndarray:
        """A constant that lists whole numbers, int64."""
        text = str(self.constants.get(name, ""))
        return np.array([int(word) for word in text.split(",") if word], dtype=np.int64)


class CompiledDevice:
    """The CPU; see `engines.fused.launch.Device`. Grids and shared memory mean nothing here.

    Attributes
    ----------
    pool : the threads; their number changes no bit of any result.

    Raises
    ------
    DeviceError
        Numba is not installed.
    """

    def __init__(self, workers: int | None = None) -> None:
        obstacle = compiled_obstacle()
        if obstacle is not None:
            raise DeviceError(obstacle)
        self.pool = Pool(workers or n_cores())
        self._host = make_backend(np)

    def kernel(self, source: KernelSource, *, cooperative: bool = False) -> Callable[..., None]:
        """The function, called as CuPy's RawKernel is; it and its module have the kernel's name."""
        module = import_module(f".{source.name}", __package__)
        call = Call(dict(source.constants), self.pool)
        return partial(_launch, getattr(module, source.name), call)

    def prepare(self, sources: Iterable[KernelSource]) -> None:
        """Nothing: functions are compiled, or read from the cache, when they are called."""

    def resident_blocks(self, source: KernelSource, threads: int, shared_bytes: int) -> int:
        """For movies, whose plans have scratch for each block: threads. Else one: threads share large fits without."""
        return self.pool.workers if source.name.startswith("movie") else 1

    def free_bytes(self) -> int:
        """What the system says is available."""
        return free_memory(self._host)

    def asarray(self, values: np.ndarray) -> np.ndarray:
        """The array itself, or a copy where it is read-only or not contiguous."""
        return np.require(values, requirements=("C", "W"))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory whose content is undefined."""
        return self._memory(np.empty, shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory filled with zeros."""
        return self._memory(np.zeros, shape, dtype)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    @staticmethod
    def _memory(make: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        try:
            return make(shape, dtype)
        except MemoryError as error:
            raise DeviceMemoryError(f"the computer is out of memory: {error}") from error


def _launch(
    function: Callable[..., None], call: Call, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0
) -> None:
    function(call, *args)
