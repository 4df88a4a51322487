"""Tiny movies for the tests of the movie-level fit, and all that a fit says in one dictionary."""

from dataclasses import fields

import numpy as np
import pytest
from backends import NUMPY64, other_backends

from gmrm_gpu.config import MixtureConfig

BACKENDS = [pytest.param(lambda: NUMPY64, id="numpy"), *other_backends()]
ODD = (37, 53)  # no cell divides it
SMALL = MixtureConfig(n_components=2, trend="linear")
THREE = MixtureConfig(n_components=3)


def tiny(seed=0, shape=ODD, n_frames=3, m=60, rows=1, levels=(60.0, 120.0), sd=6.0):
    """Values and positions (R, T, m): a disk of the second level that moves to the right, and a sloping trend."""
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    places = np.stack([np.stack([rng.permutation(n)[:m] for _ in range(n_frames)]) for _ in range(rows)]).astype(
        np.int32
    )
    y, x = places // shape[1], places % shape[1]
    t = np.arange(n_frames)[None, :, None]
    inside = (x - 0.3 * shape[1] - t) ** 2 + (y - 0.5 * shape[0]) ** 2 < 0.15 * n
    z = np.array(levels)[inside.astype(int)] + 8 * x / shape[1] + t + sd * rng.normal(size=places.shape)
    return z, places


def host(backend, array):
    return np.asarray(backend.to_host(array), dtype=np.float64)


def everything(model, foreground=((False, True),), **options):
    """All arrays of a fit and its labels, by name, replicates first."""
    fit = model.fit()
    labels = model.label(np.repeat(np.array(foreground), len(fit.drift), axis=0), **options)
    found = {f"common.{name}": value for name, value in fit.common.arrays().items()}
    found |= {f"frames.{name}": value for name, value in fit.frames.arrays().items()}
    found |= {f.name: getattr(labels, f.name) for f in fields(labels) if getattr(labels, f.name) is not None}
    return {**found, "drift": fit.drift}
