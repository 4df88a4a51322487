"""Synthetic movies: deterministic, true to their stated statistics, and shaped like the experiment."""

import numpy as np
import pytest

from gmrm_gpu.errors import ConfigError
from gmrm_gpu.simulate import simulate
from gmrm_gpu.simulate.recording import trend_basis


def frames(sim):
    return np.stack([sim.movie.frame(t) for t in range(len(sim.movie))])


@pytest.mark.parametrize("scenario", ["battery", "nanoparticles"])
def test_same_seed_same_movie(scenario):
    a, b, c = (simulate(scenario, shape=(48, 64), n_frames=6, seed=s) for s in (3, 3, 4))
    assert np.array_equal(frames(a), frames(b))
    assert np.array_equal(a.truth, b.truth)
    assert not np.array_equal(a.truth, c.truth)
    assert not np.array_equal(frames(a)[0], frames(c)[0])
