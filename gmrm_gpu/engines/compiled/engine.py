"""The compiled engine: the host side of the fused one, with the CPU as its device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...config import AnalysisConfig
from ...correct import time_offsets
from ...sampling import Sampler
from ..fused import FusedEngine
from ..fused.correct import is_active
from ..fused.engine import MovieFrames
from .device import CompiledDevice
from .pool import Notify


@dataclass
class CompiledEngine(FusedEngine):
    """Runs both methods in functions compiled for this CPU; see `FusedEngine`. One caller at a time."""

    device: CompiledDevice
    name: str = "compiled"

    def block_bytes(self, movie: MovieFrames, sampler: Sampler, config: AnalysisConfig, budget: int) -> tuple[int, int]:
        """As `FusedEngine.block_bytes`, with what threads correct labels with."""
        fixed, each = super().block_bytes(movie, sampler, config, budget)
        if config.method == "movie" or not is_active(config.correction):
            return fixed, each
        from .correct import _FEWEST_FRAMES  # here: it needs Numba

        reach, offsets = int(config.correction.radius_px), time_offsets(config.correction)
        n_slots = min(max(offsets, default=0) - min(offsets, default=0) + 1, len(movie.numbers))
        plane = _plane_bytes(movie.shape, reach) * len(config.phases.names)
        threads = min(self.device.pool.workers, -(-len(movie.numbers) // max(2 * n_slots, _FEWEST_FRAMES)))
        return fixed, each + threads * (n_slots * plane + 16 * sampler.capacity)

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


def _plane_bytes(shape: tuple[int, int], reach: int) -> int:
    """Of a bit map of one phase with room for neighbourhoods of `reach` pixels around it; see `ball.make_ball`."""
    height, width = shape
    reach = min(reach, max(height, width) - 1)
    columns = 2 * -(-reach // 32) + -(-width // 32) + 2
    return 4 * columns * (height + 2 * reach + 16)
