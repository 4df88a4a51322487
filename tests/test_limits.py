"""Limits of control groups, as files of a made-up machine."""

from pathlib import Path

import pytest

from gmrm_gpu import backend
from gmrm_gpu.limits import cores_left, memory_left

MB = 2**20
UNLIMITED = 9223372036854771712  # what version 1 says of a group without a limit


def machine(root: Path, groups: str, files: dict[str, object]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V1 = "5:memory:{0}\n4:cpu,cpuacct:{0}\n1:name=systemd:{0}\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "memory", "cores"),
    [
        pytest.param("0::/\n", {}, None, None, id="none"),
        pytest.param("", {"memory.max": 5}, None, None, id="no groups at all"),
        pytest.param(
            "0::/\n",
            {"memory.max": 100 * MB, "memory.current": 30 * MB, "cpu.max": "150000 100000"},
            70 * MB,
            2,
            id="2, in a container",
        ),
        pytest.param(
            "0::/job/step\n",
            {
                "job/memory.max": 100 * MB,
                "job/memory.current": 60 * MB,
                "job/memory.stat": f"anon {40 * MB}\ninactive_file {20 * MB}",
                "job/step/memory.max": "max",
                "job/step/memory.current": 10 * MB,
                "job/step/cpu.max": "max 100000",
                "job/cpu.max": "10000 100000",
            },
            60 * MB,
            1,
            id="2, limits of the group above",
        ),
        pytest.param(
            V1.format("/slurm/job_7"),
            {
                "memory/slurm/job_7/memory.limit_in_bytes": 80 * MB,
                "memory/slurm/job_7/memory.usage_in_bytes": 50 * MB,
                "memory/slurm/job_7/memory.stat": f"inactive_file 1\ntotal_inactive_file {5 * MB}",
                "memory/memory.limit_in_bytes": UNLIMITED,
                "memory/memory.usage_in_bytes": 900 * MB,
                "cpu/slurm/job_7/cpu.cfs_quota_us": 400000,
                "cpu/slurm/job_7/cpu.cfs_period_us": 100000,
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
            },
            35 * MB,
            4,
            id="1, a batch system",
        ),
        pytest.param(
            V1.format("/docker/0123abcd"),
            {"memory/memory.limit_in_bytes": 80 * MB, "memory/memory.usage_in_bytes": 90 * MB},
            0,
            None,
            id="1, in a container that sees the host's path; over the limit",
        ),
        pytest.param(
            "0::/../../other\n",
            {"memory.max": 8 * MB, "memory.current": MB},
            7 * MB,
            None,
            id="2, moved out of its namespace",
        ),
    ],
)
def test_limits(tmp_path, groups, files, memory, cores):
    root = machine(tmp_path, groups, files)
    assert (memory_left(root), cores_left(root)) == (memory, cores)


def test_the_machine_is_no_larger_than_the_limits(monkeypatch):
    cpu = backend.get_backend("cpu")
    monkeypatch.setattr(backend, "memory_left", lambda: None)
    monkeypatch.setattr(backend, "cores_left", lambda: None)
    free, cores = backend.free_memory(cpu), backend.n_cores()
    monkeypatch.setattr(backend, "memory_left", lambda: free // 10)
    monkeypatch.setattr(backend, "cores_left", lambda: 1)
    assert backend.free_memory(cpu) == free // 10
    assert backend.n_cores() == 1 <= cores
    monkeypatch.setattr(backend, "memory_left", lambda: UNLIMITED)
    monkeypatch.setattr(backend, "cores_left", lambda: 10_000)
    assert backend.free_memory(cpu) < 2**44
    assert backend.n_cores() == cores
