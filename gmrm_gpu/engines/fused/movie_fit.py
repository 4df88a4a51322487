"""The method ``"movie"`` from drawn samples to labels, in a few launches; the host looks at the parameters once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...backend import Array
from ...classify import component_phases, movie_foreground
from ...config import PhaseConfig
from ...mixture.design import TrendBasis
from ...mixture.maps import CellMaps
from ...mixture.movie import N_REMAP
from ...mixture.movie_result import component_order, movie_fit
from ...mixture.movie_settle import Settled
from ...mixture.movie_steps import MovieParameters, MovieSteps
from ...results import FitStatus, MovieFit
from ..generic import LabelledMovie
from ..source import KernelSource
from .fit import FitArrays, FitKeys, plan_fit, run_fit
from .launch import Device, Launch
from .movie import Pooled, Reading, SettledArrays, expect_movies, label_movies, pool_samples, settle_movies
from .movie_plan import (
    HOST,
    MovieSizes,
    Room,
    label_launch,
    past_launch,
    plan_labels,
    plan_past,
    plan_pool,
    plan_settle,
    settle_launch,
)


@dataclass(frozen=True)
class FittedMovie:
    """Movies that have settled: what the host knows of them, and where the kernels left the rest.

    Attributes
    ----------
    fit : in grey levels, components in ascending mean. order : (R, K), which component of `arrays` stands where in it.
    """

    fit: MovieFit
    order: np.ndarray
    arrays: SettledArrays


def fit_movies(
    words: Array,
    sizes: MovieSizes,
    *,
    keys: FitKeys,
    sigma_floor: float,
    room: Callable[[Launch], Room],
    device: Device,
) -> FittedMovie:
    """Fit words (R, T, m) as whole movies.

    keys : of the replicates; frames (1,), the number that the random numbers of the start belong to.
    room : what a launch like the one given may use.
    """
    pooled = pool_samples(words, sizes, device)
    start = fit_start(pooled, sizes, keys=keys, sigma_floor=sigma_floor, device=device)
    plan = plan_settle(sizes, room(settle_launch(sizes)))
    arrays = settle_movies(plan, sizes, words, pooled, start, sigma_floor=sigma_floor, device=device)
    return on_host(arrays, sizes, pooled, start, device)


def fit_start(pooled: Pooled, sizes: MovieSizes, *, keys: FitKeys, sigma_floor: float, device: Device) -> FitArrays:
    """Ordinary fits to the pooled samples."""
    n_fits, m = pooled.words.shape[0], pooled.words.shape[-1]
    plan = plan_fit(n_fits, m, sizes.mixture, wide=sizes.wide)
    if plan.launch.cooperative:
        launch = plan.launch
        resident = device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes)
        plan = plan_fit(n_fits, m, sizes.mixture, wide=sizes.wide, resident_blocks=resident)
    out = FitArrays.empty(n_fits, sizes.mixture, device)
    run_fit(plan, pooled.words, sizes.shape, sizes.mixture, keys=keys, sigma_floor=sigma_floor, out=out, device=device)
    return out


def on_host(arrays: SettledArrays, sizes: MovieSizes, pooled: Pooled, start: FitArrays, device: Device) -> FittedMovie:
    """The parameters as a result."""
    host, k, q = device.to_host, sizes.mixture.n_components, sizes.mixture.n_terms
    status = np.where(host(pooled.broken) > 0, np.uint8(FitStatus.DEGENERATE), host(start.status))
    usable, units, common = status < FitStatus.DEGENERATE, host(arrays.units), host(arrays.common)
    now = MovieParameters(
        alive=common[:, -k:] > 0,
        weights=host(arrays.weights),
        means=common[:, :k],
        sigmas=common[:, k : 2 * k],
        coef=common[:, 2 * k : 2 * k + q],
        pivot=common[:, -k - 1 : -k],
        drift=host(arrays.drift),
    )
    settled = Settled(
        now, arrays.made, host(arrays.log_likelihood), host(arrays.moved), host(arrays.n_iter).astype(np.int64)
    )
    basis = TrendBasis(sizes.mixture.terms)
    steps = MovieSteps(basis, np.zeros((len(status), 1)), None, sizes.mixture.drift, HOST)
    centre, scale = np.where(usable, units[:, 0], 0.0), np.where(usable, units[:, 1], 1.0)
    fit = movie_fit(settled, steps, status, host(arrays.n_seen).astype(np.float64), centre, scale)
    return FittedMovie(fit, component_order(settled, steps), arrays)


def label_movie(
    words: Array,
    fitted: FittedMovie,
    sizes: MovieSizes,
    phases: PhaseConfig,
    *,
    allowed: np.ndarray | None,
    pixel_weights: np.ndarray | None,
    room: Callable[[Launch], Room],
    device: Device,
) -> LabelledMovie:
    """Labels, posterior and expectations of fitted movies.

    allowed : (height, width) bool, pixels that are not excluded. pixel_weights : (height * width,) float64 on the
        host, what each pixel counts, if `sizes.n_ways` is 2.
    """
    fit, foreground = fitted.fit, movie_foreground(fitted.fit, phases)
    # The fit reports components in ascending mean, the parameters keep the order of the start.
    rank = np.argsort(fitted.order, axis=1)
    phase = component_phases(fit.common, phases, foreground)
    tables = (np.take_along_axis(table.astype(np.uint8), rank, axis=1) for table in (foreground, phase))
    usable = (fit.common.status < FitStatus.DEGENERATE).astype(np.uint8)
    reading = Reading(*(device.asarray(np.ascontiguousarray(table)) for table in (usable, *tables)))
    n_remap = N_REMAP if sizes.remaps else 0
    plan = plan_labels(sizes, room(label_launch(sizes)))
    labels, posterior = label_movies(plan, sizes, words, fitted.arrays, reading, n_remap=n_remap, device=device)
    maps = CellMaps(sizes.shape, sizes.past_levels, HOST)
    ways = [maps.pixel_shares(allowed, way) for way in ([None] if pixel_weights is None else [None, pixel_weights])]
    plan = plan_past(sizes, room(past_launch(sizes)))
    expected, means = expect_movies(plan, sizes, words, fitted.arrays, reading, np.stack(ways, axis=1), device=device)
    mean = device.to_host(means)
    weighted = None if pixel_weights is None else mean[..., 1]
    return LabelledMovie(fit, foreground, labels, posterior, expected, mean[..., 0], weighted)


def movie_kernels(sizes: MovieSizes) -> list[KernelSource]:
    """Every kernel after the draw."""
    pool = plan_pool(sizes)
    m = sizes.n_start * sizes.n_frames
    launches = [plan_fit(sizes.n_replicates, m, sizes.mixture, wide=sizes.wide).launch, settle_launch(sizes)]
    launches += [label_launch(sizes), past_launch(sizes), *([] if pool is None else [pool])]
    return [launch.kernel for launch in launches]


def movie_launches(sizes: MovieSizes, room: Callable[[Launch], Room], start: Launch) -> list[Launch]:
    """Every launch after the draw, in order; start : that of `plan_fit`."""
    pool = plan_pool(sizes)
    return [
        *([] if pool is None else [pool]),
        start,
        plan_settle(sizes, room(settle_launch(sizes))).launch,
        plan_labels(sizes, room(label_launch(sizes))).launch,
        plan_past(sizes, room(past_launch(sizes))).launch,
    ]
