"""Run a study: its shards one after the other on this machine, or on a cluster, and the result from the shards."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from ..config import StudyConfig
from ..errors import InputError
from ..frames import Movie, open_movie
from ..results import Examples, StudyResult
from ..runner import Progress
from .identity import fingerprint, identity
from .job import EXAMPLE, Bench, Part, Workplace
from .shards import Shard
from .store import PLAN, DamagedPlan, Store, differences, read_plan

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """Computes shards elsewhere, in any order."""

    def engines(self, movie: Movie, config: StudyConfig) -> tuple[dict[str, str], str]:
        """method -> name of the engine, and the device, that all its workers have; raises where none is able."""

    def run(
        self, movie: Movie, config: StudyConfig, known: dict[str, Any], shards: Sequence[Shard]
    ) -> Iterable[tuple[Shard, Part]]:
        """The shards as they come; `known` is the `identity` of the study."""


def run_study(
    movie: Any,
    config: StudyConfig | None = None,
    *,
    truth: np.ndarray | None = None,
    progress: Progress | None = None,
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> StudyResult:
    """Analyse a movie many times at several sampling rates, and once on all pixels as the reference.

    Parameters
    ----------
    movie : Movie, array (T, height, width), or a path.
    config : settings; by default 100, 200 and 1,000 replicates at 10, 5 and 1 %, with the method of the paper, and a
        part of them with the method ``"movie"``.
    truth : (T,) true share of the foreground where it is known.
    progress : called with (work done, work in all), in samples fitted, of what is not in `store` yet.
    store : folder that keeps every shard once it is done. Shards that it holds already are not computed again; those
        that are damaged are. None: nothing is kept on the disk.
    executor : where shards are computed, such as `ClusterExecutor`; None: in this process.

    Returns
    -------
    StudyResult of the first method, the others in its `others`. It is a pure function of the movie, the settings
    and the seed: not of memory, threads, workers or kills, bit by bit; not of the device up to rounding.

    Raises
    ------
    InputError
        `store` holds shards of another movie or of other settings; nothing is changed then.
    """
    started = time.perf_counter()
    config = config or StudyConfig()
    movie = open_movie(movie)
    truth = None if truth is None else _checked_truth(truth, len(movie))
    # On a cluster this machine may be a laptop: it only checks the settings and describes the movie.
    place = Workplace(movie, config) if executor is None else Workplace(movie, _on_cpu(config), computes=False)
    engines, device = (place.engines, place.backend.name) if executor is None else executor.engines(movie, config)
    known = identity(place.movie, config, engines, device)
    shards = place.shards(device)
    kept = _Memory() if store is None else _opened(Path(store), known, place, shards)
    missing = kept.missing(shards)
    if isinstance(kept, Store):
        kept.drop_outgrown(shards)
    _tell(kept, len(shards) - len(missing), len(shards))
    tick = _Progress(sum(place.cost(shard) for shard in missing), progress)
    for shard, part in _computed(place, config, known, missing, executor, tick):
        kept.put(shard, part.arrays, part.record)
    run = _Run(started, len(shards), len(shards) - len(missing), None if executor is None else str(executor))
    results = [_result(place, config.of_method(m), shards, kept, truth, run) for m in config.methods]
    return replace(results[0], others=tuple(results[1:]))


def _on_cpu(config: StudyConfig) -> StudyConfig:
    compute = replace(config.analysis.compute, device="cpu", engine="generic")
    return replace(config, analysis=replace(config.analysis, compute=compute))


def _checked_truth(truth: np.ndarray, n_frames: int) -> np.ndarray:
    truth = np.asarray(truth, dtype=np.float64)
    if truth.shape != (n_frames,):
        raise InputError(f"truth has shape {truth.shape}, but the movie has {n_frames} frames; give one share each")
    return truth


class _Memory:
    """Shards of a study that is not kept on the disk."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._held: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}

    def missing(self, shards: Sequence[Shard]) -> list[Shard]:
        return list(shards)

    def put(self, shard: Shard, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        self._held[shard.name] = arrays, record

    def get(self, shard: Shard) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self._held[shard.name]


def _opened(folder: Path, known: dict[str, Any], place: Workplace, shards: Sequence[Shard]) -> Store:
    """The store, if what it holds belongs to this study; its plan is written."""
    mark = fingerprint(known)
    if (folder / PLAN).exists():
        _check_plan(folder, known, mark)
    store, config = Store(folder, mark), place.config
    design = {"rates": config.rates, "n_replicates": config.n_replicates, "methods": config.methods}
    planned = [asdict(shard) | {"name": shard.name, "cost": place.cost(shard)} for shard in shards]
    store.write_plan({"identity": known, "design": design, "shards": planned})
    return store


def _check_plan(folder: Path, known: dict[str, Any], mark: str) -> None:
    try:
        plan = read_plan(folder)
    except DamagedPlan:  # every shard tells itself which study it is of
        logger.warning(f"{PLAN} was damaged; it is written again, and shards of other settings are set aside")
        return
    if plan["fingerprint"] != mark:
        changed = "; ".join(differences(plan["identity"], known))
        raise InputError(
            f"{folder.parent} was begun otherwise: {changed}; give what it was begun with, choose another --out, "
            "or start afresh with --overwrite"
        )


def _computed(
    place: Workplace,
    config: StudyConfig,
    known: dict[str, Any],
    shards: list[Shard],
    executor: Executor | None,
    tick: _Progress,
) -> Iterator[tuple[Shard, Part]]:
    if executor is None:
        for shard in shards:
            yield shard, place.compute(shard, tick=tick.add)
        return
    for shard, part in executor.run(place.movie, config, known, shards):
        yield shard, part
        tick.add(place.cost(shard))


def _tell(kept: Store | _Memory, n_done: int, n_shards: int) -> None:
    for text in kept.notes:
        logger.warning(text)
    if n_done:
        logger.info(f"{n_done} of {n_shards} shards were done already")


@dataclass(frozen=True)
class _Run:
    """What a result tells of how it came about: when this run began, and how many shards it found done."""

    started: float
    n_shards: int
    n_before: int
    executor: str | None

    def provenance(self, bench: Bench, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Device, engine and versions are those that the shards were computed with, whenever and wherever."""
        found = bench.runner.provenance(self.started, bench.config.rates)
        reference = records[0]
        found |= {key: reference[key] for key in ("device", "gpu", "engine") if key in reference}
        found |= reference["versions"] | {"foreground": reference["decision"], "n_shards": self.n_shards}
        if self.executor is None:
            found["n_threads"] = bench.runner.n_threads or bench.n_threads
        else:
            found |= {"computed_on": self.executor, "device_reason": None, "engine_reason": None}
        if self.n_before:
            found["n_shards_of_earlier_runs"] = self.n_before
        return found | {"warnings": [*found["warnings"], *_other_versions(records)]}


def _other_versions(records: list[dict[str, Any]]) -> list[str]:
    names = sorted({name for record in records for name in record["versions"]})
    seen = {name: sorted({str(record["versions"].get(name)) for record in records}) for name in names}
    mixed = [f"{name} {' and '.join(found)}" for name, found in seen.items() if len(found) > 1]
    if not mixed:
        return []
    return [f"Shards were computed with {', '.join(mixed)}: they agree up to rounding, not bit by bit."]


def _result(
    place: Workplace,
    config: StudyConfig,
    shards: Sequence[Shard],
    kept: Store | _Memory,
    truth: np.ndarray | None,
    run: _Run,
) -> StudyResult:
    """The study of one method, from its shards."""
    bench = place.benches[config.methods[0]]
    runner = bench.runner
    parts = {shard: Part(*kept.get(shard)) for shard in shards if shard.method == config.methods[0]}
    reference = next(part for shard, part in parts.items() if shard.reference)

    def joined(name: str) -> dict[float, np.ndarray]:
        found = [(shard.rate, part.arrays[name]) for shard, part in parts.items() if not shard.reference]
        return {rate: np.concatenate([array for r, array in found if r == rate]) for rate in config.rates}

    pictures = {name[len(EXAMPLE) :]: a for name, a in reference.arrays.items() if name.startswith(EXAMPLE)}
    return StudyResult(
        movie=runner.info,
        config=config,
        scale=runner.scale,
        frame=runner.movie.frame_numbers,
        time_s=runner.time_s,
        shares=joined("volume_share"),
        status=joined("status"),
        without_neighbours=joined("without_neighbours"),
        reference=reference.arrays["volume_share"][0],
        reference_status=reference.arrays["status"][0],
        truth=truth,
        examples=Examples.from_arrays(pictures),
        provenance=run.provenance(bench, [part.record for part in parts.values()]),
    )


class _Progress:
    """Adds up samples fitted over the threads and hands them on."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._progress, self._lock, self._done, self._total = progress, Lock(), 0, total

    def add(self, samples: int) -> None:
        """So many more are done."""
        if self._progress is None:
            return
        with self._lock:
            self._done += samples
            self._progress(self._done, self._total)


__all__ = ["Executor", "run_study"]
