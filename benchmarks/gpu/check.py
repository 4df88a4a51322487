"""Before anything is timed: the kernels say what the array-API implementation on the CPU says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gmrm_gpu.backend import make_backend
from gmrm_gpu.engines import GenericEngine
from gmrm_gpu.recorder import Observer
from gmrm_gpu.runner import Runner

from .rig import Rig
from .sizes import Sizes, growing_movie

MOST_LABELS = 1e-3
"""Part of the labels that may differ: fits that stop within their tolerance put a few pixels on the other side."""
MOST_SHARE = 2e-3


class CheckError(AssertionError):
    """The kernels are wrong; nothing they take is worth timing."""


class _Labels(Observer):
    """Keeps the labels of every frame."""

    def __init__(self) -> None:
        self.found: list[np.ndarray] = []

    def fitted(self, t, fit, foreground, positions, labels) -> None:
        """Before the vote."""
        self.found.append(np.asarray(labels.get() if hasattr(labels, "get") else labels))


def check_against_generic(rig: Rig, sizes: Sizes) -> dict:
    """Shares, statuses and labels of a small study, at a sampled rate and with all pixels, by both methods.

    Raises
    ------
    CheckError
        They differ by more than rounding explains.
    """
    movie = growing_movie(sizes.check_side, sizes.check_frames)
    host = make_backend(np)
    settings = replace(sizes.analysis, compute=replace(sizes.analysis.compute, device="cpu"))
    worst = {"labels": 0.0, "share": 0.0}
    for method, rate, n in (("paper", max(sizes.rates), 3), ("paper", 1.0, 1), ("movie", max(sizes.rates), 2)):
        curves, labels, analysis = [], [], settings.with_method(method)
        for backend, engine in ((host, GenericEngine(host, "check")), (rig.backend, rig.watched()[0])):
            seen = _Labels()
            curves.append(Runner(movie, analysis, backend, engine).run(rate, np.arange(n), observer=seen))
            labels.append(np.stack(seen.found))
        wanted, found = curves
        if not np.array_equal(found.status, wanted.status):
            raise CheckError(f"{method} at rate {rate:g}: fits end otherwise than those of the generic engine")
        if labels[0].shape != labels[1].shape:
            raise CheckError(f"{method} at rate {rate:g}: labels are {labels[1].shape}, not {labels[0].shape}")
        worst["labels"] = max(worst["labels"], float((labels[0] != labels[1]).mean()))
        worst["share"] = max(worst["share"], float(np.nanmax(np.abs(found.share - wanted.share))))
        if not (worst["labels"] <= MOST_LABELS and worst["share"] <= MOST_SHARE):
            raise CheckError(f"{method} at rate {rate:g}: {worst} from the generic engine is too far")
    return {"labels_that_differ": worst["labels"], "largest_difference_of_a_share": worst["share"]}


def same_bits(first: object, second: object) -> bool:
    """Whether two sets of curves are equal to the last bit."""
    names = first.__dataclass_fields__  # type: ignore[attr-defined]
    return all(np.asarray(getattr(first, n)).tobytes() == np.asarray(getattr(second, n)).tobytes() for n in names)
