from __future__ import annotations

import numpy as np
import pytest

from diaspora_parsl.campaigns.candidates import find_candidates
from diaspora_parsl.campaigns.chooser import Chooser, study
from diaspora_parsl.campaigns.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.settings import Acquisition, Plan
from diaspora_parsl.campaigns.surrogate import TanimotoGP

CANDIDATES = find_candidates(combinatorial_library(300))
#: Stands for docking: cheap, smooth in structure, lower is better.
SCORES = np.array([-4 - 0.15 * len(entry.smiles) - 0.3 * entry.smiles.count("n") for entry in CANDIDATES.entries])


def test_it_learns_what_similar_molecules_score() -> None:
    order = np.random.default_rng(1).permutation(300)
    known, unknown = order[:150], order[150:]
    model = TanimotoGP(CANDIDATES.fingerprints[known], SCORES[known])
    mean, deviation = model.predict(CANDIDATES.fingerprints[unknown])
    assert np.abs(mean - SCORES[unknown]).mean() < 0.5 * np.abs(SCORES[unknown] - SCORES[known].mean()).mean()
    assert (deviation > 0).all()
    assert model.predict(CANDIDATES.fingerprints[known]).deviation.mean() < deviation.mean()


def test_it_agrees_with_the_textbook() -> None:
    bits = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]], dtype=np.uint8)
    scores = np.array([-1.0, -2.0, -4.0])
    model = TanimotoGP(np.packbits(bits, axis=1), scores)
    kernel = np.array([[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]])
    expected = kernel @ np.linalg.solve(kernel + model.noise * np.eye(3), scores - scores.mean()) + scores.mean()
    np.testing.assert_allclose(model.predict(np.packbits(bits, axis=1)).mean, expected, atol=1e-6)


@pytest.mark.parametrize("scores", [[-5.0], [-5.0, -5.0, -5.0]])
def test_little_to_learn_from_is_no_error(scores: list[float]) -> None:
    model = TanimotoGP(CANDIDATES.fingerprints[: len(scores)], np.array(scores))
    mean, deviation = model.predict(CANDIDATES.fingerprints)
    np.testing.assert_allclose(mean, -5.0, atol=1e-3)
    assert np.isfinite(deviation).all()


def test_no_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be fitted"):
        TanimotoGP(CANDIDATES.fingerprints[:0], np.array([]))


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


@pytest.mark.parametrize("acquisition", ["greedy", "ucb"])
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
