"""One frame after the other, each analysed from itself and those before: one call for a file and for a stream."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..backend import get_backend
from ..classify import NOT_VISITED, component_phases, movie_foreground
from ..config import AnalysisConfig
from ..correct import Corrector, time_offsets
from ..errors import InputError
from ..estimate import VARIANCE_FRAMES, sample_mean
from ..frames.movie import Acquisition, ArrayMovie, Visits
from ..mixture.causal import CausalModel, Proposal, Seen
from ..mixture.causal_steps import Carried
from ..mixture.fit import RegressionModel
from ..mixture.reservoir import BURST, Frame, Reservoir
from ..philox import STREAM_START, stream_words
from ..results import FitStatus, MixtureFit
from ..sampling import Sampler, effective_pixels
from .alarms import ControlCharts, watched
from .intake import Arrived, Intake, live_config, sigma_floor_of
from .refit import Refit, Rows, next_fit
from .state import read_state, write_state
from .update import Alarm, LiveFrame

LEAST_PLACED, LEAST_SCORE = 0.25, 5.0
"""Correlation of a component's samples with their neighbours, and its standard deviations, that make it foreground by
the rule ``auto``: what grows has a place, two components that share the noise of one phase are strewn over it."""
MISFIT, LEAST_BETWEEN, MOST_FITS = 0.012, 4, 12
"""Fall of a sample's log-likelihood (natural) since the latest fit that calls for the next one; frames between two, at
least, and at least this part of all frames."""
STRANGE, MOST_STRANGE = 3.0, 5
"""A frame whose samples are less likely by so much (natural log of each) shows something else, a closed shutter say: it
has no share and nothing is learned from it, until so many came one after the other."""
_LEAST = 0.5
"""Samples, wrongly expected, that a frame's variance stands for at least, as in `estimate`."""


@dataclass(frozen=True)
class _Answer:
    """What a frame says; see `LiveFrame`. labels : (m,). shares : by estimator, with standard deviation."""

    fit: MixtureFit
    foreground: np.ndarray
    labels: np.ndarray
    share_raw: float
    n_without_neighbours: int
    shares: dict[str, tuple[float, float]]
    alarms: tuple[Alarm, ...]


class LiveAnalysis:
    """The causal movie-level fit, the vote among past frames, and shares with intervals, frame by frame.

    Memory does not grow with the number of frames.

    Parameters
    ----------
    shape, dtype : of every frame. config : as for `analyze`, with the method ``"movie"``; the estimator ``"smoothed"``
        needs the future, in its place the share is ``"assisted"``. acquisition : what is known of the recording.
    valid : (height, width) bool, False where a pixel is excluded; None: every pixel may be used.

    Raises
    ------
    ConfigError
        The method ``"paper"``, or a vote among frames to come.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype,
        config: AnalysisConfig | None = None,
        *,
        acquisition: Acquisition | None = None,
        valid: np.ndarray | None = None,
    ) -> None:
        self.config = live_config(config or AnalysisConfig())
        self.acquisition = acquisition or Acquisition()
        probe = ArrayMovie(np.broadcast_to(np.zeros((), dtype), shape), name="the stream", valid=valid)
        self.shape, self.dtype, self.valid = probe.shape, probe.dtype, probe.valid
        compute = self.config.compute
        # One small frame at a time is what a CPU is best at.
        self.backend = get_backend("cpu" if compute.device == "auto" else compute.device, compute.dtype)
        self.sampler = Sampler(self.shape, self.config.sampling, self.valid)
        self.n_pixels = self.sampler.n_pixels
        self.intake = Intake(self.shape, self.dtype, self.sampler, self.valid, self.backend)
        self.index = 0
        self.first_time_s: float | None = None
        self.past = Reservoir()
        self.next_fit = 1
        self.refit: Refit | None = None
        self.charts = ControlCharts()
        self.n_strange, self.repeats = 0, False
        self.fit_level: float | None = None
        self.last_fit = 0
        self.model: CausalModel | None = None
        self.common = self._no_fit(0, FitStatus.TOO_FEW)
        self.candidates = self.foreground = np.zeros(self.config.mixture.n_components, dtype=bool)
        self.phase_of = self.foreground.astype(np.uint8)
        self.variances: dict[str, deque[float]] = {
            name: deque(maxlen=VARIANCE_FRAMES) for name in ("count", "posterior", "assisted")
        }
        phases, correction = self.config.phases, self.config.correction
        # What the vote of frames to come needs of the past, to take it up again after a stop.
        reach = -min(time_offsets(correction), default=0) if correction.radius_px else 0
        self.voters: deque[Frame] = deque(maxlen=reach)
        self.corrector = Corrector(self.shape, correction, len(phases.names), phases.foreground_index, self.backend)

    @property
    def estimator(self) -> str:
        """Which of a frame's shares is its `share`."""
        chosen = self.config.estimator
        return "assisted" if chosen == "smoothed" else chosen

    def process(
        self, frame: np.ndarray | Visits, time_s: float | None = None, *, number: int | None = None
    ) -> LiveFrame:
        """Analyse the next frame.

        Parameters
        ----------
        frame : (height, width) grey levels, sub-sampled at the configured rate; or the visits of a sub-sampled frame,
            of which all are used. time_s : when it was recorded, seconds. number : of the frame in its source, which
            decides which pixels are drawn; None: counted from 0.

        Returns
        -------
        LiveFrame. A frame that the model cannot describe has a NaN share and a status.

        Raises
        ------
        InputError
            The frame has another size or type, NaN, or visits outside; nothing is changed by it.
        """
        started = time.perf_counter()
        number = self.index if number is None else int(number)
        if not 0 <= number < 2**32:
            raise InputError(f"frame number {number} is out of range; number frames from 0")
        arrived = self.intake.take(frame, number)
        time_s = self._time_since_first(time_s, number)
        answer = self._answer(arrived, number, time_s)
        self.index += 1
        return self._told(answer, arrived, number, time_s, started)

    def save(self, path: str | Path) -> None:
        """Write everything that the next frames depend on; what goes on from it gives the same bits.

        Raises
        ------
        OutputError
            The file cannot be written. A file that was there before stays as it was.
        """
        write_state(self, path)

    @staticmethod
    def load(path: str | Path) -> LiveAnalysis:
        """Go on from what `save` wrote.

        Raises
        ------
        InputError
            There is no such file, it is damaged, or something else.
        """
        return read_state(path, LiveAnalysis)

    def _time_since_first(self, time_s: float | None, number: int) -> float | None:
        if time_s is None:
            step = self.config.quantity.frame_time_s or self.acquisition.frame_time_s
            time_s = None if step is None else number * step
        if time_s is None:
            return None
        if self.first_time_s is None:
            self.first_time_s = float(time_s)
        return float(time_s) - self.first_time_s

    # -- the fit ------------------------------------------------------------------------------------------------------

    def _fit_anew(self, number: int, before: Carried | None) -> bool:
        """Start a fit to the sample of the past where it is time to, adopt one that is due; whether one was adopted.

        before : the state that has not seen the present frame.
        """
        n_seen = self.past.n_seen
        if self.model is None:
            values, _ = self.past.latest[0]
            self.model = self.new_model(min(1.0, values.size / self.n_pixels), sigma_floor_of(values))
        if self.refit is None and n_seen >= self.next_fit:
            self.refit = self.new_refit(self.past.rows(), number, n_seen)
        if self.refit is None or n_seen < self.refit.due:
            return False
        proposal, started, self.refit = self.refit.result(), self.refit.n_seen, None
        self.next_fit = n_seen + 1
        if proposal.carried is None:
            return False
        self.next_fit = max(self.next_fit, next_fit(started))
        self.fit_level, self.last_fit = None, n_seen
        if self.model.carried is not None:
            self.model.carried = before  # the frame is judged again; it must not have voted for itself
        others = self.model.adopt(proposal, self.past.latest[:-1])
        self.common = proposal.fit.common
        self.candidates = movie_foreground(proposal.fit, self.config.phases)[0]
        self.foreground = np.zeros_like(self.candidates) if others else self.foreground & self.candidates
        return True

    def _look_for_misfit(self) -> None:
        """Fit anew where samples have become less likely since the latest fit: something may be there that it lacks."""
        assert self.model is not None
        level, n_since = self.model.likelihood_level, self.past.n_seen - self.last_fit
        if self.fit_level is None and n_since >= LEAST_BETWEEN:
            self.fit_level = level
        if self.fit_level is None or n_since < self.past.n_seen // MOST_FITS:
            return
        if self.fit_level - level > MISFIT:
            self.next_fit = min(self.next_fit, self.past.n_seen + 1)

    def new_model(self, rate: float, sigma_floor: float) -> CausalModel:
        """The causal fit of this stream; see there."""
        return CausalModel(
            self.shape,
            self.config.mixture,
            rate=rate,
            allowed=self.valid,
            sigma_floor=sigma_floor,
            backend=self.backend,
        )

    def new_refit(self, rows: Rows, number: int, n_seen: int) -> Refit:
        """Begin a fit to the sample of the past; see there."""
        return Refit(self._fit, rows, number, n_seen, self.backend)

    def _fit(self, rows: Rows, number: int) -> Proposal:
        assert self.model is not None
        sampling, k = self.config.sampling, self.config.mixture.n_components
        streams = stream_words(sampling.seed, sampling.rate, np.array([0]), number, STREAM_START, k)
        return self.model.fit(rows, streams)

    def _decide(self) -> None:
        """Which components are foreground. Once it is, a component stays so until the model is fitted anew."""
        assert self.model is not None
        phases = self.config.phases
        correlation, score = self.model.placed()
        placed = (correlation > LEAST_PLACED) & (score > LEAST_SCORE) if phases.phases == "auto" else True
        self.foreground = self.foreground | (self.candidates & placed)
        self.phase_of = component_phases(self.common, phases, self.foreground[None])[0]

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _answer(self, arrived: Arrived, number: int, time_s: float | None) -> _Answer | None:
        """What the frame says; None where it says nothing, and then nothing is learned from it."""
        if arrived.values.size == 0:
            return None
        before = replace(self.model.carried) if self.model is not None and self.model.carried is not None else None
        seen = self._judged_by_the_past(arrived, before)
        if self.n_strange:
            return None
        self.past.add(arrived.values, arrived.positions)
        if self._fit_anew(number, before):
            seen = self._step(arrived)
        if seen is None or self.model is None:
            return None
        self._decide()
        self._look_for_misfit()
        fit, order = self.model.frame_fit(seen, arrived.values.size)
        best = self.phase_of[self.backend.to_host(seen.best)]
        self.repeats |= arrived.n_distinct < arrived.values.size
        labels, lonely = self.vote(best, arrived.positions)
        raw = float(np.mean(best == self.config.phases.foreground_index))
        shares, alarms = self._shares(seen, labels, arrived), self._alarms(seen, number, time_s)
        return _Answer(fit, self.foreground[order], labels, raw, lonely, shares, alarms)

    def _judged_by_the_past(self, arrived: Arrived, before: Carried | None) -> Seen | None:
        """Judge the frame by the model so far, if there is one; count it where it shows something else.

        After many of those the model starts afresh: they are what there is to see now.
        """
        if self.model is None or before is None:
            return None
        seen = self._step(arrived)
        if seen is not None and not seen.shift[1, -1] < -STRANGE:
            self.n_strange = 0
            return seen
        self.model.carried = before
        self.n_strange += 1
        if self.n_strange > MOST_STRANGE:
            self.n_strange, self.next_fit, self.refit = 0, 1, None
            self.past, self.charts, self.model.carried = Reservoir(), ControlCharts(), None
        return None

    def _step(self, arrived: Arrived) -> Seen | None:
        """Judge the frame; None where its numbers break down."""
        if self.model is None or self.model.carried is None:
            return None
        if arrived.values.size > 1 and (arrived.values == arrived.values[0]).all():
            return None  # a blank frame: no noise, no phases
        try:
            seen = self.model.step(arrived.values, arrived.positions)
        except np.linalg.LinAlgError:
            return None
        return seen if self.model.is_finite() else None

    def _told(
        self, answer: _Answer | None, arrived: Arrived, number: int, time_s: float | None, started: float
    ) -> LiveFrame:
        n = arrived.values.size
        if answer is None:
            hidden, nothing = np.full(n, NOT_VISITED, dtype=np.uint8), np.zeros_like(self.foreground)
            status = FitStatus.DEGENERATE if n else FitStatus.TOO_FEW
            answer = _Answer(self._no_fit(n, status), nothing, hidden, math.nan, 0, {}, ())
        image = np.zeros(self.shape[0] * self.shape[1], dtype=np.uint8)
        image[arrived.positions] = np.where(answer.labels == NOT_VISITED, 0, answer.labels + 1)
        shares = {name: answer.shares.get(name, (math.nan, math.nan)) for name in self.variances}
        return LiveFrame(
            index=self.index - 1,
            number=number,
            time_s=time_s,
            n_samples=n,
            visited_share=arrived.n_distinct / self.n_pixels,
            share=shares[self.estimator][0],
            share_sd=shares[self.estimator][1],
            **{name: value for name, (value, _) in shares.items()},
            **{f"{name}_sd": sd for name, (_, sd) in shares.items()},
            share_raw=answer.share_raw,
            n_without_neighbours=answer.n_without_neighbours,
            fit=answer.fit,
            foreground=answer.foreground,
            status=FitStatus(int(answer.fit.status)),
            labels=image.reshape(self.shape),
            picture=arrived.picture,
            alarms=answer.alarms,
            latency_s=time.perf_counter() - started,
        )

    def _no_fit(self, n_samples: int, status: FitStatus) -> MixtureFit:
        """A fit without parameters."""
        model = RegressionModel(self.config.mixture, self.backend)
        return model.empty(np.array([n_samples]), np.array([status], dtype=np.uint8))[0]

    def _alarms(self, seen: Seen, number: int, time_s: float | None) -> tuple[Alarm, ...]:
        """What jumped. The model may no longer hold after a jump, so it is fitted anew soon."""
        sigma = float(np.nanmin(self.common.sigmas))
        charts = watched(self.config.mixture.terms, self.config.mixture.n_components, sigma)
        alarms = self.charts.watch(seen.shift, charts, number, time_s)
        if alarms:
            self.next_fit = min(self.next_fit, self.past.n_seen + BURST)
        return alarms

    def vote(self, best: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, int]:
        """Labels (m,) after the vote, and how many samples had no neighbours."""
        backend = self.backend
        self.corrector.repeats = self.repeats
        self.voters.append((best, positions))
        done = self.corrector.push(backend.asarray(positions[None]), backend.asarray(best[None]))[0]
        return backend.to_host(done.labels)[0], int(done.without_neighbours[0])

    def _shares(self, seen: Seen, labels: np.ndarray, arrived: Arrived) -> dict[str, tuple[float, float]]:
        """By estimator, share and its standard deviation (METHOD.md 8)."""
        backend, xp = self.backend, self.backend.xp
        chosen = backend.real(self.foreground)
        posterior = xp.sum(seen.resp * chosen[:, None], axis=0)
        predicted = xp.sum(seen.predicted * chosen[:, None], axis=0)
        mean = float(seen.predicted_mean[self.foreground].sum())
        is_foreground = backend.real(labels == self.config.phases.foreground_index)
        found = {
            "count": self._mean("count", is_foreground, arrived),
            "posterior": self._mean("posterior", posterior, arrived),
            "assisted": self._mean("assisted", is_foreground - predicted, arrived, mean),
        }
        return {name: (min(max(share, 0.0), 1.0), sd) for name, (share, sd) in found.items()}

    def _mean(self, name: str, values: np.ndarray, arrived: Arrived, known: float = 0.0) -> tuple[float, float]:
        """Mean over the samples plus what is known, and its standard deviation, steadied by the frames before."""
        n = arrived.values.size
        mean, variance = sample_mean(
            values[None, :],
            None,
            np.array([n]),
            self.n_pixels,
            self.config.sampling.scheme,
            self.sampler.cluster_length,
            groups=None if arrived.clusters is None else self.backend.asarray(arrived.clusters[None, :]),
            n_effective=np.array([effective_pixels(arrived.positions)]),
            backend=self.backend,
        )
        self.variances[name].append(float(variance[0]))
        unseen = max(0.0, 1.0 - arrived.n_distinct / self.n_pixels)
        # Offline the frames on both sides are averaged; of the past alone the latest say most where the share grows.
        held = np.array(self.variances[name])
        steady = max(float(np.average(held, weights=1.0 + np.arange(held.size))), unseen * _LEAST / n**2)
        return known + float(mean[0]), math.sqrt(steady)


__all__ = ["LiveAnalysis"]
