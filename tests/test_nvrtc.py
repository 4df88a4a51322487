"""Kernels compile for every architecture within their registers; binaries are kept, checked and told apart."""

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from host import build
from kernel_instances import ARCHITECTURES, REGISTERS, instances

from gmrm_gpu.backend import n_cores
from gmrm_gpu.engines import nvrtc, source
from gmrm_gpu.engines.nvrtc import cache_content, cache_folder, choose_arch, compile_kernel, find_compiler
from gmrm_gpu.engines.source import KernelSource
from gmrm_gpu.errors import DeviceError

SPILL_FREE_FROM = 80

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the test extra brings NVRTC on Linux alone")


@dataclass(frozen=True)
class Given(KernelSource):
    """A kernel that stands in no file."""

    given: str = 'extern "C" __global__ void tiny(float* x) { x[threadIdx.x] *= 2.0f; }'

    @property
    def text(self):
        return self.given


TINY = Given("tiny", "tiny.cu")


def case(instance, arch):
    marks = () if arch in instance.archs else pytest.mark.slow
    return pytest.param(instance, arch, id=f"{instance.label}-{arch}", marks=marks)


CASES = [case(instance, arch) for instance in instances() for arch in ARCHITECTURES]


@pytest.fixture(scope="session")
def compile_instance(request):
    """Compiles an instance, or finds it compiled by an earlier run; all of this run ahead and on all cores, unless
    pytest-xdist keeps the cores busy."""

    def compiled(instance, arch):
        return compile_kernel(instance.source, arch, folder=build.cache_folder())

    if "PYTEST_XDIST_WORKER" in os.environ:
        yield compiled
        return
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = {(p["instance"], p["arch"]): None for p in params if {"instance", "arch"} <= set(p)}
    with ThreadPoolExecutor(n_cores()) as pool:
        futures = {case: pool.submit(compiled, *case) for case in wanted}
        yield lambda *case: futures[case].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("instance", "arch"), CASES)
def test_kernel_compiles_within_its_registers(instance, arch, compile_instance):
    compiled = compile_instance(instance, arch)
    assert compiled.binary.startswith(b"\x7fELF")
    assert "warning" not in compiled.log, compiled.log
    assert compiled.registers <= instance.registers
    assert -(-compiled.registers // 8) * 8 * instance.threads <= REGISTERS, "a block does not fit"
    if int(arch.removeprefix("sm_")) >= SPILL_FREE_FROM:
        assert compiled.spill_bytes <= instance.spill_bytes
        assert compiled.stack_bytes <= instance.stack_bytes
    assert compiled.shared_bytes == 0, "all shared memory comes from the one dynamic block"
    assert instance.shared_bytes <= ARCHITECTURES[arch]


def test_every_kernel_of_the_package_has_an_instance():
    named = {instance.source.file for instance in instances() if set(instance.archs) == set(ARCHITECTURES)}
    assert named == {path.name for path in source.FOLDER.glob("*.cu")}


def test_names_of_instances_are_unique():
    labels = [instance.label for instance in instances()]
    assert len(set(labels)) == len(labels)


# ---------------------------------------------------------------- what the log tells


def test_registers_spills_and_stack_are_read_from_the_log(tmp_path):
    text = """
    __device__ __noinline__ float pick(float a, int k) {
        float t[40];
        for (int i = 0; i < 40; i++) t[i] = a * i;
        return t[k];
    }
    extern "C" __global__ void lean(float* x) { x[threadIdx.x] = 1.0f; }
    extern "C" __global__ void __launch_bounds__(1024, 2) greedy(double* x, int n) {
        __shared__ double keep[64];
        double a[64];
        for (int i = 0; i < 64; i++) a[i] = x[i * n + threadIdx.x];
        for (int j = 0; j < n; j++) for (int i = 0; i < 64; i++) a[i] = a[i] * a[(i * 7 + 1) % 64] + x[j];
        keep[threadIdx.x % 64] = a[0];
        __syncthreads();
        for (int i = 0; i < 64; i++) x[i * n + threadIdx.x] = a[i] + keep[i] + pick(float(a[i]), n);
    }
    """
    greedy = compile_kernel(Given("greedy", "two.cu", given=text), "sm_90", folder=tmp_path)
    assert greedy.registers == 32  # 65,536 / 2,048
    assert greedy.spill_bytes > 1000
    assert greedy.stack_bytes > 500
    assert greedy.shared_bytes == 512
    lean = compile_kernel(Given("lean", "two.cu", given=text), "sm_90", folder=tmp_path)
    assert lean.registers < 16
    assert (lean.spill_bytes, lean.stack_bytes, lean.shared_bytes) == (0, 0, 0)


def test_a_kernel_that_does_not_compile_tells_its_first_error(tmp_path):
    wrong = Given(
        "tiny", "tiny.cu", given='extern "C" __global__ void tiny(int* x) {\n  x[0] = nowhere;\n  int = 3;\n}'
    )
    with pytest.raises(DeviceError) as caught:
        compile_kernel(wrong, "sm_90", folder=tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert "kernel tiny does not compile for sm_90 with NVRTC" in text
    assert 'tiny.cu(2): error: identifier "nowhere" is undefined' in text
    assert "2 errors detected" in caught.value.__notes__[0]
    assert cache_content(tmp_path) == (0, 0)
    with pytest.raises(DeviceError, match=r"does not compile for sm_61 with NVRTC .*gpu-architecture"):
        compile_kernel(TINY, "sm_61", folder=tmp_path)


def test_a_kernel_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match=r"tiny\.cu holds no kernel huge"):
        compile_kernel(Given("huge", "tiny.cu"), "sm_90", folder=tmp_path)
    assert cache_content(tmp_path) == (0, 0)


def test_ptx_for_gpus_to_come(tmp_path):
    compiled = compile_kernel(TINY, "compute_90", folder=tmp_path)
    assert b".entry tiny" in compiled.binary
    assert compiled.registers is None
    assert compile_kernel(TINY, "compute_90", folder=tmp_path).cached


# ---------------------------------------------------------------- cache


def forbid(monkeypatch):
    def explode(*args):
        raise AssertionError("it compiled again")

    monkeypatch.setattr(nvrtc.Compiler, "compile", explode)


def test_a_binary_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "folder"
    first = compile_kernel(TINY, "sm_90", folder=folder)
    assert not first.cached
    n, size = cache_content(folder)
    assert n == 1
    assert size > len(first.binary)
    assert [path.suffix for path in folder.iterdir()] == [".kernel"]
    forbid(monkeypatch)
    again = compile_kernel(TINY, "sm_90", folder=folder)
    assert again.cached
    assert (again.binary, again.log, again.registers) == (first.binary, first.log, first.registers)


@pytest.mark.parametrize("damage", ["cut", "empty", "binary", "log", "no digest", "other JSON", "noise"])
def test_a_damaged_entry_is_compiled_again(damage, tmp_path, monkeypatch):
    whole = compile_kernel(TINY, "sm_90", folder=tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    header, _, binary = good.partition(b"\n")
    flipped = bytes([binary[500] ^ 1])
    path.write_bytes(
        {
            "cut": good[:-100],
            "empty": b"",
            "binary": header + b"\n" + binary[:500] + flipped + binary[501:],
            "log": good.replace(b"registers", b"Registers", 1),
            "no digest": b'{"log": ""}\n' + binary,
            "other JSON": b"[1, 2]\n" + binary,
            "noise": bytes(range(256)) * 20,
        }[damage]
    )
    again = compile_kernel(TINY, "sm_90", folder=tmp_path)
    assert not again.cached
    assert again.binary == whole.binary
    forbid(monkeypatch)
    assert compile_kernel(TINY, "sm_90", folder=tmp_path).cached


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert compile_kernel(TINY, "sm_90", folder=tmp_path / "file").binary
    assert cache_content(tmp_path / "file") == (0, 0)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert compile_kernel(TINY, "sm_90", folder=tmp_path / "disk").binary
    assert list((tmp_path / "disk").iterdir()) == []


def test_whatever_changes_the_binary_has_its_own_entry(tmp_path, monkeypatch):
    compile_kernel(TINY, "sm_90", folder=tmp_path)
    changes = [
        lambda: compile_kernel(TINY, "sm_80", folder=tmp_path),
        lambda: compile_kernel(Given("tiny", "tiny.cu", given=TINY.text + "\n"), "sm_90", folder=tmp_path),
        lambda: monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--prec-sqrt=false")),
        lambda: monkeypatch.setattr(find_compiler(), "version", (13, 99)),
    ]
    for n, change in enumerate(changes, start=2):
        change()
        compile_kernel(TINY, "sm_90", folder=tmp_path)
        assert cache_content(tmp_path)[0] == n


def test_constants_and_headers_change_the_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    source.flattened.cache_clear()
    (tmp_path / "k.cu").write_text('#include "h.cuh"\nextern "C" __global__ void k(int* x) { x[0] = N + twice(N); }\n')
    (tmp_path / "h.cuh").write_text("#pragma once\n__device__ int twice(int n) { return 2 * n; }\n")
    digests = {KernelSource("k", "k.cu", (("N", n),)).digest for n in (1, 2)}
    (tmp_path / "h.cuh").write_text("#pragma once\n__device__ int twice(int n) { return n + n; }\n")
    source.flattened.cache_clear()
    assert len({*digests, KernelSource("k", "k.cu", (("N", 1),)).digest}) == 3
    assert compile_kernel(KernelSource("k", "k.cu", (("N", 1),)), "sm_90", folder=tmp_path / "cache").registers
    source.flattened.cache_clear()


def test_threads_that_compile_the_same_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: compile_kernel(TINY, "sm_90", folder=tmp_path).binary, range(8)))
    assert len(set(found)) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".kernel"]


def test_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GMRM_GPU_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "gmrm_gpu"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "gmrm_gpu"
    monkeypatch.setenv("GMRM_GPU_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    compile_kernel(TINY, "sm_90")
    assert cache_content() == cache_content(tmp_path / "own")
    assert cache_content()[0] == 1


def test_first_use_is_told_once_for_each_architecture(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(nvrtc, "_announced", set())
    with caplog.at_level(logging.INFO, "gmrm_gpu"):
        for folder in ("a", "b", "a"):
            compile_kernel(TINY, "sm_90", folder=tmp_path / folder)
        assert caplog.messages == ["compiling CUDA kernels for sm_90, once for this GPU"]
        compile_kernel(TINY, "sm_80", folder=tmp_path)
    assert len(caplog.messages) == 2


def test_a_cached_kernel_is_not_told(tmp_path, monkeypatch, caplog):
    compile_kernel(TINY, "sm_90", folder=tmp_path)
    monkeypatch.setattr(nvrtc, "_announced", set())
    with caplog.at_level(logging.INFO, "gmrm_gpu"):
        compile_kernel(TINY, "sm_90", folder=tmp_path)
    assert caplog.messages == []


# ---------------------------------------------------------------- the library


class Known:
    label = "NVRTC 13.0"
    archs = (75, 80, 86, 89, 90, 100, 120)


@pytest.mark.parametrize(
    ("capability", "arch"),
    [
        (75, "sm_75"),
        (87, "sm_86"),
        (90, "sm_90"),
        (103, "sm_100"),
        (110, "compute_100"),
        (121, "sm_120"),
        (130, "compute_120"),
    ],
)
def test_architecture_of_a_gpu(capability, arch):
    assert choose_arch(capability, Known) == arch


def test_a_gpu_that_the_compiler_does_not_know_any_more():
    with pytest.raises(
        DeviceError, match=r"compute capability 6\.1, and NVRTC 13\.0 compiles for 7\.5 or later; .*cuda12"
    ):
        choose_arch(61, Known)


def test_without_a_library_the_error_tells_what_to_install(monkeypatch):
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(()))
    with pytest.raises(DeviceError, match=r"was not found; pip install 'gmrm-gpu\[cuda13\]'"):
        find_compiler.__wrapped__()


def test_the_first_library_that_loads_and_fits_the_driver_is_taken(monkeypatch, tmp_path):
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_bytes(b"not a library")
    good = find_compiler()
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter((str(broken), "libc.so.6", good.path)))
    assert find_compiler.__wrapped__().path == good.path
    assert find_compiler.__wrapped__(newest=good.version[0]).path == good.path
    with pytest.raises(DeviceError, match=r"no usable NVRTC.*libnvrtc\.so\.13 does not load.*pip install"):
        find_compiler.__wrapped__(newest=good.version[0] - 1)


def test_places_are_searched_in_order(monkeypatch, tmp_path):
    for name in ("cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.alt.so.13"):
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nvidia" / name).write_text("")
    (tmp_path / "toolkit" / "lib64").mkdir(parents=True)
    (tmp_path / "toolkit" / "lib64" / "libnvrtc.so.12").write_text("")

    class Spec:
        submodule_search_locations = (str(tmp_path / "nvidia"),)

    monkeypatch.setattr(nvrtc, "find_spec", lambda name: Spec)
    monkeypatch.setattr(nvrtc, "_by_pathfinder", lambda: "found/libnvrtc.so.13")
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "toolkit"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    found = [path.removeprefix(str(tmp_path) + "/") for path in nvrtc._candidates() if "/usr/" not in path]
    assert found == [
        "found/libnvrtc.so.13",
        "nvidia/cu13/lib/libnvrtc.so.13",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "toolkit/lib64/libnvrtc.so.12",
        "libnvrtc.so.13",
        "libnvrtc.so.12",
    ]
