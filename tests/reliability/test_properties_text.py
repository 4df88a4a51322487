"""What holds for any line of text that a user may write, and for any file that is written and read again."""

from __future__ import annotations

import argparse
import csv
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from properties import holds

from gmrm_gpu.cli import values
from gmrm_gpu.config import trend_terms
from gmrm_gpu.config.units import UNIT_S, UNIT_UM, parse_bytes, parse_length_um, parse_time_s, parse_width
from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.frames import open_movie, save_movie, save_visits
from gmrm_gpu.frames.select import parse_clip, parse_crop, parse_frames
from gmrm_gpu.results.tables import write_csv

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
DTYPES = ("uint8", "int8", "uint16", "int16", "float32", "float64")
characters = st.sampled_from(list("0123456789.,:;+-eExXyY^* ²µ×nmusfp%BKMGiauto\n\t\0٣"))
anything = st.text(characters, max_size=9) | st.text(max_size=5)
amounts = st.floats(1e-9, 1e9)
FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet runs; written with an apostrophe before it."""


def unseen(c):
    """Whether a character is written out in tables, since it would act or cannot be seen."""
    return unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\u200c\u200d"


def stack_of(seed, shape, dtype, n_frames=3):
    """Random bits that are numbers: all values of a type occur."""
    kind = np.dtype(dtype)
    bits = np.random.default_rng(seed).integers(0, 256, (n_frames, *shape, kind.itemsize)).astype(np.uint8)
    stack = np.ascontiguousarray(bits).view(kind)[..., 0]
    return np.where(np.isfinite(stack), stack, kind.type(0))


def scratch(tmp_path_factory, name):
    """A file that examples overwrite."""
    return tmp_path_factory.getbasetemp() / name


def outcome(parse, text, *more):
    """What `parse` makes of a text, or None where it refuses it in words that show it."""
    try:
        return parse(text, *more)
    except (ConfigError, InputError, argparse.ArgumentTypeError) as error:
        said = str(error)
    assert repr(text)[1:-1] in said
    return None


# -- text ----------------------------------------------------------------------------------------------------------


@holds(value=amounts, unit=st.sampled_from(sorted(UNIT_UM)), gap=st.sampled_from(["", " "]))
def test_a_length_is_its_number_times_its_unit(value, unit, gap):
    assert parse_length_um(f"{value!r}{gap}{unit}") == pytest.approx(value * UNIT_UM[unit], rel=1e-15)


@holds(value=amounts, unit=st.sampled_from(sorted(UNIT_S)), power=st.sampled_from([2, 3]))
def test_a_time_and_a_width_are_their_numbers_times_their_units(value, unit, power):
    assert parse_time_s(f"{value!r}{unit}") == pytest.approx(value * UNIT_S[unit], rel=1e-15)
    assert parse_width(f"{value!r}nm{power}") == (pytest.approx(value * 1e-3**power, rel=1e-12), f"um{power}")


@holds(text=anything)
def test_a_quantity_is_above_zero_or_refused(text):
    for parse in (parse_length_um, parse_time_s, parse_bytes, lambda text: parse_width(text)[0]):
        value = outcome(parse, text)
        assert value is None or 0 < value < math.inf


@holds(text=anything, n_frames=st.integers(1, 20))
def test_frames_are_ascending_and_there_or_refused(text, n_frames):
    chosen = outcome(parse_frames, text, n_frames)
    if chosen is not None:
        assert (np.diff(chosen) > 0).all()
        assert 0 <= chosen[0] <= chosen[-1] < n_frames


@holds(start=st.none() | st.integers(-9, 30), stop=st.none() | st.integers(-9, 30), step=st.none() | st.integers(1, 9))
def test_frames_are_those_of_a_slice_of_python(start, stop, step):
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    wanted = np.arange(17)[start:stop:step]
    if wanted.size:
        np.testing.assert_array_equal(parse_frames(text, 17), wanted)
    else:
        with pytest.raises(InputError, match="selects none"):
            parse_frames(text, 17)


@holds(text=anything, ends=st.none() | st.lists(st.integers(-12, 12), min_size=4, max_size=4), shape=shapes)
def test_a_crop_lies_in_the_frame_or_is_refused(text, ends, shape):
    text = text if ends is None else "{}:{},{}:{}".format(*ends)
    for part, size in zip(outcome(parse_crop, text, shape) or (), shape, strict=False):
        assert 0 <= part.start < part.stop <= size


@holds(text=anything)
def test_grey_levels_to_clip_at_ascend_or_are_refused(text):
    low, high = outcome(parse_clip, text) or (0, 1)
    assert low < high


@holds(text=anything)
def test_a_trend_has_terms_or_is_refused(text):
    try:
        found = trend_terms(text)
    except ConfigError:
        return
    assert len(set(found)) == len(found)
    assert all(a >= 0 and b >= 0 and 1 <= a + b <= 4 for a, b in found)
    assert trend_terms(",".join(f"x{a}" * (a > 0) + f"y{b}" * (b > 0) for a, b in found) or "none") == found


@holds(text=anything)
def test_arguments_are_numbers_or_refused(text):
    parsers = {
        values.real: float,
        values.whole: int,
        values.whole_or_auto: (int, str),
        values.numbers(int): tuple,
        values.numbers(float): tuple,
        values.frame_rate: float,
        values.frame_size: tuple,
        values.size: tuple,
        values.words: tuple,
    }
    for parse, kind in parsers.items():
        value = outcome(parse, text)
        assert value is None or isinstance(value, kind)


# -- files ---------------------------------------------------------------------------------------------------------


@holds(
    columns=st.lists(st.lists(st.floats(width=32) | st.integers(), min_size=2, max_size=2), min_size=1, max_size=3),
    word=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8),
)
def test_a_table_is_read_as_it_was_written(columns, word, tmp_path_factory):
    path = scratch(tmp_path_factory, "table.csv")
    write_csv(path, {word: None} | {f"c{i}": column for i, column in enumerate(columns)} | {"words": [word, None]}, 2)
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    cell = head[0]
    assert head[1:] == [*(f"c{i}" for i in range(len(columns))), "words"]
    assert [row[-1] for row in rows] == [cell, ""]
    assert not cell.startswith(FORMULA)
    assert not any(map(unseen, cell))
    assert any(map(unseen, word)) or cell == "'" * word.startswith(FORMULA) + word
    for i, column in enumerate(columns):
        for value, row in zip(column, rows, strict=True):
            assert row[0] == ""
            if isinstance(value, float) and math.isnan(value):
                assert row[i + 1] == ""
            else:
                assert float(row[i + 1]) == pytest.approx(value, rel=1e-8)


@holds(seed=seeds, shape=shapes, dtype=st.sampled_from(DTYPES))
def test_a_movie_is_read_as_it_was_saved(seed, shape, dtype, tmp_path_factory):
    stack = stack_of(seed, shape, dtype)
    path = save_movie(stack, scratch(tmp_path_factory, "movie.npy"), overwrite=True)
    movie = open_movie(path)
    assert (len(movie), movie.shape, movie.dtype) == (*stack.shape[:1], stack.shape[1:], stack.dtype)
    assert all(movie.frame(t).tobytes() == stack[t].tobytes() for t in range(3))


@holds(seed=seeds, shape=shapes, dtype=st.sampled_from(DTYPES), share=st.floats(0, 1))
def test_visits_are_read_as_they_were_saved(seed, shape, dtype, share, tmp_path_factory):
    stack, rng = stack_of(seed, shape, dtype), np.random.default_rng(seed)
    where = rng.random(stack.shape) < share
    assume(where[0].any() and where[2].any())
    movie = open_movie(stack, visited=where)
    path = scratch(tmp_path_factory, "visits.npz")
    path.unlink(missing_ok=True)
    again = open_movie(save_visits(movie, path))
    assert (again.shape, again.dtype, len(again)) == (movie.shape, movie.dtype, len(movie))
    for t in range(3):
        seen, wanted = again.visits(t), movie.visits(t)
        np.testing.assert_array_equal(seen.positions, wanted.positions)
        assert seen.values.tobytes() == wanted.values.tobytes()


@holds(seed=seeds, shape=shapes, comma=st.sampled_from([",", ";", "\t"]), n=st.integers(1, 40))
def test_a_table_of_visits_is_a_movie_whatever_the_order_of_its_rows(seed, shape, comma, n, tmp_path_factory):
    rng = np.random.default_rng(seed)
    y, x, frame = (rng.integers(size, size=n) for size in (*shape, 3))
    level = rng.integers(0, 1000, n)
    path = scratch(tmp_path_factory, "visits.csv")
    order = rng.permutation(n)
    rows = [comma.join(str(int(a[i])) for a in (x, level, frame, y)) for i in order]
    head = [f"# height = {shape[0]}", f"# width = {shape[1]}", comma.join(("x", "intensity", "frame", "y"))]
    path.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
    movie = open_movie(path)
    assert movie.shape == shape
    for t, number in enumerate(movie.frame_numbers):
        seen = movie.visits(t)
        wanted = sorted(zip((y * shape[1] + x)[frame == number].tolist(), level[frame == number].tolist(), strict=True))
        assert sorted(zip(seen.positions.tolist(), seen.values.tolist(), strict=True)) == wanted
    assert sum(movie.visits(t).positions.size for t in range(len(movie))) == n


@holds(seed=seeds, shape=st.tuples(st.integers(3, 9), st.integers(3, 9)), data=st.data())
def test_a_view_of_a_view_is_a_slice_of_the_array(seed, shape, data):
    stack = stack_of(seed, shape, "uint16", n_frames=7)
    y, x = (sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))) for size in shape)
    step, first = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    low, high = sorted(data.draw(st.lists(st.integers(0, 65535), min_size=2, max_size=2, unique=True)))
    movie = open_movie(stack, crop=f"{y[0]}:{y[1]},{x[0]}:{x[1]}", frames=f"::{step}")
    view = open_movie(movie, crop="0:,0:", frames=f"{min(first, len(movie) - 1)}:", clip=(low, high))
    wanted = np.clip(stack[::step, y[0] : y[1], x[0] : x[1]][min(first, len(movie) - 1) :], low, high)
    np.testing.assert_array_equal(np.stack([view.frame(t) for t in range(len(view))]), wanted)
    np.testing.assert_array_equal(view.frame_numbers, np.arange(7)[::step][min(first, len(movie) - 1) :])
