"""Real images with masks drawn by hand: dark particles, by several programs from the same pixels.

The images are no movie, so each is analysed by itself. The method `movie` then has nothing to learn from other frames.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from peers.labels import available, detrended, gaussian_mixture, otsu

import gmrm_gpu as gg

TREND = "linear"
HEADER = "rate    program             K  N  share %  by hand  |difference|  IoU mean  worst  off by half or more"


def images(folder, n):
    """The first `n` images (height, width) with their masks, bool."""
    import tifffile

    stacks = [tifffile.imread(Path(folder) / f"train_{name}.tif")[:n] for name in ("images", "masks")]
    yield from zip(stacks[0], stacks[1] > 0, strict=True)


def toy_images(n):
    """Synthetic ones in their place."""
    sim = gg.simulate("nanoparticles", shape=(96, 96), n_frames=n, n_empty=0, polarity="dark", seed=1)
    yield from ((sim.movie.frame(t), sim.truth[t] == sim.foreground_value) for t in range(n))


def configs(k):
    """Name and settings of ours: foreground is the darkest component, or what `auto` takes for it."""
    base = gg.AnalysisConfig(
        mixture=gg.MixtureConfig(n_components=k, trend=TREND), compute=gg.ComputeConfig(device="cpu", n_threads=1)
    )
    paper = replace(base, method="paper", phases=gg.PhaseConfig("darkest"))
    vote = gg.CorrectionConfig(radius=3, gamma=0.5, window="spatial", sides="both")
    yield "paper, no vote", replace(paper, correction=gg.CorrectionConfig(radius=0))
    yield "paper, vote in 3 px", replace(paper, correction=vote)
    yield "movie, darkest", replace(base, phases=gg.PhaseConfig("darkest"))
    yield "movie, auto", replace(base, phases=gg.PhaseConfig("auto", polarity="dark"))


def all_labels(image, rate):
    """Yields program, K, labels (m,) bool, positions (m,), share."""
    for k in (2, 3):
        for name, config in configs(k):
            result = gg.analyze(image[None], config, rate=rate)
            seen = np.flatnonzero(result.labels[0])
            yield name, k, result.labels[0].ravel()[seen] == 2, seen, float(result.share[0])
        values = image.ravel()[seen].astype(float)
        flat = detrended(values, seen, image.shape, ((1, 0), (0, 1)))
        programs = {"Otsu": otsu, "scikit-learn": gaussian_mixture}
        for name, program in programs.items():
            if name == "Otsu" or available("sklearn"):
                labels = program(-flat, k)
                yield name, k, labels, seen, float(labels.mean())


def compare(args):
    """One row a program, number of components and rate."""
    if not args.data and not args.quick:
        print("masks skipped: give --data FOLDER or set GMRM_MASK_IMAGES")
        return
    if not args.quick and not (Path(args.data) / "train_masks.tif").exists():
        print(f"masks skipped: {args.data} has no train_masks.tif")
        return
    print(HEADER)
    for rate in args.rates or (1.0, 0.1, 0.01):
        found = {}
        for image, mask in toy_images(2) if args.quick else images(args.data, args.images):
            for name, k, labels, seen, share in all_labels(image, rate):
                truth = mask.ravel()[seen]
                union = np.count_nonzero(labels | truth)
                overlap = np.count_nonzero(labels & truth) / union if union else 1.0
                found.setdefault((name, k), []).append((share, mask.mean(), overlap))
        for (name, k), values in found.items():
            yield _row(name, k, rate, np.array(values))


def _row(name, k, rate, values):
    share, by_hand, overlap = values.T
    good = np.isfinite(share)
    off = ~good | (np.abs(share - by_hand) >= 0.5 * by_hand)
    row = {"what": "masks", "program": name, "n_components": k, "rate": rate, "n_images": len(values)}
    row |= {"share": 100 * np.nanmean(share), "by_hand": 100 * by_hand.mean(), "n_off": int(off.sum())}
    row |= {"difference": 100 * np.nanmean(np.abs(share - by_hand)), "iou": overlap.mean(), "iou_worst": overlap.min()}
    print(
        f"{100 * rate:4g} %  {name:19s} {k}  {len(values):2d} {row['share']:7.1f} {row['by_hand']:8.1f}"
        f" {row['difference']:12.1f} {row['iou']:10.2f} {row['iou_worst']:7.2f} {row['n_off']:6d}",
        flush=True,
    )
    return {key: float(value) if isinstance(value, np.floating) else value for key, value in row.items()}
