from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.errors import PoisonTaskError

OWN = Failure(Kind.USER, "ZeroDivisionError", "division by zero", FailureAction.FAIL, raised=True)
LACKS = Failure(Kind.PLACE, "ModuleNotFoundError", "no module named x", FailureAction.ELSEWHERE, raised=True)
TRANSIENT = Failure(Kind.USER, "Flaky", "try again", FailureAction.ANYWHERE, raised=True, charge=False)
HUNGRY = Failure(Kind.RESOURCE, "MemoryError", "", FailureAction.MORE, raised=True)


@pytest.fixture
def pool(bench: Any) -> Any:
    return bench("alpha", "beta")


def raises(pool: Any, task: int, failure: Failure) -> int:
    """Let the running attempt of a task raise; return the attempt."""
    attempt: int = pool.attempt(task)
    pool.send(stimuli.Failed, attempt, failure)
    return attempt


def attribution(pool: Any, task: int) -> Attribution:
    (found,) = [reject.attribution for reject in pool.of(actions.Reject) if reject.task == task]
    assert isinstance(found, Attribution)
    return found


def discarded(pool: Any) -> set[int]:
    return {discard.attempt for discard in pool.of(actions.Discard)}


# --- second opinions ------------------------------------------------------------------------------------------------


def test_what_cannot_depend_on_the_place_fails_after_one_execution(pool: Any) -> None:
    task = pool.up().submit(idempotent=True)
    attempt = raises(pool, task, OWN)
    assert pool.rejected(task, attempt)
    assert attribution(pool, task).cost == ALL_RETRIES


def test_the_same_error_at_two_places_is_the_tasks_own(pool: Any) -> None:
    task = pool.up().submit(idempotent=True)
    places = [pool.where(task)]
    first = raises(pool, task, LACKS)
    assert not pool.of(actions.Reject)
    assert first not in discarded(pool), "its outcome may still be needed"
    places.append(pool.where(task))
    assert set(places) == {"alpha", "beta"}
    last = raises(pool, task, LACKS)
    assert pool.rejected(task, last)
    assert discarded(pool) == {first}
    said = attribution(pool, task)
    assert (said.kind, said.cost) == (Kind.USER, ALL_RETRIES)
    assert "alpha" in said.reason
    assert "beta" in said.reason
    assert pool.of(events.TaskFailed)[0].reason == said.reason


def test_a_success_elsewhere_teaches_where_the_function_goes_first(pool: Any) -> None:
    task = pool.up().submit(idempotent=True)
    bad = pool.where(task)
    first = raises(pool, task, LACKS)
    good = pool.where(task)
    pool.finish(task)
    assert discarded(pool) == {first}
    tasks = [pool.submit(idempotent=True) for _ in range(3)]
    for task in tasks:
        assert pool.where(task) == good
        pool.finish(task)
    assert pool.where(pool.submit("another")) in {bad, good}
    assert pool.state(bad) is State.UP
    pool.wait(pool.core.settings.fade_time)
    pool.submit(idempotent=True)
    assert pool.where(pool.submit(idempotent=True)) is not None, "the evidence has faded"


def test_with_an_opinion_pending_the_function_gets_nothing_more_there_for_a_while(pool: Any) -> None:
    task = pool.up(slots=1).submit(idempotent=True)
    first = pool.where(task)
    raises(pool, task, LACKS)
    other, another = pool.submit(idempotent=True), pool.submit("g")
    assert pool.where(other) is None
    assert pool.where(another) == first
    pool.finish(another)
    pool.wait(61)
    assert pool.where(other) == first, "the wait is bounded"


def test_a_success_there_is_evidence_too(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=1).up()
    for function in ("f", "f"):
        tasks = [pool.submit(function) for _ in range(2)]
        for task in tasks:
            pool.finish(task)
    task = pool.submit(idempotent=True)
    first = pool.where(task)
    raises(pool, task, LACKS)
    pool.finish(task)
    tasks = [pool.submit(idempotent=True) for _ in range(2)]
    assert first in {pool.where(task) for task in tasks}, "one failure after successes decides nothing"


@pytest.mark.parametrize("why", ["not repeatable", "second opinions are off", "alone", "no budget"])
def test_an_opinion_that_cannot_be_had_delivers_the_error_at_once(bench: Any, why: str) -> None:
    pool = bench("alpha", "beta", second_opinion=why != "second opinions are off")
    pool.up()
    if why == "alone":
        pool.send(stimuli.Drain, "beta", "maintenance")
    if why == "no budget":
        pool.core.second_opinions.may_repeat = lambda _: False
    task = pool.submit(idempotent=why != "not repeatable")
    attempt = raises(pool, task, LACKS)
    assert pool.rejected(task, attempt)
    assert attribution(pool, task).cost == 1.0
    assert attribution(pool, task).kind is Kind.PLACE


@pytest.mark.parametrize("how", ["dies", "drains", "is lost while it runs", "refuses", "stops"])
def test_an_opinion_that_can_no_longer_be_had_delivers_the_first_error(bench: Any, how: str) -> None:
    pool = bench("alpha", "beta").up()
    blocker = pool.submit("blocker", ("beta",)) if how in {"dies", "drains"} else None
    task = pool.submit(idempotent=True)
    if blocker is None and pool.where(task) != "alpha":
        pool.send(stimuli.Failed, pool.attempt(task), Failure(Kind.MANAGER_LOST, "ManagerLost", ""))
    assert pool.where(task) == "alpha"
    first = raises(pool, task, LACKS)
    assert pool.where(task) == (None if blocker else "beta")
    assert not pool.of(actions.Reject)
    match how:
        case "dies" | "is lost while it runs":
            pool.die("beta")
        case "drains":
            pool.send(stimuli.Drain, "beta", "maintenance")
        case "refuses":
            pool.fail(task, Kind.PLACE)
        case "stops":
            pool.send(stimuli.Stopped)
    assert pool.rejected(task, first)
    assert attribution(pool, task).cost == 1.0


def test_a_place_that_is_not_up_yet_is_waited_for_in_bounds(pool: Any) -> None:
    pool.up("alpha")
    task = pool.submit(idempotent=True)
    first = raises(pool, task, LACKS)
    pool.wait(59)
    assert not pool.of(actions.Reject)
    pool.wait(3)
    assert pool.rejected(task, first)


def test_another_site_is_preferred(bench: Any) -> None:
    pool = bench("alpha", "beta", "gamma", sites={"beta": "site-alpha"}).up()
    task = pool.submit(idempotent=True)
    if pool.where(task) != "alpha":
        pytest.fail("the first of equal places is taken")
    raises(pool, task, LACKS)
    assert pool.where(task) == "gamma"


def test_different_errors_are_no_confirmation(bench: Any) -> None:
    pool = bench("alpha", "beta", "gamma").up()
    task = pool.submit(idempotent=True)
    first = raises(pool, task, LACKS)
    second = raises(pool, task, Failure(Kind.PLACE, "OSError", "disk full", FailureAction.ELSEWHERE, raised=True))
    assert second in discarded(pool)
    pool.finish(task)
    assert discarded(pool) == {first, second}
    assert not pool.of(actions.Reject)


def test_a_transient_error_may_run_again_at_the_same_place_in_bounds(bench: Any) -> None:
    pool = bench("alpha").up()
    task = pool.submit(idempotent=True)
    count = 0
    while not pool.of(actions.Reject):
        raises(pool, task, TRANSIENT)
        count += 1
        assert count < 10
    assert count == 4
    assert attribution(pool, task).cost == 0.0


def test_one_bad_function_quarantines_nothing(bench: Any) -> None:
    """Also after its evidence has faded several times."""
    pool = bench("alpha", "beta", "gamma", fade_time=1.0).up()
    failures = 0
    for _ in range(40):
        task = pool.submit(idempotent=True)
        if pool.where(task) == "alpha":
            raises(pool, task, LACKS)
            failures += 1
        pool.finish(task)
        pool.wait(10)
    assert failures > 10
    assert not pool.of(actions.Reject)
    assert not pool.of(events.EndpointSuspect)


def test_many_functions_that_fail_at_one_place_only_quarantine_it(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=1).up()
    for number in range(12):
        function = f"f{number}"
        task = pool.submit(function, idempotent=True)
        if pool.where(task) == "alpha":
            raises(pool, task, LACKS)
        pool.finish(task)
        pool.finish(pool.submit(function, ("beta",)))
        pool.wait(1)
    assert pool.state("alpha") is State.QUARANTINED


# --- memory ---------------------------------------------------------------------------------------------------------


def test_a_task_that_ran_out_of_memory_goes_where_there_is_more(bench: Any) -> None:
    pool = bench("small", "middle", "large", memory={"small": 1.0, "middle": 4.0, "large": 16.0}).up()
    task = pool.submit("f", idempotent=True)
    assert pool.where(task) == "small"
    first = raises(pool, task, HUNGRY)
    seen = []
    while not pool.of(actions.Reject):
        seen.append(pool.where(task))
        last = raises(pool, task, HUNGRY)
    assert seen in (["middle", "large"], ["large"])
    assert pool.rejected(task, last)
    assert first in discarded(pool)
    assert attribution(pool, task) == Attribution(
        Kind.RESOURCE, ALL_RETRIES, "it ran out of memory with 16 GB per slot at large, and there is no more now"
    )


def test_without_known_memory_it_gets_a_second_opinion(pool: Any) -> None:
    task = pool.up().submit(idempotent=True)
    raises(pool, task, HUNGRY)
    last = raises(pool, task, HUNGRY)
    assert pool.rejected(task, last)


def test_a_worker_killed_for_its_memory_goes_where_there_is_more_and_counts_as_a_kill(bench: Any) -> None:
    pool = bench("small", "large", memory={"small": 1.0, "large": 16.0}).up()
    task = pool.submit()
    killed = Failure(Kind.RESOURCE, "WorkerLost", "signal 9", FailureAction.MORE, killed=True)
    assert pool.where(task) == "small"
    raises(pool, task, killed)
    assert pool.where(task) == "large"
    assert pool.core.tasks[task].kills == 1
    pool.finish(task)
    assert len(pool.of(actions.Resolve)) == 1


# --- poison and costs -----------------------------------------------------------------------------------------------


def test_poison_names_function_places_and_kills(pool: Any) -> None:
    task = pool.up().submit("cruncher")
    for _ in range(3):
        pool.fail(task, Kind.WORKER_LOST)
    (reject,) = pool.of(actions.Reject)
    error = reject.verdict
    assert isinstance(error, PoisonTaskError)
    assert (error.function, set(error.places), error.kills) == ("cruncher", {"alpha", "beta"}, 3)
    assert attribution(pool, task) == Attribution(Kind.POISON, ALL_RETRIES)
    assert pool.of(events.TaskFailed)[0].kind == "poison"


def test_a_rule_can_fail_a_lost_task(pool: Any) -> None:
    task = pool.up().submit()
    attempt = raises(pool, task, Failure(Kind.WORKER_LOST, "WorkerLost", "", FailureAction.FAIL))
    assert pool.rejected(task, attempt)
    assert attribution(pool, task).cost == ALL_RETRIES
