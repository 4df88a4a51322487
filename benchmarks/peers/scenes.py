"""The frames that every program gets: four phases whose truth is known, on a trend, easy and hard to part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

import gmrm_gpu as gg
from gmrm_gpu.backend import make_backend
from gmrm_gpu.config import SamplingConfig, trend_terms
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.mixture.starts import start_thetas
from gmrm_gpu.sampling import Sampler

from .classic import basis_of
from .density import Mixture

TREND = "quadratic+electrode"
TERMS = trend_terms(TREND)
K, LI = 4, 3
START = "spread"
"""The start of every fit: equal spacing between the 0.2 % and 99.8 % quantiles, equal weights, one sigma, no trend."""
LEVELS = {
    "easy": ((30.0, 90.0, 150.0, 210.0), (6.0, 6.0, 7.0, 8.0)),
    "hard": ((30.0, 100.0, 138.0, 175.0), (7.0, 9.0, 11.0, 16.0)),
}
"""Mean grey level and standard deviation of electrode, electrolyte, gel and Li."""
COEF = (13.3, 5.6, 7.9, -5.6, -3.4)
"""Of x, x^2, y, xy and x^2 y: the trend of a hard synthetic battery of the same seed, at most 20 grey levels."""
REVERSED = "hard, reversed"
"""The hard frame with the opposite trend: where the trend dims Li, it now brightens it."""
LI_SHARE, GEL_SHARE = 0.09, 0.3
_SEED, _BLOB = 4, 12.0
_HOST = make_backend(np, dtype="float64")


@dataclass(frozen=True)
class Scene:
    """A frame (H, W) uint8, its phases (H, W) 0..3 in ascending grey level, and its name."""

    name: str
    image: np.ndarray
    truth: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape

    def visited(self, n: int) -> Data:
        """`n` pixels, drawn as the package draws them; all of them in the order of the frame."""
        sampler = Sampler(self.shape, SamplingConfig(rate=n / self.image.size))
        positions = np.asarray(sampler.draw(np.array([0]), 0, backend=_HOST).positions)[0]
        return Data(self, positions if n < self.image.size else np.arange(n, dtype=positions.dtype))


@dataclass(frozen=True)
class Data:
    """What a program is given: the visited pixels of a scene, positions (m,) flat indices."""

    scene: Scene
    positions: np.ndarray

    @property
    def full(self) -> bool:
        """Whether every pixel was visited."""
        return len(self.positions) == self.scene.image.size

    @cached_property
    def values(self) -> np.ndarray:
        """(m,) float64 grey levels."""
        return self.scene.image.reshape(-1)[self.positions].astype(np.float64)

    @cached_property
    def basis(self) -> np.ndarray:
        """(m, q) trend terms."""
        return basis_of(self.positions, self.scene.shape, TERMS)

    def start(self, values: np.ndarray | None = None) -> Mixture:
        """Where every fit begins; `values` (m,) in place of the grey levels."""
        values = self.values if values is None else values
        config = gg.MixtureConfig(K, "none", starts=(START,))
        samples = make_samples(values[None], self.positions[None], self.scene.shape, TrendBasis(()), backend=_HOST)
        theta = start_thetas(samples.subset(4), config, None, backend=_HOST)[0][0]
        means = theta[K : 2 * K] * samples.scale[0] + samples.centre[0]
        sigmas = np.exp(theta[2 * K : 3 * K]) * samples.scale[0]
        return Mixture(np.full(K, 1 / K), means, sigmas, np.zeros(len(TERMS)))


@lru_cache(maxsize=4)
def make_scene(name: str, side: int = 512) -> Scene:
    """``"easy"``, ``"hard"`` or `REVERSED`: electrode and Li of a synthetic battery, and blobs of gel beside them."""
    truth = _phases(side)
    means, sigmas = (np.array(levels) for levels in LEVELS[name.partition(",")[0]])
    rng = np.random.Generator(np.random.Philox(_SEED))
    trend = basis_of(np.arange(side * side), (side, side), TERMS) @ np.array(COEF) * (-1 if name == REVERSED else 1)
    grey = means[truth] + sigmas[truth] * rng.standard_normal(truth.shape) + trend.reshape(side, side)
    return Scene(name, np.clip(np.rint(grey), 0, 255).astype(np.uint8), truth)


def _phases(side: int) -> np.ndarray:
    """(side, side) int64 phases: 0 electrode, 1 electrolyte, 2 gel, 3 Li."""
    from gmrm_gpu.synthetic.fields import smooth_noise

    options = {"n_empty": 0, "peak_share": LI_SHARE, "drift_px": 0, "n_refocus": 0}
    battery = gg.simulate("battery", shape=(side, side), n_frames=1, seed=_SEED, **options).truth[0]
    blobs = smooth_noise(np.random.Generator(np.random.Philox(_SEED)), (side, side), _BLOB * side / 512)
    truth = np.array([1, 0, LI])[battery]
    truth[(truth == 1) & (blobs > np.quantile(blobs[truth == 1], 1 - GEL_SHARE))] = 2
    return truth
