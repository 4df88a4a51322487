"""Which worker computes which shard, and what happens when workers or shards fail.

A worker has `WINDOW` shards at a time, so that it never waits and little is lost with it. The shards of a worker that
died, and those that failed, are tried again when all others are done, each alone on its worker: then it is known
which of them is to blame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from typing import Any

from ...errors import ClusterError
from ..job import Part
from ..shards import Shard
from ..source import MovieNotHere
from . import worker
from .crew import Crew, Member, Notify, reason_of

WINDOW = 2
LOOK_S = 0.5
"""Seconds from one look at who is there to the next."""
MOST_FAILURES = 2
"""Times that a shard may fail."""
HOPELESS = 3
"""Shards that fail on a worker one after the other, until it is used no more."""
MOST_DEATHS = 2
"""Workers that may die with a shard, the first perhaps of another that it had too."""


@dataclass(eq=False)
class Task:
    """A shard that a worker was given, or waits to be given again.

    Attributes
    ----------
    tries : times it was given to a worker. alone : whether that worker has no other. deaths : of workers that had it.
    failures : what it raised.
    """

    shard: Shard
    tries: int = 0
    alone: bool = False
    deaths: int = 0
    failures: list[str] = field(default_factory=list)
    future: Any = None
    member: Member | None = None


class Dispatch:
    """The shards of one study on one crew.

    Parameters
    ----------
    mark : fingerprint of the study; with the shard's name it is the key of a task, so that two clients with the same
        study share the work. grace_s : seconds to wait for new workers when all are gone.
    """

    def __init__(
        self, client: Any, crew: Crew, mark: str, shards: Sequence[Shard], *, notify: Notify, grace_s: float
    ) -> None:
        self._client, self._crew, self._mark, self._notify, self._grace_s = client, crew, mark, notify, grace_s
        self._todo = deque(Task(shard) for shard in shards)
        self._again: deque[Task] = deque()
        self._busy: set[Task] = set()
        self._done: deque[tuple[Shard, Part]] = deque()
        self._blamed: dict[str, str] = {}
        self._n_done, self._n = 0, len(shards)
        self._alone_since: float | None = None
        self._looked = 0.0

    def run(self) -> Iterator[tuple[Shard, Part]]:
        """The shards as they are done.

        Raises
        ------
        ClusterError
            Workers are gone, or shards cannot be computed; all that could be done was handed out before.
        """
        try:
            while self._todo or self._again or self._busy or self._done:
                self._assign()
                if not self._done:
                    self._crew.wait(LOOK_S)
                while self._done:
                    self._n_done += 1
                    yield self._done.popleft()
                self._look()
        finally:
            self._cancel(list(self._busy))
        if self._blamed:
            raise ClusterError(self._blame())

    def _look(self) -> None:
        if monotonic() - self._looked < LOOK_S:
            return
        self._looked = monotonic()
        for member in self._crew.look():
            self._bury(member)
        if self._todo or self._again or self._busy:
            self._check_crew()

    def _bury(self, member: Member) -> None:
        """A worker is gone: its shards are done again."""
        for task in list(member.tasks):
            self._withdraw(task)
            task.deaths += 1
            if task.deaths >= MOST_DEATHS:
                self._blamed[task.shard.name] = "the worker that computes it dies"
            else:
                self._again.append(task)

    def _check_crew(self) -> None:
        """Not to wait for nobody."""
        if self._crew.hopeful:
            self._alone_since = None
            return
        if not self._crew.n_gone:
            raise self._crew.nobody()
        if self._alone_since is None:
            self._alone_since = monotonic()
            self._notify(f"all workers are gone; waiting {self._grace_s:g} s for others")
        if monotonic() - self._alone_since >= self._grace_s:
            suspects = [task.shard.name for task in self._again if task.deaths]
            found = [self._blame()] if self._blamed else []
            found += [f"{' and '.join(suspects[:3])} may be why"] if suspects else []
            raise ClusterError(
                f"all workers are gone, {self._n_done} of {self._n} shards are done; start workers, and go on with "
                "--resume" + (f" ({'; '.join(found)})" if found else "")
            )

    def _assign(self) -> None:
        """Give shards to those who have few."""
        while self._todo:
            free = [m for m in self._crew.ready() if len(m.tasks) < WINDOW and not any(t.alone for t in m.tasks)]
            if not free:
                return
            self._give(self._todo.popleft(), free[0])
        for member in self._crew.ready():
            if self._again and not member.tasks:
                self._give(self._again.popleft(), member, alone=True)

    def _give(self, task: Task, member: Member, *, alone: bool = False) -> None:
        key = f"gmrm_gpu-{self._mark}-{task.shard.name}" + (f"-{task.tries}" if task.tries else "")
        task.tries, task.alone, task.member = task.tries + 1, alone, member
        task.future = self._client.submit(
            worker.work, self._mark, task.shard, key=key, workers=[member.address], allow_other_workers=False, retries=0
        )
        member.tasks.append(task)
        self._busy.add(task)
        given = task.future
        given.add_done_callback(lambda _: self._crew.events.put(lambda: self._ended(task, given)))

    def _withdraw(self, task: Task) -> Member:
        """No worker has it any more."""
        assert task.member is not None
        member, task.member = task.member, None
        member.tasks.remove(task)
        self._busy.discard(task)
        self._cancel([task])
        task.future = None
        return member

    def _cancel(self, tasks: list[Task]) -> None:
        """Tell the scheduler, which forgets the result of a task that is done with its future."""
        futures = [task.future for task in tasks if task.future is not None and task.future.status == "pending"]
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def _ended(self, task: Task, future: Any) -> None:
        """The scheduler says that a task is done, or will not be."""
        if task.future is not future:  # it was taken back meanwhile
            return
        if future.status == "finished":
            Thread(target=self._fetch, args=(task, future), name="gmrm_gpu fetch", daemon=True).start()
        elif future.status == "error":
            self._failed(task, future.exception())
        else:
            self._again.append(task)
            self._withdraw(task)

    def _fetch(self, task: Task, future: Any) -> None:
        """In a thread of its own: the worker may die while its result is on the way."""
        try:
            part = future.result()
        except BaseException as error:
            reason = error
            self._crew.events.put(lambda: self._failed(task, reason) if task.future is future else None)
        else:
            self._crew.events.put(lambda: self._succeeded(task, part) if task.future is future else None)

    def _succeeded(self, task: Task, part: Part) -> None:
        expected = self._crew.engines[task.shard.method], self._crew.device
        if (part.record["engine"], part.record["device"]) != expected:
            # Memory may have run short since the worker was looked at.
            self._failed(
                task, ClusterError(f"it was computed with the engine {part.record['engine']}, for want of memory")
            )
            return
        self._withdraw(task).failures = 0
        self._done.append((task.shard, part))

    def _failed(self, task: Task, error: BaseException) -> None:
        assert task.member is not None
        if isinstance(error, (worker.NotPrepared, MovieNotHere)):
            for lost in self._crew.renew(task.member, str(error)):
                self._bury(lost)
            return
        member = self._withdraw(task)
        if type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError"):
            self._again.append(task)  # the next look tells who is gone
            return
        task.failures.append(reason_of(error))
        member.failures += 1
        if len(task.failures) >= MOST_FAILURES:
            self._blamed[task.shard.name] = task.failures[-1]
        else:
            self._again.append(task)
        self._check_member(member, task.failures[-1])

    def _check_member(self, member: Member, reason: str) -> None:
        """A worker on which everything fails would soon have had every shard."""
        if not self._n_done and not self._done and len(self._blamed) + len(self._again) > HOPELESS:
            raise ClusterError(f"every shard fails: {reason}")
        others = [m for m in self._crew.ready() if m is not member and not m.failures]
        if member.failures >= HOPELESS and others:
            self._crew.dismiss(member, f"{member.failures} shards failed on it, the last because: {reason}")
            for left in list(member.tasks):
                self._withdraw(left)
                self._again.append(left)

    def _blame(self) -> str:
        named = [f"{name}: {reason}" for name, reason in self._blamed.items()]
        more = f"; and {len(named) - 3} more" if len(named) > 3 else ""
        what = "1 shard" if len(named) == 1 else f"{len(named)} shards"
        return f"{what} cannot be computed, {self._n_done} of {self._n} are done; {'; '.join(named[:3])}{more}"
