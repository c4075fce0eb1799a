from __future__ import annotations

import random

import numpy as np
import pytest

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.selection.batches import Rounds
from diaspora_parsl.campaigns.screening.selection.selector import BatchSelector, study
from diaspora_parsl.campaigns.screening.settings import Plan

CANDIDATES = find_candidates(combinatorial_library(120))
SCORES = np.array([-4 - len(entry.smiles) / 20 for entry in CANDIDATES.entries])


def order_of(plan: Plan, seed: int, failures: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
    """Candidates and models in the order of choice, with results that arrive in any order."""
    rounds = Rounds(BatchSelector(CANDIDATES.fingerprints, plan), plan)
    shuffler = random.Random(seed)  # noqa: S311 - no secret
    chosen: list[tuple[int, int]] = []
    pending: list[int] = []
    while True:
        while len(pending) < plan.in_flight and (choice := rounds.next()):
            chosen.append((choice.candidate, choice.model))
            pending.append(choice.candidate)
        if pending:
            done = pending.pop(shuffler.randrange(len(pending)))
            rounds.observe(done, None if done in failures else float(SCORES[done]))
        if (lesson := rounds.lesson()) is not None:
            assert rounds.waiting
            assert not pending
            rounds.adopt(study(CANDIDATES.fingerprints, plan, lesson))
        if not pending and not rounds.waiting and len(chosen) == plan.budget:
            return chosen


@pytest.mark.parametrize("failures", [frozenset(), frozenset(range(0, 120, 3))])
def test_the_order_of_arrival_is_nothing(failures: frozenset[int]) -> None:
    plan = Plan(budget=50, initial=14, in_flight=6, rounds=4, seed=2)
    orders = [order_of(plan, seed, failures) for seed in (0, 1, 2)]
    assert orders[0] == orders[1] == orders[2]
    assert [model for _, model in orders[0]] == [0] * 14 + [1] * 12 + [2] * 12 + [3] * 12
    assert len({candidate for candidate, _ in orders[0]}) == 50


@pytest.mark.parametrize("plan", [Plan(budget=30, rounds=1), Plan(budget=30, rounds=3, acquisition="random")])
def test_rounds_without_a_model(plan: Plan) -> None:
    assert [model for _, model in order_of(plan, 0)] == [0] * 30


def test_nothing_is_learned_from_too_few_scores() -> None:
    plan = Plan(budget=30, initial=10, rounds=3)
    assert [model for _, model in order_of(plan, 0, frozenset(range(120)))] == [0] * 30
