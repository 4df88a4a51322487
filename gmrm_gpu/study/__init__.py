"""Monte-Carlo replicates of a movie: how far one sub-sampled growth curve can be trusted (METHOD.md 9)."""

from .run import Executor, run_study

__all__ = ["Executor", "run_study"]
