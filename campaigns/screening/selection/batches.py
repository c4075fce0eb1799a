"""Synchronous rounds: a batch is chosen by what all earlier batches taught, so that the order of arrival is nothing."""

from __future__ import annotations

import numpy as np

from ..settings import Plan
from .selector import FEWEST_SCORES, BatchSelector, Choice, Lesson, Ranking


class Rounds:
    """Drives a chooser with a barrier between rounds.

    Which molecules are chosen, and in which order, depends on the library, the plan and the scores alone: not on which
    site was fast or died. That costs what workers wait at the end of each round.

    Args:
        chooser: makes the choices.
        plan: with the number of rounds; the random first batch is one of them.
    """

    def __init__(self, chooser: BatchSelector, plan: Plan) -> None:
        self._chooser = chooser
        self._guided = plan.acquisition != "random"
        first = min(plan.first_batch, chooser.budget)
        later = max(0, plan.rounds - 1)
        rest = chooser.budget - first
        sizes = [first] if later else [chooser.budget]
        sizes += [rest * (number + 1) // later - rest * number // later for number in range(later)]
        self._sizes = [size for size in sizes if size]
        self._left = self._size = self._sizes.pop(0)
        self._arrived: dict[int, float | None] = {}
        self._scores: dict[int, float] = {}
        self._lessons = 0
        #: A round is over, and the ranking for the next is not here yet.
        self.waiting = False

    def next(self) -> Choice | None:
        """Choose a molecule; None at the end of a round."""
        if not self._left:
            return None
        choice = self._chooser.next()
        self._left = self._left - 1 if choice is not None else 0
        return choice

    def observe(self, candidate: int, score: float | None) -> None:
        """Take a result; it teaches nothing until the round is over."""
        self._arrived[candidate] = score
        self.waiting = len(self._arrived) == self._size and bool(self._sizes)

    def lesson(self) -> Lesson | None:
        """What to fit now: at the end of a round, with the candidates in their own order."""
        if not self.waiting or not self._arrived:
            return None
        for candidate, score in sorted(self._arrived.items()):
            self._chooser.observe(candidate, score)
            if score is not None:
                self._scores[candidate] = score
        self._arrived = {}
        if not self._guided or len(self._scores) < FEWEST_SCORES:
            self._begin()
            return None
        self._lessons += 1
        known = sorted(self._scores)
        scores = np.array([self._scores[candidate] for candidate in known])
        return Lesson(np.array(known, np.int64), scores, self._lessons)

    def adopt(self, ranking: Ranking) -> None:
        """Begin the next round with this ranking."""
        self._chooser.adopt(ranking)
        self._begin()

    def _begin(self) -> None:
        self.waiting = False
        self._left = self._size = self._sizes.pop(0)
