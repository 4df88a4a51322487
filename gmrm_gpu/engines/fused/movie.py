"""Movies fitted as a whole: settling, labels and expectations, each one launch (`kernels/movie_*.cu`, METHOD.md 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...backend import Array
from .fit import FitArrays
from .launch import Device
from .movie_plan import MovieSizes, TeamPlan, n_parts, plan_pool


@dataclass(frozen=True)
class Pooled:
    """What the starts of R movies are fitted to, on the device.

    Attributes
    ----------
    words : (R, 1, n) samples of an even subset of all frames. broken : (R,) uint32, not 0: a sample is not finite.
    """

    words: Array
    broken: Array


@dataclass(frozen=True)
class SettledArrays:
    """R movies that have settled, on the device.

    Attributes
    ----------
    units : (R, 2) float64, centre and scale in grey levels; the rest is standardised by them.
    common : (R, 3K + max(q, 1) + 1) float64: means, sigmas, coefficients, pivot, 1 for each component not dropped.
    weights : (R, T, K). drift : (R, T, q + 2). log_likelihood : (R, T). moved : (R,). n_iter : (R,) int32.
    n_seen : (R, T) int32, samples that the parameters were fitted to.
    made : (R, T, K, rows, columns) uint32, the last pass's deposits in steps of 1/65536.
    """

    units: Array
    common: Array
    weights: Array
    drift: Array
    log_likelihood: Array
    moved: Array
    n_iter: Array
    n_seen: Array
    made: Array

    @staticmethod
    def empty(sizes: MovieSizes, device: Device) -> SettledArrays:
        """Memory for them."""
        r, t, k = sizes.n_replicates, sizes.n_frames, sizes.mixture.n_components
        return SettledArrays(
            device.empty((r, 2), np.float64),
            device.empty((r, sizes.n_common), np.float64),
            device.empty((r, t, k), np.float64),
            device.empty((r, t, sizes.n_drift), np.float64),
            device.empty((r, t), np.float64),
            device.empty((r,), np.float64),
            device.empty((r,), np.int32),
            device.empty((r, t), np.int32),
            device.empty((r, t, k, *sizes.grid(sizes.settle_levels)), np.uint32),
        )


def pool_samples(words: Array, sizes: MovieSizes, device: Device) -> Pooled:
    """From words (R, T, m)."""
    r, t = sizes.n_replicates, sizes.n_frames
    broken = device.zeros((r,), np.uint32)
    launch = plan_pool(sizes)
    whole = sizes.n_start == sizes.m
    pooled = words.reshape(r, 1, t * sizes.m) if whole else device.empty((r, 1, t * sizes.n_start), words.dtype)
    if launch is not None:
        numbers = (np.int64(n) for n in (r, t, sizes.m, sizes.n_start, sizes.stride))
        launch.run(device, (words, *numbers, None if whole else pooled, broken))
    return Pooled(pooled, broken)


def settle_movies(
    plan: TeamPlan,
    sizes: MovieSizes,
    words: Array,
    pooled: Pooled,
    start: FitArrays,
    *,
    sigma_floor: float,
    device: Device,
) -> SettledArrays:
    """Fit words (R, T, m) from `start`, the fits to the pooled samples, until the parameters settle.

    sigma_floor : grey levels.
    """
    mixture, t = sizes.mixture, sizes.n_frames
    size = sizes.map_size(sizes.settle_levels)
    out = SettledArrays.empty(sizes, device)
    scratch = (
        device.empty((plan.n_teams * t * sizes.n_fit if sizes.n_fit < sizes.m else 1,), words.dtype),
        device.empty((plan.n_teams * t * size,), np.float32),
        device.empty((plan.n_teams * t * sizes.n_numbers,), np.float64),
        device.empty((plan.launch.blocks * 2 * size,), np.float32),
        device.zeros((1 + 3 * plan.n_teams,), np.uint32),
    )
    plan.launch.run(
        device,
        (
            words,
            pooled.words,
            np.int64(pooled.words.shape[-1]),
            *(np.int32(number) for number in (sizes.n_replicates, t)),
            *(np.int64(number) for number in (sizes.m, sizes.n_fit, sizes.stride)),
            *(np.int32(number) for number in (*sizes.shape, sizes.settle_levels)),
            *(start.status, pooled.broken, start.weights, start.means, start.sigmas, start.coef),
            np.float64(sigma_floor if mixture.sigma_floor is None else mixture.sigma_floor),
            np.float64(mixture.trend_prior or 0.0),
            np.float64(mixture.drift),
            np.int32(plan.team_size),
            *(getattr(out, name) for name in out.__dataclass_fields__),
            *scratch,
        ),
    )
    return out


@dataclass(frozen=True)
class Reading:
    """What labels and expectations are read with, on the device: (R,) usable, (R, K) foreground, (R, K) label_of.

    All uint8, components in the order of `SettledArrays.common`.
    """

    usable: Array
    foreground: Array
    label_of: Array


def label_movies(
    plan: TeamPlan,
    sizes: MovieSizes,
    words: Array,
    settled: SettledArrays,
    reading: Reading,
    *,
    n_remap: int,
    device: Device,
) -> tuple[Array, Array]:
    """Labels (R, T, m) uint8 and the posterior (R, T, m) float32 of the foreground, from all other frames.

    n_remap : passes in which the finest maps settle.
    """
    size, k = sizes.map_size(sizes.label_levels), sizes.mixture.n_components
    labels, posterior = device.empty(words.shape, np.uint8), device.empty(words.shape, np.float32)
    maps = plan.n_teams * sizes.n_frames * size
    scratch = (
        device.empty((plan.n_teams * sizes.n_frames * k,), np.float64),
        device.empty((maps,), np.uint32),
        device.empty((maps,), np.float32),
        device.empty((plan.launch.blocks * 2 * size,), np.float32),
        device.empty((plan.launch.blocks * n_parts(sizes.m) * k,), np.float64),
        device.zeros((1 + 2 * plan.n_teams,), np.uint32),
    )
    plan.launch.run(
        device,
        (
            words,
            *(np.int32(number) for number in (sizes.n_replicates, sizes.n_frames)),
            np.int64(sizes.m),
            *(np.int32(n) for n in (*sizes.shape, sizes.settle_levels, sizes.label_levels, n_remap)),
            *(reading.usable, settled.units, settled.common, settled.weights, settled.drift, settled.made),
            *(reading.foreground, reading.label_of),
            np.int32(plan.team_size),
            *(labels, posterior),
            *scratch,
        ),
    )
    return labels, posterior


def expect_movies(
    plan: TeamPlan,
    sizes: MovieSizes,
    words: Array,
    settled: SettledArrays,
    reading: Reading,
    pixel_shares: np.ndarray,
    *,
    device: Device,
) -> tuple[Array, Array]:
    """What earlier frames expect of the foreground: (R, T, m) float32 at the samples, (R, T, n) float64 over all cells.

    pixel_shares : (cells, n) float64, ways to weigh the cells of `sizes.past_levels`.
    """
    size = sizes.map_size(sizes.past_levels)
    expected = device.empty(words.shape, np.float32)
    means = device.empty((*words.shape[:2], sizes.n_ways), np.float64)
    scratch = (
        device.zeros((plan.n_teams * size,), np.uint32),
        device.empty((plan.n_teams * size,), np.float32),
        device.empty((plan.n_teams * 2 * size,), np.float32),
        device.empty((plan.n_teams * sizes.n_past_parts,), np.float64),
        device.zeros((1 + 2 * plan.n_teams,), np.uint32),
    )
    plan.launch.run(
        device,
        (
            words,
            *(np.int32(number) for number in (sizes.n_replicates, sizes.n_frames)),
            np.int64(sizes.m),
            *(np.int32(number) for number in (*sizes.shape, sizes.past_levels)),
            *(reading.usable, settled.units, settled.common, settled.drift, reading.foreground),
            device.asarray(np.ascontiguousarray(pixel_shares)),
            np.int32(plan.team_size),
            *(expected, means),
            *scratch,
        ),
    )
    return expected, means
