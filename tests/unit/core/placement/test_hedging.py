"""Hedging: slow attempts, the endpoint of the second attempt, and the first result."""

from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.placement.hedging import RunTimes

LEARNT = {"hedge_min_results": 5, "hedge_min_seconds": 0.1}


def learn(pool: Any, seconds: float = 1.0, rounds: int = 6) -> None:
    """Let both endpoints run the function in these seconds."""
    for _ in range(rounds):
        tasks = [pool.submit(idempotent=True) for _ in pool.labels]
        assert {pool.where(task) for task in tasks} == set(pool.labels)
        pool.wait(seconds)
        for task in tasks:
            pool.finish(task)


@pytest.fixture
def pair(bench: Any) -> Any:
    """Two endpoints with one slot each and a known service time of one second."""
    pool = bench("alpha", "beta", **LEARNT).up()
    learn(pool)
    pool.actions.clear()
    return pool


def other(label: str) -> str:
    return "beta" if label == "alpha" else "alpha"


def test_a_slow_attempt_gets_a_second_one_elsewhere_and_the_first_result_wins(pair: Any) -> None:
    task = pair.submit(idempotent=True)
    first, home = pair.attempt(task), pair.where(task)
    pair.wait(1.9)
    assert len(pair.of(actions.Dispatch)) == 1
    pair.wait(0.2)
    (reported,) = pair.of(events.TaskHedged)
    assert (reported.task, reported.endpoint, reported.site) == (task, other(home), f"site-{other(home)}")
    assert reported.reason == (
        f"hedge: attempt {first} at {home} has run for 2 s; the limit is 2 s, 2 times the 0.9 quantile (1 s) of the "
        f"last 6 there; {other(home)} has an idle slot"
    )
    assert pair.of(actions.Dispatch)[1] == actions.Dispatch(task, reported.attempt, other(home), 0)
    assert actions.Resolve(task, reported.attempt) in pair.send(stimuli.Finished, reported.attempt)
    assert pair.send(stimuli.Finished, first)[0] == actions.Discard(first)
    assert pair.core.late == 1
    assert [late.attempt for late in pair.of(events.TaskLate)] == [first]


def test_the_first_attempt_may_win_too(pair: Any) -> None:
    task = pair.submit(idempotent=True)
    first = pair.attempt(task)
    pair.wait(3.0)
    hedge = pair.of(events.TaskHedged)[0].attempt
    assert actions.Resolve(task, first) in pair.send(stimuli.Finished, first)
    assert pair.send(stimuli.Failed, hedge, Failure(Kind.USER, "ValueError", ""))[0] == actions.Discard(hedge)


def test_only_what_may_run_twice_is_hedged(pair: Any) -> None:
    pair.submit(idempotent=False)
    pair.wait(100.0)
    assert not pair.of(events.TaskHedged)


def test_a_function_without_history_is_not_hedged(pair: Any) -> None:
    pair.submit("another", idempotent=True)
    pair.wait(100.0)
    assert not pair.of(events.TaskHedged)


def test_nothing_is_hedged_where_it_is_switched_off(bench: Any) -> None:
    pool = bench("alpha", "beta", hedging=False, **LEARNT).up()
    learn(pool)
    pool.submit(idempotent=True)
    pool.wait(100.0)
    assert not pool.of(events.TaskHedged)


@pytest.mark.parametrize("which", [0, 1])
def test_if_one_of_two_is_lost_the_other_goes_on(pair: Any, which: int) -> None:
    task = pair.submit(idempotent=True)
    first, home = pair.attempt(task), pair.where(task)
    pair.wait(3.0)
    both = [first, pair.of(events.TaskHedged)[0].attempt]
    lost, left = both[which], both[1 - which]
    pair.send(stimuli.Failed, lost, Failure(Kind.WORKER_LOST, "WorkerLost", ""))
    assert len(pair.of(actions.Dispatch)) == 2
    assert pair.attempt(task) == left
    place = other(home) if which == 0 else home
    assert pair.of(events.TaskRerouted)[0].reason.endswith(f"attempt {left} at {place} goes on")
    pair.die(place)
    assert pair.where(task) == other(place), "both are lost: it is rerouted like any other"
    pair.finish(task)
    assert len(pair.of(actions.Resolve)) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_endpoint_takes_only_its_own_attempt_along(pair: Any, which: int) -> None:
    task = pair.submit(idempotent=True)
    home = pair.where(task)
    pair.wait(3.0)
    places = [home, other(home)]
    pair.die(places[which])
    assert pair.where(task) == places[1 - which]
    assert len(pair.of(actions.Dispatch)) == 2


def test_both_places_refuse_and_the_last_one_delivers(pair: Any) -> None:
    task = pair.submit(idempotent=True)
    first = pair.attempt(task)
    pair.wait(3.0)
    hedge = pair.of(events.TaskHedged)[0].attempt
    assert pair.send(stimuli.Failed, first, Failure(Kind.PLACE, "ImportError", "x"))[0] == actions.Discard(first)
    answer = pair.send(stimuli.Failed, hedge, Failure(Kind.PLACE, "ImportError", "x"))
    assert (task, hedge) in [(action.task, action.attempt) for action in answer if isinstance(action, actions.Reject)]


def test_the_users_own_exception_is_delivered_at_once(pair: Any) -> None:
    task = pair.submit(idempotent=True)
    pair.wait(3.0)
    hedge = pair.of(events.TaskHedged)[0].attempt
    answer = pair.send(stimuli.Failed, hedge, Failure(Kind.USER, "ValueError", "x"))
    assert (task, hedge) in [(action.task, action.attempt) for action in answer if isinstance(action, actions.Reject)]


def test_there_must_be_an_idle_slot_and_it_is_taken_once_there_is(pair: Any) -> None:
    slow = pair.submit(idempotent=True)
    busy = pair.submit("long")
    assert pair.where(busy) == other(pair.where(slow))
    pair.wait(10.0)
    assert not pair.of(events.TaskHedged)
    pair.finish(busy)
    pair.wait(0.6)
    assert pair.of(events.TaskHedged)[0].task == slow


def test_without_a_budget_there_is_no_hedge(bench: Any) -> None:
    pool = bench("alpha", "beta", retry_budget_ratio=0.0, retry_budget_per_second=0.0, **LEARNT).up()
    learn(pool)
    pool.submit(idempotent=True)
    pool.wait(100.0)
    assert not pool.of(events.TaskHedged)
    assert pool.core.budget.refused > 0


def test_so_many_at_the_same_time_and_no_more(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=20, hedge_max_ratio=0.1, **LEARNT).up()
    tasks = [pool.submit(idempotent=True) for _ in range(20)]
    pool.wait(1.0)
    for task in tasks:
        pool.finish(task)
    for _ in range(10):
        pool.submit(idempotent=True)
    pool.wait(50.0)
    assert len(pool.of(events.TaskHedged)) == 4  # of 40 open slots


def test_time_in_a_queue_is_not_time_that_something_ran(bench: Any) -> None:
    """A prefetched attempt counts as slow by its own run time, without the wait before it."""
    pool = bench("alpha", "beta", prefetch_seconds=3.0, **LEARNT).up()
    learn(pool)
    pool.send(stimuli.Drain, "beta", "busy elsewhere")
    first, second = pool.submit(idempotent=True), pool.submit(idempotent=True)
    assert pool.where(second) == "alpha", "sent ahead"
    pool.send(stimuli.Resume, "beta")
    pool.wait(1.9)
    pool.finish(first)
    pool.wait(1.9)
    assert not pool.of(events.TaskHedged)
    pool.wait(0.2)
    assert [reported.task for reported in pool.of(events.TaskHedged)] == [second]


def test_a_slower_endpoint_is_hedged_to_only_when_it_could_have_finished(bench: Any) -> None:
    pool = bench("alpha", "beta", **LEARNT).up()
    for label, seconds in (("alpha", 1.0), ("beta", 5.0)):
        for _ in range(6):
            task = pool.submit(eligible=(label,), idempotent=True)
            pool.wait(seconds)
            pool.finish(task)
    task = pool.submit(idempotent=True)
    assert pool.where(task) == "alpha"
    pool.wait(4.9)
    assert not pool.of(events.TaskHedged)
    pool.wait(1.0)
    assert pool.of(events.TaskHedged)[0].endpoint == "beta"


def test_superseded_attempts_at_a_silent_endpoint_do_not_block_its_probe(pair: Any) -> None:
    task = pair.submit(idempotent=True)
    home = pair.where(task)
    pair.wait(3.0)
    pair.send(stimuli.Finished, pair.of(events.TaskHedged)[0].attempt)
    pair.wait(100.0)
    assert len(pair.core.scheduler.held[home]) == 1, "a slow worker of a healthy place is busy"
    pair.send(stimuli.Unanswered, home, 0, pair.now - 5.0)
    pair.wait(61.0)
    assert not pair.core.scheduler.held[home]


def test_a_hundred_waiting_tasks_share_one_deadline(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=50, **LEARNT).up()
    learn_with = [pool.submit(idempotent=True) for _ in range(20)]
    pool.wait(1.0)
    for task in learn_with:
        pool.finish(task)
    before = len(pool.core._deadlines)
    for _ in range(80):
        pool.submit(idempotent=True)
    assert len(pool.core._deadlines) <= before + 2


def test_quantiles_are_those_of_the_last_hundred() -> None:
    history = RunTimes()
    for second in range(1, 301):
        history.add(float(second))
    assert history.quantile(0.9) == 290.0
    assert history.quantile(0.9) == 290.0
