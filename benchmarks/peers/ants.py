"""ANTs: Atropos tells classes apart with a Markov random field, on the frame, less a trend, or over N4's field."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np

from .classic import atropos_classes, available, detrended, flattened
from .measure import Found, Peer, stopwatch
from .scenes import TERMS, Data, K
from .script import start

MRF = "[0.2,1x1]"
"""Strength and reach of the random field; what ANTs uses by default."""


def missing() -> str | None:
    """Why it cannot run."""
    return None if available("ants") else "antspyx is not installed"


def fit(data: Data, tol: float, *, prepare: Callable[[np.ndarray], np.ndarray]) -> Found:
    """Ten iterations from k-means; whole frames only."""
    with stopwatch() as seconds:
        classes = atropos_classes(prepare(data.scene.image), K, MRF)
    return Found(seconds(), labels=classes)


def without_trend(image: np.ndarray) -> np.ndarray:
    """The frame less its least-squares trend."""
    flat = detrended(image.reshape(-1).astype(float), np.arange(image.size), image.shape, TERMS)
    return flat.reshape(image.shape)


def _peer(name: str, prepare: Callable[[np.ndarray], np.ndarray], trend: str) -> Peer:
    note = "labels hear their neighbours too"
    fitted = partial(fit, prepare=prepare)
    about = {"iterative": False, "unvisited": False, "whole": True, "note": note}
    return Peer(name, fitted, missing, lambda: version("antspyx"), trend=trend, **about)


PEERS = (
    _peer("ANTs Atropos", lambda image: image, "no"),
    _peer("ANTs N4 + Atropos", flattened, "before the fit, a factor"),
    _peer("OLS, then ANTs Atropos", without_trend, "before the fit, blind to phases"),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
