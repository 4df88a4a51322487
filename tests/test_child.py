"""Decoders in a child: the same movie; a crash, a loop, an odd error or a chatter in it are one line here."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from movies import STACK, read_all
from odd_reader import STACK as ODD

from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import child, open_movie
from gmrm_gpu.frames.child import ChildMovie


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[object]:
    path = tmp_path / "odd.x"
    path.write_bytes(b"x")
    yield lambda how: ChildMovie(path, "odd_reader", how=how)
    gc.collect()


def refusal(movie: ChildMovie, t: int = 2) -> str:
    with pytest.raises(InputError) as caught:
        movie.frame(t)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_movie_of_a_child_is_that_of_its_reader(sources: dict[str, Path]) -> None:
    from gmrm_gpu.frames import video

    here, there = video.open_file(sources["x.mp4"]), open_movie(sources["x.mp4"])
    assert isinstance(there, ChildMovie)
    for what in ("name", "shape", "dtype", "sampled", "acquisition", "valid"):
        assert getattr(here, what) == getattr(there, what)
    np.testing.assert_array_equal(read_all(there), STACK)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("crash", r"reading frame 2 of odd\.x: the decoder crashed \(SIGSEGV\); the file is damaged"),
        ("exit", r"reading frame 2 of odd\.x: the decoder crashed \(exit status 3\); the file is damaged"),
        ("fail", r"frame 2 of odd\.x cannot be read \(KeyError: 'no such\\nchunk'\); the file is damaged"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="signals have names on POSIX only")
def test_what_happens_in_a_child_is_one_line_here_and_other_frames_are_read(odd, how: str, told: str, capfd) -> None:
    movie = odd(how)
    np.testing.assert_array_equal(movie.frame(0), ODD[0])
    for _ in range(2):
        with pytest.raises(InputError, match=told):
            movie.frame(2)
        np.testing.assert_array_equal(movie.frame(3), ODD[3])
    with pytest.raises(InputError, match=r"^(opening odd\.x: the decoder crashed|odd\.x cannot be read)"):
        odd(f"{how} at once")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["loop", "wait"])
def test_a_loop_that_holds_the_interpreter_and_a_wait_without_end_do_end(odd, monkeypatch, how: str) -> None:
    monkeypatch.setattr(child, "PATIENCE_S", 0.3)
    movie, start = odd(how), time.monotonic()
    # On a busy machine a loop may be taken for a wait: it does not get its 0.3 s in 1.8 s.
    told = {"loop": r"it (took over 0\.3|waited for over 1\.8) s", "wait": r"it waited for over 1\.8 s"}[how]
    assert re.match(rf"reading frame 2 of odd\.x: {told} without a frame; ", refusal(movie))
    assert time.monotonic() - start < 10
    np.testing.assert_array_equal(movie.frame(1), ODD[1])
    with pytest.raises(InputError, match=rf"opening odd\.x: {told}"):
        odd(f"{how} at once")


def test_beats_keep_a_slow_reader_alive(odd, monkeypatch) -> None:
    monkeypatch.setattr(child, "PATIENCE_S", 0.5)
    np.testing.assert_array_equal(odd("slow").frame(2), ODD[2])  # 1.2 s


def test_what_decoders_print_is_not_shown_and_breaks_nothing(odd, capfd) -> None:
    np.testing.assert_array_equal(read_all(odd("talk")), ODD)
    assert capfd.readouterr() == ("", "")


def test_children_are_reused_and_few_stay_idle(odd, sources: dict[str, Path]) -> None:
    gc.collect()
    movies = [odd("fail") for _ in range(5)]
    pids = {movie._lease.child()._process.pid for movie in movies}
    assert len(pids) == 5
    del movies
    gc.collect()
    kept = {one._process.pid for one in child._IDLE}
    assert len(kept) == child._N_IDLE
    assert {one._process.pid for one in child._ALL} >= kept
    movie = open_movie(sources["x.mp4"])
    assert movie._lease.child()._process.pid in kept | pids
    np.testing.assert_array_equal(movie.frame(4), STACK[4])


def test_an_interrupt_amid_an_answer_leaves_no_answer_for_the_next_frame(odd, monkeypatch) -> None:
    movie = odd("slow")
    receive = child._receive

    def interrupted(pipe: object) -> None:
        monkeypatch.setattr(child, "_receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        movie.frame(0)
    np.testing.assert_array_equal(movie.frame(1), ODD[1])


def test_a_file_that_changes_while_its_child_is_gone_is_refused(tmp_path: Path, sources: dict[str, Path]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(sources["x.mp4"].read_bytes())
    movie = open_movie(path)
    movie._lease.child().kill()
    np.testing.assert_array_equal(movie.frame(1), STACK[1])
    movie._lease.child().kill()
    path.write_bytes(sources["x.mov"].read_bytes())
    movie._facts["n_frames"] = 8
    with pytest.raises(InputError, match=r"a\.mp4 has changed since it was opened"):
        movie.frame(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_copy_of_the_program_has_children_of_its_own(sources: dict[str, Path]) -> None:
    movie = open_movie(sources["x.mp4"])
    movie.frame(0)
    queue = multiprocessing.get_context("fork").SimpleQueue()
    copy = multiprocessing.get_context("fork").Process(target=lambda: queue.put(movie.frame(5).tolist()), daemon=True)
    copy.start()
    for t in range(9):
        np.testing.assert_array_equal(movie.frame(t), STACK[t])
    assert queue.get() == STACK[5].tolist()
    copy.join()
    np.testing.assert_array_equal(movie.frame(8), STACK[8])


def test_threads_share_a_child(sources: dict[str, Path]) -> None:
    movie = open_movie(sources["x.avi"])
    with ThreadPoolExecutor(6) as pool:
        for t, frame in enumerate(pool.map(movie.frame, range(9))):
            np.testing.assert_array_equal(frame, STACK[t])


def _lives(pid: str) -> bool:
    """In a container nobody may collect who has ended: then nothing is left but the number."""
    try:
        return Path("/proc", pid, "cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_no_child_outlives_the_program(sources: dict[str, Path], end: str) -> None:
    code = (
        "import os; from gmrm_gpu.frames import child, open_movie;"
        f"movie = open_movie({str(sources['x.mp4'])!r}); other = open_movie({str(sources['x.avi'])!r}); del other;"
        f"print(*(one._process.pid for one in child._ALL), flush=True); {end}"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    pids = done.stdout.split()
    assert len(pids) == 2
    wait = time.monotonic() + 5
    while any(map(_lives, pids)) and time.monotonic() < wait:
        time.sleep(0.02)
    assert not [pid for pid in pids if _lives(pid)]
