"""A worker dies, and the pool knows it before its executor does."""

from __future__ import annotations

from typing import Any

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import Failure, FailureAction, Kind
from diaspora_parsl.errors import PoisonTaskError

LOST = Failure(Kind.WORKER_LOST, "WorkerLost", "gone")


def orphan(pool: Any, task: int, failure: Failure = LOST) -> int:
    attempt: int = pool.attempt(task)
    pool.send(stimuli.Orphaned, attempt, failure)
    return attempt


def test_its_task_goes_elsewhere_and_its_slot_stays_taken(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=1).up("alpha")
    task = pool.submit()
    pool.up("beta")
    attempt = orphan(pool, task)
    assert pool.where(task) == "beta"
    assert "worker-lost" in pool.of(events.TaskRerouted)[0].reason
    other = pool.submit()
    assert pool.where(other) != "alpha", "it has no worker"
    pool.send(stimuli.Failed, attempt, LOST)  # its executor missed the worker, and has another one
    assert pool.where(other) == "alpha"
    assert pool.core.tasks[task].kills == 1, "one worker died, not two"
    for each in (task, other):
        pool.finish(each)
    assert len(pool.of(actions.Resolve)) == 2


def test_a_result_that_comes_all_the_same_counts(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    task = pool.submit()
    attempt = orphan(pool, task)
    pool.send(stimuli.Finished, attempt)
    assert actions.Resolve(task, attempt) in pool.of(actions.Resolve)


def test_a_task_that_kills_every_worker_is_given_up(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=3).up()
    task = pool.submit()
    for _ in range(3):
        orphan(pool, task)
    (rejected,) = pool.of(actions.Reject)
    assert isinstance(rejected.verdict, PoisonTaskError)


def test_unknown_attempts_and_failures_by_a_rule_are_not_rerouted(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    task = pool.submit()
    where = pool.where(task)
    pool.send(stimuli.Orphaned, 999, LOST)
    orphan(pool, task, Failure(Kind.WORKER_LOST, "WorkerLost", "gone", action=FailureAction.FAIL))
    assert pool.where(task) == where
    assert not pool.of(events.TaskRerouted)
