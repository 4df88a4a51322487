"""Where tests of kernels run them: the CUDA text on the CPU harness, then the compiled functions; or all on a GPU with
``GMRM_GPU_TEST_DEVICE=gpu``. A test marked ``harness`` is about the harness or the CUDA text alone.
"""

from __future__ import annotations

import os
from typing import Any

from host import build
from host.device import HostDevice

ON_GPU = os.environ.get("GMRM_GPU_TEST_DEVICE") == "gpu"
EVERY = ["gpu"] if ON_GPU else ["harness", "compiled"]

on = EVERY[0]
"""Which one the running test uses; set by the fixture `each_device`."""


def on_harness() -> bool:
    """Whether the running test's kernels are CUDA text on the CPU."""
    return on == "harness"


def kernel_device(*, sanitize: str = "plain", schedule: str = "order", blocks: int = 3) -> Any:
    """A device for kernels; the settings are the harness's and mean nothing elsewhere."""
    if on == "gpu":
        from gmrm_gpu.engines.device import CudaDevice

        return CudaDevice()
    if on == "compiled":
        from gmrm_gpu.engines.compiled.device import CompiledDevice

        return CompiledDevice()
    return HostDevice(sanitize=sanitize, schedule=schedule, blocks=blocks)


def missing() -> str | None:
    """Why kernels cannot run here; None: they can."""
    return None if ON_GPU else build.missing()
