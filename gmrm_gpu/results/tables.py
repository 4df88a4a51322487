"""CSV, and the little arithmetic of tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependencyError, printable


def rate_name(rate: float) -> str:
    """A rate as it stands in file contents: 0.1, 0.05, 0.01."""
    return f"{rate:.10g}"


def write_csv(path: str | Path, columns: dict[str, Any], n_rows: int) -> None:
    """Write columns of length `n_rows` (None: an empty column); NaN and None become empty cells."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(inert, columns))
        for i in range(n_rows):
            writer.writerow([_cell(None if values is None else values[i]) for values in columns.values()])


def inert(text: str) -> str:
    """`text` for a cell: spreadsheets run what begins like a formula, and an apostrophe before it stops them."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _cell(value: Any) -> Any:
    if value is None:
        return value
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    value = float(value)
    return "" if np.isnan(value) else f"{value:.9g}"


def mean(values: np.ndarray) -> float:
    """Mean over what is finite; NaN, without a warning, where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def import_xarray() -> Any:
    """The xarray module, or an error that says how to get it."""
    try:
        import xarray
    except ImportError:
        raise MissingDependencyError("to_xarray needs xarray: pip install xarray") from None
    return xarray
