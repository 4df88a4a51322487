"""Movies in other programs' objects: the same frames and calibration as the arrays they were made of."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from gmrm_gpu.errors import GmrmError, InputError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.frames.objects import movie_of_object

STACK = np.random.default_rng(5).integers(0, 4000, (5, 6, 7)).astype(np.uint16)


def same(movie, stack=STACK):
    """`movie`, after checking that it has the frames of `stack`, in any order of reading."""
    assert (len(movie), movie.shape, movie.dtype) == (len(stack), stack.shape[1:], stack.dtype)
    for t in (len(stack) - 1, *range(len(stack))):
        np.testing.assert_array_equal(movie.frame(t), stack[t])
    return movie


class Reads:
    """An array that counts what is taken out of it; all that many packages offer."""

    def __init__(self, array, chunks=None):
        self._array, self.shape, self.dtype, self.chunks, self.taken = array, array.shape, array.dtype, chunks, []

    def __getitem__(self, index):
        values = self._array[index]
        self.taken.append(values.shape)
        return values


def test_slices_are_taken_when_frames_are_asked_for_and_no_sooner():
    source = Reads(STACK)
    movie = movie_of_object(source)
    assert source.taken == []
    np.testing.assert_array_equal(movie.frame(3), STACK[3])
    assert source.taken == [(1, 6, 7)]


@pytest.mark.parametrize("chunks", [(2, 6, 7), ((2, 2, 1), (3, 3), (7,))], ids=["sizes", "dask"])
def test_a_run_of_chunks_is_read_once(chunks):
    source = Reads(STACK, chunks)
    movie = movie_of_object(source)
    for t in range(5):
        np.testing.assert_array_equal(movie.frame(t), STACK[t])
    assert source.taken == [(2, 6, 7), (2, 6, 7), (1, 6, 7)]
    same(movie)


def test_chunks_too_large_to_be_kept_are_read_frame_by_frame(monkeypatch):
    monkeypatch.setattr("gmrm_gpu.frames.objects._CHUNK_BYTES", 2 * 6 * 7 * 2 - 1)
    source = Reads(STACK, (2, 6, 7))
    movie = same(movie_of_object(source))
    assert set(source.taken) == {(1, 6, 7)}
    assert "chunks of 2, too large to be kept" in movie.acquisition.notes[0]
    assert movie_of_object(Reads(STACK)).acquisition.notes == ()


def test_frames_are_whole_when_many_threads_read():
    movie = movie_of_object(Reads(STACK, (2, 6, 7)))
    wrong = []

    def read(seed):
        for t in np.random.default_rng(seed).integers(0, 5, 200):
            if not np.array_equal(movie.frame(t), STACK[t]):
                wrong.append(t)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_dask_arrays_stay_lazy_and_masks_are_not_lost():
    da = pytest.importorskip("dask.array")
    calls = []

    def block(values):
        calls.append(values.shape)
        return values

    lazy = da.from_array(STACK, chunks=(2, 3, 7)).map_blocks(block, dtype=STACK.dtype, meta=STACK[:0])
    movie = open_movie(lazy)
    assert (calls, movie.name) == ([], "dask array")
    same(movie)
    masked = da.ma.masked_less(da.from_array(STACK, chunks=(2, 6, 7)), 100)
    with pytest.raises(InputError, match="masked, and the mask would be lost"):
        open_movie(masked).frame(0)
    with pytest.raises(InputError, match="does not know its own size"):
        open_movie(lazy[lazy[:, 0, 0] > 1])


def test_hdf5_datasets(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["movie"] = STACK
        assert same(open_movie(file["movie"])).name == "movie"
        movie = open_movie(file["movie"])
    with pytest.raises(InputError, match="frame 2 of movie cannot be read"):
        movie.frame(2)


def test_zarr_arrays():
    zarr = pytest.importorskip("zarr")
    assert same(open_movie(zarr.array(STACK, chunks=(2, 4, 7)))).name == "zarr array"


def dataarray(**coords):
    xarray = pytest.importorskip("xarray")
    coords = {
        "time": ("time", np.arange(5) * 40.0, {"units": "ms"}),
        "y": ("y", 3 - np.arange(6) * 2.0, {"units": "nm"}),
        "x": ("x", 1 + np.arange(7) * 2000.0, {"units": "pm"}),
    } | coords
    attrs = {"detector": "HAADF", "bit_depth": 12}
    return xarray.DataArray(STACK, dims=("time", "y", "x"), coords=coords, name="film", attrs=attrs)


def test_xarray_with_calibration():
    known = same(open_movie(dataarray())).acquisition
    assert known.pixel_size_um == pytest.approx(0.002, rel=1e-12)
    assert known.frame_time_s == pytest.approx(0.04, rel=1e-12)
    assert (known.times_s, known.detector, known.bit_depth, known.notes) == (None, "HAADF", 12, ())


def test_xarray_axes_are_known_by_their_names_and_else_by_their_order():
    film = dataarray()
    turns = [film.transpose(*dims) for dims in itertools.permutations(film.dims)]
    for turned in (*turns, film.to_dataset(), film.expand_dims("probe")):
        movie = same(open_movie(turned))
        assert (movie.pixel_size_um, movie.frame_time_s) == pytest.approx((0.002, 0.04))
    plain = film.drop_vars(["time", "y", "x"]).rename(time="p", y="q", x="r")
    assert same(open_movie(plain)).acquisition.pixel_size_um is None
    same(open_movie(plain.rename(r="time").transpose("time", "p", "q")), STACK.transpose(2, 0, 1))
    same(open_movie(film.isel(time=2)), STACK[2:3])


def test_xarray_times_uneven_dated_or_of_a_part():
    uneven = dataarray(time=("time", [0, 1, 2, 3, 7.0], {"units": "min"}))
    known = open_movie(uneven).acquisition
    assert known.frame_time_s is None
    np.testing.assert_allclose(known.times_s, [0, 60, 120, 180, 420])
    dated = np.datetime64("2026-03-01T12:00") + np.arange(5) * np.timedelta64(2500, "ms")
    assert open_movie(dataarray(time=dated)).frame_time_s == 2.5
    part = open_movie(dataarray().isel(time=slice(2, 4))).acquisition
    np.testing.assert_allclose(part.times_s, [0.08, 0.12])
    assert part.frame_time_s == pytest.approx(0.04)
    given = open_movie(
        dataarray(time=("time", [0, 1, 2, 3, 7.0], {"units": "min"})), frame_time_s=3.0, frames="1:"
    ).acquisition
    assert (given.times_s, given.frame_time_s) == (None, 3.0)


@pytest.mark.parametrize(
    ("coords", "said"),
    [
        ({"x": ("x", np.arange(7) * 3.0, {"units": "nm"})}, "pixels are not square"),
        ({"x": ("x", np.arange(7) * 2.0, {"units": "1/nm"})}, "not a length"),
        ({"x": ("x", np.arange(7.0) ** 2, {"units": "nm"})}, "not evenly spaced"),
        ({"time": ("time", np.arange(5) * 0.5)}, "0.5 without a unit"),
        ({"time": ("time", np.arange(5) * 0.5, {"units": "nm"})}, "0.5 nm"),
        ({"time": ("time", np.arange(5) ** 2.0)}, "time has no unit"),
        ({"time": ("time", list("abcde"))}, "holds no numbers"),
    ],
)
def test_a_calibration_that_is_not_used_is_told(coords, said):
    known = open_movie(dataarray(**coords)).acquisition
    assert len(known.notes) == 1
    assert said in known.notes[0]
    assert (known.frame_time_s if "time" in coords else known.pixel_size_um) is None


def test_times_that_go_back_are_refused():
    for order in (slice(None, None, -1), [0, 1, 3, 2, 4]):
        with pytest.raises(InputError, match="do not ascend; sort the frames by time"):
            open_movie(dataarray().isel(time=order))


def test_datasets_of_several_movies_name_them():
    film = dataarray()
    both = film.to_dataset().assign(bf=film + 1, curve=film.mean(("y", "x")))
    with pytest.raises(InputError, match=r"holds film \(5, 6, 7\), bf \(5, 6, 7\).*dataset\['film'\]"):
        open_movie(both)
    same(open_movie(both["bf"]), STACK + 1)


@pytest.mark.parametrize("place", [1, 3])
def test_colour_in_xarray_is_refused_unless_asked_for(place):
    xarray = pytest.importorskip("xarray")
    dims = ["time", "y", "x"]
    dims.insert(place, "channel")
    grey = np.repeat(np.expand_dims(STACK, place), 3, axis=place)
    same(open_movie(xarray.DataArray(grey, dims=dims)))
    coloured = grey.copy()
    coloured[(slice(None),) * place + (0,)] //= 2
    with pytest.raises(InputError, match="in colour; give --luminance"):
        open_movie(xarray.DataArray(coloured, dims=dims))
    luma = open_movie(xarray.DataArray(coloured, dims=dims), luminance=True).frame(4)
    np.testing.assert_array_equal(luma, np.rint(0.299 * (STACK[4] // 2) + 0.701 * STACK[4]))


def axis(name, size, index, scale=1.0, units=None, offset=0.0, **more):
    named = {"name": name, "size": size, "index_in_array": index, "scale": scale, "units": units, "offset": offset}
    return SimpleNamespace(**named, **more)


def signal(navigation, inner, metadata=None, data=STACK):
    axes = SimpleNamespace(navigation_axes=tuple(navigation), signal_axes=tuple(inner))
    return SimpleNamespace(data=data, axes_manager=axes, metadata=metadata or {})


INNER = (axis("x", 7, 2, 0.5, "nm", 12.0), axis("y", 6, 1, 500.0, "pm"))


def test_signals_by_their_interface():
    about = {
        "General": {"title": "In-situ"},
        "Acquisition_instrument": {"TEM": {"beam_energy": 300.0, "Detector": {"Camera": {"Name": "WA-Orius"}}}},
    }
    movie = same(open_movie(signal([axis("t", 5, 0, 20, "ms")], INNER, about)))
    known = movie.acquisition
    assert (movie.name, known.detector, known.notes) == ("In-situ", "WA-Orius", ())
    assert (known.pixel_size_um, known.frame_time_s) == pytest.approx((5e-4, 0.02))
    part = open_movie(signal([axis("t", 5, 0, 20, "ms", 60)], INNER)).acquisition
    np.testing.assert_allclose(part.times_s, [0.06, 0.08, 0.10, 0.12, 0.14])


def test_signals_whose_axes_are_turned():
    turned = signal([axis("t", 5, 2)], [axis("x", 7, 0), axis("y", 6, 1)], data=STACK.transpose(2, 1, 0))
    same(open_movie(turned))


def test_signals_of_spectra_and_scans_are_refused():
    with pytest.raises(InputError, match=r"holds no images but Energy \(7\)"):
        open_movie(signal([axis("x", 5, 0), axis("y", 6, 1)], [axis("Energy", 7, 2)]))
    scan = signal([axis("x", 2, 1), axis("y", 3, 0)], [axis("dx", 7, 3), axis("dy", 6, 2)], data=np.zeros((3, 2, 6, 7)))
    with pytest.raises(InputError, match=r"an image for each place of x \(2\), y \(3\)"):
        open_movie(scan)


def test_real_hyperspy_signals():
    hs = pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    real = hs.signals.Signal2D(STACK)
    for number, (scale, units) in enumerate(((0.5, "s"), (2, "nm"), (2, "nm"))):
        real.axes_manager._axes[number].scale, real.axes_manager._axes[number].units = scale, units
    for source in (real, real.as_lazy()):
        movie = same(open_movie(source))
        assert (movie.pixel_size_um, movie.frame_time_s) == pytest.approx((0.002, 0.5))
    np.testing.assert_allclose(open_movie(real.inav[2:]).acquisition.times_s, [1, 1.5, 2])
    same(open_movie(real.inav[2]), STACK[2:3])
    with pytest.raises(InputError, match="holds no images"):
        open_movie(real.transpose(signal_axes=1))


def test_signals_of_true_instrument_files(shared_data):
    hs = pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    h5py = pytest.importorskip("h5py")
    path = shared_data / "reader-files" / "rosettasciio" / "fei_example_tem_stack.emd"
    if not path.exists():
        pytest.skip("the instrument files (../shared/data/reader-files) are not on this machine")
    movie = open_movie(hs.load(path, lazy=True))
    with h5py.File(path) as file:
        (group,) = file["Data/Image"].values()
        pixels = np.moveaxis(group["Data"][...], -1, 0)
    same(movie, pixels)
    assert movie.pixel_size_um == pytest.approx(8.17288e-6, rel=1e-5)  # "8.17288319229785e-12" m in its metadata


class Layer(SimpleNamespace):
    """A napari Image layer as far as a reader sees it."""

    def __init__(self, data, **more):
        n = data.ndim
        known = {"name": "open", "scale": np.ones(n), "translate": np.zeros(n), "metadata": {}, "rgb": False}
        super().__init__(data=data, **(known | more))


def test_layers_by_their_interface():
    units = ("second", "micrometer", "micrometer")
    movie = same(open_movie(Layer(STACK, scale=np.array([0.5, 0.01, 0.01]), units=units)))
    assert (movie.name, movie.pixel_size_um, movie.frame_time_s) == ("open", 0.01, 0.5)
    assert same(open_movie(Layer(STACK, units=("pixel",) * 3))).acquisition.notes == ()
    scaled = open_movie(Layer(STACK, scale=np.array([0.5, 0.01, 0.01]))).acquisition
    assert (scaled.pixel_size_um, scaled.frame_time_s) == (None, None)
    assert ["without a unit" in note for note in scaled.notes] == [True, True]


def test_layers_with_levels_and_transforms_and_layers_of_labels():
    same(open_movie(levels()))
    warped = Layer(STACK, affine=SimpleNamespace(affine_matrix=np.diag([1.0, 2.0, 2.0, 1.0])))
    assert "affine transform is not applied" in open_movie(warped).acquisition.notes[0]
    labels = Layer(STACK)
    del labels.rgb
    with pytest.raises(InputError, match="give an Image layer"):
        open_movie(labels)


def levels():
    layer = Layer(STACK, multiscale=True)
    layer.data = [STACK, STACK[:, ::2, ::2]]
    return layer


class Frames(list):
    """A pims reader as far as it is used: frames that may bear numbers."""

    def __init__(self, stack, numbers=None, **more):
        super().__init__(frame.view(Numbered) for frame in stack)
        for t, frame in enumerate(self):
            frame.frame_no = None if numbers is None else numbers[t]
        self.frame_shape = stack.shape[1:]
        self.__dict__.update(more)


class Numbered(np.ndarray):
    frame_no, metadata = None, {"mpp": 0.25}


def test_frames_given_out_one_by_one():
    movie = same(open_movie(Frames(STACK, range(5), frame_rate=25.0, filename="a/b.seq")))
    assert (movie.name, movie.frame_time_s, movie.pixel_size_um) == ("b.seq", 0.04, 0.25)
    same(open_movie([*STACK]))
    same(open_movie(tuple(np.repeat(STACK[..., np.newaxis], 3, axis=-1))))


def test_frames_keep_the_numbers_they_bear():
    every_third = open_movie(Frames(STACK, range(4, 19, 3), frame_rate=10.0))
    assert every_third.frame_numbers.tolist() == [4, 7, 10, 13, 16]
    assert every_third.frame_time_s == 0.1
    odd = open_movie(Frames(STACK, [0, 1, 2, 5, 9], frame_rate=10.0))
    assert odd.frame_time_s is None
    assert "not numbered evenly" in odd.acquisition.notes[0]


def test_axes_of_a_reader_that_are_left_out_are_told():
    sizes = {"x": 7, "y": 6, "t": 5, "z": 3}
    told = open_movie(Frames(STACK, sizes=sizes, iter_axes=["t"], bundle_axes=["y", "x"])).acquisition.notes
    assert told == ("of z (3) only the place that the reader has chosen is read",)
    with pytest.raises(InputError, match="runs along t and z; set its iter_axes"):
        open_movie(Frames(STACK, sizes=sizes, iter_axes=["t", "z"], bundle_axes=["y", "x"]))


def test_a_real_pims_reader(shared_data):
    pims = pytest.importorskip("pims", reason="pims is not installed")
    path = shared_data / "reader-files" / "pims" / "sample_norpix6.seq"
    if not path.exists():
        pytest.skip("the instrument files (../shared/data/reader-files) are not on this machine")
    reader = pims.open(str(path))
    stack = np.stack([np.asarray(frame) for frame in reader])
    movie = same(open_movie(reader), stack)
    assert (movie.name, movie.frame_time_s) == ("sample_norpix6.seq", 0.1)
    part = same(open_movie(reader[1::2]), stack[1::2])
    assert part.frame_numbers.tolist() == [1, 3, 5]
    same(open_movie(pims.as_grey(reader)), stack)


def test_frames_along_an_axis_that_is_no_time_are_told_and_channels_refused():
    film = dataarray().drop_vars("time").rename(time="depth")
    assert same(open_movie(film)).acquisition.notes == ("frames run along depth",)
    with pytest.raises(InputError, match=r"channels \(channel \(5\), y \(6\), x \(7\)\); choose one"):
        open_movie(film.rename(depth="channel"))


def test_uneven_axes_of_hyperspy():
    hs = pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    axes = [{"axis": np.array([0, 1, 2, 3, 9.0]), "units": "ms"}, {"size": 6}, {"size": 7}]
    known = same(open_movie(hs.signals.Signal2D(STACK, axes=axes))).acquisition
    assert known.frame_time_s is None
    np.testing.assert_allclose(known.times_s, [0, 0.001, 0.002, 0.003, 0.009])


def test_nan_is_not_taken_for_an_unvisited_pixel():
    xarray = pytest.importorskip("xarray")
    values = STACK.astype(np.float32)
    values[1, 2, 3] = np.nan
    movie = open_movie(xarray.DataArray(values))
    assert not movie.sampled
    with pytest.raises(InputError, match=r"1 NaN pixels; .* or --unvisited nan where the beam did not go"):
        movie.frame(1)


class Named:
    """A group of arrays, each under its name."""

    def __len__(self):
        return 1

    def __getitem__(self, name):
        raise KeyError(str(name))


def test_a_signal_of_what_is_no_file_is_refused():
    for source in (STACK, Reads(STACK), open_movie(STACK)):
        with pytest.raises(InputError, match="signal=1 chooses within a file"):
            open_movie(source, signal=1)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"movie": STACK}, "dict is not a movie"),
        (SimpleNamespace(columns=["x"], shape=(3, 3)), "is a table; save it as .csv"),
        (Named(), r"does not give out its frame 0 \('0'\)"),
        (7, "int is not a movie"),
        ([], "list has no frames"),
        ([1, 2], "list of int is not a movie"),
        ([STACK, STACK], r"frames of shape \(5, 6, 7\)"),
        (iter([STACK]), "list_iterator is not a movie"),
        (SimpleNamespace(movie=None), "give its .movie"),
        (SimpleNamespace(layers=[]), r"viewer.layers\['name'\]"),
        (np.float64(3), r"has shape \(\)"),
        (Reads(np.zeros((2, 2, 6, 7))), r"has shape \(2, 2, 6, 7\)"),
        (Reads(STACK.astype(complex)), "of type complex128"),
    ],
)
def test_what_is_no_movie_is_refused_by_name(source, said):
    with pytest.raises(GmrmError, match=said):
        movie_of_object(source)
