"""Where a fit goes after each pass, and what is written at its end; the twin of `kernels/cycle.cuh` and `fit.cu`.

SQUAREM cycles or plain steps (METHOD.md 2, 3). A cycle evaluates the objective at its first iterate (phase 0), its
second (phase 1) and the extrapolated point (phase 2), which is kept unless the objective fell; as `mixture.driver`. So
are points that a histogram settled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...results import FitStatus
from .jit import exactly
from .step import extrapolate, m_step, make_step_work
from .sums import NO_COMPONENT, Model, make_densities, n_sums, rounding_of

QUIET_CYCLES = 2
"""Cycles in a row that must gain too little before a fit has converged; see mixture.driver."""
START_STEP = 4.0
"""Longest extrapolation in the short runs of the starts."""
# NumPy's numbers: for each of Python's that is an argument, Numba would compile the function anew.
RUNNING, JOINTLY = np.int64(-1), np.bool_(True)
_ENDS = (FitStatus.CONVERGED, FitStatus.MAX_ITER, FitStatus.DROPPED, FitStatus.DEGENERATE)
CONVERGED, MAX_ITER, DROPPED, DEGENERATE = (np.int64(s) for s in _ENDS)

_SCALE = ("n", "centre", "scale", "floor", "pull")
_VALUES = ("first_value", "last_value", "best_value")
_REALS, _COUNTS = (*_SCALE, *_VALUES, "limit", "length"), ("phase", "quiet", "n_iter", "status", "settled", "refused")
STATE = np.dtype([(name, np.float64) for name in _REALS] + [(name, np.int64) for name in _COUNTS])
"""Numbers of a fit. centre and scale of its values, grey levels; floor of the sigmas and precision `pull` of the
trend's prior, standardised; of the cycle, objectives, and the longest and the last step; whether theta was settled on
a histogram, and how often such a point was taken back."""


class Settings(NamedTuple):
    """Of the fits; see `config.MixtureConfig`. sigma_floor, trend_prior (0: none) in grey levels, tol a sample."""

    height: Any
    width: Any
    sigma_floor: Any
    trend_prior: Any
    tol: Any
    max_iter: Any
    n_start_iter: Any
    joint: Any


class Fit(NamedTuple):
    """What one fit keeps.

    Attributes
    ----------
    state : (1,) of `STATE`. theta : (3 K + q,) float64, where the objective is wanted next; follow, first, fallback,
        last, best : such points too. densities : of theta, float32. sums : (N_SUMS,) at theta.
    step : scratch.
    """

    state: Any
    theta: Any
    follow: Any
    first: Any
    fallback: Any
    last: Any
    best: Any
    densities: Any
    sums: Any
    step: Any


def make_fit(model: Model) -> Fit:
    """Room for a fit of `model`."""
    size = 3 * model.k + model.q
    theta, follow, first, fallback, last, best = np.zeros((6, size))
    points = (theta, follow, first, fallback, last, best)
    densities, sums = np.zeros(size, np.float32), np.zeros(n_sums(model))
    return Fit(np.zeros(1, STATE), *points, densities, sums, make_step_work(model))


@exactly
def copy_point(source, out):
    """out = source."""
    for i in range(out.size):
        out[i] = source[i]


@exactly
def log_prior(theta, pull, model):
    """Of the trend's coefficients, without its constant."""
    total = 0.0
    for j in range(3 * model.k, theta.size):
        total += theta[j] * theta[j]
    return -0.5 * pull * total


@exactly
def objective(fit, model):
    """Log-likelihood and log prior at fit.theta, whose sums are there."""
    return fit.sums[-1] + rounding_of(fit.theta, fit.sums, model) + log_prior(fit.theta, fit.state[0].pull, model)


@exactly
def short_step(number, fit, model):
    """After pass `number` of a short run over the starts' subset: keeps the best point seen, makes the next one."""
    state, value = fit.state[0], objective(fit, model)
    value = value if np.isfinite(value) else -1e300
    if value > state.best_value:
        state.best_value = value
        copy_point(fit.theta, fit.best)
    m_step(fit.sums, fit.theta, JOINTLY, state.floor, state.pull, model, fit.step, fit.follow)
    if number % 2:
        copy_point(fit.theta, fit.last)
        extrapolate(fit.first, fit.last, fit.follow, START_STEP, state.floor, model, fit.theta)
    else:
        copy_point(fit.theta, fit.first)
        copy_point(fit.follow, fit.theta)
    make_densities(fit.theta, model, fit.densities)


@exactly
def begin_cycles(fit, model):
    """Before the first pass, at fit.theta."""
    state = fit.state[0]
    state.first_value = state.last_value = -1e300
    state.phase = state.quiet = state.n_iter = state.settled = state.refused = 0
    state.limit, state.length, state.status = 4.0, 0.0, RUNNING
    make_densities(fit.theta, model, fit.densities)


@exactly
def end_fit(fit, value, status):
    """At fit.theta."""
    copy_point(fit.theta, fit.last)
    fit.state[0].last_value, fit.state[0].status = value, status


@exactly
def _drops(theta, follow, model):
    """Whether a component is lost by the step, and with it some of the objective: the cycles begin anew."""
    lost = False
    for k in range(model.k):
        lost = lost or (follow[k] < 0.5 * NO_COMPONENT and theta[k] >= 0.5 * NO_COMPONENT)
    return lost


@exactly
def advance(fit, settings, model):
    """After a pass: ends the fit or sets the next point to look at."""
    state, value = fit.state[0], objective(fit, model)
    state.n_iter += 1
    # A wild extrapolation, or settled point, is taken back; anywhere else there is nothing to go back to.
    if not np.isfinite(value) and state.phase != 2 and not state.settled:
        end_fit(fit, value, DEGENERATE)
        return
    m_step(fit.sums, fit.theta, settings.joint, state.floor, state.pull, model, fit.step, fit.follow)
    drops = _drops(fit.theta, fit.follow, model)
    if settings.joint:
        advance_cycle(fit, value, settings.tol * state.n, model)
        drops = drops and state.phase != 0  # a point taken back drops nothing
    elif value - state.first_value <= settings.tol * state.n:
        end_fit(fit, value, CONVERGED)
    else:
        copy_point(fit.theta, fit.last)
        copy_point(fit.follow, fit.theta)
        state.last_value = state.first_value = value
    if drops:
        state.first_value, state.quiet = -1e300, 0
    if state.status == RUNNING and state.n_iter >= settings.max_iter:
        state.status = MAX_ITER
    make_densities(fit.theta, model, fit.densities)


@exactly
def advance_cycle(fit, value, gain, model):
    """Where a fit goes from theta, whose objective is `value` and whose M-step gives follow."""
    state = fit.state[0]
    jumped = state.phase == 2
    if (jumped or state.settled) and not value >= state.last_value:
        if jumped:
            state.limit = min(max(0.5 * state.limit, 1.0), 1e6)
        copy_point(fit.fallback, fit.theta)
        state.refused += state.settled
        state.phase = 0
        return
    if state.phase == 1:
        _keep(fit, value)
        state.length = extrapolate(fit.first, fit.last, fit.follow, state.limit, state.floor, model, fit.theta)
        state.phase = 2
        return
    state.quiet = state.quiet + 1 if value - state.first_value <= gain else 0
    if state.quiet >= QUIET_CYCLES:
        end_fit(fit, value, CONVERGED)
        return
    if jumped and state.length >= state.limit:
        state.limit *= 4.0
    _keep(fit, value)
    copy_point(fit.theta, fit.first)
    copy_point(fit.follow, fit.theta)
    # The highest, not the latest: rounding could make the latest rise and fall for ever.
    state.first_value = max(value, state.first_value)
    state.phase = 1


@exactly
def _keep(fit, value):
    """theta is the best point so far, follow what replaces a point that falls below it."""
    copy_point(fit.theta, fit.last)
    copy_point(fit.follow, fit.fallback)
    fit.state[0].last_value = value


@exactly
def _rank(k, theta, n):
    """Of component k among those alive, in ascending mean; of one dropped, after them."""
    means, rank, alive = theta[n : 2 * n], 0, theta[k] >= 0.5 * NO_COMPONENT
    for j in range(n):
        other = theta[j] >= 0.5 * NO_COMPONENT
        lower = means[j] < means[k] or (means[j] == means[k] and j < k)
        rank += (other and lower) if alive else (other or j < k)
    return rank


@exactly
def write_fit(f, fit, model, weights, means, sigmas, coef, log_likelihood, n_iter, n_samples, status):
    """Fit f in grey levels: components in ascending mean, dropped ones last; NaN where there is nothing."""
    state, n, theta = fit.state[0], model.k, fit.last
    fitted, n_alive = state.status <= DROPPED, 0
    for k in range(n):
        alive = fitted and theta[k] >= 0.5 * NO_COMPONENT
        at = _rank(k, theta, n) if fitted else k
        weights[f, at] = np.exp(theta[k]) if alive else 0.0
        means[f, at] = theta[n + k] * state.scale + state.centre if alive else np.nan
        sigmas[f, at] = np.exp(theta[2 * n + k]) * state.scale if alive else np.nan
        n_alive += alive
    for j in range(model.q):
        coef[f, j] = theta[3 * n + j] * state.scale if n_alive else np.nan
    value = state.last_value - log_prior(theta, state.pull, model) - state.n * np.log(state.scale)
    log_likelihood[f] = value if n_alive else np.nan
    n_iter[f], n_samples[f] = state.n_iter, int(state.n)
    if fitted and n_alive == 0:
        state.status = DEGENERATE
    elif state.status == CONVERGED and n_alive < n:
        state.status = DROPPED
    status[f] = state.status
