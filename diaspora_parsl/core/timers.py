"""Timers of the core: one entry per purpose, so that deadlines do not multiply."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heappop, heappush


class Deadlines:
    """A heap of planned calls; each key has at most one, the earliest requested."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._planned: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._count = 0

    def at(self, at: float, key: Hashable, call: Callable[[], None], *, first: bool = False) -> None:
        """Plan a call, unless the key has an earlier one; ``first``: before other calls of the same time."""
        planned = self._planned.get(key)
        if planned is None or at < planned[0]:
            self._planned[key] = (at, call)
            self._count += 1  # equal times run in the order of their requests
            heappush(self._heap, (at, -self._count if first else self._count, key))

    def run(self, now: float) -> None:
        """Make the calls that are due, including those that they plan."""
        while self.next is not None and self.next <= now:
            _, _, key = heappop(self._heap)
            self._planned.pop(key)[1]()

    @property
    def next(self) -> float | None:
        """Time of the next call; None without one."""
        while self._heap:
            at, _, key = self._heap[0]
            planned = self._planned.get(key)
            if planned is not None and planned[0] == at:
                return at
            heappop(self._heap)  # moved to an earlier time, and made
        return None

    def clear(self) -> None:
        """Drop all calls."""
        self._heap.clear()
        self._planned.clear()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._planned

    def __len__(self) -> int:
        return len(self._planned)
