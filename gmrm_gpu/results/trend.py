"""Does a fitted trend vary as much as the phases differ? Then it may have taken up a phase (METHOD.md 10)."""

from __future__ import annotations

import numpy as np

from .fit import MixtureFit

OFTEN = 0.2
"""Part of the frames whose trend must exceed the separation before a word is said."""

REMEDIES = (
    "exclude a large specimen edge or electrode with --exclude, or use a lower-order --trend (linear, none) or a stiff "
    "--trend-prior (0.2)"
)


def trend_amplitude(fits: MixtureFit, shape: tuple[int, int], valid: np.ndarray | None = None) -> np.ndarray:
    """(F,) highest less lowest value of each fit's trend surface over the pixels in `valid`, grey levels."""
    used = np.ones(shape, bool) if valid is None else valid
    return np.array([np.ptp(fits[i].trend(shape)[used]) for i in range(len(fits.status))])


def separation(fits: MixtureFit) -> np.ndarray:
    """(F,) typical distance between neighbouring components of a fit, grey levels: the lower median of the gaps.

    Not the smallest of them: one spare component on the flank of another does not make phases less distinct.
    NaN with fewer than two components.
    """
    gaps = np.sort(np.diff(fits.means, axis=1), axis=1)
    if gaps.shape[1] == 0:
        return np.full(len(fits.status), np.nan)
    count = np.isfinite(gaps).sum(axis=1)
    middle = np.maximum(count - 1, 0) // 2
    return np.where(count > 0, np.take_along_axis(gaps, middle[:, None], axis=1)[:, 0], np.nan)


def trend_warning(fits: MixtureFit, shape: tuple[int, int], valid: np.ndarray | None = None) -> str | None:
    """A sentence if in many frames the trend varies more over the frame than neighbouring components differ.

    They differ by the upper quartile over the frames: where a phase is absent, or taken up by the trend, its
    components share another one and are close.
    """
    amplitude = trend_amplitude(fits, shape, valid)
    gap = separation(fits)
    usable = np.isfinite(amplitude) & np.isfinite(gap)
    if not fits.terms or not usable.any():
        return None
    limit = float(np.quantile(gap[usable], 0.75))
    large = np.where(usable, amplitude, 0.0) > limit
    if large.sum() <= OFTEN * usable.sum():
        return None
    return (
        f"In {large.sum():,} of {usable.sum():,} fitted frames the trend varies by more over the frame than "
        f"neighbouring components differ (by up to {amplitude[large].max():.3g} against {limit:.3g} grey levels): it "
        f"may have taken up part of a phase. If you recognise the specimen in it, {REMEDIES}."
    )
