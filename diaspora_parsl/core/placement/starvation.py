"""Darkness: every endpoint that could run a task is down, and how long it waits then."""

from __future__ import annotations

from collections.abc import Callable

from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.health.assessor import Board, State
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.tasks import Line, Task
from diaspora_parsl.core.timers import Deadlines
from diaspora_parsl.errors import EndpointsUnavailableError, PoolError


class Darkness:
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
        board: Board,
        scheduler: Scheduler,
        deadlines: Deadlines,
        clock: Callable[[], float],
        give_up: Callable[[Task, Kind, PoolError], None],
    ) -> None:
        self._limit = limit
        self._board = board
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._clock = clock
        self._give_up = give_up

    def has_hope(self, line: Line) -> bool:
        """Whether any endpoint may yet take the tasks of this line."""
        now = self._clock()
        return any(self._scheduler.is_hope(label, now) for label in line.eligible)

    def watch(self, line: Line) -> None:
        """The line, or one of its endpoints, has changed."""
        if self.has_hope(line):
            line.dark_since = None
        elif line.dark_since is None:
            line.dark_since = self._clock()
            self._check(line)

    def _check(self, line: Line) -> None:
        """See whether tasks of this line have waited too long."""
        dark_since, now = line.dark_since, self._clock()
        if dark_since is None or self.has_hope(line) or not line.length:
            line.dark_since = None
            return
        seen = "; ".join(self._seen(label) for label in sorted(line.eligible))
        until = float("inf")
        for task in line.tasks():
            since = max(dark_since, task.waiting_since)
            if now < since + self._limit:
                until = min(until, since + self._limit)
                continue
            text = f"task {task.id} ({task.function}): no endpoint was up for {now - since:.0f} s"
            self._give_up(task, Kind.ENDPOINT_LOST, EndpointsUnavailableError(f"{text}. {seen}"))
        if line.length:
            self._deadlines.at(until, ("dark", line.eligible, line.function), lambda: self._check(line))
        else:
            line.dark_since = None

    def _seen(self, label: str) -> str:
        """The state of an endpoint in words, with the end of its last generation if this one has shown nothing yet."""
        verdict, before = self._scheduler.verdicts[label], self._board.health[label].last_death
        known = before is None or verdict.state is State.DOWN
        return f"{label} is {verdict.state}: {verdict.reason}" + ("" if known else f", after {before}")
