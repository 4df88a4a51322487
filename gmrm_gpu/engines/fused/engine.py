"""The fused engine: a block of replicates of a whole movie in a few launches; the host waits only at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from ...backend import Array, Backend
from ...config import AnalysisConfig, CorrectionConfig, PhaseConfig
from ...correct import Corrector
from ...results import MixtureFit
from ...sampling import Sampler
from ..generic import GenericEngine, LabelledMovie
from .correct import is_active, run_correct
from .draw import Drawn, pack_draws, prepare_draw, run_draw
from .fit import FitArrays, FitKeys, run_fit
from .label import Labels, posterior_means, run_label
from .launch import Device, Launch
from .movie_fit import fit_movies, label_movie, movie_kernels
from .movie_plan import Room
from .plan import (
    BlockSize,
    bytes_per_replicate,
    maps_of,
    movie_block_bytes,
    movie_sizes,
    movie_tally_bytes,
    plan_fits,
    plan_launches,
    slab_frames,
)
from .tally import run_tally, share_and_variance

Notify = Callable[[float], None]


@dataclass(frozen=True)
class MovieFrames:
    """A movie as the engine reads it: frame(i) is (height, width) of `dtype`; numbers (T,) are those of the frames."""

    frame: Callable[[int], np.ndarray]
    numbers: np.ndarray
    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def bytes_per_frame(self) -> int:
        """Of one frame."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Counted:
    """What a block of replicates came to, (R, T) host arrays.

    Attributes
    ----------
    status, n_samples : of the fits. share_raw : foreground among visited samples before the vote.
    share, variance : after it, with its variance by the design. posterior : mean posterior of the foreground.
    without_neighbours : visited samples that had no neighbours to vote.
    """

    status: np.ndarray
    n_samples: np.ndarray
    share_raw: np.ndarray
    share: np.ndarray
    variance: np.ndarray
    posterior: np.ndarray
    without_neighbours: np.ndarray


@dataclass(frozen=True)
class Kept:
    """What an observer wants beyond the counts: fits (R, T), and labels (R, T, m) before and after the vote."""

    fits: MixtureFit
    raw: Array
    labels: Array


@dataclass
class FusedEngine:
    """Runs both methods in CUDA kernels; what it does not do itself, the generic engine does.

    Attributes
    ----------
    generic : the array-API engine on the same GPU. device : where kernels run. reason : why this engine.
    """

    generic: GenericEngine
    device: Device
    reason: str
    name: str = "fused"
    _movie: tuple[MovieFrames, Array] | None = field(default=None, repr=False)

    @property
    def backend(self) -> Backend:
        """Of the generic engine."""
        return self.generic.backend

    @property
    def n_threads(self) -> int | None:
        """Of the host that work on its stages; None: the caller's alone."""
        return None

    def corrector(self, shape: tuple[int, int], correction: CorrectionConfig, phases: PhaseConfig) -> Corrector:
        """The generic vote, for example pictures with other settings."""
        return self.generic.corrector(shape, correction, phases)

    def block_bytes(self, movie: MovieFrames, sampler: Sampler, config: AnalysisConfig, budget: int) -> tuple[int, int]:
        """Device memory of a block: what it takes in any case, and each replicate's part. A single one keeps labels."""
        size = self.size(sampler, 1, movie, budget)
        if config.method == "movie":
            vote = self.corrector(movie.shape, config.correction, config.phases)
            tally = movie_tally_bytes(size) + vote.bytes_per_replicate(size.m, size.n_frames)
            each = max(movie_block_bytes(movie_sizes(size, config, n_ways=2)), tally)
        else:
            each = bytes_per_replicate(size, config, keep_labels=True)
        return size.slab * movie.bytes_per_frame, each

    def size(self, sampler: Sampler, n_replicates: int, movie: MovieFrames, budget: int) -> BlockSize:
        """Sizes of a block of replicates; `budget` bytes for everything."""
        slab = slab_frames(len(movie.numbers), movie.shape, movie.dtype, budget)
        return BlockSize(n_replicates, len(movie.numbers), sampler, np.dtype(movie.dtype), slab)

    def run(
        self,
        movie: MovieFrames,
        sampler: Sampler,
        replicates: np.ndarray,
        config: AnalysisConfig,
        *,
        sigma_floor: float,
        budget: int,
        keep: bool = False,
        notify: Notify | None = None,
    ) -> tuple[Counted, Kept | None]:
        """Analyse `replicates` (R,) of all frames with the method ``"paper"``; keep : labels and parameters too.

        notify : told the fraction done, where kernels can tell.

        Raises
        ------
        DeviceMemoryError
            So many replicates do not fit.
        """
        device, shape = self.device, movie.shape
        size = self.size(sampler, len(replicates), movie, budget)
        device.prepare(launch.kernel for launch in plan_launches(size, config))
        drawn = self._drawn(movie, size, replicates)
        fits = FitArrays.empty(size.n_fits, config.mixture, device)
        keys = FitKeys(sampler.config.seed, sampler.config.rate, *drawn.inputs[-2:])
        with self.telling(notify):
            run_fit(
                plan_fits(size, config, self._resident(size, config)),
                drawn.samples,
                shape,
                config.mixture,
                keys=keys,
                sigma_floor=sigma_floor,
                out=fits,
                device=device,
            )
        labels = Labels.empty(drawn.samples.shape, maps_of(shape, config), device)
        run_label(drawn.samples, fits, shape, config.mixture, config.phases, out=labels, device=device)
        raw = labels.labels.copy() if keep else None
        without = None
        if is_active(config.correction):
            without = run_correct(
                drawn.samples, labels.labels, labels.maps, shape, config.correction, config.phases, device=device
            )
        sums = run_tally(labels.labels, sampler, config.phases.foreground_index, device=device)
        counted = self._counted(size, fits, labels, without, sums)
        return counted, Kept(self._fits(size, fits, config), raw, labels.labels) if keep else None

    def run_movie(
        self,
        movie: MovieFrames,
        sampler: Sampler,
        replicates: np.ndarray,
        config: AnalysisConfig,
        *,
        sigma_floor: float,
        budget: int,
        pixel_weights: np.ndarray | None,
        notify: Notify | None = None,
    ) -> LabelledMovie:
        """Fit and label `replicates` (R,) with the method ``"movie"``; see `GenericEngine.fit_and_label_movie`.

        pixel_weights : (height * width,) float64 on the host, what each pixel counts. notify : as of `run`.
        """
        size = self.size(sampler, len(replicates), movie, budget)
        sizes = movie_sizes(size, config, n_ways=1 if pixel_weights is None else 2)
        # A sub-sampled movie's visits are few, and packed on the host.
        packed = size.sampler.layout.scheme == "visits"
        self.device.prepare([*([] if packed else [size.job(replicates, movie.numbers).source]), *movie_kernels(sizes)])
        if packed:
            words = self.device.asarray(pack_draws(sampler, replicates, movie.numbers, movie.dtype))
        else:
            words = self._drawn(movie, size, replicates).samples
        # The starts of a movie belong to its frame 0, whatever the numbers of its frames.
        numbers = (self.device.asarray(np.asarray(a, dtype=np.uint32)) for a in (replicates, [0]))
        keys = FitKeys(sampler.config.seed, sampler.config.rate, *numbers)
        with self.telling(notify):
            fitted = fit_movies(words, sizes, keys=keys, sigma_floor=sigma_floor, room=self._room, device=self.device)
        return label_movie(
            words,
            fitted,
            sizes,
            config.phases,
            allowed=sampler.allowed,
            pixel_weights=pixel_weights,
            room=self._room,
            device=self.device,
        )

    def telling(self, notify: Notify | None) -> AbstractContextManager[None]:
        """While `notify` is told the fraction done; CUDA kernels tell nothing before they end."""
        return nullcontext()

    def forget(self) -> None:
        """Let go of the movie that was kept on the device for the next block."""
        self._movie = None

    def _room(self, launch: Launch) -> Room:
        """What a launch of teams may use: all blocks the device holds, half of the memory that is left."""
        resident = self.device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes)
        return Room(resident, self.device.free_bytes() // 2)

    def _drawn(self, movie: MovieFrames, size: BlockSize, replicates: np.ndarray) -> Drawn:
        """The samples of all frames, slab by slab; a movie in one slab stays for the next block."""
        drawn = prepare_draw(size.job(replicates, movie.numbers), self.device)
        for part in size.slabs:
            run_draw(drawn, self._slab(movie, part), part.start, self.device)
        return drawn

    def _slab(self, movie: MovieFrames, part: slice) -> Array:
        whole = part.stop - part.start == len(movie.numbers)
        if whole and self._movie is not None and self._movie[0] is movie:
            return self._movie[1]
        frames = np.stack([movie.frame(t) for t in range(part.start, part.stop)])
        slab = self.device.asarray(np.ascontiguousarray(frames, dtype=movie.dtype))
        self._movie = (movie, slab) if whole else None
        return slab

    def _resident(self, size: BlockSize, config: AnalysisConfig) -> int | None:
        """Blocks of the fit kernel that the device holds, where that matters to the launch."""
        launch = plan_fits(size, config).launch
        if not launch.cooperative:
            return None
        return self.device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes)

    def _counted(self, size: BlockSize, fits: FitArrays, labels: Labels, without: Array | None, sums: Array) -> Counted:
        """Wait for the kernels and copy what the curves need."""
        host, shape = self.device.to_host, (size.n_replicates, size.n_frames)
        totals, n_samples = host(sums), host(fits.n_samples).reshape(shape).astype(np.int64)
        visited = totals[..., 0].astype(np.float64)
        share, variance = share_and_variance(totals, size.sampler)
        raw = host(labels.n_foreground) / np.where(visited > 0, visited, np.nan)
        alone = np.zeros(shape, np.int64) if without is None else host(without).astype(np.int64)
        return Counted(
            host(fits.status).reshape(shape),
            n_samples,
            raw,
            share,
            variance,
            posterior_means(host(labels.posterior), n_samples),
            alone,
        )

    def _fits(self, size: BlockSize, fits: FitArrays, config: AnalysisConfig) -> MixtureFit:
        found, lead = fits.to_host(config.mixture.terms, self.device), (size.n_replicates, size.n_frames)
        arrays = {name: array.reshape(*lead, *array.shape[1:]) for name, array in found.arrays().items()}
        return MixtureFit.from_arrays(arrays, found.terms)


__all__ = ["Counted", "FusedEngine", "Kept", "MovieFrames"]
