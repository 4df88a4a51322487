"""The compiled engine: the host side of the fused one, with the CPU as its device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..fused import FusedEngine
from .device import CompiledDevice
from .pool import Notify


@dataclass
class CompiledEngine(FusedEngine):
    """Runs both methods in functions compiled for this CPU; see `FusedEngine`. One caller at a time."""

    device: CompiledDevice
    name: str = "compiled"

    @property
    def n_threads(self) -> int:
        """That work on its stages, the caller's among them."""
        return self.device.pool.workers

    @contextmanager
    def telling(self, notify: Notify | None) -> Iterator[None]:
        """While `notify` is told the fraction done, from the calling thread."""
        self.device.pool.notify = notify
        try:
            yield
        finally:
            self.device.pool.notify = None
