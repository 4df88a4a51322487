"""The fused engine as a whole, on the CPU harness: equal to the generic engine, as planned, whatever the memory."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from devices import kernel_device, missing
from fused_cases import HEIGHT, NUMPY, WIDTH, WITH_KERNELS, assert_same, growing, runner, settings
from host.device import HostDevice

import gmrm_gpu.engines.fused.engine
import gmrm_gpu.runner
import gmrm_gpu.study.plan
from gmrm_gpu.config import (
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
    StudyConfig,
)
from gmrm_gpu.engines import FusedEngine, GenericEngine, select_engine
from gmrm_gpu.engines.fused import fused_obstacle
from gmrm_gpu.engines.fused.plan import MOVIE_PART, BlockSize, bytes_per_replicate, plan_launches, slab_frames
from gmrm_gpu.errors import ConfigError, DeviceMemoryError, MemoryBudgetError
from gmrm_gpu.frames import open_movie
from gmrm_gpu.pipeline import analyze
from gmrm_gpu.results import FitStatus
from gmrm_gpu.runner import Runner
from gmrm_gpu.sampling import Sampler
from gmrm_gpu.study import run_study
from gmrm_gpu.study.plan import plan_blocks, threads_within

BY_ARRAYS = ComputeConfig(engine="generic")
needs_compiler = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Recording(HostDevice):
    """Keeps what was launched and how much memory was asked for."""

    def __init__(self, **options):
        super().__init__(**options)
        self.ran, self.allocated = [], 0

    def kernel(self, source, *, cooperative=False):
        kernel = super().kernel(source, cooperative=cooperative)

        def launch(grid, block, args, *, shared_mem=0):
            self.ran.append((source.digest, grid[0], block[0], shared_mem, cooperative))
            kernel(grid, block, args, shared_mem=shared_mem)

        return launch

    def filled(self, shape, dtype, fill):
        array = super().filled(shape, dtype, fill)
        self.allocated += array.nbytes
        return array


class Short(HostDevice):
    """Runs out of memory at one allocation, or at every one from it on."""

    def __init__(self, at, *, always=False):
        super().__init__()
        self.left, self.always = at, always

    def filled(self, shape, dtype, fill):
        self.left -= 1
        if self.left == 0 or (self.always and self.left < 0):
            raise DeviceMemoryError("the GPU is out of memory: planted")
        return super().filled(shape, dtype, fill)


CASES = {
    "fixed": {},
    "bernoulli": {"sampling": SamplingConfig(scheme="bernoulli")},
    "stratified": {"sampling": SamplingConfig(scheme="stratified")},
    "lines": {"sampling": SamplingConfig(scheme="lines", line_length=9)},
    "no vote": {"correction": CorrectionConfig(radius=0)},
    "symmetric, both sides": {"correction": CorrectionConfig(radius=2, window="symmetric", sides="both", metric="l1")},
    "darkest": {"phases": PhaseConfig(phases="darkest")},
    "separated": {"phases": PhaseConfig(phases="separated", polarity="both")},
    "names": {"phases": PhaseConfig(phases="anode,electrolyte,li", foreground="electrolyte")},
    "posterior": {"quantity": QuantityConfig(estimator="posterior")},
    "no trend": {"mixture": MixtureConfig(n_components=3, trend="none")},
    "reference schedule": {"mixture": MixtureConfig(n_components=3, trend="linear", schedule="reference")},
}


@needs_compiler
@pytest.mark.usefixtures("each_device")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_fused_equals_generic(case, rate):
    config = settings(**CASES[case])
    replicates = np.array([0, 1, 5]) if rate < 1 else np.array([0])
    found = runner(config, kernel_device()).run(rate, replicates)
    assert_same(found, runner(config).run(rate, replicates), estimator=config.estimator)


@needs_compiler
@pytest.mark.usefixtures("each_device")
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_fused_equals_generic_on_other_pixels(dtype):
    movie = growing(dtype) * dtype(3)
    found = runner(settings(), kernel_device(), movie).run(0.1, np.arange(2))
    assert_same(found, runner(settings(), None, movie).run(0.1, np.arange(2)))


@needs_compiler
@pytest.mark.usefixtures("each_device")
def test_excluded_pixels_are_never_read():
    movie = growing()
    valid = np.ones((HEIGHT, WIDTH), dtype=bool)
    valid[:, 5:11] = False
    movie[:, ~valid] = 255
    source = open_movie(movie, exclude=~valid)
    results = []
    for engine in (GenericEngine(NUMPY, ""), FusedEngine(GenericEngine(NUMPY, ""), kernel_device(), "")):
        results.append(Runner(source, settings(), NUMPY, engine).run(0.2, np.arange(2)))
    assert_same(results[1], results[0])


@needs_compiler
@pytest.mark.usefixtures("each_device")
def test_a_frame_that_cannot_be_fitted_has_no_share():
    movie = growing()
    movie[2] = 90
    found = runner(settings(), kernel_device(), movie).run(0.2, np.arange(2))
    assert (found.status[:, 2] == FitStatus.DEGENERATE).all()
    assert np.isnan(found.share_raw[:, 2]).all()
    assert_same(found, runner(settings(), None, movie).run(0.2, np.arange(2)))


@needs_compiler
@pytest.mark.parametrize("radius", [0, 3])
def test_what_runs_is_what_was_planned(radius):
    config = settings(correction=CorrectionConfig(radius=radius))
    device = Recording()
    work = runner(config, device)
    work.run(0.1, np.arange(3))
    size = work.engine.size(work.sampler(0.1), 3, work.frames, work.budget)
    planned = [
        (launch.kernel.digest, launch.blocks, launch.threads, launch.shared_bytes, launch.cooperative)
        for launch in plan_launches(size, work.config)
    ]
    assert device.ran == planned
    assert len(planned) == (5 if radius else 4)


@needs_compiler
def test_a_whole_movie_is_a_few_launches():
    device = HostDevice()
    runner(settings(method="movie"), device).run(0.25, np.arange(2))
    assert device.launches == ["draw", "fit", "movie_settle", "movie_label", "movie_past"]


@needs_compiler
@pytest.mark.parametrize("method", ["paper", "movie"])
def test_kernels_are_compiled_before_the_first_is_needed(method):
    class Preparing(HostDevice):
        prepared = frozenset()

        def prepare(self, sources):
            self.prepared |= {source.digest for source in sources}

        def kernel(self, source, *, cooperative=False):
            assert source.digest in self.prepared, source.name
            return super().kernel(source, cooperative=cooperative)

    device = Preparing()
    runner(settings(method=method), device).run(0.2, np.arange(2))
    assert len(device.prepared) == 5


def test_a_thousand_replicates_are_five_launches():
    config = replace(settings(mixture=MixtureConfig()), correction=CorrectionConfig()).resolved
    for rate, n_replicates in ((0.1, 100), (0.05, 200), (0.01, 1000)):
        sampler = Sampler((512, 512), SamplingConfig(rate=rate))
        size = BlockSize(n_replicates, 300, sampler, np.dtype(np.uint8), 300)
        launches = plan_launches(size, config)
        assert [launch.kernel.name for launch in launches] == ["draw", "fit", "label", "correct", "tally"]
        assert launches[1].blocks == 300 * n_replicates
        assert bytes_per_replicate(size, config) * n_replicates < 40e9, "does not fit a large GPU in one block"


@needs_compiler
def test_memory_is_what_was_planned():
    used = {}
    for n in (2, 5):
        device = Recording()
        work = runner(settings(), device)
        work.run(0.1, np.arange(n))
        used[n] = device.allocated
    size = work.engine.size(work.sampler(0.1), 1, work.frames, work.budget)
    # Beside what is planned, a replicate's own number is on the device.
    assert used[5] - used[2] == 3 * (bytes_per_replicate(size, work.config) + 4)
    with_labels = work.engine.block_bytes(work.frames, work.sampler(0.1), work.config, work.budget)[1]
    assert with_labels == bytes_per_replicate(size, work.config) + size.n_frames * size.m


@needs_compiler
def test_blocks_are_as_large_as_the_budget_allows(monkeypatch):
    monkeypatch.setattr(gmrm_gpu.study.plan, "BLOCK_SAMPLES", 1)  # what blocks of the generic engine aim at
    config = StudyConfig(settings(compute=BY_ARRAYS), rates=(0.2, 0.1), n_replicates=(50, 100), methods=("paper",))
    work = runner(settings(), HostDevice())
    budget = work.fixed_bytes + 7 * work.bytes_per_replicate(0.1)
    assert work.fixed_bytes == growing().nbytes
    assert threads_within(work, config, budget) == 1
    for rate, total in zip(config.rates, config.n_replicates, strict=True):
        sizes = [block.stop - block.start for block in plan_blocks(work, config, budget, 1) if block.rate == rate]
        assert sum(sizes) == total
        room = (budget - growing().nbytes) // work.bytes_per_replicate(rate)
        assert max(sizes) <= room
        assert len(sizes) == -(-total // room)


@needs_compiler
@pytest.mark.usefixtures("each_device")
def test_bits_do_not_depend_on_the_cut():
    config = settings()
    whole = runner(config, kernel_device()).run(0.1, np.arange(5))
    parts = [runner(config, kernel_device()).run(0.1, part) for part in (np.arange(2), np.arange(2, 5))]
    for name in whole.__dataclass_fields__:
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(whole, name).tobytes(), name


@needs_compiler
@pytest.mark.parametrize(("method", "at"), [("paper", at) for at in range(1, 20, 3)] + [("movie", 3), ("movie", 25)])
def test_running_out_of_memory_halves_the_block(method, at):
    config = settings(method=method)
    whole = runner(config, HostDevice()).run(0.1, np.arange(3))
    device = Short(at)
    assert_same(runner(config, device).run(0.1, np.arange(3)), whole, exactly=True)
    assert device.left < 0, "memory never ran out"


@needs_compiler
def test_a_single_replicate_that_does_not_fit_says_what_it_needs():
    with pytest.raises(MemoryBudgetError, match=r"one replicate needs [\d.]+ MB on the GPU, 1074 MB are free"):
        runner(settings(), Short(4, always=True)).run(0.1, np.arange(4))


@needs_compiler
def test_a_frame_for_a_team_is_fitted_by_the_blocks_that_there_are():
    rng = np.random.default_rng(1)
    y, x = np.indices((260, 300))
    level = np.where((x - 150) ** 2 + (y - 120) ** 2 < 4000, 180, np.where(y < 80, 50, 115))
    movie = np.clip(np.rint(level + rng.normal(scale=5, size=(1, *level.shape))), 0, 255).astype(np.uint8)
    # Five parts of the frame, but no more blocks than these run at once.
    found = [runner(settings(), HostDevice(blocks=n), movie).run(1.0, np.array([0])) for n in (2, 3)]
    assert_same(found[1], found[0], exactly=True)
    assert_same(found[0], runner(settings(), None, movie).run(1.0, np.array([0])))


def test_frames_on_the_device_at_a_time():
    frame = 512 * 512 * 2
    wanted = {0: 1, MOVIE_PART * frame: 1, 3 * MOVIE_PART * frame - 1: 2, 3 * MOVIE_PART * frame: 3, 2**40: 300}
    assert {budget: slab_frames(300, (512, 512), np.dtype(np.uint16), budget) for budget in wanted} == wanted


@needs_compiler
def test_a_large_movie_comes_in_slabs():
    device = HostDevice()
    small = settings(compute=ComputeConfig(memory_bytes=4 * HEIGHT * WIDTH * 3))
    found = runner(small, device).run(0.1, np.arange(2))
    assert device.launches.count("draw") == 2
    assert_same(found, runner(settings(), HostDevice()).run(0.1, np.arange(2)), exactly=True)


MOVIE_CASES = {
    "smoothed": {},
    "vote and revolution": {
        "correction": CorrectionConfig(radius=2, gamma=0.3),
        "quantity": QuantityConfig(geometry="revolution", pixel_size_um=0.1, axis="x=20"),
    },
    "bernoulli": {"sampling": SamplingConfig(scheme="bernoulli")},
}


@needs_compiler
@pytest.mark.usefixtures("each_device")
@pytest.mark.parametrize("case", MOVIE_CASES)
def test_a_movie_fitted_as_a_whole_is_the_generic_one(case):
    config = settings(method="movie", **{"correction": CorrectionConfig(), **MOVIE_CASES[case]})
    found = runner(config, kernel_device()).run(0.25, np.array([0, 3]))
    wanted = runner(config).run(0.25, np.array([0, 3]))
    np.testing.assert_array_equal(found.status, wanted.status)
    for name in ("count", "assisted", "smoothed", "volume_share", "share_sd", "posterior"):
        scale = np.nanmax(getattr(wanted, name))
        np.testing.assert_allclose(getattr(found, name) / scale, getattr(wanted, name) / scale, atol=2e-3, err_msg=name)


def test_the_starts_of_a_whole_movie_are_those_of_frame_0(monkeypatch):
    # As the generic engine has it; which start wins hardly shows in the optimum.
    class Stop(Exception):
        pass

    def caught(*args, keys, **options):
        raise Stop(keys.replicates.tolist(), keys.frames.tolist())

    monkeypatch.setattr(gmrm_gpu.engines.fused.engine, "fit_movies", caught)
    monkeypatch.setattr(FusedEngine, "_drawn", lambda *args: SimpleNamespace(samples=None))
    engine = FusedEngine(GenericEngine(NUMPY, ""), HostDevice(), "")
    with pytest.raises(Stop) as stopped:
        Runner(open_movie(growing(), frames="1:"), settings(method="movie"), NUMPY, engine).run(0.25, np.array([4, 6]))
    assert stopped.value.args == ([4, 6], [0])


@needs_compiler
def test_the_movie_is_uploaded_once():
    device = Recording()
    work = runner(settings(), device)
    work.run(0.1, np.arange(2))
    first, device.allocated = device.allocated, 0
    work.run(0.1, np.arange(2))
    assert first - device.allocated == growing().nbytes
    other = growing()[::-1].copy()
    found = Runner(open_movie(other), settings(), WITH_KERNELS, work.engine).run(0.1, np.arange(2))
    assert_same(found, runner(settings(), HostDevice(), other).run(0.1, np.arange(2)), exactly=True)


@pytest.fixture
def on_kernels(monkeypatch):
    """Make every analysis run on the kernels; gives the device."""
    device = HostDevice()
    engine = FusedEngine(GenericEngine(NUMPY, ""), device, "test")
    monkeypatch.setattr(gmrm_gpu.runner, "select_engine", lambda *args, **options: engine)
    return device


@needs_compiler
def test_a_study_is_the_generic_one(on_kernels, monkeypatch):
    config = StudyConfig(settings(compute=BY_ARRAYS), rates=(0.2, 0.1), n_replicates=(2, 3), methods=("paper",))
    found = run_study(growing(), config)
    assert on_kernels.launches.count("fit") == 4  # the reference, the example, two rates
    monkeypatch.undo()
    wanted = run_study(growing(), config)
    np.testing.assert_allclose(found.reference, wanted.reference, rtol=0, atol=1e-12)
    for rate in config.rates:
        np.testing.assert_allclose(found.shares[rate], wanted.shares[rate], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found.status[rate], wanted.status[rate])
    np.testing.assert_array_equal(found.examples.labels, wanted.examples.labels)
    np.testing.assert_array_equal(found.examples.labels_settings, wanted.examples.labels_settings)
    assert (found.provenance["engine"], wanted.provenance["engine"]) == ("fused", "generic")


@needs_compiler
def test_an_analysis_is_the_generic_one(on_kernels, monkeypatch):
    config = settings(compute=BY_ARRAYS)
    found = analyze(growing(), config, rate=0.3)
    assert on_kernels.launches == ["draw", "fit", "label", "correct", "tally"]
    monkeypatch.undo()
    wanted = analyze(growing(), config, rate=0.3)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.fits.means, wanted.fits.means, rtol=0, atol=0.03)


def test_the_choice_of_engine():
    config, shape, uint8 = settings().resolved, (512, 512), np.dtype(np.uint8)

    def obstacle(shape=shape, dtype=uint8, **changes):
        return fused_obstacle(settings(**changes).resolved, shape, dtype)

    assert fused_obstacle(config, shape, uint8) is None
    assert "float64" in obstacle(compute=ComputeConfig(dtype="float64"))
    assert "10 trend terms" in obstacle(mixture=MixtureConfig(trend="x,y,x2,xy,y2,x3,x2y,xy2,y3,x4"))
    assert "revolution" in obstacle(quantity=QuantityConfig(geometry="revolution", pixel_size_um=1.0))
    assert "uint32" in obstacle(dtype=np.dtype(np.uint32))
    assert "70000" in obstacle(shape=(70000, 10))


def test_a_gpu_without_its_kernels_says_so():
    # The choice alone is tested: arrays that say they are CuPy's.
    movie, gpu = open_movie(growing()), replace(NUMPY, name="cupy")

    def warnings(**compute):
        return Runner(movie, settings(compute=ComputeConfig(**compute)), gpu).warnings((0.25,))

    assert [text.partition(";")[0] for text in warnings(dtype="float64")] == [
        "The GPU works without the fused kernels because of the precision float64"
    ]
    assert warnings(dtype="float64", engine="generic") == []
    assert Runner(movie, settings(compute=ComputeConfig(dtype="float64")), NUMPY).warnings((0.25,)) == []


def test_what_was_asked_for_is_taken_or_refused():
    shape, uint8 = (64, 64), np.dtype(np.uint8)
    generic = settings(compute=ComputeConfig(engine="generic")).resolved
    assert "asked for" in select_engine(NUMPY, generic, shape, uint8).reason
    fused = settings(compute=ComputeConfig(engine="fused")).resolved
    with pytest.raises(ConfigError, match=r"fused engine cannot be used because of the device, which is no GPU"):
        select_engine(NUMPY, fused, shape, uint8)
