"""Kernels compiled for the CPU with g++, kept in a cache by what they were made from."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Protocol

FOLDER = Path(__file__).parent
ENGINE = ("fibers.cpp", "barriers.cpp", "fences.cpp", "shared.cpp")
HEADERS = ("cuda_host.h", "engine.h", "state.h", "sanitizers.h", "switch.h")
WARNINGS = ("-Wno-unknown-pragmas", "-Wno-attributes")
COMMON = ("-std=c++17", "-fPIC", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", *WARNINGS)
KERNEL = ("-O1", "-g1", "-ffp-contract=fast")
INSTRUMENT = {
    "plain": (),
    "asan": ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
}
DEFINED = {"plain": (), "asan": ("-DHOST_ASAN",), "tsan": ("-DHOST_TSAN",)}
KEPT_S = 14 * 86400


class CompileError(RuntimeError):
    """g++ refused a kernel; the message is g++'s."""


class Source(Protocol):
    """What is compiled: `gmrm_gpu.engines.source.KernelSource`, or `RawSource`."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...


def missing() -> str | None:
    """Why kernels cannot run here, or None."""
    if shutil.which("g++") is None:
        return "no g++ to run the kernels on the CPU"
    if platform.system() != "Linux":
        return "the kernels run on the CPU under Linux only"
    return None


@functools.cache
def cache_folder() -> Path:
    """Folder of compiled kernels of this user; what nobody used for two weeks is removed."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "gmrm_gpu" / "host_kernels"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # no home, or none that can be written to
        folder = Path(tempfile.mkdtemp(prefix="gmrm_gpu_"), "host_kernels")
        folder.mkdir()
        atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    for path in folder.iterdir():
        if path.stat().st_mtime < time.time() - KEPT_S:
            path.unlink(missing_ok=True)
    return folder


@functools.cache
def machine_flags() -> tuple[str, ...]:
    """Fused multiply-adds where the CPU has them, as a GPU contracts a product and a sum."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ()
    return ("-mfma",) if "fma" in flags else ()


@functools.cache
def compiler_version() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def compiled(suffix: str, text: str, flags: tuple[str, ...], inputs: tuple[Path, ...] = ()) -> Path:
    """The file g++ makes of `text` with `flags`, after `inputs`; taken from the cache where it is there."""
    headers = (line for name in HEADERS for line in read(name))
    parts = [compiler_version(), *headers, text, *flags, *(path.name for path in inputs)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = cache_folder() / f"{digest}{suffix}"
    if path.exists():
        os.utime(path)
        return path
    with tempfile.TemporaryDirectory(dir=cache_folder().parent) as scratch:
        code, made = Path(scratch, "kernel.cpp"), Path(scratch, path.name)
        code.write_text(text, "utf-8")
        command = ["g++", *flags, f"-I{FOLDER}", str(code), *map(str, inputs), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(done.stderr)
        made.replace(path)
    return path


@functools.cache
def engine_object(sanitize: str, extra: tuple[str, ...] = ()) -> Path:
    """The fiber engine, without instrumentation, as an object file."""
    text = "".join("\n".join([f'#line 1 "{name}"', *read(name), ""]) for name in ENGINE)
    return compiled(".o", text, (*COMMON, "-O2", "-c", *DEFINED[sanitize], *extra))


@functools.cache
def read(name: str) -> list[str]:
    return (FOLDER / name).read_text("utf-8").splitlines()


@functools.cache
def with_header(flags: tuple[str, ...]) -> tuple[str, ...]:
    """`flags`, and CUDA's language put before the text from a header that is compiled once for them."""
    made = compiled(".h.gch", '#include "cuda_host.h"\n', (*flags, "-x", "c++-header"))
    header = made.with_suffix("")  # g++ takes what stands beside it
    if not header.exists():
        header.write_text('#include "cuda_host.h"\n', "utf-8")
    return (*flags, "-include", str(header))


def kernel_text(source: Source) -> str:
    """What g++ gets behind CUDA's language: the kernel, the entry that unpacks its arguments."""
    return f'#line 1 "{source.name}.cu"\n{source.text}\nHOST_ENTRY({source.name})\n'


def kernel_library(source: Source, extra: tuple[str, ...] = ()) -> Path:
    """A shared library with the kernel and the engine, for `ctypes`."""
    flags = with_header((*COMMON, *KERNEL, *machine_flags()))
    return compiled(".so", kernel_text(source), (*flags, "-shared"), (engine_object("plain", extra),))


@functools.cache
def replay_object() -> Path:
    """The main function of `kernel_program`."""
    return compiled(".o", "\n".join(read("replay.cpp")), (*COMMON, "-O1", "-c"))


def kernel_program(source: Source, sanitize: str) -> Path:
    """An executable that runs one launch of a sanitized kernel, see replay.cpp."""
    inputs = (engine_object(sanitize), replay_object())
    flags = with_header((*COMMON, *KERNEL, *machine_flags(), *INSTRUMENT[sanitize]))
    return compiled("", kernel_text(source), flags, inputs)
