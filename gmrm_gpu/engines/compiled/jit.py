"""How functions are compiled for the CPU, and the few operations Numba has no fast form of."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import event
from numba.extending import intrinsic

from ..nvrtc import cache_folder

logger = logging.getLogger(__name__)

# Sums may be taken in any order and products fused; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call, without the GIL, and keep the machine code for the next process.

    Numba's own cache notices a change of a function's file but not of the functions it calls; so the folder has the
    hash of all files of this package in its name.
    """
    return _kept(function, fastmath=_FAST)


def exactly(function: Callable[..., Any]) -> Any:
    """As `compiled`, every operation rounded as written, also where a compiled function calls it first.

    Numba hands the caller's flags down to a function that has none of its own.
    """
    return _kept(function, fastmath=False)


def inlined(function: Callable[..., Any]) -> Any:
    """A small function that becomes a part of its callers."""
    return njit(nogil=True, error_model="numpy", fastmath=_FAST, inline="always")(function)


def _kept(function: Callable[..., Any], **options: Any) -> Any:
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or cache_folder()) / f"cpu-{_digest()}")
    try:
        return njit(nogil=True, error_model="numpy", cache=True, **options)(function)
    finally:
        config.CACHE_DIR = before


_digests: list[str] = []


def _digest() -> str:
    if not _digests:
        found = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            found.update(path.read_bytes())
        _digests.append(found.hexdigest()[:16])
    return _digests[0]


class _Announcement(event.Listener):
    """Tells the log, once a process, why the first use takes a while; the command line shows it."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        """A function of this package begins to be compiled."""
        module = event.data["dispatcher"].py_func.__module__ or ""  # others' functions may have none
        if not self.told and module.startswith(__package__):
            self.told = True
            logger.info("compiling the CPU engine, once for this machine; a minute or two")

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


event.register("numba:compile", _Announcement())


@intrinsic
def float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 whose bits are those of the lowest 32 of `bits`."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@intrinsic
def double_of_bits(typing: Any, bits: Any) -> Any:
    """The float64 whose bits are those of an int64."""
    return types.float64(types.int64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@intrinsic
def bits_of_float(typing: Any, value: Any) -> Any:
    """The bits of a float32, int32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(32)
    )


_HALF, _ONE, _LOWEST = np.float32(0.5), np.float32(1.0), np.float32(-126.0)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
# Of the polynomials of degree 6 with p(0) = 1, the one with the least largest relative error over [-1/2, 1/2]: 2e-9.
_C1, _C2, _C3 = np.float32(6.9314720e-1), np.float32(2.4022648e-1), np.float32(5.5503325e-2)
_C4, _C5, _C6 = np.float32(9.6184374e-3), np.float32(1.3398874e-3), np.float32(1.5353362e-4)


@inlined
def exp2(x: Any) -> Any:
    """2^x of a float32 that is at most 0, within 1e-7; below -126 as there, NaN becomes something in [0, 1].

    By hand, since the vector mathematics that Numba could call is in no package of PyPI: the whole part goes into the
    exponent's bits, the rest into a polynomial.
    """
    x = max(x, _LOWEST)
    whole = np.int32(x - _HALF)  # towards 0, hence to the nearest
    part = x - np.float32(whole)
    p = _C6 * part + _C5
    p = p * part + _C4
    p = p * part + _C3
    p = p * part + _C2
    p = p * part + _C1
    p = p * part + _ONE
    return p * float_of_bits((whole + _BIAS) << _MANTISSA_BITS)
