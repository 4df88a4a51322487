"""Studies that are killed, through the command line: they go on, and end as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forks
from scale import cases

from gmrm_gpu.study.store import ABSENT, WHOLE, Store, read_plan

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")

KILLED = -9
SETTINGS = ["--components", "2", "--trend", "none", "--radius", "1", "--engine", "generic", "--device", "cpu"]
STUDY = ["study", "movie.npy", *SETTINGS, "--no-report", "--out", "run"]
WHOLE_STUDY = [*STUDY, "--rates", "0.2", "--replicates", "4"]
SMALLER = [*STUDY, "--rates", "0.2", "--replicates", "2"]
OTHER = [*WHOLE_STUDY, "--seed", "5"]
START: dict[str, tuple[list[str], list[str]]] = {
    # what is there before; what is killed first
    "new": ([], WHOLE_STUDY),
    "extended": (SMALLER, [*WHOLE_STUDY, "--resume"]),
    "replaced": (OTHER, [*WHOLE_STUDY, "--overwrite"]),
}
RESULTS = ("replicates.npz", "replicates_movie.npz", "examples.npz", "examples_movie.npz", "curves.csv", "table1.csv")


@dataclass
class Reference:
    """A run of a scenario that nothing happened to."""

    before: Path
    shards: dict[str, bytes]
    results: dict[str, bytes]
    n_computed: int
    n_changes: int
    seconds: float


def shard_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}


def result_files(folder: Path) -> dict[str, bytes]:
    """All numbers of a study, and its settings."""
    told = json.loads((folder / "study.json").read_text())
    del told["provenance"]
    return {name: (folder / name).read_bytes() for name in RESULTS} | {"study.json": json.dumps(told).encode()}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks(small=2 * 32 * 3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def references(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    out = {}
    for name, (before, first) in START.items():
        folder = tmp_path_factory.mktemp(name) / "before"
        folder.mkdir()
        pixels = np.random.default_rng(4).normal(90, 9, (3, 16, 20)).astype(np.uint8)
        pixels[:, 4:10, 5:12] += 70
        np.save(folder / "movie.npy", pixels)
        if before:
            assert forks.run(folder, before)["code"] == 0
        after = folder.with_name("after")
        shutil.copytree(folder, after)
        told = forks.run(after, first)
        assert (told["code"], told["errors"]) == (0, told["errors"]), told["errors"]
        assert sorted(path.name for path in after.iterdir()) == ["movie.npy", "run"]
        found = shard_files(after / "run"), result_files(after / "run")
        out[name] = Reference(folder, *found, len(told["computed"]), told["changes"], told["seconds"])
    assert out["new"].shards == out["extended"].shards == out["replaced"].shards
    assert out["new"].results == out["extended"].results == out["replaced"].results
    assert 0 < out["extended"].n_computed < out["new"].n_computed == len(out["new"].shards) // 2
    return out


class Killed:
    """A study that is killed and goes on; each step checks what is on the disk."""

    def __init__(self, forks: Forks, scenario: str, reference: Reference, folder: Path) -> None:
        self.forks, self.reference, self.folder = forks, reference, folder
        self.arguments = START[scenario][1]
        self.n_kills = self.n_computed = 0
        shutil.copytree(reference.before, folder)
        self.old = shard_files(folder / "run") if (folder / "run").exists() else None

    def run(self, **kill: Any) -> bool:
        """Whether the study has ended; otherwise it was killed."""
        told = self.forks.run(self.folder, self.arguments, **kill)
        if told["code"] == 1 and "start afresh with --overwrite" in told["errors"]:
            # Killed before there was anything of the new study: --resume means the old one.
            assert "--overwrite" in START["replaced"][1]
            self.arguments = START["replaced"][1]
            told = self.forks.run(self.folder, self.arguments, **kill)
        if "--overwrite" in self.arguments:
            self.n_computed = 0
        self.n_computed += len(told["computed"])
        if told["code"] != KILLED:
            assert told["code"] == 0, told["errors"]
            self.check_end()
            return True
        self.n_kills += 1
        self.arguments = [*WHOLE_STUDY, "--resume"]
        self.check_disk()
        return False

    def check_disk(self) -> None:
        """At most one shard is half-written; a finished study that is there is whole."""
        part, run = self.folder / "run.part", self.folder / "run"
        if (part / "shards" / "plan.json").exists():
            plan = read_plan(part / "shards")
            store = Store(part / "shards", plan["fingerprint"])
            names = {path.stem for path in (part / "shards").glob("*-*.*") if not path.name.startswith(".")}
            states = [store.state(Shard(name)) for name in names]
            assert sum(state not in (WHOLE, ABSENT) for state in states) <= 1, states
        if run.exists():
            assert shard_files(run) in (self.old, self.reference.shards)
            assert (run / "study.json").exists()

    def check_end(self) -> None:
        """The same bytes as without kills, nothing left over, and at most one shard computed again a kill."""
        assert sorted(path.name for path in self.folder.iterdir()) == ["movie.npy", "run"]
        assert shard_files(self.folder / "run") == self.reference.shards
        assert result_files(self.folder / "run") == self.reference.results
        assert self.n_computed <= self.reference.n_computed + self.n_kills
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Shard:
    name: str


def test_a_study_killed_at_any_time_goes_on(
    forks: Forks, references: dict[str, Reference], tmp_path: Path, counted: Callable[[str, int], None]
) -> None:
    """Killed again and again, until it ends."""
    rng, wanted, n = random.Random(6), cases(20, 200), 0
    while n < wanted:
        scenario = rng.choice([*START, "new"])
        study = Killed(forks, scenario, references[scenario], tmp_path / "run")
        while not study.run(after_s=rng.uniform(0, references[scenario].seconds) if n < wanted else None):
            n += 1
    counted("SIGKILL at a random time, then --resume", n)


@pytest.mark.parametrize("scenario", START)
def test_a_study_killed_at_any_change_of_a_file_goes_on(
    forks: Forks,
    references: dict[str, Reference],
    tmp_path: Path,
    scenario: str,
    counted: Callable[[str, int], None],
) -> None:
    """Just before a file is opened for writing, renamed or removed, or a folder made."""
    n_changes = references[scenario].n_changes
    drawn = random.Random(scenario).sample(range(n_changes), min(n_changes, cases(1, 100)))
    # In 10 shards of a finished study are being copied, in the last few the folders take their names.
    places = sorted({1, 10, n_changes - 3, n_changes - 1, *drawn})
    for at in places:
        study = Killed(forks, scenario, references[scenario], tmp_path / "run")
        assert not study.run(at=at), at
        assert study.run()
    counted("SIGKILL at a change of a file, then --resume", len(places))


def test_a_program_killed_after_its_first_shard_goes_on(
    tmp_path: Path, references: dict[str, Reference], counted: Callable[[str, int], None]
) -> None:
    """The command as a user gives it, in a process of its own."""
    shutil.copy(references["new"].before / "movie.npy", tmp_path)
    command = [sys.executable, "-m", "gmrm_gpu", *STUDY, "--rates", "0.2,0.1", "--replicates", "3,3", "--quiet"]
    for _ in range(5):  # on a busy machine it may end before it is seen at work
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as first:
            while not list(tmp_path.glob("run.part/shards/*-*.json")) and first.poll() is None:
                time.sleep(0.002)
            first.kill()
        if not (tmp_path / "run").exists():
            break
    assert first.returncode == KILLED
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run.part" / "shards").glob("*-*.npz")}
    assert 1 <= len(kept) < 6
    done = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "shards").glob("*-*.npz")}
    assert len(found) == 6
    # Those that were there have not been written again, but for one without its record.
    assert len(kept.items() - found.items()) <= 1
    counted("SIGKILL at a random time, then --resume", 1)
