"""Which implementation runs the stages of an analysis, and why that one."""

from __future__ import annotations

from ..backend import Backend
from .generic import GenericEngine

__all__ = ["GenericEngine", "select_engine"]


def select_engine(backend: Backend) -> GenericEngine:
    """The engine for a backend; its `reason` goes into the records."""
    return GenericEngine(backend, f"array-API implementation on {backend.name}: {backend.reason}")
