"""One stage of a block at a time, by the kernels and by the array-API implementation on any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmrm_gpu.backend import Backend
from gmrm_gpu.classify import label_samples
from gmrm_gpu.config import AnalysisConfig
from gmrm_gpu.engines import GenericEngine
from gmrm_gpu.engines.fused.correct import run_correct
from gmrm_gpu.engines.fused.draw import DrawJob, Drawn, prepare_draw, run_draw
from gmrm_gpu.engines.fused.fit import FitArrays, FitKeys, run_fit
from gmrm_gpu.engines.fused.label import Labels, run_label
from gmrm_gpu.engines.fused.plan import BlockSize, maps_of, plan_fits
from gmrm_gpu.engines.fused.tally import run_tally
from gmrm_gpu.estimate import sample_mean
from gmrm_gpu.frames import Movie
from gmrm_gpu.mixture.design import Samples, TrendBasis, make_samples
from gmrm_gpu.mixture.fit import fit_samples
from gmrm_gpu.philox import STREAM_START, stream_words
from gmrm_gpu.results import MixtureFit
from gmrm_gpu.sampling import Draw, Sampler

from .rig import Rig

STAGES = ("draw", "fit", "label", "correct", "tally")
SIGMA_FLOOR = 12**-0.5
Work = Callable[..., Any]
Setup = Callable[[], tuple[tuple, dict[str, Any]]] | None


@dataclass(frozen=True)
class Job:
    """R replicates of a movie at one rate; `analysis` resolved."""

    movie: Movie
    analysis: AnalysisConfig
    sampler: Sampler
    replicates: np.ndarray

    @staticmethod
    def make(movie: Movie, analysis: AnalysisConfig, rate: float, n: int) -> Job:
        """The first n replicates at `rate`."""
        analysis = analysis.with_rate(rate).resolved
        return Job(movie, analysis, Sampler(movie.shape, analysis.sampling, movie.valid), np.arange(n, dtype=np.uint32))

    @property
    def n_samples(self) -> int:
        """In all."""
        return len(self.replicates) * len(self.movie) * self.sampler.capacity


class KernelStages:
    """Each stage of a block by its kernel, on what the one before it left; a call ends when the device is done."""

    def __init__(self, rig: Rig, job: Job) -> None:
        self.rig, self.job, device = rig, job, rig.device
        self.numbers = job.movie.frame_numbers.astype(np.uint32)
        frames = np.stack([job.movie.frame(t) for t in range(len(job.movie))])
        self.frames = device.asarray(frames)
        self.size = BlockSize(len(job.replicates), len(frames), job.sampler, frames.dtype, len(frames))
        self.drawn: Drawn = prepare_draw(DrawJob(job.sampler, job.replicates, self.numbers, frames.dtype), device)
        self.fits = FitArrays.empty(self.size.n_fits, job.analysis.mixture, device)
        launch = plan_fits(self.size, job.analysis).launch
        resident = None
        if launch.cooperative:
            resident = device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes)
        self.plan = plan_fits(self.size, job.analysis, resident)
        self.draw()
        self.fit()
        (self.labels,), _ = self._labelled()

    def stage(self, name: str) -> tuple[Work, Setup]:
        """What to time, and what makes its arguments anew each time."""
        setups: dict[str, Setup] = {"label": self._unlabelled, "correct": self._labelled}
        return getattr(self, name), setups.get(name)

    def draw(self) -> None:
        """Positions and values of all samples."""
        run_draw(self.drawn, self.frames, 0, self.rig.device)
        self.rig.clock.wait()

    def fit(self) -> None:
        """All fits."""
        sampling = self.job.analysis.sampling
        run_fit(
            self.plan,
            self.drawn.samples,
            self.job.movie.shape,
            self.job.analysis.mixture,
            keys=FitKeys(sampling.seed, sampling.rate, *self.drawn.inputs[-2:]),
            sigma_floor=SIGMA_FLOOR,
            out=self.fits,
            device=self.rig.device,
        )
        self.rig.clock.wait()

    def _unlabelled(self) -> tuple[tuple, dict[str, Any]]:
        maps = maps_of(self.job.movie.shape, self.job.analysis)
        out = Labels.empty(self.drawn.samples.shape, maps, self.rig.device)
        self.rig.clock.wait()
        return (out,), {}

    def label(self, out: Labels) -> None:
        """Labels, and the maps for the vote."""
        analysis, shape = self.job.analysis, self.job.movie.shape
        run_label(
            self.drawn.samples, self.fits, shape, analysis.mixture, analysis.phases, out=out, device=self.rig.device
        )
        self.rig.clock.wait()

    def _labelled(self) -> tuple[tuple, dict[str, Any]]:
        arguments = self._unlabelled()
        self.label(*arguments[0])
        return arguments

    def correct(self, labels: Labels) -> None:
        """The vote, in place."""
        analysis, shape = self.job.analysis, self.job.movie.shape
        run_correct(
            self.drawn.samples,
            labels.labels,
            labels.maps,
            shape,
            analysis.correction,
            analysis.phases,
            device=self.rig.device,
        )
        self.rig.clock.wait()

    def tally(self) -> np.ndarray:
        """The sums behind the shares, on the host."""
        sums = run_tally(
            self.labels.labels, self.job.sampler, self.job.analysis.phases.foreground_index, device=self.rig.device
        )
        return self.rig.device.to_host(sums)


class ArrayStages:
    """The same stages by array operations, frame by frame."""

    def __init__(self, backend: Backend, job: Job) -> None:
        self.backend, self.job = backend, job
        self.basis = TrendBasis(job.analysis.mixture.terms)
        self.draw()
        self.fit()
        self.label()

    def stage(self, name: str) -> tuple[Work, Setup]:
        """What to time; nothing has to be made anew."""
        return getattr(self, name), None

    def draw(self) -> None:
        """Positions, values and monomials of all samples."""
        self.drawn = list(self._draws())

    def _draws(self) -> Iterator[tuple[Draw, Samples]]:
        job, backend, xp = self.job, self.backend, self.backend.xp
        for t, number in enumerate(job.movie.frame_numbers):
            draw = job.sampler.draw(job.replicates, int(number), backend=backend)
            image = backend.asarray(np.ascontiguousarray(job.movie.frame(t)).reshape(-1))
            values = xp.reshape(xp.take(image, xp.reshape(draw.positions, (-1,))), draw.positions.shape)
            shape = job.movie.shape
            yield (
                draw,
                make_samples(values, draw.positions, shape, self.basis, valid=draw.valid, backend=backend),
            )

    def fit(self) -> None:
        """All fits."""
        job, sampling = self.job, self.job.analysis.sampling
        self.fits: list[MixtureFit] = []
        for number, (_, samples) in zip(job.movie.frame_numbers, self.drawn, strict=True):
            n_words = job.analysis.mixture.n_components
            words = stream_words(sampling.seed, sampling.rate, job.replicates, int(number), STREAM_START, n_words)
            self.fits.append(
                fit_samples(samples, job.analysis.mixture, streams=words, sigma_floor=SIGMA_FLOOR, backend=self.backend)
            )

    def label(self) -> None:
        """Labels."""
        m = self.job.sampler.capacity
        self.labels = [
            label_samples(samples, fit, self.job.analysis.phases, m, valid=draw.valid, backend=self.backend)[0]
            for (draw, samples), fit in zip(self.drawn, self.fits, strict=True)
        ]

    def correct(self) -> None:
        """The vote."""
        analysis = self.job.analysis
        engine = GenericEngine(self.backend, "benchmark")
        corrector = engine.corrector(self.job.movie.shape, analysis.correction, analysis.phases)
        for (draw, _), labels in zip(self.drawn, self.labels, strict=True):
            corrector.push(draw.positions, labels)
        corrector.flush()

    def tally(self) -> None:
        """Shares and their variances."""
        job, xp = self.job, self.backend.xp
        foreground, n_pixels = job.analysis.phases.foreground_index, job.sampler.n_pixels
        for (draw, _), labels in zip(self.drawn, self.labels, strict=True):
            is_foreground = xp.astype(labels == foreground, xp.float64)
            scheme = (job.analysis.sampling.scheme, job.sampler.cluster_length)
            sample_mean(is_foreground, draw.valid, draw.n_samples, n_pixels, *scheme, backend=self.backend)
