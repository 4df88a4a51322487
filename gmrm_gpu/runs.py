"""How replicates of a movie are run: frame by frame, all frames at once, or the movie as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from .backend import Array
from .classify import explain_foreground, foreground_components
from .correct import Corrected
from .engines import Counted, FusedEngine, GenericEngine, Kept
from .engines.generic import LabelledMovie
from .recorder import Observer
from .results import FitStatus
from .sampling import Draw, Sampler
from .tally import Curves, Expected, Tally, curves_of_counts
from .visited import drawn_values

if TYPE_CHECKING:
    from .runner import Runner


def run_replicates(
    runner: Runner, rate: float, replicates: np.ndarray, observer: Observer | None, ticks: Ticks
) -> Curves:
    """Analyse `replicates` (R,) at `rate` with the runner's method on its engine."""
    engine, method = runner.engine, runner.config.method
    if method == "paper" and isinstance(engine, FusedEngine):
        return _all_frames(runner, engine, rate, replicates, observer, ticks)
    tally = Tally(runner.tally_settings(rate), len(replicates), observer or Observer())
    if method == "movie":
        _whole_movie(runner, rate, replicates, tally, ticks)
    else:
        assert isinstance(engine, GenericEngine)
        _frame_by_frame(runner, engine, rate, replicates, tally, ticks)
    return tally.finish()


def _numbers(runner: Runner) -> list[int]:
    return [int(number) for number in runner.movie.frame_numbers]


def _frame_by_frame(
    runner: Runner, engine: GenericEngine, rate: float, replicates: np.ndarray, tally: Tally, ticks: Ticks
) -> None:
    """The method ``paper``: every frame is fitted by itself."""
    config, sampler, numbers = runner.config, tally.settings.sampler, _numbers(runner)
    for t, number in enumerate(numbers):
        draw = sampler.draw(replicates, number, backend=runner.backend)
        fit, labels, posterior = engine.fit_and_label(
            drawn_values(runner.movie, t, draw, backend=runner.backend),
            draw,
            runner.movie.shape,
            config.mixture,
            config.phases,
            streams=runner.streams(rate, replicates, number),
            sigma_floor=runner.survey.sigma_floor,
        )
        tally.observer.fitted(t, fit, foreground_components(fit, config.phases), draw.positions, labels)
        tally.push(t, draw, labels, fit.status, posterior_mean=posterior)
        ticks.reach((t + 1) / len(numbers))


def _all_frames(
    runner: Runner, engine: FusedEngine, rate: float, replicates: np.ndarray, observer: Observer | None, ticks: Ticks
) -> Curves:
    """The method ``paper`` in a few launches; the observer sees the frames when they are done."""
    sampler = runner.sampler(rate)
    found, kept = engine.run(
        runner.frames,
        sampler,
        replicates,
        runner.config,
        sigma_floor=runner.survey.sigma_floor,
        budget=runner.budget,
        keep=observer is not None,
        notify=ticks.reach,
    )
    if observer is not None and kept is not None:
        _show(runner, observer, sampler, replicates, found, kept)
    return curves_of_counts(found, runner.config.estimator, runner.scale.n_pixels)


def _show(
    runner: Runner, observer: Observer, sampler: Sampler, replicates: np.ndarray, found: Counted, kept: Kept
) -> None:
    """Let the observer see every frame, raw and corrected."""
    for t, number in enumerate(_numbers(runner)):
        places, fit = sampler.draw(replicates, number, backend=runner.backend).positions, kept.fits[:, t]
        observer.fitted(t, fit, foreground_components(fit, runner.config.phases), places, kept.raw[:, t, :])
        observer.corrected(Corrected(t, places, kept.labels[:, t, :], found.without_neighbours[:, t]))


def _whole_movie(runner: Runner, rate: float, replicates: np.ndarray, tally: Tally, ticks: Ticks) -> None:
    """The method ``movie``: all frames together, then their labels frame by frame."""
    sampler, engine = tally.settings.sampler, runner.engine
    draws: Iterable[Draw] = (sampler.draw(replicates, n, backend=runner.backend) for n in _numbers(runner))
    if isinstance(engine, FusedEngine):
        found = engine.run_movie(
            runner.frames,
            sampler,
            replicates,
            runner.config,
            sigma_floor=runner.survey.sigma_floor,
            budget=runner.budget,
            pixel_weights=runner.host_weights,
            notify=ticks.reach,
        )
    else:
        draws = list(draws)
        found = _fit_by_arrays(runner, engine, rate, replicates, draws, ticks)
    # The first run's: of an analysis the only one, of a study that of all pixels.
    runner.decision = runner.decision or explain_foreground(found.fit, runner.config.phases)
    for t, draw in enumerate(draws):
        labels, fit = found.labels[:, t, :], found.fit.frames[:, t]
        tally.observer.fitted(t, fit, found.foreground, draw.positions, labels)
        weighted = None if found.expected_weighted is None else found.expected_weighted[:, t]
        status = np.where(draw.n_samples > 0, fit.status, np.uint8(FitStatus.TOO_FEW))
        expected = Expected(found.expected[:, t, :], found.expected_mean[:, t], weighted)
        tally.push(t, draw, labels, status, posterior=found.posterior[:, t, :], expected=expected)


def _fit_by_arrays(
    runner: Runner, engine: GenericEngine, rate: float, replicates: np.ndarray, draws: list[Draw], ticks: Ticks
) -> LabelledMovie:
    values, positions, valid = _all_samples(runner, draws)
    return engine.fit_and_label_movie(
        values,
        positions,
        valid,
        runner.movie.shape,
        runner.config.mixture,
        runner.config.phases,
        allowed=runner.movie.valid,
        streams=runner.streams(rate, replicates, 0),
        sigma_floor=runner.survey.sigma_floor,
        pixel_weights=runner.volume_weights,
        notify=ticks.reach,
    )


def _all_samples(runner: Runner, draws: list[Draw]) -> tuple[Array, Array, Array | None]:
    """Values, positions and validity (R, T, m) of the draws of all frames."""
    backend, xp = runner.backend, runner.backend.xp
    values = [drawn_values(runner.movie, t, draw, backend=backend) for t, draw in enumerate(draws)]
    valid = None if draws[0].valid is None else xp.stack([draw.valid for draw in draws], axis=1)
    return xp.stack(values, axis=1), xp.stack([draw.positions for draw in draws], axis=1), valid


class Ticks:
    """Turns a fraction done into so many calls."""

    def __init__(self, tick: Callable[[], None], total: int) -> None:
        self._tick, self._total, self._done = tick, total, 0

    def reach(self, fraction: float) -> None:
        """Call until `fraction` (0 to 1) of all calls are made."""
        while self._done < min(int(fraction * self._total), self._total):
            self._done += 1
            self._tick()
