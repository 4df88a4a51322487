"""Fits by packages of R: data in files, parameters from what `fits.R` prints."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from .density import Mixture
from .measure import MAX_ITERATIONS, Found
from .scenes import TERMS, Data, K

SCRIPT = Path(__file__).with_name("fits.R")


@lru_cache
def version(package: str) -> str:
    """Of an R package and of R; empty where either is missing."""
    words = f"cat(as.character(packageVersion('{package}')), ', R ', as.character(getRversion()), sep = '')"
    if shutil.which("Rscript") is None:
        return ""
    done = subprocess.run(["Rscript", "--vanilla", "-e", words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def missing(package: str) -> str | None:
    """Why an R package cannot run."""
    if shutil.which("Rscript") is None:
        return "R is not installed"
    return None if version(package) else f"R's package {package} is not installed"


def fit(function: str, data: Data, tol: float) -> Found:
    """Call a function of `fits.R`; its clock runs during the fit alone.

    Raises
    ------
    RuntimeError
        R failed, with the last line that it said.
    """
    first = data.start()
    with tempfile.TemporaryDirectory() as folder:
        data.values.tofile(f"{folder}/values.bin")
        data.basis.T.tofile(f"{folder}/basis.bin")
        first.posterior(data.values, data.basis).T.tofile(f"{folder}/posterior.bin")
        np.savetxt(f"{folder}/start.txt", np.stack([first.weights, first.means, first.sigmas]), fmt="%.17g")
        command = ["Rscript", "--vanilla", str(SCRIPT), function, folder, f"{tol:g}", str(MAX_ITERATIONS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "R said nothing").splitlines()[-1])
    return parse(done.stdout)


def parse(text: str) -> Found:
    """What was found, from lines of a name and numbers; slopes of one for all, or column by column one for each."""
    words = [line.split() for line in text.splitlines()]
    told = {line[0]: np.array([float(word) for word in line[1:]]) for line in words if line and line[0] in _NAMES}
    slopes = told.get("slopes", np.zeros(len(TERMS)))
    if slopes.size > len(TERMS):
        slopes = slopes.reshape(len(TERMS), K)
    mixture = Mixture(told["weights"], told["means"], told["sigmas"], slopes)
    return Found(float(told["seconds"][0]), mixture, iterations=int(told["iterations"][0]))


_NAMES = ("seconds", "weights", "means", "sigmas", "slopes", "iterations")
