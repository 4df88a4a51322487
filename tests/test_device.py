"""A GPU as kernels see it, on a stand-in for CuPy: what is asked of CUDA, and what is refused."""

import io
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gmrm_gpu import backend
from gmrm_gpu.cli import doctor, main
from gmrm_gpu.cli.console import Console
from gmrm_gpu.config import AnalysisConfig
from gmrm_gpu.engines import device as module
from gmrm_gpu.engines import nvrtc, select_engine
from gmrm_gpu.engines.device import PROBE, CudaDevice, count_gpus, describe_gpu, probe_kernels
from gmrm_gpu.engines.nvrtc import Compiled
from gmrm_gpu.engines.source import KernelSource
from gmrm_gpu.errors import DeviceError, DeviceMemoryError

HOPPER = {"name": b"NVIDIA H200", "totalGlobalMem": 150_000_000_000, "major": 9, "minor": 0}


class CUDADriverError(RuntimeError):
    pass


class Array(np.ndarray):
    """An array of the GPU."""


def on_gpu(values):
    return np.array(values).view(Array)


class Raw:
    """A RawKernel."""

    def __init__(self, cuda, path, name, cooperative):
        with open(path, "rb") as file:
            self.binary = file.read()
        self.cuda, self.name, self.cooperative = cuda, name, cooperative
        self.kernel = SimpleNamespace(ptr=4711)
        self.attributes = []

    def __setattr__(self, name, value):
        if name in ("max_dynamic_shared_size_bytes", "preferred_shared_memory_carveout"):
            self.attributes.append((name, value))
        super().__setattr__(name, value)

    def __call__(self, grid, block, args, *, shared_mem):
        self.cuda.launches.append((self, grid, block, args, shared_mem, self.cuda.current[-1]))
        self.cuda.run(*args)


class FakeCuda:
    """The part of CuPy that is used, and what was done with it."""

    def __init__(self):
        self.launches, self.modules, self.current, self.compiled = [], [], [None], []
        self.count = 2

    def run(self, *args):
        """What a kernel does."""

    @contextmanager
    def device(self, number):
        self.current.append(number)
        yield
        self.current.pop()

    def module(self, *, path, enable_cooperative_groups):
        self.modules.append(path)
        get = lambda name: Raw(self, path, name, enable_cooperative_groups)  # noqa: E731
        return SimpleNamespace(get_function=get)

    def namespace(self):
        def device(number):
            found = self.device(number)
            found.compute_capability = "90"
            return found

        runtime = SimpleNamespace(
            cudaDevAttrMultiProcessorCount=16,
            cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
            deviceGetAttribute=lambda which, number: {16: 132, 97: 232448}[which],
            driverGetVersion=lambda: 13020,
            getDeviceCount=lambda: self.count,
            getDeviceProperties=lambda number: HOPPER,
            memGetInfo=lambda: (1000, 5000),
        )
        driver = SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda pointer, threads, shared: 3)
        return SimpleNamespace(
            __version__="14.2.0",
            ndarray=Array,
            asarray=on_gpu,
            empty=lambda shape, dtype: on_gpu(np.empty(shape, dtype)),
            zeros=lambda shape, dtype: on_gpu(np.zeros(shape, dtype)),
            asnumpy=np.array,
            RawModule=self.module,
            get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 234),
            cuda=SimpleNamespace(Device=device, runtime=runtime, driver=driver),
        )


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cupy", fake.namespace())

    def compile_kernel(source, arch, *, compiler):
        fake.compiled.append((source, arch))
        return Compiled(source.name, arch, b"binary of " + arch.encode(), "", 1, 0, 0, 0)

    monkeypatch.setattr(module, "compile_kernel", compile_kernel)
    compiler = SimpleNamespace(archs=(80, 90, 100), version=(13, 0), label="NVRTC 13.0")
    monkeypatch.setattr(module, "find_compiler", lambda newest: compiler)
    return fake


def test_a_kernel_is_compiled_and_loaded_once_for_its_gpu(cuda):
    device = CudaDevice(1)
    assert (device.number, device.capability, device.arch) == (1, 90, "sm_90")
    kernel = device.kernel(PROBE)
    assert device.kernel(PROBE) is kernel
    assert device.kernel(PROBE, cooperative=True) is not kernel
    assert cuda.compiled == [(PROBE, "sm_90")] * 2
    assert [path.endswith("/probe.cubin") for path in cuda.modules] == [True, True]
    kernel((7,), (64,), (), shared_mem=16)
    device.kernel(PROBE, cooperative=True)((1,), (32,), ())
    assert [(raw.cooperative, raw.binary, *rest) for raw, *rest in cuda.launches] == [
        (False, b"binary of sm_90", (7,), (64,), (), 16, 1),
        (True, b"binary of sm_90", (1,), (32,), (), 0, 1),
    ]


def test_kernels_are_compiled_before_they_are_needed(cuda):
    other = KernelSource("probe", "probe.cu", (("N", 1),))
    CudaDevice().prepare([PROBE, other, PROBE])
    assert sorted(cuda.compiled, key=str) == sorted([(PROBE, "sm_90"), (other, "sm_90")], key=str)
    assert cuda.modules == []


def test_a_gpu_newer_than_the_compiler_gets_ptx(cuda):
    device = CudaDevice(compiler=SimpleNamespace(archs=(75, 80), version=(12, 0), label="NVRTC 12.0"))
    device.kernel(PROBE)
    assert device.arch == "compute_80"
    assert cuda.modules[0].endswith("/probe.ptx")


def test_arguments_are_arrays_of_the_gpu_numpy_scalars_or_nothing(cuda):
    device = CudaDevice()
    array = device.asarray(np.arange(12.0).reshape(3, 4)[:, ::2])
    assert array.flags.c_contiguous
    kernel = device.kernel(PROBE)
    kernel((1,), (32,), (array, None, np.float32(0.5), np.int64(3)))
    passed = cuda.launches[0][3]
    assert passed[0] is array
    assert [(type(value), value) for value in passed[1:]] == [
        (np.uint64, 0),
        (np.float32, 0.5),
        (np.int64, 3),
    ]
    for wrong in (1, 0.5, np.zeros(3), [array]):
        with pytest.raises(TypeError, match=r"argument 1 of kernel probe is a .*: give an array of the GPU"):
            kernel((1,), (32,), (array, wrong))
    with pytest.raises(ValueError, match="argument 0 of kernel probe is not contiguous"):
        kernel((1,), (32,), (array[:, 1],))
    assert len(cuda.launches) == 1


def test_a_grid_without_blocks_is_no_launch(cuda):
    CudaDevice().kernel(PROBE)((0,), (32,), ())
    assert cuda.launches == []


def test_blocks_that_wait_for_each_other_must_all_fit(cuda):
    device = CudaDevice()
    device.kernel(PROBE)((100_000,), (32,), ())
    kernel = device.kernel(PROBE, cooperative=True)
    kernel((396,), (32,), ())
    with pytest.raises(DeviceError, match="kernel probe needs 397 blocks at once; the GPU holds 396"):
        kernel((397,), (32,), ())
    assert [launch[1] for launch in cuda.launches] == [(100_000,), (396,)]


def test_more_than_48_kb_of_shared_memory_is_asked_for_once(cuda):
    kernel = CudaDevice().kernel(PROBE)
    for size in (0, 49152, 49168, 50000, 49168, 232448):
        kernel((1,), (32,), (), shared_mem=size)
    asked = [value for name, value in cuda.launches[0][0].attributes if name == "max_dynamic_shared_size_bytes"]
    assert asked == [49168, 50000, 232448]
    with pytest.raises(DeviceError, match="kernel probe needs 232449 bytes of shared memory a block; 232448 is all"):
        kernel((1,), (32,), (), shared_mem=232449)


def test_resident_blocks(cuda):
    device = CudaDevice()
    assert device.resident_blocks(PROBE, 128, 100_000) == 3 * 132
    raw = device.kernel(PROBE, cooperative=True)._raw
    assert raw.attributes == [("max_dynamic_shared_size_bytes", 100_000), ("preferred_shared_memory_carveout", 100)]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Out of memory allocating 5,000 bytes"),
        CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    ],
)
def test_out_of_memory_is_one_error_wherever_it_comes_from(cuda, error, monkeypatch):
    def explode(*args):
        raise error

    monkeypatch.setattr(cuda, "run", explode)
    device = CudaDevice()
    monkeypatch.setattr(sys.modules["cupy"], "empty", explode)
    for act in (lambda: device.empty((3,), np.float32), lambda: device.kernel(PROBE)((1,), (32,), ())):
        with pytest.raises(DeviceMemoryError, match=r"the GPU is out of memory: .*emory"):
            act()
    assert issubclass(DeviceMemoryError, MemoryError)


def test_a_binary_that_the_driver_refuses_tells_who_made_it(cuda, monkeypatch):
    def refuse(**options):
        def explode(name):
            raise CUDADriverError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: unsupported toolchain")

        return SimpleNamespace(get_function=explode)

    monkeypatch.setattr(sys.modules["cupy"], "RawModule", refuse)
    told = r"kernel probe, made for sm_90 by NVRTC 13\.0, does not load: CUDA_ERROR_UNSUPPORTED_PTX"
    with pytest.raises(DeviceError, match=told):
        CudaDevice().kernel(PROBE)


def test_a_launch_that_fails_tells_its_size(cuda, monkeypatch):
    def explode(*args):
        raise CUDADriverError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested for launch")

    monkeypatch.setattr(cuda, "run", explode)
    told = r"kernel probe did not start as \(5,\) blocks of \(1024,\) threads with 64 bytes .*LAUNCH_OUT_OF_RESOURCES"
    with pytest.raises(DeviceError, match=told):
        CudaDevice().kernel(PROBE)((5,), (1024,), (), shared_mem=64)


def test_arrays_come_and_go(cuda):
    device = CudaDevice()
    assert device.to_host(device.zeros((2, 3), np.int32)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert device.empty((4,), np.float64).shape == (4,)
    assert device.free_bytes() == 1234


def test_records(cuda, tmp_path, monkeypatch):
    release = tmp_path / "version"
    release.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version 12.345"
    )
    assert module._driver_release(release) == "580.65.06"
    release.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n")
    assert module._driver_release(release) == "535.183.01"
    assert module._driver_release(tmp_path / "none") is None
    monkeypatch.setattr(module, "_driver_release", lambda: "580.65.06")
    assert CudaDevice().describe() == {
        "gpu": "NVIDIA H200",
        "memory": "150.0 GB",
        "compute_capability": "9.0",
        "driver": "580.65.06 (CUDA 13.2)",
        "cupy": "14.2.0",
        "nvrtc": "13.0",
        "arch": "sm_90",
    }
    monkeypatch.setattr(module, "_driver_release", lambda: None)
    assert describe_gpu(1)["driver"] == "CUDA 13.2"


def probe_answer(out, nothing, scale, offset, one, zero):
    """What probe.cu writes."""
    threads = np.arange(out.shape[1])[::-1]
    out[:] = int(offset) + int(scale) * (threads + 496)


def test_the_probe_believes_right_answers_alone(cuda, monkeypatch):
    device = CudaDevice()
    monkeypatch.setattr(cuda, "run", probe_answer)
    probe_kernels(device, shared=100_000)
    assert [(raw.cooperative, shared) for raw, _, _, _, shared, _ in cuda.launches] == [
        (False, 100_000),
        (True, 100_000),
    ]
    monkeypatch.setattr(cuda, "run", lambda out, *rest: out.fill(0))
    with pytest.raises(DeviceError, match="wrong answer"):
        probe_kernels(device)


def test_one_device_a_process(cuda):
    module.get_device.cache_clear()
    assert module.get_device(1) is module.get_device(1)
    assert module.get_device(1) is not module.get_device(0)
    module.get_device.cache_clear()


def test_without_a_compiler_the_generic_engine_works_on(cuda, monkeypatch):
    module.get_device.cache_clear()
    gpu = replace(backend.make_backend(np), name="cupy", number=1)
    auto = AnalysisConfig().resolved
    fused = replace(auto, compute=replace(auto.compute, engine="fused"))
    assert select_engine(gpu, auto, (64, 64), np.dtype(np.uint8)).device.number == 1
    module.get_device.cache_clear()

    def explode(newest):
        raise DeviceError("NVRTC was not found; pip install it")

    monkeypatch.setattr(module, "find_compiler", explode)
    engine = select_engine(gpu, auto, (64, 64), np.dtype(np.uint8))
    assert engine.name == "generic"
    assert engine.reason.endswith("not the CUDA kernels because NVRTC was not found; pip install it")
    assert engine.no_kernels == "NVRTC was not found; pip install it"
    with pytest.raises(DeviceError, match="NVRTC was not found"):
        select_engine(gpu, fused, (64, 64), np.dtype(np.uint8))


usable, reason = backend.probe_gpu()


@pytest.mark.gpu
@pytest.mark.skipif(not usable, reason=f"no usable GPU: {reason}")
def test_a_real_gpu_runs_the_probe():
    device = CudaDevice()
    probe_kernels(device)
    probe_kernels(device, shared=device.max_shared_bytes)
    assert device.resident_blocks(PROBE, 64, device.max_shared_bytes) == device.multiprocessors
    told = device.describe()
    assert told["gpu"]
    assert told["arch"] == device.arch
    with pytest.raises(DeviceMemoryError):
        device.empty((2**50,), np.uint8)


# ---------------------------------------------------------------- what the command line says


def test_no_gpus_without_a_driver(cuda, monkeypatch):
    assert count_gpus() == 2

    def explode():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", explode)
    assert count_gpus() == 0
    usable, reason = backend.probe_gpu.__wrapped__(0)
    assert not usable
    assert reason.startswith("CUDA does not start (cudaErrorInsufficientDriver")
    assert "driver" in reason


def test_a_gpu_that_is_not_there(cuda):
    assert backend.probe_gpu.__wrapped__(2) == (False, "there is no GPU 2; GPUs on this machine: 2, counted from 0")


def test_doctor_tells_every_gpu_and_runs_a_kernel_on_it(cuda, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "probe_gpu", lambda: (True, "NVIDIA H200: a test kernel compiled and ran"))
    monkeypatch.setattr(module, "_driver_release", lambda: None)
    monkeypatch.setenv("GMRM_GPU_CACHE", str(tmp_path))

    def run(*args):
        if cuda.current[-1] == 1:
            raise CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
        probe_answer(*args)

    monkeypatch.setattr(cuda, "run", run)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    what = "NVIDIA H200, 150.0 GB, compute capability 9.0, driver CUDA 13.2"
    assert f"gpu 0            {what}; kernels compiled for sm_90 and ran\n" in out
    assert f"gpu 1            {what}; kernels do not run (kernel probe did not start" in out
    assert f"kernel cache     {tmp_path}: empty\n" in out
    (tmp_path / "a.kernel").write_bytes(bytes(1_500_000))
    monkeypatch.setattr(doctor, "describe_gpu", lambda number: {}["gpu"])
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"kernel cache     {tmp_path}: 1 kernel, 1.5 MB\n" in out
    assert "gpu 0            does not answer ('gpu')\n" in out


def test_doctor_tells_the_compiler(monkeypatch, capsys):
    compiler = SimpleNamespace(archs=(75, 90, 121), version=(13, 0), path="/some/libnvrtc.so.13")
    monkeypatch.setattr(doctor, "find_compiler", lambda: compiler)
    assert main(["doctor"]) == 0
    assert (
        "nvrtc            13.0, for compute capability 7.5 to 12.1: /some/libnvrtc.so.13\n" in capsys.readouterr().out
    )

    def explode():
        raise DeviceError("NVRTC was not found; pip install something")

    monkeypatch.setattr(doctor, "find_compiler", explode)
    assert main(["doctor"]) == 0
    assert "nvrtc            not usable: NVRTC was not found; pip install something\n" in capsys.readouterr().out


def test_the_command_line_says_that_kernels_are_compiled(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr(nvrtc, "_announced", set())
    console = Console(quiet=False)
    nvrtc._announce("sm_75")
    with console.listening():
        nvrtc._announce("sm_90")
        nvrtc._announce("sm_90")
    nvrtc._announce("sm_80")
    console.close()
    assert written.getvalue() == "gmrm-gpu: compiling CUDA kernels for sm_90, once for this GPU\n"
    assert not nvrtc.logger.isEnabledFor(20)  # in the library: silent
