"""A synthetic battery movie without end, so that anyone can try a live analysis with one command."""

from __future__ import annotations

from collections.abc import Iterator

from ...frames.movie import Acquisition
from ...synthetic.endless import EndlessBattery
from .arrival import Arrival, Notice, Source
from .playback import Clock

PIXEL_SIZE_UM = 0.01
N_EMPTY = 20
"""Frames at the start without Li."""


class SimulationSource(Source):
    """Frames of `EndlessBattery`, dropped where the analysis is slower than they come.

    Parameters
    ----------
    shape : (height, width). fps : frames per second; None: as fast as the analysis goes.
    seed, difficulty : as in `simulate`. after : number of the last frame that is not wanted again.
    """

    name, replays = "simulation", True

    def __init__(
        self,
        shape: tuple[int, int] = (256, 256),
        fps: float | None = 25.0,
        *,
        seed: int = 0,
        difficulty: str = "easy",
        after: int | None = None,
    ) -> None:
        self.waits = fps is None
        self._interval = 1 / (fps or 25.0)
        self.acquisition = Acquisition(PIXEL_SIZE_UM, self._interval, detector="simulation", bit_depth=8)
        self._battery = EndlessBattery(shape, seed=seed, difficulty=difficulty, n_empty=N_EMPTY)
        self._clock, self._number = Clock(fps), 0 if after is None else after + 1

    def __iter__(self) -> Iterator[Arrival | Notice]:
        while self._clock.wait():
            number = self._number
            self._number += 1
            yield Arrival(self._battery.frame(number), self._battery.shape, number, number * self._interval)

    def close(self) -> None:
        """Let the iterator end before its next frame."""
        self._clock.stop()


__all__ = ["PIXEL_SIZE_UM", "SimulationSource"]
