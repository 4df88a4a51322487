"""Reports: figures as PNG and SVG, and one self-contained HTML page (extra ``plot``: matplotlib and jinja2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import OutputError
from ..results import AnalysisResult, StudyResult
from .common import analysis_config, figure_name, is_movie, usable_examples
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
        pictures = {name: save_figure(draw(), folder / "figures" / name)[0] for name, draw in _plan(result)}
        page = folder / "report.html"
        page.write_text(html.render(result, pictures), "utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report into {folder}: {error.strerror or error}") from error
    return page


Plan: TypeAlias = list[tuple[str, Callable[[], Any]]]


def _plan(result: AnalysisResult | StudyResult) -> Plan:
    """(file name, drawing function) of each figure, in the order of the page."""
    from . import curves, drift, growth

    if isinstance(result, AnalysisResult):
        plan: Plan = [("growth", partial(growth.growth_figure, result))]
        if len(result.frame) > 1 and len(growth.estimators(result)) > 1:
            plan.append(("estimators", partial(growth.estimators_figure, result)))
        plan += _pictures(result)
        return plan if drift.drift_of(result) is None else [*plan, ("drift", partial(drift.drift_figure, result))]
    plan = [("comparison", partial(curves.comparison_figure, result))] if result.others else []
    for part in result.every:
        own = {"figure4": curves.figure4, "bias_width": curves.bias_width_figure}
        plan += [(figure_name(name, part), partial(draw, part)) for name, draw in own.items()]
    for part in result.every:
        plan += [(figure_name(name, part), draw) for name, draw in _pictures(part)]
    return plan


def _pictures(result: AnalysisResult | StudyResult) -> Plan:
    """The figures that need frames."""
    from . import figures

    examples = usable_examples(result)
    if examples is None:
        return []
    names = ["frames_labels"]
    if examples.sampled_rate < 1 and len(examples.labels_sampled):
        names.append("subsampled")
    names += ["histogram", "trend"]
    # Where it is off by default, what it would do is beside the point.
    if len(examples.settings) and not (is_movie(result) and analysis_config(result).correction.radius_px == 0):
        names.append("correction")
    return [(name, partial(getattr(figures, f"{name}_figure"), result)) for name in names]
