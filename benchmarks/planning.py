"""Whether the rate that `plan` recommends gives the wanted width in other draws, and whether the interval holds there.

python benchmarks/planning.py            # 24 synthetic movies, two widths each, 10 new draws of every recommendation
python benchmarks/planning.py --quick    # one small movie

reached: draws whose interval, mean over frames, is no wider than wanted. covered: frames whose interval holds the value
of all pixels (by the same method), which should be the level of the interval, 80 %.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np

from gmrm_gpu import AnalysisConfig, ComputeConfig, MixtureConfig, SamplingConfig, plan_sampling, simulate
from gmrm_gpu.results import Estimate
from gmrm_gpu.runner import Runner

WIDTHS = (0.01, 0.03)
N_TRUE = {"battery": 3, "nanoparticles": 2}


def design(number):
    """Scenario and difficulty of one movie, every combination once in six."""
    return ("battery", "nanoparticles")[number % 2], ("easy", "mid", "hard")[number // 2 % 3]


def try_out(movie, config, best, n_draws, seed):
    """Width of each of the new draws and the part of the frames covered."""
    whole = Runner(movie, config).run(1.0, np.array([0])).share[0]
    sampling = SamplingConfig(rate=best.rate, scheme=best.scheme, seed=seed)
    curves = Runner(movie, replace(config, sampling=sampling)).run(best.rate, np.arange(n_draws))
    low, high = Estimate(curves.share, curves.share_sd).interval(config.quantity.interval)
    return (high - low).mean(axis=1), ((low <= whole) & (whole <= high)).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    numbers, shape, n_frames, wanted = range(args.n), (128, 128), 20, WIDTHS
    if args.quick:
        numbers, shape, n_frames, wanted = range(1), (64, 64), 8, WIDTHS[1:]
    found, started = defaultdict(list), time.perf_counter()
    for number in numbers:
        scenario, difficulty = design(number)
        movie = simulate(scenario, shape=shape, n_frames=n_frames, seed=number, difficulty=difficulty).movie
        mixture = MixtureConfig(n_components=N_TRUE[scenario])
        config = AnalysisConfig(mixture=mixture, compute=ComputeConfig(device="cpu"))
        for width in wanted:
            plan = plan_sampling(movie, config, width=width)
            best = plan.recommended
            if best is None:
                print(f"{movie.name} {width:g}: {plan.reason} {' '.join(plan.cautions)}")
                found[difficulty, width].append((np.nan, np.nan, np.nan, np.nan))
                continue
            widths, covered = try_out(movie, config, best, args.draws, seed=number + 1000)
            found[difficulty, width].append((best.rate, (widths <= width).mean(), widths.mean() / width, covered))
    print("difficulty  width  movies  none  rate (median)  reached  width / wanted  covered")
    for (difficulty, width), rows in sorted(found.items()):
        values = np.array(rows)
        none = int(np.isnan(values[:, 0]).sum())
        mean = np.nanmean(values, axis=0) if none < len(rows) else np.full(4, np.nan)
        middle = np.nanmedian(values[:, 0]) if none < len(rows) else np.nan
        print(
            f"{difficulty:10}  {width:5.2f}  {len(rows):6}  {none:4}  {100 * middle:11.2f} %  {100 * mean[1]:5.0f} %  "
            f"{mean[2]:14.3f}  {100 * mean[3]:5.0f} %"
        )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
