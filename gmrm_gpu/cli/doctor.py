"""`gmrm-gpu doctor`: what is installed, what this machine offers, and why there is no GPU."""

from __future__ import annotations

import argparse
import platform
from importlib import import_module, metadata

from .. import __version__
from ..backend import free_memory, get_backend, n_cores, probe_gpu
from ..engines.device import CudaDevice, count_gpus, describe_gpu, probe_kernels
from ..engines.nvrtc import cache_content, cache_folder, find_compiler
from ..errors import DeviceError
from .console import Console, count

BASE = ("numpy", "scipy", "array-api-compat", "tqdm")
OPTIONAL = (
    ("numba", "numba", "cpu", "compiled functions on the CPU, several times as fast"),
    ("matplotlib", "matplotlib", "plot", "figures and reports"),
    ("jinja2", "jinja2", "plot", "reports"),
    ("tifffile", "tifffile", "tiff", "TIFF movies, labels.tif"),
    ("pillow", "PIL", "image", "GIF, PNG and JPEG movies"),
    ("av", "av", "video", "AVI and MP4 movies"),
    ("xarray", "xarray", "all", "to_xarray()"),
)
"""Distribution, module, extra, and what it is for."""


def run_doctor(args: argparse.Namespace, console: Console) -> None:
    """Print versions, devices and the install command of what is missing. Nothing here is a failure."""
    _line("gmrm-gpu", __version__)
    _line("python", f"{platform.python_version()} on {platform.platform()}")
    for name in BASE:
        _line(name, metadata.version(name))
    for name, module, extra, use in OPTIONAL:
        _line(name, _optional(name, module, extra, use))
    _line("cupy", _cupy())
    _line("nvrtc", _nvrtc())
    _line("kernel cache", _cache())
    _line("cores", str(n_cores()))
    _line("memory", f"{free_memory(get_backend('cpu')) / 1e9:.1f} GB free")
    for number in range(count_gpus()):
        _line(f"gpu {number}", _gpu(number))
    usable, reason = probe_gpu()
    _line("device", f"{'GPU' if usable else 'CPU; no GPU because ' + reason}{': ' + reason if usable else ''}")


def _line(name: str, text: str) -> None:
    print(f"{name:<17}{text}")


def _optional(name: str, module: str, extra: str, use: str) -> str:
    try:
        version = metadata.version(name)
        import_module(module)
    except metadata.PackageNotFoundError:
        return f"not installed; for {use}: pip install 'gmrm-gpu[{extra}]'"
    except Exception as error:  # a broken package is exactly what a doctor is asked about
        return f"{version}, but does not load ({_reason(error)}); reinstall: pip install --force-reinstall {name}"
    return version


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cupy() -> str:
    found = [d for d in metadata.distributions() if (d.metadata["Name"] or "").lower().startswith("cupy")]
    if not found:
        return "not installed; for a GPU: pip install 'gmrm-gpu[cuda13]' (or cuda12, to match the driver)"
    return ", ".join(f"{d.metadata['Name']} {d.version}" for d in found)


def _nvrtc() -> str:
    try:
        compiler = find_compiler()
    except DeviceError as error:
        return f"not usable: {_reason(error)}"
    low, high = (f"{arch // 10}.{arch % 10}" for arch in (compiler.archs[0], compiler.archs[-1]))
    return f"{compiler.version[0]}.{compiler.version[1]}, for compute capability {low} to {high}: {compiler.path}"


def _cache() -> str:
    n, size = cache_content()
    return f"{cache_folder()}: {count(n, 'kernel')}, {size / 1e6:.1f} MB" if n else f"{cache_folder()}: empty"


def _gpu(number: int) -> str:
    """What a GPU is, and whether this package's own kernels compile and run on it."""
    try:
        told = describe_gpu(number)
        what = f"{told['gpu']}, {told['memory']}, compute capability {told['compute_capability']}"
        what += f", driver {told['driver']}"
    except Exception as error:
        return f"does not answer ({_reason(error)})"
    try:
        device = CudaDevice(number)
        probe_kernels(device, shared=device.max_shared_bytes)
    except Exception as error:
        return f"{what}; kernels do not run ({_reason(error)})"
    return f"{what}; kernels compiled for {device.arch} and ran"
