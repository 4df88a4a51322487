"""Studies that are kept on the disk: resumed, extended, refused, told from another terminal."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu import folders
from gmrm_gpu.claim import claim, holder
from gmrm_gpu.cli import main
from gmrm_gpu.errors import ConfigError, InputError, MemoryBudgetError, OutputError
from gmrm_gpu.folders import resumable_folder
from gmrm_gpu.frames import ArrayMovie
from gmrm_gpu.study import run_study
from gmrm_gpu.study.identity import fingerprint, identity, movie_digest
from gmrm_gpu.study.job import Workplace
from gmrm_gpu.study.shards import SHARD_SAMPLES, plan_shards

PIXELS = np.random.default_rng(4).normal(90, 9, (4, 22, 31)).astype(np.uint8)
PIXELS[:, 5:15, 8:20] += 70
ANALYSIS = gg.AnalysisConfig(
    gg.MixtureConfig(n_components=2, trend="linear"), compute=gg.ComputeConfig(device="cpu", engine="generic")
)
CONFIG = gg.StudyConfig(ANALYSIS, rates=(0.2, 0.1), n_replicates=(5, 12))
FLAGS = ["--components", "2", "--trend", "linear", "--rates", "0.2,0.1", "--replicates", "5,12", "--engine", "generic"]
FLAGS += ["--method", "paper", "--no-report"]


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of four replicates at 10 %, of two at 20 %."""
    monkeypatch.setitem(SHARD_SAMPLES, "numpy", 4 * 68 * 4)


@pytest.fixture
def computed(monkeypatch):
    """Names of the shards that are computed."""
    names, compute = [], Workplace.compute
    monkeypatch.setattr(
        Workplace, "compute", lambda self, shard, **more: names.append(shard.name) or compute(self, shard, **more)
    )
    return names


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def same(a: gg.StudyResult, b: gg.StudyResult) -> bool:
    return all(
        np.array_equal(x.shares[rate], y.shares[rate]) and np.array_equal(x.reference, y.reference)
        for x, y in zip(a.every, b.every, strict=True)
        for rate in x.rates
    )


def test_shards_cover_every_replicate_once_and_those_of_a_smaller_study_are_among_them(small_shards):
    def plan(*n_replicates):
        return plan_shards(
            replace(CONFIG, n_replicates=n_replicates, methods=("paper",)), 4, {0.2: 136, 0.1: 68}.get, "numpy"
        )

    shards = plan(5, 12)
    assert [(s.rate, s.start, s.stop) for s in shards if not s.reference] == [
        *((0.2, 0, 2), (0.2, 2, 4), (0.2, 4, 5)),
        *((0.1, 0, 4), (0.1, 4, 8), (0.1, 8, 12)),
    ]
    assert shards[0].name == "paper-reference-0.2"
    assert len({s.name for s in shards}) == len(shards)
    assert set(plan(4, 8)) < set(shards)


def test_a_shard_of_the_method_movie_has_a_tenth_of_the_replicates():
    shards = plan_shards(
        replace(CONFIG, n_replicates=(40, 40)), 1000, lambda rate: SHARD_SAMPLES["cupy"] // 20_000, "cupy"
    )
    sizes = {(s.method, s.stop - s.start) for s in shards if not s.reference}
    assert sizes == {("paper", 20), ("movie", 2)}


def test_a_kept_study_is_that_of_memory_and_nothing_is_computed_twice(tmp_path, small_shards, computed):
    alone = run_study(PIXELS, CONFIG)
    n = len(computed)
    first = run_study(PIXELS, CONFIG, store=tmp_path)
    assert len(computed) == 2 * n == 2 * len(set(computed))
    before = files(tmp_path)
    again = run_study(PIXELS, CONFIG, store=tmp_path)
    assert len(computed) == 2 * n
    assert files(tmp_path) == before
    assert same(alone, first)
    assert same(first, again)
    assert again.provenance["n_shards_of_earlier_runs"] == n == again.provenance["n_shards"]
    assert again.provenance["foreground"] == first.provenance["foreground"]
    assert np.array_equal(again.examples.labels, first.examples.labels)


def test_more_replicates_need_only_their_own_shards(tmp_path, small_shards, computed):
    run_study(PIXELS, replace(CONFIG, n_replicates=(5, 10)), store=tmp_path / "one")
    computed.clear()
    more = replace(CONFIG, n_replicates=(5, 18))
    extended = run_study(PIXELS, more, store=tmp_path / "one")
    assert all("0.1" in name for name in computed)
    assert same(extended, run_study(PIXELS, more, store=tmp_path / "two"))
    assert files(tmp_path / "one") == files(tmp_path / "two")  # also where fewer replicates had a shorter last shard


@pytest.mark.parametrize(
    ("movie", "config", "told"),
    [
        (PIXELS + 1, CONFIG, "movie.pixels is another one"),
        (PIXELS[:3], CONFIG, "movie.shape was"),
        (PIXELS, replace(CONFIG, analysis=ANALYSIS.with_rate(0.5)), None),
        (
            PIXELS,
            replace(CONFIG, analysis=replace(ANALYSIS, sampling=gg.SamplingConfig(seed=1))),
            "sampling.seed was 0",
        ),
    ],
)
def test_another_movie_or_other_settings_are_refused_and_change_nothing(tmp_path, movie, config, told, small_shards):
    run_study(PIXELS, CONFIG, store=tmp_path)
    before = files(tmp_path)
    if told is None:  # a study has rates of its own
        run_study(movie, config, store=tmp_path)
    else:
        with pytest.raises(InputError, match=f"was begun otherwise: .*{told}"):
            run_study(movie, config, store=tmp_path)
    assert files(tmp_path) == before


def test_the_digest_sees_all_that_an_analysis_sees_and_no_name():
    def digest(pixels=PIXELS, **known):
        return movie_digest(ArrayMovie(pixels, **known))

    mask = np.ones((22, 31), bool)
    mask[0, 0] = False
    others = [
        digest(PIXELS.astype(np.uint16)),
        digest(PIXELS[::-1]),
        digest(PIXELS.reshape(4, 31, 22)),
        digest(valid=mask),
        digest(frame_numbers=np.arange(1, 5)),
        digest(pixel_size_um=0.1),
        digest(frame_time_s=0.1),
    ]
    assert len({digest(), *others}) == 8
    assert digest(name="moved") == digest()


def test_an_identity_does_not_know_memory_threads_or_the_number_of_replicates():
    movie = ArrayMovie(PIXELS)

    def mark(config):
        return fingerprint(identity(movie, config, {"paper": "generic"}, "numpy"))

    compute = gg.ComputeConfig(device="cpu", engine="generic", memory_bytes=10**9, n_threads=3)
    other = replace(CONFIG, analysis=replace(ANALYSIS, compute=compute), n_replicates=(50, 60), rates=(0.3, 0.1))
    assert mark(other) == mark(CONFIG)
    double = replace(ANALYSIS, compute=replace(ANALYSIS.compute, dtype="float64"))
    assert mark(replace(CONFIG, analysis=double)) != mark(CONFIG)


def test_a_folder_stays_in_part_until_it_is_complete(tmp_path):
    def fail(folder):
        (folder / "shards").mkdir()
        for name in ("shards/a.npz", "shards/a.json", "study.json"):
            (folder / name).touch()
        raise RuntimeError

    with pytest.raises(RuntimeError) as raised, resumable_folder(tmp_path / "run") as folder:
        fail(folder)
    assert raised.value.__notes__ == ["1 finished shard is in run.part; the same command with --resume goes on"]
    assert files(tmp_path).keys() == {"run.part/shards/a.npz", "run.part/shards/a.json", "run.part/study.json"}
    with pytest.raises(OutputError, match=r"run\.part is an unfinished study"), resumable_folder(tmp_path / "run"):
        pass
    with resumable_folder(tmp_path / "run", resume=True) as folder:
        assert {path.name for path in folder.iterdir()} == {"shards", "lock"}
        (folder / "study.json").touch()
    assert files(tmp_path).keys() == {"run/shards/a.npz", "run/shards/a.json", "run/study.json"}


def test_a_folder_without_shards_does_not_stay(tmp_path):
    with pytest.raises(RuntimeError), resumable_folder(tmp_path / "a" / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_of_results_that_it_replaced_goes(tmp_path):
    for name in (".run.12.old", ".run.b.12.old", ".run.12b.old"):
        (tmp_path / name).mkdir()
    with resumable_folder(tmp_path / "run") as folder:
        (folder / "study.json").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".run.b.12.old", ".run.12b.old"}


def test_folders_that_may_not_be_touched(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="give one of them"), resumable_folder(run, resume=True, overwrite=True):
        pass
    foreign = tmp_path / "run.part"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    for flags in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match=r"thesis\.tex"), resumable_folder(run, **flags):
            pass
    assert (foreign / "thesis.tex").exists()
    (foreign / "thesis.tex").unlink()
    (foreign / "shards").mkdir()
    (foreign / "shards" / "a.npz").touch()
    with claim(foreign):  # another run, even one without a finished shard
        for flags in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="going on"), resumable_folder(run, **flags):
                pass
    assert (foreign / "shards" / "a.npz").exists()


def test_a_finished_study_without_shards_cannot_be_resumed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.json").touch()
    with pytest.raises(OutputError, match="holds no shards"), resumable_folder(tmp_path / "run", resume=True):
        pass


@pytest.fixture
def movie_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("movie.npy", PIXELS)
    return "movie.npy"


def test_a_study_interrupted_goes_on_and_ends_as_if_nothing_had_happened(
    movie_file, monkeypatch, small_shards, computed, capsys
):
    assert main(["study", movie_file, *FLAGS, "--out", "whole"]) == 0
    whole, compute = files(Path("whole/shards")), Workplace.compute
    computed.clear()

    def interrupt(self, shard, **more):
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(self, shard, **more)

    monkeypatch.setattr(Workplace, "compute", interrupt)
    assert main(["study", movie_file, *FLAGS, "--out", "run"]) == 130
    assert "interrupted; 3 finished shards are in run.part; the same command with --resume" in capsys.readouterr().err
    assert main(["status", "run"]) == 0
    assert "nobody works on it: 3 of 7 shards done" in capsys.readouterr().out
    assert main(["study", movie_file, *FLAGS, "--out", "run"]) == 1
    monkeypatch.setattr(Workplace, "compute", compute)
    computed.clear()
    assert main(["study", movie_file, *FLAGS, "--out", "run", "--resume"]) == 0
    assert len(computed) == 4
    assert files(Path("run/shards")) == whole
    assert Path("run/replicates.npz").read_bytes() == Path("whole/replicates.npz").read_bytes()
    assert not Path("run.part").exists()


def test_a_finished_study_is_extended_and_mended(movie_file, small_shards, computed, capsys):
    assert main(["study", movie_file, *FLAGS, "--out", "run", "--resume"]) == 0  # there is nothing yet: it begins
    computed.clear()
    shard = Path("run/shards/paper-0.1-000000-000004.npz")
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    assert main(["status", "run", "--check"]) == 1
    told = capsys.readouterr()
    assert "6 shards as written, 1 damaged" in told.out
    assert "1 shard of run cannot be used" in told.err
    more = [*FLAGS[:7], "5,13", *FLAGS[8:]]
    assert main(["study", movie_file, *more, "--out", "run", "--resume"]) == 0
    assert computed == ["paper-0.1-000000-000004", "paper-0.1-000012-000013"]
    assert shard.read_bytes() == data
    assert "damaged" in capsys.readouterr().err
    assert gg.StudyResult.load("run").shares[0.1].shape[0] == 13


def test_a_study_resumed_with_fewer_replicates_loses_none(movie_file, small_shards, computed, capsys):
    assert main(["study", movie_file, *FLAGS, "--out", "run"]) == 0
    whole = files(Path("run/shards"))
    fewer = [*FLAGS[:7], "5,6", *FLAGS[8:]]
    assert main(["study", movie_file, *fewer, "--out", "run", "--resume"]) == 0
    assert "stay in shards/, unused: 2" in capsys.readouterr().err
    assert gg.StudyResult.load("run").shares[0.1].shape[0] == 6
    computed.clear()
    assert main(["study", movie_file, *FLAGS, "--out", "run", "--resume"]) == 0
    assert computed == []
    assert "unused" not in capsys.readouterr().err
    assert files(Path("run/shards")) == whole  # the shard of replicates 4 and 5 was part of one of these


def test_a_folder_that_appears_while_a_study_goes_on_is_not_replaced(tmp_path):
    run = tmp_path / "run"

    def study():
        with resumable_folder(run, resume=True) as folder:
            (folder / "study.json").touch()
            run.mkdir()
            (run / "analysis.json").touch()

    with pytest.raises(OutputError, match="results are in run-2"):
        study()
    assert (run / "analysis.json").exists()
    assert (tmp_path / "run-2" / "study.json").exists()


def test_a_study_is_held_until_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(folders, "sync_tree", lambda folder: held.append(holder(folder)))
    with resumable_folder(tmp_path / "run") as folder:
        (folder / "study.json").touch()
    assert [found.pid for found in held] == [os.getpid()]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["study.json"]


def test_status_tells_who_works_and_how_long_it_will_take(movie_file, small_shards, capsys, monkeypatch):
    assert main(["study", movie_file, *FLAGS, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["status", "run"]) == 0
    table, line = capsys.readouterr().out.rstrip().rsplit("\n", 1)
    assert [row.split() for row in table.splitlines()[2:]] == [
        ["paper", "20", "%", "3", "of", "3", "5", "of", "5"],
        ["paper", "10", "%", "3", "of", "3", "12", "of", "12"],
    ]
    assert line == "finished: 7 of 7 shards done, 100 % of the work; results in run"
    Path("run").rename("run.part")
    Path("run.part/study.json").unlink()
    now = time.time()
    for path in Path("run.part/shards").glob("*.json"):
        os.utime(path, (now - 900, now - 900))  # of an earlier run
    with claim("run.part"):
        for path in Path("run.part/shards").glob("paper-0.1-*.json"):
            path.unlink()
        os.utime("run.part/shards/plan.json", (now - 100, now - 100))
        os.utime("run.part/shards/paper-reference-0.2.json", (now, now))
        assert main(["status", "run"]) == 0
        assert " left (process " not in capsys.readouterr().out  # by the reference alone nothing can be said
        os.utime("run.part/shards/paper-0.2-000000-000002.json", (now, now))
        assert main(["status", "run"]) == 0
    out = capsys.readouterr().out
    assert "running: 4 of 7 shards done" in out
    assert " left (process " in out


def test_status_of_a_study_that_has_only_begun(tmp_path, capsys):
    for name in ("run", "run.part"):
        with resumable_folder(tmp_path / "run"):
            assert main(["status", str(tmp_path / name), "--check"]) == 0
            (tmp_path / "run.part" / "study.json").touch()
        assert capsys.readouterr().out.startswith("running: it begins with reading the movie (process ")
        (tmp_path / "run" / "study.json").unlink()
        (tmp_path / "run").rmdir()


def test_status_where_one_stands_and_through_a_link(movie_file, capsys, monkeypatch):
    assert main(["study", movie_file, *FLAGS, "--out", "run"]) == 0
    Path("link").symlink_to("run")
    for name in ("run", "link"):
        monkeypatch.chdir(name)
        assert main(["status", ".", "--check"]) == 0
        monkeypatch.chdir("..")
    Path("run.part").mkdir()
    with claim("run.part"):  # it is being extended
        capsys.readouterr()
        assert main(["status", "link"]) == 0
    assert "running" in capsys.readouterr().out
    for gone in Path("run/shards").glob("*-reference-*"):
        gone.unlink()
    assert main(["status", "run", "--check"]) == 1
    assert "shard paper-reference-0.2 is absent" in capsys.readouterr().out


def test_status_of_what_is_no_study(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "holds no shards of a study" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "gone")]) == 1
    assert "is not there" in capsys.readouterr().err


def test_records_say_what_computed_a_shard_and_no_time(tmp_path):
    run_study(PIXELS, CONFIG, store=tmp_path)
    for path in tmp_path.glob("*-*.json"):
        record = json.loads(path.read_text())
        assert (record["device"], record["engine"], record["versions"]["numpy"]) == ("numpy", "generic", np.__version__)
        assert not [name for name in record if "time" in name or "wall" in name]


def test_shards_of_two_versions_are_told(tmp_path, monkeypatch, small_shards):
    run_study(PIXELS, replace(CONFIG, n_replicates=(5, 8)), store=tmp_path)
    monkeypatch.setattr("gmrm_gpu.study.job.version", lambda name: "9.9")
    found = run_study(PIXELS, CONFIG, store=tmp_path)
    assert "numpy 9.9 and" in " ".join(found.provenance["warnings"]) or f"numpy {np.__version__} and 9.9" in " ".join(
        found.provenance["warnings"]
    )


def test_who_only_sends_shards_away_needs_no_memory_for_them():
    tiny = replace(CONFIG, analysis=replace(ANALYSIS, compute=replace(ANALYSIS.compute, memory_bytes=1000)))
    with pytest.raises(MemoryBudgetError):
        Workplace(ArrayMovie(PIXELS), tiny)
    shards = Workplace(ArrayMovie(PIXELS), tiny, computes=False).shards("numpy")
    assert shards == Workplace(ArrayMovie(PIXELS), CONFIG).shards("numpy")
