"""Movies that leave the movie-level fit little: trouble is a status, never an exception or a warning."""

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64
from movie_cases import ODD, SMALL, everything, tiny

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.mixture.movie import MovieModel
from gmrm_gpu.results import FitStatus


def check_sane(found):
    """Probabilities are probabilities, or NaN exactly where the status says that there are no parameters."""
    usable = found["common.status"] < FitStatus.DEGENERATE
    for name in ("posterior", "expected", "expected_mean"):
        value = found[name]
        assert np.isnan(value[~usable]).all()
        assert ((value[usable] >= 0) & (value[usable] <= 1 + 1e-6)).all(), name
    for name in ("means", "sigmas", "coef", "log_likelihood"):
        assert np.isnan(found[f"common.{name}"][~usable]).all()
    assert np.isfinite(found["common.log_likelihood"][usable]).all()
    weights = found["frames.weights"]
    np.testing.assert_allclose(weights[usable].sum(axis=-1), 1, rtol=1e-9)
    assert (weights[~usable] == 0).all()
    assert np.isfinite(found["drift"]).all()


@pytest.mark.parametrize("n_frames", [1, 2])
@pytest.mark.parametrize("m", [40, 513])
def test_few_frames(n_frames, m):
    values, positions = tiny(n_frames=n_frames, m=m)
    found = everything(MovieModel(values, positions, ODD, SMALL, backend=NUMPY32))
    check_sane(found)
    assert found["common.status"][0] <= FitStatus.MAX_ITER
    np.testing.assert_allclose(found["common.means"][0], [64, 124], atol=8)


@pytest.mark.parametrize("trend", ["none", "quadratic+electrode"])
def test_one_component(trend):
    values, positions = tiny(m=100, levels=(90.0, 90.0))
    config = MixtureConfig(n_components=1, trend=trend)
    found = everything(MovieModel(values, positions, ODD, config, backend=NUMPY64), ((True,),))
    check_sane(found)
    np.testing.assert_allclose(found["posterior"], 1, atol=1e-12)
    np.testing.assert_allclose(found["expected_mean"], 1, atol=1e-12)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64])
def test_trouble_of_one_replicate_is_its_status(backend):
    values, positions = tiny(rows=6, m=60)
    valid = np.ones(values.shape, dtype=bool)
    values[1] = 7.0
    values[2, 1, 5] = np.nan
    valid[3] = False
    valid[3, 0, :2] = True
    values[4, 0, 3], valid[4, 0, 3] = np.inf, False
    valid[5] = False
    found = everything(MovieModel(values, positions, ODD, SMALL, valid=valid, backend=backend))
    check_sane(found)
    wanted = [0, FitStatus.DEGENERATE, FitStatus.DEGENERATE, FitStatus.TOO_FEW, 0, FitStatus.TOO_FEW]
    np.testing.assert_array_equal(found["common.status"], wanted)
    assert (found["frames.status"] == found["common.status"][:, None]).all()


def test_frames_of_one_sample_or_none():
    values, positions = tiny(n_frames=5, m=50)
    valid = np.ones(values.shape, dtype=bool)
    valid[0, 1] = valid[0, 3] = False
    valid[0, 3, 17] = True
    found = everything(MovieModel(values, positions, ODD, SMALL, valid=valid, backend=NUMPY32))
    check_sane(found)
    assert found["frames.n_samples"].tolist() == [[50, 0, 50, 1, 50]]
    everyone = everything(MovieModel(values[:, :, :1], positions[:, :, :1], ODD, SMALL, backend=NUMPY32))
    check_sane(everyone)
    assert everyone["common.status"][0] == FitStatus.TOO_FEW


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (7, 11), ODD, (16, 16)])
def test_frames_of_any_shape(shape):
    values, positions = tiny(shape=shape, m=50, n_frames=4)
    found = everything(MovieModel(values, positions, shape, SMALL, backend=NUMPY32))
    check_sane(found)
    assert found["common.status"][0] <= FitStatus.DROPPED


def test_components_to_spare():
    values, positions = tiny(m=80, levels=(60.0, 60.0), sd=1e-3)
    values = np.round(values)
    config = MixtureConfig(n_components=6, trend="none")
    found = everything(
        MovieModel(values, positions, ODD, config, sigma_floor=0.29, backend=NUMPY32), ((False,) * 5 + (True,),)
    )
    check_sane(found)
    alive = found["common.weights"][0] > 0
    if not alive.all():
        assert found["common.status"][0] == FitStatus.DROPPED
    assert (np.diff(found["common.means"][0][alive]) >= 0).all()
    assert not alive[np.argmin(alive) :].any() or alive.all()


def test_two_frames_that_have_nothing_in_common():
    # The contrast of a frame keeps within its bounds, whatever the data say.
    values, positions = tiny(n_frames=2, m=300)
    values[0, 1] = 90 - 40 * (values[0, 1] - 90)
    found = everything(MovieModel(values, positions, ODD, SMALL, drift=100.0, backend=NUMPY32))
    check_sane(found)
    assert (found["drift"][..., -1] > -1).all()


def test_excluded_pixels_are_left_out_of_the_mean():
    values, positions = tiny(m=300, n_frames=4)
    allowed = np.zeros(ODD, dtype=bool)
    allowed[:, :16] = True  # whole cells in a row: mostly inside the disk
    model = MovieModel(values, positions, ODD, SMALL, allowed=allowed, backend=NUMPY64)
    model.fit()
    labels = model.label(np.array([[False, True]]))
    whole = MovieModel(values, positions, ODD, SMALL, backend=NUMPY64)
    whole.fit()
    assert labels.expected_mean[0, -1] != pytest.approx(
        whole.label(np.array([[False, True]])).expected_mean[0, -1], abs=1e-3
    )
    weights = allowed.reshape(-1) * 1.0
    found = model.label(np.array([[False, True]]), weights)
    np.testing.assert_allclose(found.expected_weighted, found.expected_mean, rtol=1e-12)


def test_integers_views_and_read_only_samples_are_taken_as_they_are():
    values, positions = tiny(m=60)
    plain = everything(MovieModel(np.round(values), positions, ODD, SMALL, backend=NUMPY32))
    odd = np.asfortranarray(np.round(values).astype(np.uint8))[:, ::-1][:, ::-1]
    odd.flags.writeable = False
    places = positions.copy()
    places.flags.writeable = False
    other = everything(MovieModel(odd, places, ODD, SMALL, backend=NUMPY32))
    for name, value in plain.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_progress_goes_up_to_the_end():
    values, positions = tiny(m=60)
    seen = []
    MovieModel(values, positions, ODD, SMALL, backend=NUMPY32).fit(notify=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
