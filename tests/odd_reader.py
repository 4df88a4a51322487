"""A reader whose decoder does what decoders do with damaged files; for a child, which imports it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np

from gmrm_gpu.frames import Movie
from gmrm_gpu.frames.child import beat

STACK = np.arange(4 * 3 * 5, dtype=">u2").reshape(4, 3, 5)


class OddMovie(Movie):
    """Frame 2 is the damaged one."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(name=name, shape=(3, 5), dtype=STACK.dtype, n_frames=4, frame_time_s=0.1)
        self._how = how

    def _read(self, t: int) -> np.ndarray:
        if t == 2:
            HOW[self._how]()
        return STACK[t]


def loop() -> None:
    re.match("(a+)+$", "a" * 60 + "b")  # in native code, which holds the lock of the interpreter


def slow() -> None:
    end = time.process_time() + 1.2
    while time.process_time() < end:
        beat()


def talk() -> None:
    os.write(1, b"decoder: oh\n")
    os.write(2, b"decoder: ah\n")
    os.write(1, bytes(100_000))


def fail() -> None:
    raise KeyError("no such\nchunk")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


HOW = {
    "loop": loop,
    "wait": lambda: time.sleep(60),
    "slow": slow,
    "talk": talk,
    "fail": fail,
    "crash": crash,
    "exit": lambda: os._exit(3),
}


def open_file(path: Path, *, how: str) -> Movie:
    """A movie of 4 frames; or `how` happens at once."""
    if how.endswith(" at once"):
        HOW[how.removesuffix(" at once")]()
    return OddMovie(path.name, how)
