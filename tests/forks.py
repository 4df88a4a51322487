"""A process that has everything loaded, and forks one run of the command line after another, to be killed.

Start-up takes a second and a run a tenth, so that hundreds of kills can be tried. As a script this is that process:
it reads requests and writes answers, one JSON a line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOG, ERRORS = "computed.log", "errors.txt"
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Forks:
    """The process, seen from a test.

    small : samples of a shard, so that a tiny study has several.
    """

    def __init__(self, small: int) -> None:
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(small)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )

    def run(
        self, folder: Path, arguments: list[str], *, after_s: float | None = None, at: int | None = None
    ) -> dict[str, Any]:
        """Run a command in `folder`; kill it after so many seconds, or at its `at`-th change of a file there.

        Returns
        -------
        ``code`` (-9: killed), ``seconds``, ``changes`` (of files, if it was not killed), ``errors`` (its stderr),
        ``computed`` (names of the shards that it began to compute).
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for name in (LOG, ERRORS):  # a child may die before it has begun its own
            (folder.parent / name).write_text("")
        request = {"folder": str(folder), "arguments": arguments, "after_s": after_s, "at": at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        answer["errors"] = (folder.parent / ERRORS).read_text()
        log = (folder.parent / LOG).read_text().split()
        answer["changes"] = int(log.pop().removeprefix("changes=")) if log and log[-1].startswith("changes=") else None
        return answer | {"computed": log}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(small: int) -> None:
    """Answer requests until there are no more."""
    from gmrm_gpu.cli import commands, main  # noqa: F401 - loaded once for all
    from gmrm_gpu.study import shards

    os.fsync = lambda handle: None  # what a process has written outlives it
    shards.SHARD_SAMPLES["numpy"] = small
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                code = _child(main, **request)
            finally:
                os._exit(99)
            os._exit(code)
        if request["after_s"] is not None:
            time.sleep(request["after_s"])
            os.kill(pid, signal.SIGKILL)  # one that has ended is there until it is waited for
        _, status = os.waitpid(pid, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
        print(json.dumps(answer), flush=True)


def _child(main: Any, folder: str, arguments: list[str], after_s: float | None, at: int | None) -> int:
    from gmrm_gpu.study.job import Workplace

    for number, name in ((1, os.devnull), (2, os.path.join(os.path.dirname(folder), ERRORS))):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    log = os.open(os.path.join(os.path.dirname(folder), LOG), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    compute = Workplace.compute

    def logged(self: Workplace, shard: Any, **more: Any) -> Any:
        os.write(log, f"{shard.name}\n".encode())
        return compute(self, shard, **more)

    Workplace.compute = logged  # type: ignore[method-assign]
    os.chdir(folder)
    count = _watch(folder, at)
    code = main(arguments)
    os.write(log, f"changes={count[0]}\n".encode())
    sys.stderr.flush()
    os._exit(code)


def _watch(folder: str, at: int | None) -> list[int]:
    """Count the changes of files in a folder, and die just before the `at`-th."""
    count = [0]

    def changes(event: str, about: tuple[Any, ...]) -> bool:
        if event == "open":
            return (
                isinstance(about[0], str) and bool(about[2] & _WRITING) and os.path.abspath(about[0]).startswith(folder)
            )
        return event in _CHANGES and os.path.abspath(os.fsdecode(about[0])).startswith(folder)

    def hook(event: str, about: tuple[Any, ...]) -> None:
        if changes(event, about):
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1

    sys.addaudithook(hook)
    return count


if __name__ == "__main__":
    serve(int(sys.argv[1]))
