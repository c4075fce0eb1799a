"""Tasks that wait, in lines per set of eligible endpoints, oldest and most urgent first."""

from __future__ import annotations

from diaspora_parsl.core.tasks import TaskQueue


class Backlog:
    """All lines."""

    def __init__(self, labels: list[str]) -> None:
        self._queues: dict[tuple[frozenset[str], str | None], TaskQueue] = {}
        self._of: dict[str, list[TaskQueue]] = {label: [] for label in labels}

    def queue(self, eligible: frozenset[str], function: str | None = None) -> TaskQueue:
        """The line for this set of endpoints, or that of one function for it."""
        queue = self._queues.get((eligible, function))
        if queue is None:
            queue = self._queues[eligible, function] = TaskQueue(eligible, function)
            for label in eligible:
                self._of[label].append(queue)
        return queue

    def queues(self) -> list[TaskQueue]:
        """Every line there is."""
        return list(self._queues.values())

    def of(self, label: str) -> list[TaskQueue]:
        """The lines that this endpoint may take from."""
        return self._of[label]

    def __len__(self) -> int:
        return sum(queue.length for queue in self._queues.values())
