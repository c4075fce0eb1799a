from __future__ import annotations

import pytest
from globus_compute_common.tasks import TaskState

from diaspora_parsl.testing.globus.ledger import MOVES, Ledger, Task, UnknownError


def made(ledger: Ledger, group: str | None = None, now: float = 0.0) -> Task:
    function = ledger.register({"function_code": "code"})
    return ledger.add(function, ledger.open_group(group), "endpoint", now)


def run(ledger: Ledger, task: Task) -> Task:
    ledger.move(task, TaskState.WAITING_FOR_NODES)
    ledger.move(task, TaskState.RUNNING)
    return task


def test_what_is_not_known_is_refused() -> None:
    ledger = Ledger()
    for ask in (ledger.function, ledger.delete_function, ledger.open_group, ledger.group, ledger.task):
        with pytest.raises(UnknownError) as caught:
            ask("nobody")
        assert caught.value.name == "nobody"


def test_a_function_is_there_until_it_is_deleted() -> None:
    ledger = Ledger()
    name = ledger.register({"function_code": "code"})
    assert ledger.function(name) == {"function_code": "code"}
    ledger.delete_function(name)
    with pytest.raises(UnknownError):
        ledger.function(name)


def test_a_group_knows_its_tasks_in_order() -> None:
    ledger = Ledger()
    group = ledger.open_group(None)
    tasks = [made(ledger, group) for _ in range(3)]
    other = made(ledger)
    assert ledger.group(group) == [task.id for task in tasks]
    assert ledger.group(other.group) == [other.id]


@pytest.mark.parametrize("state", MOVES)
def test_a_task_moves_on_only(state: TaskState) -> None:
    ledger = Ledger()
    task = made(ledger)
    task.state = state
    for following in MOVES:
        if following in MOVES[state]:
            continue
        with pytest.raises(ValueError, match="cannot become"):
            ledger.move(task, following)
    assert task.state is state


def test_a_task_is_done_once_and_counted_all_along() -> None:
    ledger = Ledger()
    good, bad = run(ledger, made(ledger)), run(ledger, made(ledger))
    assert ledger.counts[TaskState.RUNNING] == 2
    ledger.settle(good, b"42", failed=False, now=1.0)
    ledger.settle(bad, b"error", failed=True, now=2.0)
    assert (good.state, good.done, good.result) == (TaskState.SUCCESS, 1.0, b"42")
    assert {state: n for state, n in ledger.counts.items() if n} == {TaskState.SUCCESS: 1, TaskState.FAILED: 1}
    with pytest.raises(ValueError, match="success; it cannot become"):
        ledger.settle(good, b"43", failed=False, now=3.0)


def test_results_are_kept_for_a_time_and_tasks_for_ever() -> None:
    ledger = Ledger()
    tasks = [run(ledger, made(ledger)) for _ in range(3)]
    for now, task in enumerate(tasks):
        ledger.settle(task, b"42", failed=False, now=float(now))
    assert ledger.expire(1.0) == 2
    assert [task.result for task in tasks] == [None, None, b"42"]
    assert ledger.expire(1.0) == 0
    assert ledger.task(tasks[0].id).state is TaskState.SUCCESS
