"""Result folders: complete or absent, never over something that is not ours; names and columns of the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from gmrm_gpu import analyze, output, run_study, simulate
from gmrm_gpu.config import (
    AnalysisConfig,
    CorrectionConfig,
    MixtureConfig,
    QuantityConfig,
    StudyConfig,
    analysis_config_from_json,
)
from gmrm_gpu.errors import InputError, MissingDependencyError, OutputError
from gmrm_gpu.folders import new_folder
from gmrm_gpu.frames import open_labels, open_movie
from gmrm_gpu.output import load_study, renew_report, write_analysis, write_json, write_study

CONFIG = AnalysisConfig(
    mixture=MixtureConfig(n_components=3, trend="linear"),
    correction=CorrectionConfig(radius=3, gamma=0.2),
    quantity=QuantityConfig(thickness_um=0.5),
    method="paper",
)
GROWTH = [
    "frame",
    "time_s",
    "share",
    "share_low",
    "share_high",
    "area_px",
    "area_um2",
    "volume_um3",
    "n_samples",
    "visited_share",
    "n_without_neighbours",
    "status",
    "share_raw",
    *(f"{name}{end}" for name in ("count", "posterior", "assisted", "smoothed") for end in ("", "_low", "_high")),
]


STUDY_FILES = sorted(
    [
        "table1.csv",
        *(f"curves{end}.csv" for end in ("", "_movie")),
        *(f"{name}{end}.npz" for name in ("examples", "replicates") for end in ("", "_movie")),
        *(f"study{end}.json" for end in ("", "_movie")),
    ]
)


@pytest.fixture(scope="module")
def simulation():
    return simulate("battery", shape=(40, 48), n_frames=4, seed=2)


@pytest.fixture(scope="module")
def analysis(simulation):
    return analyze(simulation.movie, CONFIG)


@pytest.fixture(scope="module")
def study(simulation):
    config = StudyConfig(CONFIG, rates=(0.1, 0.05), n_replicates=(3, 4))
    return run_study(simulation.movie, config, truth=simulation.truth_share)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def entries(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def test_new_folder_appears_only_when_complete(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        assert not (tmp_path / "out").exists()
        assert folder.parent == tmp_path
        (folder / "x.txt").write_text("1")
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, error):
    def work():
        with new_folder(tmp_path / "a" / "b" / "out") as folder:
            (folder / "x.txt").write_text("1")
            raise error

    with pytest.raises(error):
        work()
    assert entries(tmp_path) == []


def earlier(path, text="old"):
    path.mkdir()
    (path / "study.json").write_text("{}")
    (path / "curves.csv").write_text(text)
    (path / "figures").mkdir()
    (path / "figures" / "figure4.png").write_bytes(b"")
    return path


def replace_with_new(path, **options):
    with new_folder(path, **options) as folder:
        (folder / "study.json").write_text("{}")


def test_existing_folder_is_refused_before_any_work(tmp_path):
    old = earlier(tmp_path / "out")
    with pytest.raises(OutputError, match=r"exists; .*--overwrite"), new_folder(old):
        pytest.fail("the work began")
    assert (old / "curves.csv").read_text() == "old"


def test_overwrite_replaces_only_when_the_new_one_is_complete(tmp_path):
    old = earlier(tmp_path / "out")

    def work():
        with new_folder(old, overwrite=True) as folder:
            assert (old / "curves.csv").exists()
            (folder / "study.json").write_text("{}")
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert (old / "curves.csv").read_text() == "old"
    replace_with_new(old, overwrite=True)
    assert entries(tmp_path) == ["out"]
    assert entries(old) == ["study.json"]


def test_overwrite_takes_an_empty_folder(tmp_path):
    (tmp_path / "out").mkdir()
    replace_with_new(tmp_path / "out", overwrite=True)
    assert entries(tmp_path / "out") == ["study.json"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("thesis.docx", "holds thesis.docx"),
        ("figures/mine.psd", "holds figures/mine.psd"),
        ("figures/sub", "holds figures/sub"),
    ],
)
def test_overwrite_refuses_what_is_not_ours(tmp_path, name, says):
    old = earlier(tmp_path / "out")
    if name.endswith("sub"):
        (old / name).mkdir()
    else:
        (old / name).write_text("precious")
    with pytest.raises(OutputError, match=says):
        replace_with_new(old, overwrite=True)
    assert (old / name).exists()
    assert entries(tmp_path) == ["out"]


def test_overwrite_refuses_a_folder_with_only_a_movie_of_our_name(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "movie.tif").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"none of analysis\.json"):
        replace_with_new(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "movie.tif").exists()


def test_overwrite_refuses_the_folder_of_the_input(tmp_path):
    old = earlier(tmp_path / "out")
    (old / "movie.tif").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"holds the input movie\.tif"):
        replace_with_new(old, overwrite=True, inputs=[old / "movie.tif"])
    assert (old / "movie.tif").exists()


def test_overwrite_refuses_the_current_folder_and_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(earlier(tmp_path / "out"))
    with pytest.raises(OutputError, match="current folder"):
        replace_with_new(".", overwrite=True)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="is a file"):
        replace_with_new(tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_that_appears_meanwhile_loses_nothing(tmp_path):
    def work():
        with new_folder(tmp_path / "out") as folder:
            (folder / "study.json").write_text("mine")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "x").write_text("theirs")

    with pytest.raises(OutputError, match="out-2"):
        work()
    assert entries(tmp_path) == ["out", "out-2"]
    assert (tmp_path / "out" / "x").read_text() == "theirs"
    assert (tmp_path / "out-2" / "study.json").read_text() == "mine"


def test_a_link_to_a_folder_is_followed(tmp_path):
    old = earlier(tmp_path / "real")
    (tmp_path / "link").symlink_to(old)
    replace_with_new(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert entries(old) == ["study.json"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        replace_with_new(tmp_path / "file" / "out")


def test_analysis_files(tmp_path, analysis):
    pytest.importorskip("tifffile", reason="labels.tif needs tifffile")
    folder = write_analysis(analysis, tmp_path / "out", report=False)
    assert entries(folder) == ["analysis.json", "fits.csv", "growth.csv", "labels.tif"]
    growth = rows_of(folder / "growth.csv")
    assert list(growth[0]) == GROWTH
    np.testing.assert_allclose([float(row["share"]) for row in growth], analysis.share, rtol=1e-8)
    np.testing.assert_allclose([float(row["volume_um3"]) for row in growth], analysis.area_um2 * 0.5, rtol=1e-8)
    assert len(rows_of(folder / "fits.csv")) == 4 * 3
    np.testing.assert_array_equal(open_labels(folder / "labels.tif"), analysis.labels)
    assert open_movie(folder / "labels.tif").pixel_size_um == pytest.approx(0.01, rel=1e-4)
    assert open_movie(folder / "labels.tif").frame_time_s == pytest.approx(0.5)
    assert analysis_config_from_json(folder / "analysis.json") == CONFIG
    meta = json.loads((folder / "analysis.json").read_text("utf-8"))
    assert meta["phases"] == ["not visited", "background", "foreground"]
    assert meta["provenance"]["seed"] == 0


def test_stack_too_large_for_imagej_is_still_read(tmp_path, analysis, monkeypatch):
    pytest.importorskip("tifffile", reason="labels.tif needs tifffile")
    monkeypatch.setattr(output, "_IMAGEJ_LIMIT", 1)
    folder = write_analysis(analysis, tmp_path / "out", report=False)
    np.testing.assert_array_equal(open_labels(folder / "labels.tif"), analysis.labels)


def test_study_files(tmp_path, study):
    folder = write_study(study, tmp_path / "out", report=False)
    assert entries(folder) == STUDY_FILES
    table = rows_of(folder / "table1.csv")
    assert [(row["method"], row["rate"]) for row in table] == [
        (method, rate) for method in ("paper", "movie") for rate in ("0.1", "0.05")
    ]
    assert list(table[0])[:6] == ["method", "rate", "n_replicates", "avg_bias", "avg_width", "unit"]
    assert {"avg_bias_truth", "rmse_truth"} <= set(table[0])
    curves = ["rate", "frame", "time_s", "reference", "mean", "p10", "p50", "p90", "unit", "truth"]
    assert list(rows_of(folder / "curves.csv")[0]) == curves
    with np.load(folder / "replicates.npz") as data:
        assert data["share_0.1"].shape == (3, 4)
        assert data["share_0.05"].shape == (4, 4)
        assert data["share_reference"].shape == (4,)
    again = load_study(folder)
    assert again.config == study.config
    np.testing.assert_array_equal(again.shares[0.05], study.shares[0.05])
    assert again.provenance == study.provenance


def fake_report(result, folder):
    """In place of the real one, which takes seconds; test_cli draws that."""
    (folder / "figures").mkdir()
    for name in ("a.png", "b.svg"):
        (folder / "figures" / name).write_text("new")
    (folder / "report.html").write_text(f"new {result.movie.name}")
    return folder / "report.html"


def test_reports_are_written_and_drawn_again(tmp_path, study, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.report.need_plot", lambda: None)
    monkeypatch.setattr("gmrm_gpu.report.write_report", fake_report)
    folder = write_study(study, tmp_path / "out")
    before = entries(folder)
    assert {"report.html", "figures"} <= set(before)
    (folder / "report.html").write_text("old")
    (folder / "figures" / "c.png").write_text("old")
    assert renew_report(load_study(folder), folder) == folder / "report.html"
    assert entries(folder) == before
    assert entries(folder / "figures") == ["a.png", "b.svg"]
    assert (folder / "report.html").read_text() == "new battery-easy-2"
    write_study(study, folder, overwrite=True, report=False)
    assert "report.html" not in entries(folder)


def test_a_report_that_cannot_be_drawn_again_stays(tmp_path, study, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.report.need_plot", lambda: None)
    monkeypatch.setattr("gmrm_gpu.report.write_report", fake_report)
    folder = write_study(study, tmp_path / "out")
    before = entries(folder)

    def broken(result, folder):
        fake_report(result, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gmrm_gpu.report.write_report", broken)
    (folder / "report.html").write_text("old")
    with pytest.raises(OutputError, match="No space left"):
        renew_report(study, folder)
    assert entries(folder) == before
    assert entries(folder / "figures") == ["a.png", "b.svg"]
    assert (folder / "report.html").read_text() == "old"


def test_a_report_that_fails_costs_no_numbers(tmp_path, study, monkeypatch):
    def broken(result, folder):
        (folder / "figures").mkdir()
        raise RuntimeError("no font\nat all")

    monkeypatch.setattr("gmrm_gpu.report.need_plot", lambda: None)
    monkeypatch.setattr("gmrm_gpu.report.write_report", broken)
    with pytest.raises(OutputError, match=r"report could not be written \(RuntimeError: no font\); all numbers are in"):
        write_study(study, tmp_path / "out")
    assert entries(tmp_path / "out") == STUDY_FILES


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, study, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError, match="No space left"):
        write_study(study, tmp_path / "out", report=False)
    assert entries(tmp_path) == []


def test_a_cut_write_without_a_reason_asks_about_the_disk(tmp_path, analysis, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile")

    def cut(*args, **kwargs):
        raise OSError("196608 requested and 85648 written")

    monkeypatch.setattr(tifffile, "imwrite", cut)
    with pytest.raises(OutputError, match=r"requested and 85648 written \(is the disk full\?\)"):
        write_analysis(analysis, tmp_path / "out", report=False)
    assert entries(tmp_path) == []


def test_missing_extras_are_known_before_anything_is_written(tmp_path, analysis, monkeypatch):
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gmrm-gpu\[tiff\]'"):
        write_analysis(analysis, tmp_path / "out", report=False)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("damage", ["missing", "json", "npz", "key"])
def test_a_damaged_study_is_refused(tmp_path, study, damage):
    folder = tmp_path / "out"
    if damage == "missing":
        folder.mkdir()
    else:
        write_study(study, folder, report=False)
        target = folder / ("replicates.npz" if damage == "npz" else "study.json")
        good = target.read_bytes()
        target.write_bytes(b"{}" if damage == "key" else good[: len(good) // 2])
    with pytest.raises(InputError, match="not a finished study"):
        load_study(folder)


def test_json_holds_arrays_and_no_nan(tmp_path):
    data = {"a": np.arange(3), "b": float("nan"), "c": (np.float32(1.5), True, None), 4: {"d": Path("x")}}
    write_json(tmp_path / "x.json", data)
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": [0, 1, 2],
        "b": None,
        "c": [1.5, True, None],
        "4": {"d": "x"},
    }
