"""NumPy's memory, counted, and failing on purpose: every array that the calling thread makes, however it is made.

NumPy lets its allocator be replaced (NEP 49); the functions here stand in for ``malloc`` and its kin, and say "no" when
they are told to. They are compiled: arrays are freed while errors are on their way, when Python must not run.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba import types

_POINTER = ctypes.c_void_p
_SET_HANDLER = 304  # PyDataMem_SetHandler in NumPy's table of C functions, whose order never changes
_N, _FAILED, _FIRST, _STOP, _LEAST, _LIVE, _PEAK = range(7)


def _libc(name: str, n_sizes: int) -> Any:
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [ctypes.c_size_t] * n_sizes, ctypes.c_size_t
    return function


_libc_malloc, _libc_calloc, _libc_realloc = _libc("malloc", 1), _libc("calloc", 2), _libc("realloc", 2)
_libc_free = _libc("free", 1)


@numba.njit
def _refuses(state, size):
    if size < state[_LEAST]:
        return False
    state[_N] += 1
    refuses = state[_FIRST] <= state[_N] < state[_STOP]
    state[_FAILED] += refuses
    return refuses


@numba.njit
def _took(state, address, size):
    if address != 0:
        state[_LIVE] += size
        state[_PEAK] = max(state[_PEAK], state[_LIVE])
    return address


_CONTEXT, _WORD = types.CPointer(types.int64), types.uint64


@numba.cfunc(_WORD(_CONTEXT, _WORD))
def _malloc(context, size):
    state = numba.carray(context, 7)
    return types.uint64(0) if _refuses(state, size) else _took(state, _libc_malloc(size), size)


@numba.cfunc(_WORD(_CONTEXT, _WORD, _WORD))
def _calloc(context, n, each):
    state = numba.carray(context, 7)
    return types.uint64(0) if _refuses(state, n * each) else _took(state, _libc_calloc(n, each), n * each)


@numba.cfunc(_WORD(_CONTEXT, _WORD, _WORD))
def _realloc(context, address, size):
    # How large it was is not told: NumPy calls this for lists of unknown length alone.
    state = numba.carray(context, 7)
    return types.uint64(0) if _refuses(state, size) else _libc_realloc(address, size)


@numba.cfunc(types.void(_CONTEXT, _WORD, _WORD))
def _free(context, address, size):
    state = numba.carray(context, 7)
    state[_LIVE] -= size
    _libc_free(address)


class _Handler(ctypes.Structure):
    """PyDataMem_Handler."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        *((name, _POINTER) for name in ("context", "malloc", "calloc", "realloc", "free")),
    )


class Allocations:
    """Counts while it is entered; one for the whole process, since arrays outlive it and come back to be freed."""

    def __init__(self) -> None:
        self._state = np.zeros(7, dtype=np.int64)
        functions = (f.address for f in (_malloc, _calloc, _realloc, _free))
        self._handler = _Handler(b"counted by the tests", 1, self._state.ctypes.data, *functions)
        self._set, make = _capsules()
        self._capsule = make(ctypes.addressof(self._handler), b"mem_handler", None)

    def reset(self, first: int = 0, stop: int = 0, least: int = 0) -> None:
        """Count those of `least` bytes or more from 0; from the `first` to that before `stop` they will fail."""
        for place, number in enumerate((0, 0, first, stop, least)):
            self._state[place] = number
        self._state[_PEAK] = self._state[_LIVE]

    @property
    def n(self) -> int:
        """Allocations so far."""
        return int(self._state[_N])

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return int(self._state[_FAILED])

    @property
    def live(self) -> int:
        """Bytes held now."""
        return int(self._state[_LIVE])

    @property
    def peak(self) -> int:
        """Bytes held at most."""
        return int(self._state[_PEAK])

    def __enter__(self) -> Allocations:
        self._before = self._set(self._capsule)
        return self

    def __exit__(self, *error: object) -> None:
        self._set(self._before)
        self.reset()


def _capsules() -> tuple[Any, Any]:
    """PyDataMem_SetHandler, and what makes the capsule it takes."""
    pointer_of, make = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    pointer_of.argtypes, pointer_of.restype = [ctypes.py_object, ctypes.c_char_p], _POINTER
    make.argtypes, make.restype = [_POINTER, ctypes.c_char_p, _POINTER], ctypes.py_object
    core = np._core if hasattr(np, "_core") else np.core
    table = ctypes.cast(pointer_of(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(_POINTER))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER]), make


ALLOCATIONS = Allocations()
