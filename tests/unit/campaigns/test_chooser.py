from __future__ import annotations

import numpy as np
import pytest

from diaspora_parsl.campaigns.candidates import find_candidates
from diaspora_parsl.campaigns.chooser import Chooser, study
from diaspora_parsl.campaigns.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.settings import Acquisition, Plan

CANDIDATES = find_candidates(combinatorial_library(300))
#: Stands for docking: cheap, smooth in structure, lower is better.
SCORES = np.array([-4 - 0.15 * len(entry.smiles) - 0.3 * entry.smiles.count("n") for entry in CANDIDATES.entries])


def choose_all(plan: Plan, failures: frozenset[int] = frozenset()) -> list[int]:
    """A campaign without Parsl: results arrive in order, ``in_flight`` behind the choice."""
    chooser = Chooser(CANDIDATES.fingerprints, plan)
    chosen: list[int] = []
    pending: list[int] = []
    while choice := chooser.next():
        chosen.append(choice.candidate)
        pending.append(choice.candidate)
        if len(pending) >= plan.in_flight:
            done = pending.pop(0)
            chooser.observe(done, None if done in failures else float(SCORES[done]))
        if lesson := chooser.lesson():
            chooser.adopt(study(CANDIDATES.fingerprints, plan, lesson))
    return chosen


@pytest.mark.parametrize("acquisition", ["greedy", "ucb", "ei", "thompson"])
def test_choosing_beats_chance(acquisition: Acquisition) -> None:
    best = set(np.argsort(SCORES)[:30])
    chosen = choose_all(Plan(budget=90, in_flight=6, acquisition=acquisition))
    by_chance = choose_all(Plan(budget=90, in_flight=6, acquisition="random"))
    assert len(best & set(chosen)) >= 2 * len(best & set(by_chance))


def test_nothing_is_chosen_twice_and_the_budget_is_kept() -> None:
    chosen = choose_all(Plan(budget=120, in_flight=10), failures=frozenset(range(0, 300, 3)))
    assert len(chosen) == len(set(chosen)) == 120


def test_a_budget_beyond_the_library_takes_all_of_it() -> None:
    assert sorted(choose_all(Plan(budget=1000, in_flight=3))) == list(range(300))


def test_the_same_seed_chooses_the_same() -> None:
    assert choose_all(Plan(budget=60, seed=3)) == choose_all(Plan(budget=60, seed=3))
    assert choose_all(Plan(budget=60, seed=3)) != choose_all(Plan(budget=60, seed=4))


def test_only_failures_leave_it_choosing_at_random() -> None:
    chosen = choose_all(Plan(budget=40, in_flight=2), failures=frozenset(range(300)))
    assert len(set(chosen)) == 40


def test_choices_say_where_they_come_from() -> None:
    chooser = Chooser(CANDIDATES.fingerprints, Plan(budget=30, initial=10, in_flight=2))
    for _ in range(10):
        choice = chooser.next()
        assert choice is not None
        assert (choice.predicted, choice.model) == (None, 0)
        chooser.observe(choice.candidate, float(SCORES[choice.candidate]))
    lesson = chooser.lesson()
    assert lesson is not None
    assert chooser.lesson() is None
    chooser.adopt(study(CANDIDATES.fingerprints, Plan(budget=40, seed=1), lesson))
    choice = chooser.next()
    assert choice is not None
    assert choice.model == 1
    assert choice.predicted is not None
