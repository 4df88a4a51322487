"""The draw kernel, run on the CPU: the positions, validity and counts of `Sampler.draw`, and the movie's values."""

import itertools

import numpy as np
import pytest
from backends import NUMPY32
from devices import kernel_device, missing

from gmrm_gpu.config import SCHEMES, SamplingConfig
from gmrm_gpu.engines.fused.cut import MOST_A_BLOCK, cut_samples
from gmrm_gpu.engines.fused.draw import (
    VALUE_TYPES,
    DrawJob,
    draw_obstacle,
    needs_wide,
    plan_draw,
    prepare_draw,
    run_draw,
)
from gmrm_gpu.sampling import Sampler

pytestmark = pytest.mark.usefixtures("each_device")
on_host = pytest.mark.skipif(missing() is not None, reason=str(missing()))
REPLICATES = np.array([0, 3, 70_000, 2**32 - 1], dtype=np.uint32)
FRAMES = np.array([0, 6, 9, 2**31], dtype=np.uint32)
_NO_SAMPLE = (np.uint32(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF))


def unpack_words(words: np.ndarray, wide: bool, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (float32), flat positions (int32) and validity (bool) of packed samples, on the host, same shape.

    Where there is no sample, value and position are 0.
    """
    valid = words != _NO_SAMPLE[wide]
    words = np.where(valid, words, 0)
    if wide:
        values = (words >> np.uint64(32)).astype(np.uint32).view(np.float32)
        y, x = words >> np.uint64(16) & np.uint64(0xFFFF), words & np.uint64(0xFFFF)
    else:
        values = (words >> np.uint32(24)).astype(np.float32)
        y, x = words >> np.uint32(12) & np.uint32(0xFFF), words & np.uint32(0xFFF)
    return values, y.astype(np.int32) * np.int32(width) + x.astype(np.int32), valid


def movie_of(shape, dtype, seed=0):
    """Frames that use the whole range of their type, NaN and infinity too."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size=(len(FRAMES), *shape), dtype=dtype, endpoint=True)
    bits = np.uint16 if dtype.itemsize == 2 else np.uint32
    return rng.integers(0, np.iinfo(bits).max, size=(len(FRAMES), *shape), dtype=bits, endpoint=True).view(dtype)


def make_job(shape, scheme, rate, *, masked=False, dtype="uint8", seed=2**63 + 5):
    allowed = np.random.default_rng(1).random(shape) < 0.85 if masked else None
    if masked:
        allowed[0, 0] = False  # where a sample that was never written would seem to be
    sampler = Sampler(shape, SamplingConfig(rate=rate, scheme=scheme, seed=seed, line_length=9), allowed)
    return DrawJob(sampler, REPLICATES, FRAMES, np.dtype(dtype))


def draw(job, movie, device=None, slabs=(0, 4)):
    """Words (R, T, m) and counts (R, T), from slabs that start at `slabs`."""
    device = device or kernel_device()
    drawn = prepare_draw(job, device)
    for first, stop in itertools.pairwise(slabs):
        run_draw(drawn, device.asarray(movie[first:stop]), first, device)
    return device.to_host(drawn.samples), device.to_host(drawn.n_samples)


def check(job, movie, words, counts):
    values, positions, valid = unpack_words(words, job.wide, job.sampler.shape[1])
    for t, number in enumerate(job.frames):
        expected = job.sampler.draw(job.replicates, int(number), backend=NUMPY32)
        used = np.ones(expected.positions.shape, bool) if expected.valid is None else expected.valid
        np.testing.assert_array_equal(valid[:, t], used)
        np.testing.assert_array_equal(positions[:, t][used], expected.positions[used])
        with np.errstate(invalid="ignore"):  # signalling NaN
            wanted = movie[t].reshape(-1)[expected.positions[used]].astype(np.float32)
        np.testing.assert_array_equal(values[:, t][used], wanted)
        np.testing.assert_array_equal(counts[:, t], expected.n_samples)


@on_host
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(33, 47), (1, 70), (70, 1), (32, 32), (5, 3), (130, 61)])
def test_bits_of_the_sampler(scheme, shape, masked):
    for rate in (0.003, 0.2, 0.9, 1.0):
        job = make_job(shape, scheme, rate, masked=masked)
        movie = movie_of(shape, job.dtype)
        check(job, movie, *draw(job, movie))


@on_host
@pytest.mark.parametrize("dtype", [name for name in VALUE_TYPES if name != "uint8"])
def test_types_of_pixels(dtype):
    job = make_job((19, 23), "bernoulli", 0.4, dtype=dtype)
    movie = movie_of((19, 23), dtype)
    assert job.wide
    check(job, movie, *draw(job, movie))


@on_host
def test_wide_words_of_bytes_on_a_long_frame():
    job = make_job((2, 4097), "fixed", 0.3)
    assert job.wide
    movie = movie_of((2, 4097), "uint8")
    check(job, movie, *draw(job, movie))


@on_host
def test_many_blocks_a_frame_and_slabs_give_the_same_bits():
    shape = (97, 131)
    job = make_job(shape, "stratified", 0.9, masked=True)
    assert cut_samples(job.m).chunks == 3
    movie = movie_of(shape, job.dtype)
    words, counts = draw(job, movie)
    check(job, movie, words, counts)
    parts = draw(job, movie, slabs=(0, 1, 4))
    for other in (parts, draw(job, movie, kernel_device(schedule="reverse"))):
        np.testing.assert_array_equal(other[0], words)
        np.testing.assert_array_equal(other[1], counts)


@on_host
@pytest.mark.parametrize("scheme", SCHEMES)
def test_replicates_by_themselves(scheme):
    whole, movie = make_job((33, 47), scheme, 0.2, masked=True), movie_of((33, 47), "uint8")
    words, counts = draw(whole, movie)
    alone = DrawJob(whole.sampler, REPLICATES[2:3], FRAMES, whole.dtype)
    found = draw(alone, movie)
    np.testing.assert_array_equal(found[0], words[2:3])
    np.testing.assert_array_equal(found[1], counts[2:3])


@pytest.mark.harness
@on_host
@pytest.mark.parametrize("schedule", ["reverse", "random:3"])
def test_any_order_of_threads(schedule):
    job = make_job((33, 47), "bernoulli", 0.5, masked=True)
    movie = movie_of((33, 47), "uint8")
    check(job, movie, *draw(job, movie, kernel_device(schedule=schedule)))


@pytest.mark.harness
def test_words_of_four_bytes_hold_every_pixel_of_their_frames():
    for side, padded in ((4096, False), (4095, True)):
        assert not needs_wide((side, side), np.dtype(np.uint8), padded=padded)
        last = np.array([255 << 24 | (side - 1) << 12 | (side - 1)], dtype=np.uint32)
        values, positions, valid = unpack_words(last, False, side)
        if padded:
            assert valid.all()
            assert (values[0], positions[0]) == (255, side * side - 1)
        assert needs_wide((side + 1, 1), np.dtype(np.uint8), padded=padded)
    assert needs_wide((8, 8), np.dtype(np.int8), padded=False)


@pytest.mark.harness
def test_what_cannot_be_drawn():
    assert draw_obstacle((512, 512), np.dtype(np.uint16)) is None
    assert "float64" in draw_obstacle((512, 512), np.dtype(np.float64))
    assert "65536" in draw_obstacle((2, 65536), np.dtype(np.uint8))
    assert "50000" in draw_obstacle((50000, 50000), np.dtype(np.uint8))


@pytest.mark.harness
def test_launch_covers_every_sample():
    for m in (1, 31, 32, 33, MOST_A_BLOCK, MOST_A_BLOCK + 1, 26214, 4096**2):
        cut = cut_samples(m)
        assert cut.length % 32 == 0
        assert cut.length <= MOST_A_BLOCK
        assert (cut.chunks - 1) * cut.length < m <= cut.chunks * cut.length
    job = make_job((97, 131), "fixed", 0.9)
    assert plan_draw(job, 3).blocks == len(REPLICATES) * 3 * cut_samples(job.m).chunks


@pytest.mark.harness
@on_host
@pytest.mark.parametrize(("sanitize", "scheme"), [("asan", "bernoulli"), ("asan", "lines"), ("tsan", "bernoulli")])
def test_sanitized(sanitize, scheme):
    sampler = make_job((13, 37), scheme, 0.6, masked=True).sampler
    job = DrawJob(sampler, REPLICATES[:1], FRAMES[:2], np.dtype(np.uint8))
    movie = movie_of((13, 37), "uint8")[:2]
    check(job, movie, *draw(job, movie, kernel_device(sanitize=sanitize, schedule="random:6"), slabs=(0, 2)))
