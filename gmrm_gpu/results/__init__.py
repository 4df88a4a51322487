"""What an analysis returns: fits, growth curves, studies. Host arrays only; save, load, to_xarray.

Shapes: T frames, B replicates, K components, q trend terms; images are (height, width). Missing calibration is
None, never an invented unit.
"""

from .analysis import AnalysisResult
from .channels import ChannelFit, ChannelResult
from .estimate import Estimate
from .fit import FitStatus, MixtureFit, MovieFit, fit_statuses, status_counts
from .movie import UNIT_TEXT, Examples, MovieInfo, Scale
from .study import StudyResult
from .tables import inert, rate_name, write_csv
from .trend import separation, trend_amplitude, trend_warning

__all__ = [
    "UNIT_TEXT",
    "AnalysisResult",
    "ChannelFit",
    "ChannelResult",
    "Estimate",
    "Examples",
    "FitStatus",
    "MixtureFit",
    "MovieFit",
    "MovieInfo",
    "Scale",
    "StudyResult",
    "fit_statuses",
    "inert",
    "rate_name",
    "separation",
    "status_counts",
    "trend_amplitude",
    "trend_warning",
    "write_csv",
]
