"""`gmrm-gpu select`, its picture, and --components auto and --trend auto."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import enter, entries, fails, need, ok, rows_of

import gmrm_gpu as gg
from gmrm_gpu.cli.select import selection_text

FEW = ("--components", "2,3", "--trend", "none", "--trend", "linear", "--max-samples", "1000", "--device", "cpu")
AUTO = ("--radius", "3", "--gamma", "0.2", "--no-report", "--device", "cpu")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty current folder with movie.npy in it."""
    return enter(tmp_path, monkeypatch)


def saved(path):
    return json.loads((path).read_text("utf-8"))


def test_select_writes_and_says_what_it_recommends(work, capsys):
    need("matplotlib")
    ok("select", "movie.npy", *FEW, "--bootstrap", "9")
    out = capsys.readouterr().out
    assert entries("movie_selection") == ["selection.csv", "selection.json", "selection.png", "selection.svg"]
    rows = rows_of("movie_selection/selection.csv")
    assert [(r["trend"], r["n_components"]) for r in rows] == [(t, k) for t in ("none", "linear") for k in "23"]
    data = saved(work / "movie_selection" / "selection.json")
    k, trend = data["n_components"], data["trend"]
    assert f"recommended: --components {k} --trend {trend}\nbecause: {data['reason']}" in out
    assert out.count("<- recommended") == 1
    assert "note: BIC takes pixels for independent" in out
    assert "trend none against linear: chi-square with 2 df:" in out
    assert f"K = {k} against {k + 1}: ratio" in out
    assert "(bootstrap of 9)" in out
    assert data["provenance"]["command"].startswith("gmrm-gpu select movie.npy")
    ok("select", "movie.npy", *FEW, "--bootstrap", "0", "--no-report", "--overwrite")
    assert entries("movie_selection") == ["selection.csv", "selection.json"]
    assert "bootstrap" not in capsys.readouterr().out


def test_select_at_a_rate_uses_these_pixels_only(work, capsys):
    ok("select", "movie.npy", *FEW, "--bootstrap", "0", "--no-report", "--rate", "0.05")
    out = capsys.readouterr().out
    assert "480 pixels drawn at 5 % of 5 frames of 40 x 48" in out


def test_analyze_with_auto(work, capsys):
    ok("analyze", "movie.npy", "--components", "auto", "--trend", "auto", *AUTO)
    out = capsys.readouterr().out
    data = saved(work / "movie_analysis" / "analysis.json")
    mixture, auto = data["config"]["analysis"]["mixture"], data["provenance"]["auto"]
    assert (mixture["n_components"], mixture["trend"]) == (auto["n_components"], auto["trend"])
    assert isinstance(mixture["n_components"], int)
    lines = [line for line in out.splitlines() if line.startswith("auto: ")]
    assert lines == [f"auto: K = {auto['n_components']}, trend {auto['trend']}. {auto['reason']}"]
    ok("analyze", "movie.npy", "--config", "movie_analysis/analysis.json", "--out", "again", "--no-report")
    assert "auto" not in saved(work / "again" / "analysis.json")["provenance"]


def test_auto_for_one_of_the_two(work, capsys):
    ok("fit", "movie.npy", "--frame", "4", "--components", "auto", "--trend", "linear", "--no-report")
    assert saved(work / "movie_fit" / "fit.json")["config"]["analysis"]["mixture"]["trend"] == "linear"
    assert "Trend linear, as asked for." in capsys.readouterr().out
    ok("study", "movie.npy", "--trend", "auto", "--components", "3", *AUTO, "--rates", "0.2", "--replicates", "2")
    study = saved(work / "movie_study" / "study.json")
    assert study["config"]["analysis"]["mixture"]["n_components"] == 3
    assert study["provenance"]["auto"]["trend"] == study["config"]["analysis"]["mixture"]["trend"]
    assert "auto: K = 3" in capsys.readouterr().out
    ok("info", "movie.npy", "--components", "auto")
    assert "one fit" in capsys.readouterr().out


def test_named_phases_say_how_many_components(work, capsys):
    ok("analyze", "movie.npy", "--components", "auto", "--trend", "none", "--phases", "anode,electrolyte,li", *AUTO)
    assert "auto: K = 3, trend none. 3 components, as asked for." in capsys.readouterr().out


def test_auto_falls_back_where_nothing_can_be_decided(work, capsys):
    np.save("flat.npy", np.full((2, 12, 12), 7, np.uint8))
    ok("info", "flat.npy", "--components", "auto", "--trend", "auto")
    assert "No model could be fitted" in capsys.readouterr().out
    need("matplotlib")
    ok("select", "flat.npy")
    assert "not decided: --components" in capsys.readouterr().out


def test_cautions_are_printed():
    movie = gg.simulate("battery", shape=(32, 32), n_frames=3, seed=1).movie
    chosen = gg.select_model(movie, components=(2,), trends=("none",), n_bootstrap=0)
    assert "caution: look" in selection_text(replace(chosen, cautions=("look",)))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("fit", "movie.npy", "--components", "some"), "'some' is not a whole number; write it like 3, or auto"),
        (("select", "movie.npy", "--components", "auto"), "not numbers separated by commas"),
        (("select", "movie.npy", "--components", "9"), "components is 9"),
        (("select", "movie.npy", "--trend", "wavy"), "not a monomial"),
        (("select", "movie.npy", "--bootstrap", "-1"), "n_bootstrap is -1"),
        (("select", "movie.npy", "--max-samples", "3"), "max_samples is 3"),
    ],
)
def test_wrong_usage(work, capsys, argv, says):
    fails(capsys, 2, list(argv), says)
