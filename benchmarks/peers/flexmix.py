"""R's flexmix: FLXMRglmfix with common slopes, an intercept and a sigma for each phase."""

from __future__ import annotations

from functools import partial

from . import rscript
from .measure import Peer
from .script import start

PEERS = (
    Peer(
        "flexmix (R)",
        partial(rscript.fit, "flexmix"),
        partial(rscript.missing, "flexmix"),
        partial(rscript.version, "flexmix"),
        trend="yes",
        note="slopes by posterior weights without 1/sigma^2, so not the likeliest where sigmas differ; stopped at 1e-8",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
