"""The histogram of the compiled engine: its exponential and logarithm, its bins, the same bits for any threads."""

import numpy as np
import pytest
from oracle import histogram as oracle
from test_fused_fit import bits, blurred, fused, scene

pytest.importorskip("numba", reason="the extra cpu (Numba) is not installed")

import numba

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.engines.compiled import histogram as module
from gmrm_gpu.engines.compiled.device import Call, CompiledDevice
from gmrm_gpu.engines.compiled.fit import Chunks
from gmrm_gpu.engines.compiled.pool import Pool
from gmrm_gpu.engines.compiled.sums import make_model, make_work
from gmrm_gpu.engines.fused import fit as fit_module
from gmrm_gpu.mixture.design import TrendBasis


@numba.njit
def _of_all(values, out, exponential):
    for i in range(values.size):
        out[i] = module._exp(values[i]) if exponential else module._log(values[i])


def test_exponential_and_logarithm():
    values = np.concatenate([[0.0, -700.0, -1e300, -np.inf], -np.geomspace(1e-17, 700, 20_001)])
    found = np.empty_like(values)
    _of_all(values, found, True)
    np.testing.assert_allclose(found, np.exp(np.maximum(values, -700.0)), rtol=2e-13, atol=0)
    near = values > -40
    np.testing.assert_allclose(found[near], np.exp(values[near]), rtol=1e-14, atol=0)
    totals = np.concatenate([np.linspace(1, 6, 20_001), [1.5, 3.0, np.nextafter(1.5, 0), np.nextafter(3.0, 0)]])
    found = np.empty_like(totals)
    _of_all(totals, found, False)
    np.testing.assert_allclose(found, np.log(totals), rtol=0, atol=1e-15)


def model_of(trend):
    """Sizes and monomials as `sums.make_model` finds them from a kernel's constants."""
    source = fit_module.fit_source(2000, MixtureConfig(n_components=3, trend=trend, histogram=True), wide=False)
    return make_model(Call(dict(source.constants), Pool(1)))


@pytest.mark.parametrize("trend", ["none", "quadratic+electrode", "x2,y3", "x4,x2y2,y4"])
def test_bins_are_those_of_a_loop(trend):
    rng = np.random.default_rng(1)
    model = model_of(trend)
    n, chunk = 1900, 700
    z, x, y = (a.astype(np.float32) for a in (rng.standard_normal(n), *rng.uniform(-1, 1, (2, n))))
    counts = np.array([700, 600, 350])  # gaps are at the end of a chunk
    chunks = Chunks(z, x, y, counts, np.zeros(3), np.zeros((3, 1)), chunk)
    histogram = module.make_histogram(model, 3, 128)
    coef = rng.uniform(-0.2, 0.2, model.q)
    theta = np.concatenate([np.log([0.2, 0.3, 0.5]), [-1, 0, 1], np.log([0.5, 0.4, 0.5]), coef])
    module.find_extent(chunks, histogram.grid)
    module.make_grid(theta, model, histogram)
    grid = histogram.grid[0]
    assert grid["fine"]
    work = make_work(model)
    for first, last in ((0, 2), (2, 3)):
        module.count_parts(first, last, model, chunks, histogram, work)
    module.add_parts(histogram)
    there = np.concatenate([np.arange(c * chunk, c * chunk + counts[c]) for c in range(3)])
    terms = TrendBasis(MixtureConfig(trend=trend).terms).terms
    design = np.array([[float(x[i]) ** a * float(y[i]) ** b for a, b in terms] for i in there]).reshape(len(there), -1)
    wanted = np.array(oracle.shares(z[there] - design @ coef, grid["low"], grid["width"], 128, 64)) / 64
    assert histogram.times.sum() == counts.sum()
    # A residual of float32 may fall on the other side of a part.
    assert np.abs(histogram.times - wanted).max() <= 3 / 64
    assert np.abs(histogram.times - wanted).sum() <= 20 / 64


@pytest.mark.parametrize("n_fits", [1, 3])
def test_bits_do_not_depend_on_the_threads(n_fits, monkeypatch):
    # Chunks of a small fit, so that threads share its passes.
    monkeypatch.setattr(fit_module, "TEAM_SAMPLES", 1000)
    monkeypatch.setattr(fit_module, "CHUNK", 250)
    values, positions = blurred(*scene(n_fits, 1900, 3, seed=5))
    config = MixtureConfig(n_components=3, trend="quadratic", histogram=True)
    one, four = (fused(values, positions, config, device=CompiledDevice(n)) for n in (1, 4))
    assert bits(one) == bits(four)
