"""The backends every numerical test runs on: NumPy, the strict array API on a non-default device, CuPy on a GPU."""

import array_api_strict
import numpy as np
import pytest

from gmrm_gpu.backend import get_backend, make_backend, probe_gpu

NUMPY32, NUMPY64 = make_backend(np), make_backend(np, dtype="float64")


def strict(dtype="float64"):
    """array-api-strict on device1: a stray NumPy call, or a host copy, is an error there."""
    return make_backend(array_api_strict, device=array_api_strict.Device("device1"), dtype=dtype)


def other_backends(dtype="float64"):
    """Parameters for `pytest.mark.parametrize`: everything that is not NumPy."""
    usable, reason = probe_gpu()
    gpu = [pytest.mark.gpu, pytest.mark.skipif(not usable, reason=f"no usable GPU: {reason}")]
    return [
        pytest.param(lambda: strict(dtype), id="strict"),
        pytest.param(lambda: get_backend("gpu", dtype), id="cupy", marks=gpu),
    ]
