"""A curve with the uncertainty that sub-sampling leaves."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A curve and the standard deviation of its sampling error, both (R, T) shares of the frame."""

    share: np.ndarray
    sd: np.ndarray

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of the central interval that should hold `level` (0 to 1) of the cases, within 0..1."""
        reach = NormalDist().inv_cdf(0.5 + level / 2) * self.sd
        return np.clip(self.share - reach, 0, 1), np.clip(self.share + reach, 0, 1)
