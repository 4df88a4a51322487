"""How often the two signs of a trend that took up a phase are right, on battery movies with known truth.

    python benchmarks/trendcheck.py [seeds]

A line a movie of 128 x 128 x 12 (default trend): error of the share in frames with more than 3 % Li (brightest
component, all pixels, no vote), with the trend and without one; whether `trend_warning` and `check_trend` speak up.
"""

from __future__ import annotations

import sys

import numpy as np

import gmrm_gpu as gg
from gmrm_gpu.results import trend_warning
from gmrm_gpu.trendcheck import check_trend

WRONG, RIGHT = 0.05, 0.02
CASES = [(d, k, {}) for d in ("easy", "mid", "hard") for k in (3, 4)] + [("easy", 3, {"n_empty": 6})]


def config(n_components: int, trend: str) -> gg.AnalysisConfig:
    mixture = gg.MixtureConfig(n_components=n_components, trend=trend)
    return gg.AnalysisConfig(mixture=mixture, correction=gg.CorrectionConfig(radius=0), method="paper")


def error(share: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(share - truth)[truth > 0.03].mean())


def main() -> None:
    rows = []
    for difficulty, k, options in CASES:
        for seed in range(1, 1 + int(sys.argv[1] if len(sys.argv) > 1 else 6)):
            sim = gg.simulate("battery", shape=(128, 128), n_frames=12, seed=seed, difficulty=difficulty, **options)
            settings = config(k, "quadratic+electrode")
            result = gg.analyze(sim.movie, settings)
            plain = gg.analyze(sim.movie, config(k, "none"))
            found = check_trend(sim.movie, settings)
            large = trend_warning(result.fits, result.movie.shape) is not None
            errors = error(result.share, sim.truth_share), error(plain.share, sim.truth_share)
            rows.append((errors[0], large, bool(found.disagree.any())))
            print(
                f"{difficulty} K={k} {options} seed {seed}: error {errors[0]:.3f}, without trend {errors[1]:.3f}; "
                f"trend large {large}, starts disagree in {found.disagree.sum()} of {len(found.frames)}",
                flush=True,
            )
    table = np.array(rows)
    for name, chosen in ((f"error above {WRONG}", table[:, 0] > WRONG), (f"below {RIGHT}", table[:, 0] < RIGHT)):
        large, disagree = (int(table[chosen, i].sum()) for i in (1, 2))
        either = int((table[chosen, 1:].sum(axis=1) > 0).sum())
        print(f"{name}: {chosen.sum()} movies; trend large {large}, starts disagree {disagree}, either {either}")


if __name__ == "__main__":
    main()
