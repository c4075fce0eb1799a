"""The budget of block requests, in virtual time."""

from __future__ import annotations

import pytest

from diaspora_parsl.executors.parsl.scale_out_backoff import ScaleOutBackoff


@pytest.fixture
def reported() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def budget(reported: list[tuple[str, float]]) -> ScaleOutBackoff:
    return ScaleOutBackoff(lambda reason, pause: reported.append((reason, pause)))


def test_while_nothing_goes_wrong_everything_is_granted(
    budget: ScaleOutBackoff, reported: list[tuple[str, float]]
) -> None:
    for block in range(100):
        assert budget.may_ask(0.0)
        budget.accepted(block, 0.0)
    assert not reported


def test_a_scheduler_that_refuses_for_a_minute_is_asked_a_handful_of_times(
    budget: ScaleOutBackoff, reported: list[tuple[str, float]]
) -> None:
    asked = 0
    for tenth in range(600):
        if budget.may_ask(tenth / 10):
            asked += 1
            budget.refused(tenth / 10, "no")
    assert asked == 5
    assert [pause for _, pause in reported] == [2, 4, 8, 16, 32]
    assert reported[1][0] == (
        "a request for a block was refused: no (2 times in a row); no more blocks are requested for 4 s, then one"
    )


def test_after_the_pause_one_block_is_on_trial_and_its_life_ends_the_trouble(budget: ScaleOutBackoff) -> None:
    budget.refused(0.0, "no")
    assert not budget.may_ask(1.9)
    assert budget.may_ask(2.0)
    budget.accepted("trial", 2.0)
    assert not budget.may_ask(11.9)
    assert budget.may_ask(12.0)
    budget.accepted("next", 12.0)
    assert budget.may_ask(12.0), "all is forgotten"


def test_blocks_that_die_together_are_one_incident(budget: ScaleOutBackoff, reported: list[tuple[str, float]]) -> None:
    for block in range(20):
        budget.accepted(block, 0.0)
    for block in range(20):
        budget.ended(block, 1.0, "gone")
    assert [pause for _, pause in reported] == [2.0]
    budget.accepted("trial", 3.0)
    budget.ended("trial", 5.0, "gone")
    assert [pause for _, pause in reported] == [2.0, 4.0]


def test_a_block_that_lived_long_is_no_refusal(budget: ScaleOutBackoff, reported: list[tuple[str, float]]) -> None:
    budget.accepted("old", 0.0)
    assert budget.may_ask(20.0)
    budget.ended("old", 20.0, "its walltime is over")
    assert not reported


def test_a_new_generation_remembers_the_pause_but_not_the_blocks(budget: ScaleOutBackoff) -> None:
    budget.refused(0.0, "no")
    budget.accepted("trial", 2.0)
    budget.forget()
    assert budget.may_ask(3.0)
    budget.refused(3.0, "no")
    budget.forget()
    assert not budget.may_ask(6.9)
