"""A small movie, settings and comparisons for tests of the fused engine as a whole."""

import numpy as np
from devices import ON_GPU

from gmrm_gpu.backend import get_backend, make_backend
from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, MixtureConfig, SamplingConfig
from gmrm_gpu.engines import FusedEngine, GenericEngine
from gmrm_gpu.frames import open_movie
from gmrm_gpu.runner import Runner

NUMPY = make_backend(np)
WITH_KERNELS = get_backend("gpu") if ON_GPU else NUMPY
FRAMES, HEIGHT, WIDTH = 4, 37, 45


def growing(dtype=np.uint8):
    """A movie whose bright spot grows on a background of two levels."""
    rng = np.random.default_rng(0)
    y, x = np.indices((HEIGHT, WIDTH))
    frames = []
    for t in range(FRAMES):
        level = np.where((x - 24) ** 2 + (y - 24) ** 2 < (6 + 2 * t) ** 2, 180, np.where(y < 12, 50, 115))
        frames.append(level + rng.normal(scale=5, size=level.shape) + 5 * x / WIDTH)
    return np.clip(np.rint(frames), 0, 255).astype(dtype)


def settings(**changes):
    defaults = {
        "mixture": MixtureConfig(n_components=3, trend="linear"),
        "correction": CorrectionConfig(radius=3, gamma=0.3),
        "sampling": SamplingConfig(seed=11),
        "method": "paper",
    }
    return AnalysisConfig(**(defaults | changes))


def runner(config, device=None, movie=None):
    movie = open_movie(growing() if movie is None else movie)
    if device is None:
        return Runner(movie, config, NUMPY, GenericEngine(NUMPY, "test"))
    engine = FusedEngine(GenericEngine(WITH_KERNELS, "test"), device, "test")
    return Runner(movie, config, WITH_KERNELS, engine)


def assert_same(found, wanted, *, exactly=False, estimator="count"):
    for name in wanted.__dataclass_fields__:
        a, b = getattr(found, name), getattr(wanted, name)
        if exactly or a.dtype != np.float64:
            assert a.tobytes() == b.tobytes(), name
        else:
            # Where phases overlap, two fits that stop within the tolerance differ a little; labels must not.
            close = name == "posterior" or (estimator == "posterior" and "share" in name)
            np.testing.assert_allclose(a, b, rtol=0, atol=5e-4 if close else 1e-12, err_msg=name)


def pack(values, positions, valid, wide, shape):
    """Samples as the draw kernel writes them."""
    y, x = np.divmod(positions, shape[1])
    if wide:
        bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        words = bits << np.uint64(32) | y.astype(np.uint64) << np.uint64(16) | x.astype(np.uint64)
    else:
        words = values.astype(np.uint32) << 24 | y.astype(np.uint32) << 12 | x.astype(np.uint32)
    return words if valid is None else np.where(valid, words, ~np.zeros_like(words))
