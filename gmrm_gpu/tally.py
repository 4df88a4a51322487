"""From the labels of each frame to curves with their sampling errors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .backend import Array, Backend
from .classify import NOT_VISITED
from .config import ESTIMATORS
from .correct import Corrected, Corrector
from .estimate import Estimate, sample_mean, smooth_with_gaps, steady_variance
from .recorder import Observer
from .sampling import Draw, Sampler


@dataclass(frozen=True)
class Curves:
    """Per replicate and frame, (R, T) host arrays; see `AnalysisResult` for each."""

    share: np.ndarray
    share_sd: np.ndarray
    volume_share: np.ndarray
    volume_share_sd: np.ndarray
    share_raw: np.ndarray
    count: np.ndarray
    count_sd: np.ndarray
    posterior: np.ndarray
    posterior_sd: np.ndarray
    assisted: np.ndarray
    assisted_sd: np.ndarray
    smoothed: np.ndarray
    smoothed_sd: np.ndarray
    n_samples: np.ndarray
    without_neighbours: np.ndarray
    status: np.ndarray

    @staticmethod
    def empty(n_replicates: int, n_frames: int) -> Curves:
        """All NaN and zero."""
        shape = (n_replicates, n_frames)
        whole = {"n_samples": np.int64, "without_neighbours": np.int64, "status": np.uint8}
        made = {f.name: np.full(shape, np.nan) for f in fields(Curves) if f.name not in whole}
        return Curves(**made, **{name: np.zeros(shape, dtype) for name, dtype in whole.items()})

    @staticmethod
    def join(parts: list[Curves]) -> Curves:
        """The replicates of all parts."""
        return Curves(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Curves)))


@dataclass(frozen=True)
class Expected:
    """What earlier frames expect of one: at_samples (R, m) on the device, mean and volume-weighted mean (R,)."""

    at_samples: Array
    mean: np.ndarray
    weighted: np.ndarray | None


@dataclass(frozen=True)
class TallySettings:
    """What a run's curves are made with.

    numbers : (T,) of the frames. weights : (height * width,) of a volume of revolution, or None.
    """

    numbers: np.ndarray
    n_pixels: int
    sampler: Sampler
    estimator: str
    foreground: int
    corrector: Corrector
    weights: Array | None
    backend: Backend


def curves_of_counts(counted: Any, estimator: str, n_pixels: int) -> Curves:
    """Curves from shares that were counted on the device, of a slab.

    counted : `engines.fused.Counted`. estimator : ``"count"`` or ``"posterior"``. n_pixels : of a frame.
    """
    curves = Curves.empty(*counted.status.shape)
    for name in ("status", "n_samples", "share_raw", "posterior", "without_neighbours"):
        getattr(curves, name)[...] = getattr(counted, name)
    curves.count[...] = counted.share
    curves.count_sd[...] = np.sqrt(steady_variance(counted.variance, counted.n_samples, n_pixels))
    for name in ("share", "volume_share"):
        getattr(curves, name)[...] = getattr(curves, estimator)
        getattr(curves, f"{name}_sd")[...] = getattr(curves, f"{estimator}_sd")
    return curves


class Tally:
    """Takes the frames of a run in the order of time, corrects their labels and adds up the curves."""

    def __init__(self, settings: TallySettings, n_replicates: int, observer: Observer) -> None:
        self.settings, self.observer = settings, observer
        n_frames = len(settings.numbers)
        self.curves = Curves.empty(n_replicates, n_frames)
        self._waiting: dict[int, tuple[Draw, Expected | None]] = {}
        self._variance = {name: np.full((n_replicates, n_frames), np.nan) for name in (*ESTIMATORS, "volume")}
        self._volume = np.full((n_replicates, n_frames), np.nan)

    def push(
        self,
        t: int,
        draw: Draw,
        labels: Array,
        status: np.ndarray,
        *,
        posterior_mean: np.ndarray | None = None,
        posterior: Array | None = None,
        expected: Expected | None = None,
    ) -> None:
        """The labels (R, m) of frame `t`, with the posterior (R, m) of the foreground or its mean (R,)."""
        curves = self.curves
        curves.status[:, t], curves.n_samples[:, t] = status, draw.n_samples
        curves.share_raw[:, t], _ = self._mean(self._is_foreground(labels), labels, draw)
        if posterior is not None:
            curves.posterior[:, t], self._variance["posterior"][:, t] = self._mean(posterior, labels, draw)
        elif posterior_mean is not None:
            curves.posterior[:, t] = posterior_mean
        self._waiting[t] = (draw, expected)
        for done in self.settings.corrector.push(draw.positions, labels):
            self._count(done)

    def _is_foreground(self, labels: Array) -> Array:
        xp = self.settings.backend.xp
        return xp.astype(labels == self.settings.foreground, xp.float64)

    def _mean(self, values: Array, labels: Array, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the visited samples and its variance by the design, (R,)."""
        s = self.settings
        xp = s.backend.xp
        visited = labels != NOT_VISITED
        n = s.backend.to_host(xp.sum(xp.astype(visited, xp.int64), axis=1))
        scheme, length = s.sampler.config.scheme, s.sampler.cluster_length
        values = xp.astype(values, xp.float64)
        return sample_mean(
            values,
            visited,
            n,
            s.n_pixels,
            scheme,
            length,
            groups=draw.clusters,
            n_effective=draw.n_effective,
            backend=s.backend,
        )

    def _count(self, done: Corrected) -> None:
        """Estimates of a frame whose labels are final."""
        s, t, curves = self.settings, done.frame, self.curves
        draw, expected = self._waiting.pop(t)
        curves.without_neighbours[:, t] = done.without_neighbours
        is_foreground = self._is_foreground(done.labels)
        curves.count[:, t], self._variance["count"][:, t] = self._mean(is_foreground, done.labels, draw)
        difference = is_foreground
        if expected is not None:
            difference = is_foreground - s.backend.xp.astype(expected.at_samples, s.backend.xp.float64)
            mean, self._variance["assisted"][:, t] = self._mean(difference, done.labels, draw)
            curves.assisted[:, t] = expected.mean + mean
        if s.weights is not None:
            xp = s.backend.xp
            weight = xp.reshape(xp.take(s.weights, xp.reshape(done.positions, (-1,))), done.labels.shape)
            used = difference if self._is_assisted and expected is not None else is_foreground
            mean, self._variance["volume"][:, t] = self._mean(used * weight, done.labels, draw)
            known = expected.weighted if used is difference and expected is not None else None
            self._volume[:, t] = mean if known is None else mean + known
        self.observer.corrected(done)

    @property
    def _is_assisted(self) -> bool:
        return self.settings.estimator in ("assisted", "smoothed")

    def finish(self) -> Curves:
        """The curves, once all frames are in."""
        for done in self.settings.corrector.flush():
            self._count(done)
        curves = self.curves
        for name in ("count", "posterior", "assisted"):
            getattr(curves, f"{name}_sd")[...] = self._sd(name)
        if np.isfinite(curves.assisted).any():
            smoothed = smooth_with_gaps(Estimate(curves.assisted, curves.assisted_sd), self.settings.numbers)
            lost = ~np.isfinite(curves.assisted)
            curves.smoothed[...] = np.where(lost, np.nan, np.clip(smoothed.share, 0, 1))
            curves.smoothed_sd[...] = np.where(lost, np.nan, smoothed.sd)
            curves.assisted[...] = np.clip(curves.assisted, 0, 1)
        chosen = self.settings.estimator
        curves.share[...], curves.share_sd[...] = getattr(curves, chosen), getattr(curves, f"{chosen}_sd")
        self._finish_volume()
        return curves

    def _sd(self, name: str) -> np.ndarray:
        return np.sqrt(steady_variance(self._variance[name], self.curves.n_samples, self.settings.n_pixels))

    def _finish_volume(self) -> None:
        curves = self.curves
        if self.settings.weights is None:
            curves.volume_share[...], curves.volume_share_sd[...] = curves.share, curves.share_sd
            return
        # Half a sample of mean weight: the floor of the variance is in shares.
        weight = float(self.settings.backend.to_host(self.settings.backend.xp.mean(self.settings.weights)))
        scaled = steady_variance(self._variance["volume"] / weight**2, curves.n_samples, self.settings.n_pixels)
        found = Estimate(self._volume, np.sqrt(scaled) * weight)
        if self.settings.estimator == "smoothed":
            shares = smooth_with_gaps(Estimate(self._volume / weight, np.sqrt(scaled)), self.settings.numbers)
            found = Estimate(shares.share * weight, shares.sd * weight)
        curves.volume_share[...] = np.maximum(found.share, 0)
        curves.volume_share_sd[...] = found.sd


__all__ = ["Curves", "Expected", "Tally", "TallySettings", "curves_of_counts"]
