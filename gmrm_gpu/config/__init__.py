"""Every setting of an analysis, as frozen dataclasses that check themselves; TOML in and out.

Defaults: four components, quadratic trend with electrode terms; the method `movie`, which decides by itself what is
foreground. The method `paper` takes the brightest component, and a vote in the L2 ball r = 10, gamma = 0.4, of past
frames.
"""

from .analysis import METHODS, AnalysisConfig, StudyConfig
from .files import (
    analysis_config_from_json,
    analysis_from_dict,
    config_to_dict,
    load_toml,
    save_toml,
    study_from_dict,
)
from .settings import (
    DEVICES,
    DTYPES,
    ENGINES,
    ESTIMATORS,
    GEOMETRIES,
    METRICS,
    PHASE_RULES,
    POLARITIES,
    SCHEDULES,
    SCHEMES,
    SIDES,
    STARTS,
    TREND_PRESETS,
    WINDOWS,
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
    check_choice,
    check_whole,
    check_within,
    trend_terms,
)
from .units import parse_bytes, parse_length_um, parse_time_s, parse_width

__all__ = [
    "DEVICES",
    "DTYPES",
    "ENGINES",
    "ESTIMATORS",
    "GEOMETRIES",
    "METHODS",
    "METRICS",
    "PHASE_RULES",
    "POLARITIES",
    "SCHEDULES",
    "SCHEMES",
    "SIDES",
    "STARTS",
    "TREND_PRESETS",
    "WINDOWS",
    "AnalysisConfig",
    "ComputeConfig",
    "CorrectionConfig",
    "MixtureConfig",
    "PhaseConfig",
    "QuantityConfig",
    "SamplingConfig",
    "StudyConfig",
    "analysis_config_from_json",
    "analysis_from_dict",
    "check_choice",
    "check_whole",
    "check_within",
    "config_to_dict",
    "load_toml",
    "parse_bytes",
    "parse_length_um",
    "parse_time_s",
    "parse_width",
    "save_toml",
    "study_from_dict",
    "trend_terms",
]
