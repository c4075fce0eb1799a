"""Surrogates: what guesses scores from fingerprints. The interface, and which one is meant by `auto`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.campaigns.settings import Plan

Floats = NDArray[np.float64]
Fingerprints = NDArray[np.uint8]


class Prediction(NamedTuple):
    """What a surrogate expects, in the unit of the scores."""

    mean: Floats
    deviation: Floats
    """Standard deviation of the mean, without the noise of a score."""


class Surrogate(Protocol):
    """A fitted model of the scores."""

    def mean(self, fingerprints: Fingerprints) -> Floats:
        """The expected score per molecule, the same in whatever company it is asked."""
        ...

    def predict(self, fingerprints: Fingerprints) -> Prediction:
        """The expected score with its standard deviation, which can cost more."""
        ...


def surrogate_name(plan: Plan, known: int) -> str:
    """The surrogate that a plan means for so many scores: ``gp``, ``lightgbm`` or ``forest``."""
    if plan.surrogate != "auto":
        return plan.surrogate
    return "gp" if known <= plan.gp_limit else "lightgbm"


def fit_surrogate(plan: Plan, fingerprints: Fingerprints, scores: Floats, pending: Fingerprints) -> Surrogate:
    """Fit the surrogate of a plan.

    Args:
        plan: which one, and the seed.
        fingerprints: packed bits, ``uint8`` of shape (molecules, 256).
        scores: of shape (molecules,).
        pending: fingerprints of molecules whose scores are awaited; only the Gaussian process has a use for them.

    Raises:
        ValueError: there are no scores, or not as many as fingerprints.
    """
    if not len(scores) or len(scores) != len(fingerprints):
        raise ValueError(f"{len(fingerprints)} fingerprints and {len(scores)} scores cannot be fitted.")
    # Imported when needed: each of them is slow to import, and a campaign needs one.
    match surrogate_name(plan, len(scores)):
        case "gp":
            from diaspora_parsl.campaigns.gaussian import TanimotoGP  # noqa: PLC0415

            return TanimotoGP(fingerprints, scores, pending)
        case "lightgbm":
            from diaspora_parsl.campaigns.boosted import BoostedTrees  # noqa: PLC0415

            return BoostedTrees(fingerprints, scores, plan.seed)
        case _:
            from diaspora_parsl.campaigns.forest import RandomForest  # noqa: PLC0415

            return RandomForest(fingerprints, scores, plan.seed)
