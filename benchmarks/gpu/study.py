"""The whole study by the kernels: end to end, by stage, against the floor, launch by launch, and bit by bit."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from gmrm_gpu.config import AnalysisConfig, StudyConfig
from gmrm_gpu.engines import FusedEngine
from gmrm_gpu.engines.fused.fit import start_rooms
from gmrm_gpu.engines.fused.plan import BlockSize, plan_fits, plan_launches
from gmrm_gpu.frames import Movie
from gmrm_gpu.runner import Curves, Runner
from gmrm_gpu.study.plan import Block, plan_blocks

from .check import same_bits
from .floor import DESIGN, instructions_a_pixel, seconds_a_pixel
from .rig import Rig, WatchedDevice
from .sizes import Sizes

Row = dict[str, Any]


def fused_runner(rig: Rig, movie: Movie, analysis: AnalysisConfig) -> tuple[Runner, WatchedDevice]:
    """A run whose launches are watched; nothing is on the device yet."""
    engine, device = rig.watched()
    return Runner(movie, analysis, rig.backend, engine), device


def blocks_of(runner: Runner, rate: float, n: int) -> list[Block]:
    """The blocks that a study would take n replicates in."""
    study = StudyConfig(runner.config, (rate,), (n,), (runner.config.method,))
    return plan_blocks(runner, study, runner.budget * 3 // 4, 1)


def run_blocks(runner: Runner, blocks: list[Block]) -> list[Curves]:
    """One after the other."""
    return [runner.run(block.rate, block.replicates) for block in blocks]


def block_size(runner: Runner, rate: float, n: int) -> BlockSize:
    """Sizes of a block as the engine has them."""
    assert isinstance(runner.engine, FusedEngine)
    return runner.engine.size(runner.sampler(rate), n, runner.frames, runner.budget)


def warm_up(rig: Rig, movie: Movie, sizes: Sizes) -> Row:
    """Compile and load every kernel of the study; seconds, and how many."""
    runner, device = fused_runner(rig, movie, sizes.analysis)
    started = time.perf_counter()
    launches = [launch for rate in sizes.rates for launch in plan_launches(block_size(runner, rate, 1), sizes.analysis)]
    kernels = {launch.kernel for launch in launches}
    rig.prepare(kernels)
    compiled = time.perf_counter() - started
    for rate in sizes.rates:
        runner.run(rate, np.arange(1))
    device.forget()
    return {
        "what": "first use",
        "kernels": len(kernels),
        "compile_s": compiled,
        "first_run_s": time.perf_counter() - started - compiled,
    }


def measure_study(rig: Rig, movie: Movie, sizes: Sizes) -> list[Row]:
    """`repeats` studies from frames in host memory to shares: a row a rate and one of all, of the median study."""
    runs = []
    for _ in range(sizes.repeats):
        rig.free()
        runner, device = fused_runner(rig, movie, sizes.analysis)
        rows, curves = [], []
        for rate, n in zip(sizes.rates, sizes.replicates, strict=True):
            row, found = _measure_rate(rig, runner, device, rate, n)
            rows.append(row)
            curves.append(found)
        runs.append((sum(row["s"] for row in rows), rows, curves, rig.high_water()))
        del runner, device
    runs.sort(key=lambda run: run[0])
    seconds, rows, curves, high_water = runs[len(runs) // 2]
    names = list(dict.fromkeys(name for row in rows for name in row["stages_s"]))
    whole = {
        "what": "study",
        "rate": "all",
        "replicates": sum(sizes.replicates),
        "s": seconds,
        "spread_s": [runs[0][0], runs[-1][0]],
        "stages_s": {name: sum(row["stages_s"].get(name, 0.0) for row in rows) for name in names},
        "launches": sum(row["launches"] for row in rows),
        "launches_planned": sum(row["launches_planned"] for row in rows),
        "as_planned": all(row["as_planned"] for row in rows),
        "high_water_bytes": high_water,
        "bit_equal": all(all(map(_same, curves, other)) for _, _, other, _ in runs),
    }
    return [*rows, whole]


def _same(first: list[Curves], second: list[Curves]) -> bool:
    return all(same_bits(a, b) for a, b in zip(first, second, strict=True))


def _measure_rate(rig: Rig, runner: Runner, device: WatchedDevice, rate: float, n: int) -> tuple[Row, list[Curves]]:
    blocks = blocks_of(runner, rate, n)
    planned = [
        launch.kernel.name
        for block in blocks
        for launch in plan_launches(block_size(runner, rate, block.stop - block.start), runner.config)
    ]
    device.forget()
    seconds, curves = rig.timed(lambda: run_blocks(runner, blocks))
    stages = device.stages()
    row = {
        "what": "study",
        "rate": rate,
        "replicates": n,
        "frames": len(runner.movie),
        "pixels": runner.sampler(rate).capacity,
        "blocks": len(blocks),
        "s": seconds,
        "stages_s": stages,
        "launches": len(device.launches),
        "launches_planned": len(planned),
        "as_planned": [ran.name for ran in device.launches] == planned,
    }
    device.forget()
    return row, curves


def check_cut(rig: Rig, movie: Movie, sizes: Sizes) -> Row:
    """Replicates of the lowest rate in one block and in several: the same bits."""
    rate, n = sizes.rates[-1], max(2, sizes.replicates[-1] // 2)
    rig.free()
    runner, _ = fused_runner(rig, movie, sizes.analysis)
    whole = [runner.run(rate, np.arange(n))]
    edges = [0, n // 3, n // 2, n]
    parts = [runner.run(rate, np.arange(a, b)) for a, b in pairwise(edges) if b > a]
    return {"what": "cut", "rate": rate, "blocks": len(parts), "bit_equal": same_bits(_joined(parts), _joined(whole))}


def _joined(parts: list[Curves]) -> Curves:
    names = parts[0].__dataclass_fields__
    return Curves(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def measure_fit(rig: Rig, movie: Movie, sizes: Sizes) -> list[Row]:
    """The fit kernel against its floor at each rate: a fifth of the replicates, whose numbers of passes are kept."""
    rows = []
    for rate, total in zip(sizes.rates, sizes.replicates, strict=True):
        rig.free()
        runner, device = fused_runner(rig, movie, sizes.analysis)
        assert isinstance(runner.engine, FusedEngine)
        n = max(1, total // 5)

        def fit(runner: Runner = runner, rate: float = rate, n: int = n) -> Any:
            assert isinstance(runner.engine, FusedEngine)
            return runner.engine.run(
                runner.frames,
                runner.sampler(rate),
                np.arange(n),
                runner.config,
                sigma_floor=runner.survey.sigma_floor,
                budget=runner.budget,
                keep=True,
            )

        hz, (_, kept) = rig.clock_during(fit)
        row = {"what": "fit", "rate": rate, "replicates": n, "frames": len(movie)}
        rows.append(row | _against_floor(rig, runner, rate, n, kept.fits, device.stages()["fit"], hz))
        del runner, device, kept
    return rows


def _against_floor(rig: Rig, runner: Runner, rate: float, n: int, fits: Any, seconds: float, hz: float | None) -> Row:
    """Picoseconds of a pixel, component and pass, and the least that they could be, computed."""
    mixture = runner.config.mixture
    source = plan_fits(block_size(runner, rate, n), runner.config).launch.kernel
    (subset, _), n_starts = start_rooms(runner.sampler(rate).capacity), len(mixture.starts)
    converging = float((fits.n_iter * fits.n_samples).sum())
    starting = float(fits.n_iter.size * n_starts * mixture.n_start_iter * subset) if n_starts > 1 else 0.0
    to_ps = 1e12 / mixture.n_components
    row = {
        "fit_s": seconds,
        "passes_mean": float(fits.n_iter.mean()),
        "passes_max": int(fits.n_iter.max()),
        "pixel_passes": converging,
        "pixel_passes_of_starts": starting,
        "ps_per_pixel_component_pass": to_ps * seconds / (converging + starting),
    }
    if rig.multiprocessors is None or rig.clock_hz is None:
        return row
    binary = rig.binary(source)
    counted = instructions_a_pixel(binary, "fit", mixture.n_components) if binary else float(DESIGN["exact"])
    floor = to_ps * seconds_a_pixel(counted, rig.multiprocessors, rig.clock_hz)
    return row | {
        "instructions_a_pixel": counted,
        "instructions_from": "machine code" if binary else "the design's prototype",
        "clock_hz": rig.clock_hz,
        "clock_hz_during_the_run": hz,
        "floor_ps_computed": floor,
        "floor_ps_design_computed": to_ps * seconds_a_pixel(DESIGN["exact"], rig.multiprocessors, rig.clock_hz),
        "times_the_floor": row["ps_per_pixel_component_pass"] / floor,
    }


def settings_with(sizes: Sizes, **mixture: Any) -> AnalysisConfig:
    """The settings of the study with another mixture."""
    return replace(sizes.analysis, mixture=replace(sizes.analysis.mixture, **mixture))
