"""The command line, `gmrm-gpu`. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.

>>> from gmrm_gpu.cli import main
>>> main(["doctor"])  # doctest: +SKIP
0
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from ..errors import ConfigError, GmrmError, printable
from .parser import build_parser

__all__ = ["build_parser", "main"]

INTERRUPTED, TERMINATED = 130, 143


class _Terminated(BaseException):
    """SIGTERM: a scheduler's time is up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : arguments without the program's name; None: those of the process.

    Returns
    -------
    Exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not cost hours of work
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    args.command_line = shlex.join(["gmrm-gpu", *arguments])
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        with _terminable():
            _execute(args)
        return 0
    except KeyboardInterrupt as stop:
        return _fail(f"interrupted; {_kept(stop) or 'nothing was written'}", INTERRUPTED)
    except _Terminated as stop:
        return _fail(f"terminated; {_kept(stop) or 'nothing was written'}", TERMINATED)
    except BrokenPipeError:
        # The reader, such as `head`, has left; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        text = "; ".join(part for part in (_message(error), _kept(error)) if part)
        return _fail(f"error: {text}", 2 if isinstance(error, ConfigError) else 1)


def _execute(args: argparse.Namespace) -> None:
    # NumPy and SciPy load only here: --help and --version stay instant.
    from .console import Console

    module, _, function = args.run.partition(":")
    command: Callable[[argparse.Namespace, Any], None] = getattr(import_module(module, __name__), function)
    console = Console(quiet=args.quiet)
    with console.listening():
        command(args, console)
    console.close()


def _kept(error: BaseException) -> str:
    """What was added to an error on its way: where the work that is done lies."""
    return "; ".join(getattr(error, "__notes__", ()))


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, GmrmError):
        return text
    if isinstance(error, MemoryError):
        return f"out of memory ({text or 'no details'}); lower --memory or --threads, or crop the movie"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text or 'no details'} (unexpected; --debug shows where)"


def _fail(text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"gmrm-gpu: {printable(text)}", file=sys.stderr)
    return code


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind, so that no half-written folder is left."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
