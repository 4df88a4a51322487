"""Movies from arrays: types, NaN, colour, labels; choosing frames and pixels."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import tifffile
from movies import (
    COLOUR,
    GREY_RGB,
    STACK,
    H,
    Spy,
    T,
    W,
    colour_sources,
    read_all,
)

from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.frames import ArrayMovie, open_labels, open_movie, save_movie
from gmrm_gpu.frames.colour import to_grey
from gmrm_gpu.frames.select import parse_crop, parse_frames

# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<i4", ">f4", "f8", "f2"])
def test_arrays_keep_their_type_in_native_order(dtype: str, tmp_path: Path) -> None:
    array = STACK.astype(dtype)
    np.save(tmp_path / "a.npy", array)
    for movie in (open_movie(array), open_movie(tmp_path / "a.npy")):
        assert movie.dtype == np.dtype(dtype).newbyteorder("=")
        assert movie.frame(4).dtype == movie.dtype
        assert movie.frame(4).dtype.isnative
        np.testing.assert_array_equal(movie.frame(4), STACK[4])


def test_npy_is_mapped_and_arrays_are_not_copied_or_changed(sources: dict[str, Path]) -> None:
    assert isinstance(open_movie(sources["a.npy"])._array.base, np.memmap)  # type: ignore[attr-defined]
    array = STACK.copy()
    frame = open_movie(array).frame(2)
    assert np.shares_memory(frame, array)
    with pytest.raises(ValueError, match="read-only"):
        frame[0, 0] = 1
    assert array.flags.writeable


def test_read_only_reversed_and_transposed_arrays() -> None:
    array = STACK.copy()
    array.flags.writeable = False
    np.testing.assert_array_equal(open_movie(array).frame(1), STACK[1])
    np.testing.assert_array_equal(open_movie(STACK[::-1, ::-1, ::2]).frame(0), STACK[-1, ::-1, ::2])
    np.testing.assert_array_equal(open_movie(STACK.T).frame(5), STACK.T[5])
    np.testing.assert_array_equal(open_movie(np.asfortranarray(STACK)).frame(5), STACK[5])


def test_one_image_and_bool_arrays() -> None:
    assert len(open_movie(STACK[0])) == 1
    movie = open_movie(STACK > 100)
    assert movie.dtype == np.uint8
    np.testing.assert_array_equal(movie.frame(0), STACK[0] > 100)


@pytest.mark.parametrize("t", [-1, T])
def test_a_frame_beyond_the_movie_is_an_index_error(t: int) -> None:
    with pytest.raises(IndexError, match="frames 0 to 8"):
        open_movie(STACK).frame(t)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (STACK.astype(complex), "complex128"),
        (STACK.astype(object), "object"),
        (STACK.astype("U3"), "<U3"),
        (STACK.astype("M8[s]"), "datetime64"),
        (STACK[:0], "no frames"),
        (STACK[:, :0], "not empty"),
        (STACK[0, 0], "shape"),
        (STACK[None, None], "shape"),
        (COLOUR, "luminance"),
        (np.ma.masked_array(STACK), "masked"),
        (STACK.tolist(), "list is not a movie"),
        (None, "NoneType is not a movie"),
    ],
)
def test_arrays_that_are_no_movie(array: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_movie(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_calibration_must_be_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="above zero"):
        ArrayMovie(STACK, pixel_size_um=value)


def test_frame_numbers_and_valid_of_an_array_movie() -> None:
    valid = np.ones((H, W), bool)
    valid[3] = False
    movie = ArrayMovie(STACK, frame_numbers=np.arange(T) * 3, valid=valid, frame_time_s=0.5, pixel_size_um=0.01)
    view = open_movie(movie, frames="2:", crop="2:,:")
    np.testing.assert_array_equal(view.frame_numbers, np.arange(2, T) * 3)
    np.testing.assert_array_equal(view.valid, valid[2:])
    assert (view.frame_time_s, view.pixel_size_um) == (0.5, 0.01)
    with pytest.raises(InputError, match="9 frames but 3"):
        ArrayMovie(STACK, frame_numbers=np.arange(3))
    with pytest.raises(InputError, match="24 x 34"):
        ArrayMovie(STACK, valid=np.ones((H, W - 1), bool))


# ---- NaN -------------------------------------------------------------------------------------------------------------


def test_nan_needs_a_mask_that_covers_it() -> None:
    stack = STACK.astype(np.float32)
    stack[6, 2, 3:5] = np.nan
    mask = np.zeros((H, W), np.uint8)
    mask[2] = 1
    movie = open_movie(stack)
    movie.frame(5)
    with pytest.raises(InputError, match=r"frame 6 of array has 2 NaN pixels; NaN needs a mask: give --exclude"):
        movie.frame(6)
    with pytest.raises(InputError, match=r"frame 6 .* 2 NaN pixels"):
        open_movie(stack, frames="4:").frame(2)
    covered = open_movie(stack, exclude=mask)
    assert np.isnan(covered.frame(6)).sum() == 2
    np.testing.assert_array_equal(open_movie(movie, crop="3:,:").frame(6), STACK[6, 3:])
    stack[6, 4, 4] = np.inf
    with pytest.raises(InputError, match="1 NaN or infinite"):
        covered.frame(6)


# ---- selection, crop, exclusion --------------------------------------------------------------------------------------


def test_a_view_reads_nothing_until_asked_and_only_what_is_asked() -> None:
    spy = Spy(STACK)
    view = open_movie(spy, frames="1:8:3", crop="2:10,4:9", exclude=np.eye(H, W))
    view = open_movie(view, frames=[1, 2], crop="1:,:")
    assert spy.reads == []
    assert (len(view), view.shape, view.frame_time_s) == (2, (7, 5), 2.0)
    np.testing.assert_array_equal(view.frame_numbers, [4, 7])
    np.testing.assert_array_equal(view.frame(1), STACK[7, 3:10, 4:9])
    np.testing.assert_array_equal(view.valid, np.eye(H, W)[3:10, 4:9] == 0)
    assert spy.reads == [7]


def test_options_of_a_path_do_not_read_the_other_frames(sources: dict[str, Path], monkeypatch) -> None:
    from gmrm_gpu.frames.images import FolderMovie

    reads = []
    monkeypatch.setattr(FolderMovie, "_read", lambda self, t, read=FolderMovie._read: reads.append(t) or read(self, t))
    movie = open_movie(sources["png"], frames="5:", crop="0:3,0:4", pixel_size_um=0.02, frame_time_s=3)
    assert reads == [0]  # the first image decides about colour
    np.testing.assert_array_equal(movie.frame(1), STACK[6, :3, :4])
    assert reads == [0, 6]
    assert (movie.pixel_size_um, movie.frame_time_s) == (0.02, 3.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:8:3", [2, 5]),
        (":3", [0, 1, 2]),
        ("7:99", [7, 8]),
        ("-2:", [7, 8]),
        ("4", [4]),
        ("1, 3,8", [1, 3, 8]),
        (slice(None, None, 4), [0, 4, 8]),
        ([0, 2], [0, 2]),
        (np.array([1, -1]), [1, 8]),
        (5, [5]),
    ],
)
def test_frame_selection(text: object, expected: list[int]) -> None:
    index = parse_frames(text, T)  # type: ignore[arg-type]
    assert index.tolist() == expected
    assert index.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:5", "selects none of the 9 frames"),
        ("20:", "selects none"),
        ([], "selects none"),
        ("a:b", "not start:stop:step"),
        ("1:2:3:4", "not start:stop:step"),
        ("", "not start:stop:step"),
        ("::0", "step 0"),
        ("::-1", "does not ascend"),
        ([3, 3], "does not ascend"),
        ("9", "asks for frame 9; the movie has frames 0 to 8"),
        ([1.5], "whole numbers"),
        (1.5, "whole numbers"),
    ],
)
def test_bad_frame_selection(text: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_movie(STACK, frames=text)  # type: ignore[arg-type]


def test_crop() -> None:
    assert parse_crop("2:10,4:9", (H, W)) == (slice(2, 10), slice(4, 9))
    assert parse_crop(":-4, 1: ", (H, W)) == (slice(0, 20), slice(1, W))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:25,0:5", "leaves the frame, which has rows 0 to 24"),
        ("0:5,-40:5", "leaves the frame, which has columns 0 to 34"),
        ("5:5,0:5", "no rows"),
        ("0:5,9:3", "no columns"),
        ("0:5", "not y0:y1,x0:x1"),
        ("a:5,0:5", "not y0:y1,x0:x1"),
        ("0:5:2,0:5", "not y0:y1,x0:x1"),
    ],
)
def test_bad_crop(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_movie(STACK, crop=text)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".png", ".gif"])
def test_exclusion_masks_from_files_before_and_after_cropping(tmp_path: Path, suffix: str) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[5:8, 3] = 255
    for name, part in (("full", mask), ("crop", mask[2:12, 1:11])):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".npy":
            np.save(path, part > 0)
        elif suffix == ".tif":
            tifffile.imwrite(path, part, photometric="minisblack")
        else:
            PIL.Image.fromarray(part).save(path)
        movie = open_movie(STACK, crop="2:12,1:11", exclude=path)
        np.testing.assert_array_equal(movie.valid, mask[2:12, 1:11] == 0)


def test_a_colour_mask_and_an_empty_mask(tmp_path: Path) -> None:
    painted = np.zeros((H, W, 3), np.uint8)
    painted[4, 4] = (255, 0, 0)
    PIL.Image.fromarray(painted).save(tmp_path / "red.png")
    assert np.argwhere(~open_movie(STACK, exclude=tmp_path / "red.png").valid).tolist() == [[4, 4]]
    assert open_movie(STACK, exclude=np.zeros((H, W))).valid is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((H, W - 1)), r"24 x 33 pixels, the movie 24 x 34 \(10 x 10 after --crop\)"),
        (np.zeros((2, H, W)), "one image"),
        (np.zeros(H), "one image"),
        (np.zeros((H, W), "U1"), "nonzero where excluded"),
        (np.ones((H, W)), "excludes every pixel"),
    ],
)
def test_bad_masks(mask: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_movie(STACK, crop="0:10,0:10", exclude=mask)


def test_a_movie_is_no_mask(sources: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"mask a\.tif has 9 frames"):
        open_movie(STACK, exclude=sources["a.tif"])


# ---- colour ----------------------------------------------------------------------------------------------------------

# In thousandths: whole numbers, so that halves may round either way.
EXACT = COLOUR.astype(int) @ np.array([299, 587, 114])


def check_luminance(frames: np.ndarray, exact: np.ndarray) -> None:
    assert frames.dtype == np.uint8
    assert np.abs(1000 * frames.astype(int) - exact).max() <= 500


def test_colour_is_refused_on_opening_and_weighted_when_asked(tmp_path: Path) -> None:
    for path in colour_sources(tmp_path, COLOUR):
        with pytest.raises(InputError, match="is in colour; give --luminance"):
            open_movie(path)
        movie = open_movie(path, luminance=True)
        check_luminance(read_all(movie), EXACT)
    check_luminance(open_movie(COLOUR, luminance=True).frame(3), EXACT[3])


def test_a_frame_that_turns_coloured_is_named(tmp_path: Path) -> None:
    frames = GREY_RGB.copy()
    frames[3, 5, 5] = (200, 10, 10)
    for path in colour_sources(tmp_path, frames):
        movie = open_movie(path)
        np.testing.assert_array_equal(movie.frame(2), STACK[2])
        with pytest.raises(InputError, match="starts grey, but frame 3 is in colour"):
            movie.frame(3)


def test_yuv_colour_uses_the_stored_luma(tmp_path: Path) -> None:
    planes = np.concatenate([STACK, np.full((T, H // 2, W), 128, np.uint8)], axis=1)
    planes[4:, H:] = 90
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        for frame in planes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="yuv420p")))
        container.mux(stream.encode())
    movie = open_movie(path)
    np.testing.assert_array_equal(movie.frame(3), STACK[3])
    with pytest.raises(InputError, match="frame 4 is in colour"):
        movie.frame(4)
    np.testing.assert_array_equal(read_all(open_movie(path, luminance=True)), STACK)


def test_tolerance_and_float_luminance() -> None:
    frame = np.full((2, 3, 3), 100, np.uint8)
    frame[0, 0] = (100, 104, 100)
    assert to_grey(frame, 0, "x", luminance=False, tolerance=4)[0, 0] == 102
    with pytest.raises(InputError, match="colour"):
        to_grey(frame, 0, "x", luminance=False, tolerance=3)
    assert to_grey(frame / 3, 0, "x", luminance=True)[0, 0] == pytest.approx((100 + 0.587 * 4) / 3)


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32"])
def test_labels_come_back_as_small_whole_numbers(tmp_path: Path, dtype: str) -> None:
    labels = (STACK > 100).astype(dtype)
    np.save(tmp_path / "l.npy", labels)
    read = open_labels(tmp_path / "l.npy")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


def test_bad_labels(tmp_path: Path) -> None:
    for bad, message in ((STACK / 2, "fractions"), (-STACK.astype(int), "labels run from 0")):
        np.save(tmp_path / "l.npy", bad)
        with pytest.raises(InputError, match=message):
            open_labels(tmp_path / "l.npy")
    save_movie(STACK.astype(np.uint16) * 10, tmp_path / "l.tif")
    assert open_labels(tmp_path / "l.tif").dtype == np.uint16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_clip_keeps_the_type_and_sets_the_ends(dtype):
    array = np.arange(40, dtype=dtype).reshape(2, 4, 5)
    movie = open_movie(array, clip=(3.5, 1e9) if dtype == np.uint8 else "3.5,30")
    frame = movie.frame(0)
    assert frame.dtype == dtype
    assert frame.min() == (3.5 if dtype == np.float32 else 4)
    assert movie.frame(1).max() == (39 if dtype == np.uint8 else 30)


@pytest.mark.parametrize("clip", ["60", "180,60", "a,b", (1, 2, 3)])
def test_a_clip_that_is_none_is_refused(clip):
    with pytest.raises(InputError, match="--clip"):
        open_movie(np.zeros((2, 4, 5), np.uint8), clip=clip)
