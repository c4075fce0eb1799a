from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.attribution.node_second_opinions import Sighting, second_run
from diaspora_parsl.core.failures import Failure, FailureAction, Kind

NAMES = [f"h{number} {number} m{number}" for number in range(4)]
MANAGERS = tuple((f"m{number}", str(number)) for number in range(4))


@pytest.fixture
def pool(bench: Any) -> Any:
    pool = bench("alpha", slots=4)
    pool.up()
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS)
    return pool


def submit(pool: Any, *, idempotent: bool = True, function: str = "f") -> int:
    pool._tasks += 1
    number: int = pool._tasks
    pool.send(stimuli.Submitted, number, function, frozenset(pool.labels), idempotent=idempotent)
    return number


def raises(pool: Any, task: int, node: str, error: str = "OSError", kind: Kind = Kind.USER) -> list[actions.Action]:
    action = FailureAction.FAIL if error == "ZeroDivisionError" else FailureAction.ELSEWHERE
    failure = Failure(kind, error, "", action, raised=True)
    answer: list[actions.Action] = pool.send(stimuli.Failed, pool.attempt(task), failure, node)
    return answer


def rejected(answer: list[actions.Action]) -> list[tuple[int, int | None]]:
    return [(action.task, action.attempt) for action in answer if isinstance(action, actions.Reject)]


def last_order(pool: Any, task: int) -> actions.Dispatch:
    orders: list[actions.Dispatch] = [order for order in pool.of(actions.Dispatch) if order.task == task]
    return orders[-1]


def test_an_exception_is_tried_on_another_node_and_the_good_result_counts(pool: Any) -> None:
    task = submit(pool)
    first = pool.attempt(task)
    answer = raises(pool, task, NAMES[0])
    assert not [a for a in answer if isinstance(a, actions.Reject | actions.Discard)], "the exception is kept"
    again = last_order(pool, task)
    assert (set(again.avoid), again.known) == ({"h0", "m0"}, first)
    other = submit(pool)
    assert set(last_order(pool, other).avoid) == {"h0", "m0"}, "the node gets no more of the function"
    answer = pool.send(stimuli.Finished, again.attempt, NAMES[1])
    assert actions.Resolve(task, again.attempt) in answer
    assert actions.Discard(first) in answer
    (reported,) = pool.of(events.NodeQuarantined)
    assert (reported.endpoint, reported.site, reported.node, reported.block, reported.function) == (
        "alpha",
        "site-alpha",
        "h0",
        "0",
        "f",
    )
    assert not pool.of(actions.Evict)


def test_the_same_from_two_nodes_is_the_tasks_own(pool: Any) -> None:
    task = submit(pool)
    first = pool.attempt(task)
    raises(pool, task, NAMES[0])
    second = pool.attempt(task)
    answer = raises(pool, task, NAMES[1])
    assert (task, second) in rejected(answer)
    assert actions.Discard(first) in answer
    assert not pool.of(events.NodeQuarantined)
    assert last_order(pool, submit(pool)).avoid == ()


def test_another_error_is_tried_at_a_third_node_and_then_delivered(pool: Any) -> None:
    task = submit(pool)
    raises(pool, task, NAMES[0], "OSError")
    second = pool.attempt(task)
    assert actions.Discard(second) in raises(pool, task, NAMES[1], "RuntimeError")
    assert set(last_order(pool, task).avoid) == {"h0", "m0", "h1", "m1"}
    third = pool.attempt(task)
    assert (task, third) in rejected(raises(pool, task, NAMES[2], "PermissionError"))


@pytest.mark.parametrize(
    ("idempotent", "error", "node"),
    [(False, "OSError", NAMES[0]), (True, "ZeroDivisionError", NAMES[0]), (True, "OSError", "")],
)
def test_where_a_second_run_is_no_use_the_exception_is_delivered_at_once(
    pool: Any, idempotent: bool, error: str, node: str  # noqa: FBT001 - of the table
) -> None:  # fmt: skip
    task = submit(pool, idempotent=idempotent)
    attempt = pool.attempt(task)
    assert (task, attempt) in rejected(raises(pool, task, node, error))


def test_what_the_nodes_of_one_endpoint_agree_on_is_tried_at_another(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=2).up("alpha")
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS[:2])
    task = submit(pool)
    raises(pool, task, NAMES[0])
    pool.up("beta")
    assert pool.where(task) == "alpha"
    raises(pool, task, NAMES[1])
    assert pool.where(task) == "beta"
    again = pool.attempt(task)
    assert (task, again) in rejected(raises(pool, task, NAMES[2])), "the same from two endpoints"


def test_a_function_that_never_worked_is_tried_at_another_endpoint_first(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=2).up("alpha")
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS[:2])
    task = submit(pool)
    pool.up("beta")
    raises(pool, task, NAMES[0])
    assert pool.where(task) == "beta"


def test_the_only_node_gets_no_second_opinion(bench: Any) -> None:
    pool = bench("alpha").up()
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS[:1])
    task = submit(pool)
    attempt = pool.attempt(task)
    assert (task, attempt) in rejected(raises(pool, task, NAMES[0]))


def test_an_opinion_that_does_not_come_delivers_the_first_exception(bench: Any) -> None:
    pool = bench("alpha").up()
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS[:1], more=True)
    task = submit(pool)
    first = pool.attempt(task)
    raises(pool, task, NAMES[0])
    for _ in range(8):
        pool.wait(1.0)
        answer = pool.send(stimuli.Bounced, pool.attempt(task), NAMES[0])
        assert not [a for a in answer if isinstance(a, actions.Reject)]
    pool.wait(3.0)
    refused = pool.attempt(task)
    answer = pool.send(stimuli.Bounced, refused, NAMES[0])
    assert (task, first) in rejected(answer)
    assert actions.Discard(refused) in answer


def test_a_task_that_waits_in_the_dark_gets_its_own_exception(pool: Any) -> None:
    task = submit(pool)
    first = pool.attempt(task)
    raises(pool, task, NAMES[0])
    pool.die("alpha")
    pool.send(stimuli.Nodes, "alpha", 0, ())
    pool.wait(20.0)
    assert (task, first) in rejected(pool.of(actions.Reject))


def test_refusals_are_no_attempts(bench: Any) -> None:
    pool = bench("alpha", slots=4, max_attempts=3).up()
    pool.send(stimuli.Nodes, "alpha", 0, MANAGERS)
    task = submit(pool)
    for _ in range(20):
        attempt = pool.attempt(task)
        assert actions.Discard(attempt) in pool.send(stimuli.Bounced, attempt, NAMES[0])
    assert not pool.of(actions.Reject)
    pool.finish(task)


def test_a_refusal_does_not_reduce_the_prefetch(bench: Any) -> None:
    pool = bench("alpha", slots=1).up()
    task = submit(pool)
    pool.now = 0.01
    pool.finish(task)
    tasks = [submit(pool) for _ in range(10)]
    assert {pool.where(t) for t in tasks} == {"alpha"}
    pool.send(stimuli.Bounced, pool.attempt(tasks[0]), NAMES[0])
    assert {pool.where(t) for t in tasks} == {"alpha"}


def test_a_late_refusal_is_let_go(pool: Any) -> None:
    assert pool.send(stimuli.Bounced, 99, NAMES[0]) == [actions.Discard(99)]


def test_a_node_on_which_everything_fails_is_evicted_once(pool: Any) -> None:
    for function in "fgh":
        task = submit(pool, function=function)
        raises(pool, task, NAMES[0])
        pool.send(stimuli.Finished, pool.attempt(task), NAMES[1])
    assert pool.of(actions.Evict) == [actions.Evict("alpha", 0, "m0", "0")]
    out = [reported for reported in pool.of(events.NodeQuarantined) if not reported.function]
    assert "3 tasks in a row" in out[0].reason
    task = submit(pool, function="new")
    assert set(last_order(pool, task).avoid) == {"h0", "m0"}


def test_a_probe_that_succeeds_restores_a_node(pool: Any) -> None:
    task = submit(pool)
    raises(pool, task, NAMES[0])
    pool.send(stimuli.Finished, pool.attempt(task), NAMES[1])
    pool.wait(11.0)
    probe = submit(pool)
    assert last_order(pool, probe).avoid == ()
    pool.send(stimuli.Finished, pool.attempt(probe), NAMES[0])
    (reported,) = pool.of(events.NodeRestored)
    assert (reported.node, reported.function) == ("h0", "f")


def test_the_decision_alone() -> None:
    failure = Failure(Kind.USER, "OSError", "")
    one = Sighting("alpha", "h0 0 m0", "OSError")
    two = Sighting("alpha", "h1 1 m1", "OSError")
    assert "OSError on h0" in second_run(failure, (one,), idempotent=True, has_other=True)
    assert not second_run(failure, (one, two), idempotent=True, has_other=True)
    assert not second_run(failure, (one,), idempotent=True, has_other=False)
    assert not second_run(failure, (one,), idempotent=True, has_other=True, may_repeat=False)


def test_workers_learn_that_a_certain_failure_is_known(pool: Any) -> None:
    task = submit(pool)
    first = pool.attempt(task)
    raises(pool, task, NAMES[0], "ZeroDivisionError")
    assert last_order(pool, submit(pool)).known == first


def test_refusals_end(pool: Any) -> None:
    task = submit(pool)
    for _ in range(100):
        order = last_order(pool, task)
        if order.known > 1000:
            break
        pool.wait(0.25)
        pool.send(stimuli.Bounced, order.attempt, NAMES[0])
    assert (order.avoid, order.known) == ((), 2**62), "every node must run it"
    pool.send(stimuli.Finished, order.attempt, NAMES[0])
    assert not pool.core.node_second_opinions.refusals
