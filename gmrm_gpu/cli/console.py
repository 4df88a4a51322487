"""What a command says: results to standard output, progress and notes to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..config import AnalysisConfig
from ..errors import printable
from ..results import AnalysisResult, FitStatus, Scale, StudyResult

Progress = Callable[[int, int], None]


class Console:
    """Notes come after the results, at once only where someone watches: an error stays the only line then."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """One line worth knowing, said once."""
        if self.quiet or text in self._notes:
            return
        self._notes.append(text)
        if self._terminal:
            self._write(text)

    def close(self) -> None:
        """Say what was held back."""
        sys.stdout.flush()  # here, so that a reader that has left is noticed while errors are still caught
        if not self._terminal:
            for text in self._notes:
                self._write(text)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Make notes of what the package logs, such as the compilation of kernels at their first use."""
        logger, handler = logging.getLogger(__name__.partition(".")[0]), _Notes(self)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    @staticmethod
    def _write(text: str) -> None:
        print(f"gmrm-gpu: {printable(text)}", file=sys.stderr)

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Progress | None]:
        """A callback that draws a bar with the time left, on a terminal and for work of more than 2 s."""
        if self.quiet or not self._terminal:
            yield None
            return
        from tqdm import tqdm

        with tqdm(desc=what, unit=unit, unit_scale=unit != "frames", delay=2, leave=False, dynamic_ncols=True) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show


class _Notes(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.note(record.getMessage())


def number(value: float) -> str:
    """Four significant digits, in plain letters; NaN: ``"-"``."""
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


def count(n: int, noun: str) -> str:
    """``"1 frame"``, ``"12 frames"``."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned on the right, two blanks apart."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.rjust(n) for cell, n in zip(line, widths, strict=True)) for line in lines)


def table1(result: StudyResult) -> str:
    """Table 1 of a study, all methods, means over frames, in the best unit there is."""
    rows = result.table()
    columns = {"method": "method", "rate": "rate", "n_replicates": "replicates"}
    columns |= {"avg_bias": "bias", "avg_width": "width"}
    if result.truth is not None:
        columns |= {"avg_bias_truth": "bias to truth", "rmse_truth": "rmse to truth"}
    cells = [[_cell(key, row[key]) for key in columns] for row in rows]
    seen = "all visited pixels" if result.movie.sampled else "all pixels"
    title = f"Table 1, means over {count(len(result.frame), 'frame')}, in {result.scale.unit} (bias: to {seen})"
    return title + "\n" + table(list(columns.values()), cells)


def _cell(key: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if key == "rate" else number(value)


def growth(result: AnalysisResult) -> str:
    """A growth curve in a few lines: what was found, how, and what was taken for foreground."""
    movie, curve = result.movie, result.quantity
    names, unit = result.config.phases, result.scale.unit
    height, width = movie.shape
    peak = int(np.nanargmax(curve))
    low, high = (float(end[peak]) for end in result.quantity_interval)
    level = f"{100 * result.config.quantity.interval:g} % interval"
    known = np.isfinite(low) and not result.is_full and bool(result.foreground.any())
    alone = " (choice of pixels alone)" if result.config.method == "paper" else ""
    method = f"method {result.config.method}, estimator {result.estimator}"
    lines = [
        f"{movie.name}: {count(movie.n_frames, 'frame')} of {height} x {width}, {visited_text(result.visited_share)}",
        f"{names.names[names.foreground_index]}: mean {number(float(np.nanmean(curve)))} {unit}, "
        f"peak {number(float(curve[peak]))} {unit} ({100 * result.share[peak]:.3g} % of the frame) "
        f"in frame {result.frame[peak]}",
        f"{method}; {level} there {number(low)} to {number(high)} {unit}{alone}" if known else f"{method}; no interval",
    ]
    decision = result.provenance.get("foreground")
    return "\n".join(lines + ([str(decision)] if decision else []))


def visited_text(shares: np.ndarray) -> str:
    """``"10 % of the pixels"``, or from the fewest to the most of a frame."""
    low, high = (f"{100 * float(f(shares)):.3g}" for f in (np.min, np.max))
    return f"{low} % of the pixels" if low == high else f"{low} to {high} % of the pixels"


def fit_table(result: AnalysisResult) -> str:
    """Parameters of a one-frame analysis with status, log-likelihood, AIC and BIC."""
    fit, config = result.fits[0], result.config
    height, width = result.movie.shape
    given = config.phases.component_names
    phases = given or ["foreground" if fore else "background" for fore in result.foreground[0]]
    rows = [
        (str(k), number(w), number(m), number(s), phases[k])
        for k, (w, m, s) in enumerate(zip(fit.weights, fit.means, fit.sigmas, strict=True))
    ]
    terms = [f"{_term(*term)} {number(c)}" for term, c in zip(fit.terms, fit.coef, strict=True)]
    status = FitStatus(int(fit.status)).label
    return "\n".join(
        (
            f"{result.movie.name}, frame {result.frame[0]}: {int(fit.n_samples):,} of {height} x {width} pixels",
            f"status {status} after {int(fit.n_iter)} passes, {fit.n_parameters} parameters",
            f"log-likelihood {float(fit.log_likelihood):,.2f}  AIC {float(fit.aic):,.2f}  BIC {float(fit.bic):,.2f}",
            table(("component", "weight", "mean", "sigma", "phase"), rows),
            "trend " + (", ".join(terms) or "none") + " (grey levels at the edge of the frame)",
        )
    )


def _term(a: int, b: int) -> str:
    return ("" if a == 0 else "x" + str(a) * (a > 1)) + ("" if b == 0 else "y" + str(b) * (b > 1))


def fit_note(status: np.ndarray) -> str | None:
    """How many fits did not converge, lost a component or failed; None if all went well."""
    status = np.asarray(status).reshape(-1)
    words = {
        FitStatus.MAX_ITER: "stopped at --max-iter",
        FitStatus.DROPPED: "lost a component",
        FitStatus.DEGENERATE: "failed (degenerate)",
        FitStatus.TOO_FEW: "failed (too few samples)",
    }
    counts = {text: int((status == code).sum()) for code, text in words.items()}
    found = [f"{n:,} {text}" for text, n in counts.items() if n]
    return f"of {status.size:,} fits, {', '.join(found)}" if found else None


def calibration_note(scale: Scale, time_s: np.ndarray | None, config: AnalysisConfig) -> str | None:
    """Which options turn pixels and frames into units; None where nothing is missing."""
    missing, quantity = [], config.quantity
    if scale.pixel_area_um2 is None:
        missing.append("--pixel-size 5nm")
    if quantity.thickness_um is None and quantity.geometry == "slab":
        missing.append("--thickness 0.5um")
    units = {"px": "areas are in pixels", "um2": "areas, not volumes"}
    said = [units[scale.unit]] if missing else []
    if time_s is None:
        missing.append("--frame-time 0.5s")
        said.append("time in frames")
    return f"not calibrated ({', '.join(said)}): give {', '.join(missing)}" if missing else None
