"""What a reader should know before trusting the numbers, in sentences; plain text, nothing escaped."""

from __future__ import annotations

import numpy as np

from ..results import AnalysisResult, FitStatus, StudyResult, fit_statuses, status_counts, trend_warning
from .common import (
    Result,
    analysis_config,
    count_of,
    finite_mean,
    finite_share,
    has_interval,
    is_movie,
    level_text,
    number,
    percent,
    split_frames,
    stamp,
    unit_text,
    usable_examples,
)
from .tables import uncalibrated

# A phase of less than this share is a trace, or a few outliers.
_TRACE = 0.01
# A foreground above this share is plain to see; fits that miss it more often than `_OFTEN` are worth a word.
_PLAIN, _OFTEN = 0.05, 0.01
# Shares of the labels and of the posterior that differ by more than both of these disagree.
_GAP, _RELATIVE_GAP = 0.03, 0.25
# Intervals wider than this part of what the curve rises and falls hide its course.
_WIDE = 0.5


def cautions(result: Result) -> list[str]:
    """What a reader should know before trusting the numbers; empty when all is well."""
    parts: tuple[Result, ...] = result.every if isinstance(result, StudyResult) else (result,)
    own = [_of_method(part) for part in parts]
    if len(parts) == 1:
        notes = own[0]
    else:
        shared = [note for note in own[0] if all(note in other for other in own)]
        notes = shared + [
            f"Method {analysis_config(part).method}: {note}"
            for part, some in zip(parts, own, strict=True)
            for note in some
            if note not in shared
        ]
    movie = result.movie
    excluded = movie.shape[0] * movie.shape[1] - movie.n_pixels
    if excluded > 0:
        notes.append(
            f"{excluded:,} pixels of each frame were excluded by the mask; "
            f"shares refer to the other {movie.n_pixels:,}."
        )
    if result.scale.unit != "um3":
        text = uncalibrated(result)
        notes.append(text[0].upper() + text[1:] + ".")
    return notes


def _of_method(result: Result) -> list[str]:
    """What holds for one method's fits."""
    notes = _study_cautions(result) if isinstance(result, StudyResult) else _analysis_cautions(result)
    notes += _lone_frame(result) + _split_phase(result)
    notes += _trace_of_movie(result) if is_movie(result) else _trace_phase(result)
    notes += _large_trend(result) + _correction_note(result)
    rule = analysis_config(result).phases.rule
    if rule in ("brightest", "darkest") and not is_movie(result):
        notes.append(
            f"The rule “{rule}” calls one component of every frame foreground, so a frame that holds none still "
            "reports some, at every sampling rate. If the movie has such frames, try --method movie or --phases "
            "separated."
        )
    given = result.provenance.get("warnings", ())
    return notes + [str(note) for note in ([given] if isinstance(given, str) else given)]


def _lone_frame(result: Result) -> list[str]:
    if not is_movie(result) or len(result.frame) > 1:
        return []
    return [
        "A movie of one frame has no other frames to learn from: the method movie falls back to weights from this "
        "frame alone, so labels and estimate are little better than with --method paper."
    ]


def _split_phase(result: Result) -> list[str]:
    """A note if the foreground seems to be shared between components of which only some are counted."""
    source = result if isinstance(result, AnalysisResult) else usable_examples(result)
    if source is None:
        return []
    split, n = split_frames(source.fits, source.foreground), len(source.foreground)
    if split.sum() < 0.1 * n or not split.any():
        return []
    where = "frames" if isinstance(result, AnalysisResult) else "fully sampled example frames"
    return [
        f"In {split.sum():,} of {n:,} {where} a background component lies within one standard deviation of the "
        "foreground component: one phase is shared between the two, so either some foreground is not counted or some "
        "background is. Use fewer --components, or name the --phases and give both components the same name."
    ]


def _trace_phase(result: Result) -> list[str]:
    """A note if the foreground component may be a few outliers: next to no weight, and picked by rank or very wide."""
    source = result if isinstance(result, AnalysisResult) else usable_examples(result)
    if source is None:
        return []
    fits, fore = source.fits, source.foreground & (source.fits.weights > 0)
    weight = np.where(fore, fits.weights, 0.0).sum(axis=1)
    commonest = np.take_along_axis(fits.sigmas, np.argmax(np.nan_to_num(fits.weights), axis=1)[:, None], axis=1)
    wide = np.any(fore & (fits.sigmas > 2 * commonest), axis=1)
    ranked = analysis_config(result).phases.phases in ("brightest", "darkest")
    faint = fore.any(axis=1) & (weight < _TRACE) & (wide | ranked)
    if not faint.any():
        return []
    where = "frames" if isinstance(result, AnalysisResult) else "fully sampled example frames"
    worst = int(np.argmin(np.where(faint, weight, np.inf)))
    index = worst if isinstance(source, AnalysisResult) else int(source.frames[worst])
    text = (
        f"In {faint.sum():,} of {len(faint):,} {where} the foreground component holds less than {percent(_TRACE)} of "
        f"the pixels (least in {stamp(result, index)}: {percent(weight[worst], 2)}"
    )
    text += ", with more than twice the width of the commonest component)" if wide[worst] else ")"
    return [
        f"{text}: a trace, or a few outliers with a component of their own. Look at such a frame with gmrm-gpu fit."
    ]


def _trace_of_movie(result: Result) -> list[str]:
    """The same for a movie fitted as a whole, whose foreground may well be missing from single frames."""
    source = result if isinstance(result, AnalysisResult) else usable_examples(result)
    if source is None or not source.foreground.any():
        return []
    weights = np.nan_to_num(source.fits.weights)
    weight = float(np.where(source.foreground, weights, 0.0).sum(axis=1).max())
    sigmas, fore = np.nan_to_num(source.fits.sigmas).mean(axis=0), source.foreground.any(axis=0)
    wide = bool((sigmas[fore] > 2 * sigmas[int(np.argmax(weights.mean(axis=0)))]).any())
    if weight >= _TRACE or not wide:
        return []
    return [
        f"The foreground component never holds more than {percent(weight, 2)} of the pixels and is more than twice as "
        "wide as the commonest component: a few outliers, perhaps, with a component of their own."
    ]


def _large_trend(result: Result) -> list[str]:
    """A note if the trend may have taken up a phase; of a study, in its fully sampled example frames."""
    source = result if isinstance(result, AnalysisResult) else usable_examples(result)
    # Without a foreground spare components share a phase, and any trend is larger than what separates them.
    if source is None or not source.foreground.any():
        return []
    examples = result.examples
    text = trend_warning(source.fits, result.movie.shape, None if examples is None else examples.valid)
    return [] if text is None else [text]


def _unsure_labels(result: AnalysisResult) -> list[str]:
    """A note if labels and posterior disagree: a component that is nowhere the likeliest counts for nothing."""
    count, posterior = np.asarray(result.share_raw, float), np.asarray(result.posterior, float)
    gap = np.nan_to_num(np.abs(count - posterior))
    unsure = (gap > _GAP) & (gap > _RELATIVE_GAP * np.fmax(count, posterior))
    if not unsure.any():
        return []
    worst = int(np.argmax(np.where(unsure, gap, 0.0)))
    return [
        f"In {unsure.sum():,} of {len(unsure):,} frames the share of the labels and the mean posterior disagree (most "
        f"in {stamp(result, worst)}: labels {percent(count[worst])}, posterior {percent(posterior[worst])}): "
        "the foreground component overlaps another so much that labels say little. Use fewer --components or a "
        "simpler --trend there."
    ]


def _unusual(status: np.ndarray) -> str:
    """``"12 max_iter, 3 degenerate"`` of all that did not converge; empty if everything did."""
    counts = status_counts(status)
    counts.pop(FitStatus.CONVERGED.label, None)
    words = {FitStatus.MAX_ITER.label: "stopped at the pass limit", FitStatus.DROPPED.label: "lost a component"}
    return ", ".join(f"{count:,} {words.get(label, label)}" for label, count in counts.items())


def _study_cautions(study: StudyResult) -> list[str]:
    notes, whole = [], is_movie(study)
    if text := _unusual(fit_statuses(study.reference_status, whole=whole)):
        fits = "fitted as a whole" if whole else f"of {len(study.reference_status):,} frames"
        notes.append(f"Reference (all pixels), {fits}: {text}.")
    for rate in study.rates:
        status, shares = fit_statuses(study.status[rate], whole=whole), study.shares[rate]
        if text := _unusual(status):
            notes.append(f"{percent(rate)}: of {status.size:,} fits, {text}.")
        failed = ~np.isfinite(shares)
        if failed.any():
            notes.append(f"{percent(rate)}: fits without a share: {failed.sum():,}; left out of mean and percentiles.")
        if lost := int(failed.all(axis=0).sum()):
            notes.append(f"{percent(rate)}: frames without any usable replicate: {lost:,}; gaps in the curves.")
        if text := _lonely(study, study.without_neighbours[rate], _expected_samples(study, rate)):
            notes.append(f"{percent(rate)}: {text}")
    notes += _missed(study) + _few_replicates(study)
    if finite_share(study.reference).size < study.reference.size:
        lost = study.reference.size - finite_share(study.reference).size
        notes.append(f"Frames without a reference: {lost:,}; left out of the average bias.")
    return notes


def _missed(study: StudyResult) -> list[str]:
    """A note for each rate whose replicates often find nothing where all pixels see much."""
    notes: list[str] = []
    if study.config.analysis.quantity.geometry == "revolution":
        return notes  # there a share is weighted, and no share of the frame
    for rate in study.rates:
        plain = study.reference > _PLAIN
        missed = float((study.shares[rate][:, plain] == 0).mean()) if plain.any() else 0.0
        if missed > _OFTEN:
            notes.append(
                f"{percent(rate)}: in frames where all pixels show more than {percent(_PLAIN)}, {percent(missed)} of "
                "the fits find no foreground at all, so the band is low there. Use a higher rate, or another rule for "
                "--phases."
            )
    return notes


def _few_replicates(study: StudyResult) -> list[str]:
    """One note on all rates with less than ten replicates, one on the rough bands of few."""
    notes = []
    for low, high, text in (
        (0, 10, "10th and 90th percentiles mean little"),
        (10, 30, "a band from so few is rough, within about a quarter, and rather too narrow than too wide"),
    ):
        few = {rate: len(shares) for rate, shares in study.shares.items() if low <= len(shares) < high}
        if few:
            counts = sorted(set(few.values()))
            several = f"{counts[0]} to {counts[-1]} replicates"
            range_text = count_of(counts[0], "replicate") if len(counts) == 1 else several
            notes.append(f"{', '.join(map(percent, few))}: only {range_text}; {text}.")
    return notes


def _expected_samples(study: StudyResult, rate: float) -> float:
    return round(rate * study.movie.n_pixels) * study.shares[rate].size


def _lonely(result: Result, counts: np.ndarray, samples: float) -> str:
    """A sentence on samples that kept their label for want of neighbours; none below one in a thousand.

    The first frame has no past, so with that window it is not counted.
    """
    if analysis_config(result).correction.window == "past":
        samples *= (counts.shape[-1] - 1) / counts.shape[-1]
        counts = counts[..., 1:]
    total = int(np.sum(counts))
    if total == 0 or samples <= 0 or total < 1e-3 * samples:
        return ""
    return f"{percent(total / samples, 2)} of the samples had no neighbours in the correction and kept their label."


def _removed_share(result: Result) -> float:
    """Part of the foreground labels that the correction took away, over all frames (a study: its examples)."""
    if isinstance(result, AnalysisResult):
        both = np.isfinite(result.count) & np.isfinite(result.share_raw)
        before, after = result.share_raw[both].sum(), result.count[both].sum()
    else:
        examples = usable_examples(result)
        if examples is None:
            return 0.0
        code = examples.foreground_index + 1
        before, after = (examples.labels_raw == code).sum(), (examples.labels == code).sum()
    return float(1 - after / before) if before > 0 else 0.0


def _correction_note(result: Result) -> list[str]:
    vote = analysis_config(result).correction
    if vote.radius_px == 0:
        return []
    if vote.window == "past" and len(result.frame) == 1:
        return ["A single frame has no past, so nothing was corrected; use --window spatial."]
    removed = _removed_share(result)
    if removed < 0.15:
        return []
    text = f"The correction took away {percent(removed, 2)} of the foreground labels"
    if vote.window == "past":
        text += "; fast growth looks like noise to a vote of past frames"
    return [f"{text}. Look at its picture below, and try a smaller --gamma or --radius, or --window symmetric."]


def _analysis_cautions(result: AnalysisResult) -> list[str]:
    notes, whole = [], is_movie(result)
    if text := _unusual(fit_statuses(result.status, whole=whole)):
        fits, mark = (
            ("The fit of the movie", "") if whole else (f"Of {len(result.status):,} frames", " (marked in the curve)")
        )
        notes.append(f"{fits}: {text.removeprefix('1 ') if whole else text}{mark}.")
    if failed := int((~np.isfinite(result.share)).sum()):
        notes.append(f"Frames without a share: {failed:,}; gaps in the curve.")
    if text := _lonely(result, result.n_without_neighbours, float(np.sum(result.n_samples))):
        notes.append(text)
    return notes + _no_foreground(result) + _wide_interval(result) + _unsure_labels(result)


def _no_foreground(result: AnalysisResult) -> list[str]:
    """A note if no component of any frame is foreground."""
    if result.foreground.any() or not np.isfinite(result.share).any():
        return []
    return [
        "No component was taken for foreground, so the curve is zero throughout. If the movie does hold some, look at "
        "the histogram below: use more --components, a --polarity that fits (dark for a dark foreground), or name the "
        "--phases."
    ]


def _wide_interval(result: AnalysisResult) -> list[str]:
    """A note if the interval is so wide that the course of the curve is lost in it."""
    if not has_interval(result):
        return []
    low, high = result.quantity_interval
    curve = finite_share(result.quantity)
    span = float(np.ptp(curve)) if curve.size > 1 else float(curve.max(initial=0.0))
    width = finite_mean(high - low)
    if not width > _WIDE * span:
        return []
    what = "the whole curve's rise and fall" if curve.size > 1 else "the value itself"
    part = f" ({percent(width / span, 2)})" if span > 0 else ""
    return [
        f"The {level_text(result)} interval is {number(width)} {unit_text(result)} wide on average, against "
        f"{number(span)} {unit_text(result)} for {what}{part}: at this sampling rate little can be told. Use a higher "
        "--rate."
    ]
