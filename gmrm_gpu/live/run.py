"""A live run: one thread reads the stream, this one analyses, writes and shows it."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import AnalysisConfig
from ..errors import InputError
from ..frames.movie import Visits, size_text
from .first import look_at_first
from .journal import Journal, Subject, read_records, saved_state
from .mailbox import Closed, Mailbox, spans
from .sources import Arrival, Notice, Orderly, Place, Source
from .update import LiveFrame, LiveState

STALL_S = 5.0
"""Without a frame for so long, and for ten times the usual pause between two, a stream is said to have stalled."""
STATE_EVERY_S = 20.0
DRAIN_S = 2.0
"""How long a run that is stopped goes on with the frames that wait."""
_LOOK_S = 0.1
_LATENCIES = 200
_SHOWN_NOTICES = 50


class Analysis(Protocol):
    """What a run needs of `LiveAnalysis`."""

    shape: tuple[int, int]
    n_pixels: int

    def process(self, frame: Any, time_s: float | None = None, *, number: int | None = None) -> LiveFrame:
        """Analyse one frame."""

    def save(self, path: Path) -> None:
        """Keep the state."""


class Page(Protocol):
    """What a run needs of `LivePage`."""

    def publish(self, frame: LiveFrame | None, state: LiveState) -> None:
        """Show a frame and the state of the run."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes
    ----------
    source : opens the stream again. config : the settings. journal : folder of the journal. out : of the results.
    most_frames : frames to analyse now, then stop; None: all. idle_s : stop where no frame comes for so long; None:
        never. state_every_s : seconds between two savings of the state. opening : options of `open_source`, as
        JSON holds them, that open the stream again.
    """

    source: str
    config: AnalysisConfig
    journal: Path
    out: Path
    most_frames: int | None = None
    idle_s: float | None = None
    state_every_s: float = STATE_EVERY_S
    opening: dict[str, Any] = field(default_factory=dict)


class LiveRun:
    """One run from the first frame to the last.

    Parameters
    ----------
    source : the stream. plan : what to do.
    new_analysis : makes the analysis of (first arrival, source). load_analysis : from a saved state.
    new_page : makes the page once the subject is known, or returns None.
    say : is told every sentence worth a line. watch : is called with (frame or None, state) after every frame.
    journal : one to go on with; None: a new one.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        *,
        new_analysis: Callable[[Arrival, Source], Analysis],
        load_analysis: Callable[[Path], Analysis] | None = None,
        new_page: Callable[[Subject, LiveRun], Page | None] = lambda subject, run: None,
        say: Callable[[str], None] = lambda text: None,
        watch: Callable[[LiveFrame | None, LiveState], None] = lambda frame, state: None,
        journal: Journal | None = None,
    ) -> None:
        self.source, self.plan, self.journal = source, plan, journal
        self._new_analysis, self._new_page, self._say, self._watch = new_analysis, new_page, say, watch
        self._analysis: Analysis | None = None
        self._page: Page | None = None
        self._recorded, self.n_dropped = -1, 0
        self._stop = threading.Event()
        self._mailbox = Mailbox(waits=source.waits)
        self._order = Orderly(source, frame_time_s=plan.config.quantity.frame_time_s, after=self._resume(load_analysis))
        self._error: BaseException | None = None
        self._reader = threading.Thread(target=self._read, name="gmrm-live-reader", daemon=True)
        self.notices = NoticeBook()
        self.n_frames = 0 if journal is None else journal.n_frames
        self._n_now, self._visited = 0, 0.0
        self._latency_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._pauses: deque[float] = deque(maxlen=20)
        self._last_arrival: float | None = None
        self._stalled = False
        self._stopped_at: float | None = None
        self._saved_at = time.monotonic()

    def _resume(self, load_analysis: Callable[[Path], Analysis] | None) -> Place | None:
        """Take up a journal: the state of its analysis, and where the stream stands."""
        if self.journal is None or self.journal.n_frames == 0:
            return None
        records = read_records(self.journal.folder, self.journal.subject)
        self._recorded, self.n_dropped = int(records["number"][-1]), int(records["n_dropped"][-1])
        saved = saved_state(self.journal.folder, records)
        if saved is not None and load_analysis is not None:
            self._analysis = load_analysis(saved[0])
        if not self.source.replays:
            return self._place(records[-1], self.journal.subject)
        # The analysis is shown again what came after its state was saved; what is written stays as it is.
        return None if saved is None else self._place(records[saved[1] - 1], self.journal.subject)

    @staticmethod
    def _place(record: np.ndarray, subject: Subject) -> Place:
        time_s = float(record["time_s"])
        return Place(int(record["number"]), time_s if np.isfinite(time_s) else None, subject.origin_s)

    # -- the run ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the run once what waits is analysed; may be called from a signal handler or another thread."""
        self._stop.set()

    def run(self) -> Journal | None:
        """Run to the end of the stream, or until stopped. The journal, closed; None where no frame came.

        Raises
        ------
        GmrmError
            The source failed, or the disk. What was analysed is in the journal.
        """
        self._reader.start()
        try:
            with suppress(Closed):
                while self._more():
                    self._take()
            if self.journal is not None and self._analysis is not None:
                self.journal.save_state(self._analysis)
        finally:
            self._end()
        if self._error is not None:
            raise self._error
        return self.journal

    def _more(self) -> bool:
        """Whether to go on; asks the reader to stop where it is time to."""
        limit, idle = self.plan.most_frames, self.plan.idle_s
        if limit is not None and self._n_now >= limit:
            return False
        if idle is not None and self._quiet() > idle and not self._stop.is_set():
            self._notice(Notice(f"no frame for {idle:g} s: the run ends"))
            self._stop.set()
        if self._stop.is_set():
            self._stopping()
        return True

    def _stopping(self) -> None:
        """Take no more frames; those that wait are analysed, but nobody waits for that longer than `DRAIN_S`."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            self.source.close()
            self._mailbox.seal()
        elif time.monotonic() - self._stopped_at > DRAIN_S and self._mailbox.n_waiting:
            numbers = self._mailbox.empty()
            if not self.source.waits:
                self._notice(Notice(f"{spans(numbers)} dropped: the run was stopped", len(numbers)))

    def _read(self) -> None:
        try:
            for item in self._order:
                if not self._mailbox.put(item):
                    break
        except BaseException as error:  # told in the thread of the run
            self._error = error
        finally:
            self.source.close()
            self._mailbox.seal()

    def _take(self) -> None:
        item = self._mailbox.get(_LOOK_S)
        if item is None:
            self._look_for_a_stall()
        elif isinstance(item, Notice):
            self._notice(item)
        else:
            self._arrived()
            self._frame(item)

    def _end(self) -> None:
        self.source.close()
        self._mailbox.seal()
        with suppress(KeyboardInterrupt):
            self._reader.join(10.0)
        if self.journal is not None:
            self.journal.close()
        self._publish(None, ended=True)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, arrival: Arrival) -> None:
        if self._analysis is None:
            remarks = look_at_first(arrival, self.source.valid, self.plan.config)
            self._analysis = self._new_analysis(arrival, self.source)
            for text in remarks:
                self._notice(Notice(text))
        if self.journal is None:
            self._begin(arrival, self._analysis)
        if self._page is None and self.journal is not None:
            self._page = self._new_page(self.journal.subject, self)
        try:
            if isinstance(arrival.content, Visits) and arrival.shape != self._analysis.shape:
                size, first = size_text(arrival.shape), size_text(self._analysis.shape)
                raise InputError(
                    f"frame {arrival.number} is {size}, the first {first}; frames of a stream must be alike"
                )
            found = self._analysis.process(arrival.content, arrival.time_s, number=arrival.number)
        except InputError as error:
            self._notice(Notice(f"{error}; left out", 1))
            return
        if arrival.number <= self._recorded:
            return  # written by the run before; only learned from again
        self._finish_frame(found, arrival.origin)

    def _begin(self, arrival: Arrival, analysis: Analysis) -> None:
        plan, source, place = self.plan, self.source, self._order
        subject = Subject(
            source=plan.source,
            name=source.name,
            shape=arrival.shape,
            dtype=str(arrival.dtype),
            config=plan.config,
            acquisition=source.acquisition,
            n_pixels=analysis.n_pixels,
            origin_s=None if place.place is None else place.place.origin_s,
            sampled=isinstance(arrival.content, Visits),
            opening={**plan.opening, "new_only": False, "skip": list(source.skipped)},
        )
        self.journal = Journal.create(plan.journal, subject, source.valid)
        for text in self.notices.texts:
            self.journal.notice(text)

    def _finish_frame(self, found: LiveFrame, origin: str | None) -> None:
        assert self.journal is not None
        self.journal.add(found, self.n_dropped, origin)
        self.n_frames, self._n_now = self.n_frames + 1, self._n_now + 1
        self._visited += found.visited_share
        self._latency_ms.append(1e3 * found.latency_s)
        for alarm in found.alarms:
            self._say(alarm.text)
        if time.monotonic() - self._saved_at > self.plan.state_every_s:
            self.journal.save_state(self._analysis)
            self._saved_at = time.monotonic()
        self._publish(found)

    # -- what is told -------------------------------------------------------------------------------------------------

    def _notice(self, notice: Notice) -> None:
        self.n_dropped += notice.n_dropped
        if self.notices.add(notice.text):
            self._say(notice.text)
        if self.journal is not None:
            self.journal.notice(notice.text)
        self._publish(None)

    def _arrived(self) -> None:
        now = time.monotonic()
        if self._last_arrival is not None:
            pause = now - self._last_arrival
            if self._stalled:
                self._notice(Notice(f"frames come again, after {pause:.0f} s"))
            else:
                self._pauses.append(pause)
        self._last_arrival, self._stalled = now, False

    def _quiet(self) -> float:
        """Seconds since the last frame, or since the beginning."""
        if self._last_arrival is None:
            self._last_arrival = time.monotonic()
        return time.monotonic() - self._last_arrival

    def _look_for_a_stall(self) -> None:
        usual = float(np.median(self._pauses)) if self._pauses else 0.0
        quiet = self._quiet()
        if not self._stalled and quiet > max(STALL_S, 10 * usual):
            self._stalled = True
            self._notice(Notice(f"no frame for {quiet:.0f} s; waiting"))

    def _publish(self, frame: LiveFrame | None, *, ended: bool = False) -> None:
        state = self.state(ended=ended)
        if self._page is not None:
            self._page.publish(frame, state)
        self._watch(frame, state)

    def state(self, *, ended: bool = False) -> LiveState:
        """How the run is doing."""
        latency = np.quantile(self._latency_ms, (0.5, 0.95)) if self._latency_ms else (np.nan, np.nan)
        return LiveState(
            n_frames=self.n_frames,
            n_dropped=self.n_dropped,
            waiting=self._mailbox.n_waiting,
            visited_share=self._visited / self._n_now if self._n_now else np.nan,
            latency_ms=(float(latency[0]), float(latency[1])),
            notices=tuple(self.notices.texts),
            n_notices=self.notices.n_all,
            ended=ended,
        )


class NoticeBook:
    """The latest sentences, and which of them are worth saying aloud: a kind said often is said ever more rarely."""

    def __init__(self) -> None:
        self.texts: deque[str] = deque(maxlen=_SHOWN_NOTICES)
        self.n_all = 0
        self._kinds: Counter[str] = Counter()

    def add(self, text: str) -> bool:
        """Keep a sentence; whether to say it: the first three of a kind, then the 4th, 8th, 16th, ..."""
        self.texts.append(text)
        self.n_all += 1
        kind = re.sub(r"\d+", "#", text)[:200]
        if kind not in self._kinds and len(self._kinds) >= 1000:
            self._kinds.clear()
        self._kinds[kind] += 1
        n = self._kinds[kind]
        return n <= 3 or n & (n - 1) == 0


__all__ = ["Analysis", "LiveRun", "NoticeBook", "Page", "Plan"]
