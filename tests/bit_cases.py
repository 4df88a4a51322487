"""Small analyses drawn at random from all that an analysis can be, and what they come to, bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from gmrm_gpu.config import (
    AnalysisConfig,
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    QuantityConfig,
    SamplingConfig,
)
from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.frames import Movie, open_movie
from gmrm_gpu.runner import Runner
from gmrm_gpu.tally import Curves
from gmrm_gpu.thinning import thin_movie

SCHEMES = ("fixed", "bernoulli", "stratified", "lines")
ENGINES = ("generic", "compiled")
METHODS = ("paper", "movie")
DTYPES = ("uint8", "uint16", "float32", "float64")
ALL_TERMS = tuple((a, b) for a in range(5) for b in range(5 - a) if a + b)
TRENDS = ("none", "linear", "quadratic", "quadratic+electrode", ALL_TERMS)
SIZES = (1, 2, 3, 7, 64)


@dataclass(frozen=True)
class Case:
    """An analysis of `n` replicates at `rate`."""

    movie: Movie
    config: AnalysisConfig
    rate: float
    n: int

    def runner(self) -> Runner:
        """Made anew."""
        return Runner(self.movie, self.config, largest_rate=self.rate)


def drawn(engine: str, method: str, number: int) -> Case:
    """Case `number`: every scheme in turn, all else by chance."""
    rng = np.random.default_rng([ENGINES.index(engine), METHODS.index(method), number])
    while True:
        try:
            case = _drawn(rng, engine, method, SCHEMES[number % len(SCHEMES)])
            case.runner().sampler(case.rate)
        except (ConfigError, InputError):  # contradictions, what kernels cannot do, too few samples for the model
            continue
        return case


def _drawn(rng: np.random.Generator, engine: str, method: str, scheme: str) -> Case:
    sampling = SamplingConfig(scheme=scheme, seed=int(rng.integers(2**31)), line_length=int(rng.integers(3, 20)))
    rate = float(rng.choice([0.1, 0.2, 0.5]))
    movie = _movie(rng)
    if rng.random() < 0.25:
        movie = thin_movie(movie, SamplingConfig(rate=min(0.9, 1.5 * rate), scheme=scheme))
    kernels = engine == "compiled"
    mixture = MixtureConfig(
        int(rng.integers(1, 5)) if rng.random() < 0.8 else 6,
        TRENDS[rng.integers(len(TRENDS))],
        histogram=bool(rng.random() < 0.25),
        trend_prior=10.0 if rng.random() < 0.3 else None,
        max_iter=int(rng.choice([4, 15])),
    )
    vote = CorrectionConfig(
        radius=float(rng.choice([0, 1, 3])),
        window=str(rng.choice(["past", "past+current", "symmetric", "spatial"])),
        metric=str(rng.choice(["l1", "l2"])),
        sides=str(rng.choice(["foreground", "both"])),
    )
    estimators = ["count", "posterior"] if method == "paper" else ["count", "posterior", "assisted", "smoothed"]
    volume = {"geometry": "revolution", "axis": "x=3.5", "pixel_size_um": 0.01} if rng.random() < 0.2 else {}
    config = AnalysisConfig(
        mixture,
        correction=vote,
        sampling=sampling,
        quantity=QuantityConfig(estimator=str(rng.choice(estimators)), **volume),
        compute=ComputeConfig(
            device="cpu",
            dtype="float32" if kernels else str(rng.choice(["float32", "float64"])),
            engine=engine,
            n_threads=int(rng.choice([1, 2, 3])),
        ),
        method=method,
    )
    return Case(movie, config, rate, 8)


def _movie(rng: np.random.Generator) -> Movie:
    """A few small frames: a disk that grows, a trend, noise; perhaps excluded pixels, perhaps a blank frame."""
    shape, n_frames = tuple(int(n) for n in rng.integers(16, 36, 2)), int(rng.integers(1, 5))
    y, x = np.indices(shape)
    inside = np.hypot(y - shape[0] / 2, x - shape[1] / 2)[None] < np.arange(3, 3 + n_frames)[:, None, None]
    frames = np.where(inside, 160.0, 60.0) + 0.3 * x + rng.normal(scale=7, size=(n_frames, *shape))
    if n_frames > 2 and rng.random() < 0.2:
        frames[1] = 77
    dtype = np.dtype(str(rng.choice(DTYPES)))
    frames = np.clip(np.rint(frames), 0, 255) if dtype.kind == "u" else frames
    excluded = rng.random(shape) < 0.2 if rng.random() < 0.4 else None
    return open_movie((frames * (257 if dtype == np.uint16 else 1)).astype(dtype), exclude=excluded)


def in_parts(runner: Runner, rate: float, n: int, parts: Iterable[np.ndarray]) -> Curves:
    """The curves of `n` replicates, run part by part."""
    out = Curves.empty(n, len(runner.movie))
    for part in parts:
        found = runner.run(rate, part)
        for field in fields(Curves):
            getattr(out, field.name)[part] = getattr(found, field.name)
    return out


def differing(a: Curves, b: Curves) -> list[str]:
    """Names of the curves whose bytes are not the same."""
    return [f.name for f in fields(Curves) if getattr(a, f.name).tobytes() != getattr(b, f.name).tobytes()]


def digest(curves: Curves) -> str:
    """Of all bytes."""
    return hashlib.sha256(b"".join(getattr(curves, f.name).tobytes() for f in fields(Curves))).hexdigest()
