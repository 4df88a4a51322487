"""A movie of which only some pixels are kept: the same pixels that an analysis at that rate looks at.

>>> from gmrm_gpu.config import SamplingConfig
>>> from gmrm_gpu.frames import save_visits
>>> thin = thin_movie(movie, SamplingConfig(rate=0.01, seed=7))  # doctest: +SKIP
>>> save_visits(thin, "thin.npz")  # doctest: +SKIP
"""

from __future__ import annotations

import numpy as np

from .backend import make_backend
from .config import SamplingConfig
from .errors import ConfigError
from .frames import Movie, Visits
from .frames.over import MovieOver
from .visited import drawn_values, sampler_of


def thin_movie(movie: Movie, sampling: SamplingConfig, *, replicate: int = 0) -> Movie:
    """The sub-sampled movie that an analysis of `movie` at ``sampling.rate`` sees; frames are drawn when asked for.

    Parameters
    ----------
    movie : whole frames, or sub-sampled already: then a part of its visits.
    sampling : rate below 1, scheme and seed (METHOD.md 9).
    replicate : which of the draws of a study; an analysis takes 0.

    Raises
    ------
    ConfigError
        The rate is 1, which leaves nothing out.
    InputError
        A sub-sampled movie has fewer visits than the rate asks for.
    """
    if sampling.rate >= 1:
        raise ConfigError(f"rate {sampling.rate:g} leaves no pixel out; give --rate below 1, such as 0.01")
    return ThinnedMovie(movie, sampling, replicate)


class ThinnedMovie(MovieOver):
    """See `thin_movie`."""

    def __init__(self, movie: Movie, sampling: SamplingConfig, replicate: int) -> None:
        how = "" if sampling.scheme == "fixed" else f" Analyse them with --scheme {sampling.scheme} as well."
        note = (
            f"{100 * sampling.rate:g} % of the pixels were kept of {movie.name}, scheme {sampling.scheme}, "
            f"seed {sampling.seed}.{how}"
        )
        super().__init__(movie, note, sampled=True)
        self._replicates = np.array([replicate])
        self._sampler = sampler_of(movie, sampling)
        self._backend = make_backend(np)

    def _read_visits(self, t: int) -> Visits:
        draw = self._sampler.draw(self._replicates, int(self.frame_numbers[t]), backend=self._backend)
        values = drawn_values(self._movie, t, draw, backend=self._backend)
        positions, levels = (self._backend.to_host(array)[0] for array in (draw.positions, values))
        if draw.valid is None:
            return Visits(positions, levels)
        inside = self._backend.to_host(draw.valid)[0]
        return Visits(positions[inside], levels[inside])
