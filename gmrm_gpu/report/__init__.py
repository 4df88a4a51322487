"""Reports: figures as PNG and SVG, and one self-contained HTML page (extra ``plot``: matplotlib and jinja2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..results import AnalysisResult, StudyResult
from .style import need_plot, save_figure

__all__ = ["save_figure", "write_report"]


def write_report(result: AnalysisResult | StudyResult, folder: str | Path) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html`` into `folder`.

    Parameters
    ----------
    result : what `analyze` or `run_study` returned, or a study loaded from its folder. Pictures of frames are
        drawn only if it carries examples.
    folder : made if it is missing; an earlier report in it is replaced.

    Returns
    -------
    The path of report.html, which holds its pictures and opens without a network.

    Raises
    ------
    MissingDependencyError : without matplotlib or jinja2.
    OutputError : if the folder cannot be written.
    """
    need_plot()
    from . import html

    folder = Path(folder)
    try:
        pictures = {name: save_figure(draw(result), folder / "figures" / name)[0] for name, draw in _plan(result)}
        page = folder / "report.html"
        page.write_text(html.render(result, pictures), "utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report into {folder}: {error.strerror or error}") from error
    return page


def _plan(result: AnalysisResult | StudyResult) -> list[tuple[str, Callable[[Any], Any]]]:
    """(file name, drawing function) of each figure, in the order of the page."""
    from . import curves, figures
    from .common import usable_examples

    plan: list[tuple[str, Callable[[Any], Any]]]
    if isinstance(result, StudyResult):
        plan = [("figure4", curves.figure4), ("bias_width", curves.bias_width_figure)]
    else:
        plan = [("growth", curves.growth_figure)]
    examples = usable_examples(result)
    if examples is None:
        return plan
    plan.append(("frames_labels", figures.frames_labels_figure))
    if examples.sampled_rate < 1 and len(examples.labels_sampled):
        plan.append(("subsampled", figures.subsampled_figure))
    plan += [("histogram", figures.histogram_figure), ("trend", figures.trend_figure)]
    if len(examples.settings):
        plan.append(("correction", figures.correction_figure))
    return plan
