"""Every benchmark runs once at toy size, so that none rots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_benchmarks_run_at_toy_size():
    files = sorted(str(path) for path in FOLDER.glob("bench_*.py"))
    assert files
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-disable", *files]
    environment = os.environ | {"GMRM_BENCH_TOY": "1"}
    # Compiling the CPU engine, where no earlier test did, takes most of it.
    done = subprocess.run(command, env=environment, cwd=FOLDER, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize("words", ["null --k 1 --n 2 --m 60 --bootstrap 3", "movies --n 1 --rate 0.05"])
def test_the_choice_of_the_model_is_checked_at_toy_size(words):
    command = [sys.executable, "selection.py", *words.split()]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "rejected at 5 %" in done.stdout or "failures 0" in done.stdout


def test_planning_is_checked_at_toy_size():
    command = [sys.executable, "planning.py", "--quick", "--draws", "4"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[1].split()
    assert row[:4] == ["easy", "0.03", "1", "0"]
    assert 0.85 < float(row[8]) <= 1


def test_accuracy_is_measured_at_toy_size(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    for words in (["--quick"], ["readme"], ["targets"]):
        command = [sys.executable, "accuracy.py", *words, "--json", str(rows)]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    assert "battery easy 12 frames: largest bias" in done.stdout
    found = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    assert {row["what"] for row in found} == {"growth", "labels", "masks"}
    assert {row["method"] for row in found if row["what"] == "growth"} == {"movie", "paper"}
    assert all(row["label_accuracy"] > 0.99 for row in found if row.get("program") == "movie")
