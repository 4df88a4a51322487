"""What the tests of the command line share."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from gmrm_gpu import simulate
from gmrm_gpu.cli import main
from gmrm_gpu.synthetic import Simulation

FAST = ("--components", "3", "--trend", "linear", "--radius", "3", "--gamma", "0.2")
PLAIN = (*FAST, "--no-report", "--device", "cpu")


@lru_cache
def movie_with_truth() -> Simulation:
    """Five frames of 40 x 48."""
    return simulate("battery", shape=(40, 48), n_frames=5, seed=2)


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `folder` the current one, with movie.npy and truth.npy in it."""
    monkeypatch.chdir(folder)
    simulation = movie_with_truth()
    np.save("movie.npy", np.stack([simulation.movie.frame(t) for t in range(5)]))
    np.save("truth.npy", simulation.truth)
    return folder


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def entries(folder="."):
    return sorted(p.name for p in Path(folder).iterdir())


def ok(*argv):
    assert main(argv) == 0


def need(*modules):
    for module in modules:
        pytest.importorskip(module, reason=f"needs {module}")


def explode(error):
    """A function that raises `error`, whatever it is called with."""

    def raise_it(*args, **kwargs):
        raise error

    return raise_it


def fails(capsys, code, argv, *says):
    """The command fails with `code`, one line on stderr and nothing written."""
    before = entries()
    assert main(argv) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("gmrm-gpu: error: ")
    for text in says:
        assert text in lines[0]
    assert "Traceback" not in captured.err + captured.out
    assert entries() == before
    return lines[0]
