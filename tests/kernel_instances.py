"""Every kernel as it is compiled in the tests, with what it may use of a multiprocessor.

Registers are ceilings, somewhat above what NVRTC 13.0 needs: a change that needs more should be noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from gmrm_gpu.config import MixtureConfig
from gmrm_gpu.engines.device import PROBE
from gmrm_gpu.engines.fused import cut
from gmrm_gpu.engines.fused.correct import correct_source
from gmrm_gpu.engines.fused.draw import SCHEME_NUMBERS, VALUE_TYPES, draw_source
from gmrm_gpu.engines.fused.fit import plan_fit
from gmrm_gpu.engines.fused.label import plan_label
from gmrm_gpu.engines.fused.launch import Launch
from gmrm_gpu.engines.fused.movie_plan import MovieSizes, label_launch, past_launch, plan_pool, settle_launch
from gmrm_gpu.engines.fused.tally import tally_source
from gmrm_gpu.engines.source import KernelSource

ARCHITECTURES = {
    "sm_75": 65536,
    "sm_80": 166912,
    "sm_86": 101376,
    "sm_90": 232448,
    "sm_100": 232448,
    "sm_120": 101376,
}
"""Turing to Blackwell, what the kernels are written for, and the shared memory that a block may have there."""
REGISTERS = 65536
"""Of a multiprocessor, and at most of a block, on every architecture."""
ALL, SOME, ONE = tuple(ARCHITECTURES), ("sm_80", "sm_90", "sm_120"), ("sm_90",)

TERMS = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
HIGH_TERMS = ((4, 0), (3, 1), (2, 2), (1, 3), (0, 4), (3, 0), (0, 3), (2, 1), (1, 2))
USUAL = MixtureConfig().terms
SMALL, LARGE = 2621, 262144
"""Samples of a fit: one block, a team of blocks."""


@dataclass(frozen=True)
class Instance:
    """An instance of a kernel.

    Attributes
    ----------
    label : in the test's name. source : the kernel. threads : of its largest block. registers : ceiling, of a thread.
    shared_bytes : of a block. stack_bytes, spill_bytes : ceilings of a thread's local arrays, and of what registers
        were too few for.
    archs : compiled for these in each test run, and for the others by ``pytest -m slow``.
    """

    label: str
    source: KernelSource
    threads: int
    registers: int
    shared_bytes: int = 0
    stack_bytes: int = 0
    archs: tuple[str, ...] = ALL
    spill_bytes: int = 0


def instances() -> list[Instance]:
    """All instances."""
    probe = Instance("probe", PROBE, 1024, 24)
    return [probe, *_draws(), *_fits(), *_labels(), *_corrections(), *_tallies(), *_movies()]


def _launched(label: str, launch: Launch, registers: int, *, stack: int = 0, archs: tuple[str, ...] = ALL) -> Instance:
    return Instance(label, launch.kernel, launch.threads, registers, launch.shared_bytes, stack, archs)


def _mixture(k: int, terms: tuple[tuple[int, int], ...]) -> MixtureConfig:
    return MixtureConfig(n_components=k, trend=terms or "none")


def _model(k: int, terms: tuple[tuple[int, int], ...]) -> str:
    return f"K{k}-q{len(terms)}-degree{max((a + b for a, b in terms), default=0)}"


def _draws() -> list[Instance]:
    found = []
    for scheme in SCHEME_NUMBERS:
        for dtype in VALUE_TYPES:
            source = draw_source(scheme, np.dtype(dtype), wide=dtype != "uint8")
            archs = ALL if dtype in ("uint8", "float32") else ONE
            found.append(Instance(f"draw-{scheme}-{dtype}", source, cut.THREADS, 64, 64, archs=archs))
    return found


def _fits() -> list[Instance]:
    """Slowly, all numbers of components and terms; else the default, the largest, and a few more once."""
    chosen = {(4, USUAL, SMALL): ALL, (4, USUAL, LARGE): SOME, (6, TERMS, SMALL): SOME}
    once = ((2, (), SMALL), (3, USUAL, SMALL), (5, USUAL, LARGE), (6, HIGH_TERMS, SMALL), (6, HIGH_TERMS, LARGE))
    chosen |= dict.fromkeys(once, ONE)
    slow = [(k, TERMS[:q], m) for k in range(2, 7) for q in range(10) for m in (SMALL, LARGE)]
    chosen |= {case: () for case in slow if case not in chosen}
    found = [_fit(*case, archs) for case, archs in chosen.items()]
    found += [_fit(4, USUAL, SMALL, ONE, wide=True), _fit(4, USUAL, LARGE, ONE, wide=True)]
    binned = ((4, USUAL, SMALL, SOME), (4, USUAL, LARGE, ALL), (6, TERMS, LARGE, SOME), (2, (), SMALL, ONE))
    return [*found, *(_fit(*case, histogram=True) for case in (*binned, (6, HIGH_TERMS, SMALL, ONE)))]


def _fit(
    k: int,
    terms: tuple[tuple[int, int], ...],
    m: int,
    archs: tuple[str, ...],
    *,
    wide: bool = False,
    histogram: bool = False,
) -> Instance:
    launch = plan_fit(1000, m, replace(_mixture(k, terms), histogram=histogram), wide=wide).launch
    label = f"fit-{_model(k, terms)}{'-team' * launch.cooperative}{'-wide' * wide}{'-histogram' * histogram}"
    blocks = int(dict(launch.kernel.constants)["MIN_BLOCKS"])
    return _launched(label, launch, min(REGISTERS // (blocks * launch.threads), 240), stack=16, archs=archs)


def _labels() -> list[Instance]:
    found = []
    for k, terms, wide in ((2, (), False), (4, USUAL, False), (4, USUAL, True), (6, HIGH_TERMS, False)):
        launch = plan_label(1000, SMALL, _mixture(k, terms), wide=wide)
        found.append(_launched(f"label-{_model(k, terms)}{'-wide' * wide}", launch, 88))
    return found


def _corrections() -> list[Instance]:
    """A window of pixels is 0 words (any width), 1 or 2."""
    found = []
    for n_phases, window, wide in product(range(2, 7), range(3), (False, True)):
        source = correct_source(n_phases, window, wide=wide)
        archs = ALL if n_phases in (2, 3, 6) and not wide else ONE
        label = f"correct-P{n_phases}-window{window}{'-wide' * wide}"
        found.append(Instance(label, source, cut.THREADS, 64, stack_bytes=24, archs=archs))
    return found


def _tallies() -> list[Instance]:
    schemes = ("fixed", "stratified", "lines")
    return [Instance(f"tally-{scheme}", tally_source(scheme), cut.THREADS, 40) for scheme in schemes]


def _movies() -> list[Instance]:
    """The kernels of movies fitted as a whole. What one thread does alone may keep arrays in local memory, and what is
    kept while functions that are not inlined run may be spilled."""
    found = []
    models = ((4, USUAL, False, ALL), (2, (), True, ONE), (4, USUAL, True, ()), (6, TERMS, False, ()))
    for k, terms, wide, archs in (*models, (6, HIGH_TERMS, True, ONE)):
        sizes = MovieSizes(100, 300, SMALL, (512, 512), _mixture(k, terms), 512 * 512, wide=wide)
        name = f"{_model(k, terms)}{'-wide' * wide}"
        kept = ((settle_launch(sizes), 800, 128), (label_launch(sizes), 80, 64), (past_launch(sizes), 112, 192))
        for launch, stack, spilled in kept:
            label = f"{launch.kernel.name.replace('_', '-')}-{name}"
            one = _launched(label, launch, 168 if k > 4 else 128, stack=stack, archs=archs)
            found.append(replace(one, spill_bytes=spilled))
    many = MovieSizes(100, 300, 26214, (512, 512), _mixture(4, USUAL), 512 * 512)
    for sizes in (many, replace(many, wide=True)):
        launch = plan_pool(sizes)
        assert launch is not None
        found.append(_launched(f"movie-pool{'-wide' * sizes.wide}", launch, 48))
    return found
