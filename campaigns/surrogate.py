"""The surrogate: an exact Gaussian process on the Tanimoto kernel, which guesses scores from fingerprints."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Noise variances relative to the signal that are tried; the likeliest is taken.
_NOISE_GRID: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_CHUNK: Final = 4096


class Prediction(NamedTuple):
    """What the surrogate expects, in the unit of the scores."""

    mean: Floats
    deviation: Floats


class TanimotoGP:
    """Gaussian process regression with the Tanimoto (Jaccard) kernel on binary fingerprints.

    Kernel: Ralaivola et al. 2005, Neural Networks 18, eq. 12. Regression: Rasmussen & Williams 2006, algorithm 2.1;
    the amplitude maximises their eq. 2.30 in closed form and the noise is taken from a grid. Cost O(n³): good to about
    5,000 molecules.

    Args:
        fingerprints: packed bits, ``uint8`` of shape (molecules, bytes).
        scores: of shape (molecules,).

    Raises:
        ValueError: there are no scores, or not as many as fingerprints.
    """

    def __init__(self, fingerprints: NDArray[np.uint8], scores: Floats) -> None:
        if not len(scores) or len(scores) != len(fingerprints):
            raise ValueError(f"{len(fingerprints)} fingerprints and {len(scores)} scores cannot be fitted.")
        self._bits, self._counts = _unpack(fingerprints)
        self._offset = float(scores.mean())
        centred = scores - self._offset
        kernel = self._kernel(self._bits, self._counts)
        # One decomposition serves the whole grid: the likelihood is a sum over eigenvalues.
        values, vectors = np.linalg.eigh(kernel)
        projected = (vectors.T @ centred) ** 2
        best = (np.inf, 0.0, 0.0)
        for noise in _NOISE_GRID:
            spread = np.clip(values, 0, None) + noise
            amplitude = max(float((projected / spread).mean()), 1e-12)
            loss = 0.5 * float(np.log(spread).sum()) + 0.5 * len(scores) * float(np.log(amplitude))
            best = min(best, (loss, noise, amplitude))
        _, self.noise, self.amplitude = best
        self._inverse = (vectors / (np.clip(values, 0, None) + self.noise)) @ vectors.T
        self._weights = self._inverse @ centred

    def predict(self, fingerprints: NDArray[np.uint8]) -> Prediction:
        """Mean and standard deviation (without noise) of the score, per molecule."""
        means, deviations = [], []
        for start in range(0, len(fingerprints), _CHUNK):
            kernel = self._kernel(*_unpack(fingerprints[start : start + _CHUNK]))
            means.append(kernel @ self._weights + self._offset)
            left = 1 - np.einsum("ij,ij->i", kernel @ self._inverse, kernel)
            deviations.append(np.sqrt(self.amplitude * np.clip(left, 1e-9, None)))
        return Prediction(np.concatenate(means), np.concatenate(deviations))

    def _kernel(self, bits: NDArray[np.float32], counts: NDArray[np.float32]) -> Floats:
        shared = (bits @ self._bits.T).astype(np.float64)
        similarity: Floats = shared / np.maximum(counts[:, None] + self._counts[None] - shared, 1e-9)
        return similarity


def _unpack(fingerprints: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    bits = np.unpackbits(fingerprints, axis=1).astype(np.float32)
    return bits, bits.sum(axis=1)
