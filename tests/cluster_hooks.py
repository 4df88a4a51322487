"""Loaded by a worker of the tests (``--preload``): writes down what it computes, and stumbles where it is told to.

In the folder ``GMRM_GPU_HOOKS``, ``kill-SHARD`` kills the process that computes that shard, ``kill-once`` the first
that computes any, ``raise-SHARD`` makes it fail, ``broken-PID`` makes all fail in that process, ``hold-PID`` makes that
one wait while it is there, ``slow`` has the seconds that every shard takes longer, and ``log`` gets a line a shard.
"""

import os
import signal
import time
from pathlib import Path


def dask_setup(worker):
    from gmrm_gpu.study.cluster import worker as here

    folder, real = Path(os.environ["GMRM_GPU_HOOKS"]), here.compute

    def compute(job, shard):
        with (folder / "log").open("a") as file:
            file.write(f"{os.getpid()} {shard.name}\n")
        if (folder / "slow").exists():
            time.sleep(float((folder / "slow").read_text()))
        while (folder / f"hold-{os.getpid()}").exists():
            time.sleep(0.02)
        once = folder / "kill-once"
        if once.exists():
            once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / f"kill-{shard.name}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / f"raise-{shard.name}").exists() or (folder / f"broken-{os.getpid()}").exists():
            raise ValueError("a shard that cannot be computed")
        return real(job, shard)

    here.compute = compute
