"""One formula for every program: likelihood and labels from its parameters in float64; scores against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 65536


@dataclass(frozen=True)
class Mixture:
    """Parameters in grey levels: weights, means, sigmas (K,); slopes (q,) of a shared trend, or (q, K) of one each."""

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray
    slopes: np.ndarray

    def log_parts(self, values: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """(m, K) log(p_k N(z; delta_k + f.beta, sigma_k)) of values (m,) with trend terms (m, q) (METHOD.md 1)."""
        trend = basis @ self.slopes
        centre = self.means + (trend[:, None] if trend.ndim == 1 else trend)
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        scaled = (values[:, None] - centre) / self.sigmas
        return log_weights - np.log(self.sigmas) - 0.5 * np.log(2 * np.pi) - 0.5 * scaled**2

    def log_likelihood(self, values: np.ndarray, basis: np.ndarray) -> float:
        """Mean over the pixels, nats."""
        total = 0.0
        for first in range(0, len(values), CHUNK):
            part = self.log_parts(values[first : first + CHUNK], basis[first : first + CHUNK])
            peak = part.max(axis=1)
            total += float((peak + np.log(np.exp(part - peak[:, None]).sum(axis=1))).sum())
        return total / len(values)

    def posterior(self, values: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """(m, K) responsibilities."""
        part = self.log_parts(values, basis)
        weight = np.exp(part - part.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def labels(self, values: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """(m,) the likeliest component of each pixel, numbered in ascending mean at the middle of the frame."""
        rank = np.argsort(np.argsort(self.means))
        parts = [
            np.argmax(self.log_parts(values[i : i + CHUNK], basis[i : i + CHUNK]), axis=1)
            for i in range(0, len(values), CHUNK)
        ]
        return rank[np.concatenate(parts)]


def accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """Part of the pixels whose phase is the true one."""
    return float((found == truth).mean())


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks; 1 for two empty ones (Dice 1945)."""
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0
