"""Invariants of the core, checked from outside."""

from __future__ import annotations

from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.placement.scheduler import MAX_PASSED, Scheduler
from diaspora_parsl.core.tasks import Task, TaskState


def validate(core: PoolCore) -> None:
    """Check every invariant.

    Raises:
        AssertionError: an invariant is violated; the message names it.
    """
    _check_books(core.scheduler, core.now)
    _check_tasks(core)
    _check_starvation(core)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_books(scheduler: Scheduler, now: float) -> None:
    for label, held in scheduler.held.items():
        _require(scheduler.loads[label].in_flight == len(held), f"{label} miscounts its attempts")
        _require(scheduler.live[label] == len(scheduler.bound(label)), f"{label} miscounts its live attempts")
        _require((label in scheduler.open) == scheduler.verdicts[label].accepts, f"{label} is open against its verdict")
    for label in scheduler.idle:
        _require(scheduler.loads[label].has_idle_slot(), f"{label} counts as idle, but is full")
        queues = [queue for queue in scheduler.backlog.of(label) if scheduler.may_serve(label, queue)]
        waiting = sorted(
            (task for queue in queues for task in queue.tasks()), key=lambda task: (task.priority, task.id)
        )
        declined = all(scheduler.declines(label, task, now) for task in waiting[:MAX_PASSED])
        _require(declined, f"{label} is idle while tasks that it could run wait")


def _check_tasks(core: PoolCore) -> None:
    for label in core.specs:
        for attempt in core.scheduler.bound(label):
            wanted = attempt.task.bound is attempt or attempt.task.hedge is attempt
            _require(wanted, f"attempt {attempt.id} is bound, but not to its task")
            generation = core.assessor.health[label].generation
            _require(attempt.generation == generation, f"attempt {attempt.id} is bound to an old generation")
    for task in core.tasks.values():
        _require(task.state is not TaskState.SETTLED, f"task {task.id} is settled, but kept")
        running = task.state is TaskState.RUNNING
        _require((task.bound is not None) == running, f"task {task.id} is {task.state}, against its attempt")
        if task.hedge is not None:
            _check_hedge(task)
        _require(task.attempts <= core.settings.max_attempts, f"task {task.id} had too many attempts")


def _check_hedge(task: Task) -> None:
    first, second = task.bound, task.hedge
    _require(task.idempotent, f"task {task.id} is hedged, but must not run twice")
    _require(first and second and first.endpoint != second.endpoint, f"task {task.id} is hedged where it runs")


def _check_starvation(core: PoolCore) -> None:
    queues = core.scheduler.backlog.queues()
    waiting = {task.id for queue in queues for task in queue.tasks()}
    expected = {task.id for task in core.tasks.values() if task.state is TaskState.WAITING}
    paced = set(core.paced_requeue.tasks)
    _require(waiting.isdisjoint(paced), "a task waits for the budget and for an endpoint")
    _require(not paced or core.next_deadline is not None, "tasks wait for the budget without a deadline")
    _require(waiting | paced == expected, "the backlog and the waiting tasks disagree")
    _require(len(core.scheduler.backlog) == len(waiting), "the backlog miscounts itself")
    for queue in queues:
        if queue.length and not core.starvation.any_may_recover(queue):
            _require(queue.starved_since is not None, "tasks starve without a time limit")
            _require(core.next_deadline is not None, "tasks starve without a deadline")
