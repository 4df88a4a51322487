"""The text of a kernel: one file with its headers put in, and the constants that make an instance of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "kernels"


@dataclass(frozen=True)
class KernelSource:
    """A kernel to compile.

    Attributes
    ----------
    name : of the kernel's function. file : below ``engines/kernels``, which holds it.
    constants : (name, value) preprocessor definitions, in order.
    """

    name: str
    file: str
    constants: tuple[tuple[str, int | str], ...] = ()

    @property
    def text(self) -> str:
        """Definitions and source without any include."""
        defined = "".join(f"#define {name} {value}\n" for name, value in self.constants)
        return defined + flattened(self.file)

    @property
    def digest(self) -> str:
        """SHA-256 of `text`, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@lru_cache
def flattened(file: str) -> str:
    """The text of `file` with every ``#include "header"`` replaced by that header, each once."""
    seen: set[str] = set()

    def put_in(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (FOLDER / name).read_text("utf-8").replace("#pragma once\n", "")
        return re.sub(r'^#include "([^"]+)"\n', lambda match: put_in(match[1]), text, flags=re.MULTILINE)

    return put_in(file)


def shared_bytes(*sizes: int) -> int:
    """Shared memory of arrays of `sizes` bytes as the kernels' `Carver` cuts it."""
    return sum(-(-size // 16) * 16 for size in sizes)
