"""Fit mixtures to pixels that several detectors saw at once: full covariances, one trend a channel.

>>> import numpy as np
>>> from gmrm_gpu.config import MixtureConfig
>>> rng = np.random.default_rng(0)
>>> z = np.where(np.arange(400) < 150, 60.0, 120.0) + rng.normal(0, 8, (2, 400))
>>> fit_channels(z, np.arange(400), (20, 20), MixtureConfig(n_components=2, trend="none")).means.shape
(2, 2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import Array, Backend, get_backend
from ..config import MixtureConfig
from ..errors import ConfigError, InputError
from ..results import ChannelFit, FitStatus
from ..results.channels import channel_parameters
from .channel_steps import ChannelLayout, ChannelMoments, covariances, e_step, extrapolate, factor, m_step, moments
from .design import Samples, TrendBasis, make_samples, unblock
from .driver import Driver, best_start
from .moments import NO_COMPONENT, Layout
from .starts import start_thetas
from .steps import log_prior, trend_pull


def fit_channels(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    config: MixtureConfig,
    *,
    valid: Any = None,
    streams: np.ndarray | None = None,
    sigma_floor: float | tuple[float, ...] = 1e-6,
    backend: Backend | None = None,
    trace: list | None = None,
) -> ChannelFit:
    """Fit R mixtures of C channels recorded at the same pixels, by the ECM of `fit_mixture`.

    Parameters
    ----------
    values : (R, C, m) intensities, grey levels; (C, m) for a single fit. positions : (m,) or (R, m) flat pixel
        indices y * W + x. shape : (height, width) of the frame they refer to.
    config : K, trend (the same terms in every channel), schedule, tolerance and starts; each start is tried along
        every channel and every principal axis.
    valid : (R, m) or (m,) bool, False for padding. streams : (R, K) uint32 random words for the k-means++ start.
    sigma_floor : smallest standard deviation in any direction, grey levels, of all channels or of each; used where
        `config.sigma_floor` is None.
    backend : where; None: as ``--device auto``. trace : as in `fit_mixture`.

    Returns
    -------
    ChannelFit with leading axis R, or none for (C, m). A channel that is constant, or holds a NaN, makes its fit
    degenerate; the others go on.

    Raises
    ------
    InputError
        `values` has another number of axes.
    ConfigError
        `config` asks for a histogram of residuals, which several channels do not have.
    """
    if config.histogram:
        raise ConfigError("histogram is for one number a pixel; leave it out where there are channels")
    backend = backend or get_backend()
    values, valid, single = _batch(values, valid)
    samples = make_channel_samples(values, positions, shape, TrendBasis(config.terms), valid=valid, backend=backend)
    model = ChannelModel(config, samples.z.shape[2], backend)
    grey = sigma_floor if config.sigma_floor is None else config.sigma_floor
    floor = backend.asarray(np.asarray(grey, dtype=np.float64)) / samples.scale
    theta = best_start(model, samples, streams, floor)
    fit = Driver(model, samples, floor, trace).run(theta)
    return fit[0] if single else fit


def channel_posterior(
    values: Any,
    positions: Any,
    shape: tuple[int, int],
    fit: ChannelFit,
    *,
    valid: Any = None,
    backend: Backend | None = None,
) -> Array:
    """Responsibilities (R, K, m), or (K, m) for a single fit; NaN for fits without usable parameters."""
    backend = backend or get_backend()
    values, valid, single = _batch(values, valid)
    fit = fit[np.newaxis] if single else fit
    samples = make_channel_samples(values, positions, shape, TrendBasis(fit.terms), valid=valid, backend=backend)
    model = ChannelModel(MixtureConfig(fit.n_components, fit.terms), fit.n_channels, backend)
    _, _, resp = e_step(samples, model.theta_of(fit, samples), model.layout, backend=backend)
    resp = unblock(backend.xp.permute_dims(resp, (0, 2, 1, 3)), values.shape[-1], backend=backend)
    usable = backend.asarray(fit.status < FitStatus.DEGENERATE)[:, None, None]
    resp = backend.xp.where(usable, resp, backend.xp.full_like(resp, np.nan))
    return resp[0, ...] if single else resp


def _batch(values: Any, valid: Any) -> tuple[Any, Any, bool]:
    """`values` and `valid` with a leading axis, and whether it had to be added."""
    values = values if hasattr(values, "ndim") else np.asarray(values)
    if values.ndim not in (2, 3):
        raise InputError(f"values are {values.ndim}-dimensional; give (channels, pixels) or (fits, channels, pixels)")
    single = values.ndim == 2
    if single:
        return values[None, ...], None if valid is None else valid[None, ...], True
    return values, valid, False


def make_channel_samples(
    values: Array,
    positions: Array,
    shape: tuple[int, int],
    basis: TrendBasis,
    *,
    valid: Array | None = None,
    backend: Backend,
) -> Samples:
    """`make_samples` of each channel of values (R, C, m), together: z (R, blocks, C, n), centre and scale (R, C)."""
    xp = backend.xp
    values = backend.asarray(values)
    # The features are common to all channels: only the first makes them.
    bases = [basis, *[TrendBasis(())] * (values.shape[1] - 1)]
    each = [
        make_samples(values[:, c, :], positions, shape, own, valid=valid, backend=backend)
        for c, own in enumerate(bases)
    ]
    z, centre, scale = (
        xp.stack([getattr(s, name) for s in each], axis=axis) for name, axis in (("z", 2), ("centre", 1), ("scale", 1))
    )
    return replace(each[0], z=z, centre=centre, scale=scale)


@dataclass(frozen=True)
class ChannelModel:
    """The mixture of C channels as `Driver` wants it; see `driver.Model`."""

    config: MixtureConfig
    n_channels: int
    backend: Backend

    @property
    def layout(self) -> ChannelLayout:
        """Where the parameters stand."""
        return ChannelLayout(self.config.n_components, self.n_channels, self.config.n_terms)

    @property
    def n_parameters(self) -> int:
        """K (1 + C + C (C + 1) / 2) - 1 + C q."""
        return channel_parameters(self.config.n_components, self.n_channels, self.config.n_terms)

    @property
    def histogram(self) -> None:
        """Residuals of several channels have none."""
        return None

    def starts(self, samples: Samples, streams: np.ndarray | None) -> list[Array]:
        """Every start of the configuration along every axis of `_axes`."""
        found = []
        plain = replace(self.config, trend="none")
        layout = Layout(self.config.n_components, 0)
        for axis in _axes(samples, self.backend):
            line = replace(samples, z=_project(samples.z, axis, self.backend))
            for theta in start_thetas(line, plain, streams, backend=self.backend):
                log_weights, centres, log_sigmas, _ = layout.split(theta)
                found.append(self._spherical(log_weights, self._grouped(samples, line, centres), log_sigmas))
        return found

    def _grouped(self, samples: Samples, line: Samples, centres: Array) -> Array:
        """(R, K, C) means of the samples nearest to each centre (R, K) on a line; the origin where there are none."""
        xp = self.backend.xp
        nearest = xp.argmin(xp.abs(line.z[:, :, None, :] - self.backend.real(centres)[:, None, :, None]), axis=2)
        number = self.backend.arange(centres.shape[1], dtype=nearest.dtype)
        member = xp.astype(nearest[:, :, None, :] == number[None, None, :, None], self.backend.dtype)
        member = member * samples.valid[:, :, None, :]
        total = xp.sum(xp.astype(xp.matmul(member, xp.matrix_transpose(samples.z)), xp.float64), axis=1)
        count = xp.sum(xp.sum(xp.astype(member, xp.float64), axis=3), axis=1)
        return total / xp.maximum(count, xp.ones_like(count))[:, :, None]

    def _spherical(self, log_weights: Array, means: Array, log_sigmas: Array) -> Array:
        xp, layout = self.backend.xp, self.layout
        rows, k, c = means.shape
        log_scales = xp.broadcast_to(log_sigmas[:, :, None], means.shape)
        lower, coef = (
            self.backend.zeros(size, xp.float64) for size in ((rows, k, layout.n_lower), (rows, c, layout.n_terms))
        )
        return layout.join(log_weights, means, log_scales, lower, coef, backend=self.backend)

    def evaluate(self, samples: Samples, theta: Array) -> tuple[Array, ChannelMoments]:
        """Log-likelihood and sums of one pass."""
        sums = moments(samples, theta, self.layout, backend=self.backend)
        return sums.log_likelihood, sums

    def log_prior(self, samples: Samples, theta: Array) -> Array:
        """Of the trend coefficients."""
        coef = self.layout.split(theta, backend=self.backend)[4]
        return log_prior(coef, trend_pull(samples, self.config.trend_prior), backend=self.backend)

    def step(self, samples: Samples, sums: ChannelMoments, theta: Array, floor: Array, schedule: str) -> Array:
        """The M-step."""
        return m_step(
            sums,
            theta,
            samples.basis,
            layout=self.layout,
            schedule=schedule,
            floor=floor,
            pull=trend_pull(samples, self.config.trend_prior),
            backend=self.backend,
        )

    def extrapolate(self, first: Array, second: Array, third: Array, limit: Array, floor: Array) -> tuple[Array, Array]:
        """SQUAREM."""
        return extrapolate(first, second, third, limit, layout=self.layout, floor=floor, backend=self.backend)

    def empty(self, n_samples: np.ndarray, status: np.ndarray) -> ChannelFit:
        """Fits without parameters."""
        rows, k, c = len(status), self.config.n_components, self.n_channels
        return ChannelFit(
            weights=np.zeros((rows, k)),
            means=np.full((rows, k, c), np.nan),
            covariances=np.full((rows, k, c, c), np.nan),
            coef=np.full((rows, c, self.config.n_terms), np.nan),
            log_likelihood=np.full(rows, np.nan),
            n_iter=np.zeros(rows, dtype=np.int64),
            n_samples=n_samples,
            status=status,
            terms=self.config.terms,
        )

    def write(
        self,
        out: ChannelFit,
        rows: np.ndarray,
        theta: np.ndarray,
        log_likelihood: np.ndarray,
        ended: FitStatus,
        units: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Store finished fits in grey levels, components in ascending mean of the first channel."""
        centre, scale = units
        backend = self.backend
        log_weights, means, log_scales, lower, coef = self.layout.split(backend.asarray(theta), backend=backend)
        square = backend.to_host(covariances(log_scales, lower, backend=backend))
        log_weights, means, coef = (backend.to_host(a) for a in (log_weights, means, coef))
        dropped = log_weights < 0.5 * NO_COMPONENT
        status = np.where(dropped.all(axis=1), FitStatus.DEGENERATE, ended)
        status = np.where(dropped.any(axis=1) & (status == FitStatus.CONVERGED), FitStatus.DROPPED, status)
        bad = status == FitStatus.DEGENERATE
        gone = dropped | bad[:, None]
        means = np.where(gone[:, :, None], np.nan, means * scale[:, None, :] + centre[:, None, :])
        square = np.where(
            gone[:, :, None, None], np.nan, square * (scale[:, :, None] * scale[:, None, :])[:, None, :, :]
        )
        order = np.argsort(means[:, :, 0], axis=1, kind="stable")
        out.weights[rows] = np.take_along_axis(np.where(gone, 0.0, np.exp(log_weights)), order, axis=1)
        out.means[rows] = np.take_along_axis(means, order[:, :, None], axis=1)
        out.covariances[rows] = np.take_along_axis(square, order[:, :, None, None], axis=1)
        out.coef[rows] = np.where(bad[:, None, None], np.nan, coef * scale[:, :, None])
        out.log_likelihood[rows] = np.where(bad, np.nan, log_likelihood)
        out.status[rows] = status

    def theta_of(self, fit: ChannelFit, samples: Samples) -> Array:
        """(R, size) parameters of finished fits on the standardised scale of their samples."""
        backend = self.backend
        centre, scale = backend.to_host(samples.centre), backend.to_host(samples.scale)
        dead = ~(fit.weights > 0)
        with np.errstate(divide="ignore"):
            log_weights = np.where(dead, NO_COMPONENT, np.log(fit.weights))
        means = np.where(dead[:, :, None], 0.0, (fit.means - centre[:, None, :]) / scale[:, None, :])
        square = fit.covariances / (scale[:, :, None] * scale[:, None, :])[:, None, :, :]
        square = np.where(dead[:, :, None, None], np.eye(fit.n_channels), square)
        log_scales, lower = factor(backend.asarray(square), backend=backend)
        coef = np.nan_to_num(fit.coef / scale[:, :, None])
        parts = (backend.asarray(log_weights), backend.asarray(means), log_scales, lower, backend.asarray(coef))
        return self.layout.join(*parts, backend=backend)


def _axes(samples: Samples, backend: Backend) -> list[Array]:
    """Directions (R, C): every channel, and of several channels also the principal axes of the samples."""
    xp, c = backend.xp, samples.z.shape[2]
    eye = xp.eye(c, dtype=xp.float64, device=backend.device)
    axes = [xp.broadcast_to(eye[i, :], (samples.z.shape[0], c)) for i in range(c)]
    if c == 1:
        return axes
    second = xp.sum(xp.astype(xp.matmul(samples.z, xp.matrix_transpose(samples.z)), xp.float64), axis=1)
    _, vectors = xp.linalg.eigh(second)
    return [*axes, *(vectors[:, :, i] for i in range(c))]


def _project(z: Array, axis: Array, backend: Backend) -> Array:
    """(R, blocks, n): samples (R, blocks, C, n) along `axis` (R, C)."""
    return backend.xp.matmul(backend.real(axis)[:, None, None, :], z)[:, :, 0, :]


__all__ = ["ChannelModel", "channel_posterior", "fit_channels", "make_channel_samples"]
