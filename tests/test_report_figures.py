"""The figures of the report, and the awkward results that must not break them."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reports import (
    AWKWARD,
    COEF,
    TERMS,
    both_methods,
    make_analysis,
    make_movie_analysis,
    make_study,
    one_fit,
    phantom,
    read,
)

from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, QuantityConfig
from gmrm_gpu.results import MixtureFit, Scale

pytest.importorskip("matplotlib", reason="figures need matplotlib (extra plot)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (extra plot)")

from gmrm_gpu.report import common, curves, drift, figures, growth, histogram, raster, style, write_report
from gmrm_gpu.report.headline import headline


def legend_of(figure):
    """The words of the legend of a figure's first axes."""
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_pictured_frame_is_one_where_the_foreground_stands_apart():
    study = make_study()
    best = figures._main_example(study.examples)
    means = study.examples.fits.means.copy()
    means[best, 1] = 171.0
    split = dataclasses.replace(study.examples, fits=dataclasses.replace(study.examples.fits, means=means))
    assert figures._main_example(split) != best


def test_an_analysis_writes_its_growth_curve_and_marks_failures(tmp_path):
    status = np.array([0, 1, 2, 3, 0, 0], np.uint8)
    share = np.array([0.01, 0.02, 0.03, np.nan, 0.02, 0.01])
    result = make_analysis(status=status, share=share, volume_share=share)
    page = write_report(result, tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"growth.png", "growth.svg", "frames_labels.png", "histogram.png", "trend.png"} <= names
    assert "figure4.png" not in names
    words = legend_of(growth.growth_figure(result))
    assert "2 frames: fit not converged or components dropped" in words
    assert "1 frame: no usable fit" in words
    text = read(page).text
    assert "Samples per frame 300" in text
    assert "Frames without a share: 1" in text
    assert headline(result)[0].startswith("The foreground area peaks at 92.2 px (3 % of the frame) at frame 2")


@pytest.mark.parametrize("n_rates", [1, 2, 3, 4, 5])
def test_figure4_has_a_panel_for_the_means_and_one_per_rate(n_rates):
    rates = (0.2, 0.1, 0.05, 0.02, 0.01)[:n_rates]
    figure = curves.figure4(make_study(rates=rates, truth=n_rates % 2 == 0))
    assert len(figure.axes) == 1 + n_rates
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(box.x0 > 0 and box.y0 > 0 and box.x1 < 1 and box.y1 < 1 for box in boxes)


def test_figure4_draws_the_curves_it_names():
    study = make_study(rates=(0.1,), truth=True)
    axes = curves.figure4(study).axes[1]
    lines = [line.get_ydata() for line in axes.lines]
    curve = study.curves(0.1)
    for values in (curve["p10"], curve["p50"], curve["p90"], study.reference * study.scale.factor):
        assert any(np.array_equal(values, line) for line in lines)
    assert {t.get_text() for t in axes.texts} == {"90th percentile", "median", "10th percentile", "reference", "truth"}


@pytest.mark.parametrize(
    ("scale", "factor"), [(Scale(3072), 3072), (Scale(3072, 4e-6), 3072 * 4e-6), (Scale(3072, 4e-6, 2e-6), 3072 * 2e-6)]
)
def test_the_growth_curve_shows_estimate_interval_and_count_in_the_unit_of_the_result(scale, factor):
    result = make_movie_analysis(scale=scale)
    figure = growth.growth_figure(result)
    axes = figure.axes[0]
    assert legend_of(figure) == [
        "smoothed estimate",
        "80 % interval for the fully sampled value",
        "count, frame by frame",
    ]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), result.smoothed * factor)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), result.count * factor)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    low, high = result.quantity_interval
    assert band.max() == pytest.approx(high.max())
    assert high[2] - low[2] == pytest.approx(2 * 1.28155 * 0.005 * factor, rel=1e-4)
    assert axes.get_ylim()[1] >= high.max()


def test_a_growth_curve_without_a_sampling_error_has_no_band():
    whole = make_movie_analysis(rate=1.0)
    assert legend_of(growth.growth_figure(whole))[0] == "smoothed estimate"
    nothing = make_movie_analysis(foreground=np.zeros((6, 3), bool))
    for result in (whole, nothing, make_analysis()):
        figure = growth.growth_figure(result)
        assert not figure.axes[0].collections
        assert not any("interval" in words for words in legend_of(figure))


def test_the_interval_of_the_paper_says_that_it_knows_only_the_choice_of_pixels():
    sd = np.full(6, 0.01)
    config = dataclasses.replace(make_analysis().config).with_rate(0.1)
    figure = growth.growth_figure(make_analysis(config=config, share_sd=sd, volume_share_sd=sd, count_sd=sd))
    assert "80 % interval (choice of pixels alone)" in legend_of(figure)


def test_one_frame_of_a_movie_shows_its_interval_as_a_bar():
    axes = growth.growth_figure(make_movie_analysis(n_frames=1)).axes[0]
    assert len(axes.containers) == 1


def test_all_estimators_are_compared_with_the_widths_of_their_intervals():
    result = make_movie_analysis()
    curve, width = growth.estimators_figure(result).axes
    assert len(curve.lines) == len(width.lines) == 4
    tops = [line.get_ydata()[2] for line in width.lines]
    np.testing.assert_allclose(np.array(tops) / tops[3], [4, 3.6, 2, 1], rtol=1e-6)
    assert len(growth.estimators_figure(make_movie_analysis(rate=1.0)).axes) == 1
    assert growth.estimators(make_analysis()) == ["count", "posterior"]
    assert growth.estimators(make_movie_analysis(foreground=np.zeros((6, 3), bool))) == []


def test_the_drift_of_the_frames_is_recovered_from_their_parameters():
    result = make_movie_analysis()
    moved = drift.drift_of(result)
    np.testing.assert_allclose(moved.offset, 0.2 * (np.arange(6) - 2.5), atol=1e-9)
    np.testing.assert_allclose(moved.contrast, 0, atol=1e-12)
    np.testing.assert_allclose(moved.trend, 0.2 * np.abs(np.arange(6) - 2.5), rtol=1e-9)
    wider = result.fits.means * (1 + 0.01 * np.arange(6))[:, None]
    stretched = dataclasses.replace(result, fits=dataclasses.replace(result.fits, means=wider))
    np.testing.assert_allclose(np.diff(drift.drift_of(stretched).contrast), 0.01 / 1.025, rtol=1e-9)
    assert len(drift.drift_figure(result).axes) == 3
    lost = dataclasses.replace(result.fits, means=np.full((6, 3), np.nan))
    for none in (make_analysis(), make_movie_analysis(n_frames=1), dataclasses.replace(result, fits=lost)):
        assert drift.drift_of(none) is None


def test_an_analysis_of_a_whole_movie_has_its_own_figures(tmp_path, quick_figures):
    write_report(make_movie_analysis(), tmp_path)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {"growth", "estimators", "frames_labels", "subsampled", "histogram", "trend", "drift"}


def test_both_methods_are_drawn_at_the_lowest_rate_with_reference_and_truth():
    study = both_methods(rates=(0.1, 0.01))
    figure = curves.comparison_figure(study)
    assert legend_of(figure) == [
        "paper: mean and 80 % band of 30 replicates",
        "paper: reference, all pixels",
        "movie: mean and 80 % band of 10 replicates",
        "movie: reference, all pixels",
        "truth",
    ]
    lines = [line.get_ydata() for line in figure.axes[0].lines]
    movie = study.others[0]
    for values in (movie.curves(0.01)["mean"], movie.reference * 3072, study.truth * 3072):
        assert any(np.array_equal(values, line) for line in lines)


def test_a_study_of_both_methods_has_the_figures_of_each(tmp_path, quick_figures):
    page = read(write_report(both_methods(rates=(0.1,), pick=1), tmp_path))
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"comparison", "figure4", "figure4_movie", "frames_labels", "frames_labels_movie", "correction"} <= names
    assert "correction_movie" not in names
    assert page.tags.count("img") == len(names)
    assert "The evidence: method paper" in page.text
    assert "The evidence: method movie" in page.text


@pytest.fixture
def quick_figures(monkeypatch):
    """Small PNGs and no SVG: the drawing is under test, not the writing."""

    def png_only(figure, path):
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path.with_suffix(".png"), dpi=40)
        return path.with_suffix(".png"), path

    monkeypatch.setattr("gmrm_gpu.report.save_figure", png_only)


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_studies_still_make_a_report(case, tmp_path, quick_figures):
    page = read(write_report(AWKWARD[case](), tmp_path))
    assert "nan" not in page.text.split()
    assert page.tags.count("img") >= 2


@pytest.mark.parametrize("estimator", ["count", "posterior"])
def test_awkward_analyses_still_make_a_report(estimator, tmp_path, quick_figures):
    geometry = "revolution" if estimator == "count" else "slab"
    quantity = QuantityConfig(estimator=estimator, geometry=geometry, pixel_size_um=0.01)
    config = AnalysisConfig(quantity=quantity, correction=CorrectionConfig(radius=0))
    nothing = np.full(1, np.nan)
    result = make_analysis(
        n_frames=1, config=config, share=nothing, volume_share=nothing, scale=Scale(3072, 1e-4, 1e-4)
    )
    assert "No frame could be fitted" in read(write_report(result, tmp_path)).text
    zero = np.zeros(1)
    assert headline(make_analysis(n_frames=1, share=zero, volume_share=zero))[0] == "No frame holds any foreground."


def test_excluded_pixels_are_striped_and_nothing_else():
    valid = np.ones((20, 20), bool)
    valid[5:15, :] = False
    picture = np.zeros((20, 20, 3))
    raster.hatch(picture, valid)
    assert (picture[valid] == 0).all()
    assert len(np.unique(picture[~valid], axis=0)) == 2


def test_single_pixels_are_thickened():
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = mask[2, 3] = True
    assert raster.thicken(mask).sum() == 3 + 5


def test_a_reduced_frame_loses_no_sampled_pixel():
    mask = np.zeros((1200, 1800), bool)
    mask[7, 11] = mask[1000, 1601] = True
    step = raster.reduction(mask.shape)
    assert step == 4
    assert raster.reduce_mask(mask, step, any_pixel=True).sum() == 2
    assert raster.reduce_mask(mask, step).sum() == 0
    image = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(raster.reduce_image(image, 2), [[2.5, 4.5], [10.5, 12.5]])


def test_the_detail_of_a_large_frame_holds_the_foreground_at_full_resolution():
    mask = np.zeros((300, 2000), bool)
    mask[280:300, 1900:2000] = True
    rows, columns = raster.detail(mask)
    assert (rows.start, rows.stop) == (0, 300)
    assert columns.stop - columns.start == raster.MAX_PANEL_PX
    assert mask[rows, columns].sum() == mask.sum()
    assert raster.detail(np.zeros((5, 4), bool)) == (slice(0, 5), slice(0, 4))


def test_the_outline_is_the_rim():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    rim = raster.outline(mask)
    assert rim.sum() == 16
    assert not rim[2:5, 2:5].any()


def test_scale_bar_is_round_and_its_length_is_right():
    assert style.round_length(0.32) == pytest.approx(0.2)
    assert style.length_text(0.2) == "200 nm"
    assert style.length_text(2.0) == "2 µm"
    result = make_analysis(config=AnalysisConfig(quantity=QuantityConfig(pixel_size_um=0.005)))
    axes = figures.frames_labels_figure(result).axes[0]
    bar = axes.lines[0].get_xdata()
    assert (bar[1] - bar[0]) * 64 * 0.005 == pytest.approx(0.05)
    assert axes.texts[0].get_text() == "50 nm"
    assert not figures.frames_labels_figure(make_analysis()).axes[0].lines


def test_words_above_and_in_a_narrow_frame_stay_in_the_picture():
    config = AnalysisConfig(quantity=QuantityConfig(pixel_size_um=0.005, frame_time_s=0.5))
    result = make_analysis(shape=(128, 20), config=config, time_s=0.5 * np.arange(6))
    figure = figures.frames_labels_figure(result)
    figure.canvas.draw()
    page = figure.bbox
    for axes in figure.axes:
        picture = axes.get_window_extent()
        title = axes._left_title.get_window_extent()
        assert page.x0 <= title.x0
        assert title.x1 <= page.x1
        words = axes.texts[0].get_window_extent()
        assert picture.x0 <= words.x0
        assert words.x1 <= picture.x1


def test_no_label_of_the_histogram_hides_another():
    fit = one_fit((0.25, 0.25, 0.25), means=np.full(3, 118.0), sigmas=np.full(3, 9.0))
    result = make_analysis()
    examples = dataclasses.replace(result.examples, fits=MixtureFit.stack([fit] * len(result.examples.frames)))
    figure = figures.histogram_figure(dataclasses.replace(result, examples=examples))
    figure.canvas.draw()
    labels = [text for text in figure.axes[0].texts if "±" in text.get_text()]
    boxes = sorted((text.get_bbox_patch().get_window_extent() for text in labels), key=lambda box: box.y0)
    assert len(boxes) == 3
    for below, above in itertools.pairwise(boxes):
        assert below.y1 <= above.y0
    assert boxes[-1].y1 <= figure.axes[0].get_window_extent().y1


def test_the_correction_is_shown_on_a_frame_that_has_a_past():
    result = make_analysis()
    labels = result.examples.labels_raw.copy()
    labels[0] = 2
    first = dataclasses.replace(result, examples=dataclasses.replace(result.examples, labels_raw=labels))
    assert figures._main_example(first.examples) == 0
    assert not figures.correction_figure(first).axes[0].get_title(loc="left").endswith("frame 0")
    assert figures.example_text(first)["corrected"] != "frame 0"
    config = dataclasses.replace(result.config, correction=CorrectionConfig(window="spatial"))
    spatial = dataclasses.replace(first, config=config)
    assert figures.example_text(spatial)["corrected"] == "frame 0"


def test_the_settings_in_use_are_marked_among_the_examples():
    config = dataclasses.replace(make_analysis().config, correction=CorrectionConfig(radius=5, gamma=0.05))
    titles = [a.get_title(loc="left") for a in figures.correction_figure(make_analysis(config=config)).axes]
    assert titles[1:] == ["used here: r = 5, γ = 0.05", "r = 20, γ = 0.2"]


def test_dodged_labels_keep_their_order_and_distance():
    places = style.dodge([0.5, 0.5, 0.51, 0.02, 0.99], 0.1, 0.05, 0.95)
    order = np.argsort(places)
    assert np.diff(np.array(places)[order]).min() >= 0.1 - 1e-12
    assert min(places) >= 0.05
    assert max(places) <= 0.95 + 1e-12
    assert list(order) == [3, 0, 1, 2, 4]


def test_components_are_named_by_phase():
    foreground = np.array([False, False, True])
    names = common.component_names(foreground, ("background", "foreground"), 1, ())
    assert names == ["background 1", "background 2", "foreground"]
    given = ("anode", "electrolyte", "electrolyte", "li")
    four = common.component_names(np.array([False] * 3 + [True]), ("anode", "electrolyte", "li"), 2, given)
    assert four == ["anode", "electrolyte 1", "electrolyte 2", "li"]


def test_histogram_components_integrate_to_the_pixels():
    result = make_analysis()
    axes = figures.histogram_figure(result).axes[0]
    total = next(line for line in axes.lines if line.get_linestyle() == "--")
    x, y = total.get_data()
    assert np.trapezoid(y, x) == pytest.approx(48 * 64, rel=0.02)
    words = " ".join(text.get_text() for text in axes.texts)
    assert "118 ± 9" in words
    assert "foreground\n172 ± 12" in words


def test_the_histogram_of_a_movie_joins_its_frames():
    axes = figures.histogram_figure(make_movie_analysis()).axes[0]
    assert axes.get_title(loc="left") == "6 frames together"
    x, y = next(line for line in axes.lines if line.get_linestyle() == "--").get_data()
    assert np.trapezoid(y, x) == pytest.approx(6 * 48 * 64, rel=0.02)


def test_few_values_get_few_bins():
    values = np.random.default_rng(0).normal(118, 20, 10_000)
    assert len(histogram.bin_edges(values, whole=False)) == 121
    assert len(histogram.bin_edges(values[:100], whole=False)) == 21


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("terms", [TERMS, ()])
def test_frame_figure(dtype, terms, tmp_path):
    phases, movie = phantom(dtype=dtype)
    fit = one_fit(terms=terms, coef=COEF[: len(terms)])
    labels = (phases[2] == 2).astype(np.uint8) + 1
    names = ("background", "foreground")
    figure = figures.frame_figure(
        movie[2], fit, labels, np.array([False, False, True]), phase_names=names, pixel_size_um=0.005
    )
    assert len(figure.axes) == (4 if terms else 3)
    png, svg = figures.save_figure(figure, tmp_path / "sub" / "frame")
    assert (png.name, svg.name) == ("frame.png", "frame.svg")
    assert png.stat().st_size > 10_000
    assert svg.stat().st_size > 10_000


def test_reports_do_not_touch_pyplot():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import reports as t; from gmrm_gpu.report import curves, figures;"
        "curves.figure4(t.make_study()); figures.frames_labels_figure(t.make_study());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
