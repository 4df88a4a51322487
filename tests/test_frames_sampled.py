"""Movies of which only some pixels were visited: masks and levels, against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gmrm_gpu.errors import InputError
from gmrm_gpu.frames import ArrayMovie, Movie, open_movie, save_movie
from gmrm_gpu.frames.masked import mask_movie

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
    assert "lists its visits itself" in refusal(open_movie(STACK, visited=MASKS), visited=MASKS)


def test_data_that_are_nan_where_the_mask_says_visited_are_counted() -> None:
    stack = np.where(MASKS, STACK, np.nan).astype(np.float32)
    assert listed(open_movie(stack, visited=MASKS), 2) == looped(stack, MASKS, 2)
    places = np.argwhere(MASKS[2])[:3]
    for y, x in places:
        stack[2, y, x] = np.nan
    text = refusal(stack, visited=MASKS)
    assert f"frame 2 of array has NaN at 3 of the {MASKS[2].sum()} pixels that the mask calls visited" in text
    excluded = np.zeros((H, W), bool)
    excluded[tuple(places.T)] = True
    # Pixels that are excluded anyway need no level.
    movie = mask_movie(ArrayMovie(stack, valid=~excluded), visited=MASKS)
    assert len(movie.visits(2).positions) == MASKS[2].sum() - 3


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
    movie = open_movie(STACK, unvisited=0)
    assert "No pixel of the first frame has the level 0" in movie.acquisition.notes[0]
    assert movie.visits(0).positions.size == H * W
    infinite = np.where(MASKS, STACK, np.nan)
    infinite[0][MASKS[0]] = np.inf
    assert f"has {MASKS[0].sum()} visits whose grey level is NaN or infinite" in refusal(infinite, unvisited=np.nan)
