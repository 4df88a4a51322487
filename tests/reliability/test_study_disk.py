"""A study on a disk that fails at any call, through the command line: one line, and --resume ends as if it had not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk import ERRORS, SHORT, Disk
from scale import LONG, cases

from gmrm_gpu import durable
from gmrm_gpu.cli import main
from gmrm_gpu.study.shards import SHARD_SAMPLES

FAULTS = [*ERRORS, *SHORT]
STUDY = (
    "study movie.npy --components 2 --trend none --radius 1 --engine generic --device cpu --rates 0.2 --replicates 3"
)
STUDY += " --method paper --no-report --quiet --out run"


def files(folder: Path) -> dict[str, bytes]:
    held = [path for path in folder.rglob("*") if path.is_file() and path.name != "study.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in held}


def test_the_disk_fails_at_any_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    counted: Callable[[str, int], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHARD_SAMPLES, "numpy", 2 * 64 * 3)
    pixels = np.random.default_rng(4).normal(90, 9, (3, 16, 20)).astype(np.uint8)
    pixels[:, 4:10, 5:12] += 70
    np.save("movie.npy", pixels)

    def run(disk: Disk, *flags: str) -> int:
        monkeypatch.setattr(durable, "os", disk)
        capsys.readouterr()
        return main([*STUDY.split(), *flags])

    healthy = Disk()
    assert run(healthy) == 0
    good, n_calls = files(Path("run")), len(healthy.calls)
    places = range(n_calls) if LONG else random.Random(1).sample(range(n_calls), cases(8, 0))
    for i, at in enumerate(places):
        shutil.rmtree("run", ignore_errors=True)
        fault = FAULTS[i % len(FAULTS)]
        code = run(Disk(at, fault))
        if code != 0:
            line = capsys.readouterr().err
            assert (code, line.count("\n")) == (1, 1), line
            assert line.startswith("gmrm-gpu: error: cannot "), line
            assert run(Disk(), "--resume") == 0, (at, fault)
        else:
            assert fault in SHORT, (at, fault)
        assert files(Path("run")) == good, (at, fault)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["movie.npy", "run"], (at, fault)
    counted("n-th write, fsync or rename of a study fails", len(places))
