"""How right a live analysis is, beside the analysis of the whole movie: synthetic movies of 256 x 256 x 60.

    python benchmarks/live_accuracy.py           # about a minute

Three movies a difficulty, each drawn once. Per row: the part of the visited pixels whose label is right; mean error of
the area over all frames, pixels, live (``assisted``) and afterwards (``smoothed``); area found live in frames without
Li; and in which part of the frames after the first 16 the live 80 % interval holds the truth, which it also misses
where the labels are wrong.
"""

from __future__ import annotations

import numpy as np

import gmrm_gpu as gg

DIFFICULTIES, RATES, SEEDS = ("easy", "mid", "hard"), (0.1, 0.01), (1, 2, 3)
SHAPE, N_FRAMES, LI = (256, 256), 60, 2


def accuracy(labels: np.ndarray, truth: np.ndarray) -> float:
    """Part of the labelled pixels that are rightly called Li or not; labels 0 not visited, 2 foreground."""
    seen = labels > 0
    return float(((labels == 2) == (truth == LI))[seen].mean())


def one(difficulty: str, rate: float, seed: int) -> np.ndarray:
    """Label accuracy live and afterwards; mean errors of the area, pixels; false Li; coverage of the truth."""
    scene = gg.simulate("battery", shape=SHAPE, n_frames=N_FRAMES, seed=seed, difficulty=difficulty)
    config = gg.AnalysisConfig(gg.MixtureConfig(n_components=3), sampling=gg.SamplingConfig(rate=rate, seed=seed))
    live = gg.LiveAnalysis(SHAPE, scene.movie.dtype, config)
    frames = [live.process(scene.movie.frame(t)) for t in range(N_FRAMES)]
    whole = gg.analyze(scene.movie, config)
    share, sd = (np.array([getattr(frame, name) for frame in frames]) for name in ("share", "share_sd"))
    error = share - scene.truth_share
    empty = scene.truth_share == 0
    n_pixels = SHAPE[0] * SHAPE[1]
    return np.array(
        [
            accuracy(np.stack([frame.labels for frame in frames]), scene.truth),
            accuracy(whole.labels, scene.truth),
            error.mean() * n_pixels,
            (whole.share - scene.truth_share).mean() * n_pixels,
            share[empty].mean() * n_pixels if empty.any() else np.nan,
            (np.abs(error) <= 1.2816 * sd)[16:].mean(),
        ]
    )


def main() -> None:
    """Print the table."""
    print("difficulty  rate  labels live  afterwards  bias live, px  afterwards, px  empty frames, px  truth covered")
    for difficulty in DIFFICULTIES:
        for rate in RATES:
            a, b, c, d, e, f = np.mean([one(difficulty, rate, seed) for seed in SEEDS], axis=0)
            print(f"{difficulty:10}  {rate:4g}  {a:11.4f}  {b:10.4f}  {c:13.0f}  {d:14.0f}  {e:16.0f}  {f:13.2f}")


if __name__ == "__main__":
    main()
