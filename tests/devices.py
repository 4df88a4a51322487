"""Where the tests of kernels run them: on the CPU, or on a GPU with ``GMRM_GPU_TEST_DEVICE=gpu``."""

from __future__ import annotations

import os
from typing import Any

from host import build
from host.device import HostDevice

ON_GPU = os.environ.get("GMRM_GPU_TEST_DEVICE") == "gpu"


def kernel_device(*, sanitize: str = "plain", schedule: str = "order", blocks: int = 3) -> Any:
    """A device for kernels. On a GPU, which has a schedule and a size of its own, the settings mean nothing."""
    if ON_GPU:
        from gmrm_gpu.engines.device import CudaDevice

        return CudaDevice()
    return HostDevice(sanitize=sanitize, schedule=schedule, blocks=blocks)


def missing() -> str | None:
    """Why kernels cannot run here; None: they can."""
    return None if ON_GPU else build.missing()
