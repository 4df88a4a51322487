"""Labels of other programs beside ours, against the truth. Other programs are optional: skipped with a reason.

Each gets what it needs to do well: the true number of classes, the brightest class as foreground, and the better of raw
frames and frames from which a least-squares trend was taken; best settings are picked by the truth.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from gmrm_gpu.classify import NOT_VISITED
from gmrm_gpu.correct import Corrector
from gmrm_gpu.recorder import Observer
from gmrm_gpu.runner import Runner

from .classic import atropos_classes, available, detrended, otsu_thresholds

EVERY = 6
"""Other programs see every sixth frame only; all labels are compared on these."""
ATROPOS_MRF = ("[0.1,1x1]", "[0.4,1x1]")


@dataclass
class Score:
    """Right labels among visited pixels; apart for frames that hold foreground."""

    right: int = 0
    visited: int = 0
    right_foreground: int = 0
    visited_foreground: int = 0

    def add(self, found, truth):
        """Labels and truth of the visited pixels of one frame."""
        right, n = int((found == truth).sum()), truth.size
        self.right, self.visited = self.right + right, self.visited + n
        if truth.any():
            self.right_foreground, self.visited_foreground = self.right_foreground + right, self.visited_foreground + n

    @property
    def row(self):
        """Both accuracies."""
        return {
            "label_accuracy": self.right / max(self.visited, 1),
            "with_foreground": self.right_foreground / max(self.visited_foreground, 1),
        }


@dataclass
class Watch(Observer):
    """Scores of the labels of a run, as they come and after votes of several settings."""

    truth: np.ndarray
    frames: range
    correctors: dict[str, Corrector] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def fitted(self, t, fit, foreground, positions, labels):
        """Labels before any vote."""
        self._score("no vote", t, positions, labels)
        for name, corrector in self.correctors.items():
            for done in corrector.push(positions, labels):
                self._score(name, done.frame, done.positions, done.labels)

    def finish(self):
        """Frames that were waiting for their future."""
        for name, corrector in self.correctors.items():
            for done in corrector.flush():
                self._score(name, done.frame, done.positions, done.labels)

    def _score(self, name, t, positions, labels):
        if t in self.frames:
            found, where = np.asarray(labels)[0], np.asarray(positions)[0]
            seen = found != NOT_VISITED
            self.scores.setdefault(name, Score()).add(found[seen] == 1, self.truth[t].ravel()[where[seen]])


class Causal:
    """An engine that also keeps the labels that the past alone supports.

    They use the parameters of the whole movie, the prior that earlier frames give to the foreground, and for the
    components of the background their weights in the frame.
    """

    def __init__(self, engine):
        self._engine, self.labels = engine, None

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def fit_and_label_movie(self, values, positions, valid, shape, *args, **kwargs):
        """As the engine."""
        found = self._engine.fit_and_label_movie(values, positions, valid, shape, *args, **kwargs)
        self.labels = np.stack(
            [
                causal_labels(
                    found.fit.frames[0, t],
                    found.foreground[0],
                    np.asarray(values)[0, t],
                    np.asarray(positions)[0, t],
                    np.asarray(found.expected)[0, t],
                    shape,
                )
                for t in range(values.shape[1])
            ]
        )
        return found


def causal_labels(fit, foreground, values, positions, expected, shape):
    """(m,) bool: whether the foreground is likelier than the background, given its prior from the past."""
    z = values - fit.trend(shape).ravel()[positions]
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(fit.weights) - np.log(fit.sigmas) - 0.5 * ((z[:, None] - fit.means) / fit.sigmas) ** 2
    density = np.where(fit.weights > 0, np.exp(log), 0.0)
    sums = [(density[:, part].sum(axis=1), fit.weights[part].sum()) for part in (foreground, ~foreground)]
    bright, rest = (total / max(weight, 1e-12) for total, weight in sums)
    return expected * bright > (1 - expected) * rest


def votes(rate, quick):
    """Settings of the paper's vote to choose among."""
    radii = (3.0, 6.0) if rate == 1 else (5.0, 10.0, 20.0)
    gammas, windows = (0.05, 0.2, 0.4), ("past", "symmetric")
    grid = list(product(radii, gammas, windows, ("foreground", "both")))
    return grid[:2] if quick else grid


def ours(simulation, config, rate, frames, quick):
    """Yields name, settings, score: the movie method, causal labels, and paper with every vote."""
    truth = simulation.truth == simulation.foreground_value
    arrays = replace(config, compute=replace(config.compute, engine="generic"))  # kernels tell nobody what they expect
    runner, watch = Runner(simulation.movie, arrays), Watch(truth, frames)
    runner.engine = causal = Causal(runner.engine)
    sampler = runner.sampler(rate)
    runner.run(rate, np.array([0]), observer=watch)
    yield "movie", "", watch.scores["no vote"]
    score = Score()
    for t in frames:
        draw = sampler.draw(np.array([0]), int(simulation.movie.frame_numbers[t]), backend=runner.backend)
        score.add(causal.labels[t], truth[t].ravel()[np.asarray(draw.positions)[0]])
    yield "movie, causal", "", score
    paper = config.with_method("paper")
    runner, watch = Runner(simulation.movie, paper), Watch(truth, frames)
    for radius, gamma, window, sides in votes(rate, quick):
        vote = replace(paper.correction, radius=radius, gamma=gamma, window=window, sides=sides)
        name = f"r={radius:g}, gamma={gamma:g}, {window}, {sides}"
        watch.correctors[name] = runner.engine.corrector(simulation.movie.shape, vote, paper.phases)
    paper_off = replace(paper, correction=replace(paper.correction, radius=0.0))
    Runner(simulation.movie, paper_off).run(rate, np.array([0]), observer=watch)
    watch.finish()
    for name, score in watch.scores.items():
        yield "paper", name, score


def gaussian_mixture(values, k):
    """Foreground by scikit-learn's mixture: the brightest component."""
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(k, n_init=3, random_state=0).fit(values[:, None])
        return model.predict(values[:, None]) == np.argmax(model.means_[:, 0])


def otsu(values, k):
    """Foreground by Otsu's threshold; with three classes the upper one of the two that part them best."""
    return values > otsu_thresholds(values, k)[-1]


def atropos(image, k, mrf):
    """Foreground by ANTs Atropos with its Markov random field: the brightest class of a whole image."""
    return atropos_classes(image, k, mrf) == k - 1


def nearest(values, positions, shape):
    """Image whose pixels take the value of the nearest visited one."""
    from scipy.ndimage import distance_transform_edt

    image, hidden = np.zeros(shape), np.ones(shape, bool)
    image.ravel()[positions], hidden.ravel()[positions] = values, False
    where = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return image[tuple(where)]


def others(simulation, config, rate, frames, quick):
    """Yields name, settings, score of the other programs on every `EVERY`-th frame."""
    movie, k = simulation.movie, config.mixture.n_components
    sampler, backend = Runner(movie, config).sampler(rate), Runner(movie, config).backend
    scores = {}
    for t in frames:
        where = np.asarray(sampler.draw(np.array([0]), int(movie.frame_numbers[t]), backend=backend).positions)[0]
        raw = movie.frame(t).ravel()[where].astype(float)
        truth = (simulation.truth[t] == simulation.foreground_value).ravel()[where]
        for kind in ("raw", *(("detrended",) if config.mixture.terms else ())):
            values = raw if kind == "raw" else detrended(raw, where, movie.shape, config.mixture.terms)
            found = {("Otsu", kind): otsu(values, k)}
            if available("sklearn"):
                found["scikit-learn", kind] = gaussian_mixture(values, k)
            if available("ants") and not quick:
                image = nearest(values, where, movie.shape)
                for mrf in ATROPOS_MRF:
                    found["Atropos", f"{kind}, m={mrf}"] = atropos(image, k, mrf).ravel()[where]
            for key, labels in found.items():
                scores.setdefault(key, Score()).add(labels, truth)
    for (name, settings), score in scores.items():
        yield name, settings, score


def compare(simulations, config, rate, *, quick=False):
    """Rows name, settings, label accuracy: the best settings of each, by the truth."""
    scores = {}
    for simulation in simulations:
        frames = range(2, len(simulation.movie), EVERY)
        for found in (ours, others):
            for name, settings, score in found(simulation, config, rate, frames, quick):
                scores.setdefault((name, settings), []).append(score)
    rows = []
    for name in dict.fromkeys(name for name, _ in scores):
        mine = {s: _mean(found) for (other, s), found in scores.items() if other == name}
        best = max(mine, key=lambda s: mine[s]["label_accuracy"])
        rows.append({"program": name, "settings": best, "n_movies": len(scores[name, best]), **mine[best]})
    rows += [
        {"program": name, "skipped": f"{package} is not installed"}
        for name, package in (("scikit-learn", "sklearn"), ("Atropos", "ants"))
        if not available(package)
    ]
    return rows


def _mean(scores):
    rows = [score.row for score in scores]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
