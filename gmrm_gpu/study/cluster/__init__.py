"""Shards of a study on a Dask cluster (extra ``cluster``): many processes here, or many machines.

The client hands out the shards and is the only one that writes; a worker reads the movie, by its path or from a copy
that it is sent once, and computes.
"""

from .executor import ClusterExecutor

__all__ = ["ClusterExecutor"]
