"""What is kept of a run beyond its curves: fits, labels, and the pictures for a report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .backend import Array
from .classify import NOT_VISITED
from .config import AnalysisConfig, CorrectionConfig
from .correct import Corrected, Corrector
from .engines import Engine
from .frames import Movie
from .results import Examples, MixtureFit

EXAMPLE_SETTINGS = ((5.0, 0.05), (20.0, 0.2))
"""(radius, gamma) of the paper's Figure 2g and h."""
N_EXAMPLES = 6


class Observer:
    """Sees the frames of a run go by; the default looks away."""

    def restarted(self) -> None:
        """Memory ran out, and the run begins again: what was seen of it comes once more."""

    def fitted(self, t: int, fit: MixtureFit, foreground: np.ndarray, positions: Array, labels: Array) -> None:
        """Frame `t` was fitted and labelled; foreground (R, K) bool says which components count."""

    def corrected(self, done: Corrected) -> None:
        """A frame was corrected; comes in the order of time, perhaps frames later."""


class Recorder(Observer):
    """Keeps fits and labels of a one-replicate run, and the examples for a report."""

    def __init__(
        self,
        movie: Movie,
        config: AnalysisConfig,
        engine: Engine,
        *,
        labels: bool = False,
        settings: tuple[tuple[float, float], ...] = (),
    ) -> None:
        self.movie, self.config, self.engine = movie, config, engine
        self.labels = np.zeros((len(movie), *movie.shape), dtype=np.uint8) if labels else None
        self.chosen = np.unique(np.linspace(0, len(movie) - 1, N_EXAMPLES).round().astype(int))
        self.settings = settings
        self.restarted()

    def restarted(self) -> None:
        """Nothing was seen yet."""
        self.fits: list[MixtureFit] = []
        self.foregrounds: list[np.ndarray] = []
        self.images: dict[int, np.ndarray] = {}
        self.raw: dict[int, np.ndarray] = {}
        self.final: dict[int, np.ndarray] = {}
        self.by_setting: list[dict[int, np.ndarray]] = [{} for _ in self.settings]
        self._correctors = [self._other(radius, gamma) for radius, gamma in self.settings]

    def _other(self, radius: float, gamma: float) -> Corrector:
        correction = replace(self.config.correction, radius=radius, gamma=gamma)
        corrector = self.engine.corrector(self.movie.shape, correction, self.config.phases)
        return replace(corrector, wanted=frozenset(int(t) for t in self.chosen))

    def fitted(self, t: int, fit: MixtureFit, foreground: np.ndarray, positions: Array, labels: Array) -> None:
        """Keep the fit; show the labels to the example settings."""
        self.fits.append(fit[0])
        self.foregrounds.append(foreground[:1])
        if t in self.chosen:
            self.images[t] = self.movie.picture(t).copy()
            self.raw[t] = self._image(positions, labels)
        for corrector, kept in zip(self._correctors, self.by_setting, strict=True):
            for done in corrector.push(positions, labels):
                self._keep(kept, done)

    def corrected(self, done: Corrected) -> None:
        """Keep the corrected labels."""
        if self.labels is not None:
            self.labels[done.frame] = self._image(done.positions, done.labels)
        self._keep(self.final, done)

    def _keep(self, kept: dict[int, np.ndarray], done: Corrected) -> None:
        if done.frame in self.chosen:
            kept[done.frame] = self._image(done.positions, done.labels)

    def _image(self, positions: Array, labels: Array) -> np.ndarray:
        """(height, width) uint8: 0 not visited, p + 1 phase p."""
        shape, backend = self.movie.shape, self.engine.backend
        image = np.zeros(shape[0] * shape[1], dtype=np.uint8)
        position, label = backend.to_host(positions)[0], backend.to_host(labels)[0]
        visited = label != NOT_VISITED
        image[position[visited]] = label[visited] + 1
        return image.reshape(shape)

    def examples(self, sampled_rate: float, sampled: Recorder | None = None) -> Examples:
        """Pictures for the report; `sampled` recorded a sub-sampled run, by default this one."""
        for corrector, kept in zip(self._correctors, self.by_setting, strict=True):
            for done in corrector.flush():
                self._keep(kept, done)
        config, chosen = self.config, self.chosen
        fits = MixtureFit.stack(self.fits[t] for t in chosen)

        def stack(images: dict[int, np.ndarray]) -> np.ndarray:
            return np.stack([images[t] for t in chosen])

        return Examples(
            frames=chosen,
            images=stack(self.images),
            labels_raw=stack(self.raw),
            labels=stack(self.final),
            settings=self.settings,
            labels_settings=np.stack([stack(kept) for kept in self.by_setting]),
            sampled_rate=sampled_rate,
            labels_sampled=stack((sampled or self).final),
            fits=fits,
            foreground=np.concatenate([self.foregrounds[t] for t in chosen]),
            phase_names=config.phases.names,
            foreground_index=config.phases.foreground_index,
            valid=self.movie.valid,
        )


def example_settings(correction: CorrectionConfig, shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """The paper's two settings to compare, those whose ball fits into the frame."""
    return tuple(s for s in EXAMPLE_SETTINGS if 2 * s[0] < min(shape)) or ((min(shape) // 4, correction.gamma),)
