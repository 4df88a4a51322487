"""The plugin for napari: its manifest and readers without napari, its panel where napari and Qt can run.

napari and npe2 bring pytest plugins whose warnings are errors here; with them installed, run
``PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QT_QPA_PLATFORM=offscreen pytest tests/test_napari.py``.
"""

from __future__ import annotations

import ast
import os
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gmrm_gpu as gg
import gmrm_gpu.napari as plugin
from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import ArrayMovie, open_movie
from gmrm_gpu.frames.sampled.sparse import save_visits
from gmrm_gpu.napari.layers import KEY, FrameStack, curve_of, movie_layer, result_layer
from gmrm_gpu.napari.reader import get_reader
from gmrm_gpu.output import write_analysis

FOLDER = Path(plugin.__file__).parent
MANIFEST = FOLDER / "napari.yaml"
ROOT = FOLDER.parents[1]


@pytest.fixture(scope="module")
def movie():
    source = gg.simulate("battery", shape=(40, 48), n_frames=4, seed=2).movie
    stack = np.stack([source.frame(t) for t in range(4)])
    return ArrayMovie(stack, name="growth", pixel_size_um=0.02, frame_time_s=0.5)


@pytest.fixture(scope="module")
def result(movie):
    return gg.analyze(movie, gg.AnalysisConfig(quantity=gg.QuantityConfig(thickness_um=0.1)), rate=0.2)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    pytest.importorskip("tifffile")
    return write_analysis(result, tmp_path_factory.mktemp("napari") / "run1", report=False)


def entries(key):
    """Values of every ``key: value`` of the manifest."""
    return re.findall(rf"^\s*(?:- )?{key}: (.+)$", MANIFEST.read_text("utf-8"), re.MULTILINE)


def test_the_manifest_names_functions_that_exist():
    named = entries("python_name")
    assert len(named) == 2
    for name in named:
        module, _, function = name.partition(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        defined = {getattr(node, "name", None) for node in ast.parse(path.read_text("utf-8")).body}
        assert function in defined, name


def test_the_manifest_has_a_command_for_each_use():
    declared, used = entries("id"), entries("command")
    assert sorted(declared) == sorted(used)
    assert all(name.startswith("gmrm-gpu.") for name in declared)
    assert entries("name") == ["gmrm-gpu"]


def test_the_manifest_is_packaged_and_found():
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("pyproject.toml is not beside the package")
    project = tomllib.loads(path.read_text("utf-8"))
    assert project["project"]["entry-points"]["napari.manifest"] == {"gmrm-gpu": "gmrm_gpu.napari:napari.yaml"}
    assert "napari/*.yaml" in project["tool"]["setuptools"]["package-data"]["gmrm_gpu"]
    assert not {"napari", "qtpy"} & {re.split(r"[<>=\[]", one)[0] for one in project["project"]["dependencies"]}


def test_a_result_folder_opens_as_labels_with_its_curve(folder, result):
    for path in (folder, folder / "analysis.json"):
        ((labels, options, kind),) = get_reader(str(path))(str(path))
        assert kind == "labels"
        np.testing.assert_array_equal(labels, result.labels)
        assert options["scale"] == (0.5, 0.02, 0.02)
        assert options["units"] == ("second", "micrometer", "micrometer")
        assert options["name"] == "run1 phases"


def test_the_curve_of_a_folder_is_that_of_its_result(folder, result):
    ((_, options, _),) = get_reader([str(folder)])([str(folder)])
    read, made = options["metadata"][KEY], curve_of(result)
    assert (read.x_label, read.y_label) == (made.x_label, made.y_label) == ("time (s)", "foreground, volume (µm³)")
    for name in ("x", "y", "low", "high"):
        np.testing.assert_allclose(getattr(read, name), getattr(made, name), rtol=1e-7, err_msg=name)


def test_colours_of_phases_and_their_names(result):
    _, options, _ = result_layer(result, "phases")
    assert options["features"] == {"index": range(3), "phase": ["not visited", "background", "foreground"]}
    colours = options["colormap"]
    assert [*colours] == [None, 0, 1, 2]
    assert colours[0][3] == 0
    np.testing.assert_allclose(colours[2], [0xE6 / 255, 0x9F / 255, 0, 1])
    assert 0 < colours[1][3] < 1


def test_the_curve_in_words(result):
    curve = curve_of(result)
    low, high = result.quantity_interval
    assert curve.at(1) == f"0.5 s: {result.quantity[1]:.4g} µm³ (80 %: {low[1]:.4g} to {high[1]:.4g})"
    lost = replace(result, share=result.share * np.nan, volume_share=result.share * np.nan, time_s=None)
    assert curve_of(lost).at(3) == "frame 3: no usable fit"


def test_incomplete_and_damaged_results_are_refused(folder, tmp_path):
    read = get_reader(str(folder))
    for name, said in (("labels.tif", "has no labels.tif"), ("growth.csv", "has no growth.csv")):
        part = tmp_path / name
        part.mkdir()
        for path in folder.iterdir():
            if path.name != name and path.is_file():
                (part / path.name).write_bytes(path.read_bytes())
        with pytest.raises(InputError, match=said):
            read(str(part))
    (part / "growth.csv").write_text("frame,share\n0,0.5\n")
    with pytest.raises(InputError, match="is not a finished analysis"):
        read(str(part))


def test_what_is_not_ours_is_left_to_other_readers(tmp_path):
    np.savez(tmp_path / "dense.npz", movie=np.zeros((2, 4, 5), np.uint8))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name in ("dense.npz", "broken.npz", "absent.npz", "."):
        assert get_reader(str(tmp_path / name)) is None
    (tmp_path / "Hour_00").mkdir()
    assert get_reader(str(tmp_path)) is not None  # Gatan's in-situ cameras write such folders


@pytest.fixture
def sparse_file(movie, tmp_path):
    visited = np.random.default_rng(3).random((40, 48)) < 0.3
    return save_visits(open_movie(movie, visited=visited), tmp_path / "thin.npz")


def test_a_sub_sampled_file_opens_as_an_image_with_gaps(movie, sparse_file):
    path = str(sparse_file)
    ((stack, options, kind),) = get_reader(path)(path)
    visited = np.random.default_rng(3).random((40, 48)) < 0.3
    assert (kind, stack.shape, stack.dtype) == ("image", (4, 40, 48), np.float32)
    np.testing.assert_array_equal(np.isfinite(stack[1]), visited)
    np.testing.assert_array_equal(stack[1][visited], movie.frame(1)[visited])
    assert options["scale"] == (0.5, 0.02, 0.02)


def test_frames_are_sliced_like_an_array(movie):
    whole = np.stack([movie.frame(t) for t in range(4)])
    stack = FrameStack(movie)
    for index in (
        2,
        -1,
        slice(1, 3),
        (slice(None), 5),
        (2, slice(3, 9), 7),
        (..., 4),
        (slice(None, None, -1), 1, 1),
        (),
    ):
        np.testing.assert_array_equal(stack[index], whole[index])
    assert stack[5:].shape == (0, 40, 48)
    np.testing.assert_array_equal(np.asarray(stack), whole)
    with pytest.raises(IndexError):
        stack[4]


def test_flat_movies_have_contrast_limits_that_napari_takes():
    _, options, _ = movie_layer(ArrayMovie(np.full((1, 4, 5), 7, np.uint8)))
    assert options["contrast_limits"] == (7.0, 8.0)
    assert options["scale"] == (1.0, 1.0, 1.0)


# From here on with napari and Qt.

# What napari's own modules warn of when they are imported is not ours.
with_napari = pytest.mark.filterwarnings("default")


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    pytest.importorskip("napari", reason="napari is not installed")
    try:
        from qtpy.QtWidgets import QApplication
    except Exception as error:
        pytest.skip(f"Qt cannot run here: {error}")
    return QApplication.instance() or QApplication([])


@pytest.fixture
def panel(app, movie):
    from napari.components import ViewerModel

    from gmrm_gpu.napari.widget import AnalyzeLayer

    viewer = ViewerModel()
    panel = AnalyzeLayer(viewer)
    data = np.stack([movie.frame(t) for t in range(4)])
    viewer.add_image(data, name="film", scale=(0.5, 0.02, 0.02), units=("s", "um", "um"))
    yield panel
    panel.close()
    wait(app, lambda: not panel._working)


def wait(app, until, seconds=60):
    """Let Qt work until `until()` holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "Qt did not get there"
        app.processEvents()
        time.sleep(0.005)


@with_napari
def test_napari_accepts_the_manifest(app):
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Analyze layer"]


@with_napari
def test_layers_of_results_are_taken_by_napari(app, folder):
    from napari.layers import Layer

    ((data, options, kind),) = get_reader(str(folder))(str(folder))
    layer = Layer.create(data, options, kind)
    assert [str(unit) for unit in layer.units] == ["second", "micrometer", "micrometer"]
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
    np.testing.assert_allclose(layer.get_color(2)[:3], [0xE6 / 255, 0x9F / 255, 0], atol=1e-6)


@with_napari
def test_the_panel_analyses_the_layer_and_shows_its_curve(app, panel, movie):
    panel.rate.setValue(20)
    panel.analyze()
    wait(app, lambda: panel.result is not None and not panel._working)
    expected = gg.analyze(movie, rate=0.2)
    labels = panel.viewer.layers["film phases"]
    np.testing.assert_array_equal(labels.data, expected.labels)
    np.testing.assert_array_equal(panel.curve.curve.y, expected.quantity)
    assert tuple(labels.scale) == (0.5, 0.02, 0.02)
    assert str(labels.units[1]) == "micrometer"
    assert panel.message.text().startswith("finished")


@with_napari
def test_the_mark_on_the_curve_follows_the_slider_and_a_click_moves_it(app, panel, result):
    data, options, _ = result_layer(result, "phases")
    panel.viewer.layers.selection.active = panel.viewer.add_labels(data, **options)
    panel.viewer.dims.set_point(0, 1.5)
    assert panel.curve._mark == 3
    assert panel.value.text() == curve_of(result).at(3)
    panel.curve.picked.emit(1)
    assert panel.viewer.dims.point[0] == 0.5
    assert panel.curve._mark == 1


@with_napari
def test_the_panel_says_what_is_wrong(app, panel):
    panel.unvisited.setText("x")
    panel.analyze()
    assert "could not convert" in panel.message.text()
    panel.unvisited.setText("")
    panel.viewer.add_image(np.zeros((2, 3, 3), np.uint8), name="tiny")
    panel.layer.setCurrentText("tiny")
    panel.analyze()
    wait(app, lambda: not panel._working)
    assert panel.result is None
    assert "usable" in panel.message.text()
    panel.viewer.layers.clear()
    panel.analyze()
    assert "open a movie first" in panel.message.text()


@with_napari
def test_a_sub_sampled_file_is_analysed_from_its_visits(app, panel, movie, sparse_file):
    path = str(sparse_file)
    ((data, options, _),) = get_reader(path)(path)
    panel.viewer.add_image(data, **options).name = "thin"
    panel.layer.setCurrentText("thin")
    panel.rate.setValue(1)
    panel.analyze()
    wait(app, lambda: not panel._working)
    assert panel.message.text().startswith("finished")
    expected = gg.analyze(open_movie(sparse_file), rate=1.0)
    np.testing.assert_array_equal(panel.viewer.layers["thin phases"].data, expected.labels)
    assert tuple(panel.viewer.layers["thin phases"].scale) == (0.5, 0.02, 0.02)


@with_napari
def test_work_is_stopped_by_the_button(app, panel):
    panel.viewer.add_image(np.random.default_rng(0).integers(0, 255, (60, 128, 128), np.uint8), name="long")
    panel.layer.setCurrentText("long")
    panel.start.click()
    assert panel.start.text() == "Stop"
    panel.start.click()
    wait(app, lambda: not panel._working)
    assert panel.message.text() == "stopped"
    assert "long phases" not in panel.viewer.layers


@with_napari
def test_results_are_written_by_the_panel(app, panel, result, tmp_path):
    panel.result = result
    panel.write(str(tmp_path / "out"))
    wait(app, lambda: not panel._working)
    assert (tmp_path / "out" / "labels.tif").exists()
    panel.write(str(tmp_path / "out"))
    wait(app, lambda: not panel._working)
    assert "exists" in panel.message.text()


@with_napari
def test_the_curve_is_drawn_where_it_belongs(app, result):
    from gmrm_gpu.napari.curve import CurveView, limits, runs, ticks

    view = CurveView()
    view.resize(400, 300)
    empty = picture(view)
    view.show_curve(curve_of(result))
    drawn = picture(view)
    orange = (drawn[..., 0] > 200) & (drawn[..., 1] > 120) & (drawn[..., 2] < 60)
    area = view._area()
    rows, columns = np.nonzero(orange)
    assert area.left() - 2 <= columns.min() <= columns.max() <= area.right() + 2
    assert np.ptp(columns) > 0.9 * area.width()
    assert not np.array_equal(empty, drawn)
    # The curve starts low: METHOD's battery grows.
    assert rows[columns == columns.min()].mean() > rows[columns == columns.max()].mean()
    view.show_curve(replace(curve_of(result), y=np.full(4, np.nan)))
    assert not np.array_equal(picture(view), drawn)
    assert ticks(0, 1) == [0, 0.5, 1]
    assert [f"{value:g}" for value in ticks(-1e-12, 4)] == ["0", "1", "2", "3", "4"]
    assert limits(np.array([2.0, np.nan])) == (1.5, 2.5)
    assert runs(np.array([True, True, False, True])) == [slice(0, 2), slice(3, 4)]


def picture(widget):
    """(height, width, 3) of what a widget draws."""
    image = widget.grab().toImage()
    image = image.convertToFormat(image.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3).astype(int)
