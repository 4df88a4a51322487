"""Frames and labels as RGB arrays: everything a picture shows at pixel level, in NumPy alone.

An RGB array is (height, width, 3) float64 in 0..1. Large frames are reduced first, so that no resampling at
drawing time can lose a sampled pixel.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

MAX_PANEL_PX = 560
UNVISITED = "#1F3358"
"""Where the beam never went: no grey, and darker than any phase."""


def reduction(shape: tuple[int, int]) -> int:
    """Block size that brings a frame down to `MAX_PANEL_PX` on its longer side."""
    return max(1, -(-max(shape) // MAX_PANEL_PX))


def _blocks(array: np.ndarray, step: int) -> np.ndarray:
    height, width = (max(1, n // step) for n in array.shape)
    step_y, step_x = min(step, array.shape[0]), min(step, array.shape[1])
    cut = array[: height * step_y, : width * step_x]
    return cut.reshape(height, step_y, width, step_x).swapaxes(1, 2).reshape(height, width, step_y * step_x)


def reduce_image(image: np.ndarray, step: int) -> np.ndarray:
    """Block means, float64, of what is not NaN."""
    image = np.asarray(image, dtype=float)
    if step == 1:
        return image
    blocks = _blocks(image, step)
    count = np.isfinite(blocks).sum(axis=-1)
    return np.where(count > 0, np.nansum(blocks, axis=-1) / np.maximum(count, 1), np.nan)


def enlarge(image: np.ndarray) -> np.ndarray:
    """`image` with its visited pixels drawn larger, so that few of them can be seen; NaN stays between them.

    Each takes the pixels nearest to it, up to a third of the mean distance between visited pixels.
    """
    unvisited = ~np.isfinite(image)
    share = 1 - unvisited.mean()
    if not 0 < share < 1:
        return image
    distance, nearest = distance_transform_edt(unvisited, return_indices=True)
    reach = max(1.0, 0.35 / np.sqrt(share))
    return np.where(distance <= reach, image[tuple(nearest)], np.nan)


def reduce_mask(mask: np.ndarray, step: int, *, any_pixel: bool = False) -> np.ndarray:
    """Blocks of which at least half (or, with `any_pixel`, one) is set."""
    mask = np.asarray(mask, dtype=bool)
    if step == 1:
        return mask
    blocks = _blocks(mask, step)
    return np.asarray(blocks.any(axis=-1) if any_pixel else blocks.mean(axis=-1) >= 0.5)


def is_detail(shape: tuple[int, ...]) -> bool:
    """Whether `detail` cuts a frame of this shape."""
    return max(shape) > MAX_PANEL_PX


def detail(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of a frame, at most `MAX_PANEL_PX` high and wide, around the middle of `mask`."""
    places = np.argwhere(mask)
    middle = np.median(places, axis=0) if len(places) else np.array(mask.shape) / 2
    cuts = []
    for centre, n in zip(middle, mask.shape, strict=True):
        size = min(n, MAX_PANEL_PX)
        start = int(np.clip(round(float(centre)) - size // 2, 0, n - size))
        cuts.append(slice(start, start + size))
    return cuts[0], cuts[1]


def grey_range(images: np.ndarray, valid: np.ndarray | None = None) -> tuple[float, float]:
    """Grey levels drawn black and white: the 0.5 and 99.5 % quantiles of what is valid and finite."""
    values = np.asarray(images, dtype=float)
    values = values[..., valid] if valid is not None and valid.any() else values
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def grey(image: np.ndarray, limits: tuple[float, float], brightness: float = 1.0) -> np.ndarray:
    """A frame in grey between `limits`; NaN is `UNVISITED`."""
    scaled = (np.asarray(image, dtype=float) - limits[0]) / (limits[1] - limits[0])
    seen = np.isfinite(scaled)
    picture = np.repeat(np.clip(np.where(seen, scaled, 0.0), 0.0, 1.0)[..., None], 3, axis=-1)
    picture[~seen] = rgb(UNVISITED)
    return picture * brightness


def rgb(colour: str) -> np.ndarray:
    """``"#E69F00"`` -> three numbers in 0..1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def paint(picture: np.ndarray, mask: np.ndarray, colour: str, alpha: float = 1.0) -> None:
    """Lay `colour` over the pixels of `mask`, in place."""
    picture[mask] = (1 - alpha) * picture[mask] + alpha * rgb(colour)


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` with a neighbour outside it (4-neighbours; the frame's border does not count)."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def thicken(mask: np.ndarray) -> np.ndarray:
    """`mask` and its 4-neighbours: single pixels that can be seen."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | mask


def hatch(picture: np.ndarray, valid: np.ndarray | None) -> None:
    """Draw excluded pixels as grey stripes, in place."""
    if valid is None or valid.all():
        return
    height, width = valid.shape
    period = max(4, max(height, width) // 40)
    stripes = (np.add.outer(np.arange(height), np.arange(width)) // (period // 2)) % 2 == 0
    paint(picture, ~valid & stripes, "#9A9A9A")
    paint(picture, ~valid & ~stripes, "#6B6B6B")
