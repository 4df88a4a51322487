"""A trend that takes up a phase: told from a fit's parameters, and from starts that end in different optima."""

from dataclasses import replace

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.report.cautions import cautions
from gmrm_gpu.results import FitStatus, MixtureFit, separation, trend_amplitude, trend_warning
from gmrm_gpu.trendcheck import TrendCheck, check_trend

CONFIG = gg.AnalysisConfig(
    mixture=gg.MixtureConfig(n_components=3),
    phases=gg.PhaseConfig("separated"),
    correction=gg.CorrectionConfig(radius=0),
    method="paper",
)


def fits(means, coef, terms=((1, 0), (0, 1))):
    """One fit a row of `means`, with these trend coefficients."""
    means, coef = np.array(means, float), np.array(coef, float)
    n, k = means.shape
    return MixtureFit(
        weights=np.where(np.isfinite(means), 1 / k, 0.0),
        means=means,
        sigmas=np.full((n, k), 5.0),
        coef=coef,
        log_likelihood=np.zeros(n),
        n_iter=np.ones(n, int),
        n_samples=np.full(n, 100),
        status=np.full(n, FitStatus.CONVERGED, np.uint8),
        terms=terms,
    )


def movie(difficulty):
    return gg.simulate("battery", shape=(128, 128), n_frames=12, seed=1, difficulty=difficulty).movie


def test_amplitude_is_over_the_pixels_in_use():
    found = fits([[0, 1]], [[3.0, -2.0]])
    assert trend_amplitude(found, (5, 9)) == pytest.approx([10.0])
    valid = np.zeros((5, 9), bool)
    valid[:, 4:] = True
    assert trend_amplitude(found, (5, 9), valid) == pytest.approx([7.0])


def test_separation_is_the_lower_median_of_the_gaps():
    nan = np.nan
    rows = [[0, 10, 50, 51], [0, 10, 50, nan], [0, 10, nan, nan], [0, nan, nan, nan]]
    np.testing.assert_allclose(separation(fits(rows, [[0, 0]] * 4)), [10, 10, 10, nan])
    assert np.isnan(separation(fits([[7.0]], [[0, 0]]))).all()


def test_frames_without_a_phase_are_no_reason():
    """There two components share one phase and are close; the other frames say how far apart phases are."""
    empty, plain = [40, 118, 120], [40, 118, 170]
    calm, steep = [8.0, 4.0], [30.0, 10.0]
    assert trend_warning(fits([empty] * 5 + [plain] * 5, [calm] * 10), (9, 9)) is None
    text = trend_warning(fits([empty] * 2 + [plain] * 8, [calm] * 5 + [steep] * 5), (9, 9))
    assert text.startswith("In 5 of 10 fitted frames")
    assert "80 against 52" in text
    for remedy in ("--exclude", "--trend ", "--trend-prior"):
        assert remedy in text
    assert trend_warning(fits([plain] * 10, [calm] * 8 + [steep] * 2), (9, 9)) is None
    assert trend_warning(fits([plain], [[]], terms=()), (9, 9)) is None
    assert trend_warning(fits([[np.nan] * 3], [[np.nan] * 2]), (9, 9)) is None


def test_the_trend_that_swallows_li_is_told():
    """The movie of the README: `mid`, 128 x 128 x 12, seed 1; the `easy` one is left in peace."""
    result = gg.analyze(movie("mid"), CONFIG)
    assert any("it may have taken up part of a phase" in note for note in cautions(result))
    result = gg.analyze(movie("easy"), CONFIG)
    assert not any("taken up" in note for note in cautions(result))


def test_starts_that_disagree_are_told():
    found = check_trend(movie("mid"), CONFIG)
    assert found.frames.tolist() == [1, 3, 6, 8, 10]
    assert found.starts == ("quantile", "spread", "kmeans++", "no trend")
    assert found.shares.shape == found.losses.shape == (5, 4)
    assert found.disagree[2]
    assert (found.losses >= 0).all()
    assert "\n" not in found.warning
    assert "--exclude" in found.warning
    assert "frame 6" in found.warning


def test_starts_that_agree_are_left_in_peace():
    found = check_trend(movie("easy"), CONFIG, n_frames=3)
    assert not found.disagree.any()
    assert found.warning is None


def test_without_a_trend_there_is_nothing_to_check():
    config = replace(CONFIG, mixture=gg.MixtureConfig(n_components=3, trend="none"))
    assert check_trend(movie("easy"), config) is None


def test_a_frame_that_cannot_be_fitted_does_not_matter():
    frames = np.stack([movie("easy").frame(t) for t in (5, 6)])
    frames[0] = 7
    found = check_trend(gg.open_movie(frames), CONFIG, n_frames=2)
    assert not found.disagree.any()
    assert np.isinf(found.losses[0]).all()


def test_the_warning_is_about_the_widest_difference():
    shares, losses = np.array([[0.1, 0.2], [0.1, 0.9], [0.0, 0.5]]), np.array([[0, 1e-4], [0, 0.5], [2e-4, 0]])
    found = TrendCheck(np.array([3, 5, 9]), ("a", "b"), shares, losses, np.array([True, False, True]))
    assert found.warning.startswith("In 2 of 3 frames")
    assert "(frame 9: 0 or 50 %)" in found.warning
