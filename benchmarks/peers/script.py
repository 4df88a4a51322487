"""What every script of a program does when it is run: measure, keep the rows as they come, print the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import FULL, QUICK, Peer, Row, measure
from .table import text_table

ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "SCIPY_ARRAY_API": "1",  # without it scikit-learn takes no arrays of torch
}
"""Read by the libraries when they are loaded, so that every program has one thread."""


def run_script(peers: Sequence[Peer], name: str, argv: Sequence[str] | None = None) -> int:
    """Measure `peers` as the command line says and print the table; name: of the script's module."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=sys.modules[name].__doc__)
    parser.add_argument("--quick", action="store_true", help="toy size")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="append rows to it as JSON lines, and print no table")
    args = parser.parse_args(argv)
    rows = []
    for peer in peers:
        for row in measure(peer, QUICK if args.quick else FULL, say):
            rows.append(row)
            if args.rows:
                append(args.rows, row)
    if not args.rows:
        print(text_table(rows))
    return 0


def start(peers: Sequence[Peer], spec: Any) -> None:
    """Call at the end of a script with its ``__spec__``: run it as a program, with one thread."""
    if any(os.environ.get(key) != value for key, value in ONE_THREAD.items()):
        command = [sys.executable, "-m", spec.name, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})
    sys.exit(run_script(peers, "__main__"))


def append(path: Path, row: Row) -> None:
    """One line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)
