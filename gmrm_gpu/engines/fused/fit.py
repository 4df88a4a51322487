"""The fit stage: many mixtures from their samples in one launch (`kernels/fit.cu`, METHOD.md 2-4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...backend import Array
from ...config import MixtureConfig
from ...mixture.design import BLOCK
from ...mixture.histogram import BINS
from ...results import MixtureFit
from ..source import KernelSource, shared_bytes
from .draw import seed_words
from .launch import Device, Launch
from .model import model_constants, n_sums, warp_sums

CHUNK = 16384
"""Samples a team's block adds up at a time."""
TEAM_SAMPLES = 65536
"""Fits of more samples are shared by a team of blocks."""
_START_BLOCKS = 4
_STARTS = {"quantile": 1, "spread": 2, "kmeans++": 3}
_STATE_BYTES = 6144
"""Room for the FitState of the largest model; the kernel checks it when it is compiled."""
_BIN_STATE_BYTES = 4096
"""The same for the state of a histogram."""


@dataclass(frozen=True)
class FitPlan:
    """How `n_fits` fits of `m` places each are launched.

    Attributes
    ----------
    team_size : blocks that share a fit. n_teams : teams that work at the same time.
    scratch_bytes : device memory beyond samples and parameters.
    """

    launch: Launch
    n_fits: int
    m: int
    team_size: int
    n_teams: int
    scratch_bytes: int


@dataclass(frozen=True)
class FitArrays:
    """Parameters of F fits on the device, grey levels; see `MixtureFit`. weights, means, sigmas (F, K), coef (F, q)."""

    weights: Array
    means: Array
    sigmas: Array
    coef: Array
    log_likelihood: Array
    n_iter: Array
    n_samples: Array
    status: Array

    @staticmethod
    def empty(n_fits: int, mixture: MixtureConfig, device: Device) -> FitArrays:
        """Memory for the parameters."""
        k, q = mixture.n_components, mixture.n_terms
        weights, means, sigmas = (device.empty((n_fits, k), np.float64) for _ in range(3))
        coef, log_likelihood = device.empty((n_fits, q), np.float64), device.empty((n_fits,), np.float64)
        n_iter, n_samples = (device.empty((n_fits,), np.int32) for _ in range(2))
        status = device.empty((n_fits,), np.uint8)
        return FitArrays(weights, means, sigmas, coef, log_likelihood, n_iter, n_samples, status)

    @staticmethod
    def bytes_per_fit(mixture: MixtureConfig) -> int:
        """Device memory of one fit's parameters."""
        return 8 * (3 * mixture.n_components + mixture.n_terms + 1) + 9

    def to_host(self, terms: tuple[tuple[int, int], ...], device: Device) -> MixtureFit:
        """As a result with leading axis F."""
        arrays = {name: device.to_host(getattr(self, name)) for name in self.__dataclass_fields__}
        whole = {name: arrays[name].astype(np.int64) for name in ("n_iter", "n_samples")}
        return MixtureFit(**{**arrays, **whole}, terms=terms)


def fit_source(m: int, mixture: MixtureConfig, *, wide: bool) -> KernelSource:
    """The instance of the kernel for fits of `m` places."""
    constants = (
        *model_constants(mixture, wide=wide),
        ("TEAM", int(m > TEAM_SAMPLES)),
        ("CHUNK", CHUNK),
        ("THREADS", _threads(m)),
        ("MIN_BLOCKS", _resident_threads(mixture) // _threads(m)),
        ("N_STARTS", len(mixture.starts)),
        ("STARTS", ",".join(str(_STARTS[name]) for name in mixture.starts)),
        ("FIT_STATE_BYTES", _STATE_BYTES),
        ("HISTOGRAM", BINS if mixture.histogram else 0),
        ("BIN_STATE_BYTES", _BIN_STATE_BYTES),
    )
    return KernelSource("fit", "fit.cu", constants)


def plan_fit(n_fits: int, m: int, mixture: MixtureConfig, *, wide: bool, resident_blocks: int | None = None) -> FitPlan:
    """The launch of `n_fits` fits of `m` places.

    resident_blocks : of this kernel on the whole device, for fits of more than `TEAM_SAMPLES` places; how many blocks
        share a fit does not change its bits.
    """
    source, threads = fit_source(m, mixture, wide=wide), _threads(m)
    subset, room = start_rooms(m)
    memory = shared_bytes(
        _STATE_BYTES,
        8 * n_sums(mixture),
        8 * (threads // 32) * (warp_sums(mixture) + 1),
        8 * (threads + 1),
        4 * threads,
        (8 if wide else 4) * subset,
        4 * room,
        *((_BIN_STATE_BYTES, 4 * BINS, 8 * BINS) if mixture.histogram else ()),
    )
    if m <= TEAM_SAMPLES:
        return FitPlan(Launch(source, n_fits, threads, memory), n_fits, m, 1, n_fits, 0)
    n_chunks = -(-m // CHUNK)
    resident = resident_blocks or n_chunks
    team_size = min(n_chunks, resident)
    n_teams = max(1, min(n_fits, resident // team_size))
    scratch = n_teams * (8 * _partials(n_chunks, team_size, mixture) + 4)
    return FitPlan(
        Launch(source, n_teams * team_size, threads, memory, cooperative=True), n_fits, m, team_size, n_teams, scratch
    )


@dataclass(frozen=True)
class FitKeys:
    """Which replicates and frames the fits belong to, for the random numbers of their starts.

    Attributes
    ----------
    seed, rate : of the sampling. replicates (R,), frames (T,) : their numbers, uint32 on the device.
    """

    seed: int
    rate: float
    replicates: Array
    frames: Array


def run_fit(
    plan: FitPlan,
    words: Array,
    shape: tuple[int, int],
    mixture: MixtureConfig,
    *,
    keys: FitKeys,
    sigma_floor: float,
    out: FitArrays,
    device: Device,
) -> None:
    """Fit words (R, T, m), F = R T fits; sigma_floor in grey levels."""
    n_chunks = -(-plan.m // CHUNK) if plan.team_size > 1 or plan.m > TEAM_SAMPLES else 0
    arrived = device.zeros((plan.n_teams if n_chunks else 1,), np.uint32)
    each = _partials(n_chunks, plan.team_size, mixture) if n_chunks else 0
    partials = device.empty((plan.n_teams * each or 1,), np.float64)
    plan.launch.run(
        device,
        (
            words,
            np.int64(plan.n_fits),
            np.int64(plan.m),
            np.int32(shape[0]),
            np.int32(shape[1]),
            *(np.uint32(word) for word in seed_words(keys.seed, keys.rate)),
            keys.replicates,
            keys.frames,
            np.int64(keys.frames.shape[0]),
            np.float64(sigma_floor if mixture.sigma_floor is None else mixture.sigma_floor),
            np.float64(mixture.trend_prior or 0.0),
            np.float64(mixture.tol),
            np.int32(mixture.max_iter),
            np.int32(mixture.n_start_iter),
            np.int32(mixture.schedule == "fast"),
            *(np.int32(room) for room in start_rooms(plan.m)),
            np.int32(plan.team_size),
            arrived,
            partials,
            *(getattr(out, name) for name in out.__dataclass_fields__),
        ),
    )


def _partials(n_chunks: int, team_size: int, mixture: MixtureConfig) -> int:
    """Float64 numbers that a team's blocks hand to each other: sums a chunk, and parts of a histogram (uint32) a block;
    two sets of each."""
    return 2 * n_chunks * n_sums(mixture) + (team_size * BINS if mixture.histogram else 0)


def _threads(m: int) -> int:
    """Threads of a block: few, for reducing the sums over more costs as much as the pass, and while one warp of a block
    takes the M-step, the other blocks of a multiprocessor have work for it."""
    return 32 if m <= BLOCK else 64 if m <= 2 * BLOCK else 128


def _resident_threads(mixture: MixtureConfig) -> int:
    """Threads that a multiprocessor of 65,536 registers should hold: what accumulators and terms leave room for."""
    sums = warp_sums(mixture)
    many = sums > 96 or (sums > 64 and mixture.n_terms > 6)
    return 256 if many else 384 if sums > 32 else 512


def start_rooms(m: int) -> tuple[int, int]:
    """Samples that starts are compared on, an even subset in blocks as `Samples.subset` takes; places to sort them."""
    n_blocks = -(-m // BLOCK)
    stride = max(1, n_blocks // _START_BLOCKS)
    subset = -(-n_blocks // stride) * -(-m // n_blocks)
    return subset, 1 << (subset - 1).bit_length()
