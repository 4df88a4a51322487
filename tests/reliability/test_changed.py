"""Settings or a movie changed under ``--resume``: each is refused with what has changed, and nothing is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmrm_gpu.cli import main
from gmrm_gpu.study.job import Workplace
from gmrm_gpu.study.shards import SHARD_SAMPLES

PIXELS = np.random.default_rng(4).normal(90, 9, (3, 16, 20)).astype(np.uint8)
PIXELS[:, 4:10, 5:12] += 70
SETTINGS = "--components 2 --trend none --engine generic --device cpu --rates 0.2 --replicates 2 --seed 3"
# Flags -> what the message names.
CHANGED = {
    "--components 3": "settings.mixture.n_components was 2, is 3",
    "--trend linear": "settings.mixture.trend was 'none', is 'linear'",
    "--trend-prior 0.2 --trend linear": "settings.mixture.trend_prior was None, is 0.2",
    "--schedule reference": "settings.mixture.schedule was 'fast', is 'reference'",
    "--histogram": "settings.mixture.histogram was False, is True",
    "--starts quantile": "settings.mixture.starts was ",
    "--tol 1e-6": "settings.mixture.tol was 1e-08, is 1e-06",
    "--drift 0.5": "settings.mixture.drift was 1.0, is 0.5",
    "--max-iter 50": "settings.mixture.max_iter was 2000, is 50",
    "--phases darkest": "settings.phases.phases was None, is 'darkest'",
    "--contrast 3": "settings.phases.contrast was 2.5, is 3.0",
    "--polarity dark": "settings.phases.polarity was 'bright', is 'dark'",
    "--metric l1": "settings.correction.metric was 'l2', is 'l1'",
    "--radius 2": "settings.correction.radius was None, is 2",
    "--gamma 0.5": "settings.correction.gamma was 0.4, is 0.5",
    "--window symmetric": "settings.correction.window was 'past', is 'symmetric'",
    "--sides both": "settings.correction.sides was 'foreground', is 'both'",
    "--time-scale 2": "settings.correction.time_scale was 1.0, is 2.0",
    "--scheme bernoulli": "settings.sampling.scheme was 'fixed', is 'bernoulli'",
    "--line-length 8": "settings.sampling.line_length was 32, is 8",
    "--seed 4": "settings.sampling.seed was 3, is 4",
    "--estimator posterior": "settings.quantity.estimator was ",
    "--interval 0.9": "settings.quantity.interval was 0.8, is 0.9",
    "--pixel-size 5nm": "settings.quantity.pixel_size_um was None, is 0.005",
    "--thickness 0.5um": "settings.quantity.thickness_um was None, is 0.5",
    "--frame-time 0.5s": "settings.quantity.frame_time_s was None, is 0.5",
    "--geometry revolution --pixel-size 5nm": "settings.quantity.geometry was 'slab', is 'revolution'",
    "--dtype float64": "dtype was 'float32', is 'float64'",
    "--frames 0:2": "movie.shape was [3, 16, 20], is [2, 16, 20]",
    "--crop 0:16,0:18": "movie.shape was [3, 16, 20], is [3, 16, 18]",
    "--exclude mask.npy": "movie.pixels is another one",
    "--clip 0,100": "movie.pixels is another one",
}


def one_pixel(pixels: np.ndarray) -> np.ndarray:
    pixels[2, 3, 4] ^= 1
    return pixels


MOVIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "one bit of one pixel": (one_pixel, "movie.pixels is another one"),
    "frames in another order": (lambda pixels: pixels[::-1], "movie.pixels is another one"),
    "a frame more": (
        lambda pixels: np.concatenate([pixels, pixels[:1]]),
        "movie.shape was [3, 16, 20], is [4, 16, 20]",
    ),
    "another type": (lambda pixels: pixels.astype(np.uint16), "movie.dtype was 'uint8', is 'uint16'"),
    "turned": (lambda pixels: pixels.transpose(0, 2, 1), "movie.shape was [3, 16, 20], is [3, 20, 16]"),
}


def study(*flags: str, movie: str = "movie.npy") -> list[str]:
    """The command; a flag given twice counts as it is given last."""
    return ["study", movie, "--no-report", *SETTINGS.split(), *flags]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, and the same study unfinished."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(SHARD_SAMPLES, "numpy", 2 * 32 * 3)
        np.save("movie.npy", PIXELS)
        mask = np.zeros((16, 20), np.uint8)
        mask[0, :3] = 1
        np.save("mask.npy", mask)
        assert main([*study(), "--out", "finished"]) == 0
        Path("begun.part").mkdir()
        shutil.copytree("finished/shards", "begun.part/shards")
        for path in Path("begun.part/shards").glob("movie-0.2-*"):
            path.unlink()
    return folder


@pytest.fixture
def here(begun: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(begun)
    monkeypatch.setitem(SHARD_SAMPLES, "numpy", 2 * 32 * 3)
    return begun


def refuse(here: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both studies are refused with one line that says what has changed, and nothing is written."""
    before = files(here)
    capsys.readouterr()
    for out in ("finished", "begun"):
        assert main([*study(*flags), "--out", out, "--resume", "--quiet"]) == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "was begun otherwise: " in line
        assert told in line
        assert "give what it was begun with, choose another --out, or start afresh with --overwrite" in line
        assert "go on" not in line.partition("otherwise")[2]
        assert files(here) == before


@pytest.mark.parametrize("flags", CHANGED)
def test_a_changed_setting_is_refused(
    here: Path, flags: str, capsys: pytest.CaptureFixture[str], counted: Callable[[str, int], None]
) -> None:
    refuse(here, flags.split(), CHANGED[flags], capsys)
    counted("settings or input changed under --resume", 1)


@pytest.mark.parametrize("change", MOVIES)
def test_a_changed_movie_is_refused(
    here: Path, change: str, capsys: pytest.CaptureFixture[str], counted: Callable[[str, int], None]
) -> None:
    changed, told = MOVIES[change]
    try:
        np.save("movie.npy", changed(PIXELS.copy()))
        refuse(here, [], told, capsys)
    finally:
        np.save("movie.npy", PIXELS)
    counted("settings or input changed under --resume", 1)


def test_another_engine_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba", reason="the compiled engine needs numba")
    refuse(here, ["--engine", "compiled"], "engine.paper was 'generic', is 'compiled'", capsys)


def test_what_changes_no_bit_is_no_change(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Threads, memory, more replicates, a movie of another name and format: those shards are used."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite("moved.tif", PIXELS, photometric="minisblack")
    shutil.copytree("finished", tmp_path / "run")
    before = {name: data for name, (data, _) in files(tmp_path / "run" / "shards").items() if "plan" not in name}
    flags = ["--threads", "2", "--memory", "1GB", "--replicates", "3", "--out", str(tmp_path / "run"), "--resume"]
    assert main(study(*flags, movie="moved.tif")) == 0
    told = capsys.readouterr()
    assert "6 of 8 shards were done already" in told.err
    after = {name: data for name, (data, _) in files(tmp_path / "run" / "shards").items() if "plan" not in name}
    assert after.items() > before.items()


@pytest.mark.parametrize("flags", ["", "--seed 4"])
def test_without_its_plan_a_study_mixes_nothing(here: Path, tmp_path: Path, flags: str) -> None:
    """The shards tell themselves which study they are of: they are used, or set aside."""
    shutil.copytree("begun.part", tmp_path / "run.part")
    (tmp_path / "run.part" / "shards" / "plan.json").write_bytes(b"{")
    kept = {path.name for path in (tmp_path / "run.part" / "shards").glob("*-*")}
    assert main(["status", str(tmp_path / "run")]) == 1
    assert main([*study(*flags.split()), "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert main([*study(*flags.split()), "--out", str(tmp_path / "alone")]) == 0
    shards = {path.name: path.read_bytes() for path in (tmp_path / "run" / "shards").iterdir() if path.is_file()}
    assert shards == {path.name: path.read_bytes() for path in (tmp_path / "alone" / "shards").iterdir()}
    aside = {path.name for path in (tmp_path / "run" / "shards").glob("set-aside/*")}
    assert aside == (kept if flags else set())


@pytest.mark.parametrize("n_computed", [0, 1])
def test_an_interrupted_extension_stays_if_anything_is_new_in_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], n_computed: int
) -> None:
    shutil.copytree("finished", tmp_path / "run")
    before, compute, computed = files(tmp_path), Workplace.compute, []

    def interrupt(self: Workplace, shard: Any, **more: Any) -> Any:
        if len(computed) == n_computed:
            raise KeyboardInterrupt
        computed.append(shard)
        return compute(self, shard, **more)

    monkeypatch.setattr(Workplace, "compute", interrupt)
    extend = [*study("--replicates", "4"), "--out", str(tmp_path / "run"), "--resume"]
    assert main(extend) == 130
    told, after = capsys.readouterr().err, files(tmp_path)
    assert before.items() <= after.items()
    if n_computed:
        assert "7 finished shards are in run.part; the same command with --resume goes on" in told
        assert len(list((tmp_path / "run.part" / "shards").glob("*-*.npz"))) == 7
    else:
        assert "interrupted; nothing was written" in told
        assert after == before
    monkeypatch.setattr(Workplace, "compute", compute)
    assert main(extend) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
