"""Movies whose decoders are native code (FFmpeg, HDF5, Arrow), read in a process of their own.

A damaged file can make such a decoder crash or loop for ever. Here that ends the child, and the user gets an
`InputError`. The child is a plain subprocess, so that daemonic processes (Dask workers) can have one too; it ends
itself where it works too long without a beat, and ends when its stdin closes, so none outlives the program. Idle
children are kept for the next movie. A message is the length of a JSON text in 4 bytes, the text, and the bytes of the
arrays that it lists.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import errors
from ..errors import GmrmError, InputError
from .movie import Acquisition, Movie, Visits

PATIENCE_S = 10.0
"""A child that has computed so long without a `beat` is stuck."""
_SLOW = 5e6
"""Bytes a second that a slow disk gives: readers that cannot beat while they open a file get so much longer."""
_BEATING = (".video",)
_N_IDLE = 2
_WAIT = 6
_HAS_TIMER = hasattr(signal, "setitimer")
_WAITED, _COMPUTED = 1, -signal.SIGPROF if _HAS_TIMER else None
"""Exit status of a child that was stuck: that of faulthandler, and the signal of the timer."""
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from gmrm_gpu.frames.child import serve; serve()"

Answer = tuple[dict[str, Any], list[np.ndarray]]


class ChildMovie(Movie):
    """The movie that `open_file(path, **options)` of the module `reader` (".video": of this package) opens in a child.

    A child that ends takes nothing with it: the next frame is read by a new one.

    Raises
    ------
    InputError
        The decoder crashed, or worked for `PATIENCE_S` without a frame; and as the reader does.
    """

    def __init__(self, path: Path, reader: str, **options: Any) -> None:
        self._request = {"open": str(path.absolute()), "reader": reader, "options": options, "patience_s": PATIENCE_S}
        self._lock, self._lease = threading.Lock(), _Lease()
        weakref.finalize(self, self._lease.end).atexit = False
        self._called = path.name or str(path)
        facts, arrays = self._opened()
        held = dict(zip(facts["held"], arrays, strict=True))
        super().__init__(
            name=facts["name"],
            shape=facts["shape"],
            dtype=np.dtype(facts["dtype"]),
            n_frames=facts["n_frames"],
            frame_numbers=held["frame_numbers"],
            valid=held.get("valid"),
            acquisition=Acquisition(**facts["acquisition"], times_s=held.get("times_s"), notes=tuple(facts["notes"])),
            sampled=facts["sampled"],
        )
        self._facts = facts

    def _opened(self) -> Answer:
        return self._lease.child().ask(self._request, f"opening {self._called}")

    def _asked(self, t: int) -> list[np.ndarray]:
        """The arrays of frame `t`."""
        with self._lock:
            if not self._lease.alive():
                facts, _ = self._opened()
                if facts != self._facts:
                    raise InputError(f"{self.name} has changed since it was opened; open it again")
            return self._lease.child().ask({"frame": t}, f"reading frame {t} of {self.name}")[1]

    def _read(self, t: int) -> np.ndarray:
        return self._asked(t)[0]

    def _read_visits(self, t: int) -> Visits:
        return Visits(*self._asked(t))


def beat() -> None:
    """Readers call this for each thing done, a frame decoded or a packet counted; without effect outside of a child."""
    if _Watch.patience_s and time.monotonic() > _Watch.last + 0.1 * _Watch.patience_s:
        _Watch.start()


# ---- the parent ------------------------------------------------------------------------------------------------------


class Child:
    """A process that reads one movie at a time."""

    def __init__(self) -> None:
        path = json.dumps([str(entry) for entry in sys.path])
        self.owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it computes nothing: no threads to start
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"no process to read the movie in can be started ({reason}); free memory") from None
        self._pipes: tuple[Any, Any] = (self._process.stdin, self._process.stdout)
        _ALL.add(self)
        if self._receive() is None:
            self.kill()
            raise InputError(
                f"the process that reads the movie ended at its start ({self._ending()}); check the installation"
            )

    def ask(self, request: dict[str, Any], doing: str) -> Answer:
        """The answer to a request; `doing` is what it is, for messages.

        Raises
        ------
        GmrmError
            What the child raised; `InputError` where it ended.
        """
        try:
            answer = self._send(request) and self._receive()
        except BaseException:  # such as Ctrl-C, amid an answer
            self.kill()
            raise
        if not answer:
            with suppress(subprocess.TimeoutExpired):  # it is ending, and its status tells why
                self._process.wait(1)
            self.kill()
            raise InputError(f"{doing}: {self._ending()}")
        if "error" in answer[0]:
            raise getattr(errors, answer[0]["error"])(answer[0]["text"])
        return answer

    def close_movie(self) -> bool:
        """Have the movie closed, and with it its file; False where the child has ended."""
        return self._send({"close": True}) and self._receive() is not None

    def kill(self) -> None:
        """End the process; it has nothing to lose."""
        _ALL.discard(self)
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:  # a copy of this program by fork may not touch it
            self._process.returncode = 0
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()

    def alive(self) -> bool:
        """Whether it can be asked, here."""
        return self.owner == os.getpid() and self._process.poll() is None

    def _send(self, request: dict[str, Any]) -> bool:
        try:
            _send(self._pipes[0], request)
        except (OSError, ValueError):
            return False
        return True

    def _receive(self) -> Answer | None:
        try:
            return _receive(self._pipes[1])
        except (OSError, ValueError, TypeError):
            return None

    def _ending(self) -> str:
        """Why it ended."""
        status = self._process.wait()
        cure = "the file is damaged: copy or export it again"
        if status == _COMPUTED:
            return f"it took over {PATIENCE_S:g} s without a frame; {cure}"
        if status == _WAITED:
            return f"it waited for over {_WAIT * PATIENCE_S:g} s without a frame; check disk and network, else {cure}"
        if status == -getattr(signal, "SIGKILL", 9):
            return f"its process was killed, maybe for want of memory; else {cure}"
        named = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the decoder crashed ({named}); {cure}"


class _Lease:
    """The child of a movie."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def child(self) -> Child:
        """That which is there, or another."""
        if self._child is None or not self._child.alive():
            self.end()
            self._child = _idle_child() or Child()
        return self._child

    def end(self) -> None:
        """Give the child back."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.alive() and len(_IDLE) < _N_IDLE and child.close_movie():
            _IDLE.append(child)
        else:
            child.kill()


def _idle_child() -> Child | None:
    # No lock: garbage collection may give a child back amid any of these lines.
    with suppress(IndexError):
        while True:
            child = _IDLE.pop()
            if child.alive():
                return child
            child.kill()
    return None


def _end_all() -> None:
    _IDLE.clear()
    for child in list(_ALL):
        child.kill()


_ALL: set[Child] = set()
_IDLE: deque[Child] = deque()
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_all)


# ---- the child -------------------------------------------------------------------------------------------------------


class _Watch:
    """Ends this process unless it is started anew in time; no decoder can hold that up, whatever lock it holds.

    Computing time is counted where it can be (not on Windows), so that a busy machine does not make a good file a
    damaged one; waiting, as for a slow disk, may take `_WAIT` times as long.
    """

    patience_s = 0.0
    last = 0.0
    _nowhere: IO[str] | None = None

    @classmethod
    def start(cls, patience_s: float | None = None) -> None:
        cls.patience_s, cls.last = patience_s or cls.patience_s, time.monotonic()
        cls._nowhere = cls._nowhere or open(os.devnull, "w")  # noqa: SIM115
        if _HAS_TIMER:
            signal.setitimer(signal.ITIMER_PROF, cls.patience_s)
        faulthandler.dump_traceback_later(_WAIT * cls.patience_s, exit=True, file=cls._nowhere)

    @classmethod
    def stop(cls) -> None:
        faulthandler.cancel_dump_traceback_later()
        if _HAS_TIMER:
            signal.setitimer(signal.ITIMER_PROF, 0)


def serve() -> None:
    """Answer the requests on stdin until it closes; what runs in a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _send(answers, {"ready": True})
    with open(os.devnull, "r+b") as nowhere:  # what decoders print would stand beside the one line of our error
        for number in (0, 1, 2):
            os.dup2(nowhere.fileno(), number)
    movie: Movie | None = None
    while (got := _receive(requests)) is not None:
        request = got[0]
        if "close" in request:
            movie = None
            _send(answers, {})
            continue
        try:
            movie, head, arrays = _answer(movie, request)
        except GmrmError as error:
            head, arrays = {"error": type(error).__name__, "text": str(error)}, []
        except Exception as error:  # decoders raise many kinds
            head, arrays = {"error": "InputError", "text": _told(error, request, movie)}, []
        _Watch.stop()
        _send(answers, head, arrays)


def _answer(movie: Movie | None, request: dict[str, Any]) -> tuple[Movie, dict[str, Any], list[np.ndarray]]:
    if "open" in request:
        path, reader = Path(request["open"]), str(request["reader"])
        size = path.stat().st_size if reader not in _BEATING and path.is_file() else 0
        open_file = import_module(reader, __package__).open_file
        _Watch.start(float(request["patience_s"]) + size / _SLOW)
        movie = open_file(path, **request["options"])
        assert movie is not None
        return movie, *_facts(movie)
    assert movie is not None
    _Watch.start()
    t = int(request["frame"])
    if movie.sampled:
        seen = movie._visits(t)
        return movie, {}, [seen.positions, seen.values]
    return movie, {}, [movie._pixels(t)]


def _facts(movie: Movie) -> Answer:
    known = asdict(movie.acquisition)
    held = {"frame_numbers": movie.frame_numbers, "times_s": known.pop("times_s"), "valid": movie.valid}
    held = {key: array for key, array in held.items() if array is not None}
    facts = {
        "name": movie.name,
        "shape": movie.shape,
        "dtype": movie.dtype.str,
        "n_frames": len(movie),
        "sampled": movie.sampled,
        "notes": known.pop("notes"),
        "acquisition": known,
        "held": list(held),
    }
    return facts, [np.asarray(array) for array in held.values()]


def _told(error: Exception, request: dict[str, Any], movie: Movie | None) -> str:
    what = Path(request["open"]).name if "open" in request else f"frame {request['frame']} of {movie and movie.name}"
    reason = " ".join(str(error).split())[:160]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return f"{what} cannot be read ({said}); the file is damaged or of another kind: copy or export it again"


# ---- messages --------------------------------------------------------------------------------------------------------


def _send(pipe: Any, head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    listed = [(array.dtype.str, array.shape) for array in arrays]
    text = json.dumps({**head, "arrays": listed}, default=lambda number: number.item()).encode()
    pipe.write(struct.pack("<I", len(text)) + text)
    for array in arrays:
        pipe.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    pipe.flush()


def _receive(pipe: Any) -> Answer | None:
    """A message; None where the pipe ends."""
    start = pipe.read(4)
    if len(start) < 4:
        return None
    head = json.loads(pipe.read(struct.unpack("<I", start)[0]))
    arrays = []
    for dtype, shape in head.pop("arrays"):
        array = np.empty(shape, dtype)
        into = memoryview(array.reshape(-1).view(np.uint8).data)
        while len(into):
            n = pipe.readinto(into)
            if not n:
                return None
            into = into[n:]
        arrays.append(array)
    return head, arrays
