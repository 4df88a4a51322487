"""Which implementation runs the stages of an analysis, and why that one."""

from __future__ import annotations

import numpy as np

from ..backend import Backend
from ..config import AnalysisConfig
from ..errors import ConfigError, DeviceError
from .fused import Counted, FusedEngine, Kept, MovieFrames, fused_obstacle
from .generic import GenericEngine

Engine = GenericEngine | FusedEngine

_KERNELS = {"cupy": "fused", "numpy": "compiled"}
_NAMES = {"fused": "CUDA kernels", "compiled": "compiled functions"}
_ELSEWHERE = {"fused": "the device, which is no GPU", "compiled": "the device, which is not the CPU"}


def select_engine(
    backend: Backend, config: AnalysisConfig, shape: tuple[int, int], dtype: np.dtype, *, sampled: bool = False
) -> Engine:
    """The engine for an analysis of frames of `shape` and `dtype`; its `reason` goes into the records.

    sampled : whether the movie is sub-sampled.
    config : resolved settings; ``config.compute.engine`` ``"auto"`` takes the GPU's kernels, or the functions compiled
        for the CPU where Numba is installed, wherever they can do it.

    Raises
    ------
    ConfigError
        ``"fused"`` or ``"compiled"`` was asked for where it cannot do it.
    DeviceError
        ``"fused"`` was asked for where there is no compiler for the kernels, ``"compiled"`` where there is no Numba.
    """
    asked, kernels = config.compute.engine, _KERNELS.get(backend.name)
    on = f"{backend.name}: {backend.reason}"
    generic = GenericEngine(backend, f"array-API implementation on {on}")
    if asked == "generic":
        return GenericEngine(backend, f"{generic.reason}; asked for")
    if kernels is None and asked == "auto":
        return generic
    elsewhere = None if asked in ("auto", kernels) else _ELSEWHERE[asked]
    obstacle = elsewhere or fused_obstacle(config, shape, dtype, sampled=sampled)
    if asked != "auto" and obstacle is not None:
        raise ConfigError(f"the {asked} engine cannot be used because of {obstacle}; use --engine auto")
    if obstacle is not None:
        return instead_of_kernels(generic, f"of {obstacle}", warn=kernels == "fused")
    try:
        return (_fused if kernels == "fused" else _compiled)(generic, on, config)
    except DeviceError as error:
        if asked != "auto":
            raise
        return instead_of_kernels(generic, str(error), warn=kernels == "fused")


def _fused(generic: GenericEngine, on: str, config: AnalysisConfig) -> FusedEngine:
    from .device import get_device

    return FusedEngine(generic, get_device(generic.backend.number), f"{_NAMES['fused']} on {on}")


def _compiled(generic: GenericEngine, on: str, config: AnalysisConfig) -> FusedEngine:
    from .compiled.device import CompiledDevice
    from .compiled.engine import CompiledEngine

    return CompiledEngine(generic, CompiledDevice(config.compute.n_threads), f"{_NAMES['compiled']} on {on}")


def instead_of_kernels(generic: GenericEngine, why: str, *, warn: bool) -> GenericEngine:
    """`generic`, and why kernels were not taken, in words that follow "because"; warn : nobody would expect it."""
    reason = f"{generic.reason}; not the {_NAMES[_KERNELS[generic.backend.name]]} because {why}"
    return GenericEngine(generic.backend, reason, no_kernels=why if warn else "")


__all__ = [
    "Counted",
    "Engine",
    "FusedEngine",
    "GenericEngine",
    "Kept",
    "MovieFrames",
    "instead_of_kernels",
    "select_engine",
]
