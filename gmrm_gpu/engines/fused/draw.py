"""Draw and gather: the visited pixels of R replicates of a slab of frames, with their values, in one launch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...backend import Array, host_namespace, make_backend
from ...sampling import Sampler
from ..source import KernelSource, shared_bytes
from .cut import THREADS, Cut, cut_samples
from .launch import Device, Launch

VALUE_TYPES = {
    "uint8": "u8",
    "int8": "signed char",
    "uint16": "u16",
    "int16": "short",
    "float16": "u16",
    "float32": "float",
}
"""Pixel types that the kernels read, each exact as a float32, and their names in C."""
SCHEME_NUMBERS = {"full": 0, "fixed": 1, "bernoulli": 2, "stratified": 3, "lines": 4}
MOST_SIDE, MOST_PIXELS = 65535, 2**30
"""Largest frame: coordinates have 16 bits, products of two sides 32, and places are counted by int32."""
_KEY_BYTES = 52
_HOST = make_backend(host_namespace)


def draw_obstacle(shape: tuple[int, int], dtype: np.dtype) -> str | None:
    """Why frames of that shape and type cannot be drawn from on the device; None: they can."""
    if np.dtype(dtype).name not in VALUE_TYPES:
        return f"pixels of type {np.dtype(dtype).name}"
    if max(shape) > MOST_SIDE or shape[0] * shape[1] > MOST_PIXELS:
        return f"frames of {shape[0]} x {shape[1]} pixels"
    return None


def needs_wide(shape: tuple[int, int], dtype: np.dtype, *, padded: bool) -> bool:
    """Whether a sample takes 8 bytes; else 4. See samples.cuh; `padded`: some places may hold no sample."""
    return np.dtype(dtype) != np.uint8 or max(shape) > (4095 if padded else 4096)


def word_type(wide: bool) -> type:
    """NumPy's type of a packed sample."""
    return np.uint64 if wide else np.uint32


@dataclass(frozen=True)
class DrawJob:
    """One sampling rate over a movie.

    Attributes
    ----------
    sampler : which pixels. replicates : (R,) uint32 and frames : (T,) uint32, their numbers. dtype : of the movie.
    """

    sampler: Sampler
    replicates: np.ndarray
    frames: np.ndarray
    dtype: np.dtype

    @property
    def m(self) -> int:
        """Places a frame."""
        return self.sampler.capacity

    @property
    def wide(self) -> bool:
        """Whether a sample takes 8 bytes."""
        return needs_wide(self.sampler.shape, self.dtype, padded=self.sampler.layout.padded)

    @property
    def cut(self) -> Cut:
        """Places of a block."""
        return cut_samples(self.m)

    @cached_property
    def source(self) -> KernelSource:
        """The kernel's instance."""
        return draw_source(self.sampler.layout.scheme, self.dtype, wide=self.wide)

    @property
    def plan(self) -> np.ndarray:
        """(14,) uint32, the kernel's ``DrawPlan``."""
        (height, width), layout, config = self.sampler.shape, self.sampler.layout, self.sampler.config
        counts = (height, width, self.m, len(self.replicates), len(self.frames), layout.n)
        n_thresholds = 0 if layout.thresholds is None else len(layout.thresholds)
        sizes = (network_bits(layout.n), layout.rows, layout.columns, layout.first_count, n_thresholds)
        return np.array([*counts, *sizes, *seed_words(config.seed, config.rate)], dtype=np.uint32)


def network_bits(n: int) -> int:
    """Bits of the permutation's network; see `philox.permute`."""
    return max(6, (n - 1).bit_length())


def seed_words(seed: int, rate: float) -> tuple[int, int, int]:
    """The two halves of the seed, and the rate's word, as in `philox.stream_words`."""
    mask = 0xFFFFFFFF
    return seed & mask, seed >> 32, min(round(rate * 2**32), mask)


def pack_draws(sampler: Sampler, replicates: np.ndarray, numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(R, T, m) packed words of draws that the host makes, as samples.cuh has them: those of a sub-sampled movie.

    numbers : (T,) of the frames. dtype : of the movie.
    """
    wide, width = needs_wide(sampler.shape, dtype, padded=sampler.layout.padded), sampler.shape[1]
    words: np.ndarray = np.empty((len(replicates), len(numbers), sampler.capacity), word_type(wide))
    for t, number in enumerate(numbers):
        draw = sampler.draw(replicates, int(number), backend=_HOST)
        values = np.asarray(draw.values)
        y, x = np.divmod(draw.positions.astype(words.dtype), words.dtype.type(width))
        if wide:
            bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
            packed = bits << np.uint64(32) | y << np.uint64(16) | x
        else:
            packed = values.astype(np.uint32) << np.uint32(24) | y << np.uint32(12) | x
        words[:, t] = packed if draw.valid is None else np.where(draw.valid, packed, np.iinfo(words.dtype).max)
    return words


def draw_source(scheme: str, dtype: np.dtype, *, wide: bool) -> KernelSource:
    """The kernel's instance for a scheme (``"full"`` too) and a type of pixels."""
    name = np.dtype(dtype).name
    constants = (
        ("SCHEME", SCHEME_NUMBERS[scheme]),
        ("VALUE", VALUE_TYPES[name]),
        ("HALF", int(name == "float16")),
        ("WIDE", int(wide)),
    )
    return KernelSource("draw", "draw.cu", constants)


def plan_draw(job: DrawJob, n_frames: int) -> Launch:
    """The launch for a slab of `n_frames` frames."""
    blocks = len(job.replicates) * n_frames * job.cut.chunks
    return Launch(job.source, blocks, THREADS, shared_bytes(_KEY_BYTES))


@dataclass(frozen=True)
class Drawn:
    """A job's arrays on the device.

    Attributes
    ----------
    samples : (R, T, m) packed words. n_samples : (R, T) int32, how many of them are samples.
    inputs : what the kernel reads besides the movie, in its order.
    """

    job: DrawJob
    samples: Array
    n_samples: Array
    inputs: tuple[Array | None, ...]


def prepare_draw(job: DrawJob, device: Device) -> Drawn:
    """Memory for the samples of all frames, and the tables."""
    layout, shape = job.sampler.layout, (len(job.replicates), len(job.frames))
    thresholds = None if layout.thresholds is None else device.asarray(layout.thresholds)
    table = layout.table
    if table is not None:
        table = device.asarray(table.view(np.uint8) if table.dtype == bool else table)
    numbers = (device.asarray(np.asarray(a, dtype=np.uint32)) for a in (job.replicates, job.frames))
    inputs = (device.asarray(job.plan), table, thresholds, *numbers)
    samples = device.empty((*shape, job.m), word_type(job.wide))
    return Drawn(job, samples, device.zeros(shape, np.int32), inputs)


def run_draw(drawn: Drawn, movie: Array, first: int, device: Device) -> None:
    """Draw from a slab: `movie` (frames, height, width) on the device, of the job's dtype, is frames `first` on."""
    job = drawn.job
    plan, *tables = drawn.inputs
    movie = movie.view(np.uint16) if job.dtype == np.float16 else movie
    sizes = (np.int32(first), np.int32(job.cut.length), np.int32(job.cut.chunks))
    args = (plan, movie, *tables, drawn.samples, drawn.n_samples, *sizes)
    plan_draw(job, movie.shape[0]).run(device, args)
