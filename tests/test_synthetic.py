"""Synthetic movies: deterministic, true to their stated statistics, and shaped like the experiment."""

import numpy as np
import pytest
from scipy import ndimage

import gmrm_gpu
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.synthetic import DIFFICULTIES, SCENARIOS, Simulation, simulate
from gmrm_gpu.synthetic.battery import charge_curve
from gmrm_gpu.synthetic.fields import arrival_time, rank, stream
from gmrm_gpu.synthetic.recording import trend_basis


def stack(sim):
    return np.stack([sim.movie.frame(t) for t in range(len(sim.movie))])


def corrected(sim):
    """Grey levels of 8-bit data with the known contrast and trend taken out, (T, H, W)."""
    p = sim.parameters
    trend = np.tensordot(p["trend_coef"], trend_basis(sim.movie.shape), 1)
    grey = stack(sim) / p["scale"]
    return (grey - p["pivot"]) / p["gain"][:, None, None] + p["pivot"] - trend


@pytest.fixture(scope="module")
def battery():
    return simulate("battery", shape=(128, 128), n_frames=30, seed=1)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pure_function_of_the_seed(scenario):
    first, again, other = (simulate(scenario, shape=(48, 64), n_frames=6, seed=s) for s in (3, 3, 4))
    assert np.array_equal(stack(first), stack(again))
    assert np.array_equal(first.truth, again.truth)
    assert not np.array_equal(first.truth, other.truth)
    assert not np.array_equal(stack(first)[0], stack(other)[0])


def test_global_random_state_is_neither_read_nor_changed():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = stack(simulate(shape=(32, 32), n_frames=2))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first, stack(simulate(shape=(32, 32), n_frames=2)))


def test_noise_of_each_frame_is_a_stream_of_its_own():
    sim = simulate(shape=(96, 96), n_frames=4, n_empty=4, texture=0, drift_px=0)
    residual = corrected(sim).reshape(4, -1)
    electrolyte = (sim.truth.reshape(4, -1) == 0).all(axis=0)
    between = np.corrcoef(residual[:, electrolyte])[np.triu_indices(4, 1)]
    assert np.abs(between).max() < 5 / np.sqrt(electrolyte.sum())
    a, b = (stream(5, 3, frame).standard_normal(8) for frame in (0, 1))
    assert not np.intersect1d(a, b).size


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_phase_statistics_are_the_stated_ones(scenario, difficulty):
    sim = simulate(scenario, shape=(160, 160), n_frames=20, seed=2, difficulty=difficulty)
    grey, p = corrected(sim), sim.parameters
    for label, mean, sigma in zip(p["labels"], p["means"], p["sigmas"], strict=True):
        pixels = grey[sim.truth == label]
        assert pixels.size > 5000
        # The texture moves the mean of a region, the ring that of the electrolyte beside the electrode.
        assert pixels.mean() == pytest.approx(mean, abs=0.05 * sigma)
        assert pixels.std() == pytest.approx(sigma, rel=0.04)


def test_given_means_and_sigmas_hold_to_the_standard_error():
    options = {"means": (40, 110, 180), "sigmas": (6, 8, 10), "texture": 0, "sei": 0, "poisson": 0, "trend": 10}
    sim = simulate(shape=(128, 128), n_frames=12, seed=5, bits=16, **options)
    grey = corrected(sim)
    for label, mean, sigma in ((1, 40, 6), (0, 110, 8), (2, 180, 10)):
        pixels = grey[sim.truth == label]
        assert abs(pixels.mean() - mean) < 4 * sigma / np.sqrt(pixels.size)
        assert pixels.std() == pytest.approx(sigma, rel=0.01)


def test_poisson_part_of_the_noise_scales_with_the_signal():
    options = {"texture": 0, "sei": 0, "trend": 60, "trend_drift": 0, "gain_step": 0, "n_empty": 8, "n_frames": 8}
    trend = None
    slopes = {}
    for part in (0.0, 1.0):
        sim = simulate(shape=(128, 128), seed=3, poisson=part, **options)
        trend = np.tensordot(sim.parameters["trend_coef"], trend_basis((128, 128)), 1)
        pixels = sim.truth == 0
        square = (corrected(sim) - 118)[pixels] ** 2
        slopes[part] = np.polyfit(trend[pixels], square, 1)[0]
    assert slopes[0.0] == pytest.approx(0, abs=0.05)
    assert slopes[1.0] == pytest.approx(9**2 / 118, rel=0.1)


def test_li_grows_then_is_stripped_and_dead_li_is_left(battery):
    share, n_empty = battery.truth_share, battery.parameters["n_empty"]
    peak = int(share.argmax())
    assert n_empty == 3
    assert (share[:n_empty] == 0).all()
    assert (share[n_empty:] > 0).all()
    # Drift carries a little Li across the edge of the frame.
    assert (np.diff(share[n_empty : peak + 1]) > -0.002).all()
    assert (np.diff(share[peak:]) < 0.002).all()
    assert share[peak] == pytest.approx(0.287, abs=0.015)
    assert 0.02 * share[peak] < share[-1] < 0.25 * share[peak]


def test_growing_li_hangs_on_the_electrode_and_dead_li_does_not(battery):
    peak = int(battery.truth_share.argmax())
    eight = np.ones((3, 3))

    def attached(t):
        pieces, n = ndimage.label(battery.truth[t] == 2, eight)
        electrode = ndimage.binary_dilation(battery.truth[t] == 1, eight)
        touching = np.unique(pieces[electrode & (pieces > 0)])
        return np.isin(pieces, touching).sum() / max((pieces > 0).sum(), 1), n

    assert attached(peak - 5)[0] > 0.9
    share, n_pieces = attached(-1)
    assert n_pieces > 3
    assert share < 0.8


def test_paper_sized_movie_has_the_published_amount_of_li():
    # The charge curve alone: mean 8,150 px and peak 18,800 px of 65,536 (METHOD.md section 6).
    curve = charge_curve(60, 6, 0.1)
    assert curve.mean() * 0.287 * 65536 == pytest.approx(8150, abs=60)
    assert curve.max() * 0.287 * 65536 == pytest.approx(18800, abs=60)


@pytest.mark.parametrize(("dead_share", "n_empty"), [(0.0, 0), (0.4, 5), (1.0, 10)])
def test_empty_frames_and_dead_li_are_adjustable(dead_share, n_empty):
    sim = simulate(shape=(64, 64), n_frames=20, n_empty=n_empty, dead_share=dead_share, drift_px=0)
    share = sim.truth_share
    assert (share[:n_empty] == 0).all()
    assert share[n_empty + 1] > 0
    assert share[-1] == pytest.approx(dead_share * share.max(), abs=0.02)


def test_a_movie_can_have_no_foreground_at_all():
    for scenario in SCENARIOS:
        assert (simulate(scenario, shape=(32, 32), n_frames=3, n_empty=3).truth_share == 0).all()


def test_narrower_features_are_lost_to_a_wider_brush():
    disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
    lost = []
    for feature in (3, 12):
        li = simulate(shape=(160, 160), n_frames=8, n_empty=0, seed=2, feature_px=feature).truth[3] == 2
        lost.append(
            1 - ndimage.binary_opening(np.pad(li, 6, mode="edge"), disc).sum() / np.pad(li, 6, mode="edge").sum()
        )
    assert lost[0] > 0.1
    assert lost[1] < 0.6 * lost[0]


def test_truth_drifts_with_the_specimen():
    sim = simulate(shape=(96, 96), n_frames=20, drift_px=6, seed=4)
    drift, electrode = sim.parameters["drift_px"], sim.truth == 1
    assert 3 <= np.hypot(*drift.T).max() <= 6
    for t in range(20):
        moved = np.roll(electrode[0], drift[t] - drift[0], axis=(0, 1))
        assert np.array_equal(moved[8:-8, 8:-8], electrode[t, 8:-8, 8:-8])
    still = simulate(shape=(96, 96), n_frames=4, drift_px=0).truth == 1
    assert (still == still[0]).all()


def test_refocusing_changes_the_contrast_by_the_stated_step():
    sim = simulate(shape=(96, 96), n_frames=20, gain_step=0.2, trend=0, n_refocus=2, seed=6)
    grey, truth, p = stack(sim).astype(float), sim.truth, sim.parameters
    contrast = [f[m == 0].mean() - f[m == 1].mean() for f, m in zip(grey, truth, strict=True)]
    assert np.flatnonzero(np.diff(p["gain"])).tolist() == (p["refocus"] - 1).tolist()
    assert np.abs(p["gain"] - 1).max() == pytest.approx(0.2)
    np.testing.assert_allclose(np.array(contrast) / 73, p["gain"], atol=0.02)


def test_trend_has_the_stated_size_and_drifts():
    sim = simulate(shape=(64, 80), n_frames=10, trend=30, trend_drift=0.8)
    trend = np.tensordot(sim.parameters["trend_coef"], trend_basis((64, 80)), 1)
    assert np.abs(trend).max() == pytest.approx(30, rel=1e-4)
    assert np.abs(trend[-1] - trend[0]).max() > 3
    still = simulate(shape=(32, 32), n_frames=10, trend_drift=0).parameters["trend_coef"]
    np.testing.assert_allclose(still, np.broadcast_to(still[0], still.shape))


def test_eight_and_sixteen_bits_show_the_same_movie():
    narrow, wide = (simulate(shape=(64, 64), n_frames=4, seed=7, bits=bits) for bits in (8, 16))
    assert narrow.movie.dtype == np.uint8
    assert wide.movie.dtype == np.uint16
    assert np.array_equal(narrow.truth, wide.truth)
    assert stack(wide).max() > 40_000
    assert np.unique(stack(wide)).size > 5 * np.unique(stack(narrow)).size
    assert np.abs(stack(wide) / 257 - stack(narrow)).mean() < 0.5


def test_values_out_of_range_are_clipped():
    grey = stack(simulate(shape=(48, 48), n_frames=3, means=(2, 128, 253), n_empty=0, sigmas=(20, 20, 20)))
    assert (grey == 0).mean() > 0.01
    assert (grey == 255).mean() > 0.01


def test_particles_nucleate_grow_and_coalesce():
    sim = simulate("nanoparticles", shape=(160, 160), n_frames=30, seed=3, drift_px=0, peak_share=0.35)
    share = sim.truth_share
    pieces = [ndimage.label(frame == 2)[1] for frame in sim.truth]
    assert (share[:3] == 0).all()
    assert share[-1] == pytest.approx(0.35, abs=0.05)
    assert (np.diff(share) > -0.01).all()
    assert pieces[5] < max(pieces)
    assert pieces[-1] < max(pieces)
    assert not (sim.truth == 1).any()


def test_polarity_mirrors_the_contrast():
    for polarity, sign in (("bright", 1), ("dark", -1)):
        sim = simulate("nanoparticles", shape=(96, 96), n_frames=4, n_empty=0, polarity=polarity)
        grey, truth = stack(sim)[-1].astype(float), sim.truth[-1]
        assert sign * (grey[truth == 2].mean() - grey[truth == 0].mean()) > 50


def test_number_of_particles_can_be_given():
    sim = simulate("nanoparticles", shape=(64, 64), n_frames=3, n_particles=1, n_empty=0, peak_share=0.1)
    assert [ndimage.label(frame == 2)[1] for frame in sim.truth] == [1, 1, 1]


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_electrode_enters_from_the_named_side(side):
    sim = simulate(shape=(48, 80), n_frames=2, side=side, drift_px=0)
    electrode = sim.truth[0] == 1
    edges = {"left": electrode[:, 0], "right": electrode[:, -1], "top": electrode[0], "bottom": electrode[-1]}
    assert max(edges, key=lambda name: edges[name].sum()) == side
    assert 0.04 < electrode.mean() < 0.2


@pytest.mark.parametrize("shape", [(16, 16), (33, 70), (150, 20)])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_odd_sizes_and_short_movies(scenario, shape):
    for n_frames in (1, 2, 5):
        sim = simulate(scenario, shape=shape, n_frames=n_frames, seed=1)
        assert sim.movie.shape == shape
        assert len(sim.movie) == n_frames
        assert sim.truth.shape == (n_frames, *shape)
        assert sim.truth.dtype == np.uint8
        assert sim.truth_share.max() > 0.03


def test_blur_softens_the_frames_and_leaves_the_truth():
    sharp, soft = (simulate(shape=(64, 64), n_frames=3, sigmas=(0, 0, 0), blur_px=b, n_empty=0) for b in (0, 1.5))
    assert np.array_equal(sharp.truth, soft.truth)
    assert (
        np.abs(np.diff(stack(soft).astype(int), axis=1)).max()
        < 0.6 * np.abs(np.diff(stack(sharp).astype(int), axis=1)).max()
    )


def test_calibration_and_name_reach_the_movie():
    movie = simulate(shape=(32, 32), n_frames=2, pixel_size_um=0.02, frame_time_s=None).movie
    assert movie.pixel_size_um == 0.02
    assert movie.frame_time_s is None
    assert "battery" in movie.name


def test_it_is_there_under_the_package():
    assert isinstance(gmrm_gpu.simulate("battery", shape=(32, 32), n_frames=1), Simulation)


def test_first_passage_times_are_nearly_isotropic_and_stay_in_the_domain():
    domain = np.ones((41, 41), dtype=bool)
    domain[:, 35] = False
    source = np.zeros_like(domain)
    source[20, 20] = True
    time = arrival_time(np.full(domain.shape, 2.0), domain, source, np.full(domain.shape, 0.5))
    exact = 0.5 + 2 * np.hypot(*(np.indices(domain.shape) - 20))
    np.testing.assert_allclose(time[:, :35], exact[:, :35], rtol=0.03)
    assert np.isinf(time[:, 35:]).all()


def test_rank_orders_the_finite_values():
    assert rank(np.array([[3.0, np.inf, 1.0]])).tolist() == [[1, np.iinfo(np.int64).max, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "fuelcell"},
        {"difficulty": "extreme"},
        {"shape": (8, 64)},
        {"shape": 64},
        {"shape": (64.5, 64)},
        {"n_frames": 0},
        {"n_frames": True},
        {"seed": -1},
        {"seed": 1.5},
        {"bits": 12},
        {"colour": "red"},
        {"polarity": "dark"},
        {"means": (1, 2)},
        {"means": (1, 2, 300)},
        {"sigmas": (1, -2, 3)},
        {"sigmas": "abc"},
        {"n_empty": 21},
        {"n_empty": 1.5},
        {"peak_share": 0},
        {"drift_px": -1},
        {"dead_share": 1.1},
        {"gain_step": float("nan")},
        {"poisson": "much"},
        {"side": "front"},
        {"whiskers": -1},
        {"pixel_size_um": 0},
        {"frame_time_s": -1},
        {"scenario": "nanoparticles", "dead_share": 0.1},
        {"scenario": "nanoparticles", "polarity": "grey"},
        {"scenario": "nanoparticles", "n_particles": 0},
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(wrong):
    with pytest.raises(ConfigError) as caught:
        simulate(**{"shape": (32, 32), "n_frames": 20, **wrong})
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 350
    assert any(name in text for name in wrong)
