"""Sub-sampled movies: draws from visits, their errors, and analyses that see visited pixels only."""

from dataclasses import replace

import numpy as np
import pytest
from backends import NUMPY64, other_backends, strict
from devices import kernel_device
from fused_cases import runner

from gmrm_gpu import AnalysisConfig, analyze
from gmrm_gpu.backend import get_backend
from gmrm_gpu.classify import NOT_VISITED
from gmrm_gpu.config import ComputeConfig, CorrectionConfig, MixtureConfig, SamplingConfig, StudyConfig
from gmrm_gpu.correct import Corrector, correct_labels
from gmrm_gpu.errors import InputError
from gmrm_gpu.estimate import sample_mean
from gmrm_gpu.frames import ArrayMovie, Movie, Visits, open_movie
from gmrm_gpu.output import write_analysis
from gmrm_gpu.planning import plan_sampling
from gmrm_gpu.results import fit_statuses
from gmrm_gpu.sampling import Sampler
from gmrm_gpu.selection import select_model
from gmrm_gpu.study import run_study
from gmrm_gpu.survey import survey_movie
from gmrm_gpu.synthetic import simulate
from gmrm_gpu.trendcheck import check_trend
from gmrm_gpu.visited import Visited, VisitSampler, drawn_values, sampler_of

CPU = get_backend("cpu")
on_backends = pytest.mark.parametrize("make", [pytest.param(lambda: NUMPY64, id="numpy"), *other_backends()])


class Recorded(Movie):
    """A sub-sampled movie from lists of places and grey levels, one a frame."""

    def __init__(self, shape, places, values, dtype=np.uint8, **known):
        super().__init__(name="recorded", shape=shape, dtype=dtype, n_frames=len(places), sampled=True, **known)
        self._places, self._values = places, values

    def _read_visits(self, t):
        return Visits(np.asarray(self._places[t]), np.asarray(self._values[t], dtype=self.dtype))


def thinned(movie, rate, *, repeat=0, empty=(), seed=0):
    """The pixels of `movie` that `analyze` would draw; `repeat` of them again, none in the frames `empty`."""
    sampler = Sampler(movie.shape, SamplingConfig(rate=rate, seed=seed))
    places = []
    for t in range(len(movie)):
        drawn = sampler.draw(np.array([0]), t, backend=CPU).positions[0]
        places.append(np.array([], np.int32) if t in empty else np.concatenate([drawn, drawn[:repeat]]))
    return Recorded(movie.shape, places, [movie.frame(t).reshape(-1)[p] for t, p in enumerate(places)], movie.dtype)


@pytest.fixture(scope="module")
def simulation():
    return simulate("battery", shape=(64, 72), n_frames=12, seed=3, difficulty="easy")


def config(engine="auto", **more):
    return AnalysisConfig(mixture=MixtureConfig(n_components=3), compute=ComputeConfig(engine=engine), **more)


# -- movies ------------------------------------------------------------------------------------------------------


def small(**known):
    places = [[5, 3, 5, 19], [0, 7]]
    return Recorded((4, 5), places, [[50, 30, 52, 190], [1, 70]], **known)


def test_a_sub_sampled_movie_has_no_frames():
    with pytest.raises(InputError, match="recorded is sub-sampled and has no whole frames"):
        small().frame(0)


def test_picture_is_the_mean_of_the_visits_and_nan_elsewhere():
    expected = np.full(20, np.nan, np.float32)
    expected[[3, 5, 19]] = 30, 51, 190
    np.testing.assert_array_equal(small().picture(0), expected.reshape(4, 5))


def test_views_crop_mask_and_clip_visits():
    excluded = np.zeros((4, 5), bool)
    excluded[3, 4] = True
    view = open_movie(small(), crop="1:4,0:5", exclude=excluded, clip="0,51")
    seen = view.visits(0)
    np.testing.assert_array_equal(seen.positions, [0, 0])
    np.testing.assert_array_equal(seen.values, [50, 51])
    assert view.sampled
    assert view.n_pixels == 14


def test_visits_of_a_whole_movie_are_its_valid_pixels():
    valid = np.array([[True, False], [True, True]])
    seen = ArrayMovie(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), valid=valid).visits(0)
    np.testing.assert_array_equal(seen.positions, [0, 2, 3])
    np.testing.assert_array_equal(seen.values, [0, 2, 3])


@pytest.mark.parametrize(
    ("places", "values", "match"),
    [
        ([0, 20], [1, 2], "has 1 visits outside of its 4 x 5 pixels"),
        ([-1, 2], [1, 2], "has 1 visits outside"),
        ([1, 2], [1], "2 places for 1 grey levels"),
    ],
)
def test_visits_that_do_not_fit(places, values, match):
    with pytest.raises(InputError, match=match):
        Recorded((4, 5), [places], [values]).visits(0)


def test_visits_without_a_grey_level():
    movie = Recorded((4, 5), [[1, 2]], [[0.5, np.nan]], np.float32)
    with pytest.raises(InputError, match="1 of 2 visits at a grey level that is NaN or infinite"):
        movie.visits(0)


# -- draws -------------------------------------------------------------------------------------------------------


@on_backends
def test_every_visit_is_drawn_with_its_value(make):
    backend = make()
    sampler = sampler_of(small(), SamplingConfig())
    assert (sampler.capacity, sampler.total(2)) == (4, 6)
    draw = sampler.draw(np.array([0, 1]), 1, backend=backend)
    valid = backend.to_host(draw.valid)
    np.testing.assert_array_equal(valid, [[True, True, False, False]] * 2)
    np.testing.assert_array_equal(backend.to_host(draw.positions)[valid].reshape(2, 2), [[0, 7]] * 2)
    np.testing.assert_array_equal(backend.to_host(draw.values)[valid].reshape(2, 2), [[1, 70]] * 2)
    np.testing.assert_array_equal(draw.n_samples, [2, 2])
    repeated = sampler.draw(np.array([0]), 0, backend=backend)
    np.testing.assert_array_equal(backend.to_host(repeated.clusters), [[0, 1, 1, 2]])
    np.testing.assert_allclose(repeated.n_effective, [16 / 6])  # visited 1, 2 and 1 times


@on_backends
def test_a_lower_rate_draws_visits_without_replacement(make):
    backend = make()
    places = np.arange(0, 400, 2)
    movie = Recorded((20, 20), [places, places], [places % 256, places % 200])
    sampler = sampler_of(movie, SamplingConfig(rate=0.1))
    draw = sampler.draw(np.arange(50), 1, backend=backend)
    drawn, values = backend.to_host(draw.positions), backend.to_host(draw.values)
    assert drawn.shape == (50, 40)
    assert np.isin(drawn, places).all()
    assert (np.diff(drawn, axis=1) > 0).all()
    np.testing.assert_array_equal(values, drawn % 200)
    assert np.unique(drawn).size == 200  # over the replicates, every visit comes
    assert not np.array_equal(drawn, backend.to_host(sampler.draw(np.arange(50), 0, backend=backend).positions))


def test_draws_are_the_same_on_all_backends():
    movie = Recorded((9, 9), [np.arange(0, 80, 3)], [np.arange(27)])
    sampler = sampler_of(movie, SamplingConfig(rate=0.2))
    host, other = (sampler.draw(np.arange(5), 0, backend=backend) for backend in (CPU, strict()))
    np.testing.assert_array_equal(host.positions, strict().to_host(other.positions))


def test_a_rate_above_what_was_visited_is_refused():
    with pytest.raises(InputError, match=r"rate 0\.5 asks for 10 visits a frame, but frame 1 has 2 \(10 %\)"):
        sampler_of(small(), SamplingConfig(rate=0.5))


def test_a_movie_without_any_visit_is_refused():
    with pytest.raises(InputError, match="no frame of recorded has a visited pixel"):
        Visited.of(Recorded((4, 5), [[], []], [[], []]))


def test_lines_are_grouped_by_stretches_of_a_row():
    # Row 0: 1 2 3 and 5; row 1 begins at 6, next to 5 in memory but not in the frame.
    movie = Recorded((3, 6), [[1, 2, 3, 5, 6, 7, 7, 9]], [np.arange(8)])
    draw = sampler_of(movie, SamplingConfig(scheme="lines")).draw(np.array([0]), 0, backend=CPU)
    np.testing.assert_array_equal(draw.clusters, [[0, 0, 0, 1, 2, 2, 2, 3]])


def test_remarks_name_repeats_and_empty_frames():
    movie = Recorded((4, 5), [[5, 5], [], [1]], [[5, 6], [], [1]])
    first, second = Visited.of(movie).remarks("fixed")
    assert first.startswith("1 visits (33.3 %) went to pixels visited before")
    assert second == "Without a visited pixel, and so without a result: 1 frames (1)."


@pytest.mark.parametrize(("scheme", "lines"), [("lines", True), ("fixed", False), ("stratified", False)])
def test_visits_along_lines_are_told_from_others(scheme, lines):
    sampling = SamplingConfig(rate=0.2, scheme=scheme)
    places = Sampler((60, 80), sampling).draw(np.array([0]), 0, backend=CPU).positions[0]
    visited = Visited.of(Recorded((60, 80), [np.unique(places)], [np.arange(np.unique(places).size) % 200]))
    told = [text for text in visited.remarks("fixed") if "give --scheme lines" in text]
    assert len(told) == lines
    assert not visited.remarks("lines")


def test_a_frame_without_visits_is_no_failed_fit():
    status = np.array([[4, 0, 0], [1, 1, 1], [4, 4, 4]])
    np.testing.assert_array_equal(fit_statuses(status, whole=True), [0, 1, 4])
    np.testing.assert_array_equal(fit_statuses(status, whole=False), status)


# -- errors of repeated visits -----------------------------------------------------------------------------------


def variance_by_hand(values, groups, n_effective, n_pixels):
    """Between groups, in plain loops."""
    mean, total = sum(values) / len(values), 0.0
    for group in set(groups):
        total += sum(v - mean for v, g in zip(values, groups, strict=True) if g == group) ** 2
    n = len(set(groups))
    return (1 - n_effective / n_pixels) * total / len(values) ** 2 * n / (n - 1)


@on_backends
def test_the_variance_is_that_between_groups(make):
    backend = make()
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=(2, 30)), np.sort(rng.integers(0, 12, size=(2, 30)), axis=1)
    valid = np.arange(30) < np.array([[30], [25]])
    n, effective = np.array([30, 25]), np.array([11.5, 9])
    mean, variance = sample_mean(
        *(backend.asarray(a) for a in (values, valid)),
        n,
        100,
        "fixed",
        1,
        groups=backend.asarray(groups),
        n_effective=effective,
        backend=backend,
    )
    for row in range(2):
        seen = values[row, : n[row]]
        expected = variance_by_hand(list(seen), list(groups[row, : n[row]]), effective[row], 100)
        np.testing.assert_allclose((mean[row], variance[row]), (seen.mean(), expected), rtol=1e-12)


@pytest.mark.parametrize(("n_visited", "n_again", "times"), [(40, 20, 2), (400, 200, 1), (300, 60, 4)])
def test_the_variance_of_repeated_visits_is_that_of_many_tries(n_visited, n_again, times):
    # Some of 400 pixels, some of these again: the error of the mean over many draws, also where no pixel is left out.
    rng = np.random.default_rng(7)
    truth = (rng.random(400) < 0.3).astype(float)
    means, claimed = [], []
    for _ in range(1500):
        drawn = rng.permutation(400)[:n_visited]
        places = np.sort(np.concatenate([drawn, np.repeat(drawn[:n_again], times)]))
        mean, variance = mean_of_visits(Recorded((20, 20), [places], [truth[places]]), SamplingConfig())
        means.append(mean)
        claimed.append(variance)
    # 1,500 draws know a variance to 4 %: four standard errors.
    np.testing.assert_allclose(np.mean(claimed), np.var(means), rtol=0.16)


def test_visits_spread_evenly_have_the_error_of_the_scheme_that_spread_them():
    # A slope over the frame: neighbours are alike, visits far from each other are not.
    truth = np.add.outer(np.arange(60.0), 2 * np.arange(60.0)).astype(np.uint8)
    scheme = SamplingConfig(rate=0.1, scheme="stratified")
    claimed, means = [], []
    for seed in range(60):
        sampler = Sampler(truth.shape, replace(scheme, seed=seed))
        places = sampler.draw(np.array([0]), 0, backend=CPU).positions[0]
        movie = Recorded(truth.shape, [places], [truth.reshape(-1)[places]])
        mean, variance = mean_of_visits(movie, replace(scheme, rate=1.0))
        means.append(mean)
        claimed.append(variance)
    values = truth.reshape(-1)[places].astype(float)
    drawn = sample_mean(values[None], None, np.array([values.size]), 3600, "stratified", 1, backend=CPU)[1][0]
    np.testing.assert_allclose(np.mean(claimed), drawn, rtol=0.2)
    # Not below the error, and far below that of as many pixels at random.
    assert np.var(means) < np.mean(claimed) < 0.3 * truth.var() / places.size


def mean_of_visits(movie, sampling):
    """The mean over the visits of the first frame, and its variance."""
    draw = sampler_of(movie, sampling).draw(np.array([0]), 0, backend=CPU)
    mean, variance = sample_mean(
        draw.values.astype(float),
        draw.valid,
        draw.n_samples,
        movie.n_pixels,
        sampling.scheme,
        1,
        groups=draw.clusters,
        n_effective=draw.n_effective,
        backend=CPU,
    )
    return mean[0], variance[0]


# -- the vote ----------------------------------------------------------------------------------------------------


@on_backends
def test_a_pixel_visited_twice_votes_once_for_each_phase_seen_there(make):
    backend = make()
    # One foreground pixel in frame 1; in frame 0 its neighbour was visited four times: three looks said 0, one 1.
    labels = np.array([[[0, 0, 0, 1, 0], [1, NOT_VISITED, NOT_VISITED, NOT_VISITED, NOT_VISITED]]], np.uint8)
    positions = np.array([[[12, 12, 12, 12, 13], [12, 0, 0, 0, 0]]], np.int32)
    found = {}
    for gamma in (0.3, 0.4):
        vote = CorrectionConfig(radius=2, gamma=gamma)
        corrector = Corrector((5, 5), vote, 2, 1, backend, repeats=True)
        done = []
        for t in range(2):
            done += corrector.push(backend.asarray(positions[:, t]), backend.asarray(labels[:, t]))
        found[gamma] = int(backend.to_host(done[1].labels)[0, 0])
    # Three votes (0 and 1 at pixel 12, 0 at pixel 13): a share of 1/3.
    assert found == {0.3: 1, 0.4: 0}


def test_without_repeats_the_vote_is_as_ever():
    rng = np.random.default_rng(2)
    positions = np.stack([rng.permutation(144)[:40] for _ in range(5)])[None].astype(np.int32)
    labels = rng.integers(0, 3, size=positions.shape).astype(np.uint8)
    vote = CorrectionConfig(radius=3, gamma=0.4)
    plain, _ = correct_labels(labels, positions, (12, 12), vote, n_phases=3, foreground=2, backend=CPU)
    corrector = Corrector((12, 12), vote, 3, 2, CPU, repeats=True)
    done = [frame for t in range(5) for frame in corrector.push(positions[:, t], labels[:, t])]
    np.testing.assert_array_equal(np.stack([frame.labels for frame in done], axis=1), plain)


# -- whole analyses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["generic", "compiled"])
def test_visits_give_what_the_same_draw_of_the_whole_movie_gives(simulation, engine):
    whole = analyze(simulation.movie, config(engine), rate=0.1)
    alone = analyze(thinned(simulation.movie, 0.1), config(engine))
    assert engine == alone.provenance["engine"]
    np.testing.assert_allclose(alone.share, whole.share, atol=1e-6)
    np.testing.assert_allclose(alone.share_sd, whole.share_sd, rtol=1e-4)
    np.testing.assert_array_equal(alone.labels, whole.labels)
    np.testing.assert_allclose(alone.visited_share, 0.1, rtol=1e-2)


@pytest.mark.parametrize("engine", ["generic", "compiled"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_uneven_frames_and_one_without_visits(simulation, engine, dtype):
    movie = simulation.movie
    whole = ArrayMovie(np.stack([movie.frame(t).astype(dtype) for t in range(len(movie))]))
    result = analyze(thinned(whole, 0.1, repeat=60, empty=(4,)), config(engine))
    lost = np.arange(len(result.frame)) == 4
    np.testing.assert_array_equal(np.isnan(result.share), lost)
    assert result.status[4] == 4
    assert result.visited_share[4] == 0
    np.testing.assert_array_equal(result.n_samples[~lost], 461 + 60)
    assert np.abs(result.share - simulation.truth_share)[~lost].max() < 0.06
    assert any(text.startswith("660 visits (11.5 %)") for text in result.provenance["warnings"])


def test_both_engines_agree_on_visits(simulation):
    movie = thinned(simulation.movie, 0.1, repeat=60, empty=(0,))
    arrays, kernels = (analyze(movie, config(engine)) for engine in ("generic", "compiled"))
    np.testing.assert_allclose(arrays.share, kernels.share, atol=2e-4)


@pytest.mark.usefixtures("each_device")
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_kernels_read_packed_visits(simulation, dtype):
    # int16: wide words; negative levels.
    frames = np.stack([simulation.movie.frame(t) for t in range(4)]).astype(np.int16) - (dtype is np.int16) * 100
    movie = thinned(ArrayMovie(frames.astype(dtype)), 0.2, repeat=30, empty=(2,))
    settings = AnalysisConfig(mixture=MixtureConfig(n_components=2, trend="linear"))
    generic, kernels = runner(settings, movie=movie), runner(settings, kernel_device(), movie)
    wanted, found = (each.run(1.0, np.array([0])) for each in (generic, kernels))
    np.testing.assert_array_equal(found.n_samples, wanted.n_samples)
    np.testing.assert_allclose(found.posterior, wanted.posterior, atol=2e-3)


def test_the_method_paper_takes_visits_by_arrays(simulation):
    paper = config().with_method("paper")
    result = analyze(thinned(simulation.movie, 0.2), paper)
    assert result.provenance["engine"] == "generic"
    assert "a sub-sampled movie" in result.provenance["engine_reason"]
    assert np.isfinite(result.share).all()
    np.testing.assert_array_equal((result.labels > 0).sum(axis=(1, 2)), result.n_samples)


def test_the_correction_and_the_report_take_visits(simulation, tmp_path):
    movie = thinned(simulation.movie, 0.1, repeat=50)
    result = analyze(movie, replace(config(), correction=CorrectionConfig(radius=5, gamma=0.2)))
    folder = write_analysis(result, tmp_path / "out")
    page = (folder / "report.html").read_text("utf-8")
    assert "Where the beam never went is blue" in page
    assert "of the dose saved" in page


def test_selection_and_trend_check_take_visits(simulation):
    movie = thinned(simulation.movie, 0.1, empty=(5,))
    chosen = select_model(movie, config(), components=(2, 3), trends=("none", "linear"), n_bootstrap=0)
    assert chosen.n_samples > 1000
    check = check_trend(movie, config().with_method("paper").resolved)
    assert np.isfinite(check.shares).all()


def test_a_study_thins_visits_further(simulation):
    movie = thinned(simulation.movie, 0.2)
    study = StudyConfig(analysis=config(), rates=(0.1, 0.05), n_replicates=(6, 6), methods=("movie",))
    result = run_study(movie, study)
    reference = analyze(movie, config())
    np.testing.assert_allclose(result.reference, reference.share, atol=1e-6)
    spread = {rate: np.nanstd(shares, axis=0).mean() for rate, shares in result.shares.items()}
    assert 0 < spread[0.1] < spread[0.05]


def test_a_plan_of_visits_tries_random_pixels_only(simulation):
    plan = plan_sampling(thinned(simulation.movie, 0.3), config(), rates=(0.1, 0.2), schemes=("fixed", "stratified"))
    assert plan.schemes == ("fixed",)
    assert plan.rows[0].width > plan.rows[1].width > 0
    assert plan.notes[0].startswith("The movie is sub-sampled")


def test_a_study_above_the_visited_rate_is_refused(simulation):
    study = StudyConfig(analysis=config(), rates=(0.3,), n_replicates=(2,), methods=("movie",))
    with pytest.raises(InputError, match=r"rate 0\.3 asks for 1,382 visits a frame, but frame 0 has 922"):
        run_study(thinned(simulation.movie, 0.2), study)


def test_values_of_a_draw_are_those_of_the_frame(simulation):
    movie = simulation.movie
    draw = Sampler(movie.shape, SamplingConfig(rate=0.05)).draw(np.arange(2), 3, backend=CPU)
    expected = movie.frame(3).reshape(-1)[draw.positions]
    np.testing.assert_array_equal(drawn_values(movie, 3, draw, backend=CPU), expected)
    assert isinstance(sampler_of(thinned(movie, 0.1), SamplingConfig()), VisitSampler)


def test_many_zeros_are_asked_about():
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 200, size=(2, 20, 20)).astype(np.uint8)
    assert survey_movie(ArrayMovie(pixels)).zeros is None
    pixels[:, :, :5] = 0
    assert "exactly 0 in 25 % of its pixels" in survey_movie(ArrayMovie(pixels)).zeros
