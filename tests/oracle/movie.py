"""The movie-level fit and its estimators in plain float64 loops (METHOD.md 6, 8). Nothing is shared with the package.

One movie: samples (T, m), responsibilities (T, m, K), positions (T, m) flat pixel indices.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

WIDEST = 24.0  # pixels, standard deviation of the coarsest map
CELLS_PER_SD = 1.5
SHRINKAGE, PUREST, FLOOR = 0.1, 0.01, 0.01
DECAY, DECAY_PAST = 0.4, 0.6
PSEUDO = 0.5
STEP, FIRST, MOST_CONTRAST = (0.006, 0.003, 0.0025), (0.3, 0.3, 0.2), 2.0


# -- maps ----------------------------------------------------------------------------------------------------------


def cell_map(positions, resp, shape, level, n_levels):
    """(K, rows, columns) sums of one frame's responsibilities in the cells of one level, 0 the coarsest."""
    side = round(WIDEST / CELLS_PER_SD / 2 ** (n_levels - 1)) * 2 ** (n_levels - 1 - level)
    coarsest = side * 2**level
    rows, columns = (math.ceil(size / coarsest) * 2**level for size in shape)
    out = np.zeros((resp.shape[1], rows, columns))
    for place, weights in zip(np.asarray(positions).tolist(), resp, strict=True):
        y, x = divmod(place, shape[1])
        out[:, y // side, x // side] += np.round(weights * 65536) / 65536
    return out


def blur(cells):
    """Gaussian of peak 1 around every cell, cut off at four standard deviations."""
    out = np.zeros_like(cells)
    row, column = np.mgrid[: cells.shape[1], : cells.shape[2]]
    for r, c in zip(*np.nonzero(cells.sum(axis=0)), strict=True):
        dr, dc = (row - r) / CELLS_PER_SD, (column - c) / CELLS_PER_SD
        near = (abs(dr) <= 4) & (abs(dc) <= 4)
        out += np.where(near, np.exp(-0.5 * (dr**2 + dc**2)), 0.0) * cells[:, r, c, None, None]
    return out


def fading(maps, t, past):
    """What the other frames (earlier ones only, with `past`) leave to frame t."""
    out = np.zeros_like(maps[0])
    for other, made in enumerate(maps):
        if past and other < t:
            out += DECAY_PAST ** (t - other) * made
        elif not past and other != t:
            out += DECAY ** abs(t - other) * made
    return out


def prior_map(positions, resp, weights, shape, n_levels, t, past=False):
    """(K, rows, columns) of the finest cells: prior of frame t from the other frames; weights (K,) of the frame.

    From the `past` alone the coarser map is worth the same wherever it is, however pure.
    """
    prior = widest = np.asarray(weights, dtype=np.float64)[:, None, None]
    for level in range(n_levels):
        made = [cell_map(p, w, shape, level, n_levels) for p, w in zip(positions, resp, strict=True)]
        held = blur(fading(made, t, past))
        out, first = np.zeros_like(held), np.zeros_like(held)
        for r, c in itertools.product(*(range(n) for n in held.shape[1:])):
            at = (slice(None), 0, 0) if level == 0 else (slice(None), r // 2, c // 2)
            parent, first[:, r, c] = prior[at], widest[at]
            impurity = 1.0 - sum(p * p for p in parent)
            worth = SHRINKAGE / min(max(impurity, 1.0 if past else PUREST), 1.0)
            out[:, r, c] = (held[:, r, c] + worth * parent) / (held[:, r, c].sum() + worth)
        prior, widest = out, (out if level == 0 else first)
    return (1 - FLOOR) * prior + FLOOR * widest


def at_pixels(prior, places, shape, n_levels):
    """(m, K) of a finest map at flat pixel indices."""
    side = round(WIDEST / CELLS_PER_SD / 2 ** (n_levels - 1))
    return np.array([prior[:, p // shape[1] // side, p % shape[1] // side] for p in np.asarray(places).tolist()])


# -- drift ---------------------------------------------------------------------------------------------------------


def information(f, resp, residual, precision, contrast):
    """(q + 2, q + 2), (q + 2,): normal equations of one frame's own (trend, offset, contrast) by a loop over samples.

    f (m, q); residual (m, K) of each component; precision, contrast (K,).
    """
    q = f.shape[1]
    left, right = np.zeros((q + 2, q + 2)), np.zeros(q + 2)
    for i, k in itertools.product(range(len(f)), range(len(precision))):
        row = np.array([*f[i], 1.0, contrast[k]])
        left += resp[i, k] * precision[k] * np.outer(row, row)
        right += resp[i, k] * precision[k] * row * residual[i, k]
    return left, right


def walk(info, pull, step, first):
    """(T, n) minimiser of sum u'Nu/2 - pull'u plus the walk's penalties, as one dense system of T n unknowns."""
    n_frames, n = pull.shape
    whole, right = np.zeros((n_frames * n, n_frames * n)), pull.reshape(-1)
    for t in range(n_frames):
        here = slice(t * n, (t + 1) * n)
        whole[here, here] += info[t]
        if t == 0:
            whole[here, here] += np.diag(first)
        else:
            before = slice((t - 1) * n, t * n)
            whole[here, here] += np.diag(step)
            whole[before, before] += np.diag(step)
            whole[here, before] -= np.diag(step)
            whole[before, here] -= np.diag(step)
    return np.linalg.solve(whole, right).reshape(n_frames, n)


# -- one round of M-steps ------------------------------------------------------------------------------------------


def frame_means(now, t):
    """(K,) means of frame t of the dict `now`."""
    offset, gain = now["drift"][t][-2], 1 + now["drift"][t][-1]
    return now["pivot"] + offset + gain * (now["means"] - now["pivot"])


def m_steps(now, z, f, resp, strength=1.0, floor=0.0):
    """Weights, common means and trend, deviations, sigmas, each given those before; a new dict.

    now : weights (T, K), means, sigmas (K,), coef (q,), pivot, drift (T, q + 2). z (T, m), f (T, m, q),
    resp (T, m, K). All on the standardised scale.
    """
    (n_frames, m, k), q = resp.shape, f.shape[2]
    new = {name: np.array(value, dtype=np.float64) for name, value in now.items()}
    for t in range(n_frames):
        count = resp[t].sum(axis=0) + PSEUDO
        new["weights"][t] = count / count.sum()
    rows, values = [], []
    for t, i, j in itertools.product(range(n_frames), range(m), range(k)):
        offset, gain = now["drift"][t][-2], 1 + now["drift"][t][-1]
        size = math.sqrt(resp[t, i, j]) / (now["sigmas"][j] * gain)
        rows.append(size * np.array([*(gain * (np.arange(k) == j)), *f[t, i]]))
        values.append(size * (z[t, i] - f[t, i] @ now["drift"][t][:q] - offset - (1 - gain) * now["pivot"]))
    found = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    new["means"], new["coef"] = found[:k], found[k:]
    if strength > 0 and n_frames > 1:
        _drift(new, z, f, resp, strength)
    for j in range(k):
        square = 0.0
        for t in range(n_frames):
            gain = 1 + new["drift"][t][-1]
            rest = z[t] - f[t] @ (new["coef"] + new["drift"][t][:q]) - frame_means(new, t)[j]
            square += (resp[t, :, j] * rest**2).sum() / gain**2
        new["sigmas"][j] = max(math.sqrt(square / resp[..., j].sum()), floor)
    return new


def _drift(new, z, f, resp, strength):
    """Deviations of all frames, then what they have in common moved to the common parameters; in place."""
    n_frames, q = len(resp), f.shape[2]
    old_gain = 1 + new["drift"][:, -1]
    new["pivot"] = new["means"][np.argmax(new["weights"].sum(axis=0))]
    contrast = new["means"] - new["pivot"]
    info, pull = [], []
    for t in range(n_frames):
        residual = (z[t] - f[t] @ new["coef"])[:, None] - new["means"]
        left, right = information(f[t], resp[t], residual, 1 / (new["sigmas"] * old_gain[t]) ** 2, contrast)
        info.append(left)
        pull.append(right)
    sizes = [np.array([s[0]] * q + [s[1], s[2]]) for s in (STEP, FIRST)]
    found = walk(np.array(info), np.array(pull), 1 / (strength * sizes[0]) ** 2, 1 / sizes[1] ** 2)
    found[:, -1] = np.clip(found[:, -1], 1 / MOST_CONTRAST - 1, MOST_CONTRAST - 1)
    mean = found.mean(axis=0)
    new["coef"] = new["coef"] + mean[:q]
    new["pivot"] = new["pivot"] + mean[q]
    new["means"] = new["pivot"] + (1 + mean[q + 1]) * contrast
    found[:, : q + 1] -= mean[: q + 1]
    found[:, q + 1] = (1 + found[:, q + 1]) / (1 + mean[q + 1]) - 1
    new["drift"] = found


def e_step(now, z, f, priors):
    """(T, m, K) responsibilities and (T,) log-likelihoods; priors (T, m, K) of every sample."""
    q = f.shape[2]
    resp, total = np.zeros(priors.shape), np.zeros(len(z))
    for t in range(len(z)):
        means, sigmas = frame_means(now, t), now["sigmas"] * (1 + now["drift"][t][-1])
        trend = f[t] @ (now["coef"] + now["drift"][t][:q])
        for i in range(z.shape[1]):
            d = (z[t, i] - trend[i] - means) / sigmas
            joint = priors[t, i] / (sigmas * math.sqrt(2 * math.pi)) * np.exp(-0.5 * d * d)
            resp[t, i] = joint / joint.sum()
            total[t] += math.log(joint.sum())
    return resp, total


# -- estimators ----------------------------------------------------------------------------------------------------


def difference(labels, expected, expected_everywhere):
    """The difference estimator: mean prediction of all pixels plus the mean error of the sampled ones."""
    return math.fsum(expected_everywhere) / len(expected_everywhere) + math.fsum(
        a - b for a, b in zip(labels, expected, strict=True)
    ) / len(labels)


def simple_variance(values, n_pixels):
    """Design variance of a mean of a simple random sample without replacement (Cochran 1977, 2.6)."""
    n = len(values)
    mean = math.fsum(values) / n
    return (1 - n / n_pixels) * math.fsum((v - mean) ** 2 for v in values) / max(n - 1, 1) / n


def successive_variance(values, n_pixels):
    """From differences of neighbours (Wolter 2007, 8.2)."""
    steps = [(b - a) ** 2 for a, b in itertools.pairwise(values)]
    return (1 - len(values) / n_pixels) * 0.5 * math.fsum(steps) / len(steps) / len(values)


def segment_variance(values, length, n_pixels):
    """Between segments of `length` values."""
    n, mean = len(values), math.fsum(values) / len(values)
    sums = [math.fsum(v - mean for v in values[i : i + length]) for i in range(0, n, length)]
    return (1 - n / n_pixels) * math.fsum(s * s for s in sums) / n**2 * len(sums) / (len(sums) - 1)


def local_trend(y, v, steps):
    """Mean and variance (T,) of the level given all of y with variances v, averaged over `steps` by evidence.

    level_t+1 = level_t + slope_t, slope_t+1 = slope_t + Normal(0, step^2), the first level Normal(0, 1), the first
    slope Normal(0, 0.01); by the joint normal law of all levels. NaN in y: not observed.
    """
    n = len(y)
    seen = [t for t in range(n) if np.isfinite(y[t])]
    logs, means, variances = [], [], []
    for step in steps:
        joint = np.zeros((n, n))
        for a, b in itertools.product(range(n), range(n)):
            joint[a, b] = 1 + 0.01 * a * b + step**2 * sum((a - j) * (b - j) for j in range(1, min(a, b)))
        data = joint[np.ix_(seen, seen)] + np.diag(np.array(v)[seen])
        gain = np.linalg.solve(data, joint[seen]).T
        means.append(gain @ np.array(y)[seen])
        variances.append(np.diag(joint - gain @ joint[seen]))
        white = np.linalg.solve(data, np.array(y)[seen])
        logs.append(-0.5 * (np.linalg.slogdet(data)[1] + np.array(y)[seen] @ white))
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    mean = sum(w * a for w, a in zip(weights, means, strict=True))
    spread = sum(w * (u + (a - mean) ** 2) for w, a, u in zip(weights, means, variances, strict=True))
    return mean, spread
