"""The kernels for the CPU, in Numba (extra ``cpu``): the same stages and arguments as the CUDA kernels.

Nothing here imports Numba until a `CompiledDevice` is made.
"""

from __future__ import annotations

import importlib.util

INSTALL_COMPILED = "pip install 'gmrm-gpu[cpu]'"


def compiled_obstacle() -> str | None:
    """Why there is no compiled engine, in words that follow "because"; None: there is one."""
    if importlib.util.find_spec("numba") is None:
        return f"Numba is not installed; {INSTALL_COMPILED}"
    return None
