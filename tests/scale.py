"""How many cases the tests under tests/reliability take: the quick number, or with ``GMRM_GPU_LONG=1`` the long one."""

from __future__ import annotations

import os

LONG = os.environ.get("GMRM_GPU_LONG") == "1"


def cases(quick: int, long: int) -> int:
    """The number of cases to try."""
    return long if LONG else quick
