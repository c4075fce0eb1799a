"""Acquisition: what makes a molecule worth its docking, given what is expected of it. Less is better, as in scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ..settings import Plan
from ..surrogates.base import Fingerprints, Floats, Prediction, Surrogate

#: Improvements below it are none.
_TINY: Final = 1e-30


def expected_improvement(prediction: Prediction, best: float) -> Floats:
    """How much lower than the best score, on average (Jones et al. 1998, J. Global Optimization 13, eq. 15)."""
    gain = best - prediction.mean
    ratio = gain / prediction.deviation
    density = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
    improvement: Floats = gain * ndtr(ratio) + prediction.deviation * density
    return improvement


def merit_function(plan: Plan, model: Surrogate, best: float) -> Callable[[Fingerprints], NDArray[np.float32]]:
    """What ranks molecules, the lowest first; for Thompson's sampling it is the mean, see `thompson`.

    Args:
        plan: with the acquisition.
        model: of the scores.
        best: score so far.

    Returns:
        A function of packed fingerprints. Its values have 32 bits: differences beyond them come from the order in
        which sums were made, and must not decide.
    """

    def merit(fingerprints: Fingerprints) -> NDArray[np.float32]:
        match plan.acquisition:
            case "ucb":  # the optimistic bound is the lower one
                found = model.predict(fingerprints)
                value = found.mean - plan.ucb_beta * found.deviation
            case "ei":
                found = model.predict(fingerprints)
                # The logarithm keeps apart what is far from any improvement; where even that is 0, the mean does.
                gain = expected_improvement(found, best)
                value = np.where(gain > _TINY, -np.log(np.maximum(gain, _TINY)), found.mean - best - np.log(_TINY))
            case _:
                value = model.mean(fingerprints)
        return value.astype(np.float32)

    return merit


def thompson(model: Surrogate, fingerprints: Fingerprints, chance: np.random.Generator) -> NDArray[np.float32]:
    """One guess per molecule from its own normal distribution; correlations are left out, as in MolPAL."""
    found = model.predict(fingerprints)
    return chance.normal(found.mean, found.deviation).astype(np.float32)
