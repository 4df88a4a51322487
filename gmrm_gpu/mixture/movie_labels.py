"""What a fitted movie says of every sample, read a few frames at a time (METHOD.md 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..backend import Array
from .design import unblock
from .maps import DECAY_PAST, CellMaps, log_prior, through_time
from .moments import Layout, e_step
from .movie_steps import MovieParameters, MovieSteps, frame_weights
from .rows import FrameRows, groups


@dataclass(frozen=True)
class MovieLabels:
    """What the fitted movie says of each sample; device arrays.

    The probabilities of a replicate without usable parameters are NaN, its labels 0.

    Attributes
    ----------
    best : (R, T, m) uint8, likeliest component, from the samples of all other frames.
    posterior : (R, T, m) probability of the foreground, likewise.
    expected : (R, T, m) probability of the foreground at the sample's pixel from earlier frames alone.
    expected_mean : (R, T) the same, mean over all pixels of the frame that are not excluded, float64.
    expected_weighted : (R, T) that mean of the probability times the pixel's weight; None without weights.
    """

    best: Array
    posterior: Array
    expected: Array
    expected_mean: Array
    expected_weighted: Array | None = None


class Reader:
    """Maps and labels of all samples, the parameters staying as they are.

    Parameters
    ----------
    maps, deposits : (R, T, K, *maps.grid), what the fit ended with.
    """

    def __init__(
        self, rows: FrameRows, now: MovieParameters, steps: MovieSteps, maps: CellMaps, deposits: Array
    ) -> None:
        self.rows, self.now, self.maps, self.deposits = rows, now, maps, deposits
        self.backend, self.basis = steps.backend, steps.basis
        self.n_replicates, self.n_frames, k = now.weights.shape
        self.layout = Layout(k, self.basis.n_terms)
        self.theta = steps.theta(now, own_weights=False)

    def remap(self, maps: CellMaps) -> None:
        """New deposits in `maps` from the labels that the maps so far give; each frame's weights too."""
        xp, k = self.backend.xp, self.layout.n_components
        made = self.backend.zeros((self.theta.shape[0], k, *maps.grid))
        counts = []
        for part, prior in self.priors():
            _, resp = self._resp(part, prior, self.maps)
            made[part, ...] = maps.deposit(maps.cells(self.rows.place_blocks(part)), resp)
            counts.append(_count(resp, xp))
        count = xp.reshape(xp.concat(counts, axis=0), self.now.weights.shape)
        self.now = replace(self.now, weights=frame_weights(count, self.now.alive, backend=self.backend))
        self.maps, self.deposits = maps, xp.reshape(made, (*self.now.weights.shape, *maps.grid))

    @property
    def past_maps(self) -> CellMaps:
        """The maps of `from_the_past`, one level finer."""
        return CellMaps(self.maps.shape, self.maps.n_levels + 1, self.backend, purest=1.0)

    def two_sided(self, foreground: Array, rank: Array) -> tuple[Array, Array]:
        """Label and probability of the foreground (R, T, m) from all other frames.

        Parameters
        ----------
        foreground : (R * T, K) working precision, 1 where a component is foreground. rank : (R * T, K) uint8, the
            label of each component.
        """
        xp, m = self.backend.xp, self.rows.m
        n_rows = self.theta.shape[0]
        best, posterior = self.backend.zeros((n_rows, m), xp.uint8), self.backend.zeros((n_rows, m))
        for part, prior in self.priors():
            _, resp = self._resp(part, prior, self.maps)
            posterior[part, :] = self._foreground(resp, foreground[part, :])
            likeliest = xp.reshape(unblock(xp.argmax(resp, axis=2), m, backend=self.backend), (-1, m))
            best[part, :] = xp.take_along_axis(rank[part, :], likeliest, axis=1)
        shape = (self.n_replicates, self.n_frames, m)
        return xp.reshape(best, shape), xp.reshape(posterior, shape)

    def from_the_past(self, foreground: Array, pixel_shares: Array) -> tuple[Array, Array]:
        """Going forward in time: what the frames before expect of the foreground.

        Nothing of a frame's own samples enters its expectation: the assisted estimate is unbiased whatever it is. So
        it may follow the samples more closely than a prior should, which makes the estimate narrower.

        Parameters
        ----------
        foreground : (R * T, K), as in `two_sided`. pixel_shares : (cells, n) float64, n ways to weigh the cells.

        Returns
        -------
        expected : (R, T, m) at the samples. means : (R, T, n) float64 over the cells.
        """
        xp, n_frames, m, maps = self.backend.xp, self.n_frames, self.rows.m, self.past_maps
        k = self.layout.n_components
        expected = self.backend.zeros((self.n_replicates, n_frames, m))
        means = self.backend.zeros((self.n_replicates, n_frames, pixel_shares.shape[1]), xp.float64)
        for group in groups(self.n_replicates, max(m, maps.n_cells)):
            held = self.backend.zeros((group.stop - group.start, k, *maps.grid))
            weights = frame_weights(0.0 * self.now.weights[group, 0, :], self.now.alive[group, :], backend=self.backend)
            for t in range(n_frames):
                part = slice(group.start * n_frames + t, (group.stop - 1) * n_frames + t + 1, n_frames)
                prior, chosen = maps.prior(held, weights), foreground[part, :]
                at_samples, resp = self._resp(part, prior, maps)
                expected[group, t, :] = self._foreground(at_samples, chosen)
                share = xp.sum(prior * chosen[:, :, None, None], axis=1)
                share = xp.astype(xp.reshape(share, (share.shape[0], -1)), xp.float64)
                for i in range(pixel_shares.shape[1]):
                    means[group, t, i] = xp.sum(share * pixel_shares[:, i][None, :], axis=1)
                held = DECAY_PAST * (held + maps.deposit(maps.cells(self.rows.place_blocks(part)), resp))
                weights = frame_weights(_count(resp, xp), self.now.alive[group, :], backend=self.backend)
        return expected, means

    def priors(self) -> Iterator[tuple[slice, Array]]:
        """A few rows at a time, their weights (rows, K, *grid) from all other frames."""
        xp = self.backend.xp
        held = xp.reshape(through_time(self.deposits, backend=self.backend), (-1, *self.deposits.shape[2:]))
        weights = xp.reshape(self.now.weights, (-1, self.layout.n_components))
        for part in groups(held.shape[0], max(self.rows.m, self.maps.n_cells)):
            yield part, self.maps.prior(held[part, ...], weights[part, :])

    def _resp(self, part: slice, prior: Array, maps: CellMaps) -> tuple[Array, Array]:
        """Prior at the samples and responsibilities (rows, blocks, K, n) of the rows of `part`."""
        samples = self.rows.samples(part, 1 + self.layout.n_terms)
        at_samples = maps.at_samples(prior, maps.cells(self.rows.place_blocks(part)))
        samples = replace(samples, log_weights=log_prior(at_samples, self.backend.xp))
        return at_samples, e_step(samples, self.theta[part, :], self.layout, backend=self.backend)[2]

    def _foreground(self, values: Array, chosen: Array) -> Array:
        """(rows, m) sum of (rows, blocks, K, n) over the chosen components."""
        both = self.backend.xp.sum(values * chosen[:, None, :, None], axis=2)
        return unblock(both, self.rows.m, backend=self.backend)


def _count(resp: Array, xp: Any) -> Array:
    """(rows, K) float64 sums of responsibilities."""
    return xp.sum(xp.sum(xp.astype(resp, xp.float64), axis=3), axis=1)
