"""Quantities straight from sub-sampled operando (S)TEM movies.

>>> import gmrm_gpu as gg
>>> sim = gg.simulate("battery", shape=(128, 128), n_frames=10, seed=1)
>>> result = gg.analyze(sim.movie, rate=0.1)
>>> result.share.shape
(10,)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "open_movie": "frames",
    "simulate": "synthetic",
    "fit_frames": "pipeline",
    "fit_two_channels": "channels",
    "analyze": "pipeline",
    "select_model": "selection",
    "plan_sampling": "planning",
    "ExpectedPhases": "synthetic.expected",
    "run_study": "study",
    "LiveAnalysis": "live.analysis",
    "thin_movie": "thinning",
    "save_visits": "frames",
    "Visits": "frames",
    "Acquisition": "frames",
    "measure_throughput": "throughput",
    "write_report": "report",
    "AnalysisConfig": "config",
    "ComputeConfig": "config",
    "CorrectionConfig": "config",
    "MixtureConfig": "config",
    "PhaseConfig": "config",
    "QuantityConfig": "config",
    "SamplingConfig": "config",
    "StudyConfig": "config",
    "AnalysisResult": "results",
    "ChannelFit": "results",
    "ChannelResult": "results",
    "FitStatus": "results",
    "MixtureFit": "results",
    "ModelSelection": "results.selection",
    "SamplingPlan": "results.planning",
    "StudyResult": "results",
    "Throughput": "results.throughput",
    "GmrmError": "errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import gmrm_gpu` is fast and loads neither CuPy nor matplotlib.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
