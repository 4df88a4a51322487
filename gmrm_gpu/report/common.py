"""Words, numbers and axes that figures, tables and the page share. No plotting here."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import numpy as np

from ..config import AnalysisConfig
from ..results import UNIT_TEXT, AnalysisResult, Examples, MixtureFit, StudyResult

Result: TypeAlias = AnalysisResult | StudyResult

ESTIMATOR_TEXT = {
    "count": "share of the labels",
    "posterior": "mean probability of the visited pixels",
    "assisted": "earlier frames predict every pixel, the visited pixels correct that",
    "smoothed": "earlier frames predict every pixel, the visited pixels correct that, a smoother joins all frames",
}
METHOD_TEXT = {
    "movie": "all frames are fitted together: common grey levels, weights that vary over the frame and in time",
    "paper": "every frame is fitted by itself",
}

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float) -> str:
    """Three significant digits, thousands separated: ``"18,800"``, ``"0.0412"``, ``"3.1×10⁻⁷"``; NaN: ``"–"``."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    sign, size = "−" if value < 0 else "", abs(value)
    if size >= 1e9 or size < 1e-4:
        exponent = int(np.floor(np.log10(size)))
        return f"{sign}{size / 10.0**exponent:.2g}×10{str(exponent).translate(_SUPERSCRIPT)}"
    if size >= 1000:
        return f"{sign}{size:,.0f}"
    decimals = max(0, 2 - int(np.floor(np.log10(size))))
    text = f"{size:.{decimals}f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def percent(part: float, digits: int = 3) -> str:
    """0.05 -> ``"5 %"``, with a space."""
    return f"{significant(100 * part, digits)} %" if np.isfinite(part) else "–"


def significant(value: float, digits: int) -> str:
    """`digits` significant digits, but never an exponent for a large number: 99.7 to two digits is ``"100"``."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text else text


def analysis_config(result: Result) -> AnalysisConfig:
    """The settings of one analysis, of a study too, with the method's defaults put in."""
    config = result.config.analysis if isinstance(result, StudyResult) else result.config
    return config.resolved


def is_movie(result: Result) -> bool:
    """Whether all frames were fitted together."""
    return analysis_config(result).method == "movie"


def figure_name(name: str, result: Result) -> str:
    """The file name of a figure: in a study those of the method movie carry its name."""
    return f"{name}_movie" if isinstance(result, StudyResult) and is_movie(result) else name


def level_text(result: AnalysisResult) -> str:
    """``"80 %"``: what part of the cases the interval should hold."""
    return percent(result.config.quantity.interval, 4)


def has_interval(result: AnalysisResult) -> bool:
    """Whether the chosen estimate has a sampling error: not with all pixels, nor where nothing is foreground."""
    return bool(not result.is_full and result.foreground.any() and np.isfinite(result.share_sd).any())


def visited_text(result: AnalysisResult) -> str:
    """``"all pixels"``, ``"10 % of the pixels"`` or ``"0.98 to 1.02 % of the pixels"``."""
    if result.is_full:
        return "all pixels"
    low, high = (float(f(result.visited_share)) for f in (np.min, np.max))
    if high - low <= 0.005 * high:
        return f"{percent(float(np.mean(result.visited_share)))} of the pixels"
    return f"{percent(low).removesuffix(' %')} to {percent(high)} of the pixels"


def everything(result: Result) -> str:
    """What a reference is made from: ``"all pixels"``, or of a sub-sampled movie ``"all visited pixels"``."""
    return "all visited pixels" if result.movie.sampled else "all pixels"


def lowest_rate(study: StudyResult) -> float:
    """The lowest sampling rate of a study."""
    return min(study.rates)


def unit_text(result: Result) -> str:
    """``"µm³"``, ``"µm²"`` or ``"px"``."""
    return UNIT_TEXT[result.scale.unit]


def quantity_name(result: Result) -> str:
    """``"volume"`` or ``"area"``, whichever the curve shows."""
    return "volume" if result.scale.unit == "um3" else "area"


def is_share_of_frame(result: Result) -> bool:
    """Whether the curve is a share of the frame times a constant (not for a volume of revolution)."""
    return result.scale.unit != "um3" or analysis_config(result).quantity.geometry == "slab"


def foreground_name(result: Result) -> str:
    """The phase that is measured, in the user's word if there is one."""
    phases = analysis_config(result).phases
    return phases.names[phases.foreground_index]


def pixel_size(result: Result) -> float | None:
    """Pixel size in micrometres: the user's, else the file's, else None."""
    given = analysis_config(result).quantity.pixel_size_um
    return result.movie.pixel_size_um if given is None else given


def usable_examples(result: Result) -> Examples | None:
    """The result's pictures, None if it has none."""
    examples = result.examples
    return None if examples is None or len(examples.frames) == 0 else examples


def time_axis(result: Result) -> tuple[np.ndarray, str]:
    """(T,) values and the label of the horizontal axis: frame numbers, or seconds, minutes, hours."""
    time = result.time_s
    if time is None or not np.isfinite(time).any():
        return np.asarray(result.frame, dtype=float), "frame"
    divisor, unit = time_unit(float(np.nanmax(np.abs(time))))
    return np.asarray(time, dtype=float) / divisor, f"time ({unit})"


def time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds per unit and the unit in which `longest_s` reads well."""
    if longest_s < 600:
        return 1.0, "s"
    return (60.0, "min") if longest_s < 4 * 3600 else (3600.0, "h")


def stamp(result: Result, index: int) -> str:
    """``"frame 12"`` or ``"frame 12 (6 s)"`` of a frame of the movie, by its index."""
    if not 0 <= index < len(result.frame):
        return f"frame {index}"
    text = f"frame {int(result.frame[index])}"
    if result.time_s is None or not np.isfinite(result.time_s[index]):
        return text
    values, label = time_axis(result)
    return f"{text} ({values[index]:.4g} {label[6:-1]})"


def component_names(foreground: np.ndarray, phase_names: tuple[str, ...], index: int, given: tuple[str, ...]) -> list:
    """One name per component: the user's phases, else foreground or background; repeated names are numbered."""
    background = phase_names[1 - index] if len(phase_names) == 2 else "background"
    names = [phase_names[index] if fore else background for fore in foreground]
    if len(given) == len(names):
        names = list(given)
    total, seen, out = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        out.append(f"{name} {seen[name]}" if total[name] > 1 else name)
    return out


def term_text(terms: tuple[tuple[int, int], ...]) -> str:
    """((1, 0), (2, 1)) -> ``"x, x²y"``; ``"none"`` without terms."""

    def factor(letter: str, power: int) -> str:
        return "" if power == 0 else letter + ("" if power == 1 else str(power).translate(_SUPERSCRIPT))

    return ", ".join(factor("x", a) + factor("y", b) for a, b in terms) or "none"


def count_of(n: int, noun: str) -> str:
    """``"1 frame"``, ``"1,300 frames"``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def finite_share(values: np.ndarray) -> np.ndarray:
    """The finite values, flat."""
    flat = np.asarray(values, dtype=float).ravel()
    return flat[np.isfinite(flat)]


def finite_mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN without any."""
    finite = finite_share(values)
    return float(finite.mean()) if finite.size else float("nan")


def split_frames(fits: MixtureFit, foreground: np.ndarray) -> np.ndarray:
    """(F,) whether a background component (of 1 % or more) lies within a foreground component's sigma of its mean."""
    kept = np.isfinite(fits.means) & (fits.weights >= 0.01)
    means, sigmas = np.where(kept, fits.means, np.inf), np.where(kept, fits.sigmas, 0.0)
    fore, back = foreground & kept, ~foreground & kept
    pair = fore[:, :, None] & back[:, None, :]
    distance = np.abs(np.where(pair, means[:, :, None], 0.0) - np.where(pair, means[:, None, :], np.inf))
    return (distance < sigmas[:, :, None]).any(axis=(1, 2))
