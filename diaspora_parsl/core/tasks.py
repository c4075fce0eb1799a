"""Tasks, attempts and their legal state transitions; queues of waiting tasks."""

from __future__ import annotations

import math
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from diaspora_parsl.core.failures import Failure
from diaspora_parsl.core.settings import PoolSettings


class TaskState(StrEnum):
    """State of a task."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"


class AttemptState(StrEnum):
    """State of an attempt."""

    BOUND = "bound"
    SUPERSEDED = "superseded"
    """Given up; a result still counts if it is the first."""
    ENDED = "ended"


TASK_MOVES: Final = {
    TaskState.NEW: {TaskState.WAITING, TaskState.SETTLED},
    TaskState.WAITING: {TaskState.RUNNING, TaskState.SETTLED},
    TaskState.RUNNING: {TaskState.WAITING, TaskState.SETTLED},
    TaskState.SETTLED: set[TaskState](),
}
ATTEMPT_MOVES: Final = {
    AttemptState.BOUND: {AttemptState.SUPERSEDED, AttemptState.ENDED},
    AttemptState.SUPERSEDED: {AttemptState.ENDED},
    AttemptState.ENDED: set[AttemptState](),
}


class Task:
    """One task of the pool."""

    __slots__ = ("attempts", "avoid_until", "avoided", "bound", "eligible", "function", "given_up", "hedge", "id",
                 "idempotent", "imports", "killed_at", "kills", "opinion", "priority", "queue", "refused_by",
                 "state", "waiting_since", "walltime")  # fmt: skip

    def __init__(
        self, task: int, function: str, eligible: frozenset[str], priority: float, *, idempotent: bool = False,
        walltime: float | None = None, imports: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.id = task
        self.function = function
        self.eligible = eligible
        self.priority = priority
        self.idempotent = idempotent
        self.walltime = walltime
        self.imports = imports
        self.state = TaskState.NEW
        self.waiting_since = 0.0
        #: The queue in which it waits, or waited last.
        self.queue: TaskQueue | None = None
        self.attempts = 0
        self.kills = 0
        self.bound: Attempt | None = None
        #: A second attempt at another endpoint; the first result wins.
        self.hedge: Attempt | None = None
        #: Endpoints that lost an attempt. None while empty, to save memory; the same below.
        self.avoided: set[str] | None = None
        #: Time until which the task prefers endpoints that are not ``avoided``.
        self.avoid_until = float("-inf")
        #: Superseded attempts.
        self.given_up: list[Attempt] | None = None
        #: Endpoints that could not load the task, with their errors.
        self.refused_by: dict[str, str] | None = None
        #: Failures that an endpoint may have caused.
        self.opinion: Opinion | None = None
        #: Endpoints whose workers died while they ran the task.
        self.killed_at: list[str] | None = None

    def move(self, to: TaskState) -> None:
        """Change the state.

        Raises:
            AssertionError: the transition is not legal.
        """
        if to not in TASK_MOVES[self.state]:
            raise AssertionError(f"task {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to

    def drop_attempt(self, attempt: Attempt) -> None:
        """Forget this attempt; its rival, if any, becomes the only one."""
        if attempt is not self.hedge:
            self.bound = self.hedge
        self.hedge = None

    def avoid(self, endpoint: str, until: float | None = None) -> None:
        """Record that the endpoint lost an attempt; prefer others until then."""
        if self.avoided is None:
            self.avoided = set()
        self.avoided.add(endpoint)
        if until is not None:
            self.avoid_until = until


class Attempt:
    """One try of a task on one endpoint."""

    __slots__ = ("began", "dispatched_at", "endpoint", "generation", "id", "queued", "state", "task", "work")

    def __init__(
        self, attempt: int, task: Task, endpoint: str, generation: int, at: float, work: float, *, queued: bool
    ) -> None:
        self.id = attempt
        self.task = task
        self.endpoint = endpoint
        self.generation = generation
        self.dispatched_at = at
        self.work = work
        #: Whether it was prefetched: no slot was idle.
        self.queued = queued
        #: Estimated start of its run; None while it waits behind others.
        self.began = None if queued else at
        self.state = AttemptState.BOUND

    def move(self, to: AttemptState) -> None:
        """Change the state; see `Task.move`."""
        if to not in ATTEMPT_MOVES[self.state]:
            raise AssertionError(f"attempt {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to


class Opinion:
    """Failures of a task that an endpoint may have caused."""

    __slots__ = ("asked", "banned", "failure", "kept", "local_until", "need", "places", "wait_until", "worked")

    def __init__(self, at: float, settings: PoolSettings) -> None:
        # Whole seconds, so that many share one deadline.
        #: Time until which another site is preferred.
        self.local_until = math.ceil(at + settings.avoid_time)
        #: Time until which the task waits for an endpoint that is not up.
        self.wait_until = math.ceil(at + settings.second_opinion_timeout)
        #: Endpoints that get no other task of the function meanwhile.
        self.banned: list[str] = []
        #: Type of the error per endpoint that failed the task.
        self.places: dict[str, str] = {}
        #: Those of ``places`` where the function succeeded before.
        self.worked: set[str] = set()
        #: The first attempt that raised; the shell keeps its outcome until the task is settled.
        self.kept: Attempt | None = None
        #: Failure of ``kept``.
        self.failure: Failure | None = None
        #: GB of memory per slot that did not suffice.
        self.need: float | None = None
        #: Number of further runs requested.
        self.asked = 0


class TaskQueue:
    """The waiting tasks that may run at the same set of endpoints.

    Args:
        eligible: Labels of the endpoints.
        function: The only function in the queue, if an endpoint avoids it, so that no other task waits behind it.
    """

    __slots__ = ("_heap", "eligible", "function", "length", "starved_since")

    def __init__(self, eligible: frozenset[str], function: str | None = None) -> None:
        self.eligible = eligible
        self.function = function
        self.length = 0
        #: Time since which no endpoint of the queue may recover.
        self.starved_since: float | None = None
        self._heap: list[tuple[float, int, Task]] = []

    def push(self, task: Task) -> None:
        """Add a task; an older task, with a lower id, goes first."""
        task.queue = self
        heappush(self._heap, (task.priority, task.id, task))
        self.length += 1

    def head(self) -> tuple[float, int, Task] | None:
        """Return the next task and drop settled ones before it."""
        heap = self._heap
        while heap:
            if heap[0][2].state is TaskState.WAITING:
                return heap[0]
            heappop(heap)
        return None

    def pop(self) -> Task:
        """Remove the task that `head` has just returned."""
        self.length -= 1
        return heappop(self._heap)[2]

    def task_settled(self) -> None:
        """Count out a settled task; `head` drops its entry later."""
        self.length -= 1
        if not self.length:
            self._heap.clear()

    def tasks(self) -> list[Task]:
        """Return all waiting tasks in order."""
        return [entry[2] for entry in sorted(self._heap, key=lambda e: e[:2]) if entry[2].state is TaskState.WAITING]
