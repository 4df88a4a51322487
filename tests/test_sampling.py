"""Draws: the same bits everywhere, distinct pixels, the right number, and every pixel equally likely.

The statistical tests use the stated seeds; a true null fails one of them with a probability of about 1e-4.
"""

import numpy as np
import pytest
from backends import NUMPY32, other_backends
from scipy import stats

from gmrm_gpu.config import SCHEMES, SamplingConfig
from gmrm_gpu.errors import InputError
from gmrm_gpu.sampling import Sampler

P_MIN = 1e-4
SMALL, LARGE = (7, 9), (33, 47)


def exclusion(shape):
    """A legend in a corner, one lone pixel and a whole column left out."""
    allowed = np.ones(shape, dtype=bool)
    allowed[:3, :4] = False
    allowed[-1, -2] = False
    allowed[:, 6] = False
    return allowed


def sampler(shape, scheme, rate=0.2, seed=11, masked=False, line_length=4):
    config = SamplingConfig(rate=rate, scheme=scheme, seed=seed, line_length=line_length)
    return Sampler(shape, config, exclusion(shape) if masked else None)


def host(draw, backend=NUMPY32):
    positions = backend.to_host(draw.positions)
    valid = np.ones(positions.shape, dtype=bool) if draw.valid is None else backend.to_host(draw.valid)
    return positions, valid


def visits(s, replicates, frame, shape):
    """(R, H * W) how often each replicate visits each pixel."""
    positions, valid = host(s.draw(replicates, frame, backend=NUMPY32))
    out = np.zeros((len(replicates), shape[0] * shape[1]), dtype=np.int64)
    np.add.at(out, (np.nonzero(valid)[0], positions[valid]), 1)
    return out


CASES = [(scheme, masked) for scheme in SCHEMES for masked in (False, True)]


@pytest.mark.parametrize(("scheme", "masked"), CASES)
@pytest.mark.parametrize("make", other_backends())
def test_same_bits_on_every_backend(make, scheme, masked):
    backend, s = make(), sampler(LARGE, scheme, masked=masked)
    replicates = np.array([0, 1, 5, 1000])
    a, b = s.draw(replicates, 3, backend=NUMPY32), s.draw(replicates, 3, backend=backend)
    for x, y in zip(host(a), host(b, backend), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.n_samples, b.n_samples)


@pytest.mark.parametrize(("scheme", "masked"), CASES)
def test_same_bits_whole_or_in_blocks(scheme, masked):
    s = sampler(LARGE, scheme, masked=masked)
    whole = s.draw(np.arange(12), 4, backend=NUMPY32)
    for block in ([0], [3, 4, 5, 6], [11], [7, 2]):
        part = s.draw(np.array(block), 4, backend=NUMPY32)
        for x, y in zip(host(whole), host(part), strict=True):
            np.testing.assert_array_equal(x[block], y)
        np.testing.assert_array_equal(whole.n_samples[block], part.n_samples)


@pytest.mark.parametrize(("scheme", "masked"), CASES)
@pytest.mark.parametrize("shape", [SMALL, LARGE, (1, 40), (40, 1), (16, 16), (9, 7)])
@pytest.mark.parametrize("rate", [0.03, 0.2, 0.9])
def test_positions_are_distinct_allowed_and_counted(shape, scheme, masked, rate):
    if masked and min(shape) < 7:
        masked = False
    s = sampler(shape, scheme, rate=rate, masked=masked)
    draw = s.draw(np.arange(40), 2, backend=NUMPY32)
    positions, valid = host(draw)
    assert positions.dtype == np.int32
    assert positions.shape == (40, s.capacity)
    assert positions.min() >= 0
    assert positions.max() < shape[0] * shape[1], "padding must repeat a legal position"
    for row, used, n in zip(positions, valid, draw.n_samples, strict=True):
        assert used.sum() == n
        assert len(set(row[used].tolist())) == n
        if masked:
            assert exclusion(shape).reshape(-1)[row[used]].all()


@pytest.mark.parametrize(("shape", "rate"), [((3, 5), 0.9), ((4, 4), 0.9), ((2, 2), 0.5), ((1, 1), 0.5)])
def test_tiny_bernoulli_frames_stay_inside(shape, rate):
    s = sampler(shape, "bernoulli", rate=rate)
    assert s.capacity <= s.n_pixels
    assert visits(s, np.arange(500), 0, shape).max() <= 1


@pytest.mark.parametrize("masked", [False, True])
def test_number_of_samples(masked):
    n = int(exclusion(LARGE).sum()) if masked else LARGE[0] * LARGE[1]
    replicates, rate = np.arange(4000), 0.1
    fixed = sampler(LARGE, "fixed", rate, masked=masked).draw(replicates, 0, backend=NUMPY32).n_samples
    assert (fixed == round(rate * n)).all()
    counts = sampler(LARGE, "bernoulli", rate, masked=masked).draw(replicates, 0, backend=NUMPY32).n_samples
    law = stats.binom(n, rate)
    edges = law.ppf(np.linspace(0, 1, 13)[1:-1])
    observed = np.histogram(counts, np.concatenate([[-1], edges, [n]]) + 0.5)[0]
    expected = len(counts) * np.diff(law.cdf(np.concatenate([[-1], edges, [n]])))
    assert stats.chisquare(observed, expected).pvalue > P_MIN
    for scheme in ("stratified", "lines"):
        mean = sampler(LARGE, scheme, rate, masked=masked).draw(replicates, 0, backend=NUMPY32).n_samples.mean()
        assert mean == pytest.approx(rate * n, rel=0.05)


def inclusion(s, n_pixels):
    """Probability of a visit that the scheme promises every allowed pixel."""
    if s.config.scheme == "fixed":
        return round(s.config.rate * s.n_pixels) / s.n_pixels
    if s.config.scheme == "bernoulli":
        return s.config.rate
    if s.config.scheme == "stratified":  # one pixel a block
        return Sampler(s.shape, s.config).capacity / n_pixels
    segments = s.shape[0] * round(s.shape[1] / s.config.line_length)
    return round(s.config.rate * segments) / segments


@pytest.mark.parametrize(("scheme", "masked"), CASES)
def test_inclusion_frequency_small_frame(scheme, masked):
    """Chi-square of all pixels' frequencies with the sampled covariance (Hotelling): seed 21, 20,000 replicates."""
    s = sampler(SMALL, scheme, rate=0.2, seed=21, masked=masked)
    seen = visits(s, np.arange(20000), 1, SMALL).astype(float)
    allowed = exclusion(SMALL).reshape(-1) if masked else np.ones(63, dtype=bool)
    assert seen[:, ~allowed].sum() == 0
    seen = seen[:, allowed]
    gap = seen.mean(axis=0) - inclusion(s, 63)
    values, vectors = np.linalg.eigh(np.cov(seen.T))
    free = values > 1e-9 * values.max()
    assert np.abs(vectors[:, ~free].T @ gap).max(initial=0) < 1e-9
    statistic = len(seen) * ((vectors[:, free].T @ gap) ** 2 / values[free]).sum()
    assert free.sum() >= allowed.sum() - 12
    assert stats.chi2.sf(statistic, free.sum()) > P_MIN


@pytest.mark.parametrize(("scheme", "masked"), CASES)
def test_inclusion_frequency_large_frame(scheme, masked):
    """Each pixel's count over replicates is binomial whatever the scheme; Bonferroni over pixels (seed 22)."""
    n, replicates = LARGE[0] * LARGE[1], 3000
    s = sampler(LARGE, scheme, rate=0.1, seed=22, masked=masked)
    counts = visits(s, np.arange(replicates), 1, LARGE).sum(axis=0)
    allowed = exclusion(LARGE).reshape(-1) if masked else np.ones(n, dtype=bool)
    assert counts[~allowed].sum() == 0
    p = inclusion(s, n)
    z = (counts[allowed] - replicates * p) / np.sqrt(replicates * p * (1 - p))
    assert np.abs(z).max() < stats.norm.isf(P_MIN / len(z) / 2)
    if scheme == "fixed":  # equal negative covariances: an exact quadratic form
        m = len(z)
        assert stats.chi2.sf((z**2).sum() * (m - 1) / m, m - 1) > P_MIN
    if scheme == "bernoulli":
        assert stats.chi2.sf((z**2).sum(), len(z)) > P_MIN


def test_the_inclusion_test_sees_a_small_bias():
    """The large-frame statistic fails when one pixel in 50 is visited a quarter less often."""
    n, replicates, p = LARGE[0] * LARGE[1], 3000, 0.1
    counts = np.random.default_rng(0).binomial(replicates, np.where(np.arange(n) % 50 == 0, 0.75 * p, p))
    z = (counts - replicates * p) / np.sqrt(replicates * p * (1 - p))
    assert stats.chi2.sf((z**2).sum(), n) < P_MIN


@pytest.mark.parametrize("scheme", ["fixed", "bernoulli"])
def test_pairs_of_pixels_are_even(scheme):
    """Any two pixels are visited together equally often: binomial, Bonferroni over all 595 pairs (seed 23)."""
    shape, replicates = (5, 7), 40000
    s = sampler(shape, scheme, rate=0.2, seed=23)
    seen = visits(s, np.arange(replicates), 0, shape)
    together = (seen.T @ seen)[np.triu_indices(35, 1)]
    p = 7 * 6 / (35 * 34) if scheme == "fixed" else 0.04
    z = (together - replicates * p) / np.sqrt(replicates * p * (1 - p))
    assert np.abs(z).max() < stats.norm.isf(P_MIN / len(z) / 2)


OTHER_DRAWS = {
    "next frame": lambda s, r: s.draw(r, 8, backend=NUMPY32),
    "next replicate": lambda s, r: s.draw(r + 1, 7, backend=NUMPY32),
    "another rate": lambda s, r: sampler(LARGE, s.config.scheme, rate=0.05, seed=24).draw(r, 7, backend=NUMPY32),
    "next seed": lambda s, r: sampler(LARGE, s.config.scheme, seed=25).draw(r, 7, backend=NUMPY32),
}


@pytest.mark.parametrize("other", OTHER_DRAWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_draws_are_independent(scheme, other):
    """The overlap of two draws has the mean that independence gives: |z| < 4.5, seed 24, 1,000 pairs."""
    n, replicates = LARGE[0] * LARGE[1], np.arange(1000)
    s = sampler(LARGE, scheme, seed=24)
    first, second = s.draw(replicates, 7, backend=NUMPY32), OTHER_DRAWS[other](s, replicates)
    overlap = []
    for p, pv, q, qv in zip(*host(first), *host(second), strict=True):
        overlap.append(len(np.intersect1d(p[pv], q[qv])))
    gap = np.array(overlap) - first.n_samples * second.n_samples / n
    assert abs(gap.mean()) / (gap.std() / np.sqrt(len(gap))) < 4.5


def test_a_draw_depends_on_everything_it_should():
    base = host(sampler(LARGE, "fixed").draw(np.array([3]), 5, backend=NUMPY32))[0]
    others = [
        sampler(LARGE, "fixed").draw(np.array([4]), 5, backend=NUMPY32),
        sampler(LARGE, "fixed").draw(np.array([3]), 6, backend=NUMPY32),
        sampler(LARGE, "fixed", seed=12).draw(np.array([3]), 5, backend=NUMPY32),
        sampler(LARGE, "fixed", seed=11 + 2**32).draw(np.array([3]), 5, backend=NUMPY32),
    ]
    assert all((host(o)[0] != base).any() for o in others)
    again = host(sampler(LARGE, "fixed").draw(np.array([3]), 5, backend=NUMPY32))[0]
    np.testing.assert_array_equal(base, again)


def test_stratified_has_one_pixel_in_every_block():
    """Rows of the grid hold equally many samples, so no window a block high can be empty."""
    shape = (32, 32)
    s = sampler(shape, "stratified", rate=0.0625)
    seen = visits(s, np.arange(200), 0, shape).reshape(200, *shape)
    assert (seen.sum(axis=(1, 2)) == 64).all()
    wrapped = np.concatenate([seen, seen[:, :7]], axis=1)
    windows = np.stack([wrapped[:, y : y + 7].sum(axis=(1, 2)) for y in range(32)])
    assert windows.min() >= 8


def test_lines_are_segments():
    s = sampler(LARGE, "lines", rate=0.2, line_length=8)
    positions, valid = host(s.draw(np.arange(20), 0, backend=NUMPY32))
    for row, used in zip(positions, valid, strict=True):
        mask = np.zeros(LARGE, dtype=bool)
        mask.reshape(-1)[row[used]] = True
        runs = (mask & ~np.roll(mask, 1, axis=1)).sum()
        assert runs <= -(-used.sum() // 7)


@pytest.mark.parametrize("masked", [False, True])
def test_rate_one_visits_everything(masked):
    s = sampler(SMALL, "fixed", rate=1.0, masked=masked)
    allowed = exclusion(SMALL).reshape(-1) if masked else np.ones(63, dtype=bool)
    assert (visits(s, np.arange(3), 0, SMALL) == allowed).all()


def test_nothing_left_to_sample_is_an_error():
    with pytest.raises(InputError, match="excluded"):
        Sampler(SMALL, SamplingConfig(rate=0.5), np.zeros(SMALL, dtype=bool))
