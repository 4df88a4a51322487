"""Thinned movies: the pixels of an analysis at that rate, nothing else, as an object, a file and a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gmrm_gpu as gg
from gmrm_gpu.backend import make_backend
from gmrm_gpu.cli import main
from gmrm_gpu.config import SamplingConfig
from gmrm_gpu.errors import ConfigError, InputError, OutputError
from gmrm_gpu.frames import ArrayMovie, Movie, open_movie, save_movie
from gmrm_gpu.frames.sampled.sparse import save_visits
from gmrm_gpu.sampling import Sampler
from gmrm_gpu.thinning import thin_movie

RNG = np.random.default_rng(5)
STACK = RNG.integers(0, 250, (3, 40, 56)).astype(np.uint8)
NUMBERS = np.array([4, 5, 9])
EXCLUDED = np.zeros((40, 56), bool)
EXCLUDED[30:, :20] = True


def dense() -> Movie:
    return ArrayMovie(STACK, name="dense", frame_numbers=NUMBERS, valid=~EXCLUDED, frame_time_s=0.5, pixel_size_um=0.01)


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli", "stratified", "lines"])
def test_a_thinned_movie_has_the_draw_of_an_analysis(scheme: str, tmp_path: Path) -> None:
    sampling = SamplingConfig(rate=0.1, scheme=scheme, seed=3)
    movie = open_movie(save_visits(thin_movie(dense(), sampling, replicate=2), tmp_path / "a.npz"))
    assert (movie.frame_numbers.tolist(), movie.frame_time_s, movie.pixel_size_um) == ([4, 5, 9], 0.5, 0.01)
    assert movie.acquisition.notes[-1].startswith(f"10 % of the pixels were kept of dense, scheme {scheme}")
    sampler, backend = Sampler((40, 56), sampling, ~EXCLUDED), make_backend(np)
    for t, number in enumerate(NUMBERS):
        draw = sampler.draw(np.array([2]), int(number), backend=backend)
        drawn = draw.positions[0] if draw.valid is None else draw.positions[0][draw.valid[0]]
        expected = {int(place): int(STACK[t, place // 56, place % 56]) for place in drawn}
        seen = movie.visits(t)
        assert dict(zip(seen.positions.tolist(), seen.values.tolist(), strict=True)) == expected
        assert len(seen.positions) == len(expected) > 100


def test_a_part_of_the_visits_of_a_sub_sampled_movie() -> None:
    sparse = thin_movie(dense(), SamplingConfig(rate=0.2, seed=1))
    fewer = thin_movie(sparse, SamplingConfig(rate=0.05, seed=2))
    for t in range(3):
        all_of_them = set(zip(*(part.tolist() for part in vars(sparse.visits(t)).values()), strict=True))
        some = list(zip(*(part.tolist() for part in vars(fewer.visits(t)).values()), strict=True))
        assert len(some) == len(set(some)) == round(0.05 * dense().n_pixels)
        assert set(some) < all_of_them
    with pytest.raises(InputError, match="asks for"):
        thin_movie(sparse, SamplingConfig(rate=0.5)).visits(0)
    with pytest.raises(ConfigError, match="leaves no pixel out"):
        thin_movie(dense(), SamplingConfig())


def test_an_analysis_of_the_file_is_the_analysis_of_the_movie_at_that_rate(tmp_path: Path) -> None:
    movie = gg.simulate("battery", shape=(96, 96), n_frames=8, seed=2).movie
    sampling = SamplingConfig(rate=0.1, seed=4)
    config = gg.AnalysisConfig(mixture=gg.MixtureConfig(n_components=3), sampling=sampling)
    expected = gg.analyze(movie, config)
    thin = save_visits(thin_movie(movie, sampling), tmp_path / "a.npz")
    result = gg.analyze(open_movie(thin), config.with_rate(1.0))
    # The same samples in another order: sums differ in their last digits.
    np.testing.assert_allclose(result.share, expected.share, atol=1e-5)


def test_whole_frames_cannot_be_written_of_visits(tmp_path: Path) -> None:
    for name in ("a.npy", "a.tif"):
        with pytest.raises(OutputError, match=r"dense is sub-sampled and \.\w+ holds whole frames; .* gmrm-gpu thin"):
            save_movie(thin_movie(dense(), SamplingConfig(rate=0.1)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_thin_writes_the_draw_and_says_how_small_it_is(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("movie.npy", STACK)
    assert main(["thin", "movie.npy", "--rate", "0.05", "--scheme", "stratified", "--seed", "3"]) == 0
    out, notes = capsys.readouterr()
    size = Path("movie_thin.npz").stat().st_size
    assert f"written: movie_thin.npz, {size / 1e6:.3g} MB, {100 * size / STACK.size:.3g} % of the" in out
    assert "scheme stratified, seed 3. Analyse them with --scheme stratified as well." in notes
    expected = thin_movie(ArrayMovie(STACK), SamplingConfig(rate=0.05, scheme="stratified", seed=3))
    movie = open_movie("movie_thin.npz")
    counts = []
    for t in range(3):
        wanted, seen = expected.visits(t), movie.visits(t)
        order = np.argsort(wanted.positions)
        np.testing.assert_array_equal(seen.positions, wanted.positions[order])
        np.testing.assert_array_equal(seen.values, wanted.values[order])
        counts.append(len(seen.positions))
    assert f"visits: {np.mean(counts):,.0f} a frame, {100 * np.mean(counts) / 2240:.3g} % of the pixels" in out
    assert main(["thin", "movie_thin.npz", "--frames", "1:3", "--out", "again.npz"]) == 0
    again = open_movie("again.npz")
    assert again.frame_numbers.tolist() == [1, 2]
    np.testing.assert_array_equal(again.visits(1).values, movie.visits(2).values)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("thin movie.npy", 2, "movie.npy has whole frames; give --rate"),
        ("thin movie.npy --rate 0.1 --out movie.npy --overwrite", 1, "movie.npy is read by this command"),
        ("thin movie.npy --rate 0.1 --out a.tif", 1, "visits are kept in a file named .npz"),
        ("thin movie.npy --rate 0.1 --out there.npz", 1, "there.npz exists"),
        ("thin movie.npy --rate 0.1 --out no/there.npz", 1, "cannot write no/there.npz"),
        ("thin movie.npy --visited movie.npy", 1, "a mask has two"),
    ],
)
def test_thin_refuses_in_one_line(arguments, code, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("movie.npy", STACK)
    np.savez("there.npz", a=1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert main([*arguments.split(), "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
