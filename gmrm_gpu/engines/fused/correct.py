"""The vote: corrected labels in place, from the bit maps of the raw ones."""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array
from ...config import CorrectionConfig, PhaseConfig
from ...correct import ball_rows, time_offsets
from ..source import KernelSource
from .cut import THREADS, WARP, cut_samples
from .label import map_shape
from .launch import Device, Launch


def is_active(correction: CorrectionConfig) -> bool:
    """False with radius 0: labels stay as they are, and no maps are needed."""
    return correction.radius_px > 0


def is_narrow(correction: CorrectionConfig, shape: tuple[int, int], n_phases: int) -> bool:
    """Whether 32 pixels hold every row of the neighbourhood, and 31 bits count the words of its frames' maps."""
    frames = max(map(abs, time_offsets(correction)), default=0) + 1
    return 2 * math.floor(correction.radius_px) + 1 <= WARP and frames * math.prod(map_shape(shape, n_phases)) < 2**31


def neighbourhood(correction: CorrectionConfig, n_frames: int, *, narrow: bool) -> np.ndarray:
    """(n,) uint64, the kernel's ``BallRow``s: from the low end offsets in time and rows, half width or a mask.

    Frames further away than a movie of `n_frames` is long are left out, perhaps all.
    """
    offsets = [dt for dt in time_offsets(correction) if abs(dt) < n_frames]
    found = [(dt, dy, half) for dt in offsets for dy, half in ball_rows(correction, dt)]
    frame, row, half = np.array(found, dtype=np.int64).reshape(-1, 3).T
    span = half
    if narrow:
        span = ((2 << 2 * half) - 1) << (math.floor(correction.radius_px) - half)
    return span.astype(np.uint64) << 32 | (row & 0xFFFF).astype(np.uint64) << 16 | (frame & 0xFFFF).astype(np.uint64)


def paint_source(*, wide: bool) -> KernelSource:
    """The kernel's instance."""
    return KernelSource("paint_maps", "paint.cu", (("WIDE", int(wide)),))


def plan_paint(n_fits: int, m: int, *, wide: bool) -> Launch:
    """The launch that paints the labels of `n_fits` frames of `m` places each."""
    return Launch(paint_source(wide=wide), n_fits * cut_samples(m).chunks, THREADS)


def run_paint(words: Array, labels: Array, shape: tuple[int, int], n_phases: int, *, device: Device) -> Array:
    """Bit maps (R, T, words, height, phases) of labels (R, T, m) that the label kernel did not make."""
    replicates, frames, m = labels.shape
    cut = cut_samples(m)
    maps = device.zeros((replicates, frames, *map_shape(shape, n_phases)), np.uint32)
    sizes = (np.int32(n) for n in (m, cut.length, cut.chunks, *shape, n_phases))
    plan_paint(replicates * frames, m, wide=words.dtype == np.uint64).run(device, (words, labels, maps, *sizes))
    return maps


def correct_source(n_phases: int, *, narrow: bool, wide: bool) -> KernelSource:
    """The kernel's instance."""
    constants = (("N_PHASES", n_phases), ("WIDE", int(wide)), ("NARROW", int(narrow)))
    return KernelSource("correct", "correct.cu", constants)


def plan_correct(
    n_fits: int, m: int, shape: tuple[int, int], correction: CorrectionConfig, n_phases: int, *, wide: bool
) -> Launch:
    """The launch that corrects `n_fits` frames of `m` places each."""
    source = correct_source(n_phases, narrow=is_narrow(correction, shape, n_phases), wide=wide)
    return Launch(source, n_fits * cut_samples(m).chunks, THREADS)


def run_correct(
    words: Array,
    labels: Array,
    maps: Array,
    shape: tuple[int, int],
    correction: CorrectionConfig,
    phases: PhaseConfig,
    *,
    device: Device,
) -> Array:
    """Correct labels (R, T, m) in place.

    Parameters
    ----------
    words : (R, T, m) packed samples. maps : (R, T, words, height, phases), painted with the raw labels.

    Returns
    -------
    without_neighbours : (R, T) int32 on the device, visited samples that had no neighbours.
    """
    replicates, frames, m = labels.shape
    cut = cut_samples(m)
    n_phases = len(phases.names)
    rows = neighbourhood(correction, frames, narrow=is_narrow(correction, shape, n_phases))
    table = device.asarray(rows if len(rows) else np.zeros(1, np.uint64))
    without = device.zeros((replicates, frames), np.int32)
    sizes = (
        len(rows),
        math.floor(correction.radius_px),
        frames,
        m,
        cut.length,
        cut.chunks,
        *shape,
        phases.foreground_index,
    )
    flags = (correction.sides == "both", correction.window != "past")
    plan_correct(replicates * frames, m, shape, correction, n_phases, wide=words.dtype == np.uint64).run(
        device,
        (
            *(words, labels, maps, table, without),
            *(np.int32(n) for n in (*sizes, *flags)),
            np.float64(correction.gamma),
        ),
    )
    return without
