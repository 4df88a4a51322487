"""How the replicates of a study are cut into blocks. The answer does not depend on the cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..config import StudyConfig
from ..errors import GmrmError
from ..pipeline import Runner, check_memory

BLOCK_SAMPLES = 320_000
"""Samples a frame that a block aims at: many enough to amortise the cost of a call, few enough to balance workers."""


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


def plan_blocks(runner: Runner, config: StudyConfig, budget: int, n_workers: int) -> list[Block]:
    """All blocks of a study, the largest samples first, each within its worker's part of `budget` bytes.

    Raises
    ------
    MemoryBudgetError
        Even one replicate does not fit.
    """
    blocks = []
    for rate, total in zip(config.rates, config.n_replicates, strict=True):
        each = runner.bytes_per_replicate(rate)
        check_memory(each, budget // n_workers)
        size = min(budget // n_workers // each, max(1, BLOCK_SAMPLES // runner.sampler(rate).capacity))
        n_blocks = -(-total // size)
        edges = np.linspace(0, total, n_blocks + 1).round().astype(int)
        blocks += [Block(rate, int(a), int(b)) for a, b in pairwise(edges)]
    return blocks


def workers_within(runner: Runner, config: StudyConfig, budget: int, n_workers: int) -> int:
    """The most workers, up to `n_workers`, that leave each of them room for one replicate."""
    for n in range(n_workers, 1, -1):
        try:
            plan_blocks(runner, config, budget, n)
            return n
        except GmrmError:
            continue
    return 1
