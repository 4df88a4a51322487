"""From labels to shares, areas and volumes (METHOD.md 8)."""

from __future__ import annotations

import math

import numpy as np

from .backend import Array, Backend
from .classify import NOT_VISITED
from .config import QuantityConfig
from .errors import ConfigError
from .results import Scale


def make_scale(quantity: QuantityConfig, n_pixels: int, pixel_size_um: float | None) -> Scale:
    """What a share is worth. The user's pixel size wins over the file's; without one there is no um^2.

    Slab: volume = area x thickness. Revolution: each pixel weighs 2 pi x distance to the axis x pixel area x wedge
    fraction; see `volume_weights`.
    """
    size = quantity.pixel_size_um or pixel_size_um
    if quantity.geometry == "revolution" and size is None:
        raise ConfigError("a volume of revolution needs the pixel size; give --pixel-size, for example 5nm")
    if size is None:
        return Scale(n_pixels)
    area = size * size
    if quantity.geometry == "revolution":
        return Scale(n_pixels, area, area)
    return Scale(n_pixels, area, None if quantity.thickness_um is None else area * quantity.thickness_um)


def volume_weights(shape: tuple[int, int], quantity: QuantityConfig, pixel_size_um: float | None) -> np.ndarray | None:
    """(height * width,) float64 weights in um that turn a share into a volume share; None for a slab (weight 1)."""
    if quantity.geometry == "slab":
        return None
    size = quantity.pixel_size_um or pixel_size_um
    assert size is not None, "make_scale has checked this"
    axis, position = quantity.axis_position
    y, x = np.indices(shape, dtype=np.float64)
    distance = np.abs((x if axis == "x" else y) - position) * size
    return (2 * math.pi * quantity.wedge_fraction * distance).reshape(-1)


def count_share(labels: Array, foreground: int, *, backend: Backend) -> np.ndarray:
    """(R,) share of the visited samples (R, m) whose label is the foreground; NaN where none was visited."""
    return _weighted_share(labels, foreground, None, backend)


def weighted_share(labels: Array, positions: Array, foreground: int, weights: Array, *, backend: Backend) -> np.ndarray:
    """(R,) mean over visited samples of label x weight at its pixel (`volume_weights`, on the device)."""
    xp = backend.xp
    weight = xp.reshape(xp.take(weights, xp.reshape(positions, (-1,))), labels.shape)
    return _weighted_share(labels, foreground, weight, backend)


def _weighted_share(labels: Array, foreground: int, weight: Array | None, backend: Backend) -> np.ndarray:
    xp = backend.xp
    hit = xp.astype(labels == foreground, xp.float64)
    visited = backend.to_host(xp.sum(xp.astype(labels != NOT_VISITED, xp.float64), axis=1))
    total = backend.to_host(xp.sum(hit if weight is None else hit * weight, axis=1))
    return np.where(visited > 0, total / np.maximum(visited, 1), np.nan)
