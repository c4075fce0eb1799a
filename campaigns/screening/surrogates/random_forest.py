"""A random forest with the settings of MolPAL, to compare with."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from .base import Fingerprints, Floats, Prediction

_CHUNK: Final = 16_384


class RandomForest:
    """A hundred trees of depth 8 at most, whose mean is the prediction and whose spread the deviation.

    Settings: Graff et al. 2021, Chemical Science 12, 7866, and the defaults of MolPAL (``molpal/models/sklmodels.py``).

    Args:
        fingerprints: packed bits, ``uint8`` of shape (molecules, bytes).
        scores: of shape (molecules,).
        seed: of the trees.
    """

    def __init__(self, fingerprints: Fingerprints, scores: Floats, seed: int) -> None:
        self._forest = RandomForestRegressor(
            n_estimators=100, max_depth=8, min_samples_leaf=1, random_state=seed, n_jobs=1
        )
        self._forest.fit(np.unpackbits(fingerprints, axis=1).astype(np.float32), scores)

    def mean(self, fingerprints: Fingerprints) -> Floats:
        """Mean of the trees."""
        return self.predict(fingerprints).mean

    def predict(self, fingerprints: Fingerprints) -> Prediction:
        """Mean and spread of the trees."""
        trees = self._forest.estimators_
        guesses: NDArray[np.float64] = np.empty((len(trees), _CHUNK))
        mean, deviation = np.empty(len(fingerprints)), np.empty(len(fingerprints))
        for start in range(0, len(fingerprints), _CHUNK):
            part = slice(start, start + _CHUNK)
            bits = np.unpackbits(fingerprints[part], axis=1).astype(np.float32)
            for number, tree in enumerate(trees):
                guesses[number, : len(bits)] = tree.predict(bits, check_input=False)
            mean[part] = guesses[:, : len(bits)].mean(axis=0)
            deviation[part] = guesses[:, : len(bits)].std(axis=0)
        return Prediction(mean, deviation)
