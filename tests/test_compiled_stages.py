"""Draw, label, vote and tally in compiled functions: threads, sizes and inputs that the shared tests do not reach."""

import numpy as np
import pytest
from backends import NUMPY32

pytest.importorskip("numba")
import devices
import test_fused_correct as votes
import test_fused_draw as draws
import test_fused_label as labelling

from gmrm_gpu.classify import NOT_VISITED
from gmrm_gpu.config import SCHEMES, CorrectionConfig, MixtureConfig, PhaseConfig, SamplingConfig
from gmrm_gpu.correct import correct_labels
from gmrm_gpu.engines.compiled import lanes
from gmrm_gpu.engines.compiled.ball import make_ball
from gmrm_gpu.engines.compiled.blocks import run_blocks
from gmrm_gpu.engines.compiled.correct import ball_rows
from gmrm_gpu.engines.compiled.device import CompiledDevice
from gmrm_gpu.engines.compiled.jit import compiled
from gmrm_gpu.engines.compiled.philox import BLOCK, START, permute, stream_words
from gmrm_gpu.engines.compiled.pool import Pool
from gmrm_gpu.engines.fused.correct import neighbourhood, window_words
from gmrm_gpu.engines.fused.draw import DrawJob, network_bits
from gmrm_gpu.engines.fused.label import Labels, map_shape, run_label
from gmrm_gpu.engines.fused.tally import run_tally, share_and_variance
from gmrm_gpu.estimate import sample_mean
from gmrm_gpu.philox import STREAM_START
from gmrm_gpu.philox import permute as generic_permute
from gmrm_gpu.philox import stream_words as generic_words
from gmrm_gpu.sampling import Sampler

SEED, RATE = 2**63 + 5, 0.37


@pytest.fixture(autouse=True)
def on_compiled(monkeypatch):
    monkeypatch.setattr(devices, "on", "compiled")


@compiled
def count_bits(low, high, by, masks, n):
    found = lanes.zeros()
    for i in range(n):
        first = i * lanes.N_LANES
        found = lanes.add_set_bits(
            found, lanes.load(low, first), lanes.load(high, first + 1), by, lanes.load(masks, first)
        )
    return lanes.total_of(found)


def test_lanes_count_the_bits_of_a_window():
    rng = np.random.default_rng(0)
    low, high, masks = (rng.integers(0, 2**32, size=49, dtype=np.uint32) for _ in range(3))
    both = high[1:].astype(np.uint64) << np.uint64(32) | low[:-1]
    for by in range(32):
        wanted = np.bitwise_count(both >> np.uint64(by) & masks[:-1]).sum()
        assert count_bits(low, high, np.uint32(by), masks, 3) == wanted


def test_functions_of_others_are_compiled_beside_ours():
    """Numba tells all listeners of all functions, those without a module too."""
    scope: dict = {}
    exec("def double(x):\n    return 2 * x", scope)
    scope["double"].__module__ = None
    assert pytest.importorskip("numba").njit(scope["double"])(4) == 8


def test_words_of_a_stream():
    seed = np.array([SEED & 0xFFFFFFFF, SEED >> 32, round(RATE * 2**32)], dtype=np.uint32)
    out = np.empty(12, np.uint32)
    stream_words(seed, np.uint32(2**32 - 1), np.uint32(2**31), START, out)
    wanted = generic_words(SEED, RATE, np.array([2**32 - 1], np.uint32), 2**31, STREAM_START, 12)
    np.testing.assert_array_equal(out, wanted[0])


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000, 2**16 + 1, 3 * 2**20, 2**30 - 1, 2**30])
def test_permutation(size):
    keys = generic_words(SEED, RATE, np.arange(1), 3, 0x5A000000, 8)
    rng = np.random.default_rng(size)
    for n in {min(n, size) for n in (1, 15, BLOCK)}:
        index = rng.integers(0, size, size=n, dtype=np.uint32)
        values = np.full(BLOCK, 7, np.uint32)
        values[:n] = index
        permute(values, n, size, network_bits(size), keys[0], np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.int32))
        np.testing.assert_array_equal(values[:n], generic_permute(index, size, keys, backend=NUMPY32)[0])
        assert (values[n:] == 7).all()


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_block_once(n, workers):
    for samples in (0, 1, 4096, 10**9):
        seen = np.zeros(n, int)

        def work(start, stop, seen=seen):
            seen[start:stop] += 1

        run_blocks(Pool(workers), work, n, samples)
        assert (seen == 1).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_draws_with_any_number_of_threads(scheme):
    job = draws.make_job((97, 131), scheme, 0.6, masked=True)
    movie = draws.movie_of((97, 131), job.dtype)
    found = [draws.draw(job, movie, CompiledDevice(workers)) for workers in (1, 2, 3)]
    draws.check(job, movie, *found[0])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 65535), (65535, 1)])
def test_draws_from_the_longest_frames(shape):
    for scheme, rate in (("fixed", 0.01), ("stratified", 0.002), ("lines", 0.01), ("fixed", 1.0)):
        sampler = Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, seed=1))
        job = DrawJob(sampler, draws.REPLICATES[:2], draws.FRAMES[:2], np.dtype(np.int16))
        movie = np.random.default_rng(0).integers(-(2**15), 2**15, size=(2, *shape), dtype=np.int16)
        movie.flags.writeable = False
        draws.check(job, movie, *draws.draw(job, movie, slabs=(0, 1, 2)))


def test_labels_with_any_number_of_threads():
    """Bits of everything, the float64 sums among them; blocks of 4,096 and of a few samples."""
    mixture, shape, rng = (
        MixtureConfig(n_components=3, trend="quadratic+electrode"),
        (140, 130),
        np.random.default_rng(4),
    )
    for n, m in ((3, 9001), (60, 517)):
        fit = labelling.random_fits(rng, n, mixture)
        values, positions, valid = labelling.random_samples(rng, n, m, shape, wide=True)
        arrays = (values, positions, valid, fit, shape, mixture, labelling.RULES[4])
        found = [labelling.run(*arrays, wide=True, device=CompiledDevice(workers)) for workers in (1, 2, 3)]
        for other in found[1:]:
            for a, b in zip(other, found[0], strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(found[0][3], labelling.painted(found[0][0], positions, shape, 2))


def test_labels_of_read_only_and_extreme_samples():
    """Values as large as float32 holds, and a model far away from all samples."""
    mixture, phases, shape = MixtureConfig(n_components=2, trend="none"), PhaseConfig(), (9, 8)
    values = np.array([[3e38, -3e38, 0.0, 1e20, 118.0]], np.float32)
    positions, device = np.arange(5)[None], CompiledDevice(1)
    words = labelling.pack(values, positions, np.ones((1, 5), bool), 8, True).reshape(1, 1, 5)
    words.flags.writeable = False
    words = device.asarray(words)
    fits = labelling.device_fits(labelling.one_fit((100.0, 118.0), (2.0, 3.0), (), ()), device)
    out = Labels.empty((1, 1, 5), map_shape(shape, 2), device)
    run_label(words, fits, shape, mixture, phases, out=out, device=device)
    assert out.labels[0, 0, 4] == 1
    assert set(out.labels[0, 0]) <= {0, 1}
    assert out.labels[0, 0, 2] == 1  # 50 sigmas of the first away, 39 of the second


def volume_of(frames, *, replicates=2, shape=(21, 45), m=300, seed=3):
    labels, positions = votes.volume(seed, (frames, *shape), m=m, replicates=replicates)
    labels[:, -1, :5] = 1
    return labels, positions


@pytest.mark.parametrize("window", ["past", "past+current", "symmetric", "spatial"])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 7.0])
def test_votes_across_parts_of_a_movie(window, scale):
    """More frames than a task corrects: each task fetches its own past and future."""
    labels, positions = volume_of(75)
    config = CorrectionConfig("l2", 3, 0.5, window, "both", scale)
    for workers in (1, 3):
        device = CompiledDevice(workers)
        changed, _ = votes.compare(labels, positions, (21, 45), config, device=device)
        assert (changed > 0) == (window != "past" or scale < 7)  # 7 > 3: no frame of the past is within reach


@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 65])
def test_votes_at_the_edges_of_words(width):
    shape = (37, width)
    m = min(37 * width, 500)
    labels, positions = volume_of(5, shape=shape, m=m, seed=width)
    for radius in (1, 15, 16, 17, 31, 33, 70):
        config = CorrectionConfig("l2", radius, 0.5, "symmetric", "both")
        votes.compare(labels, positions, shape, config, wide=True)


def test_tiles_hold_the_ball():
    """Set bits of the tiles are the pixels of the rows; only what the frame can hold is kept."""
    for radius in (0.5, 1, 10, 20, 40):
        config = CorrectionConfig(radius=radius, window="symmetric")
        window = window_words(config, (512, 512), 2)
        rows = ball_rows(neighbourhood(config, 300, window), window)
        ball, plane = make_ball(rows, 512, 512)
        assert np.bitwise_count(ball.masks).sum() == (2 * rows[:, 2] + 1).sum()
        assert (ball.first, ball.last) == (rows[:, 0].min(), rows[:, 0].max())
        place = (((511 - ball.reach) >> 5) + plane.left) * plane.column + plane.top + 511
        assert place + ball.offset.max() + plane.column + lanes.N_LANES <= plane.size
        assert ((-ball.reach >> 5) + plane.left) * plane.column + plane.top + ball.offset.min() >= 0
    small, _ = make_ball(rows, 3, 5)
    assert np.bitwise_count(small.masks).sum() <= 81 * 5 * 9


def test_votes_of_frames_smaller_than_the_ball():
    for shape in ((1, 1), (2, 3), (1, 40), (40, 1)):
        labels, positions = volume_of(4, shape=shape, m=shape[0] * shape[1])
        votes.compare(labels, positions, shape, CorrectionConfig("l1", 100, 0.5, "past+current", "both"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tally_of_long_rows(scheme):
    """More labels than are counted at a time."""
    sampler = votes.sampler_of(scheme, (230, 310), 0.99 if scheme != "fixed" else 0.7)
    assert sampler.capacity > 2**15
    found = []
    for workers in (1, 2, 3):
        votes.check_tally(sampler, device=CompiledDevice(workers))
        labels = np.random.default_rng(1).integers(0, 3, size=(3, 2, sampler.capacity)).astype(np.uint8)
        labels[labels == 2] = NOT_VISITED
        labels.flags.writeable = False
        device = CompiledDevice(workers)
        found.append(run_tally(device.asarray(labels), sampler, 1, device=device))
        np.testing.assert_array_equal(found[0], found[-1])
    values, visited = (labels == 1).astype(np.float64), labels != NOT_VISITED
    shares = share_and_variance(found[0], sampler)
    for t in range(2):
        wanted = sample_mean(
            values[:, t],
            visited[:, t],
            visited[:, t].sum(axis=1),
            sampler.n_pixels,
            scheme,
            sampler.cluster_length,
            backend=NUMPY32,
        )
        for a, b in zip(shares, wanted, strict=True):
            np.testing.assert_allclose(a[:, t], b, rtol=1e-12)


def test_votes_in_several_replicates_do_not_mix():
    """A replicate corrected alone, and the same among others."""
    labels, positions = volume_of(40, replicates=3)
    config = CorrectionConfig(radius=4, gamma=0.5)
    keywords = {"n_phases": 2, "foreground": 1, "backend": NUMPY32}
    alone, _ = correct_labels(labels[1:2], positions[1:2], (21, 45), config, **keywords)
    words = votes.words_of(labels, positions, 45, False)
    found = labels.copy()
    maps = votes.paint(labels, positions, (21, 45), 2)
    votes.run_correct(words, found, maps, (21, 45), config, PhaseConfig(), device=CompiledDevice(3))
    np.testing.assert_array_equal(found[1], alone[0])
