"""The chooser: which molecule next. It knows no clock, thread or task; what is pending is never chosen twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..settings import Plan
from ..surrogates.base import Fingerprints
from ..surrogates.factory import fit_surrogate
from .acquisition import merit_function, thompson
from .pareto import pareto_order, second_cost
from .shortlist import lowest, shortlist

#: Fewer scores than this teach nothing.
FEWEST_SCORES: Final = 5
#: A ranking is so long and as much longer as scores are known: longer than what is chosen until the next one, also if
#: a cap on scaffolds passes many over. Choice is random where it ends.
_RANKED: Final = 5000
#: Of the candidates, those that are compared in a second objective: what is not expected to score well is no hit,
#: however nice it is otherwise.
_CONTENDERS: Final = 0.1
_FEWEST_CONTENDERS: Final = 100
_MOST_CONTENDERS: Final = 5000

_NOBODY: Final[NDArray[np.int64]] = np.empty(0, np.int64)


class Choice(NamedTuple):
    """One molecule to dock."""

    candidate: int
    predicted: float | None
    """None if it was chosen at random."""
    model: int
    """Number of the fit that chose it, from 1; 0 for random choice."""


class Lesson(NamedTuple):
    """What a fit is made from: a copy, so that it can be learned in another process."""

    candidates: NDArray[np.int64]
    """In their own order: which arrived first teaches nothing."""
    scores: NDArray[np.float64]
    number: int
    pending: NDArray[np.int64] = _NOBODY
    """Chosen, not settled yet."""


class Ranking(NamedTuple):
    """What came of a fit: the most promising candidates that were free, the best first."""

    order: NDArray[np.int64]
    predicted: NDArray[np.float64]
    """The expected score of each, in the same order."""
    number: int
    trained_on: int


class BatchSelector:
    """Chooses one molecule at a time, as workers become free.

    A first batch is random; it teaches the surrogate and is the unbiased sample that the report compares with. After
    it the best of the newest ranking are taken. As long as there is no ranking, random choice goes on, so that no
    worker waits for a fit.

    Args:
        fingerprints: packed bits of all candidates, ``uint8`` of shape (candidates, bytes).
        plan: budget, acquisition and seed.
        scaffolds: a number for the scaffold of each candidate, for a plan with a cap on them.

    Raises:
        ValueError: the plan caps scaffolds, and there are none.
    """

    def __init__(self, fingerprints: Fingerprints, plan: Plan, scaffolds: NDArray[np.integer] | None = None) -> None:
        if plan.scaffold_cap and (scaffolds is None or len(scaffolds) != len(fingerprints)):
            raise ValueError("A cap on scaffolds needs the scaffold of each candidate.")
        self._candidates = len(fingerprints)
        self._plan = plan
        self._scaffolds = scaffolds if plan.scaffold_cap else None
        self._members: Counter[int] = Counter()
        self._shuffled = np.random.default_rng(plan.seed).permutation(self._candidates)
        self._taken = np.zeros(self._candidates, dtype=bool)
        self._pending: set[int] = set()
        self._scores: dict[int, float] = {}
        self._ranking: Ranking | None = None
        self._cursor = {"random": 0, "ranked": 0}
        self._learned = 0
        self._lessons = 0
        self.chosen = 0

    @property
    def budget(self) -> int:
        """Molecules that will be chosen in all."""
        return min(self._plan.budget, self._candidates)

    def next(self) -> Choice | None:
        """Choose a molecule; None when the budget is spent."""
        if self.chosen >= self.budget:
            return None
        choice = self._ranked() or Choice(self._at_random(), None, 0)
        self._take(choice.candidate)
        self._pending.add(choice.candidate)
        return choice

    def observe(self, candidate: int, score: float | None) -> None:
        """Learn what came of a choice; None for a failure, which is not chosen again and teaches nothing."""
        self._pending.discard(candidate)
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
        candidates = sorted(self._scores)
        return Lesson(
            np.array(candidates, np.int64),
            np.array([self._scores[candidate] for candidate in candidates]),
            self._lessons,
            np.array(sorted(self._pending), np.int64),
        )

    def restore(self, chosen: Sequence[int], scores: Mapping[int, float], lessons: int) -> None:
        """Go on where an earlier session stopped: random choice in the same order, models numbered on.

        Args:
            chosen: candidates that were chosen, whatever came of them.
            scores: Scores of the molecules that have one.
            lessons: number of the last fit.
        """
        for candidate in chosen:
            self._take(candidate)
        self._scores = dict(scores)
        self._lessons = lessons

    def adopt(self, ranking: Ranking) -> None:
        """Choose from this ranking from now on."""
        self._ranking = ranking
        self._cursor["ranked"] = 0

    def _take(self, candidate: int) -> None:
        self._taken[candidate] = True
        self.chosen += 1
        if self._scaffolds is not None:
            self._members[int(self._scaffolds[candidate])] += 1

    def _ranked(self) -> Choice | None:
        """The best free candidate whose scaffold is not used up; None if it is time for a random one."""
        ranking = self._ranking
        if ranking is None or self.chosen < self._plan.first_batch:
            return None
        # Skipped for good: what is taken stays taken, and a scaffold that is used up stays so.
        place = self._walk("ranked", ranking.order, self._is_open)
        if place is None:
            return None
        return Choice(int(ranking.order[place]), float(ranking.predicted[place]), ranking.number)

    def _at_random(self) -> int:
        place = self._walk("random", self._shuffled, self._is_free)
        if place is None:
            raise RuntimeError("All candidates are taken.")
        return int(self._shuffled[place])

    def _walk(self, way: str, order: NDArray[np.int64], fits: Callable[[int], bool]) -> int | None:
        cursor = self._cursor[way]
        while cursor < len(order) and not fits(int(order[cursor])):
            cursor += 1
        self._cursor[way] = cursor
        return cursor if cursor < len(order) else None

    def _is_free(self, candidate: int) -> bool:
        return not self._taken[candidate]

    def _is_open(self, candidate: int) -> bool:
        if self._taken[candidate]:
            return False
        return self._scaffolds is None or self._members[int(self._scaffolds[candidate])] < self._plan.scaffold_cap


def study(
    fingerprints: Fingerprints | str | Path, plan: Plan, lesson: Lesson, second: NDArray[np.floating] | None = None
) -> Ranking:
    """Fit the surrogate and rank the candidates; another process or a task may do it.

    What comes out depends on the arguments alone, not on the order in which scores arrived.

    Args:
        fingerprints: packed bits of all candidates, or the ``.npy`` file with them, which is mapped, not read.
        plan: surrogate, acquisition, second objective and seed.
        lesson: what is known.
        second: the property of each candidate that the plan's second objective is about.

    Raises:
        ValueError: the plan has a second objective, and there are no values for it.
    """
    objective = plan.second_objective
    if objective is not None and second is None:
        raise ValueError(f"{plan.second} needs the {objective.name} of each candidate.")
    bits: Fingerprints = np.load(fingerprints, mmap_mode="r") if isinstance(fingerprints, (str, Path)) else fingerprints
    model = fit_surrogate(plan, bits[lesson.candidates], lesson.scores, bits[lesson.pending])
    merit = merit_function(plan, model, float(lesson.scores.min()))
    wanted = _RANKED + len(lesson.scores)
    places = shortlist(merit, bits, wanted + len(lesson.scores), plan.seed + lesson.number)
    places = np.setdiff1d(places, np.concatenate([lesson.candidates, lesson.pending]), assume_unique=True)
    if plan.acquisition == "thompson":
        chance = np.random.default_rng([plan.seed, lesson.number])
        values = thompson(model, bits[places], chance)
    else:
        values = merit(bits[places])
    best = lowest(values, wanted)
    if objective is not None and second is not None:
        contenders = int(np.clip(_CONTENDERS * len(bits), _FEWEST_CONTENDERS, _MOST_CONTENDERS))
        nominated, rest = best[:contenders], best[contenders:]
        order = pareto_order(values[nominated], second_cost(second[places[nominated]], objective))
        best = np.concatenate([nominated[order], rest])
    order = places[best]
    return Ranking(order, model.mean(bits[order]), lesson.number, len(lesson.scores))
