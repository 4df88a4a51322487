"""Movies that leave a fit little or nothing, by family: issue 6's table of degenerate fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

T, HEIGHT, WIDTH = 5, 13, 17
HIDDEN = (1, 3)
"""Frames that a look at the first, middle and last frame does not see."""
TRENDS = ("none", "linear", "quadratic+electrode")
ON_FOUR_PIXELS = ("quadratic", "x2", "quadratic+electrode")
DTYPES = ("uint8", "uint16", "float32", "float64")


@dataclass(frozen=True)
class Scene:
    """A movie before it is opened: grey levels (T, height, width), what `open_movie` is told, and a trend."""

    stack: np.ndarray
    options: dict[str, Any]
    trend: str


@dataclass(frozen=True)
class Call:
    """What a family makes its scene of: components, trend, dtype, which frames are spoilt, and a generator."""

    k: int
    trend: str
    dtype: np.dtype
    spoilt: tuple[int, ...]
    rng: np.random.Generator

    def good(self, *, n_levels: int = 3, noise: float = 5.0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
        """A movie that nothing is wrong with, float64."""
        levels = np.linspace(50, 180, n_levels)[self.rng.integers(n_levels, size=(T, *shape))]
        return np.rint(levels + noise * self.rng.standard_normal(levels.shape)) + np.arange(shape[1]) // 3

    def cast(self, stack: np.ndarray) -> np.ndarray:
        """Grey levels in the type of the movie; whole numbers are cut off at its ends."""
        if self.dtype.kind == "f":
            return stack.astype(self.dtype)
        ends = np.iinfo(self.dtype)
        return np.clip(np.rint(stack), ends.min, ends.max).astype(self.dtype)

    def scene(self, stack: np.ndarray, **options: Any) -> Scene:
        """A scene of this call's trend."""
        return Scene(self.cast(stack), options, self.trend)

    def level(self, value: float) -> Scene:
        """All pixels of the spoilt frames at one grey level."""
        stack = self.good()
        stack[list(self.spoilt)] = value
        return self.scene(stack)

    def seen(self, where: np.ndarray) -> Scene:
        """Only the pixels `where` of the spoilt frames were visited."""
        visited = np.ones((T, HEIGHT, WIDTH), dtype=bool)
        visited[list(self.spoilt)] = where
        return self.scene(self.good(), visited=visited)

    def few(self, n: int) -> Scene:
        """Only `n` pixels of the spoilt frames were visited."""
        where = np.zeros(HEIGHT * WIDTH, dtype=bool)
        where[self.rng.permutation(where.size)[:n]] = True
        return self.seen(where.reshape(HEIGHT, WIDTH))

    def unknown(self, value: float) -> Scene:
        """One pixel of the spoilt frames holds `value`, excluded or said to be not visited or neither.

        Whole numbers cannot hold it: there it is only said.
        """
        stack, mask = self.good(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        if self.dtype.kind != "f":
            return self.scene(stack, unvisited=value)
        stack[list(self.spoilt), 4, 5], mask[4, 5] = value, 1
        ways: tuple[dict[str, Any], ...] = ({}, {"exclude": mask}, {"unvisited": value})
        return self.scene(stack, **ways[self.rng.integers(3)])


def _two_values(call: Call) -> Scene:
    stack = call.good()
    for t in call.spoilt:
        stack[t] = np.where(call.rng.random((HEIGHT, WIDTH)) < 0.4, 60.0, 140.0)
    return call.scene(stack)


def _saturated(call: Call) -> Scene:
    stack = call.good()
    for t in call.spoilt:
        stack[t] = np.minimum(stack[t] + 120, 255)
        stack[t][call.rng.random((HEIGHT, WIDTH)) < 0.55] = 255
    return call.scene(stack)


def _masked(call: Call) -> Scene:
    if len(call.spoilt) == T:
        return call.scene(call.good(), exclude=np.ones((HEIGHT, WIDTH), dtype=np.uint8))
    return call.seen(np.zeros((HEIGHT, WIDTH), dtype=bool))


def _one_row(call: Call) -> Scene:
    where = np.zeros((HEIGHT, WIDTH), dtype=bool)
    where[6] = True
    return call.seen(where)


def _one_pixel(call: Call) -> Scene:
    stack = call.good(n_levels=1, noise=3.0)
    stack[list(call.spoilt), 7, 9] = 250
    return call.scene(stack)


def _empty(call: Call) -> Scene:
    stack = call.good(n_levels=2, noise=0.4)
    stack[list(call.spoilt), 0, 0] = 255  # a start spread between the ends puts components where nothing is
    return call.scene(stack)


def _scaled(call: Call) -> Scene:
    """Whole numbers cannot be scaled so far: as little and as much as their type holds."""
    large = bool(call.rng.integers(2))
    if call.dtype.kind == "f":
        return call.scene(call.good() * (1e12 if large else 1e-12))
    top = np.iinfo(call.dtype).max if large else 1
    return call.scene(np.clip((call.good() - 50) / 130, 0, 1) * top)


def _four_pixels(call: Call) -> Scene:
    stack = call.cast(call.good(shape=(2, 2)))
    return Scene(stack, {}, ON_FOUR_PIXELS[TRENDS.index(call.trend)])


def _outlier(call: Call) -> Scene:
    stack = call.good()
    stack[list(call.spoilt)] = 100
    stack[list(call.spoilt), 3, 11] = 250
    return call.scene(stack)


FAMILIES: dict[str, Callable[[Call], Scene]] = {
    "all identical": lambda call: call.level(117),
    "two values": _two_values,
    "all 0": lambda call: call.level(0),
    "all 255": lambda call: call.level(255),
    "over half saturated": _saturated,
    "NaN": lambda call: call.unknown(np.nan),
    "infinity": lambda call: call.unknown(np.inf),
    "all masked": _masked,
    "one sample": lambda call: call.few(1),
    "fewer samples than components": lambda call: call.few(call.k - 1),
    "fewer samples than terms": lambda call: call.few(max(2, call.k + 1)),
    "one row of positions": _one_row,
    "a one-pixel component": _one_pixel,
    "an empty component": _empty,
    "K far too large": lambda call: call.scene(call.good(n_levels=1, shape=(5, 6))),
    "scale 1e-12 and 1e12": _scaled,
    "quadratic trend on 2 x 2": _four_pixels,
    "constant plus one outlier": _outlier,
}
