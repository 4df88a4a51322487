"""Areas and volumes (METHOD.md 8) by loops over the samples of one frame."""

from __future__ import annotations

import math


def share(labels, foreground):
    """Share of the labels that is foreground; 255 is padding."""
    real = [int(v) for v in labels if int(v) != 255]
    return sum(v == foreground for v in real) / len(real)


def slab_volume(labels, foreground, n_pixels, pixel_size_um, thickness_um):
    """um^3: share x frame area x thickness."""
    return share(labels, foreground) * n_pixels * pixel_size_um**2 * thickness_um


def revolution_volume(labels, positions, foreground, shape, n_pixels, pixel_size_um, axis, wedge_fraction=1.0):
    """um^3: each foreground sample sweeps 2 pi r x pixel area x wedge fraction; scaled from samples to pixels.

    `axis` is ("x", column) or ("y", row); r is the distance of the pixel's centre to it.
    """
    total, n = 0.0, 0
    for label, p in zip(labels, positions, strict=True):
        if int(label) == 255:
            continue
        n += 1
        if int(label) == foreground:
            y, x = divmod(int(p), shape[1])
            r = abs((x if axis[0] == "x" else y) - axis[1]) * pixel_size_um
            total += 2.0 * math.pi * r * pixel_size_um**2 * wedge_fraction
    return total * n_pixels / n
