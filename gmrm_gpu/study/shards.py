"""The shards of a study: what is computed, kept and sent as one piece.

The cut is a pure function of the movie's size and the design, never of memory, threads or workers: so the same study
has the same shards everywhere, and one with more replicates has those of the smaller one, but for the last of a rate
where that was not full, and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import StudyConfig
from ..results.tables import rate_name

SHARD_SAMPLES = {"numpy": 2**24, "cupy": 2**30}
"""Samples, of all frames, that a shard aims at: some seconds of a device's work, so that a kill costs little."""
MOVIE_VISITS = 10
"""How much oftener the method ``movie`` looks at a sample than ``paper``, roughly."""


@dataclass(frozen=True)
class Shard:
    """Replicates start..stop-1 of one method at one rate; or its reference.

    The reference is the curve of all pixels, with pictures of it and of replicate 0 at `rate`.
    """

    method: str
    rate: float
    start: int
    stop: int
    reference: bool = False

    @property
    def name(self) -> str:
        """Unique within a study, and a file's name."""
        if self.reference:
            return f"{self.method}-reference-{rate_name(self.rate)}"
        return f"{self.method}-{rate_name(self.rate)}-{self.start:06d}-{self.stop:06d}"


def plan_shards(config: StudyConfig, n_frames: int, samples: Callable[[float], int], device: str) -> list[Shard]:
    """All shards of a study, method by method: the reference, then the rates from the highest.

    samples : of a frame, at a rate. device : ``"numpy"`` or ``"cupy"``; a GPU needs more work at once.
    """
    shards = []
    for method in config.methods:
        study = config.of_method(method)
        shards.append(Shard(method, study.rates[0], 0, 1, reference=True))
        for rate, total in sorted(zip(study.rates, study.n_replicates, strict=True), reverse=True):
            size = max(1, SHARD_SAMPLES[device] // replicate_cost(method, n_frames, samples(rate)))
            shards += [Shard(method, rate, start, min(start + size, total)) for start in range(0, total, size)]
    return shards


def replicate_cost(method: str, n_frames: int, n_samples: int) -> int:
    """Work of one replicate with `n_samples` a frame, in samples that ``paper`` looks at."""
    return n_frames * n_samples * (MOVIE_VISITS if method == "movie" else 1)
