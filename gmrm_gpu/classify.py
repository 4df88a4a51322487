"""From responsibilities to phase labels (METHOD.md 5)."""

from __future__ import annotations

import numpy as np

from .backend import Array, Backend
from .config import PhaseConfig
from .mixture.design import Samples, unblock
from .mixture.fit import responsibilities
from .mixture.moments import GROUP_SAMPLES
from .results import FitStatus, MixtureFit, MovieFit

NOT_VISITED = 255
"""Label of padding and of the samples of a fit without usable parameters: neither phase nor neighbour."""


def foreground_components(fit: MixtureFit, phases: PhaseConfig) -> np.ndarray:
    """(R, K) bool: which components are foreground, by the rule of `phases`.

    ``brightest``/``darkest``: the largest/smallest mean. ``separated``: every component whose mean is more than
    ``contrast`` sigmas of the heaviest component away from it; there may be none, one or several. Names: the
    components of the foreground phase. Dropped components are never foreground.
    """
    means, present = fit.means, fit.weights > 0
    if phases.is_named:
        chosen = np.asarray(component_phases(fit, phases)) == phases.foreground_index
    elif phases.rule == "separated":
        chosen = _separated(fit, phases)
    else:
        sign = 1.0 if phases.rule == "brightest" else -1.0
        ranked = np.where(present, sign * np.nan_to_num(means), -np.inf)
        chosen = np.arange(fit.n_components) == np.argmax(ranked, axis=-1)[..., None]
    return chosen & present


AUTO_CONTRAST = 1.5
"""Sigmas (root mean square of the two) by which a component must stand off from the background to be foreground."""


def movie_foreground(fit: MovieFit, phases: PhaseConfig) -> np.ndarray:
    """(R, K) bool: which common components of a movie are foreground.

    ``auto``: the background is the component that is never rare (the largest 10th percentile over frames of its
    weight), for what grows may become the commonest; foreground is every component on the side of `phases.polarity`
    that stands off from it by `AUTO_CONTRAST`: none, one or several. Other rules: `foreground_components` of the
    pooled fit.
    """
    common = fit.common
    if phases.phases != "auto":
        return foreground_components(common, phases)
    lasting = np.quantile(np.nan_to_num(fit.frames.weights), 0.1, axis=1)
    background = np.argmax(lasting, axis=-1)[:, None]
    centre, sigma = (np.take_along_axis(a, background, axis=1) for a in (common.means, common.sigmas))
    distance = np.nan_to_num((common.means - centre) / np.sqrt(0.5 * (common.sigmas**2 + sigma**2)))
    sides = {"bright": distance, "dark": -distance, "both": np.abs(distance)}
    return (sides[phases.polarity] > AUTO_CONTRAST) & (common.weights > 0)


def explain_foreground(fit: MovieFit, phases: PhaseConfig) -> str:
    """In a sentence, what `movie_foreground` decided for the first replicate."""
    chosen, common = movie_foreground(fit, phases)[0], fit.common[0]
    levels = ", ".join(f"{mean:.4g}" for mean in common.means[chosen])
    if phases.phases != "auto":
        return f"Foreground by the rule {phases.phases}: " + (
            f"grey level {levels}." if chosen.any() else "no component."
        )
    background = common.means[np.argmax(np.quantile(np.nan_to_num(fit.frames.weights[0]), 0.1, axis=0))]
    side = {"bright": "brighter", "dark": "darker", "both": "brighter or darker"}[phases.polarity]
    rule = f"the component at grey level {background:.4g} never becomes rare, so it is the background; "
    if not chosen.any():
        return f"No foreground: {rule}no component is {side} by {AUTO_CONTRAST:g} sigma or more."
    return f"Foreground at grey level {levels}: {rule}foreground is what is {side} by {AUTO_CONTRAST:g} sigma or more."


def _separated(fit: MixtureFit, phases: PhaseConfig) -> np.ndarray:
    heaviest = np.argmax(fit.weights, axis=-1)[..., None]
    centre = np.take_along_axis(fit.means, heaviest, axis=-1)
    width = np.take_along_axis(fit.sigmas, heaviest, axis=-1)
    distance = np.nan_to_num((fit.means - centre) / width)
    if phases.polarity == "both":
        return np.abs(distance) > phases.contrast
    return (distance if phases.polarity == "bright" else -distance) > phases.contrast


def component_phases(fit: MixtureFit, phases: PhaseConfig, foreground: np.ndarray | None = None) -> np.ndarray:
    """(R, K) uint8: index into ``phases.names`` of each component's phase.

    foreground : (R, K) bool where it is decided already, as for a movie.

    With names, the component of the k-th smallest mean has the k-th name. Where a component was dropped the later
    names move down by one, so such fits carry the status `FitStatus.DROPPED`.
    """
    if phases.is_named:
        index = np.array([phases.names.index(name) for name in phases.component_names], dtype=np.uint8)
        return np.broadcast_to(index, fit.weights.shape)
    return (foreground_components(fit, phases) if foreground is None else foreground).astype(np.uint8)


def label_samples(
    samples: Samples, fit: MixtureFit, phases: PhaseConfig, m: int, *, valid: Array | None, backend: Backend
) -> tuple[Array, np.ndarray]:
    """Each sample's phase, that of its likeliest component, and the mean posterior of the foreground.

    Returns
    -------
    labels : (R, m) uint8 on the device, indices into ``phases.names``, or `NOT_VISITED`.
    posterior : (R,) float64 on the host, NaN for fits without usable parameters.
    """
    xp = backend.xp
    rows, n_blocks, n = samples.z.shape
    group = max(1, GROUP_SAMPLES // (n_blocks * n))
    phase_of, foreground = component_phases(fit, phases), foreground_components(fit, phases)
    labels, sums = [], []
    for i in range(0, rows, group):
        part = slice(i, min(i + group, rows))
        resp = responsibilities(samples.rows(part.start, part.stop), fit[part], backend=backend)
        best = xp.argmax(resp, axis=1)
        table = backend.asarray(np.ascontiguousarray(phase_of[part]))
        flat = xp.take_along_axis(table, xp.reshape(best, (best.shape[0], -1)), axis=1)
        labels.append(unblock(xp.reshape(flat, best.shape), m, backend=backend))
        mass = xp.sum(xp.sum(xp.astype(resp, xp.float64), axis=3), axis=2)
        sums.append(xp.sum(mass * backend.asarray(foreground[part].astype(np.float64)), axis=1))
    label = labels[0] if len(labels) == 1 else xp.concat(labels, axis=0)
    usable = fit.status < FitStatus.DEGENERATE
    label = _hide(label, valid, usable, backend)
    total = backend.to_host(sums[0] if len(sums) == 1 else xp.concat(sums, axis=0))
    return label, np.where(usable, total / np.maximum(fit.n_samples, 1), np.nan)


def _hide(label: Array, valid: Array | None, usable: np.ndarray, backend: Backend) -> Array:
    xp = backend.xp
    hidden = xp.full_like(label, NOT_VISITED)
    if valid is not None:
        label = xp.where(valid, label, hidden)
    if not usable.all():
        label = xp.where(backend.asarray(usable)[:, None], label, hidden)
    return label
