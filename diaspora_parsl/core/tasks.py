"""Tasks and attempts: their states, and which moves are legal."""

from __future__ import annotations

import math
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from diaspora_parsl.core.failures import Failure
from diaspora_parsl.core.settings import PoolSettings


class TaskState(StrEnum):
    """Where a task stands."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"


class AttemptState(StrEnum):
    """Where an attempt stands."""

    BOUND = "bound"
    SUPERSEDED = "superseded"
    """Given up; what it still brings is taken if it is first, dropped if not."""
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
        #: The line it waits in, or waited in last.
        self.queue: TaskQueue | None = None
        self.attempts = 0
        self.kills = 0
        self.bound: Attempt | None = None
        #: A second attempt beside it, at another endpoint; the first result wins.
        self.hedge: Attempt | None = None
        #: Endpoints where an attempt was lost: others are preferred for a while. None until there is one, to save
        #: memory, as in the next two.
        self.avoided: set[str] | None = None
        self.avoid_until = float("-inf")
        #: Attempts that were superseded.
        self.given_up: list[Attempt] | None = None
        #: Endpoints that could not load it, with what they said.
        self.refused_by: dict[str, str] | None = None
        #: What the judge knows about it, if an error of it may be the fault of a place.
        self.opinion: Opinion | None = None
        #: Where workers died while they ran it.
        self.killed_at: list[str] | None = None

    def move(self, to: TaskState) -> None:
        """Change the state, if that is legal."""
        if to not in TASK_MOVES[self.state]:
            raise AssertionError(f"task {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to

    def drop_attempt(self, attempt: Attempt) -> None:
        """This attempt is not wanted any more; the other one, if there are two, goes on as the only one."""
        if attempt is not self.hedge:
            self.bound = self.hedge
        self.hedge = None

    def avoid(self, endpoint: str, until: float | None = None) -> None:
        """Note that an attempt was lost there; prefer other endpoints until then."""
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
        #: It was sent ahead: no slot was idle.
        self.queued = queued
        #: When it plausibly began to run; None while it waits behind others.
        self.began = None if queued else at
        self.state = AttemptState.BOUND

    def move(self, to: AttemptState) -> None:
        """Change the state, if that is legal."""
        if to not in ATTEMPT_MOVES[self.state]:
            raise AssertionError(f"attempt {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to


class Opinion:
    """What is known of a task whose error may be the fault of a place."""

    __slots__ = ("asked", "banned", "failure", "kept", "local_until", "need", "places", "wait_until", "worked")

    def __init__(self, at: float, settings: PoolSettings) -> None:
        # Whole seconds, so that many share one deadline.
        #: Another site is preferred until then.
        self.local_until = math.ceil(at + settings.avoid_time)
        #: A place that is not up is waited for until then.
        self.wait_until = math.ceil(at + settings.second_opinion_timeout)
        #: Places that get nothing more of its function meanwhile.
        self.banned: list[str] = []
        #: Where it failed, and the type of the error.
        self.places: dict[str, str] = {}
        #: Of these, where its function had worked before.
        self.worked: set[str] = set()
        #: The first attempt that raised: the shell keeps its outcome until the task is settled.
        self.kept: Attempt | None = None
        #: Of that attempt.
        self.failure: Failure | None = None
        #: It needs more memory than this (GB per slot).
        self.need: float | None = None
        #: Further runs that were asked for.
        self.asked = 0


class TaskQueue:
    """The waiting tasks that may run at the same set of endpoints.

    Args:
        eligible: their labels.
        function: of all its tasks, if some endpoint would rather not have that function: nobody waits behind it.
    """

    __slots__ = ("_heap", "eligible", "function", "length", "starved_since")

    def __init__(self, eligible: frozenset[str], function: str | None = None) -> None:
        self.eligible = eligible
        self.function = function
        self.length = 0
        #: Since when none of the endpoints is a hope.
        self.starved_since: float | None = None
        self._heap: list[tuple[float, int, Task]] = []

    def push(self, task: Task) -> None:
        """Add a task; task ids count up, so an older task goes first, a rerouted one too."""
        task.queue = self
        heappush(self._heap, (task.priority, task.id, task))
        self.length += 1

    def head(self) -> tuple[float, int, Task] | None:
        """The next task, without taking it. Tasks settled while they waited are dropped on the way."""
        heap = self._heap
        while heap:
            if heap[0][2].state is TaskState.WAITING:
                return heap[0]
            heappop(heap)
        return None

    def pop(self) -> Task:
        """Take the head, which `head` has just returned."""
        self.length -= 1
        return heappop(self._heap)[2]

    def task_settled(self) -> None:
        """A waiting task was settled; its entry is dropped when it comes up."""
        self.length -= 1
        if not self.length:
            self._heap.clear()

    def tasks(self) -> list[Task]:
        """All waiting tasks, in order."""
        return [entry[2] for entry in sorted(self._heap, key=lambda e: e[:2]) if entry[2].state is TaskState.WAITING]
