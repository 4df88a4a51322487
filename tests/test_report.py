"""The report: files, page, tables, cautions, errors."""

from __future__ import annotations

import base64
import dataclasses
import re
import sys

import numpy as np
import pytest
from reports import (
    DECISION,
    Page,
    all_failed,
    both_methods,
    excluded,
    make_analysis,
    make_movie_analysis,
    make_study,
    one_fit,
    paper_config,
    read,
    zero_li,
)

from gmrm_gpu.cli import console
from gmrm_gpu.config import CorrectionConfig, MixtureConfig, PhaseConfig, QuantityConfig
from gmrm_gpu.errors import MissingDependencyError, OutputError
from gmrm_gpu.results import FitStatus, MixtureFit

pytest.importorskip("matplotlib", reason="figures need matplotlib (extra plot)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (extra plot)")

from gmrm_gpu.report import common, html, save_figure, style, tables, write_report
from gmrm_gpu.report.cautions import cautions
from gmrm_gpu.report.headline import headline

STUDY_FIGURES = ("figure4", "bias_width", "frames_labels", "subsampled", "histogram", "trend", "correction")


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
        "try --method movie or --phases",
    ):
        assert words in text


def test_table1_holds_the_numbers_of_the_study_and_of_the_paper(study_page):
    study = make_study(calibrated=True)
    rows = {row[1]: row for row in read(study_page[1]).rows if row and row[0] == "paper" and len(row) == 11}
    assert list(rows) == ["10 %", "5 %", "1 %"]
    for row in study.table():
        cells = rows[common.percent(row["rate"])]
        assert cells[2] == "30"
        assert cells[3] == common.number(row["avg_bias"])
        assert float(cells[4]) == pytest.approx(row["avg_width"], rel=5e-3)
        assert float(cells[7]) == pytest.approx(row["rmse_truth"], rel=5e-3)
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
    first, more = headline(study)
    peak = int(np.argmax(study.reference))
    assert f"{study.reference[peak] * study.scale.factor:.0f} px" in first.replace(",", "")
    assert f"frame {peak}" in first
    assert len(more) == 3
    assert "too high on average" in more[2]
    assert "80 % of the 40 replicates" in more[2]
    low = dataclasses.replace(study, reference=study.reference + 0.5)
    assert "too low on average" in headline(low)[1][0]


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


def test_sentences_are_escaped_and_options_stay_whole():
    assert html._sentence("use <b> --phases at 5 %") == "use &lt;b&gt; <code>--phases</code> at 5\u00a0%"


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
    text = " ".join(cautions(study))
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
    assert not common.split_frames(result.fits, result.foreground).any()
    means = result.fits.means.copy()
    means[:3, 1] = 165.0
    split = dataclasses.replace(result, fits=dataclasses.replace(result.fits, means=means))
    assert common.split_frames(split.fits, split.foreground).tolist() == [True] * 3 + [False] * 3
    assert any("In 3 of 6 frames a background component" in note for note in cautions(split))
    lost = dataclasses.replace(result.fits, means=np.full((6, 3), np.nan), sigmas=np.full((6, 3), np.nan))
    assert not common.split_frames(lost, result.foreground).any()


def test_a_correction_that_takes_much_away_is_pointed_out():
    share = make_analysis().count
    quiet, loud = make_analysis(share_raw=1.05 * share), make_analysis(share_raw=1.3 * share)
    assert not any("took away" in note for note in cautions(quiet))
    assert any("The correction took away 23 %" in note and "--gamma" in note for note in cautions(loud))


def test_a_foreground_of_next_to_no_weight_is_pointed_out():
    def notes(weight, sigma=12.0, rule="brightest"):
        fits = MixtureFit.stack(
            [one_fit()] * 5 + [one_fit((0.2, 0.8 - weight, weight), sigmas=np.array([7, 9, sigma]))]
        )
        result = make_analysis(fits=fits)
        config = dataclasses.replace(result.config, phases=PhaseConfig(rule))
        return " ".join(cautions(dataclasses.replace(result, config=config)))

    said = "In 1 of 6 frames the foreground component holds less than 1 % of the pixels (least in frame 5: 0.4 %"
    assert f"{said}):" in notes(0.004)
    assert f"{said}, with more than twice the width" in notes(0.004, sigma=50.0)
    assert said in notes(0.004, sigma=50.0, rule="separated")
    assert "less than 1 %" not in notes(0.004, rule="separated")
    assert "less than 1 %" not in notes(0.011)
    none = dataclasses.replace(make_analysis(), foreground=np.zeros((6, 3), bool))
    assert "less than 1 %" not in " ".join(cautions(none))


def test_the_trace_of_a_study_is_named_by_the_frame_of_the_movie():
    study = make_study(n_frames=12, pick=4)
    weights = study.examples.fits.weights.copy()
    weights[:, 2], weights[1, 2] = 0.1, 0.002
    fits = dataclasses.replace(study.examples.fits, weights=weights)
    study = dataclasses.replace(study, examples=dataclasses.replace(study.examples, fits=fits))
    frame = study.examples.frames[1]
    assert frame != 1
    assert (
        f"1 of 4 fully sampled example frames the foreground component holds less than 1 % of the pixels (least in "
        f"frame {frame}: 0.2 %)" in " ".join(cautions(study))
    )


def test_labels_and_posterior_that_disagree_are_pointed_out():
    share = make_analysis().share
    posterior = share.copy()
    posterior[3] = 0.136
    share_raw = share.copy()
    share_raw[3] = 0.0
    unsure = make_analysis(share_raw=share_raw, posterior=posterior)
    said = "In 1 of 6 frames the share of the labels and the mean posterior disagree (most in frame 3: labels 0 %, "
    assert f"{said}posterior 13.6 %)" in " ".join(cautions(unsure))
    failed = np.full(6, np.nan)
    for other in (make_analysis(share_raw=share + 0.5, posterior=share + 0.55), make_analysis(posterior=failed)):
        assert "disagree" not in " ".join(cautions(other))


def test_a_single_frame_without_a_past_is_said_to_be_uncorrected():
    assert any("nothing was corrected; use --window spatial" in note for note in cautions(make_analysis(n_frames=1)))
    spatial = paper_config(correction=CorrectionConfig(window="spatial"))
    notes = cautions(make_analysis(n_frames=1, config=spatial)) + cautions(make_analysis())
    assert not any("nothing was corrected" in note for note in notes)


def test_rates_with_few_replicates_share_one_caution():
    notes = [note for note in cautions(make_study(b=3)) if "replicates" in note]
    assert notes == ["10 %, 5 %, 1 %: only 3 replicates; 10th and 90th percentiles mean little."]
    assert any(
        "10 %: only 10 replicates; a band from so few is rough" in n for n in cautions(make_study(b=10, rates=(0.1,)))
    )
    assert not any("replicates" in note for note in cautions(make_study()))


def test_captions_follow_the_settings():
    def text(**sections):
        config = dataclasses.replace(make_analysis().config, **sections)
        return " ".join(caption for _, caption in html.titles_and_captions(make_analysis(config=config)).values())

    assert "what the correction did" in text()
    assert "(after the correction)" in text()
    assert "white ones" not in text()
    off = text(correction=CorrectionConfig(radius=0))
    assert "The correction is off here; this is what it would do." in off
    assert "after the correction" not in off
    assert "before the correction" not in off
    posterior = text(quantity=QuantityConfig(estimator="posterior"))
    assert "The correction does not touch the posterior" in posterior
    assert "what the correction did" not in posterior
    assert "no trend (--trend none)" in text(mixture=MixtureConfig(n_components=3, trend="none"))
    assert "white ones were added" in text(correction=CorrectionConfig(sides="both"))


def test_a_clean_calibrated_study_with_separated_phases_has_no_cautions():
    study = make_study(calibrated=True)
    config = dataclasses.replace(study.config.analysis, phases=PhaseConfig("separated"))
    study = dataclasses.replace(study, config=dataclasses.replace(study.config, analysis=config))
    assert cautions(study) == []
    assert "All 546 fits converged" in Page(html.render(study, {})).text


def test_statements_of_awkward_studies():
    assert "no reference" in headline(all_failed(make_study()))[0]
    assert "no foreground in any frame" in headline(zero_li(make_study()))[0]
    assert "1,2" not in headline(make_study(n_frames=1))[0]
    notes = " ".join(cautions(excluded(make_study())))
    assert "200 pixels of each frame were excluded" in notes


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


@pytest.mark.parametrize(
    ("part", "digits", "text"), [(1.0, 2, "100 %"), (0.9999, 2, "100 %"), (12.34, 3, "1,234 %"), (0.0467, 2, "4.7 %")]
)
def test_percentages_have_no_exponent(part, digits, text):
    assert common.percent(part, digits) == text


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
    assert save_figure is style.save_figure
    assert set(html.titles_and_captions(make_study())) >= set(STUDY_FIGURES)


def test_fits_that_find_nothing_where_there_is_much_are_counted():
    study = make_study()
    rate = study.rates[0]
    shares = {r: values.copy() for r, values in study.shares.items()}
    reference = np.where(np.arange(len(study.reference)) >= 3, 0.2, 0.01)
    shares[rate][:] = 0.2
    quiet = dataclasses.replace(study, shares=shares, reference=reference)
    assert not any("find no foreground" in note for note in cautions(quiet))
    shares[rate][::2, 3] = 0.0
    found = [note for note in cautions(quiet) if "find no foreground" in note]
    assert len(found) == 1
    assert found[0].startswith("10 %")


# ---------------------------------------------------------------- movies fitted as a whole


def test_the_page_of_an_analysis_says_method_estimator_interval_and_foreground():
    result = make_movie_analysis()
    text = Page(html.render(result, {})).text
    assert "Method movie: all frames are fitted together" in text
    assert "Estimator smoothed: earlier frames predict every pixel, the visited pixels correct that" in text
    assert DECISION in text
    assert text.count(DECISION) == 1
    assert "it covers the pixels that were not visited, not a wrong model." in text
    assert "80 % interval" in text
    peak = int(np.argmax(result.quantity))
    low, high = (common.number(end[peak]) for end in result.quantity_interval)
    assert headline(result)[0].endswith(f"; 80 % interval {low} to {high} px.")
    assert "The fit converged; nothing was dropped" not in text  # uncalibrated, so there is a caution
    assert tables.status_table(result).rows == [["this movie", "1", "1"]]


def test_the_interval_sentence_follows_what_the_interval_knows():
    def last(result):
        return headline(result)[1][-1]

    assert last(make_movie_analysis(rate=1.0)).startswith("Every pixel was visited, so there is no sampling error")
    nothing = make_movie_analysis(foreground=np.zeros((6, 3), bool))
    assert last(nothing) == DECISION
    assert "No component was taken" in Page(html.render(nothing, {})).text
    assert "has no interval here" in last(make_analysis(config=paper_config().with_rate(0.1)))
    sd = np.full(6, 0.01)
    paper = make_analysis(config=paper_config().with_rate(0.1), share_sd=sd, volume_share_sd=sd)
    assert "not the scatter of fits to few pixels" in last(paper)
    level = QuantityConfig(interval=0.95)
    wide = make_movie_analysis()
    wide = dataclasses.replace(wide, config=dataclasses.replace(wide.config, quantity=level))
    assert last(wide).startswith("The 95 % interval")


def test_settings_name_what_belongs_to_the_method():
    rows = {row[0]: row[1:] for row in tables.settings(make_movie_analysis()).rows}
    assert rows["Correction radius r"][0] == "off"
    assert "Correction γ" not in rows
    assert rows["Phases"][0] == "auto (bright)"
    assert rows["Estimator"][0] == "smoothed"
    assert rows["Interval"][0] == "80 %"
    assert rows["Drift"][0] == "1"
    paper = {row[0]: row[1] for row in tables.settings(make_analysis()).rows}
    assert "Drift" not in paper
    assert paper["Correction radius r"] == "10 px, L2"
    table = tables.settings(both_methods())
    assert table.head == ["Setting", "Method paper", "Method movie", "What it does"]
    both = {row[0]: row[1:3] for row in table.rows}
    assert both["Phases"] == ["brightest", "auto (bright)"]
    assert both["Drift"] == ["–", "1"]
    assert both["Correction γ"] == ["0.4", "–"]


def test_table1_of_both_methods_keeps_the_paper_apart():
    study = both_methods()
    table = tables.table1(study)
    assert [row[:3] for row in table.rows[:4:3]] == [["paper", "10 %", "30"], ["movie", "10 %", "10"]]
    assert [row[-1] for row in table.rows] == ["0.703", "1.121", "6.001", "–", "–", "–"]
    assert tables.shape_table(study) == tables.shape_table(dataclasses.replace(study, others=()))
    assert tables.shape_table(make_study(method="movie")) is None
    status = tables.status_table(study).rows
    assert status[0][:2] == ["paper, all pixels", "6"]
    assert status[-1] == ["movie, 1 %", "10", "10"]


def test_the_headline_of_both_methods_compares_their_bands_at_the_lowest_rate():
    study = both_methods()
    rows = {row["method"]: row for row in study.table() if row["rate"] == 0.01}
    first, more = headline(study)
    assert first.startswith("With 1 % of the pixels, the band of the method movie is")
    ratio = rows["paper"]["avg_width"] / rows["movie"]["avg_width"]
    assert f"{ratio:.2g} times narrower than that of the method paper" in first
    assert more[0].startswith("Replicates: paper 30 at 10 %, 30 at 5 %, 30 at 1 %; movie 10 at 10 %")
    assert "Fewer for movie, because" in more[0]
    assert "Fewer" not in headline(both_methods(b=10))[1][0]
    assert "that of the method movie is" in more[-1]
    assert "Method movie: taken for foreground by the rule auto: what is at grey level 172." in more
    same = dataclasses.replace(study, others=(dataclasses.replace(study.others[0], shares=study.shares),))
    assert "about as wide as that" in headline(same)[0]
    assert "cannot be compared" in headline(dataclasses.replace(study, others=(all_failed(study.others[0]),)))[0]


def test_cautions_of_both_methods_are_told_apart():
    study = both_methods()
    notes = cautions(study)
    assert any(note.startswith("Method paper: The rule “brightest”") for note in notes)
    assert not any("Method movie: The rule" in note for note in notes)
    assert any(note.startswith("Method movie: 10 %, 5 %, 1 %: only 10 replicates") for note in notes)
    assert sum("Uncalibrated" in note for note in notes) == 1
    both = [dataclasses.replace(part, provenance={"warnings": ["Dark."]}) for part in study.every]
    shared = cautions(dataclasses.replace(both[0], others=(both[1],)))
    assert shared.count("Dark.") == 1


def test_an_interval_as_wide_as_the_curve_is_pointed_out():
    def wide(sd, **changes):
        result = make_movie_analysis(share_sd=np.full(6, sd), volume_share_sd=np.full(6, sd), **changes)
        return [note for note in cautions(result) if "little can be told" in note]

    assert not wide(0.005)
    (note,) = wide(0.05)
    assert note.startswith("The 80 % interval is")
    assert "Use a higher --rate" in note
    assert not wide(0.05, rate=1.0)
    one = make_movie_analysis(n_frames=1, share_sd=np.full(1, 0.5), volume_share_sd=np.full(1, 0.5))
    assert any("for the value itself" in note for note in cautions(one))


def test_a_movie_without_foreground_and_one_of_a_single_frame_are_pointed_out():
    none = make_movie_analysis(foreground=np.zeros((6, 3), bool), share=np.zeros(6))
    assert any("No component was taken for foreground" in note for note in cautions(none))
    assert headline(none)[0] == "No foreground was found in any frame."
    assert headline(make_movie_analysis(share=np.zeros(6)))[0] == "No frame holds any foreground."
    assert not any("No component" in note for note in cautions(make_movie_analysis()))
    assert any("no other frames to learn from" in note for note in cautions(make_movie_analysis(n_frames=1)))
    assert not any("no other frames" in note for note in cautions(make_analysis(n_frames=1)))


def test_the_one_fit_of_a_movie_is_reported_once():
    status = np.full(6, FitStatus.MAX_ITER, np.uint8)
    notes = cautions(make_movie_analysis(status=status))
    assert "The fit of the movie: stopped at the pass limit." in notes
    dropped = cautions(make_movie_analysis(status=np.full(6, FitStatus.DROPPED, np.uint8)))
    assert "The fit of the movie: lost a component." in dropped


def test_a_wide_trace_of_a_movie_is_pointed_out_and_a_frame_without_foreground_is_not():
    def notes(weights, sigma):
        fits = MixtureFit.stack([one_fit(w, sigmas=np.array([7, 9, sigma])) for w in weights])
        return " ".join(cautions(make_movie_analysis(fits=fits)))

    trace = [(0.2, 0.796, 0.004)] * 6
    assert "never holds more than 0.4 % of the pixels" in notes(trace, 50.0)
    assert "never holds" not in notes(trace, 12.0)
    assert "holds" not in notes([(0.2, 0.8, 0.0)] * 3 + [(0.2, 0.7, 0.1)] * 3, 50.0)


def test_the_console_says_estimator_interval_and_decision():
    result = make_movie_analysis()
    lines = console.growth(result).splitlines()
    peak = int(np.argmax(result.quantity))
    low, high = (console.number(end[peak]) for end in result.quantity_interval)
    assert lines[2] == f"method movie, estimator smoothed; 80 % interval there {low} to {high} px"
    assert lines[3] == DECISION
    assert console.growth(make_analysis()).splitlines()[2:] == ["method paper, estimator count; no interval"]
    table = console.table1(both_methods()).splitlines()
    assert table[1].split()[:3] == ["method", "rate", "replicates"]
    assert [line.split()[0] for line in table[2:]] == ["paper"] * 3 + ["movie"] * 3
