"""Clusters on which things go wrong: real processes on loopback, and in the end the same bits or a plain error."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from gmrm_gpu.errors import ClusterError
from gmrm_gpu.study import run_study, shards

pytest.importorskip("distributed", reason="the cluster needs dask and distributed")

from cluster_cases import Site, same_results, small_config, small_movie
from scale import cases

EACH = cases(1, 10)
NAMES = [f"paper-0.5-{i:06d}-{i + 1:06d}" for i in range(6)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("cluster"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def wanted():
    """The study in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_SAMPLES", {"numpy": 1, "cupy": 1})
        return run_study(small_movie(), small_config())


@pytest.fixture(autouse=True)
def fresh(site, monkeypatch):
    """One replicate a shard, and no hooks of earlier tests."""
    monkeypatch.setattr(shards, "SHARD_SAMPLES", {"numpy": 1, "cupy": 1})
    site.forget()


def when_begun(site, n, act):
    """Do something when `n` shards were begun."""
    thread = threading.Thread(target=lambda: (site.until(lambda: len(site.computed()) >= n), act()))
    thread.start()
    return thread


@pytest.mark.parametrize("case", range(EACH))
def test_a_killed_workers_shards_go_to_another(case, site, wanted, counted):
    draw = np.random.default_rng(case)
    workers = site.have(2)
    (site.hooks / "slow").write_text("0.1")
    victim = workers[draw.integers(2)]
    killing = when_begun(site, int(draw.integers(1, 6)), lambda: site.kill([victim]))
    result = site.study(small_movie(), small_config())
    killing.join()
    assert same_results(result, wanted)
    begun = [name for _, name in site.computed()]
    lost = [name for process, name in site.computed() if process == victim.pid]
    assert len(begun) <= 7 + min(len(lost), 2)  # what one worker had at a time, and no more
    counted("cluster: worker killed", 1)


@pytest.mark.parametrize("case", range(EACH))
def test_a_late_joiner_is_used(case, site, wanted, counted):
    draw = np.random.default_rng(case)
    (first,) = site.have(1)
    late, hold = [], site.hooks / f"hold-{first.pid}"

    def join():
        """The first waits until the other has a shard."""
        hold.touch()
        late.extend(site.start(1))
        site.until(lambda: late[0].pid in dict(site.computed()))
        hold.unlink()

    (site.hooks / "slow").write_text("0.2")
    joining = when_begun(site, int(draw.integers(1, 5)), join)
    result = site.study(small_movie(), small_config())
    joining.join()
    assert same_results(result, wanted)
    assert {process for process, _ in site.computed()} == {first.pid, late[0].pid}
    # Seven, but on a machine with too much to do a result that is on its way may be computed once more.
    assert max(Counter(name for _, name in site.computed()).values()) <= 2
    counted("cluster: late joiner", 1)


@pytest.mark.parametrize("case", range(EACH))
def test_two_clients_with_the_same_study_share_it_or_repeat_it(case, site, wanted, counted):
    draw = np.random.default_rng(case)
    site.have(2)
    (site.hooks / "slow").write_text("0.1")
    results = []
    second = when_begun(
        site, int(draw.integers(1, 6)), lambda: results.append(run_elsewhere(site, small_movie(), small_config()))
    )
    results.append(site.study(small_movie(), small_config()))
    second.join()
    assert all(same_results(result, wanted) for result in results)
    assert len(results) == 2
    # Each may do all of it, and once more what the other let go of in the moment that it was asked for.
    assert max(Counter(name for _, name in site.computed()).values()) <= 3
    counted("cluster: duplicate run", 1)


def run_elsewhere(site, movie, config):
    """Another client of the same scheduler."""
    from gmrm_gpu.study.cluster import ClusterExecutor

    with ClusterExecutor(site.address) as executor:
        return run_study(movie, config, executor=executor)


@pytest.mark.parametrize("case", range(EACH))
def test_no_worker_is_an_error_and_not_a_wait(case, site, counted):
    draw = np.random.default_rng(case)
    if draw.integers(2):  # none there
        site.have(0)
        with pytest.raises(ClusterError, match="has no workers"):
            site.study(small_movie(), small_config())
    else:  # and none left
        (worker,) = site.have(1)
        (site.hooks / "slow").write_text("0.1")
        killing = when_begun(site, int(draw.integers(1, 6)), lambda: site.kill([worker]))
        with pytest.raises(ClusterError, match=r"all workers are gone, \d of 7 shards are done"):
            site.study(small_movie(), small_config(), grace_s=0.3)
        killing.join()
    counted("cluster: no worker", 1)


@pytest.mark.parametrize("case", range(EACH))
def test_a_poison_shard_is_named_and_the_others_are_done(case, site, counted, tmp_path):
    draw = np.random.default_rng(case)
    site.have(3)
    poison, kind = NAMES[draw.integers(len(NAMES))], ("kill", "raise")[case % 2]
    (site.hooks / f"{kind}-{poison}").write_text("")
    with pytest.raises(ClusterError, match=f"1 shard cannot be computed, 6 of 7 are done; {poison}: ") as error:
        site.study(small_movie(), small_config(), store=tmp_path / "shards")
    assert ("dies" if kind == "kill" else "a shard that cannot be computed") in str(error.value)
    kept = sorted(file.stem for file in (tmp_path / "shards").glob("*.npz"))
    assert kept == sorted({*NAMES, "paper-reference-0.5"} - {poison})
    counted("cluster: poison shard", 1)
