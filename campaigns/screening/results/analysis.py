"""What the scores say: enrichment over random choice, and how good the surrogate was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import Row

Floats = NDArray[np.float64]
_FEWEST = 5
#: A hit is a molecule at least as good as the best tenth of the random batch.
HIT_SHARE = 0.1
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Random choice: median and the middle 90 %, by number of molecules settled."""

    low: Floats
    middle: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrichment:
    """The campaign against random choice; every array has one value per settled molecule, in order of time."""

    threshold: float
    """Score, in kcal/mol, from which a molecule is a hit."""
    sample: int
    """Random molecules that the reference is made from."""
    hits: Floats
    random_hits: Band
    best: Floats
    random_best: Band

    @property
    def factor(self) -> float:
        """Hits found, divided by the hits that random choice is expected to find in the same number of molecules."""
        return float(self.hits[-1] / self.random_hits.middle[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Scores predicted when a molecule was chosen, against those found afterwards."""

    predicted: Floats
    docked: Floats
    model: Floats
    error: float
    """Mean absolute difference, kcal/mol."""
    spearman: float
    """Rank correlation; among molecules that were all chosen to be good it is lower than over the whole library."""
    first: int = 0
    """Number of the first fit whose guesses these are."""
    last: int = 0
    """Number of the last one."""


def in_time(rows: Sequence[Row]) -> list[Row]:
    """The molecules that were given to a worker, in the order in which they came back."""
    return sorted((row for row in rows if row.submitted), key=lambda row: row.ended)


def enrichment(rows: Sequence[Row], seed: int = 0) -> Enrichment | None:
    """Compare with random choice from the campaign's own random batch; None if that has too few scores.

    The random batch is an unbiased sample of the library. Hits by random choice follow a beta-binomial distribution
    (Jeffreys prior on the share of hits); the best score by random choice comes from a smoothed bootstrap of the
    sample (Gaussian kernel, Scott's rule).
    """
    from scipy import stats  # noqa: PLC0415 - a second of loading

    order = in_time(rows)
    sample = np.sort([row.score for row in order if row.model == 0 and row.score is not None])
    if len(sample) < _FEWEST:
        return None
    good = max(1, round(HIT_SHARE * len(sample)))
    threshold = float(sample[good - 1])
    scores = np.array([row.score if row.score is not None else np.inf for row in order])
    numbers = np.arange(1, len(order) + 1)
    by_chance = stats.betabinom(numbers, good + 0.5, len(sample) - good + 0.5)
    generator = np.random.default_rng(seed)
    width = float(np.std(sample)) * len(sample) ** -0.2
    draws = generator.choice(sample, (_DRAWS, len(order))) + generator.normal(0, width, (_DRAWS, len(order)))
    best = np.quantile(np.minimum.accumulate(draws, axis=1), (0.95, 0.5, 0.05), axis=0)
    return Enrichment(
        threshold=threshold,
        sample=len(sample),
        hits=np.cumsum(scores <= threshold).astype(float),
        random_hits=Band(low=by_chance.ppf(0.05), middle=by_chance.mean(), high=by_chance.ppf(0.95)),
        best=np.minimum.accumulate(scores),
        random_best=Band(low=best[2], middle=best[1], high=best[0]),
    )


def agreement(rows: Sequence[Row]) -> Agreement | None:
    """How good the surrogate's guesses were; None if there are too few."""
    found = _guesses(rows)
    return _agreement(found) if len(found) >= _FEWEST else None


def agreement_by_round(rows: Sequence[Row], most: int = 6) -> list[Agreement]:
    """The same round by round: fits in the order of time, in at most ``most`` groups of about as many guesses each.

    Fits that follow each other are put together, since a campaign without barriers makes dozens of small ones.
    """
    found = _guesses(rows)
    fits, sizes = np.unique(found[:, 2], return_counts=True)
    if len(found) < _FEWEST:
        return []
    group = np.minimum((np.cumsum(sizes) - 1) * min(most, len(fits)) // len(found), most - 1)
    parts = (found[np.isin(found[:, 2], fits[group == one])] for one in np.unique(group))
    return [_agreement(part) for part in parts]


def _guesses(rows: Sequence[Row]) -> Floats:
    """Predicted score, score found and number of the fit: an array of three columns."""
    pairs = [(r.predicted, r.score, r.model) for r in rows if r.predicted is not None and r.score is not None]
    return np.array(pairs, dtype=float).reshape(-1, 3)


def _agreement(guesses: Floats) -> Agreement:
    from scipy import stats  # noqa: PLC0415 - a second of loading

    predicted, docked, model = guesses.T
    varied = len(guesses) > 1 and np.ptp(predicted) > 0 and np.ptp(docked) > 0
    return Agreement(
        predicted=predicted,
        docked=docked,
        model=model,
        error=float(np.abs(predicted - docked).mean()),
        spearman=float(stats.spearmanr(predicted, docked).statistic) if varied else 0.0,
        first=int(model.min()),
        last=int(model.max()),
    )
