"""The method ``"paper"`` as CUDA kernels: draw, fit, label, vote and tally, one launch each."""

from .engine import Counted, FusedEngine, Kept, MovieFrames
from .support import fused_obstacle

__all__ = ["Counted", "FusedEngine", "Kept", "MovieFrames", "fused_obstacle"]
