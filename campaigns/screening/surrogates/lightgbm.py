"""An ensemble of gradient-boosted trees (LightGBM), for more scores than a Gaussian process can take."""

from __future__ import annotations

from typing import Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from .base import Fingerprints, Floats, Prediction

_MEMBERS: Final = 5
#: Of the molecules, to each member: what members disagree about is what is not known.
_SHARE: Final = 0.8
_ROUNDS: Final = 100
_CHUNK: Final = 16_384


class BoostedTrees:
    """Members are fitted to random parts of the scores; their mean is the prediction, their spread the deviation.

    Ke et al. 2017, NeurIPS 30, 3146. With one thread the same scores give the same trees.

    Args:
        fingerprints: packed bits, ``uint8`` of shape (molecules, bytes).
        scores: of shape (molecules,).
        seed: of the parts.
    """

    def __init__(self, fingerprints: Fingerprints, scores: Floats, seed: int) -> None:
        bits = np.unpackbits(fingerprints, axis=1).astype(np.float32)
        chance = np.random.default_rng(seed)
        share = max(1, round(_SHARE * len(scores)))
        self._members = []
        for member in range(_MEMBERS):
            part = np.sort(chance.choice(len(scores), share, replace=False))
            settings = {
                "objective": "regression",
                "learning_rate": 0.1,
                "num_leaves": 31,
                # Few scores cannot fill leaves of LightGBM's usual 20 molecules.
                "min_data_in_leaf": int(np.clip(share // 20, 1, 20)),
                "min_data_in_bin": 1,
                "feature_fraction": 0.2,
                "seed": seed + member,
                "deterministic": True,
                "force_row_wise": True,
                "num_threads": 1,
                "verbosity": -1,
            }
            data = lightgbm.Dataset(bits[part], scores[part])
            self._members.append(lightgbm.train(settings, data, num_boost_round=_ROUNDS))

    def mean(self, fingerprints: Fingerprints) -> Floats:
        """Mean of the members."""
        return self.predict(fingerprints).mean

    def predict(self, fingerprints: Fingerprints) -> Prediction:
        """Mean and spread of the members."""
        guesses: NDArray[np.float64] = np.empty((_MEMBERS, len(fingerprints)))
        for start in range(0, len(fingerprints), _CHUNK):
            bits = np.unpackbits(fingerprints[start : start + _CHUNK], axis=1).astype(np.float32)
            for member, model in enumerate(self._members):
                guesses[member, start : start + _CHUNK] = model.predict(bits, num_threads=1)
        return Prediction(guesses.mean(axis=0), guesses.std(axis=0))
