"""Reads Kafka with explicit cursors, independent of the client library."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import Event, decode
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.kafka.client import HIGH, LOW, SLICE, Cluster, Partition, ReadingLink
from diaspora_parsl.fabric.transports.kafka.options import read_cursor, write_cursor

_LOOK_FOR_TOPICS: Final = 0.25
_LOOK_FOR_PARTITIONS: Final = 30.0
#: Seconds to wait for records up to the end offset; transaction markers never arrive.
_CATCH_UP: Final = 1.0


class KafkaSubscription:
    """A reader with its own connections; see `diaspora_parsl.fabric.base.Subscription`.

    A cursor is the next offset of every partition of a topic. No consumer groups: they lose the order of a key.

    Args:
        cluster: Cluster to read.
        topics: Topics to read.
        position: Start position.

    Raises:
        ConfigurationError: The position holds a cursor of another transport.
        FabricUnavailableError: "latest" could not be asked for now.
    """

    def __init__(self, cluster: Cluster, topics: Sequence[str], position: Position) -> None:
        self.resyncs = 0
        self.malformed = 0
        self.position: dict[str, str] = {topic: write_cursor({}) for topic in topics}
        self._cluster = cluster
        self._link = ReadingLink(cluster)
        self._topics = {cluster.name(topic): topic for topic in topics}
        #: Next offset by partition and topic (name in Kafka), for polled topics and saved cursors.
        self._next: dict[str, dict[int, int]] = {}
        self._start = HIGH if position == "latest" else LOW
        self._trimmed: set[Partition] = set()
        self._look_at = 0.0
        self._ended = threading.Event()
        self._busy = threading.Lock()
        if isinstance(position, dict):
            saved = {topic: cursor for topic, cursor in position.items() if topic in self.position}
            self._next = {cluster.name(topic): read_cursor(cursor) for topic, cursor in saved.items()}
            self.position |= saved
        elif position == "latest":
            try:
                self._look()
            except BaseException:
                self._link.drop()
                raise

    def __repr__(self) -> str:
        return f"<KafkaSubscription of {redacted(self._cluster.url)}>"

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._ended.is_set()

    def read(self, timeout: float) -> list[Event]:
        """See `diaspora_parsl.fabric.base.Subscription.read`.

        Raises:
            FabricUnavailableError: A broker of a topic did not answer within the time-out.
        """
        deadline, is_late = time.monotonic() + timeout, False
        with self._busy:
            try:
                while not self._ended.is_set():
                    if self._link.made is None or time.monotonic() >= self._look_at:
                        self._look()
                    if self._trimmed:
                        self._resync()
                    remaining = deadline - time.monotonic()
                    events = self._take(min(max(remaining, 0.0), SLICE))
                    if events:
                        return events
                    if remaining > SLICE or self._ended.is_set():
                        continue
                    if is_late or not self._is_behind():
                        return []
                    deadline, is_late = time.monotonic() + _CATCH_UP, True
            except FabricUnavailableError:
                self._link.drop_if_broken()
                if not self._ended.is_set():
                    raise
            self._link.drop()
            return []

    def _take(self, seconds: float) -> list[Event]:
        if not any(self._next.values()):  # none of the topics is there yet
            self._ended.wait(seconds)
            return []
        events: list[Event] = []
        changed: set[str] = set()
        for name, partition, offset, value, is_trimmed in self._link.take(seconds):
            if is_trimmed:
                self._trimmed.add((name, partition))
                continue
            offsets = self._next[name]
            if offset < offsets[partition]:
                continue  # read ahead before the last assignment
            offsets[partition] = offset + 1
            changed.add(name)
            try:
                events.append(decode(value))
            except ValueError:
                self.malformed += 1
        self._emit(changed)
        return events

    def _emit(self, names: Iterable[str]) -> None:
        for name in names:
            self.position[self._topics[name]] = write_cursor(self._next[name])

    def _look(self) -> None:
        """Update the partitions; new ones are read from their first offset."""
        self._cluster.ensure(self._topics.values())
        found = [(name, partition) for name in self._topics for partition in self._link.partitions(name)]
        starts = self._link.offsets([one for one in found if one[0] not in self._next], self._start)
        for name in self._topics:
            self._next.setdefault(name, {})
        for name, partition in found:
            self._next[name].setdefault(partition, starts.get((name, partition), 0))
        self._emit(self._topics)
        if self._link.assigned() != set(found):
            self._assign(found)
        has_all = {name for name, _ in found} == set(self._topics)
        self._look_at = time.monotonic() + (_LOOK_FOR_PARTITIONS if has_all else _LOOK_FOR_TOPICS)

    def _assign(self, partitions: Iterable[Partition]) -> None:
        self._link.assign({(name, partition): self._next[name][partition] for name, partition in partitions})

    def _is_behind(self) -> bool:
        """Check that the brokers answer; return whether they have unread records."""
        assigned = sorted(self._link.assigned())
        if not assigned:
            self._link.partitions(next(iter(self._topics)))
            return False
        ends = self._link.offsets(assigned, HIGH)
        # Less than ours is a log that began again: the next fetch will say so.
        return any(self._next[name][partition] != end for (name, partition), end in ends.items())

    def _resync(self) -> None:
        """Continue at the first offset if the saved one was trimmed or the log restarted."""
        lows = self._link.offsets(sorted(self._trimmed), LOW)
        for (name, partition), low in lows.items():
            self._next[name][partition] = low
        names = {name for name, _ in lows}
        self._emit(names)
        self.resyncs += len(names)
        self._trimmed.clear()
        self._assign(self._link.assigned())

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Subscription.close`."""
        self._ended.set()
        if self._busy.acquire(blocking=False):  # else the reading thread sees it within a moment, and lets go itself
            try:
                self._link.drop()
            finally:
                self._busy.release()
