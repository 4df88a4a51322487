"""What a live analysis says of each frame, and of itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..results import FitStatus, MixtureFit


@dataclass(frozen=True)
class Alarm:
    """A change that the past does not explain.

    Attributes
    ----------
    number, time_s : of the frame. what : ``"trend"``, ``"contrast"``, ``"mean"`` or ``"fit"``, what jumped.
    text : one sentence for the microscopist, with the values. score : the jump in its own standard deviations.
    """

    number: int
    time_s: float | None
    what: str
    text: str
    score: float


@dataclass(frozen=True)
class LiveFrame:
    """One frame, analysed from itself and the frames before.

    Attributes
    ----------
    index : counted from 0 without gaps. number : of the frame in its source. time_s : since the first frame, or None.
    n_samples : visits used; visited_share : distinct visited pixels / pixels that are not excluded.
    share, share_sd : of the chosen estimator. count, posterior, assisted, each with _sd : as in `AnalysisResult`.
    share_raw : foreground among the visits before the vote. n_without_neighbours : visits the vote could not judge.
    fit : (,) parameters of this frame. foreground : (K,) bool. status : how the frame's fit ended.
    labels : (height, width) uint8 after the vote; 0 not visited, p + 1 phase p. picture : (height, width) float32, the
        grey levels as `Movie.picture` has them.
    alarms : raised by this frame. latency_s : seconds from the call to the answer.
    """

    index: int
    number: int
    time_s: float | None
    n_samples: int
    visited_share: float
    share: float
    share_sd: float
    count: float
    count_sd: float
    posterior: float
    posterior_sd: float
    assisted: float
    assisted_sd: float
    share_raw: float
    n_without_neighbours: int
    fit: MixtureFit
    foreground: np.ndarray
    status: FitStatus
    labels: np.ndarray
    picture: np.ndarray
    alarms: tuple[Alarm, ...]
    latency_s: float


@dataclass(frozen=True)
class LiveState:
    """How a live run is doing, beside its frames.

    Attributes
    ----------
    n_frames : analysed. n_dropped : frames that were lost or refused. waiting : frames read but not yet analysed.
    visited_share : mean over all frames; 1 minus it is the dose saved.
    latency_ms : median and 95th percentile of the last 200 frames. notices : the latest sentences about what went
        wrong or was noticed, newest last, at most 50. n_notices : all of them.
    ended : whether the source has ended.
    """

    n_frames: int
    n_dropped: int
    waiting: int
    visited_share: float
    latency_ms: tuple[float, float]
    notices: tuple[str, ...]
    n_notices: int
    ended: bool
