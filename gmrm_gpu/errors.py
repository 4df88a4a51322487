"""Exceptions. Each derives from `GmrmError` and from the built-in a caller would expect to catch.

A message says in one line what was seen and what to do. A numerical outcome of one fit (no convergence, a
dropped component) is data, a `FitStatus`, and never one of these.
"""


class GmrmError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(GmrmError, ValueError):
    """A setting is out of range, unknown, or contradicts another."""


class InputError(GmrmError, ValueError):
    """A movie, mask or file does not hold what the analysis needs."""


class OutputError(GmrmError, OSError):
    """A result cannot be written where it was asked for."""


class MissingDependencyError(GmrmError, ImportError):
    """An optional package is needed; the message names the command that installs it."""


class DeviceError(GmrmError, RuntimeError):
    """The device asked for cannot be used."""


class MemoryBudgetError(GmrmError, MemoryError):
    """Even one replicate does not fit into the memory budget."""


class DeviceMemoryError(GmrmError, MemoryError):
    """The device has no memory left for an array or a kernel; smaller blocks of replicates may fit."""
