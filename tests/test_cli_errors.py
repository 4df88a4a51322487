"""Everything that can go wrong on the command line: exit code, one line, and nothing half written."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_tools import FAST, PLAIN, enter, entries, explode, fails, movie_with_truth, need, ok

from gmrm_gpu.cli import commands, main, shared
from gmrm_gpu.errors import MissingDependencyError


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty current folder with movie.npy and truth.npy in it."""
    return enter(tmp_path, monkeypatch)


@pytest.fixture
def simulation():
    return movie_with_truth()


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rate", "0"], "rate is 0"),
        (["--rate", "1.5"], "rate is 1.5"),
        (["--rate", "nan"], "rate is nan"),
        (["--rate", "a tenth"], "--rate: 'a tenth' is not a number; write it like 0.1"),
        (["--rate", "10%"], "'10%' is not a number; write it like 0.1"),
        (["--pixel-size", "5furlongs"], "unknown unit 'furlongs'; use one of"),
        (["--pixel-size", "5"], "needs a number and a unit"),
        (["--thickness", "-1um"], "write --option=-1"),
        (["--thickness=-1um"], "needs a number and a unit"),
        (["--frame-time", "0s"], "above zero"),
        (["--memory", "2 elephants"], "unknown unit"),
        (["--components", "0"], "n_components is 0"),
        (["--components", "many"], "--components: 'many' is not a whole number"),
        (["--trend", "x5"], "outside 1 <= a + b <= 4"),
        (["--metric", "l3"], "--metric"),
        (["--phases", "anode,li"], "give one name per component"),
        (["--foreground", "li"], "needs named phases"),
        (["--axis", "z=1"], "axis 'z=1'"),
        (["--gamma", "2"], "gamma is 2"),
        (["--starts", "lucky"], "starts is 'lucky'"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--comp", "3"], "unrecognized arguments: --comp"),
        (["--config", "absent.toml"], "cannot read absent.toml"),
    ],
)
def test_wrong_usage(work, capsys, argv, says):
    fails(capsys, 2, ["analyze", "movie.npy", "--no-report", *argv], says)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["analyze"], "MOVIE"),
        (["analyse", "movie.npy"], "invalid choice"),
        (["fit", "movie.npy", "--frame", "last"], "--frame: 'last' is not a whole number"),
        (["study", "movie.npy", "--truth-value", "1"], "--truth-value 1 is a label of --truth; give that file too"),
        (["study", "movie.npy", "--rates", "0.1,0"], "rate is 0"),
        (["study", "movie.npy", "--rates", "0.1,often"], "separated by commas"),
        (["study", "movie.npy", "--rates", "0.1,0.1"], "twice"),
        (["study", "movie.npy", "--replicates", "100"], "one number per rate"),
        (["demo", "--size", "256x256"], "HEIGHTxWIDTHxFRAMES"),
        (["simulate", "--size", "8x8x8"], "shape is 8"),
        (["simulate", "--set", "colour=red"], "no option of the battery scenario"),
        (["simulate", "--set", "n_empty"], "NAME=VALUE"),
        (["simulate", "--bits", "12"], "--bits"),
    ],
)
def test_wrong_usage_of_other_commands(work, capsys, argv, says):
    need("tifffile")
    fails(capsys, 2, argv, says)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("bad.toml", "[mixture\n", "not valid TOML"),
        ("bad.toml", "[mixture]\ncomponents = 3\n", "no setting 'components'"),
        ("bad.toml", "[mixtures]\n", "unknown section [mixtures]"),
        ("bad.toml", "mixture = 3\n", "bad.toml"),
        ("bad.toml", "[mixture]\nstarts = 5\n", "bad.toml"),
        ("bad.json", "{}", "does not hold settings"),
        ("bad.json", "hello", "does not hold settings"),
    ],
)
def test_bad_config_file(work, capsys, name, text, says):
    Path(name).write_text(text, "utf-8")
    fails(capsys, 2, ["analyze", "movie.npy", "--config", name], says)


# ---------------------------------------------------------------- bad input


def bad_movies(simulation):
    """Name -> (function that writes it and returns its path, what the error says)."""
    stack = np.stack([simulation.movie.frame(t) for t in range(3)])

    def saved(array, name="bad.npy"):
        def write():
            np.save(name, array)
            return name

        return write

    def raw(name, content):
        def write():
            Path(name).write_bytes(content)
            return name

        return write

    buffer = io.BytesIO()
    np.save(buffer, stack)
    colour = np.stack([stack, stack // 2, stack], axis=-1)
    holes = stack.astype(np.float32)
    holes[1, 5:7, 5] = np.nan
    return {
        "absent": (lambda: "absent.tif", "does not exist"),
        "not a movie": (raw("notes.txt", b"hello"), "unknown kind"),
        "not a TIFF": (raw("bad.tif", b"hello"), "bad.tif"),
        "empty": (raw("bad.tif", b""), "empty"),
        "truncated npy": (raw("bad.npy", buffer.getvalue()[:-1000]), "bad.npy"),
        "zero frames": (saved(stack[:0]), "no frames"),
        "colour": (saved(colour), "--luminance"),
        "NaN": (saved(holes), "2 NaN pixels"),
        "text": (saved(np.full((2, 20, 20), "x")), "pixels of type"),
        "complex": (saved(np.ones((2, 20, 20), complex)), "pixels of type"),
        "too small": (saved(np.tile(np.arange(50, dtype=np.uint8), (3, 1, 1))), "too small for a trend"),
        "few levels": (saved((stack > 100).astype(np.uint8)), "only 2 distinct grey levels"),
        "few pixels": (saved(stack[:, :3, :3]), "9 usable pixels"),
    }


NAMES = (
    *("absent", "not a movie", "not a TIFF", "empty", "truncated npy", "zero frames", "colour", "NaN", "text"),
    *("complex", "too small", "few levels", "few pixels"),
)


@pytest.mark.parametrize("command", ["analyze", "study"])
@pytest.mark.parametrize("name", NAMES)
def test_bad_movie(work, capsys, simulation, name, command):
    need("tifffile")
    write, says = bad_movies(simulation)[name]
    fails(capsys, 1, [command, write(), *PLAIN], says)


def test_truncated_tiff(work, capsys, simulation):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
    tifffile.imwrite("bad.tif", np.load("movie.npy"))
    Path("bad.tif").write_bytes(Path("bad.tif").read_bytes()[:5000])
    fails(capsys, 1, ["analyze", "bad.tif", *PLAIN], "bad.tif")


def test_frames_of_differing_size(work, capsys):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    Path("frames").mkdir()
    for t, side in enumerate((40, 40, 39)):
        image.fromarray(np.arange(side * 48, dtype=np.uint8).reshape(side, 48)).save(f"frames/{t}.png")
    fails(capsys, 1, ["analyze", "frames", *PLAIN], "39 x 48")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rate", "0.001"], "parameters; use a rate of at least"),
        (["--frames", "7:"], "selects none"),
        (["--crop", "0:99,:"], "leaves the frame"),
        (["--exclude", "mask.npy"], "a mask of the movie's size"),
        (["--out", "there"], "there exists"),
        (["--out", "movie.npy", "--overwrite"], "is a file"),
        (["--memory", "1kB"], "raise --memory"),
    ],
)
def test_bad_request(work, capsys, argv, says):
    need("tifffile")
    np.save("mask.npy", np.zeros((7, 7), np.uint8))
    Path("there").mkdir()
    fails(capsys, 1, ["analyze", "movie.npy", *PLAIN, *argv], says)


@pytest.mark.parametrize(
    ("truth", "argv", "says"),
    [
        (np.zeros((5, 40, 47), np.uint8), (), "5 x 40 x 48"),
        (np.zeros((5, 40, 48), np.uint8), (), "no label 2, only 0"),
        (np.full((5, 40, 48), 0.5), (), "fractions"),
        (np.full((4, 40, 48), 2, np.uint8), (), "one label per pixel"),
    ],
)
def test_bad_truth(work, capsys, truth, argv, says):
    np.save("labels.npy", truth)
    fails(capsys, 1, ["study", "movie.npy", *PLAIN, "--truth", "labels.npy", *argv], says)


def test_no_gpu_is_an_error_only_when_asked_for(work, capsys, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.backend.probe_gpu", lambda number=0: (False, "no driver"))
    monkeypatch.setattr(shared, "probe_gpu", lambda: (False, "no driver"))
    fails(capsys, 1, ["fit", "movie.npy", *FAST[:4], "--no-report", "--device", "gpu"], "no driver")
    ok("fit", "movie.npy", *FAST[:4], "--no-report")
    assert capsys.readouterr().err == "gmrm-gpu: computing on the CPU: no driver\n"
    ok("fit", "movie.npy", *FAST[:4], "--no-report", "--quiet", "--overwrite")
    assert capsys.readouterr().err == ""


def test_report_of_what_is_no_study(work, capsys):
    need("matplotlib", "jinja2")
    Path("empty").mkdir()
    fails(capsys, 1, ["report", "empty"], "not a finished study (it holds no study.json)", "a folder that study wrote")
    Path("fitted").mkdir()
    Path("fitted/analysis.json").write_text("{}")
    fails(capsys, 1, ["report", "fitted"], "it holds analysis.json, the result of another command")
    fails(capsys, 1, ["report", "absent"], "absent does not exist; give a folder that study wrote")
    fails(capsys, 1, ["report", "movie.npy"], "movie.npy is a file; give a folder")


def test_report_without_plotting_does_not_offer_an_option_it_lacks(work, capsys, monkeypatch):
    ok("study", "movie.npy", *FAST, "--rates", "0.5", "--replicates", "1", "--no-report", "--out", "done")
    capsys.readouterr()
    missing = MissingDependencyError("figures need matplotlib: pip install 'gmrm-gpu[plot]'")
    monkeypatch.setattr("gmrm_gpu.report.need_plot", explode(missing))
    assert main(["report", "done"]) == 1
    assert capsys.readouterr().err == f"gmrm-gpu: error: {missing}\n"
    assert not Path("done/report.html").exists()


def test_a_frame_that_does_not_exist(work, capsys):
    for frame in ("5", "-6"):
        fails(capsys, 1, ["fit", "movie.npy", f"--frame={frame}", "--no-report"], f"--frame {frame} does not exist")
    ok("fit", "movie.npy", *FAST[:4], "--frame=-1", "--no-report")


# ---------------------------------------------------------------- failure without loss


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (MemoryError("8 GB"), 1, "out of memory (8 GB); lower --memory"),
        (OSError(5, "Input/output error", "movie.npy"), 1, "Input/output error: movie.npy"),
        (ZeroDivisionError("over\ntwo lines"), 1, "ZeroDivisionError: over two lines (unexpected; --debug"),
    ],
)
def test_failure_is_one_line_and_leaves_no_folder(work, capsys, monkeypatch, error, code, says):
    need("tifffile")
    monkeypatch.setattr(commands, "analyze", explode(error))
    before = entries()
    assert main(["analyze", "movie.npy", *PLAIN]) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert entries() == before


def test_debug_shows_the_traceback(work, capsys, monkeypatch):
    need("tifffile")
    monkeypatch.setattr(commands, "analyze", explode(ZeroDivisionError("x")))
    assert main(["analyze", "movie.npy", *PLAIN, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_sigterm_leaves_no_folder(work, capsys, monkeypatch):
    need("tifffile")
    before, handler = entries(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(commands, "analyze", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["analyze", "movie.npy", *PLAIN]) == 143
    assert capsys.readouterr().err == "gmrm-gpu: terminated; nothing was written\n"
    assert entries() == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "gmrm_gpu", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(60)


def test_missing_extras_stop_before_the_work(work, capsys, monkeypatch):
    monkeypatch.setattr(commands, "analyze", explode(AssertionError("the work began")))
    monkeypatch.setattr(commands, "run_study", explode(AssertionError("the work began")))
    missing = MissingDependencyError("figures need matplotlib: pip install 'gmrm-gpu[plot]'")
    monkeypatch.setattr("gmrm_gpu.report.need_plot", explode(missing))
    for command in (["analyze", "movie.npy"], ["study", "movie.npy"], ["demo", "--quick"], ["fit", "movie.npy"]):
        if command[0] != "analyze" or pytest.importorskip("tifffile", reason="needs tifffile"):
            fails(capsys, 1, command, "pip install 'gmrm-gpu[plot]'", "--no-report")
    monkeypatch.setattr("gmrm_gpu.output.find_spec", lambda name: None)
    fails(capsys, 1, ["analyze", "movie.npy", *PLAIN], "pip install 'gmrm-gpu[tiff]'")
    fails(capsys, 1, ["simulate"], "movie.tif needs tifffile: pip install 'gmrm-gpu[tiff]'", "--format npy")


def test_output_is_not_written_over_the_input(work, capsys):
    need("tifffile")
    ok("simulate", "--size", "40x48x3", "--out", "sim")
    capsys.readouterr()
    argv = ["analyze", "sim/movie.tif", *PLAIN, "--out", "sim", "--overwrite"]
    fails(capsys, 1, argv, "holds the input movie.tif")
    assert entries("sim") == ["movie.tif", "simulation.json", "truth.tif"]


def test_a_movie_no_frame_of_which_can_be_fitted(work, capsys, monkeypatch):
    need("tifffile")
    real = commands.analyze

    def failing(*args, **kwargs):
        result = real(*args, **kwargs)
        result.status[:] = 3
        return result

    monkeypatch.setattr(commands, "analyze", failing)
    fails(capsys, 1, ["analyze", "movie.npy", *PLAIN], "no frame could be fitted (5 degenerate)")
