"""What the service knows of functions, groups and tasks; time is an argument."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from globus_compute_common.tasks import TaskState
from msgspec import Struct

#: From each state of a task to those that may follow. What is lost in silence stays where it was.
MOVES: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.WAITING_FOR_EP: frozenset({TaskState.WAITING_FOR_NODES}),
    TaskState.WAITING_FOR_NODES: frozenset({TaskState.RUNNING}),
    TaskState.RUNNING: frozenset({TaskState.SUCCESS, TaskState.FAILED}),
    TaskState.SUCCESS: frozenset(),
    TaskState.FAILED: frozenset(),
}


class UnknownError(LookupError):
    """The service knows nothing of that id.

    Args:
        what: kind of thing, such as ``task``.
        name: its id.
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__(what, name)
        self.what = what
        self.name = name


class Task(Struct):
    """One task, as long as the service remembers it. Its payload is not part of it: that goes where it runs."""

    id: str
    function: str
    group: str
    endpoint: str
    submitted: float
    """Unix time."""
    state: TaskState = TaskState.WAITING_FOR_EP
    done: float | None = None
    """Unix time."""
    result: bytes | None = None
    """The packed message in which the endpoint told it; None: there is none yet, or it is kept no longer."""


class Ledger:
    """Functions, groups of tasks, and tasks."""

    def __init__(self) -> None:
        self._functions: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, list[str]] = {}
        self._tasks: dict[str, Task] = {}
        #: Tasks that are done and whose results are kept, the oldest first.
        self._kept: deque[Task] = deque()
        self._counts: Counter[TaskState] = Counter()

    @property
    def counts(self) -> dict[TaskState, int]:
        """How many tasks are in each state."""
        return {state: self._counts[state] for state in MOVES}

    # --- functions ------------------------------------------------------------------------------------------------

    def register(self, document: dict[str, Any]) -> str:
        """Keep a function as it was registered; returns its id."""
        name = str(uuid.uuid4())
        self._functions[name] = document
        return name

    def function(self, name: str) -> dict[str, Any]:
        """What was registered.

        Raises:
            UnknownError: there is no such function.
        """
        try:
            return self._functions[name]
        except KeyError:
            raise UnknownError("function", name) from None

    def delete_function(self, name: str) -> None:
        """Forget a function.

        Raises:
            UnknownError: there is no such function.
        """
        self.function(name)
        del self._functions[name]

    # --- groups and tasks -----------------------------------------------------------------------------------------

    def open_group(self, name: str | None) -> str:
        """The group of that id, or a new one if none is given.

        Raises:
            UnknownError: there is no such group.
        """
        if name is None:
            name = str(uuid.uuid4())
            self._groups[name] = []
        self.group(name)
        return name

    def group(self, name: str) -> list[str]:
        """Ids of its tasks, in the order of their submission.

        Raises:
            UnknownError: there is no such group.
        """
        try:
            return self._groups[name]
        except KeyError:
            raise UnknownError("task_group", name) from None

    def add(self, function: str, group: str, endpoint: str, now: float) -> Task:
        """A new task, which waits for its endpoint."""
        task = Task(str(uuid.uuid4()), function, group, endpoint, now)
        self.group(group).append(task.id)
        self._tasks[task.id] = task
        self._counts[task.state] += 1
        return task

    def task(self, name: str) -> Task:
        """The task of that id.

        Raises:
            UnknownError: there is no such task.
        """
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownError("task", name) from None

    def move(self, task: Task, state: TaskState) -> None:
        """The task is in another state now.

        Raises:
            ValueError: no task gets there from where this one is.
        """
        if state not in MOVES[task.state]:
            raise ValueError(f"task {task.id} is {task.state.value}; it cannot become {state.value}")
        self._counts[task.state] -= 1
        self._counts[state] += 1
        task.state = state

    def settle(self, task: Task, result: bytes, *, failed: bool, now: float) -> None:
        """The task is done; its result is kept from now on.

        Raises:
            ValueError: it was done before, or never ran.
        """
        self.move(task, TaskState.FAILED if failed else TaskState.SUCCESS)
        task.done = now
        task.result = result
        self._kept.append(task)

    def expire(self, before: float) -> int:
        """Forget the results of what was done before that time or then; returns how many. The tasks stay known."""
        forgotten = 0
        while self._kept and (self._kept[0].done or 0.0) <= before:
            self._kept.popleft().result = None
            forgotten += 1
        return forgotten
