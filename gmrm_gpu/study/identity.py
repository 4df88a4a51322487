"""What a study's numbers depend on, and its fingerprint: shards are mixed only where it is the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from .. import __version__
from ..config import StudyConfig, config_to_dict
from ..frames import Movie


def movie_digest(movie: Movie) -> str:
    """SHA-256 of all that an analysis sees of a movie: pixels or visits, excluded pixels, frame numbers, calibration.

    Every frame is read once. The name does not count: a movie may be moved.
    """
    found = hashlib.sha256()
    known = [str(movie.dtype), movie.shape, movie.sampled, movie.pixel_size_um, movie.frame_time_s]
    found.update(json.dumps(known).encode())
    for array in (movie.frame_numbers, movie.acquisition.times_s, movie.valid):
        _add(found, np.zeros(0) if array is None else np.asarray(array))
    for t in range(len(movie)):
        if movie.sampled:
            seen = movie.visits(t)
            _add(found, seen.positions)
            _add(found, seen.values)
        else:
            _add(found, movie.frame(t))
    return found.hexdigest()


def _add(found: Any, array: np.ndarray) -> None:
    """Type, size and contents: arrays that follow each other cannot be taken for one."""
    array = np.ascontiguousarray(array)
    found.update(f"{array.dtype.str}{array.shape}".encode())
    found.update(array.reshape(-1).view(np.uint8).data)


def identity(movie: Movie, config: StudyConfig, engines: dict[str, str], device: str) -> dict[str, Any]:
    """Movie, settings, engines and device that every shard of a study has in common, as plain JSON.

    Not in it: how many replicates at which rates (a study can be extended), and what changes no bit (memory, threads).

    Parameters
    ----------
    engines : method -> name of its engine; engines agree up to rounding only. device : ``"numpy"`` or ``"cupy"``.
    """
    settings = config_to_dict(config.analysis)
    del settings["method"], settings["sampling"]["rate"]
    compute = settings.pop("compute")
    return {
        "gmrm_gpu": __version__,
        "movie": {
            "pixels": movie_digest(movie),
            "shape": [len(movie), *movie.shape],
            "dtype": str(movie.dtype),
            "sampled": movie.sampled,
        },
        "settings": json.loads(json.dumps(settings)),
        "dtype": compute["dtype"],
        "engine": dict(engines),
        "device": device,
    }


def fingerprint(known: dict[str, Any]) -> str:
    """SHA-256 of an `identity`."""
    return hashlib.sha256(json.dumps(known, sort_keys=True, allow_nan=False).encode()).hexdigest()
