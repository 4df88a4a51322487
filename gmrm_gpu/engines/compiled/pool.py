"""Work on many items by several threads; what they compute never depends on how many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count

Notify = Callable[[float], None]


class Pool:
    """Threads that take items from a counter, so that none waits while there is work.

    Attributes
    ----------
    workers : threads, the caller's among them. notify : told the fraction done by those who `tell`; None: nobody is.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.notify: Notify | None = None
        self._threads = ThreadPoolExecutor(max(1, workers - 1), thread_name_prefix="gmrm_gpu")

    def tell(self, fraction: float) -> None:
        """Say how much of the longest stage is done, 0 to 1; from the thread that called the stage."""
        if self.notify is not None:
            self.notify(fraction)

    def run(self, function: Callable[[int], object], n: int, *, tell: bool = False) -> None:
        """Call ``function(i)`` for all 0 <= i < n, in any order; the first error ends the work and is raised.

        `function` releases the GIL (a Numba function with ``nogil``) and must not call `run` itself. tell : the
        fraction done after each item of this thread.
        """
        numbers = count()
        ended: list[bool] = []

        def work(tell: bool = False) -> None:
            try:
                while not ended and (i := next(numbers)) < n:
                    function(i)
                    if tell:
                        self.tell((i + 1) / n)
            except BaseException:
                ended.append(True)
                raise

        others = [self._threads.submit(work) for _ in range(min(self.workers, n) - 1)]
        try:
            work(tell)
        finally:
            wait(others)
        try:
            while others:
                others.pop().result()
        finally:
            # An error knows this frame: with the others in it, all would keep the work's arrays until a collection.
            others.clear()
