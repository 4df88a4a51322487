"""The command line, in process: help, what each command writes and prints, settings, progress."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_tools import FAST, PLAIN, enter, entries, explode, movie_with_truth, need, ok, rows_of

from gmrm_gpu import __version__
from gmrm_gpu.cli import bench, build_parser, commands, console, doctor, live, main, parser, plan, select, thin
from gmrm_gpu.cli.console import Console, calibration_note, fit_note
from gmrm_gpu.cli.options import Setting
from gmrm_gpu.config import AnalysisConfig, QuantityConfig
from gmrm_gpu.results import Scale, StudyResult
from gmrm_gpu.synthetic import options as simulation_options

COMMANDS = (
    *("simulate", "info", "select", "fit", "plan", "analyze", "study", "thin", "live"),
    *("report", "demo", "bench", "doctor"),
)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty current folder with movie.npy and truth.npy in it."""
    return enter(tmp_path, monkeypatch)


@pytest.fixture
def simulation():
    return movie_with_truth()


# ---------------------------------------------------------------- help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_description_and_examples_that_parse(command, capsys):
    ok(command, "--help")
    out = capsys.readouterr().out
    examples = [line.strip() for line in out.split("examples:\n")[1].splitlines()]
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert words[:2] == ["gmrm-gpu", command]
        args = build_parser().parse_args(words[1:])
        own = {"doctor": doctor, "select": select, "plan": plan, "bench": bench, "thin": thin, "live": live}
        assert callable(getattr(own.get(command, commands), args.run.split(":")[1]))
    assert len(out.split("\n\n")[1]) > 30


def test_analyze_and_study_have_every_shared_option(capsys):
    shared = (
        "components trend phases foreground metric radius gamma window sides time-scale contrast polarity scheme "
        "schedule histogram starts tol estimator geometry axis wedge-fraction pixel-size thickness frame-time seed "
        "device dtype memory threads out overwrite quiet debug config frames crop exclude luminance no-report"
    )
    for command in ("analyze", "study"):
        ok(command, "--help")
        out = capsys.readouterr().out
        assert [name for name in shared.split() if f"  --{name}" not in out] == []


def test_simulation_choices_are_those_of_the_simulation():
    assert parser.SCENARIOS == simulation_options.SCENARIOS
    assert parser.DIFFICULTIES == simulation_options.DIFFICULTIES


def test_every_flag_sets_a_field_that_exists():
    default = AnalysisConfig()
    groups = [getattr(parser.o, name) for name in ("MODEL", "PHASES", "CORRECTION", "SAMPLING", "QUANTITY", "COMPUTE")]
    for setting in sum(groups, ()):
        assert isinstance(setting, Setting)
        assert hasattr(getattr(default, setting.section), setting.name)


def test_version_from_a_shell():
    done = subprocess.run(
        [sys.executable, "-m", "gmrm_gpu", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gmrm-gpu {__version__}\n", "")


def test_no_command_shows_the_commands(capsys):
    assert main([]) == 2
    assert "simulate" in capsys.readouterr().err


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_simulate_then_info(work, capsys, kind):
    need(*["tifffile"] if kind == "tif" else [])
    ok("simulate", "nanoparticles", "--size", "32x40x3", "--format", kind, "--seed", "4", "--set", "n_empty=1")
    folder = "nanoparticles_simulation"
    assert entries(folder) == [f"movie.{kind}", "simulation.json", f"truth.{kind}"]
    meta = json.loads(Path(folder, "simulation.json").read_text("utf-8"))
    assert meta["truth_share"][0] == 0
    assert meta["parameters"]["seed"] == 4
    capsys.readouterr()
    ok("info", f"{folder}/movie.{kind}", "--components", "2", "--crop", "0:30,:")
    out = capsys.readouterr().out
    assert "frames       3 (numbers 0 to 2)" in out
    assert "30 x 40 pixels" in out
    assert "uint8" in out
    assert ("0.01 um" if kind == "tif" else "unknown; give --pixel-size") in out


def test_info_of_a_movie_too_small_for_the_model(work, capsys):
    np.save("tiny.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    ok("info", "tiny.npy")
    captured = capsys.readouterr()
    assert "grey levels  0 to 23, mean 11.5" in captured.out
    assert "not with these settings: frames have 12 usable pixels" in captured.out


def test_fit(work, capsys):
    need("matplotlib")
    argv = ["fit", "movie.npy", "--frame", "3", *FAST[:4], "--phases", "anode,electrolyte,li", "--device", "cpu"]
    ok(*argv)
    out = capsys.readouterr().out
    assert "movie.npy, frame 3: 1,920 of 40 x 48 pixels" in out
    for word in ("status converged", "log-likelihood", "AIC", "BIC", "anode", "li", "trend x "):
        assert word in out
    assert entries("movie_fit") == ["fit.json", "fit.png", "fit.svg", "fits.csv"]
    meta = json.loads(Path("movie_fit/fit.json").read_text("utf-8"))
    assert meta["frame"] == 3
    assert len(meta["fit"]["means"]) == 3
    assert meta["provenance"]["command"] == shlex.join(["gmrm-gpu", *argv])
    assert [row["frame"] for row in rows_of("movie_fit/fits.csv")] == ["3"] * 3


def test_analyze_with_calibration(work, capsys):
    need("tifffile", "matplotlib", "jinja2")
    ok("analyze", "movie.npy", *FAST, "--pixel-size", "5nm", "--thickness", "0.5um", "--frame-time", "40ms", "--quiet")
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"report: {work / 'movie_analysis' / 'report.html'}" in captured.out
    expected = ["analysis.json", "figures", "fits.csv", "growth.csv", "labels.tif", "report.html"]
    assert entries("movie_analysis") == expected
    rows = rows_of("movie_analysis/growth.csv")
    assert [row["frame"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert float(rows[2]["time_s"]) == pytest.approx(0.08)
    assert float(rows[2]["area_um2"]) == pytest.approx(float(rows[2]["area_px"]) * 25e-6)
    assert float(rows[2]["volume_um3"]) == pytest.approx(float(rows[2]["area_um2"]) / 2)
    assert "gmrm-gpu analyze movie.npy" in Path("movie_analysis/report.html").read_text("utf-8")


def test_analyze_without_calibration_says_which_options_to_give(work, capsys):
    need("tifffile")
    ok("analyze", "movie.npy", *PLAIN)
    err = capsys.readouterr().err
    assert err == (
        "gmrm-gpu: not calibrated (areas are in pixels, time in frames): "
        "give --pixel-size 5nm, --thickness 0.5um, --frame-time 0.5s\n"
    )
    row = rows_of("movie_analysis/growth.csv")[0]
    assert (row["time_s"], row["area_um2"], row["volume_um3"]) == ("", "", "")


def test_analyze_frames_crop_exclude(work):
    need("tifffile")
    mask = np.zeros((40, 48), np.uint8)
    mask[:5] = 1
    np.save("mask.npy", mask)
    selection = ["--frames", "1::2", "--crop", "0:40,0:40", "--exclude", "mask.npy"]
    ok("analyze", "movie.npy", *PLAIN, *selection)
    rows = rows_of("movie_analysis/growth.csv")
    assert [row["frame"] for row in rows] == ["1", "3"]
    assert [row["n_samples"] for row in rows] == [str(35 * 40)] * 2


def test_same_seed_same_numbers(work):
    need("tifffile")
    for out, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        ok("analyze", "movie.npy", *PLAIN, "--rate", "0.3", "--seed", seed, "--out", out)
    a, b, c = (Path(out, "growth.csv").read_bytes() for out in "abc")
    assert a == b
    assert a != c
    assert rows_of("a/growth.csv")[0]["n_samples"] == "576"


def test_config_file_and_flags_that_win(work):
    need("tifffile")
    Path("my.toml").write_text(
        '[mixture]\nn_components = 3\ntrend = "linear"\n[phases]\nphases = "a,e,li"\nforeground = "e"\n'
        "[correction]\nradius = 2.0\ngamma = 0.3\n",
        "utf-8",
    )
    ok("analyze", "movie.npy", "--no-report", "--config", "my.toml", "--gamma", "0.1", "--out", "a")
    config = json.loads(Path("a/analysis.json").read_text("utf-8"))["config"]["analysis"]
    assert config["mixture"]["n_components"] == 3
    assert config["correction"]["radius"] == 2.0
    assert config["correction"]["gamma"] == 0.1
    assert config["phases"]["foreground"] == "e"
    ok("analyze", "movie.npy", "--no-report", "--config", "a/analysis.json", "--phases", "darkest", "--out", "b")
    again = json.loads(Path("b/analysis.json").read_text("utf-8"))["config"]["analysis"]
    assert again["correction"] == config["correction"]
    assert again["phases"]["phases"] == "darkest"
    assert again["phases"]["foreground"] is None


STUDY = ("--rates", "0.3,0.1", "--replicates", "3,4")


def test_study_with_truth_then_report(work, capsys, simulation):
    need("matplotlib", "jinja2")
    ok("study", "movie.npy", *FAST, *STUDY, "--truth", "truth.npy", "--device", "cpu")
    out = capsys.readouterr().out
    assert "Table 1, means over 5 frames, in px" in out
    assert "rmse to truth" in out
    of_each = ["curves.csv", "examples.npz", "replicates.npz", "study.json"]
    of_movie = [name.replace(".", "_movie.") for name in of_each]
    expected = sorted([*of_each, *of_movie, "figures", "report.html", "shards", "table1.csv"])
    assert entries("movie_study") == expected
    rows = [(row["method"], row["rate"]) for row in rows_of("movie_study/table1.csv")]
    assert rows == [(method, rate) for method in ("paper", "movie") for rate in ("0.3", "0.1")]
    truth = [float(row["truth"]) for row in rows_of("movie_study/curves.csv")[:5]]
    np.testing.assert_allclose(truth, simulation.truth_share * 40 * 48, rtol=1e-8)
    Path("movie_study/report.html").unlink()
    ok("report", "movie_study")
    again = capsys.readouterr().out
    assert again.splitlines()[:4] == out.splitlines()[:4]
    assert entries("movie_study") == expected
    assert StudyResult.load("movie_study").provenance["command"].startswith("gmrm-gpu study movie.npy --components")


def test_study_replicates_follow_the_rates(work):
    ok("study", "movie.npy", *PLAIN, "--rates", "0.5,0.2", "--quiet")
    assert [row["n_replicates"] for row in rows_of("movie_study/table1.csv")] == ["20", "50", "10", "10"]


def test_truth_follows_frames_crop_and_mask(work, simulation):
    mask = np.zeros((40, 48), np.uint8)
    mask[:, :20] = 1
    np.save("mask.npy", mask)
    selection = ("--frames", "2:", "--crop", "4:40,:", "--exclude", "mask.npy")
    ok("study", "movie.npy", *PLAIN, *STUDY, "--truth", "truth.npy", *selection, "--out", "a")
    expected = (simulation.truth[2:, 4:, 20:] == 2).mean(axis=(1, 2))
    np.testing.assert_allclose(StudyResult.load("a").truth, expected)
    np.save("cropped.npy", simulation.truth[2:, 4:])
    ok("study", "movie.npy", *PLAIN, *STUDY, "--truth", "cropped.npy", *selection, "--out", "b")
    np.testing.assert_allclose(StudyResult.load("b").truth, expected)


def test_truth_of_a_volume_of_revolution_is_weighted(work, simulation):
    solid = ("--geometry", "revolution", "--axis", "x=0", "--pixel-size", "10nm")
    ok("study", "movie.npy", *PLAIN, *STUDY, "--truth", "truth.npy", *solid)
    result = StudyResult.load("movie_study")
    radius = np.arange(48) * 0.01
    volume = ((simulation.truth == 2) * 2 * np.pi * radius * 1e-4).sum(axis=(1, 2))
    np.testing.assert_allclose(result.truth * result.scale.factor, volume, rtol=1e-10)


def test_demo_quick(work, capsys):
    ok("demo", "--quick", "--size", "48x40x4", "--device", "cpu", "--no-report")
    captured = capsys.readouterr()
    assert "quick demo: synthetic 48 x 40 x 4 movie, replicates 20 at 10 %, 40 at 5 %, 200 at 1 %" in captured.out
    assert "Table 1" in captured.out
    result = StudyResult.load("gmrm_demo")
    assert "these numbers are rough" in result.provenance["demo"]
    assert result.config.analysis.mixture.n_components == 3
    assert result.truth is not None


def test_demo_is_the_full_design_unless_quick(work, monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "simulate", lambda *a, **k: seen.append(k) or explode(MemoryError())())
    assert main(["demo", "--no-report"]) == 1
    assert seen[0]["shape"] == (256, 256)
    assert seen[0]["n_frames"] == 30
    assert commands.StudyConfig().n_replicates == (100, 200, 1000)


def test_doctor(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "probe_gpu", lambda: (False, "no driver"))
    monkeypatch.setattr(doctor, "OPTIONAL", (("no-such-thing", "no_such_thing", "plot", "figures"), *doctor.OPTIONAL))
    ok("doctor")
    out = capsys.readouterr().out
    assert f"gmrm-gpu         {__version__}" in out
    assert f"numpy            {np.__version__}" in out
    assert "not installed; for figures: pip install 'gmrm-gpu[plot]'" in out
    assert "CPU; no GPU because no driver" in out
    assert "cores" in out


def test_doctor_tells_a_broken_package(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "import_module", explode(ImportError("libfoo.so is missing")))
    ok("doctor")
    assert "but does not load (libfoo.so is missing)" in capsys.readouterr().out


# ---------------------------------------------------------------- console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_only_on_a_terminal_and_after_two_seconds(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **kwargs):
            self.kwargs, self.n, self.total = kwargs, 0, None
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, more):
            self.n += more

    monkeypatch.setattr("tqdm.tqdm", Bar)
    with Console(quiet=False).progress("x", "frames") as show:
        assert show is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Console(quiet=True).progress("x", "frames") as show:
        assert show is None
    with Console(quiet=False).progress("x", "frames") as show:
        show(2, 10)
        show(5, 10)
    assert len(bars) == 1
    assert bars[0].kwargs["delay"] == 2
    assert (bars[0].n, bars[0].total) == (5, 10)


def test_notes_come_once_and_at_once_on_a_terminal(monkeypatch, capsys):
    console = Console(quiet=False)
    console.note("a")
    console.note("a")
    assert capsys.readouterr().err == ""
    console.close()
    assert capsys.readouterr().err == "gmrm-gpu: a\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    console = Console(quiet=False)
    console.note("b")
    assert sys.stderr.getvalue() == "gmrm-gpu: b\n"
    console.close()
    assert sys.stderr.getvalue() == "gmrm-gpu: b\n"


def test_fit_note():
    assert fit_note(np.zeros(4)) is None
    text = fit_note(np.array([0, 1, 2, 2, 3, 4]))
    assert text == (
        "of 6 fits, 1 stopped at --max-iter, 2 lost a component, 1 failed (degenerate), 1 failed (too few samples)"
    )


def test_calibration_note():
    plain, thick = AnalysisConfig(), AnalysisConfig(quantity=QuantityConfig(thickness_um=1.0))
    time = np.zeros(2)
    assert calibration_note(Scale(9, 1.0, 1.0), time, thick) is None
    assert calibration_note(Scale(9, 1.0), time, plain) == "not calibrated (areas, not volumes): give --thickness 0.5um"
    assert calibration_note(Scale(9), time, thick) == "not calibrated (areas are in pixels): give --pixel-size 5nm"
    assert calibration_note(Scale(9, 1.0, 1.0), None, thick).endswith("(time in frames): give --frame-time 0.5s")


def test_numbers_and_counts_on_the_console():
    assert console.number(12_345.6) == "12,346"
    assert console.number(2.23e32) == "2.23e+32"
    assert console.number(0.012345) == "0.01235"
    assert console.number(float("nan")) == "-"
    assert [console.count(n, "frame") for n in (1, 12)] == ["1 frame", "12 frames"]
