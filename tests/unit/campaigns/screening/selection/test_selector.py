from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.selection.batches import Rounds
from diaspora_parsl.campaigns.screening.selection.selector import BatchSelector, study
from diaspora_parsl.campaigns.screening.settings import Acquisition, Plan, SurrogateName

CANDIDATES = find_candidates(combinatorial_library(300))
#: Stands for docking: cheap, smooth in structure, lower is better.
SCORES = np.array([-4 - 0.15 * len(entry.smiles) - 0.3 * entry.smiles.count("n") for entry in CANDIDATES.entries])


def choose_all(plan: Plan, failures: frozenset[int] = frozenset()) -> list[int]:
    """A campaign without Parsl: results arrive in order, ``in_flight`` behind the choice."""
    chooser = BatchSelector(CANDIDATES.fingerprints, plan)
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
    chooser = BatchSelector(CANDIDATES.fingerprints, Plan(budget=30, initial=10, in_flight=2))
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


def outcome(plan: Plan, seconds: np.random.Generator, second: NDArray[np.float64] | None = None) -> list[int]:
    """A campaign in rounds, whose results arrive in some order."""
    rounds = Rounds(BatchSelector(CANDIDATES.fingerprints, plan), plan)
    chosen: list[int] = []
    while True:
        batch = list(iter(rounds.next, None))
        for choice in seconds.permutation(np.array([choice.candidate for choice in batch], int)).tolist():
            rounds.observe(choice, None if choice % 7 == 0 else float(SCORES[choice]))
        chosen += [choice.candidate for choice in batch]
        if lesson := rounds.lesson():
            rounds.adopt(study(CANDIDATES.fingerprints, plan, lesson, second))
        elif not batch:
            return chosen


@pytest.mark.parametrize(
    ("surrogate", "acquisition"), [("gp", "greedy"), ("gp", "thompson"), ("lightgbm", "thompson"), ("forest", "ucb")]
)
def test_in_rounds_the_order_of_arrival_is_nothing(surrogate: SurrogateName, acquisition: Acquisition) -> None:
    plan = Plan(budget=40, initial=20, rounds=3, surrogate=surrogate, acquisition=acquisition)
    first, other = (outcome(plan, np.random.default_rng(seed)) for seed in (1, 2))
    assert first == other
    assert len(set(first)) == 40


def settled_chooser(plan: Plan, count: int, scaffolds: NDArray[np.int64] | None = None) -> BatchSelector:
    chooser = BatchSelector(CANDIDATES.fingerprints, plan, scaffolds)
    for _ in range(count):
        choice = chooser.next()
        assert choice is not None
        chooser.observe(choice.candidate, float(SCORES[choice.candidate]))
    return chooser


def test_what_is_known_or_pending_is_not_ranked() -> None:
    plan = Plan(budget=60, initial=30)
    chooser = settled_chooser(plan, 30)
    pending = [choice.candidate for choice in (chooser.next(), chooser.next()) if choice is not None]
    lesson = chooser.lesson()
    assert lesson is not None
    assert lesson.pending.tolist() == sorted(pending)
    assert lesson.candidates.tolist() == sorted(lesson.candidates)
    ranking = study(CANDIDATES.fingerprints, plan, lesson)
    assert not set(ranking.order) & (set(pending) | set(lesson.candidates))
    assert len(ranking.order) == len(ranking.predicted) == 300 - 30 - 2


def test_a_study_can_be_a_task_on_a_mapped_file(tmp_path: Path) -> None:
    plan = Plan(budget=60, initial=30)
    lesson = settled_chooser(plan, 30).lesson()
    assert lesson is not None
    np.save(tmp_path / "bits.npy", CANDIDATES.fingerprints)
    task = pickle.loads(pickle.dumps((study, lesson, plan)))  # noqa: S301 - our own bytes
    ranking = task[0](tmp_path / "bits.npy", task[2], task[1])
    assert ranking.order.tolist() == study(CANDIDATES.fingerprints, plan, lesson).order.tolist()


def test_scaffolds_are_capped_as_far_as_others_are_left() -> None:
    scaffolds = np.arange(300) // 30  # ten of them, thirty members each
    plan = Plan(budget=45, initial=5, in_flight=1, scaffold_cap=4)
    chooser = settled_chooser(plan, 5, scaffolds)
    lesson = chooser.lesson()
    assert lesson is not None
    chooser.adopt(study(CANDIDATES.fingerprints, plan, lesson))
    ranked = []
    while (choice := chooser.next()) and choice.model:
        ranked.append(choice.candidate)
    assert max(np.bincount(scaffolds[ranked])) <= 4
    assert len(ranked) >= 10 * 4 - 5
    assert len(list(iter(chooser.next, None))) + len(ranked) + (choice is not None) == 40


def test_a_cap_without_scaffolds_is_an_error() -> None:
    with pytest.raises(ValueError, match="scaffold of each candidate"):
        BatchSelector(CANDIDATES.fingerprints, Plan(budget=5, scaffold_cap=1))


def test_a_second_objective_moves_the_choice() -> None:
    plain, both = (Plan(budget=60, initial=30, second=second) for second in ("", "max:qed"))
    lesson = settled_chooser(plain, 30).lesson()
    assert lesson is not None
    qed = np.random.default_rng(5).random(300)
    with pytest.raises(ValueError, match="needs the qed"):
        study(CANDIDATES.fingerprints, both, lesson)
    alone = study(CANDIDATES.fingerprints, plain, lesson)
    ranking = study(CANDIDATES.fingerprints, both, lesson, qed)
    assert sorted(ranking.order) == sorted(alone.order)
    assert qed[ranking.order[:10]].mean() > qed[alone.order[:10]].mean()
    # The very best in either objective, of those expected to score well, come first.
    contenders = alone.order[:100]
    assert {int(contenders[0]), int(contenders[np.argmax(qed[contenders])])} <= set(ranking.order[:2].tolist())


def test_what_was_chosen_before_is_not_chosen_again() -> None:
    plan = Plan(budget=60, initial=30)
    chooser = BatchSelector(CANDIDATES.fingerprints, plan)
    chooser.restore(list(range(40)), {place: float(SCORES[place]) for place in range(30)}, 7)
    lesson = chooser.lesson()
    assert lesson is not None
    assert (lesson.number, len(lesson.scores)) == (8, 30)
    chosen = [choice.candidate for choice in iter(chooser.next, None)]
    assert len(chosen) == 20
    assert min(chosen) >= 40
