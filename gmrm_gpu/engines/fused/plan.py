"""What one block of replicates costs on the device, as pure functions of the sizes: launches and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import AnalysisConfig
from ...sampling import Sampler
from .correct import is_active, plan_correct
from .draw import DrawJob, plan_draw, word_type
from .fit import FitArrays, FitPlan, plan_fit
from .label import Labels, map_shape, plan_label
from .launch import Launch
from .movie_plan import MovieSizes, Room, movie_bytes, plan_labels, plan_past, plan_settle
from .tally import N_SUMS, plan_tally

MOVIE_PART = 4
"""A movie that takes at most one part in so many of the memory stays on the device; else slabs of it come and go."""


@dataclass(frozen=True)
class BlockSize:
    """R replicates of T frames of a movie of `dtype`, sampled by `sampler`; uploaded `slab` frames at a time."""

    n_replicates: int
    n_frames: int
    sampler: Sampler
    dtype: np.dtype
    slab: int

    @property
    def n_fits(self) -> int:
        """Fits: one a replicate and frame."""
        return self.n_replicates * self.n_frames

    @property
    def m(self) -> int:
        """Places a frame."""
        return self.sampler.capacity

    def job(self, replicates: np.ndarray, frames: np.ndarray) -> DrawJob:
        """The draws."""
        return DrawJob(self.sampler, replicates, frames, self.dtype)

    @property
    def slabs(self) -> list[slice]:
        """The frames of each upload."""
        return [slice(t, min(t + self.slab, self.n_frames)) for t in range(0, self.n_frames, self.slab)]

    @property
    def wide(self) -> bool:
        """Whether a sample takes 8 bytes."""
        return self.job(np.zeros(1, np.uint32), np.zeros(1, np.uint32)).wide


def plan_fits(size: BlockSize, config: AnalysisConfig, resident_blocks: int | None = None) -> FitPlan:
    """The fit launch; resident_blocks : see `plan_fit`."""
    return plan_fit(size.n_fits, size.m, config.mixture, wide=size.wide, resident_blocks=resident_blocks)


def plan_launches(size: BlockSize, config: AnalysisConfig, resident_blocks: int | None = None) -> list[Launch]:
    """Every launch of a block, in order: a draw a slab, then one each of fit, label, correct (if any) and tally."""
    replicates = np.zeros(size.n_replicates, np.uint32)
    job = size.job(replicates, np.zeros(size.n_frames, np.uint32))
    n_phases, vote = len(config.phases.names), []
    if is_active(config.correction):
        vote = [plan_correct(size.n_fits, size.m, size.sampler.shape, config.correction, n_phases, wide=size.wide)]
    return [
        *(plan_draw(job, part.stop - part.start) for part in size.slabs),
        plan_fits(size, config, resident_blocks).launch,
        plan_label(size.n_fits, size.m, config.mixture, wide=size.wide),
        *vote,
        plan_tally(size.n_fits, size.sampler),
    ]


def maps_of(shape: tuple[int, int], config: AnalysisConfig) -> tuple[int, int, int] | None:
    """Shape of a frame's bit maps; None where there is no vote."""
    return map_shape(shape, len(config.phases.names)) if is_active(config.correction) else None


def bytes_per_replicate(size: BlockSize, config: AnalysisConfig, *, keep_labels: bool = False) -> int:
    """Device memory of one replicate: samples, labels, maps, parameters, sums.

    keep_labels : raw labels are kept beside the corrected ones.
    """
    m, word = size.m, np.dtype(word_type(size.wide)).itemsize
    labels = Labels.bytes_per_fit(m, maps_of(size.sampler.shape, config)) + (m if keep_labels else 0)
    return size.n_frames * (m * word + labels + FitArrays.bytes_per_fit(config.mixture) + 8 * N_SUMS + 8)


def movie_sizes(size: BlockSize, config: AnalysisConfig, *, n_ways: int) -> MovieSizes:
    """The same block for the method ``"movie"``; n_ways : see `MovieSizes`."""
    sampler = size.sampler
    return MovieSizes(
        size.n_replicates,
        size.n_frames,
        size.m,
        sampler.shape,
        config.mixture,
        sampler.n_pixels,
        wide=size.wide,
        n_ways=n_ways,
    )


def movie_block_bytes(sizes: MovieSizes) -> int:
    """Device memory of one replicate fitted as a whole: its arrays, and a team's scratch in the neediest launch."""
    one = Room(1)
    plans = [plan(sizes, one) for plan in (plan_settle, plan_labels, plan_past)]
    return movie_bytes(sizes) + max(plan.scratch_bytes for plan in plans)


def movie_tally_bytes(size: BlockSize) -> int:
    """Memory of one replicate once it is fitted: labels and two probabilities, and a frame of samples in float64."""
    return size.m * (size.n_frames * (1 + 4 + 4) + 64)


def slab_frames(n_frames: int, shape: tuple[int, int], dtype: np.dtype, budget: int) -> int:
    """Frames of a movie on the device at a time, of `budget` bytes for everything."""
    frame = shape[0] * shape[1] * np.dtype(dtype).itemsize
    return int(np.clip(budget // MOVIE_PART // frame, 1, n_frames))
