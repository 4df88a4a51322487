"""pytorch-gmm: EM for one Gaussian mixture in torch, on its GPU where there is one."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from .classic import available
from .density import Mixture
from .measure import MAX_ITERATIONS, Found, Peer, stopwatch
from .scenes import TERMS, Data
from .script import start


def missing() -> str | None:
    """Why it cannot run."""
    return next((f"{name} is not installed" for name in ("torch", "pytorch_gmm") if not available(name)), None)


def fit(data: Data, tol: float, dtype: str = "float64") -> Found:
    """Diagonal covariances of one number; the counter of iterations is ours, for it tells none."""
    import torch
    from pytorch_gmm import GMM

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first = data.start()
    arrays = (first.weights, first.means[:, None], first.sigmas[:, None] ** 2, data.values[:, None])
    *begin, column = (torch.tensor(a, dtype=getattr(torch, dtype), device=device) for a in arrays)

    class Counting(GMM):
        n_iter = 0

        def _em_(self, x):
            self.n_iter += 1
            return super()._em_(x)

    model = Counting(*begin)
    with stopwatch() as seconds:
        model.train(column, n_iter=MAX_ITERATIONS, convergence_threshold=tol)
    weights, means, variances = (a.cpu().double().numpy() for a in (model.w, model.mu[:, 0], model.sigma[:, 0]))
    mixture = Mixture(weights, means, np.sqrt(variances), np.zeros(len(TERMS)))
    return Found(seconds(), mixture, iterations=model.n_iter)


def fit_single(data: Data, tol: float) -> Found:
    """In float32, where rounding of the likelihood ends the fit early."""
    return fit(data, tol, "float32")


def _version() -> str:
    return f"{version('pytorch-gmm')}, torch {version('torch')}"


PEERS = (
    Peer("pytorch-gmm", fit, missing, _version, model="none"),
    Peer("pytorch-gmm, float32", fit_single, missing, _version, model="none"),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
