"""The backend: what the array-API standard lacks, devices, and the probe."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from backends import NUMPY32, other_backends

from gmrm_gpu.backend import free_memory, get_backend, make_backend, n_cores, probe_gpu
from gmrm_gpu.errors import ConfigError, DeviceError

EVERYWHERE = [pytest.param(lambda: NUMPY32, id="numpy"), *other_backends()]


@pytest.mark.parametrize("make", EVERYWHERE)
def test_put_assigns_at_distinct_places(make):
    backend = make()
    rng = np.random.default_rng(2)
    for n, m in ((1, 1), (7, 3), (50, 50)):
        array, index = rng.integers(0, 99, n).astype(np.int32), rng.permutation(n)[:m]
        values = np.arange(100, 100 + m, dtype=np.int32)
        expected = array.copy()
        expected[index] = values
        got = backend.put(backend.asarray(array.copy()), backend.asarray(index), backend.asarray(values))
        assert np.array_equal(backend.to_host(got), expected)


@pytest.mark.parametrize("make", EVERYWHERE)
def test_running_sum_wraps_in_its_own_type(make):
    backend = make()
    array = np.array([65000, 500, 40, 65535], dtype=np.uint16)
    out = backend.zeros((4,), backend.xp.uint16)
    got = backend.to_host(backend.running_sum(backend.asarray(array), out))
    assert got.dtype == np.uint16
    assert got.tolist() == [65000, 65500, 4, 3]


@pytest.mark.parametrize("make", EVERYWHERE)
def test_to_host_and_back(make):
    backend = make()
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(backend.to_host(backend.asarray(host)), host)
    assert backend.real([1, 2]).dtype == backend.dtype


def test_names_and_types():
    assert make_backend(np).name == "numpy"
    strict = make_backend(array_api_strict, device=array_api_strict.Device("device1"), dtype="float64")
    assert strict.name == "array_api_strict"
    assert strict.dtype == array_api_strict.float64
    assert strict.zeros((2,)).device == array_api_strict.Device("device1")


def test_devices():
    assert get_backend("cpu").name == "numpy"
    for wrong in ("tpu", "gpu:x", ""):
        with pytest.raises(ConfigError, match="device"):
            get_backend(wrong)


def test_without_a_gpu_auto_says_why_and_gpu_raises():
    usable, reason = probe_gpu()
    if usable:
        assert get_backend("auto").name == "cupy"
        return
    assert reason in get_backend("auto").reason
    with pytest.raises(DeviceError, match="no usable GPU") as error:
        get_backend("gpu")
    assert reason in str(error.value)


def test_machine():
    assert n_cores() >= 1
    assert free_memory(NUMPY32) > 2**20


def test_memory_that_the_pool_keeps_counts_as_free(monkeypatch):
    pool = SimpleNamespace(free_bytes=lambda: 234)
    runtime = SimpleNamespace(memGetInfo=lambda: (1000, 5000))
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert free_memory(replace(NUMPY32, name="cupy")) == 1234
