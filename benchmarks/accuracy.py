"""How near to the truth the curves, intervals and labels are, on synthetic movies and on real images.

python benchmarks/accuracy.py                      # everything, about an hour on one core
python benchmarks/accuracy.py growth               # bias, RMSE, band, false foreground, coverage: movie and paper
python benchmarks/accuracy.py long                 # the same for 180 frames
python benchmarks/accuracy.py labels               # right labels beside other programs, all pixels and 1 %
python benchmarks/accuracy.py masks --data FOLDER  # real images with masks drawn by hand (also: GMRM_MASK_IMAGES)
python benchmarks/accuracy.py targets              # the rows of --json beside what was aimed at
python benchmarks/accuracy.py readme               # the same rows as the tables of README.md

`--json FILE` appends every row with commit and machine.
Percentages are of the true area at its peak, unless said otherwise. The 10-90 % band is over the draws of a movie,
each draw set off from the mean of its movie, all movies pooled; coverage is of the value that the same method finds on
all pixels, by intervals from single draws.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import masks
import numpy as np
import targets
from peers.labels import compare as compare_programs
from record import stamp

import gmrm_gpu as gg
from gmrm_gpu.classify import NOT_VISITED
from gmrm_gpu.config import ESTIMATORS
from gmrm_gpu.recorder import Observer
from gmrm_gpu.results import Estimate
from gmrm_gpu.runner import Curves, Runner

N_COMPONENTS = {"battery": 3, "nanoparticles": 2}
DIFFICULTIES = ("easy", "mid", "hard")
LEVELS = (0.8, 0.95)


@dataclass(frozen=True)
class Case:
    """Movies of one kind, analysed in one way."""

    scenario: str
    difficulty: str
    side: int
    n_frames: int
    rate: float
    scheme: str = "fixed"
    method: str = "movie"

    @property
    def config(self) -> gg.AnalysisConfig:
        """Settings: the true number of components, everything else by default."""
        return gg.AnalysisConfig(
            mixture=gg.MixtureConfig(n_components=N_COMPONENTS[self.scenario]),
            sampling=gg.SamplingConfig(scheme=self.scheme),
            compute=gg.ComputeConfig(device="cpu", n_threads=1),
            method=self.method,
        )


@dataclass(frozen=True)
class Run:
    """The draws of one movie: truth (T,), curves (R, T), right labels among visited, and the curve of all pixels."""

    truth: np.ndarray
    curves: Curves
    label_accuracy: float
    reference: Curves | None


class RightLabels(Observer):
    """Counts visited pixels whose final label, foreground or not, is the true one."""

    def __init__(self, foreground: np.ndarray) -> None:
        self.foreground = foreground.reshape(len(foreground), -1)
        self.right = self.visited = 0

    def corrected(self, done) -> None:
        """Labels of a frame are final."""
        labels, positions = np.asarray(done.labels), np.asarray(done.positions)
        seen = labels != NOT_VISITED
        self.right += int(((labels == 1) == self.foreground[done.frame][positions])[seen].sum())
        self.visited += int(seen.sum())


@lru_cache(maxsize=1)
def simulated(scenario, difficulty, side, n_frames, seed):
    return gg.simulate(scenario, shape=(side, side), n_frames=n_frames, difficulty=difficulty, seed=seed)


@lru_cache(maxsize=1)
def reference(scenario, difficulty, side, n_frames, seed):
    """Curves of all pixels of one movie."""
    case = Case(scenario, difficulty, side, n_frames, 1.0)
    return Runner(simulated(scenario, difficulty, side, n_frames, seed).movie, case.config).run(1.0, np.array([0]))


def run(case, seed, n_draws, *, with_reference):
    """All draws of one movie."""
    key = (case.scenario, case.difficulty, case.side, case.n_frames, seed)
    simulation = simulated(*key)
    watch = RightLabels(simulation.truth == simulation.foreground_value)
    curves = Runner(simulation.movie, case.config).run(case.rate, np.arange(n_draws), observer=watch)
    full = reference(*key) if with_reference and case.method == "movie" else None
    return Run(simulation.truth_share, curves, watch.right / watch.visited, full)


def band(values):
    """Mean over frames of the 10-90 % range of draws: values (movies, draws, T)."""
    _, n_draws, n_frames = values.shape
    if n_draws < 2:
        return float("nan")
    apart = (values - values.mean(axis=1, keepdims=True)) * np.sqrt(n_draws / (n_draws - 1))
    low, high = np.quantile(apart.reshape(-1, n_frames), (0.1, 0.9), axis=0, method="median_unbiased")
    return float((high - low).mean())


def coverage(runs, name, level, only_foreground=False):
    """Part of the frames, movies and draws whose interval holds the curve of all pixels."""
    inside = []
    for one in runs:
        if one.reference is None:
            continue
        low, high = Estimate(getattr(one.curves, name), getattr(one.curves, f"{name}_sd")).interval(level)
        full = getattr(one.reference, name)
        kept = one.truth > 0 if only_foreground else np.ones(len(one.truth), bool)
        inside.append(((low - 1e-12 <= full) & (full <= high + 1e-12))[:, kept])
    return float(np.mean(inside)) if inside else None


def growth_row(case, runs):
    """Everything measured of one case; None where a method lacks it."""
    peak = float(np.mean([one.truth.max() for one in runs]))
    row = {"what": "growth", **vars(case), "n_movies": len(runs), "n_draws": len(runs[0].curves.share)}
    row |= {"peak_px": round(peak * case.side**2), "label_accuracy": float(np.mean([r.label_accuracy for r in runs]))}
    row["n_failed"] = int(sum((~np.isfinite(one.curves.share)).sum() for one in runs))
    names = ESTIMATORS if case.method == "movie" else ("count",)
    for name in names:
        values = np.stack([getattr(one.curves, name) for one in runs])
        error = values - np.stack([one.truth for one in runs])[:, None, :]
        empty = np.broadcast_to(np.stack([one.truth == 0 for one in runs])[:, None, :], values.shape)
        row[f"{name}_bias"] = 100 * np.nanmean(error) / peak
        row[f"{name}_rmse"] = 100 * np.sqrt(np.nanmean(error**2)) / peak
        row[f"{name}_band"] = 100 * band(values) / peak
        row[f"{name}_ratio"] = row[f"{name}_band"] / row["count_band"] if row["count_band"] > 0 else float("nan")
        if empty.any():
            row[f"{name}_false"] = 100 * np.nanmean(values[empty])
            row[f"{name}_false_worst"] = 100 * np.nanmax(values[empty])
        if name in ("assisted", "smoothed"):
            for level in LEVELS:
                row[f"{name}_cover{100 * level:.0f}"] = coverage(runs, name, level)
            row[f"{name}_cover80_foreground"] = coverage(runs, name, 0.8, only_foreground=True)
    return row


GROWTH_HEADER = (
    "scenario      level  T   rate   scheme     method estimator  N   bias px (%)   RMSE px (%)   band px (%)   ratio"
    "  false %  (worst)  labels  cover 80/95 %"
)


def print_growth(row):
    """One line an estimator."""
    case = (
        f"{row['scenario']:13s} {row['difficulty']:5s} {row['n_frames']:4d} {100 * row['rate']:5g}% {row['scheme']:10s}"
    )
    number = row["n_movies"] * row["n_draws"]
    for name in ESTIMATORS:
        if f"{name}_bias" not in row:
            continue
        figures = []
        for figure in ("bias", "rmse", "band"):
            percent = row[f"{name}_{figure}"]
            figures.append(f"{percent * row['peak_px'] / 100:6.0f} ({percent:5.2f})")
        ratio, *false = (row.get(f"{name}_{key}", float("nan")) for key in ("ratio", "false", "false_worst"))
        cover = [row.get(f"{name}_cover{level}") for level in (80, 95)]
        shown = "" if cover[0] is None else " / ".join(f"{100 * c:.1f}" for c in cover)
        print(
            f"{case} {row['method']:6s} {name:9s} {number:3d} {' '.join(figures)}  {ratio:5.3f} {false[0]:7.3f} "
            f"{false[1]:8.3f}  {row['label_accuracy']:.4f}  {shown}",
            flush=True,
        )


def growth_cases(args):
    """Scenario, difficulty and length: all ways to analyse such a movie."""
    if args.what == "long":
        rates, scenarios, n_frames = args.rates or (0.1, 0.01), ("battery",), 3 * args.frames
    else:
        rates, scenarios, n_frames = args.rates or (0.1, 0.05, 0.01), args.scenario, args.frames
    for scenario, difficulty in product(scenarios, args.difficulty):
        kind = (scenario, difficulty, args.side, n_frames)
        cases = [Case(*kind, rate) for rate in rates] + [Case(*kind, min(rates), "stratified")]
        yield cases if args.what == "long" else [*cases, Case(*kind, max(rates), method="paper")]


def growth(args):
    """Rows of every case, printed as they come."""
    print(GROWTH_HEADER)
    for cases in growth_cases(args):
        runs = {case: [] for case in cases}
        for seed in range(args.seed, args.seed + args.movies):
            for case in cases:
                known = seed - args.seed < args.references
                runs[case].append(run(case, seed, args.draws, with_reference=known))
        for case in cases:
            row = growth_row(case, runs[case])
            print_growth(row)
            yield row


def print_labels(scenario, difficulty, rate, row):
    """One line a program."""
    start = f"{scenario:13s} {difficulty:5s} {100 * rate:5g}% {row['program']:14s}"
    if "skipped" in row:
        print(f"{start} skipped: {row['skipped']}")
        return
    print(f"{start} {row['label_accuracy']:.4f} {row['with_foreground']:10.4f}           {row['settings']}", flush=True)


def labels(args):
    """Rows of the comparison with other programs."""
    print("scenario      level   rate program        labels  with foreground  settings")
    for scenario in args.scenario:
        for difficulty in args.difficulty:
            for rate in args.rates or (1.0, 0.01):
                case = Case(scenario, difficulty, args.side, args.frames, rate)
                simulations = (
                    simulated(scenario, difficulty, args.side, args.frames, args.seed + i)
                    for i in range(args.label_movies)
                )
                for row in compare_programs(simulations, case.config, rate, quick=args.quick):
                    print_labels(scenario, difficulty, rate, row)
                    yield {"what": "labels", "scenario": scenario, "difficulty": difficulty, "rate": rate, **row}


TABLES = {"growth": growth, "long": growth, "labels": labels, "masks": masks.compare}
RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=(*TABLES, "all", "targets", "readme"))
    parser.add_argument("--scenario", action="append", choices=tuple(N_COMPONENTS))
    parser.add_argument("--difficulty", action="append", choices=DIFFICULTIES)
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--movies", type=int, default=5, help="movies of a kind")
    parser.add_argument("--draws", type=int, default=4, help="draws of a movie")
    parser.add_argument("--references", type=int, default=5, help="movies whose coverage is checked")
    parser.add_argument("--label-movies", type=int, default=1, help="movies of a kind for `labels`")
    parser.add_argument("--seed", type=int, default=0, help="of the first movie")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=60, help="of a movie; `long` has three times as many")
    parser.add_argument("--data", default=os.environ.get("GMRM_MASK_IMAGES"), help="folder of train_images.tif")
    parser.add_argument("--images", type=int, default=20, help="how many of them")
    parser.add_argument("--quick", action="store_true", help="toy size: one small movie of a kind, two draws")
    parser.add_argument("--json", type=Path, help="append rows to this file")
    args = parser.parse_args()
    args.scenario = args.scenario or list(N_COMPONENTS)
    args.difficulty = args.difficulty or list(DIFFICULTIES)
    if args.quick:
        args.movies, args.draws, args.references, args.side, args.frames = 1, 2, 1, 64, 12
        args.scenario, args.difficulty, args.rates = args.scenario[:1], args.difficulty[:1], (0.1,)
    if args.what in ("targets", "readme"):
        {"targets": targets.compare, "readme": targets.markdown}[args.what](args.json or RESULTS)
        return
    started, asked = time.perf_counter(), args.what
    for args.what in TABLES if asked == "all" else (asked,):
        for row in TABLES[args.what](args):
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({key: _short(value) for key, value in row.items()} | stamp()) + "\n")
    print(f"{time.perf_counter() - started:.0f} s")


def _short(value):
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
