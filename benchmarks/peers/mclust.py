"""R's mclust: EM for a mixture of numbers, in Fortran."""

from __future__ import annotations

from functools import partial

from . import rscript
from .measure import Peer
from .script import start

PEERS = (
    Peer(
        "mclust (R)",
        partial(rscript.fit, "mclust"),
        partial(rscript.missing, "mclust"),
        partial(rscript.version, "mclust"),
        model="none",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
