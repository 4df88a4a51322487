"""Labels of all samples of fitted movies, from what all other frames left (`kernels/movie_label.cu`, METHOD.md 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .device import Call
from .jit import compiled
from .movie_crew import Crew, each_replicate
from .movie_deposits import deposit, through_time
from .movie_maps import Maps, clear, make_maps
from .movie_pass import Scratch, find_cells, make_scratch, open_frame, read_block
from .movie_steps import Common, common_at, frame_theta, frame_weights
from .samples import Units, make_units
from .sums import BLOCK, Model, make_model

NOT_VISITED = np.uint8(255)
_ZERO = np.float32(0.0)


@compiled
def add_counts(resp, n, count):
    """Add the responsibilities of n samples, (K, BLOCK), to count (K,) float64."""
    for k in range(count.size):
        total = _ZERO
        for i in range(n):
            total += resp[k, i]
        count[k] += total


@compiled
def remap_frames(first, last, words, shape, units, maps, held, common, drift, weights, model, finest, made, scratch):
    """New deposits (T, K cells of finest) from the labels that the maps so far give; each frame's weights too."""
    theta, count = np.empty(3 * model.k + model.q), np.empty(model.k)
    for t in range(first, last):
        frame_theta(common, drift[t], theta)
        prior = open_frame(maps, held[t], theta, weights[t], model, scratch)
        clear(made[t])
        deposits = made[t].reshape((model.k, finest.rows * finest.columns))
        count[:] = 0.0
        for i in range(0, words.shape[1], BLOCK):
            mine = words[t, i : min(i + BLOCK, words.shape[1])]
            n, _ = read_block(mine, shape[0], shape[1], units, maps, prior, model, scratch)
            add_counts(scratch.work.resp, n, count)
            find_cells(mine, finest, scratch.cells)
            for k in range(model.k):
                deposit(scratch.work.resp, k, scratch.cells, n, deposits)
        frame_weights(count, common.alive, weights[t])


@compiled
def choose(resp, n, foreground, label_of, most, probability, label):
    """The label (BLOCK,) of the first likeliest component, and the probability of the foreground."""
    for i in range(n):
        most[i] = resp[0, i]
        label[i] = label_of[0]
        probability[i] = resp[0, i] if foreground[0] else _ZERO
    for k in range(1, label_of.size):
        for i in range(n):
            label[i] = label_of[k] if resp[k, i] > most[i] else label[i]
            most[i] = max(resp[k, i], most[i])
            probability[i] += resp[k, i] if foreground[k] else _ZERO


@compiled
def place(words, found, nothing, out):
    """What was found for the samples among `words` put where they stand; `nothing` elsewhere."""
    no_sample, n = ~words.dtype.type(0), 0
    for i in range(words.size):
        is_sample = words[i] != no_sample
        out[i] = found[n] if is_sample else nothing
        n += is_sample


@compiled
def label_frames(
    first, last, words, shape, units, maps, held, common, drift, weights, model, phases, labels, posterior, scratch
):
    """labels, posterior (T, m); phases : foreground (K,) and label_of (K,)."""
    theta, label = np.empty(3 * model.k + model.q), np.empty(BLOCK, np.uint8)
    probability = np.empty(BLOCK, np.float32)
    for t in range(first, last):
        frame_theta(common, drift[t], theta)
        prior = open_frame(maps, held[t], theta, weights[t], model, scratch)
        for a in range(0, words.shape[1], BLOCK):
            b = min(a + BLOCK, words.shape[1])
            n, _ = read_block(words[t, a:b], shape[0], shape[1], units, maps, prior, model, scratch)
            choose(scratch.work.resp, n, phases[0], phases[1], scratch.work.top, probability, label)
            place(words[t, a:b], label, NOT_VISITED, labels[t, a:b])
            place(words[t, a:b], probability, _ZERO, posterior[t, a:b])


@dataclass(frozen=True)
class Labelling:
    """One replicate: words (T, m), held (T, K cells of finest) scratch, weights (T, K) of this reading."""

    call: Call
    crew: Crew
    model: Model
    shape: tuple[int, int]
    words: np.ndarray
    units: Units
    common: Common
    drift: np.ndarray
    weights: np.ndarray
    held: np.ndarray

    def spread(self, made: np.ndarray) -> np.ndarray:
        """What deposits (T, places) of the other frames leave to each."""
        decay = np.float32(self.call.constants["DECAY"])
        held = self.held.reshape(-1)[: made.size].reshape(made.shape)
        self.crew.share(lambda a, b, _: through_time(made, held, decay, a, b), made.shape[1])
        return held

    def remap(self, maps: Maps, deposits: np.ndarray, finest: Maps, made: np.ndarray) -> None:
        """Deposits of `finest` from what `deposits` in `maps` say of the samples."""
        held = self.spread(deposits)
        numbers = (held, self.common, self.drift, self.weights, self.model, finest, made)

        def work(first: int, last: int, mine: Scratch) -> None:
            remap_frames(first, last, self.words, self.shape, self.units, maps, *numbers, mine)

        self.crew.share(work, len(self.words))

    def label(self, maps: Maps, deposits: np.ndarray, phases: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
        """labels (T, m), and the posterior of the foreground to `out`."""
        held = self.spread(deposits)
        numbers = (held, self.common, self.drift, self.weights, self.model, phases, labels, out)

        def work(first: int, last: int, mine: Scratch) -> None:
            label_frames(first, last, self.words, self.shape, self.units, maps, *numbers, mine)

        self.crew.share(work, len(self.words))


def movie_label(
    call: Call,
    words: np.ndarray,
    n_replicates: int,
    n_frames: int,
    m: int,
    height: int,
    width: int,
    settle_levels: int,
    label_levels: int,
    n_remap: int,
    usable: np.ndarray,
    units: np.ndarray,
    common: np.ndarray,
    fitted_weights: np.ndarray,
    drift: np.ndarray,
    settled: np.ndarray,
    foreground: np.ndarray,
    label_of: np.ndarray,
    team_size: int,
    labels: np.ndarray,
    posterior: np.ndarray,
    weights: np.ndarray,
    made: np.ndarray,
    held: np.ndarray,
    scratch: np.ndarray,
    parts: np.ndarray,
    board: np.ndarray,
) -> None:
    """Arguments as of the CUDA kernel."""
    model, frames, shape = make_model(call), int(n_frames), (int(height), int(width))
    coarse, finest = (make_maps(call, *shape, int(levels)) for levels in (settle_levels, label_levels))
    size = model.k * finest.n_cells
    made, held = (array.reshape(-1, frames, size) for array in (made.view(np.int32), held))
    weights = weights.reshape(-1, frames, model.k)
    scratches = [make_scratch(model, finest.columns, part) for part in scratch.reshape(-1, 2 * size)]

    def work(r: int, team: int, crew: Crew) -> None:
        if not usable[r]:
            labels[r], posterior[r] = NOT_VISITED, np.nan
            return
        mine = weights[team]
        mine[:] = fitted_weights[r]
        view = (words[r], make_units(*units[r]), common_at(common[r], model.k), drift[r], mine, held[team])
        job = Labelling(call, crew, model, shape, *view)
        maps, deposits = coarse, settled[r].reshape(frames, -1).view(np.int32)
        for _ in range(n_remap):
            job.remap(maps, deposits, finest, made[team])
            maps, deposits = finest, made[team]
        job.label(maps, deposits, np.stack([foreground[r], label_of[r]]), labels[r], posterior[r])

    each_replicate(call.pool, int(n_replicates), len(held), scratches, work)
