"""Text to binary: kernels compiled by NVRTC, CUDA's run-time compiler, and kept on disk.

NVRTC needs neither a GPU nor a driver, so that every kernel can be compiled, and its registers counted, anywhere.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ..durable import write_bytes
from ..errors import DeviceError
from .source import KernelSource

OPTIONS = ("--std=c++17", "--ftz=true", "--prec-div=false", "--fmad=true", "--ptxas-options=-v")
"""No fast-math as a whole: square roots, and the built-in functions that are not asked for by name, stay accurate."""

FOLDERS = ("cu*/lib", "lib64", "lib", "cu*/bin", "cu*/bin/*", "bin", "bin/x64")
"""Where wheels (CUDA 13, then 12) and toolkits keep the library."""

INSTALL = "pip install 'gmrm-gpu[cuda13]' (or cuda12, to match the driver)"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compiled:
    """A compiled kernel.

    Attributes
    ----------
    name : of the kernel. arch : ``"sm_90"``, machine code, or ``"compute_90"``, PTX that the driver translates.
    binary : what the driver loads. log : of the compiler.
    registers : of a thread. spill_bytes : stores and loads of a thread that registers were too few for.
    stack_bytes : local memory of a thread, spills included. shared_bytes : static shared memory of a block.
        All four None for PTX.
    cached : it was compiled before.
    """

    name: str
    arch: str
    binary: bytes
    log: str
    registers: int | None
    spill_bytes: int | None
    stack_bytes: int | None
    shared_bytes: int | None
    cached: bool = False


class Compiler:
    """One NVRTC library.

    Attributes
    ----------
    path : it was loaded from. version : (major, minor). archs : compute capabilities that it compiles for,
    ``(75, 80, ...)``, ascending.
    """

    def __init__(self, path: str) -> None:
        _load_beside(path)
        self.path = path
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", known)
        self.version = (major.value, minor.value)
        self.archs = tuple(sorted(known))

    @property
    def label(self) -> str:
        """``"NVRTC 13.0"``."""
        return "NVRTC {}.{}".format(*self.version)

    def compile(self, text: str, file: str, options: tuple[str, ...]) -> tuple[bytes | None, str]:
        """The binary, None after an error, and the log. Other threads run meanwhile."""
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text.encode(), file.encode(), 0, None, None)
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), flags)
            log = self._read(program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace").strip()
            if status:
                return None, log or self._library.nvrtcGetErrorString(status).decode()
            kind = "PTX" if any("compute_" in option for option in options) else "CUBIN"
            return self._read(program, kind), log
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _call(self, function: str, *args: object) -> None:
        status = getattr(self._library, function)(*args)
        if status:
            raise DeviceError(f"{function} failed: {self._library.nvrtcGetErrorString(status).decode()}")


@lru_cache
def find_compiler(newest: int | None = None) -> Compiler:
    """The first NVRTC that loads, of a major version up to `newest`: that of the driver, which loads no newer code.

    Raises
    ------
    DeviceError
        where there is none, with the install command.
    """
    rejected = []
    for path in _candidates():
        try:
            found = Compiler(path)
        except (OSError, AttributeError, DeviceError) as error:
            rejected.append(f"{path} does not load: {error}")
            continue
        if newest is None or found.version[0] <= newest:
            return found
        rejected.append(f"{path} is {found.label}, too new for a driver of CUDA {newest}")
    if rejected:
        raise DeviceError(f"no usable NVRTC, CUDA's run-time compiler ({rejected[0]}); {INSTALL}")
    raise DeviceError(f"NVRTC, CUDA's run-time compiler, was not found; {INSTALL}")


def _candidates() -> Iterator[str]:
    """Where NVRTC may be, the likeliest first; names without a folder are for the system's loader."""
    found = _by_pathfinder()
    if found is not None:
        yield found
    spec = find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    folders += [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(name)]
    folders.append(Path("/usr/local/cuda"))
    windows = sys.platform == "win32"
    pattern = "nvrtc64_*_0.dll" if windows else "libnvrtc.so.*"
    for folder in folders:
        paths = [path for place in FOLDERS for path in folder.glob(f"{place}/{pattern}")]
        yield from (str(path) for path in sorted(paths, key=_version_in, reverse=True))
    yield from ("nvrtc64_130_0.dll", "nvrtc64_120_0.dll") if windows else ("libnvrtc.so.13", "libnvrtc.so.12")


def _by_pathfinder() -> str | None:
    """NVIDIA's own search, which CuPy 14 uses as well: the same library for both then."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        return None
    try:
        return load_nvidia_dynamic_lib("nvrtc").abs_path
    except Exception:  # of several kinds: not found, not for this system, not one that can be loaded
        return None


def _version_in(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def _load_beside(path: str) -> None:
    """Load the built-in functions' library, which NVRTC otherwise looks for on the loader's search path alone."""
    folder = Path(path).parent
    if folder == Path():
        return
    if sys.platform == "win32":
        os.add_dll_directory(str(folder))
    for builtins in sorted(folder.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(builtins))


def choose_arch(capability: int, compiler: Compiler) -> str:
    """What to compile for on a GPU of compute capability 10 x major + minor.

    Machine code runs on later minors of its major; failing that, the driver translates PTX of an earlier one.
    """
    older = [arch for arch in compiler.archs if arch <= capability]
    if not older:
        raise DeviceError(
            f"the GPU has compute capability {_dotted(capability)}, and {compiler.label} compiles for "
            f"{_dotted(compiler.archs[0])} or later; use an older CUDA (pip install 'gmrm-gpu[cuda12]') or --device cpu"
        )
    return ("sm_" if older[-1] // 10 == capability // 10 else "compute_") + str(older[-1])


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def compile_kernel(
    source: KernelSource, arch: str, *, compiler: Compiler | None = None, folder: Path | None = None
) -> Compiled:
    """Compile a kernel, or take it from the cache.

    Parameters
    ----------
    source : the kernel. arch : as `choose_arch` gives it.
    compiler : None: whatever `find_compiler` finds. folder : of the cache; None: `cache_folder()`.

    Raises
    ------
    DeviceError
        where there is no compiler, or the text does not compile; the log is the error's note then.
    """
    compiler = compiler or find_compiler()
    options = (f"--gpu-architecture={arch}", *OPTIONS)
    key = "\n".join((compiler.label, source.name, *options, source.text))
    entry = (folder or cache_folder()) / f"{hashlib.sha256(key.encode()).hexdigest()}.kernel"
    kept = _read_entry(entry)
    if kept is not None:
        return _compiled(source, arch, *kept, cached=True)
    _announce(arch)
    binary, log = compiler.compile(source.text, source.file, options)
    if binary is None:
        error = DeviceError(
            f"kernel {source.name} does not compile for {arch} with {compiler.label}: {_first_error(log)}"
        )
        error.add_note(log)
        raise error
    compiled = _compiled(source, arch, binary, log, cached=False)
    _write_entry(entry, binary, log)
    return compiled


def _first_error(log: str) -> str:
    """The first line of a log that tells an error; the first line if none does."""
    lines = log.splitlines()
    return next((line.strip() for line in lines if "error" in line), lines[0] if lines else "no details")


def _compiled(source: KernelSource, arch: str, binary: bytes, log: str, *, cached: bool) -> Compiled:
    if arch.startswith("compute_"):
        return Compiled(source.name, arch, binary, log, None, None, None, None, cached)
    sections = re.split(r"Compiling entry function '(\w+)'", log)
    section = dict(zip(sections[1::2], sections[2::2], strict=True)).get(source.name)
    if section is None:
        raise DeviceError(f'{source.file} holds no kernel {source.name}, or not as extern "C" __global__')

    def numbers(pattern: str) -> list[int]:
        return [int(n) for n in re.findall(pattern, section)]

    return Compiled(
        source.name,
        arch,
        binary,
        log,
        registers=max(numbers(r"Used (\d+) registers")),
        spill_bytes=sum(numbers(r"(\d+) bytes spill (?:stores|loads)")),
        stack_bytes=max(numbers(r"(\d+) bytes (?:stack frame|cumulative stack size)")),
        shared_bytes=sum(numbers(r"(\d+) bytes smem")),
        cached=cached,
    )


_announced: set[str] = set()


def _announce(arch: str) -> None:
    """Tell the log, once for each architecture, why this takes seconds; the command line shows it."""
    if arch not in _announced:
        _announced.add(arch)
        logger.info("compiling CUDA kernels for %s, once for this GPU", arch)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$GMRM_GPU_CACHE``, else ``gmrm_gpu`` in the user's folder for caches."""
    given = os.environ.get("GMRM_GPU_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gmrm_gpu"


def cache_content(folder: Path | None = None) -> tuple[int, int]:
    """Number of kernels in the cache, and their bytes."""
    sizes = []
    for path in (folder or cache_folder()).glob("*.kernel"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # gone since it was listed
            continue
    return len(sizes), sum(sizes)


# An entry is one file, so that it is there as a whole or not at all: a line of JSON, then the binary.


def _read_entry(path: Path) -> tuple[bytes, str] | None:
    """Binary and log, or None where there are none, or not as they were written."""
    try:
        header, _, binary = path.read_bytes().partition(b"\n")
        told = json.loads(header)
        log = told["log"]
        return (binary, log) if told["sha256"] == _digest(binary, log) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write_entry(path: Path, binary: bytes, log: str) -> None:
    """Keep an entry; a folder that cannot be written is no error."""
    header = json.dumps({"sha256": _digest(binary, log), "log": log})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, header.encode() + b"\n" + binary)


def _digest(binary: bytes, log: str) -> str:
    return hashlib.sha256(log.encode() + b"\0" + binary).hexdigest()
