"""Which implementation runs the stages of an analysis, and why that one."""

from __future__ import annotations

import numpy as np

from ..backend import Backend
from ..config import AnalysisConfig
from ..errors import ConfigError, DeviceError
from .fused import Counted, FusedEngine, Kept, MovieFrames, fused_obstacle
from .generic import GenericEngine

Engine = GenericEngine | FusedEngine


def select_engine(backend: Backend, config: AnalysisConfig, shape: tuple[int, int], dtype: np.dtype) -> Engine:
    """The engine for an analysis of frames of `shape` and `dtype`; its `reason` goes into the records.

    config : resolved settings; ``config.compute.engine`` ``"auto"`` takes the fused kernels wherever they can do it.

    Raises
    ------
    ConfigError
        ``"fused"`` was asked for where the kernels cannot do it.
    DeviceError
        ``"fused"`` was asked for where there is no compiler for the kernels.
    """
    asked = config.compute.engine
    obstacle = fused_obstacle(backend.name, config, shape, dtype)
    if asked == "fused" and obstacle is not None:
        raise ConfigError(f"the fused engine cannot be used because of {obstacle}; use --engine auto")
    on = f"array-API implementation on {backend.name}: {backend.reason}"
    if asked == "generic":
        return GenericEngine(backend, f"{on}; asked for")
    if backend.name != "cupy":
        return GenericEngine(backend, on)
    if obstacle is not None:
        return _instead_of_kernels(backend, on, f"of {obstacle}")
    from .device import get_device

    try:
        device = get_device(backend.number)
    except DeviceError as error:
        if asked == "fused":
            raise
        return _instead_of_kernels(backend, on, f"they cannot be compiled: {error}")
    generic = GenericEngine(backend, on)
    return FusedEngine(generic, device, f"CUDA kernels on {backend.name}: {backend.reason}")


def _instead_of_kernels(backend: Backend, on: str, why: str) -> GenericEngine:
    return GenericEngine(backend, f"{on}; not the CUDA kernels because {why}", no_kernels=why)


__all__ = ["Counted", "Engine", "FusedEngine", "GenericEngine", "Kept", "MovieFrames", "select_engine"]
