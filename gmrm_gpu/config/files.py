"""Settings to and from plain dicts, TOML, and the JSON of earlier results."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .analysis import AnalysisConfig, StudyConfig
from .settings import (
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
)

_SECTIONS = {
    "mixture": MixtureConfig,
    "phases": PhaseConfig,
    "correction": CorrectionConfig,
    "sampling": SamplingConfig,
    "quantity": QuantityConfig,
    "compute": ComputeConfig,
}

# The numbers of a million frames are in study.json.
_MOST_BYTES = 2**26

_RENAMED = {("compute", "n_workers"): "n_threads"}
"""Names that earlier results and settings files have."""


def config_to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a configuration, ready for JSON."""
    return asdict(config)


def analysis_from_dict(data: dict[str, Any]) -> AnalysisConfig:
    """Inverse of `config_to_dict` for an `AnalysisConfig`; unknown names raise `ConfigError`."""
    parts: dict[str, Any] = {}
    for section, values in data.items():
        if section == "method":
            parts["method"] = values
            continue
        if section not in _SECTIONS:
            raise ConfigError(f"unknown section [{section}]; use one of {', '.join(_SECTIONS)}")
        cls = _SECTIONS[section]
        if not isinstance(values, dict):
            raise ConfigError(f"{section} is {values!r}; it must be a section [{section}] with settings")
        values = {_RENAMED.get((section, name), name): value for name, value in values.items()}
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"[{section}] has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
        try:
            parts[section] = cls(**values)
        except TypeError as error:
            raise ConfigError(f"[{section}] has a setting of the wrong type: {error}") from None
    return AnalysisConfig(**parts)


def study_from_dict(data: dict[str, Any]) -> StudyConfig:
    """Inverse of `config_to_dict` for a `StudyConfig`."""
    rest = {key: tuple(data[key]) for key in ("rates", "n_replicates", "methods") if key in data}
    return StudyConfig(analysis=analysis_from_dict(data.get("analysis", {})), **rest)


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file; give a .toml, or an earlier analysis.json or study.json")
    if path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{path} is too large for settings ({path.stat().st_size:,} bytes); check the path")
    return path.read_text("utf-8")


def load_toml(path: str | Path) -> AnalysisConfig:
    """Read an analysis configuration written by `save_toml` or by hand."""
    try:
        data = tomllib.loads(_text(Path(path)))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path} is no settings file; give a .toml, or an earlier analysis.json or study.json"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, brackets in brackets
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    try:
        return analysis_from_dict(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def save_toml(config: AnalysisConfig, path: str | Path) -> None:
    """Write `config` as TOML; settings that are None are left out (their default is None)."""
    lines = [f'method = "{config.method}"']
    for section in _SECTIONS:
        lines.append(f"\n[{section}]")
        for key, value in asdict(getattr(config, section)).items():
            if value is not None:
                lines.append(f"{key} = {_toml_value(value)}")
    Path(path).write_text("\n".join(lines) + "\n", "utf-8")


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


def analysis_config_from_json(path: str | Path) -> AnalysisConfig:
    """The analysis settings in a study.json or analysis.json; `ConfigError` where there are none."""
    try:
        settings = json.loads(_text(Path(path)))["config"]
        return analysis_from_dict(settings.get("analysis", settings))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} does not hold settings of an earlier result") from None
