"""Movies: reading them lazily, choosing frames and pixels, writing them. Host arrays only.

>>> import numpy as np
>>> from gmrm_gpu.frames import open_movie
>>> movie = open_movie(np.zeros((5, 8, 10), np.uint8), frames="1:5:2", crop="0:8,2:10")
>>> len(movie), movie.shape, movie.frame_numbers.tolist()
(2, (8, 8), [1, 3])
"""

from .movie import Acquisition, ArrayMovie, Movie, MovieView, Visits
from .registry import open_labels, open_movie
from .sampled.sparse import save_visits
from .save import save_movie

__all__ = [
    "Acquisition",
    "ArrayMovie",
    "Movie",
    "MovieView",
    "Visits",
    "open_labels",
    "open_movie",
    "save_movie",
    "save_visits",
]
