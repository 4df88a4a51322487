"""Hostile files: each ends in a named error of one line or does no harm, in under 10 s and 500 MB, and runs nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gmrm_gpu
from gmrm_gpu import report
from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.folders import new_folder
from gmrm_gpu.frames import open_movie
from gmrm_gpu.output import renew_report

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, devices and /proc are those of Linux")
hostile = pytest.importorskip("hostile", reason="pipes, devices and /proc are those of Linux")
for package in ("h5py", "rsciio", "av", "tifffile", "PIL"):
    pytest.importorskip(package)

PROGRAM = Path(hostile.__file__)
MOST_S, MOST_BYTES = 10.0, 500e6
HARMLESS = {
    *("zip_slip", "zip_slip_by_an_absolute_name", "ome_of_entities_that_multiply", "detector_with_escape_codes"),
    *("name_with_escape_codes", "name_that_reads_backwards", "name_that_is_no_text", "pipe_as_claim"),
}
"""Cases that are read: nothing in them is wrong but names that are not used, or not printed as they are."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each case, in one process; where that died or hung, the rest in another."""
    folder = tmp_path_factory.mktemp("hostile")
    found: dict[str, dict[str, Any]] = {}
    left = list(hostile.CASES)
    while left:
        started = _run(folder, left, found)
        if started is None:
            break
        found[started] = {"what": "crashed or hung", "text": ""}
        left = left[left.index(started) + 1 :]
    return found


def _run(folder: Path, names: list[str], found: dict[str, dict[str, Any]]) -> str | None:
    """Run cases until one does not end; its name."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(folder), *names]
    started = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        timer = threading.Timer(60, process.kill)
        for line in process.stdout:
            told = json.loads(line)
            timer.cancel()
            started = told.get("start")
            if started is None:
                found[told.pop("case")] = told
            timer = threading.Timer(60, process.kill)
            timer.start()
        timer.cancel()
    return started


@pytest.mark.parametrize("name", hostile.CASES)
def test_a_hostile_file_does_no_harm(name: str, outcomes: dict[str, dict[str, Any]], counted: Callable) -> None:
    told = outcomes[name]
    assert told["what"] == ("fine" if name in HARMLESS else "refused"), told
    assert told["canary"] == []
    assert told["warnings"] == []
    assert told["seconds"] < MOST_S
    assert told["bytes"] < MOST_BYTES
    assert_printable(told["text"])
    if told["what"] == "refused":
        assert told["text"].strip().count("\n") == 0
        assert not {"Traceback", "Error:"} & set(told["text"].replace("(", " ").split()) - {"gmrm-gpu:"}
    counted("hostile files", 1)


def test_there_are_fifty_or_more() -> None:
    assert len(hostile.CASES) >= 50


def test_images_as_large_as_cameras_make_them_are_read_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import PIL.Image

    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns from here on, and refuses twice as many
    PIL.Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    assert open_movie(tmp_path / "a.png").frame(0).shape == (20, 30)
    PIL.Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="1200 pixels"):
        open_movie(tmp_path / "b.png")


def test_links_in_results_of_others_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(result: object, folder: Path) -> None:
        (folder / "figures").mkdir()
        (folder / "report.html").write_text("new")

    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.mkdir()
    for name in ("a.png", "b.png"):
        (precious / name).write_text("mine")
    run.mkdir()
    (run / "study.json").write_text("{}")
    (run / "figures").symlink_to(precious)
    (run / "report.html").symlink_to(precious / "b.png")
    monkeypatch.setattr(report, "write_report", draw)
    with pytest.raises(OutputError, match="cannot write the report"):
        renew_report(None, run)  # type: ignore[arg-type]
    with new_folder(run, overwrite=True) as folder:
        (folder / "study.json").write_text("{}")
    assert not (run / "figures").exists()
    assert {path.name: path.read_text() for path in precious.iterdir()} == {"a.png": "mine", "b.png": "mine"}


def assert_printable(text: str) -> None:
    """No character that moves the cursor, or the order of the others."""
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


# ---- nothing runs what a file says -----------------------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
PACKAGE = Path(gmrm_gpu.__file__).parent


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    assert unsafe(path.read_text("utf-8")) == []


def unsafe(source: str) -> list[str]:
    """Whatever in a module could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.asname or alias.name != "pickle"]
            found += [name for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and node.attr != "dumps":
            found.append(ast.unparse(node))  # to write a pickle runs nothing
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(str(node.module))
        if isinstance(node, ast.Call):
            found += unsafe_call(node)
    return found


def unsafe_call(node: ast.Call) -> list[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    of_numpy = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("np", "numpy", "np.lib.format")
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    found = [name] if name in UNSAFE_CALLS else []
    if of_numpy and attribute in ("load", "read_array") and given.get("allow_pickle") != "False":
        found.append(ast.unparse(node))
    if of_numpy and attribute in ("fromregex", "genfromtxt"):
        found.append(attribute)
    if given.get("shell") == "True" or ast.unparse(node.func) in ("os.system", "os.popen"):
        found.append(ast.unparse(node))
    return found


def test_the_check_above_sees_what_is_unsafe() -> None:
    reads = ("import dill", "pickle.load(x)", "from yaml import load", "np.load(x)", "np.load(x, allow_pickle=True)")
    runs = ("eval(x)", "os.system(x)", "run(x, shell=True)")
    assert [len(unsafe(line)) for line in (*reads, *runs)] == [1] * 8
    assert unsafe("np.load(x, allow_pickle=False)\nre.compile(x)\njson.load(x)") == []
