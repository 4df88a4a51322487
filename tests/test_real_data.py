"""Real recordings end to end: a growing crystal (light microscopy) and defects in titanium (TEM), dark on bright.

What the numbers mean, and where the method does not fit such data, is in README.md, "Real movies".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import gmrm_gpu as gg
from gmrm_gpu.frames import Movie

CRYSTAL = "crystal-growth-mit/example_crystal_growth.gif"
LOOPS = "ti-insitu-tem-mit/Figure-3-Loop-Motion.mp4"
LINES = "ti-insitu-tem-mit/Figure-4-Line-Motion.mp4"

# Outlines of the dark, ringed grains in frames 0, 6 and 12, clicked by eye on an enlarged picture, (x, y) in pixels.
OUTLINES: dict[int, list[str]] = {
    0: [
        "102,131 145,110 155,111 175,124 180,140 186,172 175,183 160,190 138,197 120,192 110,180 104,160",
        "218,0 209,30 216,47 230,56 250,63 270,66 278,55 288,50 288,0",
    ],
    6: [
        "72,112 98,98 130,83 150,76 170,77 185,84 200,98 210,122 217,165 219,192 200,207 170,220 140,230 118,228 "
        "92,213 80,198 73,155",
        "184,0 176,35 180,55 197,77 220,88 240,95 265,100 278,92 288,83 288,0",
        "30,303 38,283 60,281 100,278 118,287 133,303",
    ],
    12: [
        "39,98 80,73 142,48 150,52 172,70 200,88 225,104 238,122 241,150 250,175 250,210 220,230 175,250 144,263 "
        "130,255 80,243 60,220 48,180 41,140",
        "151,0 143,30 145,47 165,65 200,88 238,121 270,103 288,85 288,0",
        "16,255 40,252 80,248 130,257 146,266 160,280 166,303 30,303 3,283",
    ],
}


def real(shared_data: Path, name: str) -> Path:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"{name} is not among the real recordings on this machine")
    return path


def outlined(t: int, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: inside the hand-made outlines of frame `t`."""
    image = Image.new("L", shape[::-1])
    for outline in OUTLINES[t]:
        points = [tuple(map(int, pair.split(","))) for pair in outline.split()]
        ImageDraw.Draw(image).polygon(points, fill=1)
    return np.asarray(image) > 0


def dark_on_bright(radius: float) -> gg.AnalysisConfig:
    """Two components and a plane: what these recordings bear (README.md)."""
    return gg.AnalysisConfig(
        mixture=gg.MixtureConfig(n_components=2, trend="linear"),
        phases=gg.PhaseConfig("darkest"),
        # Frames count threefold as far apart as pixels: the vote then reaches one frame either way.
        correction=gg.CorrectionConfig(radius=radius, gamma=0.5, window="symmetric", sides="both", time_scale=3),
        compute=gg.ComputeConfig(device="cpu"),
        method="paper",
    )


def small_study(movie: Movie, config: gg.AnalysisConfig) -> gg.StudyResult:
    study = gg.run_study(movie, gg.StudyConfig(config, rates=(0.1, 0.01), n_replicates=(4, 12), methods=("paper",)))
    assert all(np.isfinite(share).all() for share in study.shares.values())
    return study


def checked(movie: Movie, config: gg.AnalysisConfig, tolerance: float) -> gg.AnalysisResult:
    """All pixels and one in ten: both stay off excluded pixels, and agree within `tolerance` on average."""
    full, tenth = gg.analyze(movie, config), gg.analyze(movie, config, rate=0.1)
    valid = np.ones(movie.shape, bool) if movie.valid is None else movie.valid
    for result, rate in ((full, 1.0), (tenth, 0.1)):
        assert result.labels is not None
        assert not result.labels[:, ~valid].any()
        assert (result.labels > 0).sum(axis=(1, 2)).tolist() == [round(rate * valid.sum())] * len(movie)
    assert np.abs(tenth.share - full.share).mean() < tolerance
    return full


def foreground(result: gg.AnalysisResult, t: int) -> np.ndarray:
    assert result.labels is not None
    return result.labels[t] == result.config.phases.foreground_index + 1


@pytest.fixture(scope="module")
def crystal(shared_data: Path) -> Movie:
    excluded = np.zeros((303, 288), bool)
    excluded[4:38, 20:76] = True  # seconds, burnt in
    excluded[248:281, 198:] = True  # scale bar
    return gg.open_movie(real(shared_data, CRYSTAL), exclude=excluded)


def test_a_crystal_grows_as_it_was_outlined_by_hand(crystal: Movie) -> None:
    result = checked(crystal, dark_on_bright(5), tolerance=0.025)
    assert result.share[0] < 0.18
    assert result.share[-1] > 0.55
    assert (np.diff(result.share) > 0).all()
    for t in OUTLINES:
        by_hand = outlined(t, crystal.shape) & crystal.valid
        found = foreground(result, t)
        assert result.share[t] == pytest.approx(by_hand.sum() / crystal.valid.sum(), abs=0.04)
        assert (found & by_hand).sum() / (found | by_hand).sum() > 0.88


def test_a_crystal_fitted_as_a_whole(crystal: Movie) -> None:
    """No vote, one setting beside the size of the model; a tenth of the pixels says the same."""
    config = gg.AnalysisConfig(
        mixture=gg.MixtureConfig(n_components=2, trend="linear"),
        phases=gg.PhaseConfig(polarity="dark"),
        compute=gg.ComputeConfig(device="cpu"),
    )
    full, tenth = gg.analyze(crystal, config), gg.analyze(crystal, config, rate=0.1)
    assert (np.diff(full.share) > 0).all()
    assert np.abs(tenth.share - full.share).max() < 0.015
    for t in OUTLINES:
        by_hand = outlined(t, crystal.shape) & crystal.valid
        found = foreground(full, t)
        assert (found & by_hand).sum() / (found | by_hand).sum() > 0.87


def test_burnt_in_white_takes_a_component_of_its_own(shared_data: Path, crystal: Movie) -> None:
    whole = gg.open_movie(real(shared_data, CRYSTAL), frames="0:2")
    assert (gg.analyze(whole, dark_on_bright(0)).share > 0.95).all()
    assert (gg.analyze(gg.open_movie(crystal, frames="0:2"), dark_on_bright(0)).share < 0.2).all()


def test_a_study_of_the_crystal(crystal: Movie) -> None:
    study = small_study(gg.open_movie(crystal, frames="0:6"), dark_on_bright(5))
    tenth, hundredth = study.table()
    scale = study.scale.factor
    assert tenth["avg_abs_bias"] < 0.02 * scale
    assert tenth["avg_width"] < hundredth["avg_width"] < 0.12 * scale
    assert study.examples is not None
    assert not study.examples.labels_sampled[:, ~crystal.valid].any()


def test_loops_in_titanium_with_the_caption_excluded(shared_data: Path) -> None:
    excluded = np.zeros((550, 420), bool)
    excluded[388:] = True
    movie = gg.open_movie(real(shared_data, LOOPS), frames="3:9", exclude=excluded)
    result = checked(movie, dark_on_bright(4), tolerance=0.02)
    assert ((result.share > 0.08) & (result.share < 0.28)).all()
    loop, matrix = (slice(30, 58), slice(330, 352)), (slice(85, 125), slice(300, 345))
    for t in range(len(movie)):
        assert foreground(result, t)[loop].mean() > 0.95
        assert foreground(result, t)[matrix].mean() < 0.1
    assert movie.frame(0)[loop].mean() < movie.frame(0)[matrix].mean() - 30
    tenth, hundredth = small_study(gg.open_movie(movie, frames="0:3"), dark_on_bright(4)).table()
    assert tenth["avg_width"] < hundredth["avg_width"]
    assert tenth["avg_abs_bias"] < 0.025 * 388 * 420


def test_lines_in_titanium_with_the_caption_cropped(shared_data: Path) -> None:
    movie = gg.open_movie(real(shared_data, LINES), frames="3:20:6", crop="0:512,:")
    assert movie.shape == (512, 660)
    result = checked(movie, dark_on_bright(4), tolerance=0.03)
    assert ((result.share > 0.1) & (result.share < 0.5)).all()
    assert foreground(result, 0)[95:120, 295:325].mean() > 0.8  # the darkest cluster of loops
    tenth, hundredth = small_study(gg.open_movie(movie, frames="0:2", crop="0:256,200:400"), dark_on_bright(4)).table()
    assert tenth["avg_width"] < hundredth["avg_width"]
