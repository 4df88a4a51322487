"""A launch in a process of its own, an executable of the kernel built with a sanitizer."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import build

IS_NULL, IS_VALUE = -1, -2
FAULT_EXIT = 3
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
}
SECONDS = 300
MEMORY = Path("/dev/shm")


class Arrays:
    """The distinct stretches of memory behind arrays, some of which may overlap."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays):
            if self.ends and start < self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    @property
    def sizes(self) -> list[int]:
        return [end - start for start, end in zip(self.starts, self.ends, strict=True)]

    def place(self, array: np.ndarray) -> tuple[int, int]:
        """Stretch and offset of an array."""
        at = array.ctypes.data
        for i, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            if start <= at and at + array.nbytes <= end:
                return i, at - start
        raise LookupError("an array that is not among the arguments")

    def bytes_of(self, i: int) -> np.ndarray:
        """The memory itself."""
        size = self.ends[i] - self.starts[i]
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.starts[i]))


def argument(value: Any, arrays: Arrays) -> tuple[int, int]:
    """`Argument` of replay.cpp."""
    if value is None:
        return IS_NULL, 0
    if isinstance(value, np.ndarray):
        return arrays.place(value)
    return IS_VALUE, int.from_bytes(value.tobytes().ljust(8, b"\0"), "little")


def write_launch(path: Path, record: ctypes.Structure, args: tuple, arrays: Arrays) -> int:
    """Write the file that replay.cpp reads; returns where the arrays start in it."""
    sizes = arrays.sizes
    described = [argument(value, arrays) for value in args]
    with path.open("wb") as file:
        file.write(bytes(record) + np.array([len(args), len(sizes)], np.int32).tobytes())
        file.write(np.array(sizes, np.uint64).tobytes())
        for place, value in described:
            file.write(np.int64(place).tobytes() + np.uint64(value).tobytes())
        start = file.tell()
        for i in range(len(sizes)):
            file.write(arrays.bytes_of(i).data)
    return start


def read_back(path: Path, start: int, arrays: Arrays) -> None:
    """Put what the kernel left in the arrays into them."""
    data = np.fromfile(path, np.uint8, offset=start)
    at = 0
    for i, size in enumerate(arrays.sizes):
        arrays.bytes_of(i)[...] = data[at : at + size]
        at += size


@functools.cache
def missing(sanitize: str) -> str | None:
    """Why kernels cannot run with a sanitizer here, or None."""
    if sanitize == "plain" or build.missing():
        return build.missing()
    try:
        program = build.compiled("", "int main() { return 0; }", build.INSTRUMENT[sanitize])
    except build.CompileError as error:
        return f"g++ cannot link {sanitize} here: {error}"
    done = subprocess.run([*prefix(), str(program)], capture_output=True, text=True, check=False)
    return f"{sanitize} does not run here: {done.stderr}" if done.returncode else None


@functools.cache
def prefix() -> tuple[str, ...]:
    """Sanitizers map memory at fixed places, which some kernels' address randomisation gets in the way of."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"], capture_output=True, check=False).returncode == 0:
        return (setarch, "-R")
    return ()


def run(source: Any, sanitize: str, record: ctypes.Structure, args: tuple, fault: ctypes.Structure) -> bool:
    """Launch; whether it failed, with `fault` filled in.

    Raises
    ------
    RuntimeError : with the sanitizer's report.
    """
    arrays = Arrays([a for a in args if isinstance(a, np.ndarray)])
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch, "launch")
        start = write_launch(path, record, args, arrays)
        command = [*prefix(), str(build.kernel_program(source, sanitize)), str(path)]
        environment = {**os.environ, **OPTIONS}
        try:
            done = subprocess.run(command, capture_output=True, env=environment, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"kernel {source.name}: no end in sight after {SECONDS} s") from error
        if done.returncode == 0:
            read_back(path, start, arrays)
            return False
        if done.returncode == FAULT_EXIT and len(done.stdout) == ctypes.sizeof(fault):
            ctypes.memmove(ctypes.byref(fault), done.stdout, len(done.stdout))
            return True
    raise RuntimeError(report_text(source, done.stderr.decode(errors="replace")))


def report_text(source: Any, report: str) -> str:
    """A sanitizer's report, with the kernel's first line that it names."""
    report = re.sub(r"Shadow bytes.*ABORTING\n", "", report, flags=re.DOTALL)
    found = re.search(rf"\b{re.escape(source.name)}\.cu:(\d+)", report)
    lines = source.text.splitlines()
    at = ""
    if found and 0 < int(found[1]) <= len(lines):
        at = f"\n  line {found[1]}: {lines[int(found[1]) - 1].strip()}"
    return f"kernel {source.name}: {report.strip()}{at}"
