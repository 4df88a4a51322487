"""How often the recommended model is right, and how often the bootstrap rejects a true number of components.

python benchmarks/selection.py movies           # 100 synthetic movies: K and trend recommended, against the truth
python benchmarks/selection.py movies --rate 0.01
python benchmarks/selection.py null             # 200 data sets with K components: rejections at the 5 % level

A trend is sufficient if what it cannot describe of the movie's true trend is at most 0.25 of the narrowest phase's
sigma, root mean square over pixels and frames: that widens the narrowest phase by 3 %.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from gmrm_gpu import AnalysisConfig, MixtureConfig, MixtureFit, SamplingConfig, select_model, simulate
from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import trend_terms
from gmrm_gpu.mixture.select import bootstrap_components
from gmrm_gpu.mixture.select import simulate as draw_mixture

SUFFICIENT = 0.25
N_TRUE = {"battery": 3, "nanoparticles": 2}


def design(number):
    """Scenario, size and options of one movie: every combination once in 96, the ring only where there is a battery."""
    scenario = ("battery", "nanoparticles")[number % 2]
    difficulty = ("easy", "mid", "hard")[number // 2 % 3]
    trend = (None, 0.0, 6.0, 24.0)[number // 6 % 4]
    height, width, n_frames = ((96, 96, 12), (128, 128, 20))[number // 24 % 2]
    options = {} if trend is None else {"trend": trend}
    if scenario == "battery" and number // 48 % 2:
        options["sei"] = 0.0
    return scenario, {"shape": (height, width), "n_frames": n_frames, "difficulty": difficulty, **options}


def unmodelled(parameters, terms):
    """Rms over pixels and frames of the true trend outside the span of `terms` and a constant, in narrowest sigmas."""
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 65), np.linspace(-1, 1, 65)))
    true = np.stack([x**a * y**b for a, b in trend_terms(parameters["trend_terms"])], axis=1)
    basis = np.stack([np.ones_like(x), *(x**a * y**b for a, b in terms)], axis=1)
    surfaces = true @ np.asarray(parameters["trend_coef"]).T
    rest = surfaces - basis @ np.linalg.lstsq(basis, surfaces, rcond=None)[0]
    return float(np.sqrt((rest**2).mean()) / min(parameters["sigmas"]))


def movies(args):
    right, failures, seconds = Counter(), 0, []
    for number in range(args.seed, args.seed + args.n):
        scenario, options = design(number)
        simulation = simulate(scenario, seed=number, **options)
        config = AnalysisConfig(sampling=SamplingConfig(rate=args.rate))
        started = time.perf_counter()
        try:
            chosen = select_model(simulation.movie, config, n_bootstrap=0)
        except Exception as error:
            failures += 1
            print(number, scenario, options, "FAILED", error)
            continue
        seconds.append(time.perf_counter() - started)
        left = unmodelled(simulation.parameters, trend_terms(chosen.trend))
        good_k, good_trend = chosen.n_components == N_TRUE[scenario], left <= SUFFICIENT
        ring = scenario == "battery" and "sei" not in options
        for group in ("all", f"{scenario} {options['difficulty']}", "ring" if ring else "no ring"):
            right[group, "n"] += 1
            right[group, "K"] += good_k
            right[group, "trend"] += good_trend
            right[group, "both"] += good_k and good_trend
            right[group, "tenth"] += left <= 0.1
        if options.get("trend") == 0.0:
            right["no trend in the movie", "n"] += 1
            right["no trend in the movie", "trend none"] += chosen.trend == "none"
        if args.verbose or not (good_k and good_trend):
            print(number, scenario, options, f"K {chosen.n_components}, trend {chosen.trend}, unmodelled {left:.2f}")
    for group in dict.fromkeys(name for name, _ in right):
        counts = ", ".join(f"{what} {right[name, what]}" for name, what in right if name == group)
        print(f"{group}: {counts}")
    print(f"failures {failures}; seconds a movie: median {np.median(seconds):.1f}, most {max(seconds):.1f}")


def null(args):
    """Bootstrap p-values of data that have K components."""
    backend = make_backend(np, dtype="float64")
    shape = (64, 64)
    cases = {
        1: ([1.0], [100.0], [10.0]),
        2: ([0.7, 0.3], [80.0, 120.0], [10.0, 14.0]),
        3: ([0.15, 0.65, 0.2], [45.0, 118.0, 172.0], [7.0, 9.0, 12.0]),
    }
    for k, parts in cases.items():
        if args.k and k not in args.k:
            continue
        started = time.perf_counter()
        config = MixtureConfig(n_components=k, trend="linear", tol=1e-7, max_iter=1000)
        weights, means, sigmas = (np.tile(np.array(part), (args.n, 1)) for part in parts)
        rest = {name: np.zeros(args.n) for name in ("log_likelihood", "n_iter", "n_samples", "status")}
        truth = MixtureFit(weights, means, sigmas, np.tile([5.0, -3.0], (args.n, 1)), **rest, terms=config.terms)
        positions = np.stack(
            [np.random.default_rng(i).permutation(shape[0] * shape[1])[: args.m] for i in range(args.n)]
        )
        data = draw_mixture(truth, positions, shape, np.arange(args.n), seed=args.seed + 1000, backend=backend)
        p = np.concatenate(
            [
                bootstrap_components(
                    data[i : i + 10],
                    positions[i : i + 10],
                    shape,
                    config,
                    n_bootstrap=args.bootstrap,
                    seed=args.seed + i,
                    backend=backend,
                ).p_value
                for i in range(0, args.n, 10)
            ]
        )
        rejected = (p <= 0.05).mean()
        print(
            f"K = {k}: {args.n} sets of {args.m} samples, {args.bootstrap} draws each: {100 * rejected:.1f} % rejected "
            f"at 5 %, {100 * (p <= 0.1).mean():.1f} % at 10 %, median p {np.median(p):.2f}, "
            f"{time.perf_counter() - started:.0f} s"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("movies", "null"))
    parser.add_argument("--n", type=int, help="movies (100) or data sets (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help="sampling rate of the movies")
    parser.add_argument("--k", type=int, action="append", help="only this number of components; may be repeated")
    parser.add_argument("--m", type=int, default=400, help="samples in a data set")
    parser.add_argument("--bootstrap", type=int, default=99, help="draws")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    args.n = args.n or {"movies": 100, "null": 200}[args.what]
    {"movies": movies, "null": null}[args.what](args)


if __name__ == "__main__":
    main()
