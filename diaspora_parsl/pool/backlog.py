"""Tasks that wait, in lines per set of eligible endpoints, oldest and most urgent first."""

from __future__ import annotations

from heapq import heappop, heappush

from diaspora_parsl.pool.tasks import Task, TaskState


class Line:
    """The waiting tasks that may run at the same set of endpoints.

    Args:
        eligible: their labels.
        function: of all its tasks, if some endpoint would rather not have that function: nobody waits behind it.
    """

    __slots__ = ("_heap", "dark_since", "eligible", "function", "length")

    def __init__(self, eligible: frozenset[str], function: str | None = None) -> None:
        self.eligible = eligible
        self.function = function
        self.length = 0
        #: Since when none of the endpoints is a hope.
        self.dark_since: float | None = None
        self._heap: list[tuple[float, int, Task]] = []

    def push(self, task: Task) -> None:
        """Add a task; task ids count up, so an older task goes first, a rerouted one too."""
        task.line = self
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

    def left(self) -> None:
        """A waiting task was settled; its entry is dropped when it comes up."""
        self.length -= 1
        if not self.length:
            self._heap.clear()

    def tasks(self) -> list[Task]:
        """All waiting tasks, in order."""
        return [entry[2] for entry in sorted(self._heap, key=lambda e: e[:2]) if entry[2].state is TaskState.WAITING]


class Backlog:
    """All lines."""

    def __init__(self, labels: list[str]) -> None:
        self._lines: dict[tuple[frozenset[str], str | None], Line] = {}
        self._of: dict[str, list[Line]] = {label: [] for label in labels}

    def line(self, eligible: frozenset[str], function: str | None = None) -> Line:
        """The line for this set of endpoints, or that of one function for it."""
        line = self._lines.get((eligible, function))
        if line is None:
            line = self._lines[eligible, function] = Line(eligible, function)
            for label in eligible:
                self._of[label].append(line)
        return line

    def lines(self) -> list[Line]:
        """Every line there is."""
        return list(self._lines.values())

    def of(self, label: str) -> list[Line]:
        """The lines that this endpoint may take from."""
        return self._of[label]

    def __len__(self) -> int:
        return sum(line.length for line in self._lines.values())
