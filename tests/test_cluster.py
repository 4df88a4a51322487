"""Studies on a Dask cluster: the same bits as in one process, and a word on everything that is in the way."""

import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gmrm_gpu
from gmrm_gpu.config import ComputeConfig
from gmrm_gpu.errors import ClusterError, ConfigError, MissingDependencyError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.study import run_study, shards, source
from gmrm_gpu.study.identity import identity, movie_digest
from gmrm_gpu.study.source import CopiedMovie, MovieNotHere, MovieSource, frame_blocks, outline

pytest.importorskip("distributed", reason="the cluster needs dask and distributed")

import dask
from cluster_cases import HERE, Site, same_results, small_config, small_movie

from gmrm_gpu.study.cluster import ClusterExecutor, crew, local, worker


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("cluster"))
    yield site
    site.close()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """One replicate a shard."""
    monkeypatch.setattr(shards, "SHARD_SAMPLES", {"numpy": 1, "cupy": 1})


def saved(folder, movie):
    path = folder / "movie.npy"
    np.save(path, np.stack([movie.frame(t) for t in range(len(movie))]))
    return path


# --- how the movie gets there


def test_a_source_opens_the_file_again_with_all_that_was_chosen(tmp_path, monkeypatch):
    saved(tmp_path, small_movie(n_frames=6))
    monkeypatch.chdir(tmp_path)
    movie = open_movie("movie.npy", frames="1:5", exclude=np.eye(12, 16) > 0, pixel_size_um=0.1)
    movie = open_movie(movie, crop="2:12,3:15")
    source = MovieSource.of(movie, movie_digest(movie))
    assert source.open() is movie
    monkeypatch.chdir(tmp_path.parent)
    there = pickle.loads(pickle.dumps(source))
    assert there.movie is None
    assert movie_digest(there.open()) == source.digest
    assert there.open() is there.open()  # read once


def test_a_source_does_not_take_another_movie(tmp_path):
    path = saved(tmp_path, small_movie())
    there = pickle.loads(pickle.dumps(MovieSource.of(open_movie(path), "another digest")))
    with pytest.raises(MovieNotHere, match="is another movie there"):
        there.open()
    path.unlink()
    with pytest.raises(MovieNotHere, match="does not exist"):
        there.open()
    with pytest.raises(MovieNotHere, match="in no file"):
        pickle.loads(pickle.dumps(MovieSource.of(small_movie(), "a digest"))).open()
    chess = open_movie((np.indices((12, 16)).sum(0) % 2).astype(np.uint8))
    movie = open_movie(saved(tmp_path, small_movie()), frames=[0, 2], visited=chess)
    assert MovieSource.of(movie, "a digest").origin is None  # a mask that is no file, no array


@pytest.mark.parametrize("kind", ["frames", "view", "visits", "floats with NaN outside"])
def test_a_copy_is_the_movie(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.study.source.BLOCK_BYTES", 300)
    movie = small_movie(n_frames=7)
    stack = np.stack([movie.frame(t) for t in range(7)])
    mask = np.eye(12, 16) > 0
    if kind == "view":
        movie = open_movie(stack, frames="2:6", crop="1:11,2:15", exclude=mask, frame_time_s=2.0)
    if kind == "visits":
        movie = open_movie(stack, visited=stack % 2 > 0, exclude=mask)
    if kind.startswith("floats"):
        movie = open_movie(np.where(mask, np.nan, stack.astype(np.float32)), exclude=mask)
    copy = CopiedMovie(tmp_path, **pickle.loads(pickle.dumps(outline(movie))))
    blocks = list(frame_blocks(movie))
    assert len(blocks) > 1
    for block in blocks:
        copy.add(pickle.loads(pickle.dumps(block)))
    assert movie_digest(copy) == movie_digest(movie)
    assert copy.acquisition == movie.acquisition


# --- what a worker's part is


def test_threads_and_memory_are_divided_among_the_workers_of_a_machine(monkeypatch):
    monkeypatch.setattr(worker, "n_cores", lambda: 8)

    def part(n, limit=None, **compute):
        config = small_config()
        config = replace(config, analysis=replace(config.analysis, compute=ComputeConfig(device="cpu", **compute)))
        found = worker.part_of(config, worker.Share(n, n), limit).analysis.compute
        return found.n_threads, found.memory_bytes

    assert part(1, memory_bytes=8000) == (8, 8000)
    assert part(3, memory_bytes=9000) == (2, 3000)
    assert part(16, memory_bytes=16000, n_threads=3) == (3, 1000)
    assert part(2, limit=1000, memory_bytes=8000) == (4, 500)
    free = part(1)[1]
    assert 0.4 * free < part(2)[1] < 0.6 * free


def test_local_processes_take_the_gpus_in_turn(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert [local.gpu_of(i, "auto").get("CUDA_VISIBLE_DEVICES") for i in range(3)] == ["3", "GPU-ab", "3"]
    assert local.gpu_of(0, "cpu") == local.gpu_of(0, "gpu:1") == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert local.visible_gpus(tmp_path) == ["0", "1"]
    assert local.visible_gpus(tmp_path / "none") == []


# --- what is refused before any work


def test_either_a_scheduler_or_a_number():
    for wrong in ({}, {"address": "tcp://a:1", "n_workers": 2}, {"n_workers": 0}):
        with pytest.raises(ConfigError, match="--workers"):
            ClusterExecutor(**wrong)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"gmrm-gpu\[cluster\]"):
        ClusterExecutor(n_workers=1)


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr("gmrm_gpu.study.cluster.executor.CONNECT_S", 0.5)
    with ClusterExecutor("tcp://127.0.0.1:9") as executor, pytest.raises(ClusterError, match="start one with"):
        run_study(small_movie(), small_config(), executor=executor)
    for text in ("nonsense", "tcp://host", "host:port"):
        with pytest.raises(ConfigError, match="write it like tcp://host:8786"):
            ClusterExecutor(text)


def test_processes_that_do_not_start():
    hooks = {"distributed.worker.preload": ["/no/such/file.py"]}
    error = pytest.raises(ClusterError, match=r"do not start \(.*; use fewer --workers")
    with dask.config.set(hooks), ClusterExecutor(n_workers=1) as executor, error:
        run_study(small_movie(), small_config(), executor=executor)


def test_no_worker_is_an_error_at_once(site):
    site.have(0)
    with pytest.raises(ClusterError, match="has no workers; start some with: dask worker"):
        site.study(small_movie(), small_config())


def test_workers_that_cannot_do_it_are_named_with_the_reason(site, tmp_path):
    other = tmp_path / "gmrm_gpu"
    subprocess.run(["cp", "-r", str(Path(gmrm_gpu.__file__).parent), str(other)], check=True)
    about = other / "__init__.py"
    about.write_text(about.read_text().replace('"0.1.0"', '"0.0.9"'))
    without = tmp_path / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys\nsys.modules['numba'] = None\n")
    site.have(0)
    site.start(1, path=tmp_path)
    site.start(1, path=without)
    with pytest.raises(ClusterError, match="no worker can do the work") as error:
        site.study(small_movie(), small_config("compiled"))
    assert "gmrm_gpu is 0.0.9" in str(error.value)
    assert "Numba" in str(error.value)
    assert "\n" not in str(error.value)
    # One that is able is enough; those of another engine would mix their bits with it, and are left out.
    site.start(1)
    movie, config = small_movie(), small_config("auto")
    with ClusterExecutor(site.address, notify=site.said.append) as executor:
        assert executor.engines(movie, config) == ({"paper": "compiled"}, "numpy")
    assert sum("unlike the others (engine compiled" in text for text in site.said) == 1
    site.forget()
    site.have(0)


def test_what_a_worker_without_this_package_answers_is_understood():
    texts = ("No module named 'gmrm_gpu'", "No module named 'gmrm_gpu.study.cluster'", "", "two\nlines")
    found = [crew.reason_of(Exception(f"ModuleNotFoundError({text!r})" if "gmrm" in text else text)) for text in texts]
    assert found[0] == "gmrm_gpu is not installed there"
    assert found[1].startswith("another version of gmrm_gpu")
    assert found[2:] == ["Exception", "two lines"]


# --- what comes out


def test_local_processes_give_the_same_bits_and_are_gone_afterwards(tmp_path, monkeypatch):
    psutil = pytest.importorskip("psutil", reason="processes are counted with psutil")
    monkeypatch.setenv("GMRM_GPU_HOOKS", str(tmp_path))
    (tmp_path / "kill-once").touch()
    environment, me, config, listening, said = dict(os.environ), psutil.Process(), small_config(), [], []
    before = set(me.children(recursive=True))

    def watch(text):
        said.append(text)
        if "is sent the movie" in text and not listening:  # it is in no file
            processes = [me, *me.children(recursive=True)]
            listening.extend(c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN")

    hooks = {"distributed.worker.preload": [str(HERE / "cluster_hooks.py")]}
    with dask.config.set(hooks), ClusterExecutor(n_workers=2, notify=watch) as executor:
        result = run_study(small_movie(), config, executor=executor)
    assert same_results(result, run_study(small_movie(), config))
    assert sum("is gone" in text for text in said) == 1
    assert len(listening) >= 4
    assert set(listening) == {"127.0.0.1"}
    left = [" ".join(child.cmdline()) for child in set(me.children(recursive=True)) - before]
    assert [line for line in left if "resource_tracker" not in line] == []
    assert dict(os.environ) == environment


def test_both_methods_by_path_with_a_mask_and_by_copy_sub_sampled(site, tmp_path):
    site.have(2)
    config = replace(small_config(), rates=(0.5, 0.25), n_replicates=(2, 2), methods=("paper", "movie"))
    path = saved(tmp_path, small_movie(n_frames=5))
    by_path = open_movie(path, frames="1:5", exclude=np.eye(12, 16) > 0)
    result = site.study(by_path, config)
    assert not [text for text in site.said if "is sent the movie" in text]
    assert same_results(result, run_study(by_path, config))
    site.forget()
    (site.hooks / "slow").write_text("0.5")  # so that both get ready before all is done
    stack = np.load(path)
    visited = open_movie(stack, visited=np.indices(stack.shape).sum(0) % 3 > 0)
    config = replace(config, rates=(1.0,), n_replicates=(1,), methods=("paper",))
    result = site.study(visited, config)
    assert sum("is sent the movie" in text for text in site.said) == 2
    assert same_results(result, run_study(visited, config))
    site.study(visited, config)
    assert sum("is sent the movie" in text for text in site.said) == 2  # once a worker
    site.forget()


def test_a_file_that_is_another_one_there_is_not_used(site, tmp_path):
    site.have(1)
    movie = open_movie(saved(tmp_path, small_movie(seed=1)))
    held = open_movie(np.stack([movie.frame(t) for t in range(len(movie))]))
    held.origin = movie.origin
    saved(tmp_path, small_movie(seed=2))
    result = site.study(held, small_config(n=1))
    assert any("is another movie there" in text for text in site.said)
    assert same_results(result, run_study(held, small_config(n=1)))
    site.forget()


def test_what_is_left_early_leaves_nothing_on_the_scheduler(site):
    site.have(1)
    (site.hooks / "slow").write_text("0.1")
    movie, config = small_movie(), small_config()
    with ClusterExecutor(site.address) as executor:
        known = identity(movie, config, *executor.engines(movie, config))
        todo = [shards.Shard("paper", 0.5, i, i + 1) for i in range(6)]
        running = executor.run(movie, config, known, todo)
        (first, part), _, _ = next(running), next(running), next(running)
        site.until(lambda: len(site.cluster.scheduler.tasks) <= 2)  # results are forgotten once they are here
        running.close()
        assert part.arrays["volume_share"].shape == (1, 3)
        site.until(lambda: not site.cluster.scheduler.tasks)
    assert first in todo
    assert len(site.computed()) <= 3 + 2  # what the worker had, and no more
    site.forget()


def test_a_worker_on_which_everything_fails_is_left_out(site):
    site.have(2)
    movie, config = small_movie(), small_config(n=12)
    broken = site.processes[-1].pid
    (site.hooks / f"broken-{broken}").write_text("")
    result = site.study(movie, config)
    assert any("shards failed on it" in text for text in site.said)
    assert same_results(result, run_study(movie, config))
    site.forget()


def test_a_worker_that_forgot_the_study_is_prepared_again(site):
    (process,) = site.have(1)
    hold = site.hooks / f"hold-{process.pid}"
    hold.touch()

    def forget():
        from distributed import Client

        site.until(lambda: len(site.computed()) == 1)
        with Client(site.address, set_as_default=False) as client:
            client.run(lambda: (worker._jobs.clear(), source._held.clear()))
        hold.unlink()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    result = site.study(small_movie(), small_config())
    forgetting.join()
    assert any("must be prepared again" in text for text in site.said)
    assert same_results(result, run_study(small_movie(), small_config()))
    site.forget()


def test_a_worker_that_dask_has_paused_is_not_waited_for(monkeypatch):
    class Client:
        status = "running"

        def scheduler_info(self, n_workers):
            return {"workers": {"tcp://a:1": {"status": self.status}}}

    monkeypatch.setattr(crew, "PAUSE_S", 0.0)
    monkeypatch.setattr(crew.Crew, "_ask", lambda self, member: lambda: None)
    client, said = Client(), []
    found = crew.Crew(client, small_movie(), small_config(), said.append)
    assert found.look() == []
    (member,) = found.members.values()
    member.state = "ready"
    assert found.look() == []
    client.status = "paused"
    assert [*found.look(), *found.look()] == [member]
    assert said == ["worker tcp://a:1 is not used: Dask has paused it for want of memory; give it more"]
    assert not found.hopeful


def test_a_late_joiner_of_another_kind_is_not_used_when_all_others_are_gone(monkeypatch):
    monkeypatch.setattr(crew.Crew, "_ask", lambda self, member: lambda: None)
    said, facts = [], worker.Facts((("numpy", "2.0"),), (("paper", "compiled"),), "numpy", "a CPU", "cpu")
    found = crew.Crew(None, small_movie(), small_config(), said.append)
    first = crew.Member("tcp://a:1", "known", facts=facts)
    found.members = {first.address: first}
    found._decide(facts.kind)
    found._leave(first)
    late = crew.Member("tcp://a:2", "known", facts=replace(facts, engines=(("paper", "generic"),)))
    found.members = {late.address: late}
    found._compare(late)
    assert late.state == "unfit"
    assert said == [
        "worker tcp://a:2 is not used: engine generic, numpy, numpy 2.0, unlike the others "
        "(engine compiled, numpy, numpy 2.0)"
    ]


def test_every_shard_failing_ends_soon(site):
    site.have(1)
    for i in range(12):
        (site.hooks / f"raise-paper-0.5-{i:06d}-{i + 1:06d}").write_text("")
    (site.hooks / "raise-paper-reference-0.5").write_text("")
    with pytest.raises(ClusterError, match="every shard fails: a shard that cannot be computed"):
        site.study(small_movie(), small_config(n=12))
    assert len(site.computed()) < 8
    site.forget()


def test_all_workers_gone_is_an_error_after_a_while(site):
    (process,) = site.have(1)
    (site.hooks / "slow").write_text("0.2")
    threading.Thread(target=lambda: (site.until(lambda: len(site.computed()) == 3), site.kill([process]))).start()
    with pytest.raises(ClusterError, match=r"all workers are gone, \d of 7 shards are done; .*--resume"):
        site.study(small_movie(), small_config(), grace_s=0.5)
    assert any("waiting 0.5 s" in text for text in site.said)
    site.forget()


def test_a_scheduler_that_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.study.cluster.executor.CONNECT_S", 1)
    site = Site(tmp_path)
    site.start(1)
    (site.hooks / "slow").write_text("0.2")
    threading.Thread(target=lambda: (site.until(lambda: len(site.computed()) == 2), site.close())).start()
    with pytest.raises(ClusterError, match="is gone"):
        site.study(small_movie(), small_config(), grace_s=0.5)
