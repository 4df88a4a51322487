"""The fused engine touches arrays of the device through the device alone: no stray launch, no hidden copy."""

import numpy as np
import pytest
from host.build import missing
from host.device import HostDevice
from test_fused import runner, settings

from gmrm_gpu.config import CorrectionConfig, SamplingConfig

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class DeviceArray(np.ndarray):
    """An array that NumPy must not compute with: on a GPU that would be a launch of CuPy's, or an error."""

    def __array_ufunc__(self, ufunc, *args, **keywords):
        raise AssertionError(f"{ufunc.__name__} of an array of the device")

    def __array_function__(self, function, *args):
        raise AssertionError(f"{function.__name__} of an array of the device")


class Guarded(HostDevice):
    """Hands out such arrays, and copies no others to the host."""

    def filled(self, shape, dtype, fill):
        return super().filled(shape, dtype, fill).view(DeviceArray)

    def to_host(self, array):
        assert isinstance(array, DeviceArray)
        return np.array(array.view(np.ndarray))


def test_the_guard_sees_what_it_should():
    device = Guarded()
    array = device.asarray(np.arange(3))
    for act in (lambda: array + 1, lambda: np.where(array, 1, 2), lambda: array == array):
        with pytest.raises(AssertionError, match="of an array of the device"):
            act()
    with pytest.raises(AssertionError):
        device.to_host(np.arange(3))
    assert device.to_host(array).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling": SamplingConfig(scheme="bernoulli"), "correction": CorrectionConfig(radius=0)},
        {"sampling": SamplingConfig(scheme="stratified"), "correction": CorrectionConfig(radius=20, sides="both")},
    ],
    ids=["fixed", "bernoulli, no vote", "stratified, wide vote"],
)
def test_nothing_but_kernels_works_on_the_device(changes):
    device = Guarded()
    found = runner(settings(**changes), device).run(0.25, np.arange(2))
    assert "fit" in device.launches
    assert np.isfinite(found.share).all()
