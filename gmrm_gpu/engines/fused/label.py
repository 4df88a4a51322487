"""The label stage: each sample's phase, the foreground's posterior, and the bit maps that the vote reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...backend import Array
from ...config import MixtureConfig, PhaseConfig
from ..source import KernelSource, shared_bytes
from .cut import THREADS, WARP, cut_samples
from .fit import FitArrays
from .launch import Device, Launch

_RULES = {"brightest": 0, "darkest": 1, "separated": 2}
_NAMED = 3
_POLARITIES = {"bright": 0, "dark": 1, "both": 2}


@dataclass(frozen=True)
class Labels:
    """Labelled fits on the device.

    Attributes
    ----------
    labels : (R, T, m) uint8 phases, or `NOT_VISITED`. n_foreground : (R, T) int32, samples labelled foreground.
    posterior : (R, T, chunks) float64, sums of the foreground's posterior, NaN for unusable fits.
    maps : (R, T, words, height, phases) uint32, bit maps of the labels (maps.cuh), or None.
    """

    labels: Array
    posterior: Array
    n_foreground: Array
    maps: Array | None

    @staticmethod
    def empty(size: tuple[int, int, int], maps: tuple[int, ...] | None, device: Device) -> Labels:
        """Memory for `size` = (R, T, m); `maps`: see `map_shape`, None for no maps."""
        replicates, frames, m = size
        return Labels(
            device.empty(size, np.uint8),
            device.empty((replicates, frames, cut_samples(m).chunks), np.float64),
            device.zeros((replicates, frames), np.int32),
            None if maps is None else device.zeros((replicates, frames, *maps), np.uint32),
        )

    @staticmethod
    def bytes_per_fit(m: int, maps: tuple[int, ...] | None) -> int:
        """Device memory of one frame of one replicate."""
        return m + 8 * cut_samples(m).chunks + 4 + (0 if maps is None else 4 * int(np.prod(maps, dtype=np.int64)))


def map_shape(shape: tuple[int, int], n_phases: int) -> tuple[int, int, int]:
    """(words, height, phases) of the bit maps of a frame of `shape`; see maps.cuh."""
    return -(-shape[1] // WARP), shape[0], n_phases


def label_source(mixture: MixtureConfig, *, wide: bool) -> KernelSource:
    """The kernel's instance for a model."""
    constants: list[tuple[str, int | str]] = [("N_COMPONENTS", mixture.n_components), ("N_TERMS", mixture.n_terms)]
    if mixture.terms:
        constants += [
            (f"TERM_{axis}", ",".join(map(str, e)))
            for axis, e in zip("XY", zip(*mixture.terms, strict=True), strict=True)
        ]
    return KernelSource("label", "label.cu", (*constants, ("WIDE", int(wide))))


def plan_label(n_fits: int, m: int, mixture: MixtureConfig, *, wide: bool) -> Launch:
    """The launch that labels `n_fits` fits of `m` places each."""
    k, q = mixture.n_components, mixture.n_terms
    numbers = 5 + 3 * k + q + 1
    # The float64 part starts on a multiple of 8; the structure's size is a multiple of 8 as well.
    densities = -(-4 * numbers // 8) * 8 + 8 * numbers + 8
    memory = shared_bytes(densities, 8 + 8 * THREADS // WARP)
    return Launch(label_source(mixture, wide=wide), n_fits * cut_samples(m).chunks, THREADS, memory)


def run_label(
    words: Array,
    fits: FitArrays,
    shape: tuple[int, int],
    mixture: MixtureConfig,
    phases: PhaseConfig,
    *,
    out: Labels,
    device: Device,
) -> None:
    """Label words (R, T, m) by their fits, F = R T; `out.n_foreground` and `out.maps` must be zero before."""
    replicates, frames, m = words.shape
    cut = cut_samples(m)
    wide = words.dtype == np.uint64
    plan_label(replicates * frames, m, mixture, wide=wide).run(
        device,
        (
            words,
            *(fits.weights, fits.means, fits.sigmas, fits.coef, fits.status),
            *(out.labels, out.posterior, out.n_foreground, out.maps),
            *(np.int32(n) for n in (m, cut.length, cut.chunks, *shape, len(phases.names))),
            *phase_arguments(phases),
        ),
    )


def phase_arguments(phases: PhaseConfig) -> tuple[np.generic, ...]:
    """The rule of `phases` as the kernel takes it: rule, polarity, foreground, four bits a component, contrast."""
    named = [phases.names.index(name) for name in phases.component_names]
    return (
        np.int32(_NAMED if phases.is_named else _RULES[phases.rule]),
        np.int32(_POLARITIES[phases.polarity]),
        np.int32(phases.foreground_index),
        np.uint32(sum(phase << 4 * k for k, phase in enumerate(named))),
        np.float64(phases.contrast),
    )


def posterior_means(sums: np.ndarray, n_samples: np.ndarray) -> np.ndarray:
    """(R, T) mean posterior of the foreground, from (R, T, chunks) sums and (R, T) samples; NaN for unusable fits."""
    total = sums[..., 0].copy()
    for i in range(1, sums.shape[-1]):
        total += sums[..., i]
    return total / np.maximum(n_samples, 1)
