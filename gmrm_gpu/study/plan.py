"""How the replicates of a study are cut into blocks. The answer does not depend on the cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..backend import n_cores
from ..config import StudyConfig
from ..runner import Runner, check_memory

BLOCK_SAMPLES = 320_000
"""Samples a frame that a block aims at: many enough to amortise the cost of a call, few enough to balance threads."""


@dataclass(frozen=True)
class Block:
    """Replicates start..stop-1 at one rate."""

    rate: float
    start: int
    stop: int

    @property
    def replicates(self) -> np.ndarray:
        """(R,) numbers of the replicates."""
        return np.arange(self.start, self.stop)


def plan_blocks(runner: Runner, config: StudyConfig, budget: int, n_threads: int) -> list[Block]:
    """All blocks of a study, the highest rate first, each within its thread's part of `budget` bytes.

    Raises
    ------
    MemoryBudgetError
        Even one replicate does not fit.
    """
    parts = sorted(zip(config.rates, config.n_replicates, strict=True), reverse=True)
    return [block for rate, n in parts for block in cut_blocks(runner, Block(rate, 0, n), budget, n_threads)]


def cut_blocks(runner: Runner, whole: Block, budget: int, n_threads: int) -> list[Block]:
    """`whole` in blocks that threads take in turn, each within its part of `budget` bytes.

    Raises
    ------
    MemoryBudgetError
        Even one replicate does not fit.
    """
    rate, total = whole.rate, whole.stop - whole.start
    each = runner.bytes_per_replicate(rate)
    check_memory(runner.fixed_bytes + each, budget // n_threads)
    # A whole movie's samples are held at once, not a frame's.
    held = runner.sampler(rate).capacity * (len(runner.movie) if runner.config.method == "movie" else 1)
    size = (budget - runner.fixed_bytes) // n_threads // each
    if not runner.at_once:  # kernels take as many replicates as fit
        size = min(size, max(1, BLOCK_SAMPLES // held), -(-total // n_threads))
    elif runner.most_samples is not None:
        size = min(size, max(1, runner.most_samples // (runner.sampler(rate).capacity * len(runner.movie))))
    n_blocks = -(-total // max(size, 1))
    edges = np.linspace(whole.start, whole.stop, n_blocks + 1).round().astype(int)
    return [Block(rate, int(a), int(b)) for a, b in pairwise(edges)]


def threads_within(runner: Runner, config: StudyConfig, budget: int) -> int:
    """The threads asked for, by default one a core or one on a GPU, as far as each has room for one replicate.

    One where kernels take whole blocks: they fill the GPU, or bring threads of their own.
    """
    asked = config.analysis.compute.n_threads or (1 if runner.backend.name == "cupy" else n_cores())
    if runner.at_once:
        return 1
    return max(1, min(asked, budget // max(map(runner.bytes_per_replicate, config.rates))))
