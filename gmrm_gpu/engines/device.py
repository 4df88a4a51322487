"""Kernels on an NVIDIA GPU through CuPy, which is imported inside functions alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, n_cores, ran_out_of_memory
from ..errors import DeviceError, DeviceMemoryError
from .nvrtc import Compiler, choose_arch, compile_kernel, find_compiler
from .source import KernelSource, shared_bytes

if TYPE_CHECKING:
    from .fused.launch import Device

ALWAYS_ALLOWED = 48 * 1024
"""Bytes of shared memory that a block may have without being asked for by an attribute."""

MAX_SHARED_CARVEOUT = 100
"""Per cent of an SM's memory as shared memory rather than cache, so that several large blocks fit."""


class CudaDevice:
    """A GPU, as the `Device` that fused kernels run on.

    Usable from several threads. Everything runs on the calling thread's current CuPy stream.

    Attributes
    ----------
    number : of the GPU. capability : its compute capability, 10 x major + minor.
    arch : what kernels are compiled for. compiler : with what.
    multiprocessors : of the GPU. max_shared_bytes : that one block may have.

    Raises
    ------
    DeviceError
        where NVRTC is missing or does not know the GPU.
    """

    def __init__(self, number: int = 0, *, compiler: Compiler | None = None) -> None:
        import cupy

        runtime = cupy.cuda.runtime
        self.number = number
        self._cupy = cupy
        self._lock = RLock()
        self._kernels: dict[tuple[KernelSource, bool], CudaKernel] = {}
        self.capability = int(cupy.cuda.Device(number).compute_capability)
        self.multiprocessors = int(runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, number))
        self.max_shared_bytes = int(runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, number))
        self.compiler = compiler or find_compiler(runtime.driverGetVersion() // 1000)
        self.arch = choose_arch(self.capability, self.compiler)

    def prepare(self, sources: Iterable[KernelSource]) -> None:
        """Compile kernels side by side, on all cores, before the first is needed; loaded ones are left alone."""
        with self._lock:
            loaded = {source for source, _ in self._kernels}
        wanted = set(sources) - loaded
        if not wanted:
            return
        with ThreadPoolExecutor(n_cores()) as pool:
            list(pool.map(lambda source: compile_kernel(source, self.arch, compiler=self.compiler), wanted))

    def kernel(self, source: KernelSource, *, cooperative: bool = False) -> CudaKernel:
        """The kernel, compiled and loaded at its first use."""
        with self._lock:
            kernel = self._kernels.get((source, cooperative))
            if kernel is None:
                raw = self._load(source, cooperative)
                kernel = self._kernels[source, cooperative] = CudaKernel(self, source, raw, cooperative)
            return kernel

    def _load(self, source: KernelSource, cooperative: bool) -> Any:
        compiled = compile_kernel(source, self.arch, compiler=self.compiler)
        with self.current(), TemporaryDirectory(prefix="gmrm_gpu_") as folder:
            path = Path(folder) / (source.name + (".ptx" if self.arch.startswith("compute_") else ".cubin"))
            path.write_bytes(compiled.binary.rstrip(b"\0") if path.suffix == ".ptx" else compiled.binary)
            # `get_function` loads the file at once, for the current GPU.
            module = self._cupy.RawModule(path=str(path), enable_cooperative_groups=cooperative)
            with _told(f"kernel {source.name}, made for {self.arch} by {self.compiler.label}, does not load"):
                return module.get_function(source.name)

    def resident_blocks(self, source: KernelSource, threads: int, shared_bytes: int) -> int:
        """How many blocks of a kernel the whole GPU holds at once."""
        return self.kernel(source, cooperative=True).resident_blocks(threads, shared_bytes)

    def asarray(self, values: np.ndarray) -> Array:
        """A copy of a host array on the GPU, contiguous."""
        with self.current():
            return self._cupy.asarray(np.ascontiguousarray(values))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory whose content is undefined."""
        with self.current():
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory filled with zeros, by a memset."""
        with self.current():
            return self._cupy.zeros(shape, dtype)

    def to_host(self, array: Array) -> np.ndarray:
        """Wait for everything before on this stream, and copy."""
        with self.current():
            return self._cupy.asnumpy(array)

    def synchronize(self) -> None:
        """Wait for everything on the GPU."""
        with self.current():
            self._cupy.cuda.Device(self.number).synchronize()

    def free_bytes(self) -> int:
        """What arrays may take: free on the GPU, or kept by CuPy's pool for the next arrays."""
        with self.current():
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def describe(self) -> dict[str, str]:
        """GPU, driver, CuPy and compiler, for the records."""
        return describe_gpu(self.number) | {"nvrtc": "{}.{}".format(*self.compiler.version), "arch": self.arch}

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU current in this thread; running out of its memory is a `DeviceMemoryError`."""
        with self._cupy.cuda.Device(self.number):
            try:
                yield
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, (DeviceError, DeviceMemoryError)) or not ran_out_of_memory(error):
                    raise
                raise DeviceMemoryError(f"the GPU is out of memory: {error}") from error


@lru_cache
def get_device(number: int = 0) -> CudaDevice:
    """The device of that number, one a process, so that its kernels are loaded once."""
    return CudaDevice(number)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say of CUDA's errors, other than too little memory, where they arose."""
    try:
        yield
    except RuntimeError as error:
        if ran_out_of_memory(error):
            raise
        raise DeviceError(f"{what}: {error}") from error


class CudaKernel:
    """A loaded kernel, called as CuPy's RawKernel is, with stricter arguments."""

    def __init__(self, device: CudaDevice, source: KernelSource, raw: Any, cooperative: bool) -> None:
        self._device = device
        self._name = source.name
        self._raw = raw
        self._cooperative = cooperative
        self._allowed = ALWAYS_ALLOWED

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0) -> None:
        """Launch and do not wait; a grid without blocks is no launch."""
        if 0 in grid:
            return
        converted = tuple(self._argument(i, value) for i, value in enumerate(args))
        with self._device.current():
            self._allow(shared_mem)
            if self._cooperative:
                self._check_resident(prod(grid), prod(block), shared_mem)
            size = f"{grid} blocks of {block} threads with {shared_mem} bytes of shared memory"
            with _told(f"kernel {self._name} did not start as {size}"):
                self._raw(grid, block, converted, shared_mem=shared_mem)

    def resident_blocks(self, threads: int, shared_bytes: int) -> int:
        """How many blocks the whole GPU holds at once."""
        with self._device.current():
            self._allow(shared_bytes)
            driver = self._device._cupy.cuda.driver
            blocks = driver.occupancyMaxActiveBlocksPerMultiprocessor(self._raw.kernel.ptr, threads, shared_bytes)
        return int(blocks) * self._device.multiprocessors

    def _check_resident(self, blocks: int, threads: int, shared_mem: int) -> None:
        """Refuse more blocks than run at once: CuPy would start fewer, which then wait for the others for ever."""
        limit = self.resident_blocks(threads, shared_mem)
        if blocks > limit:
            raise DeviceError(f"kernel {self._name} needs {blocks} blocks at once; the GPU holds {limit}")

    def _allow(self, shared_mem: int) -> None:
        """Allow a block this much shared memory: more than 48 KB has to be asked for."""
        if shared_mem <= self._allowed:
            return
        if shared_mem > self._device.max_shared_bytes:
            limit = self._device.max_shared_bytes
            raise DeviceError(f"kernel {self._name} needs {shared_mem} bytes of shared memory a block; {limit} is all")
        self._raw.max_dynamic_shared_size_bytes = shared_mem
        self._raw.preferred_shared_memory_carveout = MAX_SHARED_CARVEOUT
        self._allowed = shared_mem

    def _argument(self, position: int, value: Any) -> Any:
        """What CuPy passes as it is: an array's pointer, a scalar of NumPy's type, or a null pointer."""
        if value is None:
            return np.uint64(0)
        if isinstance(value, np.generic):
            return value
        what = f"argument {position} of kernel {self._name}"
        if not isinstance(value, self._device._cupy.ndarray):
            raise TypeError(f"{what} is a {type(value).__name__}: give an array of the GPU or a NumPy scalar")
        if not value.flags.c_contiguous:
            raise ValueError(f"{what} is not contiguous")
        return value


def describe_gpu(number: int = 0) -> dict[str, str]:
    """Name, memory, compute capability, driver and CuPy of a GPU; needs no compiler."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(number)
    version, release = runtime.driverGetVersion(), _driver_release()
    cuda = f"CUDA {version // 1000}.{version % 1000 // 10}"
    return {
        "gpu": properties["name"].decode(),
        "memory": f"{properties['totalGlobalMem'] / 1e9:.1f} GB",
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "driver": f"{release} ({cuda})" if release else cuda,
        "cupy": cupy.__version__,
    }


def _driver_release(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """``"580.65.06"`` where the system tells; CUDA itself only tells the newest CUDA that the driver knows."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d{3,}\.[\d.]+)", path.read_text("ascii", "replace"))
    except OSError:
        return None
    return found[1] if found else None


def count_gpus() -> int:
    """GPUs that CUDA knows of; 0 without CuPy or a driver."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # what a missing or old driver raises is of several kinds
        return 0


PROBE = KernelSource("probe", "probe.cu")


def probe_kernels(device: Device, *, shared: int = 0) -> None:
    """Compile and run `PROBE`, plainly and cooperatively; `shared` bytes a block at least.

    Raises
    ------
    DeviceError
        where the answer is wrong; what else a device raises where it cannot.
    """
    blocks, threads, offset = 3, 64, 1000
    memory = max(shared, shared_bytes(4 * threads))
    expected = np.tile(offset + 2.0 * (np.arange(threads)[::-1] + 496), (blocks, 1))
    scalars = (np.uint32(2), np.int64(offset), np.float32(1), np.float64(0))
    for cooperative in (False, True):
        out = device.zeros((blocks, threads), np.float32)
        device.kernel(PROBE, cooperative=cooperative)((blocks,), (threads,), (out, None, *scalars), shared_mem=memory)
        if not np.array_equal(device.to_host(out), expected):
            raise DeviceError("a test kernel ran but gave a wrong answer")
