"""Exceptions. Each derives from `GmrmError` and from the built-in a caller would expect to catch.

A message says in one line what was seen and what to do. A numerical outcome of one fit (no convergence, a
dropped component) is data, a `FitStatus`, and never one of these.
"""

import unicodedata

# Control characters, invisible ones, halves of pairs, line and paragraph separators.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Without a width but with a meaning, in names written in Persian or Hindi.
_JOINERS = "\u200c\u200d"


def printable(text: object) -> str:
    r"""`text` in one line of characters that can be seen, whatever file it came from.

    Escape codes would change the terminal, a right-to-left mark the order of what is read, and a line break would make
    two lines of one; all are written out.

    >>> printable("a\x1b[31m.npy")
    'a\\x1b[31m.npy'
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c) for c in text)


def _visible(c: str) -> str:
    unseen = unicodedata.category(c) in _UNSEEN and c not in _JOINERS
    return c.encode("unicode_escape").decode("ascii") if unseen else c


class GmrmError(Exception):
    """Base of everything this package raises on purpose. Its text is `printable`: it may name any file."""

    def __str__(self) -> str:
        return printable(super().__str__())


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


class ClusterError(GmrmError, RuntimeError):
    """A cluster cannot do a study: no scheduler or no able worker, or shards that fail wherever they are computed."""


class MemoryBudgetError(GmrmError, MemoryError):
    """Even one replicate does not fit into the memory budget."""


class DeviceMemoryError(GmrmError, MemoryError):
    """The device has no memory left for an array or a kernel; smaller blocks of replicates may fit."""
