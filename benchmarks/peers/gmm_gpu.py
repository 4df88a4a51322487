"""gmm-gpu: EM for a batch of Gaussian mixtures in torch, on its GPU where there is one."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from .classic import available
from .density import Mixture
from .measure import MAX_ITERATIONS, Found, Peer, stopwatch
from .scenes import TERMS, Data, K
from .script import start


def missing() -> str | None:
    """Why it cannot run."""
    return next((f"{name} is not installed" for name in ("torch", "gmm_gpu") if not available(name)), None)


def fit(data: Data, tol: float) -> Found:
    """A batch of one, in float32: its k-means, which runs even where the start is given, knows no other precision."""
    import torch
    from gmm_gpu.gmm import GMM

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first = data.start()
    arrays = (first.weights[None], first.means[None, :, None], first.sigmas[None, :, None, None] ** -2)
    # Made anew for each fit, which overwrites them.
    weights, means, precisions = (torch.tensor(a, dtype=torch.float32, device=device) for a in arrays)
    model = GMM(
        K,
        max_iter=MAX_ITERATIONS,
        device=device,
        tol=tol,
        means_init=means,
        weights_init=weights,
        precisions_init=precisions,
        random_seed=0,
    )
    column = torch.tensor(data.values[None, :, None], dtype=torch.float32)
    with stopwatch() as seconds:
        model.fit(column)
    found = [np.array([float(part[0].reshape(-1)[0]) for part in parts]) for parts in (model.means, model.covs)]
    weights = np.array([float(part[0]) for part in model._pi])
    mixture = Mixture(weights, found[0], np.sqrt(found[1]), np.zeros(len(TERMS)))
    return Found(seconds(), mixture, iterations=int(model.convergence_iters[0]))


PEERS = (
    Peer(
        "gmm-gpu",
        fit,
        missing,
        lambda: f"{version('gmm-gpu')}, torch {version('torch')}",
        model="none",
        batches=True,
        note="float32; its k-means runs although the start is given",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
