"""Random bits against known answers and the scalar reference; the keyed permutation against its definition."""

import numpy as np
import pytest
from backends import NUMPY32, other_backends, strict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import philox as oracle
from scipy import stats

from gmrm_gpu.philox import permute, philox4x32, stream_words, uniform

word = st.integers(0, 2**32 - 1)


def u32(values):
    return tuple(np.array([v], dtype=np.uint32) for v in values)


@pytest.mark.parametrize(("counter", "key", "expected"), oracle.KNOWN)
def test_known_answers(counter, key, expected):
    assert tuple(int(w[0]) for w in philox4x32(u32(counter), u32(key))) == expected


@pytest.mark.parametrize("make", other_backends())
def test_known_answers_on_other_backends(make):
    backend = make()
    for counter, key, expected in oracle.KNOWN:
        words = philox4x32(
            tuple(backend.asarray(w) for w in u32(counter)), tuple(backend.asarray(w) for w in u32(key)), xp=backend.xp
        )
        assert tuple(int(backend.to_host(w)[0]) for w in words) == expected


@settings(max_examples=50, deadline=None)
@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_equals_the_scalar_reference(counter, key):
    assert tuple(int(w[0]) for w in philox4x32(u32(counter), u32(key))) == oracle.philox4x32(counter, key)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.lists(word, min_size=1, max_size=4))
def test_stream_words_are_philox_of_their_coordinates(seed, frame, replicates):
    rate, stream = 0.05, 0x5A000000
    words = stream_words(seed, rate, np.array(replicates), frame, stream, 6)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for row, replicate in zip(words, replicates, strict=True):
        expected = [
            w for b in (0, 1) for w in oracle.philox4x32((frame, replicate, round(rate * 2**32), stream + b), key)
        ]
        assert row.tolist() == expected[:6]


def test_different_coordinates_give_different_words():
    seen = set()
    for seed in (0, 1, 2**32):
        for rate in (0.01, 0.05, 0.1, 1.0):
            for frame in (0, 1):
                for stream in (0x5A000000, 0x5B000000):
                    seen |= {tuple(row) for row in stream_words(seed, rate, np.arange(3), frame, stream, 4).tolist()}
    assert len(seen) == 3 * 4 * 2 * 2 * 3


def test_uniform_is_open_and_even():
    ends = uniform(np.array([0, 2**32 - 1], dtype=np.uint32))
    assert 0 < ends[0] < 1e-9
    assert 1 - 1e-9 < ends[1] < 1
    u = uniform(stream_words(7, 0.5, np.arange(20000), 0, 0, 1)[:, 0])
    assert stats.kstest(u, "uniform").pvalue > 1e-4  # seed 7


def keys(seed, rows):
    return stream_words(seed, 0.5, np.arange(rows), 0, 0x5A000000, 8)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 63, 1000, 1024, 26213])
def test_permute_is_a_permutation(n):
    out = permute(np.arange(n, dtype=np.uint32), n, keys(3, 4), backend=NUMPY32)
    assert out.dtype == np.int32
    assert (np.sort(out, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("n", [1, 5, 16, 391])
def test_permute_has_the_same_bits_on_the_strict_backend_and_in_parts(n):
    backend, index, key = strict(), np.arange(n, dtype=np.uint32), keys(4, 3)
    whole = permute(index, n, key, backend=NUMPY32)
    other = permute(backend.asarray(index), n, backend.asarray(key), backend=backend)
    assert (backend.to_host(other) == whole).all()
    parts = [permute(index[i : i + 3], n, key, backend=NUMPY32) for i in range(0, n, 3)]
    assert (np.concatenate(parts, axis=1) == whole).all()


@pytest.mark.parametrize("n", [5, 13, 24])
@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, -1)])
def test_ordered_pairs_are_even(n, pair):
    """The images of two indices are a uniform ordered pair: exact multinomial chi-square (seed 5)."""
    rows = 60000
    out = permute(np.arange(n, dtype=np.uint32), n, keys(5, rows), backend=NUMPY32)
    code = out[:, pair[0]] * n + out[:, pair[1]]
    counts = np.bincount(code, minlength=n * n).reshape(n, n)
    assert np.trace(counts) == 0
    observed = counts[~np.eye(n, dtype=bool)]
    assert stats.chisquare(observed).pvalue > 1e-4
