"""When the model is fitted anew to the sample of the past, and the thread that does it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np

from ..backend import Backend
from ..mixture.causal import Proposal

AT_ONCE = 16
"""Up to so many frames a fit is waited for: it is short, and the next frame needs it."""
EARLY = (1, 2, 4, 7, 10, 13, 16)
GROWTH, GROWTH_LATER, LATER, LONGEST = 1.25, 1.5, 32, 512
"""The model is fitted at these numbers of frames; then when there are so many times the frames of the last time, the
second from `LATER` frames on, or so many frames more."""
_DELAY = 8
"""A fit to n frames is adopted n / 8 frames later."""

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values, positions and validity (T, m) of the sample of the past."""


def next_fit(n_seen: int) -> int:
    """Number of frames at which to fit after a fit to `n_seen`."""
    for early in EARLY:
        if n_seen < early:
            return early
    growth = GROWTH if n_seen < LATER else GROWTH_LATER
    return max(n_seen + 1, min(math.ceil(growth * n_seen), n_seen + LONGEST))


class Refit:
    """A fit that runs beside the analysis and is adopted at a frame that is known beforehand.

    So the answer does not depend on how fast it runs: where it is not done in time, it is waited for.

    Attributes
    ----------
    rows : what is fitted. number : of the frame it was started at. n_seen : number of frames until then.
    """

    def __init__(
        self, fit: Callable[[Rows, int], Proposal], rows: Rows, number: int, n_seen: int, backend: Backend
    ) -> None:
        self.rows, self.number, self.n_seen = rows, number, n_seen
        self._found: Proposal | None = None
        self._error: BaseException | None = None

        def work() -> None:
            try:
                backend.activate()
                self._found = fit(rows, number)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=work, name="gmrm-gpu fit", daemon=True)
        self._thread.start()

    @property
    def due(self) -> int:
        """Number of frames at which it is adopted."""
        delay = 0 if self.n_seen <= AT_ONCE else min(self.n_seen, LONGEST) // _DELAY
        return self.n_seen + delay

    def result(self) -> Proposal:
        """The fit, waited for."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found
