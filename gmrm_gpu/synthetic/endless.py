"""A battery that is charged and discharged without end, one frame at a time: a stream to try things on."""

from __future__ import annotations

from typing import Any

import numpy as np

from .battery import BatteryScene
from .options import BatteryOptions, check_movie, n_empty_frames, scene_options
from .recording import Recorder, conditions, margin_of


class EndlessBattery:
    """Frames of a battery whose Li grows and is stripped, then the same backwards, and so on, with ever new noise.

    Memory is that of one scene, however many frames are taken. The first `cycle` frames are those that `simulate`
    makes with ``n_frames=cycle``.

    Parameters
    ----------
    shape : (H, W), each at least 16. cycle : frames until the course turns round, at least 2.
    seed, bits, difficulty, options : as in `simulate`.
    """

    def __init__(
        self,
        shape: tuple[int, int] = (256, 256),
        *,
        cycle: int = 600,
        seed: int = 0,
        bits: int = 8,
        difficulty: str = "easy",
        **options: Any,
    ) -> None:
        height, width, self._cycle, seed = check_movie(shape, max(cycle, 2), seed, bits)
        self.shape = (height, width)
        self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
        chosen = scene_options("battery", difficulty, options)
        assert isinstance(chosen, BatteryOptions)
        course = conditions(chosen, self._cycle, self.shape, seed)
        margin, n_empty = margin_of(course), n_empty_frames(chosen, self._cycle)
        self._scene = BatteryScene(chosen, self.shape, self._cycle, n_empty, margin, seed)
        fullest = self._scene.labels(self._scene.fullest)
        self._recorder = Recorder(chosen, course, self.shape, margin, seed, bits, fullest)

    def truth(self, number: int) -> np.ndarray:
        """(H, W) uint8 truth of a frame: 0 electrolyte, 1 electrode, 2 Li."""
        t = self._place(number)
        return self._scene.labels(t)[self._recorder.window(t)]

    def frame(self, number: int) -> np.ndarray:
        """(H, W) frame of that number, from 0 up to any."""
        t = self._place(number)
        return self._recorder.frame(t, self.truth(number), self._scene.overlay(t), noise=number)

    def _place(self, number: int) -> int:
        """Frame of the cycle: 0, 1, ..., n - 1, n - 2, ..., 1, 0, 1, ..."""
        step = number % (2 * self._cycle - 2)
        return min(step, 2 * self._cycle - 2 - step)


__all__ = ["EndlessBattery"]
