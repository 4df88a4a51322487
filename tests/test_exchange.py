"""Labels and curves as xarray and HyperSpy objects."""

from __future__ import annotations

import builtins
from dataclasses import replace

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.errors import MissingDependencyError
from gmrm_gpu.frames import Acquisition, ArrayMovie, open_movie


@pytest.fixture(scope="module")
def result():
    frames = gg.simulate("battery", shape=(40, 48), n_frames=4, seed=2).movie
    stack = np.stack([frames.frame(t) for t in range(4)])
    known = Acquisition(pixel_size_um=0.02, frame_time_s=0.5, detector="HAADF", bit_depth=8)
    config = gg.AnalysisConfig(quantity=gg.QuantityConfig(thickness_um=0.1))
    return gg.analyze(ArrayMovie(stack, name="growth", acquisition=known), config, rate=0.2)


def test_xarray_has_units_places_and_what_is_known(result):
    xarray = pytest.importorskip("xarray")
    data = result.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert data["labels"].dims == ("time_s", "y", "x")
    np.testing.assert_array_equal(data["labels"], result.labels)
    np.testing.assert_allclose(data["y"], np.arange(40) * 0.02)
    np.testing.assert_allclose(data["x"], np.arange(48) * 0.02)
    units = {name: data[name].attrs["units"] for name in ("time_s", "y", "share", "area_um2", "quantity", "area_px")}
    assert units == {"time_s": "s", "y": "um", "share": "1", "area_um2": "um2", "quantity": "um3", "area_px": "px"}
    np.testing.assert_array_equal(data["frame"], [0, 1, 2, 3])
    np.testing.assert_allclose(data["time_s"], [0, 0.5, 1, 1.5])
    about = {"detector": "HAADF", "bit_depth": 8, "pixel_size_um": 0.02, "interval": 0.8, "rate": 0.2}
    assert about.items() <= data.attrs.items()
    assert None not in data.attrs.values()
    np.testing.assert_allclose(data["visited_share"], 0.2, atol=1e-3)
    # The rate is a part of the pixels of whole frames; a sub-sampled movie has none.
    assert "rate" not in replace(result, movie=replace(result.movie, sampled=True)).to_xarray().attrs


def test_xarray_has_the_interval(result):
    pytest.importorskip("xarray")
    data = result.to_xarray()
    for name, (low, high) in (("share", result.interval()), ("quantity", result.quantity_interval)):
        np.testing.assert_array_equal(data[f"{name}_low"], low)
        np.testing.assert_array_equal(data[f"{name}_high"], high)
        assert (data[f"{name}_low"] < data[name]).all()
    np.testing.assert_allclose(data["quantity"], result.share * 40 * 48 * 0.02**2 * 0.1)


def test_xarray_says_what_numbers_stand_for(result):
    pytest.importorskip("xarray")
    data = result.to_xarray()
    assert data["labels"].attrs == {"flag_values": [0, 1, 2], "flag_meanings": "not_visited background foreground"}
    status = data["status"].attrs
    assert status["flag_meanings"].split()[2] == "dropped_components"
    assert status["flag_values"] == [0, 1, 2, 3, 4]


def test_without_calibration_nothing_is_invented(result):
    pytest.importorskip("xarray")
    bare = replace(result.movie, pixel_size_um=None, frame_time_s=None, detector=None, bit_depth=None)
    scale = replace(result.scale, pixel_area_um2=None, pixel_volume_um3=None)
    data = replace(result, movie=bare, scale=scale, time_s=None).to_xarray()
    assert data["labels"].dims == ("frame", "y", "x")
    assert (data["x"].attrs["units"], data["quantity"].attrs["units"]) == ("px", "px")
    assert not {"area_um2", "volume_um3", "time_s"} & {*data.variables}
    assert not {"pixel_size_um", "frame_time_s", "detector", "bit_depth"} & {*data.attrs}
    assert "labels" not in replace(result, labels=None).to_xarray()


def test_labels_in_xarray_open_as_a_movie(result):
    pytest.importorskip("xarray")
    movie = open_movie(result.to_xarray()["labels"])
    assert (movie.pixel_size_um, movie.frame_time_s) == pytest.approx((0.02, 0.5))
    np.testing.assert_array_equal(movie.frame(3), result.labels[3])


def test_hyperspy_signals_have_calibrated_axes(result):
    pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    out = result.to_hyperspy()
    assert [*out] == ["curve", "low", "high", "labels"]
    np.testing.assert_array_equal(out["curve"].data, result.quantity)
    np.testing.assert_array_equal((out["low"].data, out["high"].data), result.quantity_interval)
    (time,) = out["curve"].axes_manager.signal_axes
    assert (time.name, time.units, time.scale, time.offset) == ("time", "s", 0.5, 0.0)
    assert out["curve"].metadata.Signal.quantity == "volume (µm³)"
    x, y = out["labels"].axes_manager.signal_axes
    assert [(a.name, a.units, a.scale, a.size) for a in (x, y)] == [("x", "um", 0.02, 48), ("y", "um", 0.02, 40)]
    assert out["labels"].metadata.gmrm_gpu.detector == "HAADF"
    movie = open_movie(out["labels"])
    assert (movie.pixel_size_um, movie.frame_time_s) == (0.02, 0.5)
    np.testing.assert_array_equal(movie.frame(2), result.labels[2])


def test_hyperspy_keeps_uneven_times(result):
    pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    times = np.array([0, 1, 5, 6.0])
    out = replace(result, time_s=times, labels=None).to_hyperspy()
    assert [*out] == ["curve", "low", "high"]
    (axis,) = out["curve"].axes_manager.signal_axes
    np.testing.assert_array_equal(axis.axis, times)
    frames = replace(result, time_s=None).to_hyperspy()["labels"].axes_manager.navigation_axes[0]
    assert (frames.name, frames.scale) == ("frame", 1.0)


def test_missing_hyperspy_names_its_command(result, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("hyperspy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gmrm-gpu\[hyperspy\]'"):
        result.to_hyperspy()
