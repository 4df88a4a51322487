"""The workers of a cluster as a study sees them: who is there, who is able, who has the movie.

Whatever takes time runs in threads of its own and ends in an event, so that work goes on where it can.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any

from ...config import StudyConfig
from ...errors import ClusterError
from ...frames import Movie
from ..job import Job
from ..source import MovieNotHere, MovieSource, frame_blocks, outline
from . import worker

Notify = Callable[[str], None]
FASTEST = ("generic", "compiled", "fused")
SURVEY_S = 60.0
"""Seconds that workers have to say what they are, before a study begins without those that did not."""
PAUSE_S = 30.0
"""Seconds that a worker may be paused before its work goes to others."""


@dataclass(eq=False)
class Member:
    """A worker process.

    Attributes
    ----------
    state : ``"asked"`` what it is, ``"known"``, ``"preparing"``, ``"ready"``, ``"unfit"`` (for `reason`) or ``"gone"``.
    failures : shards that failed on it one after the other. paused_since : when Dask was first seen to let it begin
        nothing. tasks : what it was given and has not done.
    """

    address: str
    state: str = "asked"
    reason: str = ""
    facts: worker.Facts | None = None
    failures: int = 0
    paused_since: float | None = None
    tasks: list[Any] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Its machine."""
        return self.address.rpartition("://")[2].rpartition(":")[0]


class Crew:
    """All workers of a scheduler.

    Parameters
    ----------
    client : of Dask. notify : is told of workers that come, go, or cannot be used.

    Attributes
    ----------
    events : functions to be called by the thread that owns the crew; see `wait`.
    """

    def __init__(self, client: Any, movie: Movie, config: StudyConfig, notify: Notify) -> None:
        self._client, self._movie, self._config, self._notify = client, movie, config, notify
        self.members: dict[str, Member] = {}
        self.events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.kind: tuple[Any, ...] | None = None
        self.engines: dict[str, str] = {}
        self.device = ""
        self.n_gone = 0
        self._job: Job | None = None
        self._digest = self._kind_text = ""
        self._sending = Lock()
        self._processors: set[str] = set()

    def ready(self) -> list[Member]:
        """Those that can be given shards, the least busy first."""
        return sorted((m for m in self.members.values() if m.state == "ready"), key=lambda m: len(m.tasks))

    @property
    def hopeful(self) -> bool:
        """Whether anybody is ready, or may become so."""
        return any(member.state not in ("unfit", "gone") for member in self.members.values())

    def survey(self) -> None:
        """Ask all workers that are there what they are, and decide which kind of them does the study.

        Raises
        ------
        ClusterError
            None is there, or none is able, with the reason of each.
        """
        self.look()
        if not self.members:
            raise ClusterError("the scheduler has no workers; start some with: dask worker <address of the scheduler>")
        end = monotonic() + SURVEY_S
        while any(m.state == "asked" for m in self.members.values()) and monotonic() < end:
            self.wait(0.5)
            self.look()
        kinds = Counter(m.facts.kind for m in self.members.values() if m.facts is not None and m.state == "known")
        if not kinds:
            raise self.nobody()
        # Most workers; of as many, the fastest engines.
        self._decide(max(kinds, key=lambda kind: (kinds[kind], sum(FASTEST.index(e) for _, e in kind[0]), repr(kind))))

    def _decide(self, kind: tuple[Any, ...]) -> None:
        self.kind, (engines, self.device, _) = kind, kind
        self.engines = dict(engines)
        self._kind_text = next(m.facts.text for m in self.members.values() if m.facts and m.facts.kind == kind)
        for member in self.members.values():
            self._compare(member)

    def _compare(self, member: Member) -> None:
        """Numbers of different kinds of workers would be mixed: only one kind takes part."""
        if member.state != "known" or self.kind is None or member.facts is None:
            return
        if member.facts.kind != self.kind:
            self.dismiss(member, f"{member.facts.text}, unlike the others ({self._kind_text})")
        elif self._job is not None:
            member.state = "preparing"
            self._in_thread(self._prepare, member)

    def employ(self, source: MovieSource, mark: str) -> None:
        """Have all workers of the kind get ready for the study `mark`, and all that come later."""
        self._digest, self._job = source.digest, Job(source, self._config, mark)
        for member in self.members.values():
            self._compare(member)

    def look(self) -> list[Member]:
        """Notice who came and who went; returns those whose work must be done by others."""
        there = self._client.scheduler_info(n_workers=-1)["workers"]
        lost = [member for address, member in self.members.items() if address not in there]
        for member in lost:
            self._leave(member)
        for address, about in there.items():
            if address not in self.members:
                self.members[address] = Member(address)
                self._in_thread(self._ask, self.members[address])
            elif self._stuck(self.members[address], about["status"]):
                lost.append(self.members[address])
                self.dismiss(lost[-1], "Dask has paused it for want of memory; give it more")
        return lost

    @staticmethod
    def _stuck(member: Member, status: str) -> bool:
        """Whether a worker that was given shards has long begun none: it holds too much memory, and may for ever."""
        if status != "paused":
            member.paused_since = None
        elif member.paused_since is None:
            member.paused_since = monotonic()
        waited = 0.0 if member.paused_since is None else monotonic() - member.paused_since
        return member.state == "ready" and waited > PAUSE_S

    def _leave(self, member: Member, why: str = "is gone") -> None:
        del self.members[member.address]
        if member.state in ("ready", "preparing"):
            self.n_gone += 1
            self._notify(f"worker {member.address} {why}" + ("; its work goes to others" if member.tasks else ""))
        member.state = "gone"

    def renew(self, member: Member, why: str) -> list[Member]:
        """Take a worker that is not prepared any more for a new one. Returns those that are gone."""
        if self.members.get(member.address) is not member:
            return []
        self._leave(member, f"must be prepared again ({why})")
        return [member, *self.look()]

    def dismiss(self, member: Member, reason: str) -> None:
        """Use a worker no more, and say why."""
        if member.state != "gone":
            member.state, member.reason = "unfit", reason
            self._notify(f"worker {member.address} is not used: {reason}")

    def nobody(self) -> ClusterError:
        """No worker is able, and why."""
        told: dict[str, list[str]] = {}
        for member in self.members.values():
            told.setdefault(member.reason or "it does not answer", []).append(member.address)
        reasons = "; ".join(f"{', '.join(addresses)}: {reason}" for reason, addresses in told.items())
        return ClusterError(f"no worker can do the work ({reasons or 'none is there'})")

    def wait(self, seconds: float) -> None:
        """Handle one event, if one comes in time."""
        try:
            event = self.events.get(timeout=seconds)
        except Empty:
            return
        event()

    def _in_thread(self, function: Callable[[Member], Callable[[], None]], member: Member) -> None:
        """``function(member)`` elsewhere; what it returns, or the worker's dismissal where it fails, is an event."""

        def act() -> None:
            try:
                event = function(member)
            except Exception as error:
                reason = reason_of(error)
                event = lambda: self.dismiss(member, reason)  # noqa: E731
            self.events.put(event)

        Thread(target=act, name=f"gmrm_gpu {member.address}", daemon=True).start()

    def _call(self, member: Member, function: Callable[..., Any], *args: Any) -> Any:
        """The answer of a worker, whether it is busy or not."""
        return self._client.run(function, *args, workers=[member.address])[member.address]

    def _ask(self, member: Member) -> Callable[[], None]:
        theirs, ours = self._call(member, worker.answer_build), worker.build()
        if theirs != ours:
            raise ClusterError(f"gmrm_gpu is {theirs} there, {ours} here; install the same")
        movie = self._movie
        facts = self._call(member, worker.describe, self._config, movie.shape, str(movie.dtype), movie.sampled)

        def know() -> None:
            if member.state == "asked":
                member.state, member.facts = "known", facts
                self._compare(member)

        return know

    def _prepare(self, member: Member) -> Callable[[], None]:
        assert self._job is not None
        job, share = self._job, self._share(member)
        try:
            self._call(member, worker.prepare, job, share, self.engines)
        except MovieNotHere as error:
            with self._sending:
                text = f"worker {member.address} is sent the movie: {error}"
                self.events.put(lambda: self._notify(text))
                self._send(member)
            self._call(member, worker.prepare, job, share, self.engines)

        def join() -> None:
            if member.state == "preparing":
                member.state = "ready"
                self._tell_processors(member)

        return join

    def _share(self, member: Member) -> worker.Share:
        neighbours = [m for m in list(self.members.values()) if m.host == member.host]
        unit = member.facts.unit if member.facts else ""
        return worker.Share(
            max(1, len(neighbours)), max(1, sum(bool(m.facts and m.facts.unit == unit) for m in neighbours))
        )

    def _send(self, member: Member) -> None:
        token = uuid.uuid4().hex
        self._call(member, worker.begin_movie, token, outline(self._movie))
        for block in frame_blocks(self._movie):
            self._call(member, worker.take_frames, token, block)
        self._call(member, worker.end_movie, token, self._digest)

    def _tell_processors(self, member: Member) -> None:
        assert member.facts is not None
        before = len(self._processors)
        self._processors.add(member.facts.processor)
        if len(self._processors) > max(1, before):
            models = " and ".join(sorted(self._processors))
            self._notify(f"workers have different processors ({models}): results agree up to rounding, not bit by bit")


def reason_of(error: BaseException) -> str:
    """Why a worker did not do what it was asked, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "No module named 'gmrm_gpu'" in text:  # Dask may have put it into an error of its own
        return "gmrm_gpu is not installed there"
    if "gmrm_gpu" in text and ("No module named" in text or "has no attribute" in text):
        return f"another version of gmrm_gpu is installed there ({text})"
    return text
