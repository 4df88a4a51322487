"""`gmrm-gpu thin`: keep only some pixels of a movie, in a file as small as they are."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..errors import ConfigError, OutputError
from ..frames import Movie, open_movie, save_visits
from ..thinning import thin_movie
from . import console as say
from .console import Console
from .options import analysis_config
from .shared import inputs, open_given, stem


def run_thin(args: argparse.Namespace, console: Console) -> None:
    """A sub-sampled movie as a file."""
    out = Path(f"{stem(args.movie)}_thin.npz" if args.out is None else args.out).expanduser()
    if any(out.resolve() == Path(name).expanduser().resolve() for name in inputs(args)):
        raise OutputError(f"{out} is read by this command; give --out another name")
    movie = _kept(args)
    with console.progress("thinning", "frames") as progress:
        save_visits(movie, out, overwrite=args.overwrite, progress=progress)
    written = open_movie(out)  # what is counted has been read back, check sums and all
    counts = [len(written.visits(t).positions) for t in range(len(written))]
    size, whole = out.stat().st_size, len(movie) * movie.shape[0] * movie.shape[1] * movie.dtype.itemsize
    print(f"{movie.name}: {say.count(len(movie), 'frame')} of {movie.shape[0]} x {movie.shape[1]}, {movie.dtype}")
    share = float(np.mean(counts)) / movie.n_pixels
    print(f"visits: {float(np.mean(counts)):,.0f} a frame, {100 * share:.3g} % of the pixels")
    print(
        f"written: {out}, {size / 1e6:.3g} MB, {100 * size / whole:.3g} % of the {whole / 1e6:.3g} MB of whole frames"
    )
    for text in movie.acquisition.sentences:
        console.note(text)


def _kept(args: argparse.Namespace) -> Movie:
    """What of the movie is written: the drawn pixels, or without --rate all visits of a sub-sampled movie."""
    movie, sampling = open_given(args), analysis_config(args).sampling
    if sampling.rate < 1:
        return thin_movie(movie, sampling)
    if not movie.sampled:
        raise ConfigError(f"{movie.name} has whole frames; give --rate, such as 0.01, or --visited or --unvisited")
    return movie
