"""What is measured: a device with a clock of its own, and what is known of it. On a GPU, or in tests anything else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gmrm_gpu.backend import Backend, get_backend, probe_gpu
from gmrm_gpu.engines import FusedEngine, GenericEngine
from gmrm_gpu.engines.fused.launch import Device, Kernel
from gmrm_gpu.engines.nvrtc import compile_kernel
from gmrm_gpu.engines.source import KernelSource
from gmrm_gpu.errors import GmrmError


class Clock(Protocol):
    """Marks in the order of the device's work, and the seconds between them."""

    def mark(self) -> Any:
        """A point in the device's work; does not wait."""

    def between(self, first: Any, second: Any) -> float:
        """Seconds from one mark to another; waits for the second."""

    def wait(self) -> None:
        """Until the device has nothing to do."""


class HostClock:
    """For a device that works while it is called."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        """Seconds."""
        return second - first

    def wait(self) -> None:
        """Nothing to wait for."""


class CudaClock:
    """CUDA events on the stream that the engine uses, the calling thread's current one of GPU `number`."""

    def __init__(self, number: int) -> None:
        import cupy

        self._cuda, self._number = cupy.cuda, number

    def mark(self) -> Any:
        """An event in the stream."""
        with self._cuda.Device(self._number):
            event = self._cuda.Event()
            event.record(self._cuda.get_current_stream())
        return event

    def between(self, first: Any, second: Any) -> float:
        """Seconds; CUDA tells milliseconds."""
        with self._cuda.Device(self._number):
            second.synchronize()
            return self._cuda.get_elapsed_time(first, second) / 1e3

    def wait(self) -> None:
        """For all streams of the GPU."""
        self._cuda.Device(self._number).synchronize()


@dataclass(frozen=True)
class Ran:
    """A kernel launch, or an upload of `n_bytes`, between two marks."""

    name: str
    blocks: int
    threads: int
    shared_bytes: int
    first: Any
    last: Any
    n_bytes: int = 0


class WatchedDevice:
    """A `Device` that notes when each launch and each upload begins and ends; all else is the device's own."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device, self._clock = device, clock
        self.launches: list[Ran] = []
        self.uploads: list[Ran] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def kernel(self, source: KernelSource, *, cooperative: bool = False) -> Kernel:
        """The device's kernel, watched."""
        kernel = self._device.kernel(source, cooperative=cooperative)

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0) -> None:
            first = self._clock.mark()
            kernel(grid, block, args, shared_mem=shared_mem)
            if 0 not in grid:
                ran = Ran(source.name, grid[0], block[0], shared_mem, first, self._clock.mark())
                self.launches.append(ran)

        return launch

    def asarray(self, values: np.ndarray) -> Any:
        """The device's array of it, watched."""
        first = self._clock.mark()
        array = self._device.asarray(values)
        self.uploads.append(Ran("upload", 0, 0, 0, first, self._clock.mark(), values.nbytes))
        return array

    def forget(self) -> None:
        """Whatever was noted."""
        self.launches, self.uploads = [], []

    def stages(self) -> dict[str, float]:
        """Seconds of each kernel, in the order of their first launch, and of the uploads."""
        self._clock.wait()
        found: dict[str, float] = {}
        for ran in (*self.launches, *self.uploads):
            found[ran.name] = found.get(ran.name, 0.0) + self._clock.between(ran.first, ran.last)
        return found


@dataclass
class Rig:
    """A device to measure.

    Attributes
    ----------
    what : words for the records. backend : of arrays on the same device. device : for kernels.
    multiprocessors, arch : None where there are no such things. clock_hz : the highest. bus : for `nvidia-smi`.
    user_device : as in `ComputeConfig`, for what users call. publish : whether a figure may be kept.
    pool : of the arrays' memory.
    """

    what: dict[str, Any]
    backend: Backend
    device: Device
    clock: Clock
    multiprocessors: int | None = None
    clock_hz: float | None = None
    bus: str | None = None
    arch: str | None = None
    user_device: str | None = None
    publish: bool = False
    pool: Any = field(default=None, repr=False)

    def watched(self) -> tuple[FusedEngine, WatchedDevice]:
        """A new fused engine, nothing of an earlier movie in it, and the device that watches it."""
        device = WatchedDevice(self.device, self.clock)
        return FusedEngine(GenericEngine(self.backend, "benchmark"), device, "benchmark"), device

    def free(self) -> None:
        """Give back memory that arrays no longer use, so that the next high-water mark is its own."""
        self.clock.wait()
        if self.pool is not None:
            self.pool.free_all_blocks()

    def high_water(self) -> int | None:
        """Bytes that the pool of arrays has taken from the device since `free`."""
        return None if self.pool is None else int(self.pool.total_bytes())

    def prepare(self, sources: Iterable[KernelSource]) -> None:
        """Compile side by side, where the device can."""
        compile_all: Callable[[Iterable[KernelSource]], None] | None = getattr(self.device, "prepare", None)
        if compile_all is not None:
            compile_all(sources)

    def binary(self, source: KernelSource) -> bytes | None:
        """Machine code of a kernel; None where it is none."""
        if self.arch is None or not self.arch.startswith("sm_"):
            return None
        return compile_kernel(source, self.arch).binary

    def clock_during(self, work: Callable[[], Any]) -> tuple[float | None, Any]:
        """Hz of the multiprocessors some 0.1 s after `work` begins, which has to take longer; None: not known."""
        answer = ask_clock(self.bus, "clocks.sm")
        out = work()
        return answer(), out

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds on the wall until the device is done, and what came out."""
        self.clock.wait()
        started = time.perf_counter()
        out = work()
        self.clock.wait()
        return time.perf_counter() - started, out


def ask_clock(bus: str | None, which: str) -> Callable[[], float | None]:
    """Begin to ask `nvidia-smi` for a clock; the answer is in Hz, None where there is none."""
    command = ["nvidia-smi", f"--query-gpu={which}", "--format=csv,noheader,nounits", "-i", str(bus)]
    try:
        asked = None if bus is None else subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        asked = None

    def answer() -> float | None:
        if asked is None:
            return None
        try:
            return 1e6 * float(asked.communicate(timeout=10)[0])
        except (ValueError, subprocess.TimeoutExpired):
            asked.kill()
            return None

    return answer


def open_gpu(number: int = 0) -> Rig:
    """The GPU of that number.

    Raises
    ------
    GmrmError
        There is none that works, with the reason and the install command.
    """
    usable, reason = probe_gpu(number)
    if not usable:
        raise GmrmError(reason)
    import cupy

    from gmrm_gpu.engines.device import CudaDevice

    backend = get_backend(f"gpu:{number}")
    device = CudaDevice(number)
    runtime = cupy.cuda.runtime
    bus = runtime.deviceGetPCIBusId(number)
    # Of the two the higher, so that no floor is too high: CUDA tells kHz, of some GPUs not the highest, or 0.
    clocks = (1e3 * runtime.deviceGetAttribute(runtime.cudaDevAttrClockRate, number), ask_clock(bus, "clocks.max.sm")())
    return Rig(
        what={"device": "gpu", **device.describe()},
        backend=backend,
        device=device,
        clock=CudaClock(number),
        multiprocessors=device.multiprocessors,
        clock_hz=max(hz or 0.0 for hz in clocks) or None,
        bus=bus,
        arch=device.arch,
        user_device=f"gpu:{number}",
        publish=True,
        pool=cupy.get_default_memory_pool(),
    )
