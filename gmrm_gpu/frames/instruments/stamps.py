"""When each frame was taken, where an instrument's file stamps its frames with times."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..movie import Acquisition

# Cameras stamp frames some per cent early or late; a frame left out, or a rate that drifts, adds up to a whole step.
_EVEN, _ADDED_UP = 0.2, 0.5
_VELOX_STAMP = re.compile(rb'TimeStamp":\s*\{[^}]*?"value":\s*"?(\d+)')


def stamped(known: Acquisition, times_s: np.ndarray | None, resolution_s: float = 0.0) -> Acquisition:
    """`known` with the frame time, or the times of uneven frames, that stamps tell.

    Parameters
    ----------
    times_s : (T,) seconds from any zero; None where there are none.
    resolution_s : the smallest difference that the stamps can show.

    Returns
    -------
    Acquisition
        With `frame_time_s` where the frames are even to a fifth of a step and never half a step off, else with
        `times_s` from the first frame; unchanged but for a note where the stamps do not ascend.
    """
    if times_s is None or len(times_s) < 2:
        return known
    steps = np.diff(np.asarray(times_s, np.float64))
    if not (steps > 0).all():
        why = f"they are kept to {resolution_s:g} s only" if resolution_s >= 1 else "they do not ascend"
        return told(known, f"the stored times of the frames are not used, {why}")
    step, times = float(steps.mean()), np.cumsum(np.append(0.0, steps))
    astray = np.abs(times - step * np.arange(times.size)).max()
    if np.abs(steps - step).max() <= max(_EVEN * step, resolution_s) and astray <= max(_ADDED_UP * step, resolution_s):
        return replace(known, frame_time_s=float(f"{step:.9g}"))
    note = f"the frames are unevenly spaced in time, by {steps.min():.6g} to {steps.max():.6g} s"
    return told(replace(known, frame_time_s=None, times_s=times), note)


def told(known: Acquisition, *notes: str | None) -> Acquisition:
    """`known` with more notes; None is none."""
    return replace(known, notes=(*known.notes, *(note for note in notes if note)))


def velox_stamps(path: Path, n_frames: int) -> np.ndarray | None:
    """(T,) seconds of the frames of the one image in a Velox file, or None; its metadata has a column a frame."""
    import h5py

    with h5py.File(path) as file:
        groups = list(file.get("Data/Image", {}).values())
        columns = groups[0]["Metadata"] if len(groups) == 1 and "Metadata" in groups[0] else None
        if columns is None or columns.shape[1] != n_frames:
            return None
        found = [_VELOX_STAMP.search(columns[:, t].tobytes()) for t in range(n_frames)]
    stamps = [int(match[1]) for match in found if match]
    return np.array([stamp - stamps[0] for stamp in stamps]) * 1e-6 if len(stamps) == n_frames else None
