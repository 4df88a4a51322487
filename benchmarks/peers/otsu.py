"""Otsu's thresholds, of as many classes as there are phases."""

from __future__ import annotations

import numpy as np

from .classic import otsu_thresholds
from .measure import Found, Peer, stopwatch
from .scenes import Data, K
from .script import start


def fit(data: Data, tol: float) -> Found:
    """Thresholds from the visited pixels; labels of all."""
    with stopwatch() as seconds:
        thresholds = otsu_thresholds(data.values, K)
    return Found(seconds(), labels=np.searchsorted(thresholds, data.scene.image))


PEERS = (Peer("Otsu", fit, iterative=False, version=lambda: "own code, 256 bins"),)

if __name__ == "__main__":
    start(PEERS, __spec__)
