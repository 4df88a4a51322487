"""A CPU in the place of a GPU: the `Device` of `gmrm_gpu.engines.fused.launch` for tests."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from . import build, replay

SCHEDULES = {"order": 0, "reverse": 1, "random": 2}
GUARD_BYTES, ALIGNMENT, CANARY = 256, 256, 0xA5
UNSET = 0xFF
LOCK = threading.Lock()


class Dim(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in "xyz"]


class LaunchRecord(ctypes.Structure):
    """HostLaunch of engine.h."""

    _fields_ = [
        ("grid", Dim),
        ("block", Dim),
        *((name, ctypes.c_uint) for name in ("shared_bytes", "cooperative", "schedule", "seconds")),
        ("seed", ctypes.c_ulonglong),
    ]


class Fault(ctypes.Structure):
    """HostFault of engine.h."""

    _fields_ = [("message", ctypes.c_char * 1000), *((name, ctypes.c_int) for name in ("block", "thread", "line"))]


class Parameter(ctypes.Structure):
    """HostParameter of engine.h."""

    _fields_ = [*((name, ctypes.c_int) for name in ("size", "is_pointer", "is_const")), ("kind", ctypes.c_char)]


@dataclass(frozen=True)
class RawSource:
    """A kernel that a test writes out, in the place of a `KernelSource`."""

    name: str
    text: str


@functools.cache
def library(source: Any, extra: tuple[str, ...] = ()) -> ctypes.CDLL:
    return ctypes.CDLL(str(build.kernel_library(source, extra)))


def parameters(source: Any) -> list[Parameter]:
    """The parameters of a kernel as the compiler sees them."""
    out = (Parameter * 128)()
    return list(out[: library(source).host_parameters(out)])


def dims(values: tuple[int, ...]) -> Dim:
    return Dim(*(int(v) for v in (*values, 1, 1)[:3]))


def fault_text(source: Any, fault: Fault) -> str:
    """Kernel, block, thread and line of a fault, with the line's text."""
    where = f"kernel {source.name}"
    if fault.block >= 0:
        where += f", block {fault.block}, thread {fault.thread}"
    lines = source.text.splitlines()
    at = ""
    if 0 < fault.line <= len(lines):
        at = f"\n  line {fault.line}: {lines[fault.line - 1].strip()}"
    return f"{where}: {fault.message.decode(errors='replace')}{at}"


def kind_of(dtype: np.dtype) -> str:
    return {"f": "f", "i": "i", "u": "i", "b": "i"}.get(dtype.kind, "s")


def check_argument(name: str, i: int, value: Any, parameter: Parameter) -> None:
    """Raise TypeError where `value` is not what the kernel's parameter `i` takes."""
    where = f"{name}: argument {i}"
    size, kind = parameter.size, parameter.kind.decode()
    if not parameter.is_pointer:
        if not isinstance(value, np.generic):
            raise TypeError(f"{where} has to be a NumPy scalar, got {type(value).__name__}")
        if value.dtype.itemsize != size or kind_of(value.dtype) != kind:
            raise TypeError(f"{where} is {value.dtype}, the kernel takes {size} bytes of kind {kind!r}")
        return
    if value is None:
        return
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where} has to be an array of the device, got {type(value).__name__}")
    if memory_of(value) is None:
        raise TypeError(f"{where} is an array of the host: give it to asarray() of the device first")
    if not value.flags.c_contiguous:
        raise TypeError(f"{where} is not C-contiguous")
    if kind != "s" and (value.dtype.itemsize != size or kind_of(value.dtype) != kind):
        raise TypeError(f"{where} is an array of {value.dtype}, the kernel's items have {size} bytes of kind {kind!r}")
    if value.nbytes % size:
        raise TypeError(f"{where} has {value.nbytes} bytes, the kernel's items {size}")
    if not parameter.is_const and not value.flags.writeable:
        raise TypeError(f"{where} is read-only, the kernel may write to it")


@dataclass
class HostKernel:
    """A compiled kernel with the call of CuPy's RawKernel."""

    source: Any
    device: HostDevice
    cooperative: bool

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        wanted = parameters(self.source)
        if len(args) != len(wanted):
            raise TypeError(f"{self.source.name} takes {len(wanted)} arguments, got {len(args)}")
        for i, (value, parameter) in enumerate(zip(args, wanted, strict=True)):
            check_argument(self.source.name, i, value, parameter)
        self.device.launches.append(self.source.name)
        self.check_grid(grid, block, shared_mem)
        record = LaunchRecord(dims(grid), dims(block), int(shared_mem), self.cooperative)
        record.schedule, record.seed = self.device.order
        record.seconds = self.device.seconds
        self.run(record, args)
        for i, value in enumerate(args):
            if isinstance(value, np.ndarray) and not intact(value):
                raise RuntimeError(f"kernel {self.source.name}: something was written outside of argument {i}")

    def check_grid(self, grid: tuple, block: tuple, shared_mem: int) -> None:
        """A cooperative launch that the device cannot hold is refused, as CUDA does."""
        blocks, most = math.prod(grid), self.device.resident_blocks(self.source, math.prod(block), shared_mem)
        if self.cooperative and blocks > most:
            raise RuntimeError(f"kernel {self.source.name}: {blocks} cooperating blocks, {most} fit")

    def run(self, record: LaunchRecord, args: tuple) -> None:
        """Run it here, or sanitized in a process of its own."""
        fault = Fault()
        if self.device.sanitize == "plain":
            failed = self.run_here(record, args, fault)
        else:
            failed = replay.run(self.source, self.device.sanitize, record, args, fault)
        if failed:
            raise RuntimeError(fault_text(self.source, fault))

    def run_here(self, record: LaunchRecord, args: tuple, fault: Fault) -> bool:
        values = [ctypes.c_void_p(address(a)) if a is None or isinstance(a, np.ndarray) else a for a in args]
        cells = [v if isinstance(v, ctypes.c_void_p) else np.array(v).reshape(1) for v in values]
        pointers = [ctypes.addressof(c) if isinstance(c, ctypes.c_void_p) else c.ctypes.data for c in cells]
        table = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
        with LOCK:
            run = library(self.source, self.device.build_flags).host_run
            return bool(run(table, ctypes.byref(record), ctypes.byref(fault)))


def address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def guarded(nbytes: int, fill: int) -> np.ndarray:
    """`nbytes` bytes at an address CUDA could give, between guards that `intact` looks at."""
    whole = np.full(nbytes + 2 * GUARD_BYTES + ALIGNMENT, CANARY, np.uint8).view(GuardedBytes)
    start = GUARD_BYTES + -(whole.ctypes.data + GUARD_BYTES) % ALIGNMENT
    whole.inner = slice(start, start + nbytes)
    inner = whole[whole.inner]
    inner[...] = fill
    return inner.view(np.ndarray)


class GuardedBytes(np.ndarray):
    """Memory of an array of the device and the guards around it."""

    inner: slice


def memory_of(array: np.ndarray) -> GuardedBytes | None:
    """The memory of the device that `array` is in."""
    base: Any = array
    while base is not None and not isinstance(base, GuardedBytes):
        base = getattr(base, "base", None)
    while base is not None and isinstance(base.base, GuardedBytes):
        base = base.base
    return base


def intact(array: np.ndarray) -> bool:
    """Whether the guards around the memory of `array` are as they were."""
    whole = memory_of(array)
    assert whole is not None
    guards = whole.view(np.ndarray)
    return bool((guards[: whole.inner.start] == CANARY).all() and (guards[whole.inner.stop :] == CANARY).all())


@dataclass
class HostDevice:
    """Runs kernels on the CPU, one fiber a CUDA thread; a test that makes one is skipped where there is no g++.

    Each of these is a `RuntimeError` with kernel, block, thread and line: a barrier that not all threads of the block
    reach, a warp collective that not all lanes of its mask reach, a lane out of range, shared memory beyond what the
    launch declares, a write behind an array of shared memory or beside one of the device, a wild address, a division
    by zero, cooperating blocks that wait for ever. ThreadSanitizer reports all accesses that no barrier, `__syncwarp`,
    or pair of fences and atomics orders, also between blocks, in every schedule; AddressSanitizer all those out of
    bounds, reads too. Keep sanitized launches small: about 5 ms, and with "tsan" half a millisecond a CUDA thread.

    Parameters
    ----------
    sanitize : "plain", or "asan" (AddressSanitizer and UBSan) or "tsan" (ThreadSanitizer): each launch then runs in
        an executable built so, a `RuntimeError` carries the report, and `__device__` variables do not outlast it.
    schedule : "order", "reverse" or "random:SEED": who goes on where threads wait for each other, and in which order
        the blocks of a launch come.
    blocks : what `resident_blocks` answers.
    seconds : of CPU time after which a launch is given up.

    Attributes
    ----------
    launches : names of the kernels launched so far, in order.
    """

    sanitize: str = "plain"
    schedule: str = "order"
    blocks: int = 3
    seconds: int = 60
    build_flags: tuple[str, ...] = ()
    launches: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.sanitize not in build.INSTRUMENT or self.schedule.partition(":")[0] not in SCHEDULES:
            raise ValueError(f"no such device: {self}")
        reason = replay.missing(self.sanitize)
        if reason:
            pytest.skip(reason)

    @property
    def order(self) -> tuple[int, int]:
        """The schedule as the engine takes it: kind and seed."""
        name, _, seed = self.schedule.partition(":")
        return SCHEDULES[name], int(seed or 0)

    def kernel(self, source: Any, *, cooperative: bool = False) -> HostKernel:
        """The compiled kernel, callable as ``kernel((blocks,), (threads,), args, shared_mem=bytes)``."""
        library(source, self.build_flags)
        return HostKernel(source, self, cooperative)

    def prepare(self, sources: Iterable[Any]) -> None:
        """Compile kernels side by side."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(build.kernel_library, set(sources)))

    def resident_blocks(self, source: Any, threads: int, shared_bytes: int) -> int:
        """How many blocks cooperative launches may have."""
        return self.blocks

    def free_bytes(self) -> int:
        """As if it were a small GPU."""
        return 2**30

    def asarray(self, values: np.ndarray) -> np.ndarray:
        """A copy of an array in guarded memory."""
        out = self.empty(np.shape(values), np.asarray(values).dtype)
        out[...] = values
        return out

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory with all bits set: NaN, -1."""
        return self.filled(shape, dtype, UNSET)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory filled with zeros."""
        return self.filled(shape, dtype, 0)

    def filled(self, shape: tuple[int, ...], dtype: Any, fill: int) -> np.ndarray:
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return guarded(nbytes, fill).view(dtype).reshape(shape)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """A copy of an array of the device."""
        return np.array(array)
