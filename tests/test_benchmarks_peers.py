"""`python -m benchmarks.peers`: formulas against hand values, limits, tables, and what needs no other program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from gmrm_gpu.mixture import fit_mixture

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import __main__ as program  # noqa: E402
from benchmarks.peers import (  # noqa: E402
    ants,
    classic,
    flexmix,
    gmm_gpu,
    mclust,
    mixtools,
    ols,
    otsu,
    ours,
    plot,
    pytorch_gmm,
    rscript,
    scenes,
    scikit_learn,
    table,
)
from benchmarks.peers.density import Mixture, accuracy, dice  # noqa: E402
from benchmarks.peers.measure import QUICK, SHORT, Found, OutOfTime, Peer, Sizes, limited, measure, optimum  # noqa: E402
from benchmarks.peers.script import ONE_THREAD  # noqa: E402

sys.path.remove(str(ROOT))

TINY = Sizes(n=(300, 1024), side=32, limit_s=25.0, compared=300, repeats=1)


def made_up(**fields) -> Peer:
    return Peer("made up", **fields)


def test_likelihood_of_one_gaussian_by_hand():
    one = Mixture(np.ones(1), np.array([10.0]), np.array([2.0]), np.zeros(1))
    values, basis = np.array([10.0, 14.0]), np.zeros((2, 1))
    # log N(10; 10, 2) = -log 2 - log(2 pi) / 2, and two sigmas away 2 less.
    at_centre = -0.6931471805599453 - 0.9189385332046727
    assert one.log_likelihood(values, basis) == pytest.approx(at_centre - 1.0, abs=1e-14)


@pytest.mark.parametrize("slopes", [np.array([3.0, -1.0]), np.array([[3.0, -2.0], [0.5, 1.0]])])
def test_likelihood_and_labels_of_two_phases_on_a_trend(slopes):
    rng = np.random.default_rng(1)
    values, basis = rng.normal(50, 30, 500), rng.uniform(-1, 1, (500, 2))
    both = Mixture(np.array([0.3, 0.7]), np.array([80.0, 20.0]), np.array([5.0, 9.0]), slopes)
    own = np.broadcast_to(slopes.reshape(2, -1), (2, 2))
    density = np.stack([w * norm.pdf(values, m + basis @ own[:, k], s) for k, (w, m, s) in enumerate(_parts(both))])
    assert both.log_likelihood(values, basis) == pytest.approx(np.log(density.sum(axis=0)).mean(), rel=1e-12)
    np.testing.assert_allclose(both.posterior(values, basis), (density / density.sum(axis=0)).T, atol=1e-12)
    # The first component is the brighter one, so its label is 1.
    np.testing.assert_array_equal(both.labels(values, basis), density[0] > density[1])


def _parts(mixture):
    return zip(mixture.weights, mixture.means, mixture.sigmas, strict=True)


def test_a_component_without_weight_takes_no_pixel():
    both = Mixture(np.array([0.0, 1.0]), np.array([5.0, 6.0]), np.ones(2), np.zeros(1))
    assert both.labels(np.array([5.0, 4.0]), np.zeros((2, 1))).tolist() == [1, 1]


def test_scores_by_hand():
    found, truth = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 1])
    assert accuracy(found, truth) == pytest.approx(4 / 6)
    assert dice(found == 1, truth == 1) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(found == 7, truth == 7) == 1.0
    assert dice(found == 1, truth == 7) == 0.0


@pytest.mark.parametrize("k", [2, 3, 4])
def test_thresholds_part_the_classes_best(k):
    rng = np.random.default_rng(k)
    values = np.concatenate([rng.normal(40 * i, 6, 200) for i in range(k)])
    found = classic.otsu_thresholds(values, k)

    def between(cuts):
        classes = np.searchsorted(cuts, np.sort(values))
        parts = [np.sort(values)[classes == c] for c in range(k)]
        return sum(len(p) * (p.mean() - values.mean()) ** 2 for p in parts if len(p))

    edges = np.linspace(values.min(), values.max(), 31)[1:-1]
    assert found.tolist() == sorted(found)
    # Its own bins are an eighth as wide as these.
    assert between(found) >= max(between(np.array(cuts)) for cuts in combinations(edges, k - 1)) * (1 - 1e-3)


def test_a_least_squares_trend_of_one_phase_is_found():
    positions = np.arange(32 * 32)
    basis = classic.basis_of(positions, (32, 32), scenes.TERMS)
    assert (basis.min(), basis.max()) == (-1, 1)
    values = 7 + basis @ np.array(scenes.COEF)
    np.testing.assert_allclose(classic.least_squares_slopes(values, basis), scenes.COEF, atol=1e-10)
    flat = classic.detrended(values, positions, (32, 32), scenes.TERMS)
    np.testing.assert_allclose(flat, 7, atol=1e-10)


def test_frames_are_as_described():
    easy, hard, other = (scenes.make_scene(name) for name in ("easy", "hard", scenes.REVERSED))
    shares = np.bincount(hard.truth.reshape(-1)) / hard.truth.size
    assert shares[scenes.LI] == pytest.approx(0.09, abs=0.01)
    assert (easy.truth == hard.truth).all()
    whole = hard.visited(512 * 512)
    trend = (whole.basis @ np.array(scenes.COEF)).reshape(512, 512)
    assert np.abs(trend).max() == pytest.approx(20, abs=0.1)
    for scene, sign in ((hard, 1), (other, -1)):
        for phase, (mean, sigma) in enumerate(zip(*scenes.LEVELS["hard"], strict=True)):
            rest = (scene.image - sign * trend)[scene.truth == phase]
            assert rest.mean() == pytest.approx(mean, abs=0.3)
            assert rest.std() == pytest.approx(sigma, rel=0.02)
    assert np.isin(hard.image, (0, 255)).mean() < 1e-4


def test_visited_pixels_are_drawn_without_replacement():
    scene = scenes.make_scene("hard", 64)
    few, all_of_them = scene.visited(410), scene.visited(64 * 64)
    assert len(set(few.positions.tolist())) == 410
    assert not few.full
    assert all_of_them.full
    np.testing.assert_array_equal(few.values, scene.image.reshape(-1)[few.positions])


def test_every_fit_begins_where_ours_does():
    data, trace = scenes.make_scene("hard", 64).visited(2000), []
    config = ours.config_of(1e-8, trend="none")
    fit_mixture(data.values[None], data.positions[None], (64, 64), config, backend=scenes._HOST, trace=trace)
    spread = data.values.std()
    expected = trace[0][1][0] / len(data.values) - np.log(spread)
    assert data.start().log_likelihood(data.values, data.basis) == pytest.approx(expected, abs=1e-9)


def test_kernels_see_the_same_pixels():
    """The fit of the draw kernel's samples, where an engine with kernels is there, is the one of `Data`."""
    if ours.missing_compiled() is not None:
        pytest.skip(ours.missing_compiled())
    data = scenes.make_scene("easy", 64).visited(410)
    found, wanted = ours.fit_by_kernels(data, 1e-8, where="cpu"), ours.fit_by_numpy(data, 1e-8)
    np.testing.assert_allclose(found.mixture.means, wanted.mixture.means, atol=1e-3)


@pytest.mark.parametrize("model", ["trend", "none"])
def test_our_fit_reaches_the_optimum(model):
    data = scenes.make_scene("easy", 64).visited(1000)
    found = ours.fit_by_numpy(data, 1e-8, trend=scenes.TREND if model == "trend" else "none")
    short = optimum(data, model) - found.mixture.log_likelihood(data.values, data.basis)
    assert -1e-9 < short < SHORT


def test_a_program_stops_at_the_loosest_tolerance_that_is_good_enough():
    asked = []

    def fit(data, tol):
        asked.append(tol)
        found = ours.fit_by_numpy(data, 1e-10).mixture
        off = 0.5 if tol > 1e-7 else 0.0
        return Found(20.0, Mixture(found.weights, found.means + off, found.sigmas, found.slopes), iterations=3)

    rows = list(measure(made_up(fit=fit, model="trend"), TINY))
    assert asked[1:4] == [1e-5, 1e-6, 1e-7]  # after the one to warm up
    assert {row["tol"] for row in rows if "tol" in row} == {1e-7}
    # Sizes of one frame begin where the one before ended; 20 s for 300 pixels is too long for 1,024.
    assert [(row["scene"], row["n"]) for row in rows] == [
        ("hard", 300),
        ("hard", 1024),
        ("easy", 300),
        (scenes.REVERSED, 300),
    ]
    assert rows[1]["left_out"] == "more than 25 s expected"
    assert all(abs(row["short"]) < SHORT for row in rows if "short" in row)


def test_a_slow_program_is_compared_on_fewer_pixels():
    slow = made_up(fit=lambda data, tol: Found(10.0 * len(data.positions) / 300, ours.fit_by_numpy(data, 1e-8).mixture))
    rows = list(measure(slow, Sizes(n=(300, 1024), side=32, limit_s=25.0, compared=1024)))
    assert [row["n"] for row in rows] == [300, 1024, 300, 300]
    assert ["left_out" in row for row in rows] == [False, True, False, False]


def test_programs_that_miss_the_optimum_say_how_far():
    shifted = made_up(fit=lambda data, tol: _shifted(data, 1.0), model="trend")
    row = next(measure(shifted, TINY))
    assert row["tol"] < 1e-7
    assert row["short"] > 1e-3


def _shifted(data, by):
    found = ours.fit_by_numpy(data, 1e-10).mixture
    return Found(20.0, Mixture(found.weights, found.means + by, found.sigmas, found.slopes))


def test_a_fit_may_not_take_longer_than_the_limit():
    started = time.perf_counter()
    with pytest.raises(OutOfTime), limited(0.05):
        time.sleep(5)
    time.sleep(0.06)  # and no alarm comes later
    slow = made_up(fit=lambda data, tol: time.sleep(5))
    row = next(measure(slow, Sizes(n=(300,), side=32, limit_s=0.1, compared=300, warm_up_s=0.1)))
    assert row["left_out"] == "more than 0.1 s"
    assert time.perf_counter() - started < 4


def test_a_limit_that_was_swallowed_comes_again():
    def stubborn():
        with suppress(OutOfTime):
            time.sleep(5)
        time.sleep(5)

    started = time.perf_counter()
    with pytest.raises(OutOfTime), limited(0.05):
        stubborn()
    assert time.perf_counter() - started < 4


def test_a_program_that_fails_says_why_and_others_go_on():
    def fit(data, tol):
        raise ValueError("no such thing")

    rows = list(measure(made_up(fit=fit), TINY))
    assert [row["left_out"] for row in rows[:2]] == ["failed: ValueError: no such thing"] * 2
    assert "fit_s" not in rows[0]


def test_what_is_missing_is_skipped_with_a_reason(monkeypatch):
    for module in (ants, scikit_learn, pytorch_gmm, gmm_gpu):
        monkeypatch.setattr(module, "available", lambda name: False)
    monkeypatch.setattr(rscript.shutil, "which", lambda name: None)
    rscript.version.cache_clear()
    reasons = {
        peer.name: peer.missing()
        for module in (ants, scikit_learn, ols, pytorch_gmm, gmm_gpu, flexmix, mclust, mixtools)
        for peer in module.PEERS
    }
    rscript.version.cache_clear()
    assert reasons["ANTs N4 + Atropos"] == "antspyx is not installed"
    assert reasons["OLS, then scikit-learn"] == reasons["scikit-learn, z"] == "scikit-learn is not installed"
    assert reasons["pytorch-gmm"] == reasons["gmm-gpu"] == "torch is not installed"
    assert {reasons[name] for name in reasons if "(R)" in name} == {"R is not installed"}
    assert next(measure(flexmix.PEERS[0], TINY))["skipped"]


def test_an_r_package_that_is_missing_is_told_apart_from_r(monkeypatch, tmp_path):
    script = tmp_path / "Rscript"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    rscript.version.cache_clear()
    assert rscript.missing("flexmix") == "R's package flexmix is not installed"
    rscript.version.cache_clear()


TOLD = """Loading required package: lattice
seconds 1.25
number of iterations= 17
weights 0.1 0.2 0.3 0.4
means 1 2 3 4
sigmas 5 6 7 8
slopes 1 2 3 4 5
iterations 17
"""


def test_what_r_prints_is_read():
    found = rscript.parse(TOLD)
    assert (found.seconds, found.iterations) == (1.25, 17)
    assert found.mixture.weights.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert found.mixture.slopes.tolist() == [1, 2, 3, 4, 5]
    own = rscript.parse(TOLD.replace("slopes 1 2 3 4 5", "slopes " + " ".join(map(str, range(20)))))
    assert own.mixture.slopes.shape == (5, 4)
    assert own.mixture.slopes[1].tolist() == [4, 5, 6, 7]
    assert not rscript.parse(TOLD.replace("slopes", "other")).mixture.slopes.any()


def test_r_that_fails_says_its_last_line(monkeypatch, tmp_path):
    script = tmp_path / "Rscript"
    script.write_text("#!/bin/sh\necho Error in fit: >&2\necho singular >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    row = next(measure(Peer("R", flexmix.PEERS[0].fit), TINY))
    assert row["left_out"] == "failed: RuntimeError: singular"


def row(program="other", scene="hard", n=300, fit_s=2.0, **more):
    base = {"program": program, "trend": "no", "unvisited": True, "batches": False, "note": "", "scene": scene, "n": n}
    scores = {"label_accuracy": 0.9, "dice": 0.8, "log_likelihood": -4.75, "short": 3e-7, "iterations": 1234}
    return base | {"fit_s": fit_s} | scores | more


ROWS = [
    row("gmrm_gpu, NumPy", trend="yes", batches=True, fit_s=0.02),
    row("gmrm_gpu, NumPy", scene="easy", trend="yes", batches=True, fit_s=0.01),
    row(),
    row(scene="easy", fit_s=0.5),
    row(scene=scenes.REVERSED, dice=0.4),
    {**row(n=1024), "note": "slow"} | {"left_out": "more than 60 s"},
    {"program": "gone", "trend": "no", "unvisited": True, "batches": True, "note": "", "skipped": "not installed"},
]
del ROWS[5]["fit_s"]


def test_tables_hold_what_was_measured():
    text = table.text_table(ROWS)
    lines = text.splitlines()
    assert lines[0].split()[0] == "program"
    assert lines[2].split() == ["other", "no", "yes", "no", "-4.7500", "0.9000", "0.9000", "0.800", "0.800", "0.400"]
    assert lines[4].split("  ")[0] == "program"
    assert [cell.strip() for cell in lines[6].split("  ") if cell] == [
        *("other", "2.0 s (100)", "left out", "500 ms (50)", "1,234", "3e-07")
    ]
    assert "in brackets: times gmrm_gpu, NumPy" in lines
    assert lines[-1] == "gone: skipped: not installed"
    assert "other: hard, 1,024 px: more than 60 s" in text
    assert len({len(line) for line in lines[:3]}) == 1
    markdown = table.markdown_table(ROWS).splitlines()
    assert markdown[1].count("---") == markdown[0].count("|") - 1 == 10
    assert "| other | 2.0 s (100) | left out | 500 ms (50) | 1,234 | 3e-07 |" in markdown


def test_a_program_that_left_the_compared_size_out_shows_the_labels_of_a_smaller_one():
    rows = [*ROWS[:2], row(n=100, dice=0.3), {**ROWS[5], "n": 300}, row(scene="easy")]
    assert table.Results.of(rows).best("other", "hard")["dice"] == 0.3
    assert table.Results.of(rows).best("other", scenes.REVERSED) is None
    assert "other: labels and likelihood of 100 px; hard, 300 px: more than 60 s" in table.text_table(rows)


def test_an_empty_run_is_a_table_of_reasons():
    assert table.text_table(ROWS[-1:]) == "gone: skipped: not installed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00000512, "5.1 µs"), (0.00312, "3.1 ms"), (0.0996, "100 ms"), (0.99951, "1.0 s"), (12.4, "12 s")],
)
def test_seconds_in_words(seconds, text):
    assert table.seconds_text(seconds) == text


def write(path, text):
    path.write_text(text)
    return [sys.executable, str(path)]


def test_a_script_that_hangs_is_stopped_and_keeps_its_rows(tmp_path, capsys):
    rows = tmp_path / "rows"
    command = write(
        tmp_path / "hang.py",
        f'import os, subprocess, sys, time\nopen({str(rows)!r}, \'w\').write(\'{{"program": "a"}}\\n{{"cut\')\n'
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\ntime.sleep(30)\n",
    )
    found = program.run_one(command, "hang", rows, 2.0)
    assert found == [{"program": "a"}, {"program": "hang.py", "skipped": "stopped after 2 s"}]
    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    for _ in range(50):  # the system ends it in its own time
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child of the script goes on")
    assert capsys.readouterr().err == "hang: stopped after 2 s\n"


def test_a_script_that_crashes_does_not_end_the_rest(tmp_path):
    crashed = program.run_one(write(tmp_path / "crash.py", "import os\nos.abort()\n"), "crash", tmp_path / "rows", 20.0)
    assert crashed == [{"program": "crash.py", "skipped": "ended by itself with status -6"}]


def test_every_script_has_one_thread(tmp_path):
    rows = tmp_path / "rows"
    code = f"import json, os\nopen({str(rows)!r}, 'w').write(json.dumps(dict(os.environ)) + chr(10))\n"
    (found,) = program.run_one(write(tmp_path / "tell.py", code), "tell", rows, 20.0)
    assert ONE_THREAD.items() <= found.items()


def test_unknown_scripts_are_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["--only", "ours,nothing"])
    assert "there is no nothing; use ours" in capsys.readouterr().err


def test_the_command_runs_what_needs_no_other_program(tmp_path, capsys):
    pytest.importorskip("sklearn")
    kept, picture = tmp_path / "rows.jsonl", tmp_path / "picture.png"
    code = program.main(["--quick", "--only", "ours,otsu,ols,ceiling", "--json", str(kept), "--plot", str(picture)])
    printed = capsys.readouterr().out
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert {"what", "commit", "processor", "run", "date"} <= set(rows[0])
    results = table.Results.of(rows)
    assert {"gmrm_gpu, NumPy", "Otsu", "OLS, then scikit-learn", "true parameters"} <= set(results.measured)
    assert len(results.skipped) + len(results.measured) == 13
    full = {name: found["hard", QUICK.n[-1]] for name, found in results.measured.items()}
    mine, flat = full["gmrm_gpu, NumPy"], full["OLS, then scikit-learn"]
    # A trend that is blind to phases is one of those that ours could have taken.
    assert mine["log_likelihood"] > max(flat["log_likelihood"], full["true parameters"]["log_likelihood"])
    assert mine["label_accuracy"] > max(flat["label_accuracy"], full["Otsu"]["label_accuracy"])
    assert mine["label_accuracy"] > 0.95
    assert 0 < full["Otsu"]["fit_s"] < 1
    program.main(["--saved", str(kept), "--markdown"])
    assert capsys.readouterr().out.startswith("| program | knows the trend |")
    assert "gmrm_gpu, NumPy" in printed


def test_a_script_runs_by_itself():
    command = [sys.executable, "-m", "benchmarks.peers.otsu", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Otsu: hard frame, 410 pixels: " in done.stderr
    assert done.stdout.splitlines()[1].startswith("Otsu ")


def test_a_later_run_hides_an_earlier_one(tmp_path):
    saved = tmp_path / "rows"
    saved.write_text("".join(json.dumps({"program": name, "run": run}) + "\n" for name, run in ("a1", "a2", "b2")))
    assert [row["program"] for row in program.load(saved)] == ["a", "b"]


def test_the_picture_puts_ours_first_and_then_the_fastest():
    rows = [*ROWS, row("quick", fit_s=0.001), row("quick", scene="easy", fit_s=0.001)]
    assert plot.order(table.Results.of(rows)) == ["gmrm_gpu, NumPy", "quick", "other"]


def test_thresholds_of_a_scene_find_its_phases():
    easy = scenes.make_scene("easy", 64)
    assert accuracy(otsu.fit(easy.visited(64 * 64), 1.0).labels, easy.truth) > 0.95


OTHERS = [
    peer for module in (scikit_learn, ols, pytorch_gmm, gmm_gpu, mclust, mixtools, flexmix) for peer in module.PEERS
]


@pytest.mark.parametrize("peer", OTHERS, ids=[peer.name for peer in OTHERS])
def test_other_programs_where_they_are_installed(peer):
    """Each is given its start and its tolerance in the right unit, and its parameters are read as it means them."""
    if peer.missing() is not None:
        pytest.skip(peer.missing())
    if "on torch" in peer.name and not os.environ.get("SCIPY_ARRAY_API"):
        pytest.skip("SCIPY_ARRAY_API has to be set when SciPy is loaded")
    data = scenes.make_scene("easy", 64).visited(410)
    found = peer.fit(data, 1e-8)
    assert found.seconds > 0
    assert found.iterations > 3
    labels = found.labels
    if found.mixture is not None:
        whole = data.scene.visited(64 * 64)
        labels = found.mixture.labels(whole.values, whole.basis).reshape(64, 64)
    assert accuracy(labels, data.scene.truth) > 0.9
    if peer.model is not None:
        assert abs(optimum(data, peer.model) - found.mixture.log_likelihood(data.values, data.basis)) < SHORT
    if peer.name == "flexmix (R)":
        short = optimum(data, "trend") - found.mixture.log_likelihood(data.values, data.basis)
        assert 0 < short < 1e-2  # near the likeliest parameters, and not the same
