"""`plan_sampling`, `gmrm-gpu plan` and its picture: the rate that a wanted width of the interval needs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import pytest
from cli_tools import enter, entries, fails, need, ok, rows_of

import gmrm_gpu as gg
from gmrm_gpu.cli.plan import plan_text
from gmrm_gpu.config import parse_width
from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.planning import round_up, smallest_rate
from gmrm_gpu.results.planning import INTERVAL_NOTE
from gmrm_gpu.runner import Curves, Runner

CONFIG = gg.AnalysisConfig(mixture=gg.MixtureConfig(n_components=3), compute=gg.ComputeConfig(device="cpu"))
LADDER = (0.02, 0.05, 0.2)
EXPECT = ("--expect", "45,118,172", "--sigmas", "7,9,12", "--size", "64x64x8", "--device", "cpu", "--rates", "0.05,0.2")


@lru_cache
def movie():
    """Eight frames of 64 x 64."""
    return gg.simulate("battery", shape=(64, 64), n_frames=8, seed=1).movie


@lru_cache
def whole_plan():
    """All rates of the ladder, no width wanted, so that widths are in um2."""
    return gg.plan_sampling(movie(), CONFIG, rates=LADDER, n_draws=1)


@lru_cache
def plan_for(width):
    """With the progress that was reported, as `seen`."""
    seen = []
    plan = gg.plan_sampling(
        movie(), CONFIG, rates=LADDER, width=width, n_draws=1, progress=lambda done, total: seen.append((done, total))
    )
    return replace(plan, provenance=plan.provenance | {"seen": seen})


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("0.5um3", 0.5, "um3"),
        ("0.5 µm^3", 0.5, "um3"),
        ("2e5nm²", 0.2, "um2"),
        ("500px", 500, "px"),
        ("1%", 0.01, "share"),
        (" 0.02 ", 0.02, "share"),
    ],
)
def test_widths_are_read_like_other_units(text, value, unit):
    found, name = parse_width(text)
    assert name == unit
    assert found == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wide", "is not a number with a unit"),
        ("1.2.3px", "is not a number with a unit"),
        ("5um", "has no unit of area or volume"),
        ("5s2", "has no unit of area or volume"),
        ("5px2", "has no unit of area or volume"),
        ("0px", "must be above zero"),
        ("2", "must be below 1"),
    ],
)
def test_no_widths(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_width(text)


def test_smallest_rate_interpolates_on_logarithms():
    rates = (0.01, 0.1, 0.5)
    assert smallest_rate(rates, (10.0, 1.0, 0.5), math.sqrt(10)) == pytest.approx(math.sqrt(0.001))
    assert smallest_rate(rates, (10.0, 1.0, 0.5), 0.4) is None
    assert smallest_rate(rates, (10.0, 1.0, 0.5), 20) == 0.01


def test_smallest_rate_takes_a_width_for_no_less_than_those_at_higher_rates():
    rates = (0.01, 0.1, 0.5)
    assert smallest_rate(rates, (0.1, 2.0, 1.0), 0.9) is None
    assert smallest_rate(rates, (0.1, 2.0, 1.0), 1.0) == pytest.approx(0.5)
    # Nothing is known at the lowest rate, so it is not used, and nothing is interpolated towards it.
    assert smallest_rate(rates, (math.nan, 2.0, 1.0), 3.0) == 0.1


def test_rates_are_rounded_up_to_two_digits():
    assert [round_up(r) for r in (0.01234, 0.0199, 0.02, 0.5, 0.0991)] == [0.013, 0.02, 0.02, 0.5, 0.1]


def test_widths_fall_with_the_rate_and_stratified_is_narrower():
    plan = whole_plan()
    assert plan.schemes == ("fixed", "stratified")
    assert plan.recommended is None
    fixed, stratified = ([row.width for row in plan.of_scheme(name)] for name in plan.schemes)
    assert [row.rate for row in plan.of_scheme("fixed")] == list(LADDER)
    assert (np.diff(fixed) < 0).all()
    assert (np.diff(stratified) < 0).all()
    assert (np.array(stratified) < fixed).all()
    assert all(row.reliable for row in plan.rows)
    row = plan.of_scheme("fixed")[0]
    assert row.n_samples == round(0.02 * 64 * 64)
    assert (row.dose_factor, row.dose_saved, row.dose_text) == (50, 0.98, "1/50")


def test_stratified_helps_the_plain_count_most():
    counted = replace(CONFIG, quantity=gg.QuantityConfig(estimator="count"))
    plan = gg.plan_sampling(movie(), counted, rates=(0.1,), n_draws=1)
    fixed, stratified = ([row.width for row in plan.of_scheme(name)] for name in plan.schemes)
    assert (np.array(stratified) < 0.75 * np.array(fixed)).all()
    assert plan.estimator == "count"


@pytest.mark.parametrize("width", [0.025, 0.04])
def test_the_recommended_rate_reaches_the_width_with_another_seed(width):
    best = plan_for(width).recommended
    assert best.width <= width
    sampling = gg.SamplingConfig(rate=best.rate, scheme=best.scheme, seed=11)
    result = gg.analyze(movie(), replace(CONFIG, sampling=sampling))
    low, high = result.interval()
    # The plan has tried the rate; the interval of another draw is some per cent wider or narrower.
    assert 0.8 * width < np.mean(high - low) <= 1.05 * width


def test_the_recommended_rate_is_what_analyze_gives():
    best = plan_for(0.04).recommended
    sampling = gg.SamplingConfig(rate=best.rate, scheme=best.scheme)
    low, high = gg.analyze(movie(), replace(CONFIG, sampling=sampling)).interval()
    assert best.width == pytest.approx(np.mean(high - low), rel=1e-6)


def test_rates_that_are_not_needed_are_not_tried():
    plan = plan_for(0.5)
    assert {row.rate for row in plan.rows} == {0.02, 0.05}


def test_units_are_the_same_width():
    scaled = replace(CONFIG, quantity=gg.QuantityConfig(pixel_size_um=0.01, thickness_um=0.5))
    pixels = 64 * 64
    widths = {}
    for unit, text in (("share", "3%"), ("px", "100px"), ("um2", "0.01um2"), ("um3", "0.005um3")):
        plan = gg.plan_sampling(movie(), scaled, rates=(0.1,), schemes=("fixed",), n_draws=1, width=text)
        assert plan.unit == unit == plan.rows[0].unit
        widths[unit] = plan.rows[0].width
    expected = [1, pixels, pixels * 1e-4, pixels * 0.5e-4]
    assert np.array(list(widths.values())) / widths["share"] == pytest.approx(expected)
    plain = gg.plan_sampling(movie(), scaled, rates=(0.1,), schemes=("fixed",), n_draws=1)
    assert (plain.unit, plain.rows[0].width) == ("um3", widths["um3"])


def test_a_wider_level_gives_a_wider_interval():
    wide = replace(CONFIG, quantity=gg.QuantityConfig(interval=0.95))
    row = gg.plan_sampling(movie(), wide, rates=LADDER[:1], schemes=("fixed",), n_draws=1).rows[0]
    # 1.96 / 1.28, less what zero cuts off.
    assert row.width == pytest.approx(1.5 * whole_plan().rows[0].width, rel=0.1)


def test_a_width_out_of_reach_says_what_was_reached():
    plan = plan_for(1e-4)
    assert plan.recommended is None
    assert plan.answers == ()
    least = min(row.width for row in plan.rows)
    assert plan.reason == (
        f"No rate that was tried reaches 0.0001 of the frame: the narrowest interval is {least:.3g} of the frame, with "
        "stratified at 20 %."
    )


def test_a_width_that_the_smallest_rate_reaches():
    plan = plan_for(0.5)
    assert {row.rate for row in plan.answers} == {0.02}
    assert "That is the smallest rate that was tried, so a lower one might do." in plan.reason


def test_rates_with_too_few_pixels_or_segments_are_not_tried():
    plan = gg.plan_sampling(movie(), CONFIG, rates=(0.01, 0.1), schemes=("fixed", "lines"), n_draws=1)
    assert [(row.scheme, row.rate) for row in plan.rows] == [("fixed", 0.1), ("lines", 0.1)]
    assert plan.cautions == (
        "fixed: not tried at 1 %, which leave less than 50 pixels of a frame.",
        "lines: not tried at 1 %, which leave less than 10 segments of a frame.",
    )
    with pytest.raises(InputError, match=r"nothing can be planned for .* less than 50 pixels .* higher --rates"):
        gg.plan_sampling(movie(), CONFIG, rates=(0.01,), schemes=("fixed",))


def test_curves_that_contradict_each_other_are_not_believed():
    """In frames without Li the plain procedure calls something else Li at each rate: its intervals mean nothing."""
    paper = replace(CONFIG, method="paper")
    plan = gg.plan_sampling(movie(), paper, rates=(0.05, 0.2), schemes=("fixed",), n_draws=1)
    assert not all(row.reliable for row in plan.rows)
    assert "differ by more than the interval allows" in " ".join(plan.cautions)


def stub(monkeypatch, answer):
    """`Runner.run` gives constant curves with the share and width that `answer(scheme, rate)` says."""

    def run(self, rate, replicates, *, observer, tick):
        share, width = answer(self.config.sampling.scheme, rate)
        curves = Curves.empty(1, len(self.movie))
        curves.share[...], curves.share_sd[...] = share, width / (2 * NormalDist().inv_cdf(0.9))
        curves.status[...] = gg.FitStatus.DEGENERATE if math.isnan(width) else gg.FitStatus.CONVERGED
        observer.fitted(0, None, np.array([[share > 0]]), None, None)
        return curves

    monkeypatch.setattr(Runner, "run", run)


def test_where_no_rate_in_between_does_a_rate_of_the_ladder_is_recommended(monkeypatch):
    stub(monkeypatch, lambda scheme, rate: (0.3, {0.05: 0.01, 0.1: 0.05, 0.2: 0.01}.get(rate, 0.0205)))
    plan = gg.plan_sampling(movie(), CONFIG, rates=(0.05, 0.1, 0.2), schemes=("fixed",), width=0.02)
    assert plan.recommended.rate == 0.2
    assert [row.is_check for row in plan.rows].count(True) == 4


def test_higher_rates_are_tried_where_narrow_intervals_are_not_believed(monkeypatch):
    def answer(scheme, rate):
        wide = scheme == "stratified" and rate < 0.2
        return (0.3 if scheme == "fixed" and rate <= 0.1 else 0.2), (0.05 if wide else 0.01)

    stub(monkeypatch, answer)
    plan = gg.plan_sampling(movie(), CONFIG, rates=(0.05, 0.1, 0.2, 0.5), width=0.02)
    assert [(row.rate, row.reliable) for row in plan.of_scheme("fixed")] == [(0.05, False), (0.1, False), (0.2, True)]
    assert plan.cautions[0].startswith("fixed: the curve at 5 %, 10 % and that at the highest rate differ")


def test_fits_that_fail_give_no_width(monkeypatch):
    stub(monkeypatch, lambda scheme, rate: (0.3, 0.01 if rate > 0.05 else math.nan))
    plan = gg.plan_sampling(movie(), CONFIG, rates=(0.05, 0.1, 0.2), schemes=("fixed",), width=0.02)
    assert plan.recommended.rate == 0.1
    assert plan.cautions == ("fixed: fits failed at 5 %.",)
    stub(monkeypatch, lambda scheme, rate: (0.3, math.nan))
    with pytest.raises(InputError, match="no rate gave an interval"):
        gg.plan_sampling(movie(), CONFIG, width=0.02)


def test_rates_that_do_not_fit_into_the_memory_are_not_tried():
    small = replace(CONFIG, compute=gg.ComputeConfig(device="cpu", memory_bytes=1000))
    with pytest.raises(InputError, match=r"take more memory than 0.001 MB; raise --memory"):
        gg.plan_sampling(movie(), small, rates=LADDER)


def test_nothing_to_plan_for():
    empty = gg.simulate("battery", shape=(64, 64), n_frames=4, seed=1, n_empty=4).movie
    with pytest.raises(InputError, match=r"no foreground was found in battery-easy-1 \(No fore.*nothing to plan"):
        gg.plan_sampling(empty, CONFIG, rates=(0.1,), schemes=("fixed",), n_draws=1)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"rates": ()}, "at least one rate and one scheme"),
        ({"rates": (1.0,)}, "rates below 1"),
        ({"rates": (0.0,)}, "rate is 0.0"),
        ({"schemes": ("spiral",)}, "scheme is 'spiral'"),
        ({"n_draws": 0}, "n_draws is 0"),
        ({"width": "0.2um2"}, "a width in um2 needs --pixel-size; give that"),
        ({"width": "0.2um3"}, "a width in um3 needs --pixel-size and --thickness; give"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ConfigError, match=says):
        gg.plan_sampling(np.stack([movie().frame(t) for t in range(2)]), CONFIG, **kwargs)


@pytest.mark.parametrize(
    ("means", "sigmas", "says"),
    [
        ((45,), (7,), "1 expected phases; give"),
        ((45, 118, 172), (7, 9), "3 expected means and 2 sigmas"),
        ((45, 118), (7, 0), "sigma is 0"),
    ],
)
def test_bad_expectations(means, sigmas, says):
    with pytest.raises(ConfigError, match=says):
        gg.ExpectedPhases(means, sigmas)


def test_expected_phases_in_place_of_a_movie():
    expected = gg.ExpectedPhases((200, 150), (9, 12), shape=(64, 64), n_frames=6, peak_share=0.15)
    assert (expected.config().mixture.n_components, expected.config().phases.polarity) == (2, "dark")
    plan = gg.plan_sampling(expected, rates=(0.1,), schemes=("fixed",), width="200px", n_draws=1)
    assert (plan.movie, plan.n_frames, plan.unit) == ("expected 200, 150", 6, "px")
    assert plan.recommended.width <= 200


def test_plan_in_the_shell(tmp_path, monkeypatch, capsys):
    need("matplotlib")
    enter(tmp_path, monkeypatch)
    ok("plan", *EXPECT, "--width", "4%", "--draws", "1")
    out = capsys.readouterr().out
    assert entries("expected_plan") == ["plan.csv", "plan.json", "plan.png", "plan.svg"]
    data = json.loads((tmp_path / "expected_plan" / "plan.json").read_text("utf-8"))
    best = data["recommended"]
    assert f"recommended: --rate {best['rate']:g} --scheme {best['scheme']}\nbecause: {data['reason']}" in out
    assert out.count("<- recommended") == 1
    assert f"note: {INTERVAL_NOTE}" in out
    assert "dose saved" in out
    assert data["provenance"]["command"].startswith("gmrm-gpu plan --expect 45,118,172")
    rows = rows_of("expected_plan/plan.csv")
    assert [row["recommended"] for row in rows].count("1") == 1
    assert float(rows[0]["dose_saved"]) == pytest.approx(1 - float(rows[0]["rate"]))
    ok("plan", "movie.npy", "--components", "3", "--rates", "0.2", "--draws", "1", "--no-report", "--device", "cpu")
    out = capsys.readouterr().out
    assert entries("movie_plan") == ["plan.csv", "plan.json"]
    assert "recommended" not in out
    assert "movie.npy: 5 frames of 40 x 48" in out


def test_texts_and_picture_of_what_is_doubtful_or_out_of_reach():
    need("matplotlib")
    from gmrm_gpu.report.planning import plan_figure

    plan = plan_for(1e-4)
    assert f"nothing recommended: {plan.reason}" in plan_text(plan)
    rows = tuple(replace(row, reliable=row.rate > 0.05) for row in plan.rows)
    doubtful = replace(plan, rows=rows)
    assert plan_text(doubtful).count("not to be trusted") == 4
    words = [text.get_text() for text in plan_figure(doubtful).texts]
    assert words[0] == "No rate that was tried is enough"
    assert "Hollow marks" in " ".join(words)
    narrow = plan_for(0.04)
    answers = tuple(replace(row, deviation=1.5) for row in narrow.answers)
    assert "1.5 claimed standard deviations" in replace(narrow, answers=answers).cautions[-1]
    nothing = replace(plan, rows=tuple(replace(row, reliable=False) for row in plan.rows))
    assert nothing.reason.startswith("No interval can be believed")
    assert plan_figure(nothing).texts[0].get_text() == "No interval can be believed"
    plan_figure(whole_plan())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("plan",), "give either MOVIE or --expect and --sigmas"),
        (("plan", "movie.npy", "--expect", "45,118,172"), "give either MOVIE or --expect and --sigmas"),
        (("plan", "--expect", "45,118,172"), "--expect needs --sigmas"),
        (("plan", "movie.npy", "--sigmas", "1,2,3"), "--sigmas belongs to --expect"),
        (("plan", *EXPECT, "--crop", "1:9,1:9"), "--crop is about reading MOVIE"),
        (("plan", "movie.npy", "--width", "thin"), "is not a number with a unit of area or volume"),
        (("plan", "movie.npy", "--width", "5um"), "has no unit of area or volume"),
        (("plan", "movie.npy", "--width", "0.5um3"), "needs --pixel-size and --thickness"),
        (("plan", "movie.npy", "--schemes", "spiral"), "scheme is 'spiral'"),
        (("plan", "movie.npy", "--rates", "1"), "give rates below 1"),
        (("plan", "--expect", "45,118", "--sigmas", "7"), "2 expected means and 1 sigmas"),
        (("plan", "--expect", "45,300", "--sigmas", "7,9"), "means is 300"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, argv, says):
    enter(tmp_path, monkeypatch)
    fails(capsys, 2, [*argv, "--no-report"], says)


@pytest.mark.parametrize("width", [0.04, 0.5, 1e-4])
def test_progress_ends_at_all_of_the_work(width):
    seen = plan_for(width).provenance["seen"]
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
