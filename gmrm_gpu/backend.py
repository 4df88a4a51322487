"""Which array library on which device, and the few operations the array-API standard lacks.

The only module that imports array-api-compat; CuPy is imported inside functions. Everything numerical takes a
`Backend` and uses `backend.xp` alone, so the same lines run on NumPy, CuPy and array-api-strict.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from .errors import ConfigError, DeviceError, MemoryBudgetError
from .limits import cores_left, memory_left

Array = Any

host_namespace = array_api_compat.array_namespace(np.zeros(1))
"""NumPy as the standard has it, for the few numbers that are always computed on the host."""

_OUT_OF_MEMORY = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
_INSTALL_GPU = "pip install 'gmrm-gpu[cuda13]' (or cuda12, to match the driver)"


@dataclass(frozen=True)
class Backend:
    """An array namespace, a device and the working precision.

    Attributes
    ----------
    xp : array-API namespace. device : its device object, or None for the only one.
    dtype : floating dtype of the samples; sums are always float64.
    name : ``"numpy"``, ``"cupy"`` or ``"array_api_strict"``. reason : why this one was chosen, for the records.
    number : of the GPU.
    """

    xp: Any
    device: Any
    dtype: Any
    name: str
    reason: str
    number: int = 0

    def activate(self) -> None:
        """Make the device current in the calling thread; CUDA's current device belongs to a thread."""
        if self.name == "cupy":
            import cupy

            cupy.cuda.Device(self.number).use()

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """Host data (or an array already there) as an array on the device."""
        if dtype is not None:
            return self.xp.asarray(values, dtype=dtype, device=self.device)
        return self.xp.asarray(values, device=self.device)

    def real(self, values: Any) -> Array:
        """`values` in the working precision."""
        return self.asarray(values, dtype=self.dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Zeros on the device, working precision unless told otherwise."""
        return self.xp.zeros(shape, dtype=dtype or self.dtype, device=self.device)

    def arange(self, n: int, dtype: Any = None) -> Array:
        """0..n-1 on the device; int32 unless told otherwise."""
        return self.xp.arange(n, dtype=dtype or self.xp.int32, device=self.device)

    def to_host(self, values: Array) -> np.ndarray:
        """Copy to a NumPy array: the only way off the device."""
        if isinstance(values, np.ndarray):
            return values
        if self.name == "cupy":
            return values.get()
        if self.name == "array_api_strict":
            return np.asarray(array_api_compat.to_device(values, self.xp.Device("CPU_DEVICE")))
        return np.asarray(values)

    def running_sum(self, array: Array, out: Array | None = None) -> Array:
        """Cumulative sum of a 1-D unsigned array in its own type, wrapping; into `out` where arrays allow that."""
        if self.name in ("numpy", "cupy") and out is not None:
            array.cumsum(dtype=array.dtype, out=out)
            return out
        return self.xp.cumulative_sum(array, dtype=array.dtype)

    def count(self, index: Array, weights: Array, size: int) -> Array:
        """(size,) float64 sums of `weights` (float64, 1-D) by `index`; exact, whatever the order, for whole numbers."""
        xp = self.xp
        if self.name in ("numpy", "cupy"):
            return xp.bincount(index, weights=weights, minlength=size)
        order = xp.argsort(index)
        running = xp.cumulative_sum(xp.take(weights, order), include_initial=True)
        edges = xp.searchsorted(xp.take(index, order), self.arange(size + 1, dtype=index.dtype))
        reached = xp.take(running, edges)
        return reached[1:] - reached[:-1]

    def put(self, array: Array, index: Array, values: Array) -> Array:
        """`array` (1-D) with ``array[index] = values``; `index` holds distinct integers. May work in place.

        The standard has no assignment by integer array; NumPy and CuPy do.
        """
        if self.name in ("numpy", "cupy"):
            array[index] = values
            return array
        xp = self.xp
        order = xp.argsort(index)
        ordered = xp.take(index, order)
        everywhere = self.arange(array.shape[0], dtype=index.dtype)
        slot = xp.clip(xp.searchsorted(ordered, everywhere), 0, index.shape[0] - 1)
        hit = xp.take(ordered, slot) == everywhere
        return xp.where(hit, xp.take(values, xp.take(order, slot)), array)


def make_backend(xp: Any, *, device: Any = None, dtype: str = "float32", reason: str = "asked for") -> Backend:
    """A backend on any array-API namespace; `dtype` is ``"float32"`` or ``"float64"``."""
    namespace = array_api_compat.array_namespace(xp.zeros(1))
    name = getattr(xp, "__name__", str(xp)).rpartition(".")[2]
    return Backend(namespace, device, getattr(namespace, dtype), name, reason)


def get_backend(device: str = "auto", dtype: str = "float32") -> Backend:
    """The backend for ``--device auto|cpu|gpu|gpu:N``.

    Raises
    ------
    DeviceError
        ``"gpu"`` where none can be used, with the reason and the install command. ``"auto"`` falls back to the
        CPU and keeps the reason in `Backend.reason`.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (number and not number.isdigit()):
        raise ConfigError(f"device is {device!r}; use auto, cpu, gpu or gpu:1")
    if kind == "cpu":
        return make_backend(np, dtype=dtype, reason="the CPU was asked for")
    usable, reason = probe_gpu(int(number or 0))
    if usable:
        import cupy

        backend = replace(make_backend(cupy, dtype=dtype, reason=reason), number=int(number or 0))
        backend.activate()
        return backend
    if kind == "gpu":
        raise DeviceError(f"no usable GPU: {reason}")
    return make_backend(np, dtype=dtype, reason=f"no usable GPU: {reason}")


@lru_cache
def probe_gpu(number: int = 0) -> tuple[bool, str]:
    """Whether a GPU works, proved by compiling and running a kernel on it, and what was found.

    ``cupy.is_available()`` only counts devices, which says nothing about driver or compiler.
    """
    try:
        import cupy
    except ImportError:
        return False, f"CuPy is not installed; {_INSTALL_GPU}"
    except Exception as error:
        return False, f"CuPy does not load ({_one_line(error)}); {_INSTALL_GPU}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return False, f"CUDA does not start ({_one_line(error)}); install or update NVIDIA's driver"
    if count <= number:
        return False, f"there is no GPU {number}; GPUs on this machine: {count}, counted from 0"
    try:
        with cupy.cuda.Device(number):
            x = cupy.zeros(1, dtype=cupy.int32)
            source = 'extern "C" __global__ void probe(int* x) { x[0] = 42; }'
            cupy.RawKernel(source, "probe")((1,), (1,), (x,))
            if int(x[0]) != 42:
                return False, "a test kernel ran but gave a wrong answer"
            name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
    except Exception as error:
        return False, f"a test kernel failed ({_one_line(error)})"
    return True, f"{name}: a test kernel compiled and ran"


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def free_memory(backend: Backend) -> int:
    """Bytes free on the backend's device; on the CPU what the system says is available, and no more than a container or
    a batch system leaves to this process."""
    if backend.name == "cupy":
        import cupy

        # What CuPy's pool keeps for the next arrays is as good as free.
        return int(cupy.cuda.runtime.memGetInfo()[0]) + int(cupy.get_default_memory_pool().free_bytes())
    left = memory_left()
    return _available() if left is None else min(_available(), left)


def _available() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2 * 2**30


def release_memory(backend: Backend) -> None:
    """Hand back what nothing uses any more: garbage, and what CuPy's pools keep for the next arrays."""
    gc.collect()
    if backend.name == "cupy":
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for an array or a kernel: less at a time may fit."""
    if isinstance(error, MemoryError):  # CuPy's OutOfMemoryError is one
        return not isinstance(error, MemoryBudgetError)
    # CUDA's own errors tell the name of a code.
    return isinstance(error, RuntimeError) and any(code in str(error) for code in _OUT_OF_MEMORY)


def n_cores() -> int:
    """Cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(cores, cores_left() or cores)
