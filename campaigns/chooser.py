"""The chooser: which molecule next. It knows no clock, thread or task; what is pending is never chosen twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.campaigns.settings import Plan
from diaspora_parsl.campaigns.surrogate import TanimotoGP

#: Fewer scores than this teach nothing.
FEWEST_SCORES: Final = 5


class Choice(NamedTuple):
    """One molecule to dock."""

    candidate: int
    predicted: float | None
    """None if it was chosen at random."""
    model: int
    """Number of the fit that chose it, from 1; 0 for random choice."""


class Lesson(NamedTuple):
    """What a fit is made from: a copy, so that it can be learned in another thread."""

    candidates: NDArray[np.int64]
    scores: NDArray[np.float64]
    number: int


class Ranking(NamedTuple):
    """What came of a fit: all candidates, the most promising first."""

    order: NDArray[np.int64]
    predicted: NDArray[np.float64]
    number: int
    trained_on: int


class Chooser:
    """Chooses one molecule at a time, as workers become free.

    A first batch is random; it teaches the surrogate and is the unbiased sample that the report compares with. After
    it the best of the newest ranking are taken. As long as there is no ranking, random choice goes on, so that no
    worker waits for a fit.

    Args:
        fingerprints: packed bits of all candidates.
        plan: budget, acquisition and seed.
    """

    def __init__(self, fingerprints: NDArray[np.uint8], plan: Plan) -> None:
        self._fingerprints = fingerprints
        self._plan = plan
        self._shuffled = np.random.default_rng(plan.seed).permutation(len(fingerprints))
        self._taken = np.zeros(len(fingerprints), dtype=bool)
        self._scores: dict[int, float] = {}
        self._ranking: Ranking | None = None
        self._cursor = {"random": 0, "ranked": 0}
        self._learned = 0
        self._lessons = 0
        self.chosen = 0

    @property
    def budget(self) -> int:
        """Molecules that will be chosen in all."""
        return min(self._plan.budget, len(self._fingerprints))

    def next(self) -> Choice | None:
        """Choose a molecule; None when the budget is spent."""
        if self.chosen >= self.budget:
            return None
        if self.chosen < self._plan.first_batch or self._ranking is None:
            choice = Choice(self._walk("random", self._shuffled), None, 0)
        else:
            candidate = self._walk("ranked", self._ranking.order)
            choice = Choice(candidate, float(self._ranking.predicted[candidate]), self._ranking.number)
        self._taken[choice.candidate] = True
        self.chosen += 1
        return choice

    def observe(self, candidate: int, score: float | None) -> None:
        """Learn what came of a choice; None for a failure, which is not chosen again and teaches nothing."""
        if score is not None:
            self._scores[candidate] = score

    def lesson(self) -> Lesson | None:
        """What to fit now, if enough is new; each lesson is given once."""
        if self._plan.acquisition == "random" or self.chosen >= self.budget:
            return None
        known = len(self._scores)
        # The first fit comes when most of the random batch is in: waiting for its last molecule would idle workers.
        first = max(FEWEST_SCORES, self._plan.first_batch - self._plan.in_flight)
        if known < (first if self._learned == 0 else self._learned + self._plan.refit_after):
            return None
        self._learned = known
        self._lessons += 1
        return Lesson(
            np.fromiter(self._scores.keys(), np.int64, known),
            np.fromiter(self._scores.values(), np.float64, known),
            self._lessons,
        )

    def restore(self, chosen: Sequence[int], scores: Mapping[int, float], lessons: int) -> None:
        """Go on where an earlier session stopped: random choice in the same order, models numbered on.

        Args:
            chosen: candidates that were chosen, whatever came of them.
            scores: of those that have one.
            lessons: number of the last fit.
        """
        self._taken[list(chosen)] = True
        self.chosen = len(chosen)
        self._scores = dict(scores)
        self._lessons = lessons

    def adopt(self, ranking: Ranking) -> None:
        """Choose from this ranking from now on."""
        self._ranking = ranking
        self._cursor["ranked"] = 0

    def _walk(self, way: str, order: NDArray[np.int64]) -> int:
        cursor = self._cursor[way]
        while self._taken[order[cursor]]:
            cursor += 1
        self._cursor[way] = cursor
        return int(order[cursor])


def study(fingerprints: NDArray[np.uint8], plan: Plan, lesson: Lesson) -> Ranking:
    """Fit the surrogate and rank all candidates; another process may do it."""
    model = TanimotoGP(fingerprints[lesson.candidates], lesson.scores)
    prediction = model.predict(fingerprints)
    merit = prediction.mean
    if plan.acquisition == "ucb":  # scores are better when lower: the optimistic bound is the lower one
        merit = merit - plan.ucb_beta * prediction.deviation
    return Ranking(np.argsort(merit, kind="stable"), prediction.mean, lesson.number, len(lesson.scores))
