"""A kernel launch as a plain value, so that a plan can be compared with what ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...backend import Array
from ..source import KernelSource

Kernel = Callable[..., None]
"""Called as CuPy's RawKernel is: ``kernel((blocks,), (threads,), args, shared_mem=bytes)``."""


class Device(Protocol):
    """Where kernels run: a GPU through CuPy, or in the tests the CPU.

    `asarray`, `empty` and `zeros` make arrays there; `to_host` is the only way back, and the only thing that waits.
    """

    def kernel(self, source: KernelSource, *, cooperative: bool = False) -> Kernel:
        """The compiled kernel; `cooperative`: all its blocks run at once, so that they may wait for each other."""

    def prepare(self, sources: Iterable[KernelSource]) -> None:
        """Compile kernels side by side, those that are not there yet."""

    def resident_blocks(self, source: KernelSource, threads: int, shared_bytes: int) -> int:
        """How many blocks of a kernel the whole device holds at once."""

    def free_bytes(self) -> int:
        """Memory that arrays may still take."""

    def asarray(self, values: np.ndarray) -> Array:
        """A host array on the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory whose content is undefined."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory filled with zeros (a memset, no kernel launch)."""

    def to_host(self, array: Array) -> np.ndarray:
        """Wait for everything before, and copy."""


@dataclass(frozen=True)
class Launch:
    """One kernel launch: `blocks` of `threads`, each block with `shared_bytes`."""

    kernel: KernelSource
    blocks: int
    threads: int
    shared_bytes: int = 0
    cooperative: bool = False

    def run(self, device: Device, args: tuple) -> None:
        """Launch it with `args`, arrays of the device and NumPy scalars."""
        kernel = device.kernel(self.kernel, cooperative=self.cooperative)
        kernel((self.blocks,), (self.threads,), args, shared_mem=self.shared_bytes)
