"""The functions, groups and tasks of the service; time is an argument."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from globus_compute_common.tasks import TaskState
from msgspec import Struct

#: Allowed transitions of a task. A task lost without a report keeps its state.
MOVES: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.WAITING_FOR_EP: frozenset({TaskState.WAITING_FOR_NODES}),
    TaskState.WAITING_FOR_NODES: frozenset({TaskState.RUNNING}),
    TaskState.RUNNING: frozenset({TaskState.SUCCESS, TaskState.FAILED}),
    TaskState.SUCCESS: frozenset(),
    TaskState.FAILED: frozenset(),
}


class UnknownError(LookupError):
    """An id does not exist.

    Args:
        what: Kind of object, such as ``task``.
        name: The unknown id.
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__(what, name)
        self.what = what
        self.name = name


class Task(Struct):
    """One task, without its payload."""

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
    """The packed result; None: not finished, or expired."""


class Ledger:
    """Functions, groups of tasks, and tasks."""

    def __init__(self) -> None:
        self._functions: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, list[str]] = {}
        self._tasks: dict[str, Task] = {}
        #: Finished tasks with a result, oldest first.
        self._kept: deque[Task] = deque()
        self._counts: Counter[TaskState] = Counter()

    @property
    def counts(self) -> dict[TaskState, int]:
        """Number of tasks by state."""
        return {state: self._counts[state] for state in MOVES}

    # --- functions ------------------------------------------------------------------------------------------------

    def register(self, document: dict[str, Any]) -> str:
        """Store the document of a function; return its new id."""
        name = str(uuid.uuid4())
        self._functions[name] = document
        return name

    def function(self, name: str) -> dict[str, Any]:
        """Return the document of a function.

        Raises:
            UnknownError: The function does not exist.
        """
        try:
            return self._functions[name]
        except KeyError:
            raise UnknownError("function", name) from None

    def delete_function(self, name: str) -> None:
        """Delete a function.

        Raises:
            UnknownError: The function does not exist.
        """
        self.function(name)
        del self._functions[name]

    # --- groups and tasks -----------------------------------------------------------------------------------------

    def open_group(self, name: str | None) -> str:
        """Return an existing group, or a new one for None.

        Raises:
            UnknownError: The group does not exist.
        """
        if name is None:
            name = str(uuid.uuid4())
            self._groups[name] = []
        self.group(name)
        return name

    def group(self, name: str) -> list[str]:
        """Return the task ids of a group, in the order of submission.

        Raises:
            UnknownError: The group does not exist.
        """
        try:
            return self._groups[name]
        except KeyError:
            raise UnknownError("task_group", name) from None

    def add(self, function: str, group: str, endpoint: str, now: float) -> Task:
        """Add a task that waits for its endpoint."""
        task = Task(str(uuid.uuid4()), function, group, endpoint, now)
        self.group(group).append(task.id)
        self._tasks[task.id] = task
        self._counts[task.state] += 1
        return task

    def task(self, name: str) -> Task:
        """Return a task.

        Raises:
            UnknownError: The task does not exist.
        """
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownError("task", name) from None

    def move(self, task: Task, state: TaskState) -> None:
        """Change the state of a task.

        Raises:
            ValueError: The transition is not allowed.
        """
        if state not in MOVES[task.state]:
            raise ValueError(f"task {task.id} is {task.state.value}; it cannot become {state.value}")
        self._counts[task.state] -= 1
        self._counts[state] += 1
        task.state = state

    def settle(self, task: Task, result: bytes, *, failed: bool, now: float) -> None:
        """Finish a task and keep its result.

        Raises:
            ValueError: The task is finished, or has not run.
        """
        self.move(task, TaskState.FAILED if failed else TaskState.SUCCESS)
        task.done = now
        task.result = result
        self._kept.append(task)

    def expire(self, before: float) -> int:
        """Drop the results of tasks finished until ``before``; return their number. The tasks remain."""
        dropped = 0
        while self._kept and (self._kept[0].done or 0.0) <= before:
            self._kept.popleft().result = None
            dropped += 1
        return dropped
