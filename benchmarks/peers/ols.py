"""A least-squares trend, blind to phases, taken off first; then scikit-learn's GaussianMixture."""

from __future__ import annotations

from importlib.metadata import version

from .classic import least_squares_slopes
from .measure import Found, Peer, stopwatch
from .scenes import Data
from .scikit_learn import missing, mixture_of, model_of
from .script import start


def fit(data: Data, tol: float) -> Found:
    """Both steps, timed together."""
    with stopwatch() as seconds:
        slopes = least_squares_slopes(data.values, data.basis)
        flat = data.values - data.basis @ slopes
    model = model_of(data.start(flat), tol)
    with stopwatch() as more:
        model.fit(flat[:, None])
    return Found(seconds() + more(), mixture_of(model, slopes), iterations=model.n_iter_)


PEERS = (
    Peer(
        "OLS, then scikit-learn",
        fit,
        missing,
        lambda: version("scikit-learn"),
        trend="before the fit, blind to phases",
        model="flat",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
