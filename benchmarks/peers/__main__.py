"""Every program that can run here, each in a process of its own with one thread and a time limit; tables and a picture.

python -m benchmarks.peers                         # all of them, about ten minutes on a quiet machine
python -m benchmarks.peers --quick                 # toy size, half a minute
python -m benchmarks.peers --only ours,flexmix
python -m benchmarks.peers --json FILE             # append the rows with commit and machine
python -m benchmarks.peers --saved FILE --markdown --plot FILE.png    # show what --json kept, measure nothing
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import stamp

from .script import ONE_THREAD, append, say
from .table import Row, markdown_table, text_table

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    *("ours", "scikit_learn", "pytorch_gmm", "gmm_gpu", "mclust", "mixtools", "flexmix"),
    *("ols", "otsu", "ants", "ceiling"),
)
LIMIT_S, QUICK_LIMIT_S = 400.0, 240.0


def run_one(command: Sequence[str], name: str, rows: Path, limit_s: float) -> list[Row]:
    """Run a script that appends to `rows`; where it crashes or takes too long, what it wrote and a row that tells.

    The whole process group ends with it, so that nothing goes on behind the next measurement.
    """
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, start_new_session=True)
    try:
        code = process.wait(timeout=limit_s)
        reason = None if code == 0 else f"ended by itself with status {code}"
    except subprocess.TimeoutExpired:
        reason = f"stopped after {limit_s:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = rows.read_text("utf-8") if rows.exists() else ""
    found = [json.loads(line) for line in text.split("\n")[:-1]]  # what was cut short has no end of line
    if reason is not None:
        say(f"{name}: {reason}")
        found.append({"program": f"{name}.py", "skipped": reason})
    return found


def run_all(names: Sequence[str], *, quick: bool, limit_s: float) -> list[Row]:
    """Rows of all scripts."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(names, start=1):
            started = time.perf_counter()
            say(f"[{i}/{len(names)}] {name}")
            rows = Path(folder) / f"{name}.jsonl"
            command = [sys.executable, "-m", f"benchmarks.peers.{name}", "--rows", str(rows)]
            found += run_one([*command, *(["--quick"] if quick else [])], name, rows, limit_s)
            say(f"[{i}/{len(names)}] {name}: {time.perf_counter() - started:.0f} s")
    return found


def load(path: Path) -> list[Row]:
    """Rows that ``--json`` kept; those of the latest run, which share a date, a commit and a run."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row for row in rows if row["run"] == rows[-1]["run"]]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, also where programs were skipped."""
    args = _arguments(argv)
    if args.saved:
        rows = load(args.saved)
    else:
        rows = run_all(args.only, quick=args.quick, limit_s=QUICK_LIMIT_S if args.quick else LIMIT_S)
    if args.json:
        about = {**stamp(), "run": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        for row in rows:
            append(args.json, {"what": "peers", **row, **about})
    print(markdown_table(rows) if args.markdown else text_table(rows))
    if args.plot:
        from .plot import draw

        draw(rows, args.plot)
        say(f"drawn to {args.plot}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__, formatter_class=text)
    add = parser.add_argument
    add("--quick", action="store_true", help="toy size")
    add("--only", type=_names, default=SCRIPTS, metavar="A,B", help=f"of {', '.join(SCRIPTS)}")
    add("--json", type=Path, metavar="FILE", help="append rows with commit and machine")
    add("--saved", type=Path, metavar="FILE", help="show the latest rows of this file instead of measuring")
    add("--markdown", action="store_true", help="tables for README.md")
    add("--plot", type=Path, metavar="FILE", help="draw the picture, PNG; needs matplotlib")
    return parser.parse_args(argv)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; use {', '.join(SCRIPTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
