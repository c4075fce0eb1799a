"""Tasks and attempts: their states, and which moves are legal."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task stands."""

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

    __slots__ = ("attempts", "avoid", "bound", "eligible", "function", "id", "kills", "priority", "refused_by",
                 "state")  # fmt: skip

    def __init__(self, task: int, function: str, eligible: frozenset[str], priority: float) -> None:
        self.id = task
        self.function = function
        self.eligible = eligible
        self.priority = priority
        self.state = TaskState.WAITING
        self.attempts = 0
        self.kills = 0
        self.bound: Attempt | None = None
        #: Endpoints where an attempt was lost: others are preferred. None until there is one, to save memory.
        self.avoid: set[str] | None = None
        #: Endpoints that could not load it, with what they said.
        self.refused_by: dict[str, str] | None = None

    def move(self, to: TaskState) -> None:
        """Change the state, if that is legal."""
        if to not in TASK_MOVES[self.state]:
            raise AssertionError(f"task {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to

    def shun(self, endpoint: str) -> None:
        """Prefer other endpoints from now on."""
        if self.avoid is None:
            self.avoid = set()
        self.avoid.add(endpoint)


class Attempt:
    """One try of a task on one endpoint."""

    __slots__ = ("dispatched_at", "endpoint", "generation", "id", "state", "task", "work")

    def __init__(self, attempt: int, task: Task, endpoint: str, generation: int, at: float, work: float) -> None:
        self.id = attempt
        self.task = task
        self.endpoint = endpoint
        self.generation = generation
        self.dispatched_at = at
        self.work = work
        self.state = AttemptState.BOUND

    def move(self, to: AttemptState) -> None:
        """Change the state, if that is legal."""
        if to not in ATTEMPT_MOVES[self.state]:
            raise AssertionError(f"attempt {self.id}: {self.state} -> {to} is not a legal move")
        self.state = to
