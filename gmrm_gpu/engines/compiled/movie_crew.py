"""Who works on which replicate of a movie: one thread each, or all threads on one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from .movie_pass import Scratch
from .pool import Pool

_PARTS = 4  # of a thread's share: threads that are held up leave parts to others


@dataclass(frozen=True)
class Crew:
    """Threads that share a replicate; what they compute does not depend on how many.

    Attributes
    ----------
    scratch : of each thread. pool : the threads; None: the caller's alone.
    """

    scratch: list[Scratch]
    pool: Pool | None = None

    @property
    def is_one(self) -> bool:
        """Whether there is but one thread."""
        return self.pool is None or len(self.scratch) == 1 or self.pool.workers == 1

    def share(self, work: Callable[[int, int, Scratch], object], n: int, *, alone: bool = False) -> None:
        """Call ``work(first, last, scratch)`` for parts of 0..n-1; alone : for all at once, in this thread."""
        if self.pool is None or alone or self.is_one:
            work(0, n, self.scratch[0])
            return
        n_parts = min(n, _PARTS * len(self.scratch))
        idle: SimpleQueue[Scratch] = SimpleQueue()
        for one in self.scratch:
            idle.put(one)

        def part(i: int) -> None:
            mine = idle.get()
            try:
                work(i * n // n_parts, (i + 1) * n // n_parts, mine)
            finally:
                idle.put(mine)

        self.pool.run(part, n_parts)


def each_replicate(
    pool: Pool,
    n_replicates: int,
    n_teams: int,
    scratch: list[Scratch],
    work: Callable[[int, int, Crew], object],
    *,
    tell: bool = False,
) -> None:
    """Call ``work(replicate, team, crew)`` for every replicate, with memory of `n_teams` teams.

    scratch : at least one a team. tell : the fraction done.
    """
    if n_teams == 1 or n_replicates < 2 * n_teams:
        for replicate in range(n_replicates):
            work(replicate, 0, Crew(scratch, pool))
            if tell:
                pool.tell((replicate + 1) / n_replicates)
        return
    idle: SimpleQueue[int] = SimpleQueue()
    for team in range(n_teams):
        idle.put(team)

    def one(replicate: int) -> None:
        team = idle.get()
        try:
            work(replicate, team, Crew(scratch[team : team + 1]))
        finally:
            idle.put(team)

    pool.run(one, n_replicates, tell=tell)
