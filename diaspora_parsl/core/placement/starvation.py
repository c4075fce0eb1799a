"""Starvation: fails tasks that wait too long while no endpoint may run them."""

from __future__ import annotations

from collections.abc import Callable

from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.health.assessor import HealthAssessor, State
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.tasks import Task, TaskQueue
from diaspora_parsl.core.timers import Deadlines
from diaspora_parsl.errors import EndpointsUnavailableError, PoolError


class Starvation:
    """Fails tasks that have waited too long while no endpoint is up or may recover."""

    def __init__(
        self,
        limit: float,
        assessor: HealthAssessor,
        scheduler: Scheduler,
        deadlines: Deadlines,
        clock: Callable[[], float],
        give_up: Callable[[Task, Kind, PoolError], None],
    ) -> None:
        self._limit = limit
        self._assessor = assessor
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._clock = clock
        self._give_up = give_up

    def any_may_recover(self, queue: TaskQueue) -> bool:
        """Whether any endpoint of this queue is up or may recover."""
        now = self._clock()
        return any(self._scheduler.may_recover(label, now) for label in queue.eligible)

    def watch(self, queue: TaskQueue) -> None:
        """Check a queue after a change of its tasks or endpoints."""
        if self.any_may_recover(queue):
            queue.starved_since = None
        elif queue.starved_since is None:
            queue.starved_since = self._clock()
            self._check(queue)

    def _check(self, queue: TaskQueue) -> None:
        """Fail the tasks of this queue that have waited too long."""
        starved_since, now = queue.starved_since, self._clock()
        if starved_since is None or self.any_may_recover(queue) or not queue.length:
            queue.starved_since = None
            return
        states = "; ".join(self._describe(label) for label in sorted(queue.eligible))
        until = float("inf")
        for task in queue.tasks():
            since = max(starved_since, task.waiting_since)
            if now < since + self._limit:
                until = min(until, since + self._limit)
                continue
            text = f"task {task.id} ({task.function}): no endpoint was up for {now - since:.0f} s"
            self._give_up(task, Kind.ENDPOINT_LOST, EndpointsUnavailableError(f"{text}. {states}"))
        if queue.length:
            self._deadlines.at(until, ("starvation", queue.eligible, queue.function), lambda: self._check(queue))
        else:
            queue.starved_since = None

    def _describe(self, label: str) -> str:
        """Describe the state of an endpoint, and the end of its last generation while it is not up."""
        verdict, before = self._scheduler.verdicts[label], self._assessor.health[label].last_death
        known = before is None or verdict.state is State.DOWN
        return f"{label} is {verdict.state}: {verdict.reason}" + ("" if known else f", after {before}")
