"""What comes in: a frame, which is sub-sampled, or the visits of one; checked against the frames before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Backend
from ..config import AnalysisConfig
from ..errors import ConfigError, InputError
from ..frames.movie import ArrayMovie, Movie, Visits, grey_dtype, size_text
from ..sampling import Sampler
from ..visited import FrameVisits


@dataclass(frozen=True)
class Arrived:
    """A checked frame: samples (m,), and all that is shown of it.

    clusters : (m,) int32, samples that are no independent look share a number; None: all are. n_distinct : pixels.
    """

    values: np.ndarray
    positions: np.ndarray
    picture: np.ndarray
    clusters: np.ndarray | None
    n_distinct: int


class _OneFrame(Movie):
    """A frame's visits, for the checks and the picture that every movie has."""

    def __init__(self, seen: Visits, shape: tuple[int, int], dtype: np.dtype, valid: np.ndarray | None) -> None:
        super().__init__(name="the stream", shape=shape, dtype=dtype, n_frames=1, valid=valid, sampled=True)
        self._seen = seen

    def _read_visits(self, t: int) -> Visits:
        return self._seen


class Intake:
    """Turns frames of one stream into samples.

    Parameters
    ----------
    sampler : which pixels of a whole frame are drawn. valid : (height, width) bool, or None.
    """

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype, sampler: Sampler, valid: np.ndarray | None, backend: Backend
    ) -> None:
        self.shape, self.dtype, self.valid, self.sampler, self.backend = shape, dtype, valid, sampler, backend
        self.scheme = sampler.config.scheme

    def take(self, frame: np.ndarray | Visits, number: int) -> Arrived:
        """The samples of frame `number`; see `LiveAnalysis.process`."""
        if isinstance(frame, Visits):
            movie = _OneFrame(frame, self.shape, self.dtype, self.valid)
            movie.frame_numbers[0] = number
            seen = movie.visits(0)
            return self._ordered(seen.values, seen.positions, movie.picture(0))
        pixels = np.asarray(frame)
        if pixels.shape != self.shape or grey_dtype(pixels.dtype, "the stream") != self.dtype:
            raise InputError(
                f"frame {number} is {size_text(pixels.shape)} of {pixels.dtype}, the first {size_text(self.shape)} of "
                f"{self.dtype}; frames of a stream must be alike"
            )
        dense = ArrayMovie(pixels, name="the stream", valid=self.valid, frame_numbers=np.array([number])).frame(0)
        draw = self.sampler.draw(np.array([0]), number, backend=self.backend)
        positions = self.backend.to_host(draw.positions)[0]
        if draw.valid is not None:
            positions = positions[self.backend.to_host(draw.valid)[0]]
        values, picture = dense.reshape(-1)[positions], dense.astype(np.float32)
        if self.scheme == "lines":
            return self._ordered(values, positions, picture)
        return Arrived(values, positions, picture, None, positions.size)

    def _ordered(self, values: np.ndarray, positions: np.ndarray, picture: np.ndarray) -> Arrived:
        """Samples in the order of their places, as the variance of a scheme wants them; which belong together."""
        order = np.argsort(positions, kind="stable")
        visits = FrameVisits(positions[order], values[order])
        n_repeats, lines = int(visits.repeats.sum()), self.scheme == "lines"
        clusters = visits.clusters(self.shape[1], lines=lines) if n_repeats or lines else None
        return Arrived(visits.values, visits.positions, picture, clusters, positions.size - n_repeats)


def live_config(config: AnalysisConfig) -> AnalysisConfig:
    """The settings with all that is ``auto`` resolved; refuses those that only whole movies have."""
    if config.method != "movie":
        raise ConfigError("a live analysis is the method movie going forward in time; leave out --method paper")
    if config.correction.window == "symmetric":
        raise ConfigError("the window symmetric needs frames yet to come; use past, past+current or spatial")
    return config.resolved


def sigma_floor_of(values: np.ndarray) -> float:
    """Smallest sigma that the data can show, grey levels, as in `survey`."""
    if values.dtype.kind in "iub":
        return 1.0 / 12**0.5
    low, high = np.quantile(values, (0.002, 0.998))
    return 2.5e-4 * float(high - low) if high > low else 1e-12
