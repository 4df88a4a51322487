"""python -m benchmarks.gpu [--quick] [--budget-s 480] [--gpu 0] [--results FILE | --no-results]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.record import stamp
from gmrm_gpu.errors import GmrmError

from .check import CheckError
from .rig import Rig, open_gpu
from .sizes import FULL, FULL_BUDGET_S, QUICK, Sizes
from .suite import append_rows, run_suite

RESULTS = Path(__file__).parents[1] / "results" / "gpu.jsonl"
QUICK_BUDGET_S = 90.0


def main(
    argv: Sequence[str] | None = None, *, open_rig: Callable[[int], Rig] = open_gpu, sizes: Sizes | None = None
) -> int:
    """Exit code: 0 measured, 1 something failed or the kernels are wrong, 3 there is no GPU, and nothing is written."""
    args = _arguments(argv)
    try:
        rig = open_rig(args.gpu)
    except GmrmError as error:
        print(f"benchmarks.gpu: no usable GPU: {error}; nothing was measured", file=sys.stderr)
        return 3
    budget = args.budget_s or (QUICK_BUDGET_S if args.quick else FULL_BUDGET_S)
    sizes = sizes or (QUICK if args.quick else FULL.scaled(budget))
    results = args.results if rig.publish and not args.no_results else None
    try:
        _, failed = run_suite(
            rig,
            sizes,
            budget,
            stamp=stamp(),
            keep=lambda rows: None if results is None else append_rows(rows, results),
        )
    except CheckError as error:
        print(f"benchmarks.gpu: {error}; nothing was measured", file=sys.stderr)
        return 1
    if results is not None:
        print(f"appended to {results}")
    elif not rig.publish:
        print("this is no GPU, so nothing is kept")
    if failed:
        print(f"benchmarks.gpu: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure the CUDA kernels on a GPU.")
    add = parser.add_argument
    add("--quick", action="store_true", help="256 x 256 x 60 and a fifth of the replicates, within 90 s")
    add("--budget-s", type=float, metavar="S", help="seconds for all of it (default 480); fewer measure fewer frames")
    add("--gpu", type=int, default=0, metavar="N", help="number of the GPU (default 0)")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help="JSON lines are appended to it")
    add("--no-results", action="store_true", help="print only")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
