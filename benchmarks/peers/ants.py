"""ANTs: N4 takes off a smooth field, Atropos tells the classes apart with a Markov random field. Whole frames only."""

from __future__ import annotations

from importlib.metadata import version

from .classic import atropos_classes, available, flattened
from .measure import Found, Peer, stopwatch
from .scenes import Data, K
from .script import start

MRF = "[0.1,1x1]"


def missing() -> str | None:
    """Why it cannot run."""
    return None if available("ants") else "antspyx is not installed"


def fit(data: Data, tol: float) -> Found:
    """Both programs with their defaults, ten iterations of Atropos."""
    with stopwatch() as seconds:
        classes = atropos_classes(flattened(data.scene.image), K, MRF)
    return Found(seconds(), labels=classes)


PEERS = (
    Peer(
        "ANTs N4 + Atropos",
        fit,
        missing,
        lambda: version("antspyx"),
        trend="before the fit, a factor",
        iterative=False,
        unvisited=False,
        note="labels also hear their neighbours",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
