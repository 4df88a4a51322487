"""No program: the true parameters. More than their labels get right no fit of single pixels can hope for."""

from __future__ import annotations

import numpy as np

from .density import Mixture
from .measure import Found, Peer
from .scenes import COEF, LEVELS, REVERSED, Data, K
from .script import start

NAME = "true parameters"


def fit(data: Data, tol: float) -> Found:
    """The grey levels the frame was made with, the shares of its phases."""
    scene = data.scene
    means, sigmas = (np.array(levels) for levels in LEVELS[scene.name.partition(",")[0]])
    shares = np.bincount(scene.truth.reshape(-1), minlength=K) / scene.truth.size
    slopes = np.array(COEF) * (-1 if scene.name == REVERSED else 1)
    return Found(0.0, Mixture(shares, means, sigmas, slopes))


PEERS = (Peer(NAME, fit, trend="given", iterative=False, version=lambda: "no program"),)

if __name__ == "__main__":
    start(PEERS, __spec__)
