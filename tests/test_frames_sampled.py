"""Movies of which only some pixels were visited: masks, levels, tables, sparse files, against plain loops."""

from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.frames import Acquisition, ArrayMovie, Movie, open_movie, save_movie
from gmrm_gpu.frames.sampled.masked import mask_movie
from gmrm_gpu.frames.sampled.places import ListedMovie
from gmrm_gpu.frames.sampled.sparse import save_visits

T, H, W = 4, 9, 13
RNG = np.random.default_rng(11)
STACK = RNG.integers(1, 250, (T, H, W)).astype(np.uint8)
MASKS = RNG.random((T, H, W)) < 0.3


def looped(stack: np.ndarray, masks: np.ndarray, t: int) -> list[tuple[int, float]]:
    """(place, level) of the visited pixels of frame `t`, pixel by pixel."""
    height, width = stack.shape[1:]
    return [
        (y * width + x, stack[t, y, x].item())
        for y in range(height)
        for x in range(width)
        if masks[min(t, len(masks) - 1), y, x]
    ]


def listed(movie: Movie, t: int) -> list[tuple[int, float]]:
    seen = movie.visits(t)
    assert seen.positions.dtype == np.int32
    assert seen.values.dtype == movie.dtype
    return sorted(zip(seen.positions.tolist(), seen.values.tolist(), strict=True))


def read(movie: Movie) -> list[list[tuple[int, float]]]:
    return [listed(movie, t) for t in range(len(movie))]


def refusal(source: object, **options: object) -> str:
    """The one line with which a movie is refused, on opening or on reading its frames."""
    with pytest.raises(InputError) as caught:
        read(open_movie(source, **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, "255", ".npy", ".npz", ".tif"])
@pytest.mark.parametrize("one", [True, False])
def test_a_mask_of_any_kind_says_where_the_beam_went(kind: object, one: bool, tmp_path: Path) -> None:
    masks = MASKS[:1] if one else MASKS
    given: object = masks[0] if one else masks
    if kind == "255":
        given = np.asarray(given, dtype=np.uint8) * 255
    elif isinstance(kind, str):
        path = tmp_path / f"mask{kind}"
        np.savez(path, mask=given) if kind == ".npz" else save_movie(np.asarray(given, dtype=np.uint8), path)
        given = path
    else:
        given = np.asarray(given).astype(kind)
    movie = open_movie(STACK, visited=given)
    assert movie.sampled
    for t in range(T):
        assert listed(movie, t) == looped(STACK, masks, t)
    with pytest.raises(InputError, match="sub-sampled and has no whole frames"):
        movie.frame(0)


def test_frames_crop_and_exclusion_go_on_top_of_the_mask() -> None:
    excluded = np.zeros((H, W), bool)
    excluded[2:4, 3:9] = True
    movie = open_movie(STACK, visited=MASKS, frames="1:4:2", crop="1:8,2:12", exclude=excluded)
    assert movie.frame_numbers.tolist() == [1, 3]
    for t, number in enumerate((1, 3)):
        expected = []
        for y in range(1, 8):
            for x in range(2, 12):
                if MASKS[number, y, x] and not excluded[y, x]:
                    expected.append(((y - 1) * 10 + x - 2, int(STACK[number, y, x])))
        assert listed(movie, t) == expected


def test_what_a_mask_leaves_out_is_told() -> None:
    left_out = open_movie(STACK, visited=MASKS).acquisition.notes
    assert len(left_out) == 1
    assert f"leaves out {100 * (1 - MASKS[0].mean()):.3g} % of the pixels" in left_out[0]
    blank = np.where(MASKS, STACK, 0)
    assert open_movie(blank, visited=MASKS).acquisition.notes == ()
    inverted = open_movie(blank, visited=~MASKS).acquisition.notes
    assert "Is it inverted?" in inverted[0]


def test_a_mask_that_does_not_fit_is_refused() -> None:
    assert "mask of --visited has 9 x 12 pixels, array has 9 x 13" in refusal(STACK, visited=MASKS[:, :, 1:])
    assert "mask of --visited has 3 frames, array has 4" in refusal(STACK, visited=MASKS[:3])
    assert "levels; a mask has two" in refusal(STACK, visited=STACK)
    assert "NaN" in refusal(STACK, visited=np.where(MASKS[0], np.nan, 1.0))
    assert "0 everywhere" in refusal(STACK, visited=np.zeros((H, W), bool))
    assert "type <U1" in refusal(STACK, visited=np.full((H, W), "x"))
    assert "shape (9,)" in refusal(STACK, visited=np.ones(H, bool))
    assert "give one of them" in refusal(STACK, visited=MASKS, unvisited=0)
    assert "unvisited is '0'; give the grey level as a number" in refusal(STACK, unvisited="0")
    assert "lists its visits itself" in refusal(open_movie(STACK, visited=MASKS), visited=MASKS)


def test_data_that_are_nan_where_the_mask_says_visited_are_counted() -> None:
    stack = np.where(MASKS, STACK, np.nan).astype(np.float32)
    assert listed(open_movie(stack, visited=MASKS), 2) == looped(stack, MASKS, 2)
    places = np.argwhere(MASKS[2])[:3]
    for y, x in places:
        stack[2, y, x] = np.nan
    text = refusal(stack, visited=MASKS)
    assert f"frame 2 of array has 3 of {MASKS[2].sum()} visits at a grey level that is NaN" in text
    assert "if a mask calls them visited, give that of this movie, or --unvisited nan" in text
    excluded = np.zeros((H, W), bool)
    excluded[tuple(places.T)] = True
    # Pixels that are excluded anyway need no level.
    for movie in (
        mask_movie(ArrayMovie(stack, valid=~excluded), visited=MASKS),
        open_movie(stack, visited=MASKS, exclude=excluded),
    ):
        assert len(movie.visits(2).positions) == MASKS[2].sum() - 3
    rows = slice(places[:, 0].max() + 1, H)
    cropped = open_movie(stack, visited=MASKS, crop=f"{rows.start}:,:")
    assert len(cropped.visits(2).positions) == MASKS[2, rows].sum()


# ---- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "level"), [(np.uint8, 0), (np.int16, -1), (np.float32, np.nan), (np.float64, -0.1)])
def test_a_level_says_where_the_beam_did_not_go(dtype: type, level: float) -> None:
    stack = np.where(MASKS, STACK.astype(dtype), dtype(level))
    movie = open_movie(stack, unvisited=level)
    for t in range(T):
        assert listed(movie, t) == looped(stack, MASKS, t)
    notes = movie.acquisition.notes
    assert len(notes) == (0 if np.isnan(level) else 1)
    assert all("counts as not visited" in note for note in notes)


def test_a_level_that_cannot_be_or_is_not_there_is_told() -> None:
    assert "uint8, so no pixel has the level 256" in refusal(STACK, unvisited=256)
    assert "uint8, so no pixel has the level 0.5" in refusal(STACK, unvisited=0.5)
    assert "uint8, so no pixel has the level nan" in refusal(STACK, unvisited=np.nan)
    assert "uint8, so no pixel has the level inf" in refusal(STACK, unvisited=np.inf)
    movie = open_movie(STACK, unvisited=0)
    assert "No pixel of the first frame has the level 0" in movie.acquisition.notes[0]
    assert movie.visits(0).positions.size == H * W
    infinite = np.where(MASKS, STACK, np.nan)
    infinite[0][MASKS[0]] = np.inf
    n = MASKS[0].sum()
    assert f"has {n} of {n} visits at a grey level that is NaN or infinite" in refusal(infinite, unvisited=np.nan)


# ---- tables ----------------------------------------------------------------------------------------------------------

ROWS = [
    # frame, x, y, level: frame 3 first, pixel (2, 1) of frame 1 twice, frame 2 missing
    (3, 4, 0, 70),
    (1, 2, 1, 250),
    (3, 0, 6, 31),
    (1, 2, 1, 9),
    (1, 0, 0, 12),
]
FRAMES = {1: [(9, 250), (9, 9), (0, 12)], 3: [(4, 70), (42, 31)]}
"""Visits of each frame in a frame of 8 x 7 pixels, in the order of the rows."""


def check_table(movie: Movie, shape: tuple[int, int] = (8, 7)) -> None:
    assert movie.sampled
    assert movie.shape == shape
    assert movie.frame_numbers.tolist() == [1, 3]
    for t, number in enumerate((1, 3)):
        seen = movie.visits(t)
        assert list(zip(seen.positions.tolist(), seen.values.tolist(), strict=True)) == FRAMES[number]


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_as(sep: str, rows: list[tuple[object, ...]]) -> str:
    return "".join(sep.join(str(cell) for cell in row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("head", "sep"),
    [
        ("frame,x,y,intensity", ","),
        ("Frame Number;X (px);Y [px];Grey_Level", ";"),
        ("\ufefft\tCol\trow\tCounts", "\t"),
        ('"slice","x_position","y_position","Value"', ","),
        ("frames x y z", " "),
    ],
)
def test_a_table_is_read_whatever_its_columns_are_called(head: str, sep: str, tmp_path: Path) -> None:
    before = "# made by hand\n# shape = 8 x 7\n# pixel_size_um: 0.02\n# frame_time_s = 0.5\n\n"
    head, mark = (head[1:], "\ufeff") if head.startswith("\ufeff") else (head, "")
    path = csv(tmp_path / "a.csv", mark + before + head + "\n" + rows_as(sep, ROWS))
    movie = open_movie(path)
    check_table(movie)
    assert (movie.dtype, movie.pixel_size_um, movie.frame_time_s) == (np.uint8, 0.02, 0.5)
    assert movie.acquisition.notes == ("a.csv lists no visit of 1 frames between its first and last (2).",)


def test_frames_whose_numbers_lie_far_apart(tmp_path: Path) -> None:
    # Milliseconds since 1970, say, taken for frame numbers: no list as long as the gaps.
    path = tmp_path / "far.csv"
    path.write_text("# shape: 2 x 2\nx,y,value,frame\n0,0,1,5\n1,0,2,7\n0,1,3,2147483640\n")
    movie = open_movie(path)
    assert movie.frame_numbers.tolist() == [5, 7, 2147483640]
    shown = "6, 8, 9, 10, 11, 12, 13, 14, 15, 16, ..."
    assert movie.acquisition.notes == (
        f"far.csv lists no visit of 2,147,483,633 frames between its first and last ({shown}).",
    )
    assert movie.acquisition.sentences == movie.acquisition.notes  # a name stays as it is


def test_notes_become_sentences() -> None:
    notes = Acquisition(notes=("the frames are uneven", "a b.tif is there.", "run_1.csv has no header"))
    assert notes.sentences == ("The frames are uneven.", "A b.tif is there.", "run_1.csv has no header.")


def test_decimal_commas_and_fractions(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "# height = 3\n# width = 4\nx;y;intensity\n1;2;3,5\n0;0;-1,25\n")
    movie = open_movie(path)
    assert (movie.dtype, movie.shape, listed(movie, 0)) == (np.float64, (3, 4), [(0, -1.25), (9, 3.5)])


def test_npz_and_parquet_hold_the_same_table(tmp_path: Path) -> None:
    frame, x, y, level = (np.array(column) for column in zip(*ROWS, strict=True))
    columns = {"frame": frame, "x": x, "y": y, "intensity": level.astype(np.uint16)}
    np.savez(tmp_path / "a.npz", shape=(8, 7), pixel_size_um=0.02, **columns)
    movie = open_movie(tmp_path / "a.npz")
    check_table(movie)
    assert (movie.dtype, movie.pixel_size_um) == (np.uint16, 0.02)
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    table = arrow.table(columns).replace_schema_metadata({"height": "8", "width": "7", "pixel_size_um": "0.02"})
    parquet.write_table(table, tmp_path / "a.parquet")
    movie = open_movie(tmp_path / "a.parquet")
    check_table(movie)
    assert (movie.dtype, movie.pixel_size_um) == (np.uint16, 0.02)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    assert "b.parquet is no table of numbers" in refusal(tmp_path / "b.parquet")
    gaps = arrow.table({"x": [1, None], "y": [1, 2], "intensity": [1, 2]})
    parquet.write_table(gaps, tmp_path / "b.parquet")
    assert "has 1 rows without x" in refusal(tmp_path / "b.parquet")


def test_a_folder_of_tables_has_one_file_a_frame(tmp_path: Path) -> None:
    for number in (9, 10):
        csv(tmp_path / f"scan{number}.csv", f"# shape = 4 x 5\nx,y,counts\n{number - 6},2,{number}\n0,0,300")
    movie = open_movie(tmp_path)
    assert [note.split()[0] for note in movie.acquisition.notes] == ["scan9.csv", "scan10.csv"]
    assert (len(movie), movie.dtype, movie.shape) == (2, np.uint16, (4, 5))
    assert [listed(movie, t) for t in (0, 1)] == [[(0, 300), (13, 9)], [(0, 300), (14, 10)]]
    csv(tmp_path / "scan11.csv", "# shape = 4 x 6\nx,y,counts\n1,1,1\n")
    assert "scan11.csv differs from scan9.csv in its header" in refusal(tmp_path)
    csv(tmp_path / "scan11.csv", "# shape = 4 x 5\nframe,x,y,counts\n1,1,1,2\n")
    assert "in a folder each file is one frame" in refusal(tmp_path)
    (tmp_path / "scan11.csv").write_text("")
    assert "scan11.csv is empty (0 bytes)" in refusal(tmp_path)
    # A frame in which the beam went nowhere.
    csv(tmp_path / "scan11.csv", "# shape = 4 x 5\nx,y,counts\n")
    csv(tmp_path / "scan12.csv", "# shape = 4 x 5\nx,y,counts\n1,0,5\n")
    movie = open_movie(tmp_path)
    assert movie.frame_numbers.tolist() == [0, 1, 3]
    assert (movie.dtype, listed(movie, 2)) == (np.uint16, [(1, 5)])
    assert "1 files list no visits and are left out as frames: scan11.csv." in movie.acquisition.notes
    for number in (9, 10, 12):
        (tmp_path / f"scan{number}.csv").unlink()
    assert "lists no visits" in refusal(tmp_path)


@pytest.mark.parametrize("head", ["Frame #", "frame_no.", "Frame-Number", "t", "FRAME INDEX"])
def test_names_that_a_column_of_frames_may_have(tmp_path: Path, head: str) -> None:
    movie = open_movie(csv(tmp_path / "a.csv", f"# shape = 2 x 2\n,x,y,counts,{head}\n0,1,1,7,4\n1,0,0,8,5\n"))
    assert movie.frame_numbers.tolist() == [4, 5]
    assert movie.acquisition.notes == ("a.csv has columns that are not used: one without a name.",)


def test_a_folder_of_npz_tables(tmp_path: Path) -> None:
    for number in (2, 10):
        np.savez(tmp_path / f"{number}.npz", x=[0, number], y=[1, 1], counts=[7, number], height=3, width=11)
    movie = open_movie(tmp_path)
    assert [listed(movie, t) for t in (0, 1)] == [[(11, 7), (13, 2)], [(11, 7), (21, 10)]]
    np.savez(tmp_path / "11.npz", x=[0], y=[1])
    assert "11.npz holds x, y; name its arrays x, y and intensity" in refusal(tmp_path)


def test_times_of_a_table(tmp_path: Path) -> None:
    rows = "x,y,value,time{}\n0,0,1,500\n1,1,2,500\n2,2,3,900\n"
    movie = open_movie(csv(tmp_path / "a.csv", rows.format(" (ms)")))
    assert movie.acquisition.times_s is not None
    np.testing.assert_allclose(movie.acquisition.times_s, [0.5, 0.9])
    assert [len(movie.visits(t).positions) for t in (0, 1)] == [2, 1]
    movie = open_movie(csv(tmp_path / "a.csv", rows.format("")))
    assert movie.acquisition.times_s is None
    assert any("does not say the unit of its times" in note for note in movie.acquisition.notes)
    both = "frame,x,y,value,time_s\n7,0,0,1,1.0\n7,1,1,2,1.5\n9,1,1,2,4.0\n"
    movie = open_movie(csv(tmp_path / "a.csv", both))
    np.testing.assert_allclose(movie.acquisition.times_s, [1.25, 4.0])
    back = both.replace("4.0", "0.5")
    assert "do not ascend" in open_movie(csv(tmp_path / "a.csv", back)).acquisition.notes[-1]
    each = "x,y,value,time_s\n0,0,1,1.0\n1,1,2,1.5\n"
    assert "another time in every row" in refusal(csv(tmp_path / "a.csv", each))


def test_what_a_table_does_not_say_is_told(tmp_path: Path) -> None:
    movie = open_movie(csv(tmp_path / "a.csv", "1,2,7\n3,1,8\n"))
    assert movie.shape == (3, 4)
    assert "no header: its columns were taken as x, y, intensity" in movie.acquisition.notes[0]
    assert "taken as 3 x 4" in movie.acquisition.notes[1]
    assert "No x or y is 0" in movie.acquisition.notes[1]
    movie = open_movie(csv(tmp_path / "a.csv", "x,y,value,dwell_us\n0,0,7,1\n3,1,8,1\n"))
    assert movie.acquisition.notes[0] == "a.csv has columns that are not used: dwell_us."


def test_a_table_that_may_be_cut_or_says_what_is_not_understood(tmp_path: Path) -> None:
    movie = open_movie(csv(tmp_path / "a.csv", "# shape = 4 x 6\n# pixel_size_nm = 5\nx,y,value\n0,0,7\n3,1,2"))
    assert movie.acquisition.notes == (
        "a.csv says pixel_size_nm = 5, which is not used.",
        "a.csv ends without a line break: if it was cut short, its last number may be too.",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,value\n0,0,1\n9,0,2\n", "has 1 of 2 coordinates outside of its 4 x 6 pixels (x up to 9, y up to 0"),
        ("x,y,value\n6,4,1\n1,1,2\n", "subtract 1, they seem to count from 1"),
        ("x,y,value\n0,-1,1\n1,1,2\n", "has 1 of 2 y below 0, such as -1"),
        ("x,y,value\n0.5,0,1\n1.25,1,2\n", "has 2 of 2 x with a fraction, such as 0.5"),
        ("x,y,value\nnan,0,1\n1,1,2\n", "has 1 of 2 x that are no numbers"),
        ("x,y,value\n1e12,0,1\n1,1,2\n", "has 1 of 2 x beyond 2^31"),
        ("x (nm),y (nm),value\n1,0,1\n", "gives x in nm"),
        ("x,y,value\n1,0,nan\n", "has 1 of 1 visits at a grey level that is NaN"),
        ("x,y\n1,0\n", "has no column intensity (found: x, y)"),
        ("a,b,c\n1,0,2\n", "has the columns a, b, c"),
        ("1,2,3,4\n", "has 4 columns and no header"),
        ("x,y,value,counts\n1,0,1,1\n", "two columns for intensity: value and counts"),
        ("x,y,value\n", "lists no visits"),
        ("x,y,value\n1,0\n", "is no table of numbers"),
        ("x,y,value\n1,0,dark\n", "is no table of numbers"),
        ("frame,x,y,value\n0.5,1,0,1\n", "frame with a fraction"),
    ],
)
def test_a_bad_table_is_refused_with_counts(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(csv(tmp_path / "a.csv", "# shape = 4 x 6\n" + text))


def test_a_frame_too_large_to_be_true_is_refused(tmp_path: Path) -> None:
    assert "give 1 to 2^31 - 1 pixels" in refusal(csv(tmp_path / "a.csv", "x,y,value\n0,0,1\n99999,99999,2\n"))
    assert "gives the numbers 5 as its shape" in refusal(csv(tmp_path / "a.csv", "# shape = 5\nx,y,value\n0,0,1\n"))
    assert "pixel_size_um as 5nm" in refusal(csv(tmp_path / "a.csv", "# pixel_size_um = 5nm\nx,y,value\n0,0,1\n"))


# ---- the sparse file -------------------------------------------------------------------------------------------------


def sparse_file(path: Path, stack: np.ndarray = STACK, masks: np.ndarray = MASKS, **more: object) -> Path:
    known = Acquisition(0.005, 0.25, np.array([0.0, 0.3, 0.5, 0.9]), "Ceta", 12, ("A word.",))
    movie = ArrayMovie(stack, frame_numbers=np.array([2, 3, 5, 8]), acquisition=known, **more)
    return save_visits(mask_movie(movie, visited=masks), path)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "<u2", ">u4", "float32", ">f8"])
def test_a_sparse_file_gives_back_every_visit(dtype: str, tmp_path: Path) -> None:
    stack = (STACK.astype(np.float64) * 3 - 100).astype(dtype) if dtype != "uint8" else STACK
    excluded = np.zeros((H, W), bool)
    excluded[3, 2:7] = True
    movie = open_movie(sparse_file(tmp_path / "a.npz", stack, valid=~excluded))
    assert (movie.sampled, movie.shape, movie.dtype) == (True, (H, W), np.dtype(dtype).newbyteorder("="))
    assert movie.frame_numbers.tolist() == [2, 3, 5, 8]
    np.testing.assert_array_equal(movie.valid, ~excluded)
    known = movie.acquisition
    assert (known.pixel_size_um, known.frame_time_s, known.detector, known.bit_depth) == (0.005, 0.25, "Ceta", 12)
    assert known.times_s is not None
    assert known.times_s.tolist() == [0.0, 0.3, 0.5, 0.9]
    assert known.notes[0] == "A word."
    for t in [3, 0, 2, 2, 1]:
        assert listed(movie, t) == looped(stack, MASKS & ~excluded, t)


def test_repeated_visits_and_frames_without_any_survive(tmp_path: Path) -> None:
    counts = np.array([3, 0, 2])
    listed_movie = ListedMovie(
        counts,
        np.array([7, 7, 2]).repeat([1, 1, 3])[[0, 2, 1, 3, 4]],
        np.array([5, 1, 6, 8, 9]),
        name="l",
        shape=(3, 4),
    )
    movie = open_movie(save_visits(listed_movie, tmp_path / "a.npz"))
    seen = [movie.visits(t) for t in range(3)]
    assert [s.positions.tolist() for s in seen] == [[2, 7, 7], [], [2, 2]]
    assert [s.values.tolist() for s in seen] == [[1, 5, 6], [], [8, 9]]


def test_a_sparse_file_is_read_by_its_description_alone(tmp_path: Path) -> None:
    """The layout as the module's docstring gives it, with NumPy and zlib and nothing of this package."""
    path = sparse_file(tmp_path / "a.npz")
    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(str(arrays["gmrm_visits"]))
        assert (header["version"], header["shape"], header["dtype"]) == (1, [H, W], "|u1")
        for t in range(T):
            parts = []
            for key, itemsize in (("places", 4), ("values", 1)):
                b = int(arrays[key][t])
                block = zlib.decompress(arrays["blocks"][arrays["offsets"][b] : arrays["offsets"][b + 1]].tobytes())
                assert zlib.crc32(block) == arrays["crc32"][b]
                n = int(arrays["counts"][t])
                parts.append([sum(block[i + n * j] << 8 * j for j in range(itemsize)) for i in range(n)])
            places = [sum(parts[0][: i + 1]) for i in range(len(parts[0]))]
            assert list(zip(places, parts[1], strict=True)) == looped(STACK, MASKS, t)


def test_damage_to_a_sparse_file_is_never_silent(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "a.npz")
    data, whole = path.read_bytes(), read(open_movie(path))
    bad, told = tmp_path / "b.npz", 0
    for i in range(0, len(data), 3):
        bad.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
        try:
            movie = open_movie(bad)
            same = read(movie) == whole and movie.acquisition.pixel_size_um == 0.005
        except InputError as error:
            told, same = told + 1, "\n" not in str(error)
        assert same, f"bit {i % 8} of byte {i}"
    # What is left changes nothing: dates, flags and attributes in the tables of the zip.
    assert told > 0.6 * len(data) / 3
    for cut in range(1, len(data), 97):
        bad.write_bytes(data[:cut])
        assert "b.npz" in refusal(bad)


def test_threads_read_the_right_frames_of_a_sparse_file(tmp_path: Path) -> None:
    movie = open_movie(sparse_file(tmp_path / "a.npz"))
    order = RNG.integers(0, T, 200)
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda t: listed(movie, int(t)), order))
    assert frames == [looped(STACK, MASKS, int(t)) for t in order]


def test_a_wrong_check_sum_names_the_frame(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "a.npz")
    with np.load(path) as arrays:
        held = dict(arrays)
    held["crc32"][held["values"][2]] ^= 1
    bad = tmp_path / "b.npz"
    np.savez(bad, **held)
    movie = open_movie(bad)
    assert listed(movie, 1) == looped(STACK, MASKS, 1)
    with pytest.raises(InputError, match=r"frame 5 of b\.npz is truncated or damaged \(its check sum is wrong\)"):
        movie.visits(2)
    held["gmrm_visits"] = np.array(str(held["gmrm_visits"]).replace('"version": 1', '"version": 2'))
    np.savez(bad, **held)
    assert "has version 2 of the format" in refusal(bad)
    negative = json.loads(str(held["gmrm_visits"])) | {"version": 1, "pixel_size_um": -1.0}
    held["gmrm_visits"] = np.array(json.dumps(negative))
    np.savez(bad, **held)
    assert "truncated or damaged (pixel_size_um is -1.0" in refusal(bad)
    held["gmrm_visits"] = np.array("[]")
    np.savez(bad, **held)
    assert "truncated or damaged" in refusal(bad)


def test_a_pattern_that_stays_is_kept_once(tmp_path: Path) -> None:
    stack = RNG.integers(0, 255, (20, 100, 120)).astype(np.uint16)
    one = RNG.random((100, 120)) < 0.05
    many = RNG.random((20, 100, 120)) < 0.05
    sizes = [
        save_visits(mask_movie(ArrayMovie(stack), visited=mask), tmp_path / f"{i}.npz").stat().st_size
        for i, mask in enumerate((one, many))
    ]
    n = 20 * one.sum()
    assert sizes[0] < 1.35 * n
    assert sizes[1] < 2.3 * n


def test_whole_frames_and_other_names_are_not_written(tmp_path: Path) -> None:
    movie = mask_movie(ArrayMovie(STACK), visited=MASKS)
    with pytest.raises(OutputError, match="has whole frames; thin it first"):
        save_visits(ArrayMovie(STACK), tmp_path / "a.npz")
    with pytest.raises(OutputError, match=r"named \.npz"):
        save_visits(movie, tmp_path / "a.tif")
    path = save_visits(movie, tmp_path / "a.npz")
    first = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save_visits(movie, path)
    broken = mask_movie(ArrayMovie(np.where(MASKS, np.nan, 1.0)), visited=MASKS)
    with pytest.raises(InputError, match="at a grey level that is NaN"):
        save_visits(broken, path, overwrite=True)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    save_visits(movie, path, overwrite=True)
    assert path.read_bytes() == first
