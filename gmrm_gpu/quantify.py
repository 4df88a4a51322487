"""What a share of the frame is worth: area and volume (METHOD.md 8)."""

from __future__ import annotations

import math

import numpy as np

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
