"""Draw the picture of README.md from the synthetic movie: ``python benchmarks/readme_picture.py`` (20 s, two cores)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gmrm_gpu as gg
from gmrm_gpu.report import raster, style

HERE = Path(__file__).resolve().parent
RATES, REPLICATES = (0.1, 0.01), (40, 200)


def study_of_the_demo_movie() -> tuple[gg.StudyResult, np.ndarray]:
    """A study by both methods, and the frames."""
    simulation = gg.simulate("battery", shape=(192, 192), n_frames=30, seed=1)
    analysis = gg.AnalysisConfig(
        mixture=gg.MixtureConfig(n_components=3),
        compute=gg.ComputeConfig(device="cpu"),
    )
    config = gg.StudyConfig(analysis, rates=RATES, n_replicates=REPLICATES)
    study = gg.run_study(simulation.movie, config, truth=simulation.truth_share)
    return study, np.stack([simulation.movie.frame(t) for t in range(30)])


def larger(mask: np.ndarray) -> np.ndarray:
    """Single pixels as two by two, so that they can be seen."""
    return mask | np.roll(mask, 1, axis=0) | np.roll(mask, 1, axis=1) | np.roll(mask, (1, 1), axis=(0, 1))


def draw(study: gg.StudyResult, frames: np.ndarray, path: Path) -> None:
    """A frame, what is seen of it, and what comes out."""
    assert study.truth is not None
    by_method = {part.method: part for part in study.every}
    t = int(np.argmax(study.truth))
    seen = gg.analyze(frames, study.config.analysis.with_method("movie"), rate=RATES[1])
    assert seen.labels is not None
    labels = seen.labels[t]
    figure = style.new_figure(11.2, 3.6)
    axes = [style.add_axes(figure, left, 0.4, 2.9, 2.9) for left in (0.1, 3.15)]
    style.show(axes[0], raster.grey(frames[t], raster.grey_range(frames)), "one frame of the movie")
    style.scale_bar(axes[0], frames[t].shape, study.movie.pixel_size_um)
    picture = raster.grey(frames[t], raster.grey_range(frames)) * larger(labels > 0)[..., None] * 0.6
    raster.paint(picture, larger(labels == 2), style.FOREGROUND)
    style.show(axes[1], picture, "1 % of its pixels, larger; Li orange")
    graph = style.add_axes(figure, 6.85, 0.4, 3.1, 2.65)
    style.plot_axes(graph)
    entries = []
    for method, rate, colour in (("paper", RATES[0], style.VERMILION), ("movie", RATES[1], style.BLUE)):
        shares = 100 * by_method[method].shares[rate]
        low, high = np.percentile(shares, (10, 90), axis=0)
        graph.fill_between(study.frame, low, high, color=colour, alpha=0.4, linewidth=0)
        entries.append(((low + high) / 2, f"{method}, {100 * rate:g} %", colour))
    graph.plot(study.frame, 100 * study.truth, color=style.TRUTH, linestyle=":", linewidth=2.2)
    entries.append((100 * study.truth, "truth", style.TRUTH))
    graph.set_ylim(0, 1.4 * 100 * study.truth.max())
    style.axis_labels(graph, "frame", "Li, % of the frame", "share of Li, 10th to 90th percentile")
    style.end_labels(graph, study.frame, entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "readme_demo.png"
    draw(*study_of_the_demo_movie(), target)
    print(target)
