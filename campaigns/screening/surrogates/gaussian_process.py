"""An exact Gaussian process on the Tanimoto kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from .base import Fingerprints, Floats, Prediction

#: Noise variances relative to the signal that are tried; the likeliest is taken.
_NOISE_GRID: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
#: Number of scores from which the noise is estimated.
_ENOUGH_FOR_NOISE: Final = 1000
_CHUNK: Final = 4096


class TanimotoGP:
    """Gaussian process regression with the Tanimoto (Jaccard) kernel on binary fingerprints.

    Kernel: Ralaivola et al. 2005, Neural Networks 18, eq. 12. Regression: Rasmussen & Williams 2006, algorithm 2.1;
    the amplitude maximises their eq. 2.30 in closed form and the noise is taken from a grid. Cost O(n³): good to about
    5,000 molecules.

    Pending molecules are taken as if they would score what is expected of them (kriging believer: Ginsbourger et al.
    2010, Computational Intelligence in Expensive Optimization Problems, 131). That leaves every mean as it is and
    lowers the deviation around them, so that what is uncertain for the same reason is not asked twice.

    Args:
        fingerprints: packed bits, ``uint8`` of shape (molecules, bytes).
        scores: of shape (molecules,).
        pending: packed bits of molecules whose scores are awaited.
    """

    def __init__(self, fingerprints: Fingerprints, scores: Floats, pending: Fingerprints | None = None) -> None:
        self._bits, self._counts = _unpack(fingerprints)
        kernel = _similarity(self._bits, self._counts, self._bits, self._counts)
        self._offset = float(scores.mean())
        self.noise, self.amplitude = _likeliest(kernel, scores)
        factor = cho_factor(kernel + self.noise * np.eye(len(kernel)), lower=True)
        self._weights: Floats = cho_solve(factor, scores - self._offset)
        self._pending = fingerprints[:0] if pending is None else pending
        self._factor: tuple[NDArray[np.float32], NDArray[np.float32], Floats] | None = None

    def mean(self, fingerprints: Fingerprints) -> Floats:
        """The expected score per molecule."""
        means = np.empty(len(fingerprints))
        for part in _chunks(len(fingerprints)):
            bits, counts = _unpack(fingerprints[part])
            means[part] = _similarity(bits, counts, self._bits, self._counts) @ self._weights
        return means + self._offset

    def predict(self, fingerprints: Fingerprints) -> Prediction:
        """Mean and standard deviation (without noise) of the score, per molecule."""
        means, deviations = np.empty(len(fingerprints)), np.empty(len(fingerprints))
        known = len(self._weights)
        others, sizes, factor = self._conditioned()
        for part in _chunks(len(fingerprints)):
            bits, counts = _unpack(fingerprints[part])
            kernel = _similarity(bits, counts, others, sizes)
            means[part] = kernel[:, :known] @ self._weights
            explained = solve_triangular(factor, kernel.T, lower=True, check_finite=False)
            left = 1 - np.einsum("ij,ij->j", explained, explained)
            deviations[part] = np.sqrt(self.amplitude * np.clip(left, 1e-9, None))
        return Prediction(means + self._offset, deviations)

    def _conditioned(self) -> tuple[NDArray[np.float32], NDArray[np.float32], Floats]:
        """Bits and counts of known and pending molecules, and the Cholesky factor of their covariance."""
        if self._factor is None:
            bits, counts = _unpack(self._pending)
            bits, counts = np.concatenate([self._bits, bits]), np.concatenate([self._counts, counts])
            kernel = _similarity(bits, counts, bits, counts) + self.noise * np.eye(len(counts))
            factor = np.linalg.cholesky(kernel).astype(np.float64)
            self._factor = bits, counts, factor
        return self._factor


def _likeliest(kernel: Floats, scores: Floats) -> tuple[float, float]:
    """Noise and amplitude of the greatest marginal likelihood."""
    if len(scores) > _ENOUGH_FOR_NOISE:
        some = np.linspace(0, len(scores) - 1, _ENOUGH_FOR_NOISE).astype(int)
        kernel, scores = kernel[np.ix_(some, some)], scores[some]
    centred = scores - scores.mean()
    # One decomposition serves the whole grid: the likelihood is a sum over eigenvalues.
    values, vectors = np.linalg.eigh(kernel)
    projected = (vectors.T @ centred) ** 2
    best = (np.inf, 0.0, 0.0)
    for noise in _NOISE_GRID:
        spread = np.clip(values, 0, None) + noise
        amplitude = max(float((projected / spread).mean()), 1e-12)
        loss = 0.5 * float(np.log(spread).sum()) + 0.5 * len(scores) * float(np.log(amplitude))
        best = min(best, (loss, noise, amplitude))
    return best[1], best[2]


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _unpack(fingerprints: Fingerprints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    bits = np.unpackbits(fingerprints, axis=1).astype(np.float32)
    return bits, bits.sum(axis=1)


def _similarity(
    bits: NDArray[np.float32],
    counts: NDArray[np.float32],
    others: NDArray[np.float32],
    sizes: NDArray[np.float32],
) -> Floats:
    """Tanimoto similarity; shared bits are whole numbers, which 32 bits hold exactly."""
    shared = (bits @ others.T).astype(np.float64)
    similarity: Floats = shared / np.maximum(counts[:, None] + sizes[None] - shared, 1e-9)
    return similarity
