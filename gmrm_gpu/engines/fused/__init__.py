"""Both methods as CUDA kernels: a whole stage for all frames of all replicates is one launch."""

from .engine import Counted, FusedEngine, Kept, MovieFrames
from .support import fused_obstacle

__all__ = ["Counted", "FusedEngine", "Kept", "MovieFrames", "fused_obstacle"]
