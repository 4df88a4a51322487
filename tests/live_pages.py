"""Frames as a live analysis gives them, a page to show them on, and one request to it."""

from __future__ import annotations

import http.client
from contextlib import closing
from dataclasses import replace

import numpy as np

from gmrm_gpu.live.page import LivePage
from gmrm_gpu.live.update import LiveFrame, LiveState
from gmrm_gpu.results import FitStatus, MixtureFit

H, W = 24, 36
EVIL = "</script><img src=x onerror=\"document.title='owned'\">"
STATE = LiveState(1, 0, 0, 0.1, (8.25, 14.5), (), 0, False)
ONE = np.array(0)
FIT = MixtureFit(np.full(2, 0.5), np.array([40.0, 158.25]), np.ones(2), np.zeros(0), ONE, ONE, ONE, ONE)


def frame_at(index: int, *, rate: float = 0.1, dense: bool = False, share: float = 0.25, **changes) -> LiveFrame:
    rng = np.random.default_rng(index)
    visited = rng.random((H, W)) < rate
    picture = rng.integers(10, 200, (H, W)).astype(np.float32)
    labels = np.where(visited, 1 + (picture > 120), 0).astype(np.uint8)
    values = dict.fromkeys(("share", "count", "posterior", "assisted", "share_raw"), share)
    values |= {f"{name}_sd": 0.01 for name in ("share", "count", "posterior", "assisted")}
    made = LiveFrame(
        index=index,
        number=index + 100,
        time_s=0.5 * index,
        n_samples=int(visited.sum()),
        visited_share=float(visited.mean()),
        **values,
        n_without_neighbours=0,
        fit=FIT,
        foreground=np.array([False, True]),
        status=FitStatus.CONVERGED,
        labels=labels,
        picture=picture if dense else np.where(visited, picture, np.nan).astype(np.float32),
        alarms=(),
        latency_s=0.008,
    )
    return replace(made, **changes)


def make_page(**changes) -> LivePage:
    settings = {"title": "cell 7.dm4", "shape": (H, W), "phase_names": ("background", "Li"), "foreground": 1}
    return LivePage(**{**settings, "unit": "px", "factor": float(H * W), **changes})


def ask(page: LivePage, path: str, *, token: str | None = None, host: str | None = None, method: str = "GET"):
    """(status, headers, content) of one request; the token is put in unless another is given."""
    given = page.token if token is None else token
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
    with closing(connection):
        connection.putrequest(method, f"{path}?token={given}" if given else path, skip_host=True)
        for name in [f"127.0.0.1:{page.port}"] if host is None else host.split("\n") if host else []:
            connection.putheader("Host", name)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
