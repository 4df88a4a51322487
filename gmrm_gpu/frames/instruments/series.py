"""A folder of instrument files, each with one image: a frame a file, in natural order (frame2 before frame10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..counts import gaps_told
from ..listing import files_of
from ..movie import Acquisition, Movie
from .em import open_file as open_em
from .stamps import told

SUFFIXES = (".dm3", ".dm4", ".mrc", ".emd", ".ser")


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a folder of files of one kind; pixel size and detector are those of the first, the frame time is unknown.

    Raises
    ------
    InputError
        Files of several kinds.
    MissingDependencyError
        RosettaSciIO is not installed.
    """
    files = files_of(path, SUFFIXES)
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1:
        raise InputError(f"{path.name} holds files of several kinds ({' '.join(kinds)}); give a folder of one kind")
    return SeriesMovie(path.name, files, luminance=luminance)


class SeriesMovie(Movie):
    """A file a frame, each opened when asked for.

    Parameters
    ----------
    files : in order of time. numbers : of the frames; None: 0, 1, ...
    known : makes what is known of the recording out of what the first file says; None: as that, without a time.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        *,
        luminance: bool,
        numbers: np.ndarray | None = None,
        known: Callable[[Acquisition], Acquisition] | None = None,
    ) -> None:
        self._files, self._luminance = list(files), luminance
        first = self._one_image(0)
        note = "the frame time of a folder of single images is unknown"
        super().__init__(
            name=name,
            shape=first.shape,
            dtype=first.dtype,
            n_frames=len(files),
            frame_numbers=numbers,
            acquisition=told(first.acquisition, note, gaps_told(files)) if known is None else known(first.acquisition),
        )

    def _read(self, t: int) -> np.ndarray:
        try:
            return self._one_image(t)._pixels(0)
        except InputError as error:
            raise InputError(f"frame {self.frame_numbers[t]} of {self.name}: {error}") from None

    def _one_image(self, t: int) -> Movie:
        movie = open_em(self._files[t], luminance=self._luminance)
        if len(movie) != 1:
            raise InputError(f"{self._files[t].name} holds {len(movie)} images; give files of one image, or one stack")
        return movie
