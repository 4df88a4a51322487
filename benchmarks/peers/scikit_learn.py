"""scikit-learn's GaussianMixture: of grey levels, of grey levels and places, and on torch through the array API."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from .classic import available
from .density import Mixture
from .measure import MAX_ITERATIONS, Found, Peer, stopwatch
from .scenes import TERMS, Data, K
from .script import start


def missing() -> str | None:
    """Why it cannot run."""
    return None if available("sklearn") else "scikit-learn is not installed"


def missing_torch() -> str | None:
    """Why the array API cannot be used."""
    return missing() or (None if available("torch") else "torch is not installed")


def model_of(start: Mixture, tol: float, asarray: Callable[[Any], Any] = np.asarray) -> Any:
    """A mixture of numbers that begins at `start`; `asarray` makes the arrays it is given."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(
        K,
        covariance_type="diag",
        tol=tol,
        max_iter=MAX_ITERATIONS,
        init_params="random",  # replaced by the given start, and cheaper than k-means
        random_state=0,
        weights_init=asarray(start.weights),
        means_init=asarray(start.means[:, None]),
        precisions_init=asarray(start.sigmas[:, None] ** -2),
    )


def mixture_of(model: Any, slopes: np.ndarray | None = None) -> Mixture:
    """Parameters of a fitted mixture of numbers."""
    arrays = (np.asarray(a) for a in (model.weights_, model.means_[:, 0], model.covariances_[:, 0]))
    weights, means, variances = arrays
    return Mixture(weights, means, np.sqrt(variances), np.zeros(len(TERMS)) if slopes is None else slopes)


def fit(data: Data, tol: float) -> Found:
    """Of grey levels alone."""
    model, column = model_of(data.start(), tol), data.values[:, None]
    with stopwatch() as seconds:
        model.fit(column)
    return Found(seconds(), mixture_of(model), iterations=model.n_iter_)


def fit_on_torch(data: Data, tol: float) -> Found:
    """The same by torch, on its GPU where there is one."""
    import torch
    from sklearn import config_context

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.asarray(values, dtype=torch.float64, device=device)

    with config_context(array_api_dispatch=True):
        model, column = model_of(data.start(), tol, tensor), tensor(data.values[:, None])
        with stopwatch() as seconds:
            model.fit(column)
    for name in ("weights_", "means_", "covariances_"):
        setattr(model, name, getattr(model, name).cpu())
    return Found(seconds(), mixture_of(model), iterations=model.n_iter_)


def fit_with_places(data: Data, tol: float) -> Found:
    """Of grey level, x and y together: a Gaussian of three numbers for each phase."""
    from sklearn.mixture import GaussianMixture

    first = data.start()
    precisions = np.stack([np.diag([sigma**-2, 3.0, 3.0]) for sigma in first.sigmas])  # of a uniform on [-1, 1]
    means = np.stack([first.means, np.zeros(K), np.zeros(K)], axis=1)
    model = GaussianMixture(
        K,
        tol=tol,
        max_iter=MAX_ITERATIONS,
        init_params="random",
        random_state=0,
        weights_init=first.weights,
        means_init=means,
        precisions_init=precisions,
    )
    features = _features(data)
    with stopwatch() as seconds:
        model.fit(features)
    rank = np.argsort(np.argsort(model.means_[:, 0]))
    labels = rank[model.predict(_features(data.scene.visited(data.scene.image.size)))]
    return Found(seconds(), labels=labels.reshape(data.scene.shape), iterations=model.n_iter_)


def _features(data: Data) -> np.ndarray:
    x, y = (data.basis[:, TERMS.index(term)] for term in ((1, 0), (0, 1)))
    return np.stack([data.values, x, y], axis=1)


PEERS = (
    Peer("scikit-learn, z", fit, missing, lambda: version("scikit-learn"), model="none"),
    Peer(
        "scikit-learn, z on torch",
        fit_on_torch,
        missing_torch,
        lambda: f"{version('scikit-learn')}, torch {version('torch')}",
        model="none",
    ),
    Peer(
        "scikit-learn, z, x, y",
        fit_with_places,
        missing,
        lambda: version("scikit-learn"),
        trend="tilted Gaussians",
        note="another likelihood; stopped at 1e-8",
    ),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
