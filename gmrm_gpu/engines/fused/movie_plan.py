"""What the fit of a whole movie launches and how much memory it takes; pure functions of the sizes (METHOD.md 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...backend import host_namespace, make_backend
from ...config import MixtureConfig
from ...mixture import drift, maps, movie_settle
from ...mixture.design import TrendBasis
from ...mixture.maps import CellMaps, n_levels
from ...mixture.movie import FIT_LEVELS, FIT_SAMPLES, START_SAMPLES
from ...mixture.rows import even_step
from ...results import FitStatus
from ..source import KernelSource, shared_bytes
from .launch import Launch
from .model import Constants, model_constants, n_sums

HOST = make_backend(host_namespace, dtype="float64")
_MOST_TABLES = 40960  # bytes of the tables of eight warps; more take too much shared memory on older GPUs
_POOL_THREADS = 256
_PAST_BYTES = 256
_STATE_BYTES = 4096  # room for Shared of the largest model; the kernel checks it when it is compiled
_ROW = 36  # the following as in movie_pass.cuh, movie_maps.cuh and movie_read.cuh
_REACH = 6
_PART = 1024


def block_of(mixture: MixtureConfig) -> tuple[int, int]:
    """Threads of a block and how many blocks a multiprocessor should hold: fewer where a thread needs more registers.

    Which warp takes which samples of a frame, and so the bits of sums, depends on it, and so on the model alone.
    """
    large = mixture.n_components > 4 or 8 * 4 * _table_size(mixture) > _MOST_TABLES
    return (128, 3) if large else (256, 2)


def movie_obstacle(shape: tuple[int, int], mixture: MixtureConfig) -> str | None:
    """Why movies of frames of that shape cannot be fitted as a whole by the kernels; None: they can."""
    rows, columns = CellMaps(shape, 5, HOST).grid  # of cells of one pixel, the finest of all
    if 2 * mixture.n_components * rows * columns >= 2**31:
        return f"frames of {shape[0]} x {shape[1]} pixels, whose maps are too large"
    return None


def movie_constants(mixture: MixtureConfig, *, wide: bool) -> Constants:
    """Definitions of the movie's kernels: the model, and the numbers that the array-API implementation uses."""
    threads, blocks = block_of(mixture)

    def numbers(values: tuple[float, ...]) -> str:
        return ",".join(repr(float(v)) for v in values)

    gaussian = tuple(math.exp(-0.5 * (step / maps.CELLS_PER_SD) ** 2) for step in range(_REACH + 1))
    return (
        *model_constants(mixture, wide=wide),
        ("THREADS", threads),
        ("MIN_BLOCKS", blocks),
        ("MOVIE_STATE_BYTES", _STATE_BYTES),
        ("GAUSSIAN", ",".join(f"{value!r}f" for value in gaussian)),
        ("SHRINKAGE", repr(maps.SHRINKAGE)),
        ("PRIOR_FLOOR", repr(maps.FLOOR)),
        ("PUREST", repr(maps.PUREST)),
        ("DECAY", repr(maps.DECAY)),
        ("DECAY_PAST", repr(maps.DECAY_PAST)),
        ("STEP_OF_WALK", numbers(drift.STEP)),
        ("FIRST_OF_WALK", numbers(drift.FIRST)),
        ("MOST_CONTRAST", repr(drift.MOST_CONTRAST)),
        ("MAX_ITER", movie_settle.MAX_ITER),
        ("LONGEST", repr(movie_settle.LONGEST)),
        ("TOL", repr(movie_settle.TOL)),
        ("UNUSABLE", int(FitStatus.DEGENERATE)),
    )


@dataclass(frozen=True)
class MovieSizes:
    """R replicates of T frames of `shape`, `m` places a frame, of `n_pixels` that are not excluded.

    Attributes
    ----------
    wide : whether a sample takes 8 bytes. n_ways : ways in which the pixels of an expectation are weighed.
    """

    n_replicates: int
    n_frames: int
    m: int
    shape: tuple[int, int]
    mixture: MixtureConfig
    n_pixels: int
    wide: bool = False
    n_ways: int = 1

    @property
    def word(self) -> int:
        """Bytes a sample."""
        return 8 if self.wide else 4

    @property
    def n_start(self) -> int:
        """Places a frame of the even subset that the start is fitted to."""
        return min(self.m, -(-START_SAMPLES // self.n_frames))

    @property
    def n_fit(self) -> int:
        """Places a frame of the even subset that the parameters are fitted to."""
        return min(self.m, -(-FIT_SAMPLES // self.n_frames))

    @property
    def stride(self) -> int:
        """Of even subsets: place (t n + i) % m * stride % m of frame t is the i-th of n."""
        return even_step(self.m)

    @property
    def rate(self) -> float:
        """Part of the pixels that a frame has places for."""
        return min(1.0, self.m / self.n_pixels)

    @property
    def settle_levels(self) -> int:
        """Levels of the maps that parameters are fitted with."""
        return min(n_levels(self.rate * self.n_fit / self.m), FIT_LEVELS)

    @property
    def remaps(self) -> bool:
        """Whether labels need other maps than the parameters."""
        return self.n_fit < self.m or n_levels(self.rate) > self.settle_levels

    @property
    def label_levels(self) -> int:
        """Levels of the maps that labels are made with."""
        return n_levels(self.rate) if self.remaps else self.settle_levels

    @property
    def past_levels(self) -> int:
        """Levels of the maps of what the past expects."""
        return self.label_levels + 1

    def grid(self, levels: int) -> tuple[int, int]:
        """Rows and columns of the finest cells of maps of so many levels."""
        return CellMaps(self.shape, levels, HOST).grid

    def map_size(self, levels: int) -> int:
        """Numbers in the finest map of one frame, all components."""
        rows, columns = self.grid(levels)
        return self.mixture.n_components * rows * columns

    @property
    def n_common(self) -> int:
        """Float64 numbers of `Common` in movie.cuh."""
        return 3 * self.mixture.n_components + max(self.mixture.n_terms, 1) + 1

    @property
    def n_drift(self) -> int:
        """Numbers of a frame's deviation."""
        return self.mixture.n_terms + 2

    @property
    def n_numbers(self) -> int:
        """Float64 numbers a frame that settling works with: parameters, sums, the walk."""
        return n_parameters(self.mixture) + n_sums(self.mixture) + self.n_drift * (self.n_drift + 1)

    @property
    def n_past_parts(self) -> int:
        """Float64 numbers that sums over the samples and cells of a frame are made from."""
        rows, columns = self.grid(self.past_levels)
        return n_parts(self.m) * self.mixture.n_components + n_parts(rows * columns) * self.n_ways


def n_parameters(mixture: MixtureConfig) -> int:
    """Parameters of a frame: log weights, means, log sigmas, coefficients."""
    return 3 * mixture.n_components + mixture.n_terms


def n_parts(n: int) -> int:
    """Parts that a sum over `n` samples or cells is cut into."""
    return -(-n // _PART)


@dataclass(frozen=True)
class TeamPlan:
    """A launch in which teams of blocks take the replicates.

    Attributes
    ----------
    team_size : blocks of a team. n_teams : that work at the same time.
    team_bytes, block_bytes : scratch of each team, and of each block beyond that.
    """

    launch: Launch
    team_size: int
    n_teams: int
    team_bytes: int
    block_bytes: int

    @property
    def scratch_bytes(self) -> int:
        """Scratch of the launch."""
        return self.n_teams * self.team_bytes + self.launch.blocks * self.block_bytes


@dataclass(frozen=True)
class Room:
    """What a launch may use: blocks that the device holds at once, and bytes of scratch (None: no limit).

    Neither changes a bit of the results.
    """

    resident_blocks: int
    scratch_bytes: int | None = None


def plan_pool(sizes: MovieSizes) -> Launch | None:
    """The even subset for the start, and the check for infinite samples; None where neither is needed."""
    if sizes.n_start == sizes.m and not sizes.wide:
        return None
    constants = (("WIDE", int(sizes.wide)), ("THREADS", _POOL_THREADS))
    n = sizes.n_replicates * sizes.n_frames * (sizes.m if sizes.wide else sizes.n_start)
    return Launch(
        KernelSource("movie_pool", "movie_pool.cu", constants), min(2**16, -(-n // _POOL_THREADS)), _POOL_THREADS
    )


def settle_launch(sizes: MovieSizes) -> Launch:
    """One block that settles movies."""
    source = KernelSource("movie_settle", "movie_settle.cu", movie_constants(sizes.mixture, wide=sizes.wide))
    threads = block_of(sizes.mixture)[0]
    return Launch(source, 1, threads, shared_bytes(_STATE_BYTES, threads // 32 * 4 * _table_size(sizes.mixture)))


def label_launch(sizes: MovieSizes) -> Launch:
    """One block that labels."""
    source = KernelSource("movie_label", "movie_label.cu", movie_constants(sizes.mixture, wide=sizes.wide))
    return Launch(source, 1, block_of(sizes.mixture)[0], shared_bytes(_reading_bytes(sizes)))


def past_launch(sizes: MovieSizes) -> Launch:
    """One block that makes expectations."""
    constants = movie_constants(sizes.mixture, wide=sizes.wide)
    constants = (*constants, ("N_WAYS", sizes.n_ways), ("PAST_BYTES", _PAST_BYTES))
    return Launch(
        KernelSource("movie_past", "movie_past.cu", constants),
        1,
        block_of(sizes.mixture)[0],
        shared_bytes(_reading_bytes(sizes), _PAST_BYTES),
    )


def plan_settle(sizes: MovieSizes, room: Room) -> TeamPlan:
    """The fit of all replicates in one launch; frames are shared by the blocks of a team."""
    size = sizes.map_size(sizes.settle_levels)
    subset = sizes.word * sizes.n_fit if sizes.n_fit < sizes.m else 0
    team = sizes.n_frames * (subset + 4 * size + 8 * sizes.n_numbers)
    return _teams(settle_launch(sizes), sizes, room, team, 8 * size, sizes.n_frames)


def plan_labels(sizes: MovieSizes, room: Room) -> TeamPlan:
    """The labels of all replicates in one launch; frames are shared by the blocks of a team."""
    size, k = sizes.map_size(sizes.label_levels), sizes.mixture.n_components
    team = sizes.n_frames * 8 * (k + size)
    return _teams(label_launch(sizes), sizes, room, team, 8 * size + 8 * n_parts(sizes.m) * k, sizes.n_frames)


def plan_past(sizes: MovieSizes, room: Room) -> TeamPlan:
    """The expectations of all replicates in one launch; cells and samples are shared by the blocks of a team."""
    size = sizes.map_size(sizes.past_levels)
    most = max(1, -(-size // (4 * block_of(sizes.mixture)[0])))
    return _teams(past_launch(sizes), sizes, room, 16 * size + 8 * sizes.n_past_parts, 0, most)


def _teams(block: Launch, sizes: MovieSizes, room: Room, team: int, each: int, most: int) -> TeamPlan:
    """As many teams as there are replicates and room; then blocks to fill the device, at most `most` a team."""
    resident, scratch = max(1, room.resident_blocks), room.scratch_bytes
    n_teams, team_size = min(sizes.n_replicates, resident), most
    if scratch is not None:
        n_teams = max(1, min(n_teams, scratch // (team + each)))
        team_size = max(1, min(most, (scratch // n_teams - team) // max(each, 1)))
    team_size = max(1, min(team_size, resident // n_teams))
    launch = replace(block, blocks=n_teams * team_size, cooperative=team_size > 1)
    return TeamPlan(launch, team_size, n_teams, team, each)


def shares_bytes(sizes: MovieSizes) -> int:
    """Device memory of the weights of cells, however many replicates there are."""
    rows, columns = sizes.grid(sizes.past_levels)
    return 8 * rows * columns * sizes.n_ways


def movie_bytes(sizes: MovieSizes) -> int:
    """Device memory of one replicate, scratch of the launches left out."""
    k, places, frames = sizes.mixture.n_components, sizes.m * sizes.n_frames, sizes.n_frames
    pooled = sizes.word * sizes.n_start * frames if sizes.n_start < sizes.m else 0
    numbers = 8 * (k + sizes.n_drift + 1 + sizes.n_ways) * frames + 8 * (sizes.n_common + 4)
    deposits = 4 * sizes.map_size(sizes.settle_levels) * frames
    return places * (sizes.word + 1 + 4 + 4) + pooled + numbers + deposits


def _reading_bytes(sizes: MovieSizes) -> int:
    """`Reading` in movie_read.cuh."""
    k, q = sizes.mixture.n_components, max(sizes.mixture.n_terms, 1)
    return 8 * (sizes.n_common + n_parameters(sizes.mixture) + k) + -(-4 * (4 * k + q) // 8) * 8


def _table_size(mixture: MixtureConfig) -> int:
    """Float32 numbers of a warp's table in movie_pass.cuh."""
    pairs = (len(TrendBasis(mixture.terms).monomials) + 1) // 2
    return (4 * ((mixture.n_components + 1) // 2) + 2 * pairs) * _ROW
