"""What is special to movies in compiled functions: threads, and replicates alone or together, change no bit."""

import numpy as np
import pytest
from devices import EVERY
from test_fused_movie import LINEAR, SHAPE, USUAL, pack, scene, sizes_of

from gmrm_gpu.config import PhaseConfig
from gmrm_gpu.engines.fused.fit import FitKeys
from gmrm_gpu.engines.fused.launch import Launch
from gmrm_gpu.engines.fused.movie_fit import fit_movies, label_movie
from gmrm_gpu.engines.fused.movie_plan import Room
from gmrm_gpu.mixture.maps import CellMaps, through_time

pytest.importorskip("numba", reason="Numba is not installed")
pytestmark = pytest.mark.skipif("compiled" not in EVERY, reason="tests run on the GPU")

PHASES = PhaseConfig(phases="brightest")


def analysed(words, config, workers, *, first=0, shape=SHAPE):
    """Every array that comes of words (R, T, m) of replicates `first` and after, by name."""
    from gmrm_gpu.engines.compiled.device import CompiledDevice

    device = CompiledDevice(workers)
    sizes = sizes_of(words, config, shape)
    numbers = (np.arange(first, first + len(words), dtype=np.uint32), np.zeros(1, np.uint32))

    def room(launch: Launch) -> Room:
        return Room(device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes))

    options = {"room": room, "device": device}
    fitted = fit_movies(words, sizes, keys=FitKeys(7, 0.1, *numbers), sigma_floor=0.3, **options)
    found = label_movie(words, fitted, sizes, PHASES, allowed=None, pixel_weights=None, **options)
    arrays = {**found.fit.common.arrays(), "drift": found.fit.drift, "weights": found.fit.frames.weights}
    names = ("labels", "posterior", "expected", "expected_mean")
    return arrays | {name: getattr(found, name) for name in names}


def assert_same_bits(found, wanted, rows=slice(None)):
    for name, value in wanted.items():
        assert found[name].tobytes() == value[rows].tobytes(), name


@pytest.mark.parametrize("rows", [1, 5], ids=["alone", "together"])
def test_threads_change_no_bit(rows):
    values, places = scene(LINEAR, rows=rows, n_frames=7, m=140)
    words = pack(values, places)
    whole = analysed(words, LINEAR, 1)
    for workers in (2, 3):
        assert_same_bits(analysed(words, LINEAR, workers), whole)


def test_threads_share_large_maps_of_the_past():
    # 256 x 128 pixels, all visited: 32,768 cells and samples, which threads share.
    shape = (256, 128)
    values, places = scene(USUAL, rows=1, n_frames=2, m=shape[0] * shape[1], shape=shape)
    words = pack(values, places, shape=shape)
    assert_same_bits(analysed(words, USUAL, 3, shape=shape), analysed(words, USUAL, 1, shape=shape))


def test_replicates_alone_are_those_of_a_batch():
    values, places = scene(LINEAR, rows=5, n_frames=4, m=120, seed=3)
    words = pack(values, places)
    whole = analysed(words, LINEAR, 2)
    for r in (0, 4):
        assert_same_bits(analysed(words[r : r + 1], LINEAR, 2, first=r), whole, slice(r, r + 1))


@pytest.mark.parametrize(("n_frames", "n_levels"), [(1, 1), (16, 2), (37, 3)])
def test_maps_are_those_of_the_arrays(n_frames, n_levels):
    from types import SimpleNamespace

    from backends import NUMPY64

    from gmrm_gpu.engines.compiled import movie_deposits, movie_maps
    from gmrm_gpu.engines.fused.movie_plan import movie_constants

    call = SimpleNamespace(constants=dict(movie_constants(LINEAR, wide=False)))
    maps, wanted = movie_maps.make_maps(call, 70, 150, n_levels), CellMaps((70, 150), n_levels, NUMPY64)
    rng = np.random.default_rng(n_frames)
    grid = (3, *wanted.grid)
    made = (rng.integers(0, 200_000, (n_frames, *grid)) * (rng.random((n_frames, *grid)) < 0.1)).astype(np.int32)
    held = np.empty(made.shape, np.float32)
    flat = made.reshape(n_frames, -1)
    for first in range(0, flat.shape[1], 300):
        last = min(first + 300, flat.shape[1])
        movie_deposits.through_time(flat, held.reshape(flat.shape), np.float32(0.4), first, last)
    expected = through_time(made[None] / 65536.0, backend=NUMPY64)[0]
    np.testing.assert_allclose(held, expected, rtol=1e-6, atol=1e-6)
    weights, scratch = np.array([0.3, 0.7, 0.0], np.float32), np.full(2 * held[0].size, np.nan, np.float32)
    held[:, 2] = 0.0
    strip = movie_maps.make_strip(3, maps.columns)
    prior = movie_maps.make_priors(maps, held[-1], weights, scratch, strip)
    np.testing.assert_allclose(prior, wanted.prior(held[-1].astype(float), weights.astype(float)), rtol=0, atol=1e-6)
