"""Removal of duplicates, because publishing is at-least-once."""

from __future__ import annotations

from collections.abc import Iterable

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event


class Deduplicator:
    """Remembers the last events by (``source``, ``id``). Not thread-safe.

    It keeps two sets of half the capacity and drops the older one when the younger is full. So an event costs one set
    insertion, and at least half of ``capacity`` is remembered.

    Args:
        capacity: Largest number of events to remember, at least 2.

    Raises:
        ConfigurationError: The capacity is below 2.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        if capacity < 2:  # noqa: PLR2004 - two generations
            raise ConfigurationError(f"capacity={capacity} is too small. Write a number of events, 2 or more.")
        self.doubles = 0
        self._half = capacity // 2
        self._young: set[tuple[str, str]] = set()
        self._old: set[tuple[str, str]] = set()

    def drop_duplicates(self, events: Iterable[Event]) -> list[Event]:
        """Return the events that were not seen before, in order, and remember them."""
        result = []
        for event in events:
            key = (event.source, event.id)
            if key in self._young or key in self._old:
                self.doubles += 1
                continue
            self._young.add(key)
            if len(self._young) >= self._half:
                self._old, self._young = self._young, set()
            result.append(event)
        return result
