"""Tasks and attempts: their states, and which moves are legal."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from diaspora_parsl.pool.backlog import Line
    from diaspora_parsl.pool.judge import Opinion


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

    __slots__ = ("attempts", "avoid", "avoid_until", "bound", "eligible", "function", "given_up", "hedge", "id",
                 "imports", "killed_at", "kills", "line", "opinion", "priority", "refused_by", "repeatable",
                 "state", "waiting_since", "walltime")  # fmt: skip

    def __init__(
        self, task: int, function: str, eligible: frozenset[str], priority: float, *, repeatable: bool = False,
        walltime: float | None = None, imports: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.id = task
        self.function = function
        self.eligible = eligible
        self.priority = priority
        self.repeatable = repeatable
        self.walltime = walltime
        self.imports = imports
        self.state = TaskState.NEW
        self.waiting_since = 0.0
        #: The line it waits in, or waited in last.
        self.line: Line | None = None
        self.attempts = 0
        self.kills = 0
        self.bound: Attempt | None = None
        #: A second attempt beside it, at another endpoint; the first result wins.
        self.hedge: Attempt | None = None
        #: Endpoints where an attempt was lost: others are preferred for a while. None until there is one, to save
        #: memory, as in the next two.
        self.avoid: set[str] | None = None
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

    def release(self, attempt: Attempt) -> None:
        """This attempt is not wanted any more; the other one, if there are two, goes on as the only one."""
        if attempt is not self.hedge:
            self.bound = self.hedge
        self.hedge = None

    def shun(self, endpoint: str, until: float | None = None) -> None:
        """Note that an attempt was lost there; prefer other endpoints until then."""
        if self.avoid is None:
            self.avoid = set()
        self.avoid.add(endpoint)
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
