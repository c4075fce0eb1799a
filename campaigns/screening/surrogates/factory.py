"""Surrogates: what guesses scores from fingerprints. The interface, and which one is meant by `auto`."""

from __future__ import annotations

from ..settings import Plan
from .base import Fingerprints, Floats, Surrogate


def surrogate_name(plan: Plan, known: int) -> str:
    """Return the surrogate of a plan for a number of scores: ``gp``, ``lightgbm`` or ``forest``."""
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
            from .gaussian_process import TanimotoGP  # noqa: PLC0415

            return TanimotoGP(fingerprints, scores, pending)
        case "lightgbm":
            from .lightgbm import BoostedTrees  # noqa: PLC0415

            return BoostedTrees(fingerprints, scores, plan.seed)
        case _:
            from .random_forest import RandomForest  # noqa: PLC0415

            return RandomForest(fingerprints, scores, plan.seed)
