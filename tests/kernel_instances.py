"""Every kernel as it is compiled in the tests, with what it may use of a multiprocessor.

Registers are ceilings, somewhat above what NVRTC 13.0 needs: a change that needs more should be noticed, not forbidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from gmrm_gpu.engines.device import PROBE
from gmrm_gpu.engines.source import KernelSource

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""Turing to Blackwell: what the kernels are written for."""


@dataclass(frozen=True)
class Instance:
    """An instance of a kernel.

    Attributes
    ----------
    label : in the test's name. source : the kernel. threads : of its largest block.
    registers : ceiling, of a thread. stack_bytes : ceiling of its local arrays.
    everywhere : compiled for all architectures in each test run; else for sm_90 alone, and for the others by `-m slow`.
    """

    label: str
    source: KernelSource
    threads: int
    registers: int
    stack_bytes: int = 0
    everywhere: bool = True


def instances() -> list[Instance]:
    """All instances."""
    return [Instance("probe", PROBE, 1024, 24)]
