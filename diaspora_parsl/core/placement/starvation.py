"""Darkness: every endpoint that could run a task is down, and how long it waits then."""

from __future__ import annotations

from collections.abc import Callable

from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.health.assessor import HealthAssessor, State
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.tasks import Task, TaskQueue
from diaspora_parsl.core.timers import Deadlines
from diaspora_parsl.errors import EndpointsUnavailableError, PoolError


class Starvation:
    """Gives tasks up that have waited too long with no endpoint in sight.

    Args:
        limit: how long a task waits in the dark, seconds.
        board: knows how endpoints ended.
        scheduler: knows which endpoints are a hope.
        deadlines: of the core.
        clock: the time of the stimulus at hand.
        give_up: settles a task with a verdict of the pool.
    """

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
        """Whether any endpoint may yet take the tasks of this line."""
        now = self._clock()
        return any(self._scheduler.may_recover(label, now) for label in queue.eligible)

    def watch(self, queue: TaskQueue) -> None:
        """The line, or one of its endpoints, has changed."""
        if self.any_may_recover(queue):
            queue.starved_since = None
        elif queue.starved_since is None:
            queue.starved_since = self._clock()
            self._check(queue)

    def _check(self, queue: TaskQueue) -> None:
        """See whether tasks of this line have waited too long."""
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
        """The state of an endpoint in words, with the end of its last generation if this one has shown nothing yet."""
        verdict, before = self._scheduler.verdicts[label], self._assessor.health[label].last_death
        known = before is None or verdict.state is State.DOWN
        return f"{label} is {verdict.state}: {verdict.reason}" + ("" if known else f", after {before}")
