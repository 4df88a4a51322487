"""From the journal of a live run to the result that an analysis of the recorded movie has."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config import ESTIMATORS
from ..estimate import places_in_time, smooth
from ..results import AnalysisResult, Estimate, Examples, MixtureFit, MovieInfo
from .journal import Subject, read_labels, read_pictures, read_records, read_subject

N_EXAMPLES = 6
SMOOTHED_AT_ONCE, OVERLAP = 8192, 512
"""Frames that the smoother takes at once, and how many of them it shares with its neighbours: memory stays bounded,
and a frame is told by all that lie within `OVERLAP` of it."""
_FITS = ("weights", "means", "sigmas", "coef", "log_likelihood", "n_iter")


def result_of(folder: Path, run: dict[str, Any]) -> AnalysisResult:
    """The result of a journal with at least one frame, without its labels, which are in the journal.

    Parameters
    ----------
    folder : of the journal. run : what provenance keeps of the run, with a list of ``"warnings"``.
    """
    subject, valid = read_subject(folder)
    records = read_records(folder, subject)
    config = subject.config
    shares = {name: records[name].copy() for name in _share_names()}
    shares |= _smoothed(shares, records["number"])
    chosen = config.estimator
    times = records["time_s"].copy()
    return AnalysisResult(
        movie=_info(subject, records),
        config=config,
        scale=subject.scale,
        frame=records["number"].copy(),
        time_s=times if np.isfinite(times).all() else None,
        share=shares[chosen],
        volume_share=shares[chosen],
        share_sd=shares[f"{chosen}_sd"],
        volume_share_sd=shares[f"{chosen}_sd"],
        share_raw=records["share_raw"].copy(),
        **shares,
        n_samples=records["n_samples"].copy(),
        n_without_neighbours=records["n_without_neighbours"].copy(),
        visited_share=records["visited_share"].copy(),
        status=records["status"].copy(),
        fits=_fits(subject, records),
        foreground=records["foreground"].astype(bool),
        examples=_examples(folder, subject, records, valid),
        provenance=_provenance(subject, records, run),
    )


def _share_names() -> tuple[str, ...]:
    causal = tuple(name for name in ESTIMATORS if name != "smoothed")
    return (*causal, *(f"{name}_sd" for name in causal))


def _smoothed(shares: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The assisted curve joined over all frames, within 0..1; NaN where a frame has no share.

    Frames that were lost take part as frames without a share, since the curve moved on meanwhile.
    """
    places = places_in_time(numbers)
    share, sd = (np.full(places[-1] + 1, np.nan) for _ in range(2))
    share[places], sd[places] = shares["assisted"], shares["assisted_sd"]
    found = smooth_in_parts(share, sd)
    lost = ~np.isfinite(shares["assisted"])
    return {
        "smoothed": np.where(lost, np.nan, np.clip(found.share[0, places], 0, 1)),
        "smoothed_sd": np.where(lost, np.nan, found.sd[0, places]),
    }


def smooth_in_parts(share: np.ndarray, sd: np.ndarray, size: int = SMOOTHED_AT_ONCE) -> Estimate:
    """`smooth` of a curve (T,), in overlapping parts of at most `size` frames; (1, T) each."""
    n, overlap = share.size, min(OVERLAP, size // 4)
    if n <= size:
        return smooth(Estimate(share[None], sd[None]))
    levels, sds = np.empty((1, n)), np.empty((1, n))
    step = size - 2 * overlap
    for start in range(0, n, step):
        low, high = max(0, start - overlap), min(n, start + step + overlap)
        part = smooth(Estimate(share[None, low:high], sd[None, low:high]))
        end = min(n, start + step)
        levels[:, start:end] = part.share[:, start - low : end - low]
        sds[:, start:end] = part.sd[:, start - low : end - low]
    return Estimate(levels, sds)


def _info(subject: Subject, records: np.ndarray) -> MovieInfo:
    known = subject.acquisition
    return MovieInfo(
        name=subject.name,
        n_frames=len(records),
        shape=subject.shape,
        dtype=subject.dtype,
        n_pixels=subject.n_pixels,
        pixel_size_um=subject.pixel_size_um,
        frame_time_s=subject.config.quantity.frame_time_s or known.frame_time_s,
        frame_numbers=tuple(records["number"].tolist()),
        detector=known.detector,
        bit_depth=known.bit_depth,
        sampled=subject.sampled,
    )


def _fits(subject: Subject, records: np.ndarray) -> MixtureFit:
    arrays = {name: records[name].copy() for name in _FITS}
    return MixtureFit(
        **arrays,
        n_samples=records["fit_samples"].copy(),
        status=records["fit_status"].copy(),
        terms=subject.config.mixture.terms,
    )


def _examples(folder: Path, subject: Subject, records: np.ndarray, valid: np.ndarray | None) -> Examples | None:
    """A few kept frames. Labels before the vote are not kept, and other settings of it are not tried."""
    pictures = {index: picture for index, picture in read_pictures(folder, N_EXAMPLES).items() if index < len(records)}
    if not pictures:
        return None
    index = np.array(list(pictures))
    labels = np.stack(list(read_labels(folder, subject, records[index])))
    phases = subject.config.phases
    return Examples(
        frames=index,
        images=np.stack(list(pictures.values())),
        labels_raw=labels,
        labels=labels,
        settings=(),
        labels_settings=np.zeros((0, *labels.shape), np.uint8),
        sampled_rate=float(records["visited_share"].mean()),
        labels_sampled=labels,
        fits=_fits(subject, records[index]),
        foreground=records["foreground"][index].astype(bool),
        phase_names=phases.names,
        foreground_index=phases.foreground_index,
        valid=valid,
    )


def _provenance(subject: Subject, records: np.ndarray, run: dict[str, Any]) -> dict[str, Any]:
    latency = 1e3 * records["latency_s"]
    last = records[-1]
    chosen = last["foreground"].astype(bool)
    levels = ", ".join(f"{mean:.4g}" for mean in last["means"][chosen])
    rule = f"by the rule {subject.config.resolved.phases.phases}, decided frame by frame"
    return {
        "gmrm_gpu": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "array-api-compat")},
        "platform": platform.platform(),
        "engine": "live",
        "engine_reason": "every frame was analysed from itself and those before, as it came; smoothed at the end",
        "seed": subject.config.sampling.seed,
        "foreground": f"Foreground at grey level {levels} in the last frame, {rule}."
        if chosen.any()
        else f"No foreground in the last frame, {rule}.",
        "source": subject.source,
        "latency_ms": {
            "median": round(float(np.median(latency)), 3),
            "p95": round(float(np.quantile(latency, 0.95)), 3),
        },
        **run,
    }


__all__ = ["result_of", "smooth_in_parts"]
