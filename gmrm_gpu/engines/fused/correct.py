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

_MOST_WORDS = 2


def is_active(correction: CorrectionConfig) -> bool:
    """False with radius 0: labels stay as they are, and no maps are needed."""
    return correction.radius_px > 0


def window_words(correction: CorrectionConfig, shape: tuple[int, int], n_phases: int) -> int:
    """How many words of 32 pixels hold every row of the neighbourhood: 1, 2, or 0 for the general path.

    Windows need the words of the maps of all frames within reach to be counted by 31 bits.
    """
    frames = max(map(abs, time_offsets(correction)), default=0) + 1
    words = -(-(2 * math.floor(correction.radius_px) + 1) // WARP)
    return words if words <= _MOST_WORDS and frames * math.prod(map_shape(shape, n_phases)) < 2**31 else 0


def neighbourhood(correction: CorrectionConfig, n_frames: int, window: int) -> np.ndarray:
    """(n, 2 or 4) uint32, the kernel's ``BallRow``s: offsets in time and rows, 16 bits each; half width or masks.

    Frames further away than a movie of `n_frames` is long are left out, perhaps all.
    """
    offsets = [dt for dt in time_offsets(correction) if abs(dt) < n_frames]
    found = [(dt, dy, half) for dt in offsets for dy, half in ball_rows(correction, dt)]
    frame, row, half = np.array(found, dtype=np.int64).reshape(-1, 3).T
    out = np.zeros((len(found), 4 if window == _MOST_WORDS else 2), dtype=np.uint32)
    out[:, 0] = (row & 0xFFFF) << 16 | frame & 0xFFFF
    out[:, 1] = half
    if window:
        reach, bits = math.floor(correction.radius_px), half.astype(np.uint64)
        mask = ((np.uint64(2) << (bits + bits)) - np.uint64(1)) << (np.uint64(reach) - bits)
        for i in range(window):
            out[:, 1 + i] = mask >> np.uint64(WARP * i) & np.uint64(0xFFFFFFFF)
    return out


def correct_source(n_phases: int, window: int, *, wide: bool) -> KernelSource:
    """The kernel's instance; `window` as `window_words` says."""
    constants = (("N_PHASES", n_phases), ("WIDE", int(wide)), ("WINDOW", window))
    return KernelSource("correct", "correct.cu", constants)


def plan_correct(
    n_fits: int, m: int, shape: tuple[int, int], correction: CorrectionConfig, n_phases: int, *, wide: bool
) -> Launch:
    """The launch that corrects `n_fits` frames of `m` places each."""
    source = correct_source(n_phases, window_words(correction, shape, n_phases), wide=wide)
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
    rows = neighbourhood(correction, frames, window_words(correction, shape, n_phases))
    table = device.asarray(rows if len(rows) else np.zeros((1, 4), np.uint32))
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
