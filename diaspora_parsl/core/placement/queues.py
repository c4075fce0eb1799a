"""The backlog: one queue of waiting tasks per set of eligible endpoints, most urgent and oldest first."""

from __future__ import annotations

from diaspora_parsl.core.tasks import TaskQueue


class Backlog:
    """All queues of waiting tasks."""

    def __init__(self, labels: list[str]) -> None:
        self._queues: dict[tuple[frozenset[str], str | None], TaskQueue] = {}
        self._of: dict[str, list[TaskQueue]] = {label: [] for label in labels}

    def queue(self, eligible: frozenset[str], function: str | None = None) -> TaskQueue:
        """Return the queue of this set of endpoints, or its queue of one function."""
        queue = self._queues.get((eligible, function))
        if queue is None:
            queue = self._queues[eligible, function] = TaskQueue(eligible, function)
            for label in eligible:
                self._of[label].append(queue)
        return queue

    def queues(self) -> list[TaskQueue]:
        """Return all queues."""
        return list(self._queues.values())

    def of(self, label: str) -> list[TaskQueue]:
        """Return the queues whose tasks may run at this endpoint."""
        return self._of[label]

    def __len__(self) -> int:
        return sum(queue.length for queue in self._queues.values())
