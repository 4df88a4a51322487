"""How single frames differ from the movie's parameters (`kernels/movie_walk.cuh`, `mixture.drift`); float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .jit import compiled

if TYPE_CHECKING:
    from .device import Call


class Tie(NamedTuple):
    """What ties a frame's deviation to its neighbour's.

    Attributes
    ----------
    step, first : (q + 2,) inverse variances of a step of the walk, and of its first value; 0 if there is no walk.
    most_contrast : bound of a frame's contrast.
    """

    step: Any
    first: Any
    most_contrast: Any


def make_tie(call: Call, n_terms: int, strength: float) -> Tie:
    """Ties of trend coefficients, offset and contrast; strength : scale of the steps, 0: no walk."""

    def inverse(name: str, scale: float) -> np.ndarray:
        sizes = [float(word) for word in str(call.constants[name]).split(",")]
        return 1.0 / (np.array([sizes[0]] * n_terms + sizes[1:]) * scale) ** 2

    step = inverse("STEP_OF_WALK", strength) if strength > 0.0 else np.zeros(n_terms + 2)
    return Tie(step, inverse("FIRST_OF_WALK", 1.0), float(call.constants["MOST_CONTRAST"]))


@compiled
def eliminate(a):
    """Solve A X = B by Gauss-Jordan, A (n, n) positive definite, so without pivoting; a : (n, n + m) becomes (., X)."""
    n = a.shape[0]
    for c in range(n):
        inverse = 1.0 / a[c, c]
        for j in range(c, a.shape[1]):
            a[c, j] *= inverse
        for i in range(n):
            factor = a[i, c]
            if i != c:
                for j in range(c, a.shape[1]):
                    a[i, j] -= factor * a[c, j]


@compiled
def add_information(sums, component, precision, contrast, model, out):
    """Add what the samples of a component say of a frame's deviation (b_1..b_q, o, g).

    Parameters
    ----------
    sums : of the frame. precision, contrast : of the component, 1 / sigma^2 and mean - pivot.
    out : (q + 2, q + 3) information and, beside it, the pull: what the data alone ask for.
    """
    q, at = model.q, component * (model.p + model.q + 2)
    for i in range(q + 2):
        weight = precision * (contrast if i == q + 1 else 1.0)
        for j in range(q + 2):
            if i < q and j < q:
                product = model.pair[i, j]
            else:
                product = 1 + i if i < q else 1 + j if j < q else 0
            out[i, j] += weight * (contrast if j == q + 1 else 1.0) * sums[at + product]
        out[i, q + 2] += weight * sums[at + model.p + (1 + i if i < q else 0)]


@compiled
def smooth_walk(walk, tie):
    """The likeliest deviations: a block tridiagonal system, solved forwards and back.

    walk : (T, q + 2, q + 3) information and pull; the deviations are left in place of the pull.
    """
    n_frames, d = walk.shape[0], walk.shape[1]
    system = np.zeros((d, 2 * d + 1))
    for t in range(n_frames):
        links = (1 if t > 0 else 0) + (1 if t < n_frames - 1 else 0)
        for i in range(d):
            for j in range(d):
                before = tie.step[i] * walk[t - 1, i, j] if t else 0.0
                system[i, j] = walk[t, i, j] - before
                system[i, d + j] = tie.step[i] if i == j else 0.0
            system[i, i] += links * tie.step[i] + (0.0 if t else tie.first[i])
            system[i, 2 * d] = walk[t, i, d] + (tie.step[i] * walk[t - 1, i, d] if t else 0.0)
        eliminate(system)
        walk[t, :, :] = system[:, d:]
    for t in range(n_frames - 2, -1, -1):
        for i in range(d):
            for j in range(d):
                walk[t, i, d] += walk[t, i, j] * walk[t + 1, j, d]
