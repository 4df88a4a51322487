"""The report: files, page, figures, and the awkward results that must not break them."""

from __future__ import annotations

import base64
import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, MixtureConfig, PhaseConfig, QuantityConfig, StudyConfig
from gmrm_gpu.errors import MissingDependencyError, OutputError
from gmrm_gpu.results import AnalysisResult, Examples, FitStatus, MixtureFit, MovieInfo, Scale, StudyResult

pytest.importorskip("matplotlib", reason="figures need matplotlib (extra plot)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (extra plot)")

from gmrm_gpu.report import common, curves, figures, html, raster, save_figure, style, tables, write_report

MEANS, SIGMAS = np.array([45.0, 118.0, 172.0]), np.array([7.0, 9.0, 12.0])
TERMS, COEF = ((1, 0), (0, 1)), np.array([12.0, -6.0])


def phantom(shape=(48, 64), n_frames=6, seed=0, dtype=np.uint8):
    """Half-disc electrode (phase 0), electrolyte (1), a bright blob that grows and shrinks (2), noise and a trend."""
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    electrode = (x - width / 2) ** 2 + (y - height) ** 2 < (0.38 * width) ** 2
    phases = np.empty((n_frames, *shape), np.uint8)
    for t in range(n_frames):
        grown = 0.10 * width * np.sin(np.pi * (t + 0.5) / n_frames)
        angle = np.arctan2(height - y, x - width / 2)
        radius = 0.38 * width + grown * (1 + 0.6 * np.sin(9 * angle) + 0.4 * np.sin(23 * angle + 1))
        li = ((x - width / 2) ** 2 + (y - height) ** 2 < radius**2) & ~electrode
        phases[t] = np.where(electrode, 0, np.where(li, 2, 1))
    trend = one_fit().trend(shape)
    movie = MEANS[phases] + SIGMAS[phases] * rng.normal(size=phases.shape) + trend
    return phases, (np.clip(np.round(movie), 0, 255) if np.issubdtype(dtype, np.integer) else movie).astype(dtype)


def one_fit(weights=(0.2, 0.7, 0.1), **changes: Any) -> MixtureFit:
    values = {
        "weights": np.array(weights, dtype=float),
        "means": MEANS,
        "sigmas": SIGMAS,
        "coef": COEF,
        "log_likelihood": np.array(-1e4),
        "n_iter": np.array(20),
        "n_samples": np.array(3072),
        "status": np.array(FitStatus.CONVERGED, np.uint8),
        "terms": TERMS,
    }
    return MixtureFit(**(values | changes))


def make_examples(phases, movie, *, rate=0.1, seed=1, pick=6) -> Examples:
    rng = np.random.default_rng(seed)
    n = len(movie)
    frames = np.unique(np.linspace(0, n - 1, min(pick, n)).round().astype(int))
    true = phases[frames]
    noisy = np.where(rng.random(true.shape) < 0.03, 2, true)
    weak, strong = np.where(rng.random(true.shape) < 0.01, 2, true), true.copy()
    strong[:, ::9, ::7] = 1
    binary = [(labels == 2).astype(np.uint8) + 1 for labels in (noisy, weak, weak, strong)]
    visited = rng.random(true.shape) < rate
    fits = [one_fit(np.bincount(p.ravel(), minlength=3) / p.size) for p in true]
    return Examples(
        frames=np.asarray(frames),
        images=movie[frames],
        labels_raw=binary[0],
        labels=binary[1],
        settings=((5.0, 0.05), (20.0, 0.2)),
        labels_settings=np.stack(binary[2:]),
        sampled_rate=rate,
        labels_sampled=np.where(visited, binary[1], 0).astype(np.uint8),
        fits=MixtureFit.stack(fits),
        foreground=np.tile([False, False, True], (len(frames), 1)),
    )


def make_info(movie, **changes: Any) -> MovieInfo:
    n, *shape = movie.shape
    values = {"name": "phantom", "n_frames": n, "shape": tuple(shape), "dtype": str(movie.dtype)}
    return MovieInfo(**(values | {"n_pixels": shape[0] * shape[1]} | changes))


def make_study(
    *, rates=(0.1, 0.05, 0.01), shape=(48, 64), n_frames=6, truth=True, calibrated=False, b=12, dtype=np.uint8, pick=6
):
    phases, movie = phantom(shape, n_frames, dtype=dtype)
    share = (phases == 2).mean(axis=(1, 2))
    rng = np.random.default_rng(5)
    n_pixels = shape[0] * shape[1]
    shares, status, lonely = {}, {}, {}
    for rate in rates:
        sd = np.sqrt(0.02 / (rate * n_pixels)) + 0.01 * share
        shares[rate] = share + 0.0002 / rate + sd * rng.normal(size=(b, n_frames))
        status[rate] = np.zeros((b, n_frames), np.uint8)
        lonely[rate] = np.zeros((b, n_frames), np.int64)
    quantity = (
        QuantityConfig(pixel_size_um=0.005, thickness_um=0.5, frame_time_s=0.5) if calibrated else QuantityConfig()
    )
    scale = Scale(n_pixels, 0.005**2, 0.005**2 * 0.5) if calibrated else Scale(n_pixels)
    return StudyResult(
        movie=make_info(movie),
        config=StudyConfig(
            AnalysisConfig(mixture=MixtureConfig(n_components=3), quantity=quantity), rates, (b,) * len(rates)
        ),
        scale=scale,
        frame=np.arange(n_frames),
        time_s=0.5 * np.arange(n_frames) if calibrated else None,
        shares=shares,
        status=status,
        without_neighbours=lonely,
        reference=share + 0.001,
        reference_status=np.zeros(n_frames, np.uint8),
        truth=share if truth else None,
        examples=make_examples(phases, movie, pick=pick),
        provenance={"command": "gmrm-gpu study movie.tif", "device": "cpu", "versions": {"numpy": "2.4"}, "seed": 0},
    )


def make_analysis(*, shape=(48, 64), n_frames=6, config=None, **changes: Any) -> AnalysisResult:
    phases, movie = phantom(shape, n_frames)
    share = (phases == 2).mean(axis=(1, 2))
    values = {
        "movie": make_info(movie),
        "config": config or AnalysisConfig(mixture=MixtureConfig(n_components=3)),
        "scale": Scale(shape[0] * shape[1]),
        "frame": np.arange(n_frames),
        "time_s": None,
        "share": share,
        "volume_share": share,
        "share_raw": share * 1.2 + 0.01,
        "posterior": share * 1.1,
        "n_samples": np.full(n_frames, 300),
        "n_without_neighbours": np.zeros(n_frames, np.int64),
        "status": np.zeros(n_frames, np.uint8),
        "fits": MixtureFit.stack([one_fit()] * n_frames),
        "foreground": np.tile([False, False, True], (n_frames, 1)),
        "examples": make_examples(phases, movie),
        "provenance": {"device": "cpu"},
    }
    return AnalysisResult(**(values | changes))


class Page(HTMLParser):
    """Tags, addresses and visible text of a page; unclosed or crossed tags are errors."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


STUDY_FIGURES = ("figure4", "bias_width", "frames_labels", "subsampled", "histogram", "trend", "correction")


def read(page: Path) -> Page:
    return Page(page.read_text("utf-8"))


@pytest.fixture(scope="module")
def study_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    page = write_report(make_study(calibrated=True), folder)
    return folder, page


def test_a_study_writes_every_figure_twice_and_the_page(study_page):
    folder, page = study_page
    assert page == folder / "report.html"
    for name in STUDY_FIGURES:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / "figures" / f"{name}.svg").read_bytes()[:2000]
    assert len(list((folder / "figures").iterdir())) == 2 * len(STUDY_FIGURES)


def test_the_page_stands_alone(study_page):
    page = read(study_page[1])
    assert page.tags.count("img") == len(STUDY_FIGURES)
    assert "script" not in page.tags
    assert "link" not in page.tags
    for address in page.addresses:
        head, _, body = address.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body, validate=True).startswith(b"\x89PNG")
    assert study_page[1].stat().st_size < 6e6


def test_the_page_says_what_a_reader_needs(study_page):
    text = read(study_page[1]).text
    for words in (
        "not the truth",
        "gmrm-gpu study movie.tif",
        "versions numpy",
        "5 nm",
        "Seed 0",
        "µm³",
        "try --phases",
    ):
        assert words in text


def test_table1_holds_the_numbers_of_the_study_and_of_the_paper(study_page):
    study = make_study(calibrated=True)
    rows = {row[0]: row for row in read(study_page[1]).rows if row and row[0].endswith("%") and len(row) == 10}
    assert list(rows) == ["10 %", "5 %", "1 %"]
    for row in study.table():
        cells = rows[common.percent(row["rate"])]
        assert cells[1] == "12"
        assert cells[2] == common.number(row["avg_bias"])
        assert float(cells[3]) == pytest.approx(row["avg_width"], rel=5e-3)
        assert float(cells[6]) == pytest.approx(row["rmse_truth"], rel=5e-3)
    assert rows["10 %"][-2:] == ["0.094", "0.703"]
    assert rows["5 %"][-2:] == ["0.332", "1.121"]
    assert rows["1 %"][-2:] == ["2.012", "6.001"]


def test_a_rate_the_paper_does_not_have_gets_no_paper_numbers():
    table = tables.table1(make_study(rates=(0.2, 0.05), truth=False))
    assert [row[-2:] for row in table.rows] == [["–", "–"], ["0.332", "1.121"]]
    assert all(len(row) == len(table.head) for row in table.rows)
    assert tables.shape_table(make_study(rates=(0.2, 0.05), truth=False)) is None


def test_the_shape_table_divides_by_the_highest_rate():
    study = make_study(rates=(0.01, 0.1))
    by_rate = {row["rate"]: row for row in study.table()}
    table = tables.shape_table(study)
    assert table is not None
    assert table.rows[0] == ["10 %", "1 ×", "1 ×", "1 ×", "1 ×"]
    expected = abs(by_rate[0.01]["avg_bias"] / by_rate[0.1]["avg_bias"])
    assert float(table.rows[1][1][:-2]) == pytest.approx(expected, rel=0.06)
    assert table.rows[1][2] == "21 ×"
    assert table.rows[1][4] == "8.5 ×"


def test_the_headline_states_peak_bias_and_width():
    study = make_study(truth=False, b=40)
    first, more = tables.headline(study)
    peak = int(np.argmax(study.reference))
    assert f"{study.reference[peak] * study.scale.factor:.0f} px" in first.replace(",", "")
    assert f"frame {peak}" in first
    assert len(more) == 3
    assert "too high on average" in more[2]
    assert "80 % of the 40 replicates" in more[2]
    low = dataclasses.replace(study, reference=study.reference + 0.5)
    assert "too low on average" in tables.headline(low)[1][0]


def test_words_from_outside_are_escaped():
    name = '<script>alert(1)</script>"&{{ 7*7 }}'
    study = make_study()
    study = dataclasses.replace(
        study,
        movie=dataclasses.replace(study.movie, name=name),
        provenance={"command": f"gmrm-gpu study '{name}'", "warnings": [name], "note": name},
    )
    text = html.render(study, {})
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert "<script" not in text
    assert parsed.text.count("<script>alert(1)</script>") >= 4
    assert "{{ 7*7 }}" in parsed.text


def test_uncalibrated_results_are_in_pixels_and_say_how_to_get_volumes():
    text = Page(html.render(make_study(), {})).text
    assert "give --pixel-size and --thickness for µm³" in text
    assert re.search(r"peaks at [0-9,]+ px", text)
    assert "Avg. bias, px" in text


def test_cautions_count_what_went_wrong():
    study = make_study(b=4)
    study.status[0.05][0, :3] = FitStatus.MAX_ITER
    study.status[0.01][:, 2] = FitStatus.DEGENERATE
    study.shares[0.01][:, 2] = np.nan
    study.without_neighbours[0.01][:] = 10
    reference_status = study.reference_status.copy()
    reference_status[1] = FitStatus.DROPPED
    study = dataclasses.replace(study, reference_status=reference_status)
    text = " ".join(tables.cautions(study))
    assert "Reference (all pixels), of 6 frames: 1 lost a component" in text
    assert "5 %: of 24 fits, 3 stopped at the pass limit" in text
    assert "1 %: of 24 fits, 4 degenerate" in text
    assert "1 %: frames without any usable replicate: 1" in text
    assert "32 % of the samples had no neighbours" in text
    assert "only 4 replicates" in text
    rows = tables.status_table(study).rows
    assert ["1 %", "24", "20", "0", "0", "4"] in rows


def test_a_phase_shared_by_two_components_is_pointed_out():
    result = make_analysis()
    assert not tables.split_frames(result.fits, result.foreground).any()
    means = result.fits.means.copy()
    means[:3, 1] = 165.0
    split = dataclasses.replace(result, fits=dataclasses.replace(result.fits, means=means))
    assert tables.split_frames(split.fits, split.foreground).tolist() == [True] * 3 + [False] * 3
    assert any("In 3 of 6 frames a background component" in note for note in tables.cautions(split))
    lost = dataclasses.replace(result.fits, means=np.full((6, 3), np.nan), sigmas=np.full((6, 3), np.nan))
    assert not tables.split_frames(lost, result.foreground).any()


def test_a_clean_calibrated_study_with_separated_phases_has_no_cautions():
    study = make_study(calibrated=True)
    config = dataclasses.replace(study.config.analysis, phases=PhaseConfig("separated"))
    study = dataclasses.replace(study, config=dataclasses.replace(study.config, analysis=config))
    assert tables.cautions(study) == []
    assert "All 222 fits converged" in Page(html.render(study, {})).text


def test_an_analysis_writes_its_growth_curve_and_marks_failures(tmp_path):
    status = np.array([0, 1, 2, 3, 0, 0], np.uint8)
    share = np.array([0.01, 0.02, 0.03, np.nan, 0.02, 0.01])
    result = make_analysis(status=status, share=share, volume_share=share)
    page = write_report(result, tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"growth.png", "growth.svg", "frames_labels.png", "histogram.png", "trend.png"} <= names
    assert "figure4.png" not in names
    words = [text.get_text() for text in curves.growth_figure(result).axes[0].texts]
    assert any("2 frames: fit not converged" in w and "1 frame: no usable fit" in w for w in words)
    text = read(page).text
    assert "Samples per frame 300" in text
    assert "Frames without a share: 1" in text
    assert tables.headline(result)[0].startswith("The foreground area peaks at 92.2 px (3 % of the frame) at frame 2")


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


def _nan_fit(examples: Examples) -> Examples:
    """All components of the first fit lost, the last component of the others dropped."""
    fits = examples.fits
    means, sigmas, weights = fits.means.copy(), fits.sigmas.copy(), fits.weights.copy()
    means[:, 2], sigmas[:, 2], weights[:, 2] = np.nan, np.nan, 0
    means[0], sigmas[0], weights[0] = np.nan, np.nan, np.nan
    coef, status = fits.coef.copy(), fits.status.copy()
    coef[0], status[0] = np.nan, FitStatus.DEGENERATE
    fits = dataclasses.replace(fits, means=means, sigmas=sigmas, weights=weights, coef=coef, status=status)
    return dataclasses.replace(examples, fits=fits)


def _zero_li(study: StudyResult) -> StudyResult:
    examples = study.examples
    nothing = {name: np.minimum(getattr(examples, name), 1) for name in ("labels_raw", "labels", "labels_settings")}
    nothing["labels_sampled"] = np.minimum(examples.labels_sampled, 1)
    examples = dataclasses.replace(examples, foreground=np.zeros_like(examples.foreground), **nothing)
    zeros = {rate: np.zeros_like(values) for rate, values in study.shares.items()}
    zero = np.zeros_like(study.reference)
    return dataclasses.replace(study, shares=zeros, reference=zero, truth=zero, examples=examples)


def _all_failed(study: StudyResult) -> StudyResult:
    failed = {rate: np.full_like(values, np.nan) for rate, values in study.shares.items()}
    status = {rate: np.full_like(values, FitStatus.TOO_FEW) for rate, values in study.status.items()}
    reference = np.full_like(study.reference, np.nan)
    return dataclasses.replace(
        study, shares=failed, status=status, reference=reference, examples=_nan_fit(study.examples)
    )


def _with_examples(study: StudyResult, **changes: Any) -> StudyResult:
    return dataclasses.replace(study, examples=dataclasses.replace(study.examples, **changes))


def _no_trend(study: StudyResult) -> StudyResult:
    fits = dataclasses.replace(study.examples.fits, coef=np.zeros((len(study.examples.frames), 0)), terms=())
    return _with_examples(study, fits=fits)


def _flat(study: StudyResult) -> StudyResult:
    fits = dataclasses.replace(study.examples.fits, coef=np.zeros_like(study.examples.fits.coef))
    return _with_examples(study, images=np.full_like(study.examples.images, 7), fits=fits)


def _excluded(study: StudyResult) -> StudyResult:
    valid = np.ones(study.movie.shape, bool)
    valid[:10, :20] = False
    study = dataclasses.replace(study, movie=dataclasses.replace(study.movie, n_pixels=int(valid.sum())))
    images = study.examples.images.astype(np.float32)
    images[:, ~valid] = np.nan
    return _with_examples(study, valid=valid, images=images)


def _odd_names(study: StudyResult) -> StudyResult:
    names = ("anode", "$x^2_ electrolyte", "锂 <li> with a very long name")
    phases = PhaseConfig(",".join(names))
    config = dataclasses.replace(study.config, analysis=dataclasses.replace(study.config.analysis, phases=phases))
    study = dataclasses.replace(study, config=config)
    return _with_examples(study, phase_names=names, foreground_index=2)


def small(**changes: Any) -> StudyResult:
    """A study with few panels, quick to draw."""
    return make_study(**({"rates": (0.1,), "pick": 2} | changes))


AWKWARD = {
    "one frame": lambda: small(n_frames=1),
    "one frame, one replicate": lambda: small(n_frames=1, b=1, rates=(0.3,)),
    "everything failed": lambda: _all_failed(small()),
    "no Li at all": lambda: _zero_li(small()),
    "no examples": lambda: dataclasses.replace(small(), examples=None),
    "empty examples": lambda: _with_examples(small(), frames=np.zeros(0, int)),
    "wide frame": lambda: small(shape=(9, 130), calibrated=True),
    "tall frame": lambda: small(shape=(130, 9), calibrated=True),
    "one row": lambda: small(shape=(1, 40)),
    "large frame": lambda: small(shape=(601, 1203), n_frames=1, calibrated=True),
    "float images, negative reference": lambda: dataclasses.replace(
        small(dtype=np.float32), reference=np.full(6, -0.1)
    ),
    "uint16 images without trend": lambda: _no_trend(small(dtype=np.uint16)),
    "lost components": lambda: _with_examples(small(), fits=_nan_fit(small().examples).fits),
    "constant image": lambda: _flat(small()),
    "excluded pixels and NaN": lambda: _excluded(small()),
    "odd phase names": lambda: _odd_names(small()),
    "no settings": lambda: _with_examples(small(), settings=(), labels_settings=np.zeros((0, 2, 48, 64), np.uint8)),
    "time unknown in places": lambda: dataclasses.replace(small(), time_s=np.array([0, 1, np.nan, 3, 4, 5e4])),
}


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


def test_statements_of_awkward_studies():
    assert "no reference" in tables.headline(_all_failed(make_study()))[0]
    assert "no foreground in any frame" in tables.headline(_zero_li(make_study()))[0]
    assert "1,2" not in tables.headline(make_study(n_frames=1))[0]
    excluded = " ".join(tables.cautions(_excluded(make_study())))
    assert "200 pixels of each frame were excluded" in excluded


@pytest.mark.parametrize("estimator", ["count", "posterior"])
def test_awkward_analyses_still_make_a_report(estimator, tmp_path, quick_figures):
    quantity = QuantityConfig(estimator=estimator, geometry="revolution", pixel_size_um=0.01)
    config = AnalysisConfig(quantity=quantity, correction=CorrectionConfig(radius=0))
    nothing = np.full(1, np.nan)
    result = make_analysis(
        n_frames=1, config=config, share=nothing, volume_share=nothing, scale=Scale(3072, 1e-4, 1e-4)
    )
    assert "No frame could be fitted" in read(write_report(result, tmp_path)).text
    zero = np.zeros(1)
    assert (
        tables.headline(make_analysis(n_frames=1, share=zero, volume_share=zero))[0] == "No frame holds any foreground."
    )


def test_excluded_pixels_are_striped_and_nothing_else():
    valid = np.ones((20, 20), bool)
    valid[5:15, :] = False
    picture = np.zeros((20, 20, 3))
    raster.hatch(picture, valid)
    assert (picture[valid] == 0).all()
    assert len(np.unique(picture[~valid], axis=0)) == 2


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (18800.4, "18,800"),
        (123.4, "123"),
        (0.0412, "0.0412"),
        (-2.5, "−2.5"),
        (3.14e-7, "3.1×10⁻⁷"),
        (0.0, "0"),
        (999.9, "1000"),
        (float("nan"), "–"),
    ],
)
def test_numbers(value, text):
    assert common.number(value) == text


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
    import subprocess

    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_report as t; from gmrm_gpu.report import curves, figures;"
        "curves.figure4(t.make_study()); figures.frames_labels_figure(t.make_study());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_its_cure(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{module}.*pip install 'gmrm-gpu\[plot\]'"):
        write_report(make_study(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "figures").write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(make_study(), tmp_path)


def test_save_figure_is_exported():
    assert save_figure is figures.save_figure
    assert set(html.titles_and_captions(make_study())) >= set(STUDY_FIGURES)
