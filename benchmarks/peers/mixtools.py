"""R's mixtools: normalmixEM of grey levels, and regmixEM, whose phases have a trend each."""

from __future__ import annotations

from functools import partial

from . import rscript
from .measure import Peer
from .script import start

_ABOUT = {
    "missing": partial(rscript.missing, "mixtools"),
    "version": partial(rscript.version, "mixtools"),
}
PEERS = (
    Peer("mixtools normalmixEM (R)", partial(rscript.fit, "normalmix"), model="none", **_ABOUT),
    Peer(
        "mixtools regmixEM (R)",
        partial(rscript.fit, "regmix"),
        trend="one for each phase",
        note="3K - 1 + Kq parameters; stopped at 1e-8",
        **_ABOUT,
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
