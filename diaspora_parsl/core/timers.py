"""What is to be done when: one entry per purpose, so that deadlines do not multiply."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heappop, heappush


class Deadlines:
    """A heap of calls to be made at a time; each key has at most one, the earliest that was asked for."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._planned: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._count = 0

    def at(self, at: float, key: Hashable, call: Callable[[], None], *, first: bool = False) -> None:
        """Plan a call, unless one with this key is planned by then; ``first``: before others of the same time."""
        planned = self._planned.get(key)
        if planned is None or at < planned[0]:
            self._planned[key] = (at, call)
            self._count += 1  # equal times run in the order they were asked for
            heappush(self._heap, (at, -self._count if first else self._count, key))

    def run(self, now: float) -> None:
        """Make the calls that are due, those they plan themselves included."""
        while self.next is not None and self.next <= now:
            _, _, key = heappop(self._heap)
            self._planned.pop(key)[1]()

    @property
    def next(self) -> float | None:
        """When the next call is due."""
        while self._heap:
            at, _, key = self._heap[0]
            planned = self._planned.get(key)
            if planned is not None and planned[0] == at:
                return at
            heappop(self._heap)  # it was moved to an earlier time, and has been made
        return None

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._planned.clear()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._planned

    def __len__(self) -> int:
        return len(self._planned)
