"""A log in this process, shared by name, for tests and single-process pools."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.events import Event
from diaspora_parsl.fabric.base import Position, redacted

DEFAULT_MAXLEN: Final = 100_000
_READ_EVENTS: Final = 5_000


class _Topic:
    """The last events of one topic; ``first`` is the number of the oldest one."""

    def __init__(self, maxlen: int) -> None:
        self.events: deque[Event] = deque(maxlen=maxlen)
        self.appended = 0

    @property
    def first(self) -> int:
        return self.appended - len(self.events)

    def append(self, event: Event) -> None:
        self.events.append(event)
        self.appended += 1


class _Log:
    """Log that all fabrics of one name share."""

    def __init__(self, maxlen: int) -> None:
        self.maxlen = maxlen
        self.topics: dict[str, _Topic] = {}
        self.changed = threading.Condition()

    def topic(self, name: str) -> _Topic:
        return self.topics.setdefault(name, _Topic(self.maxlen))


_logs: dict[str, _Log] = {}


def _fresh_locks() -> None:
    """Replace the locks in a forked child, because another thread may have held them."""
    for log in _logs.values():
        log.changed = threading.Condition()


os.register_at_fork(after_in_child=_fresh_locks)


class MemorySubscription:
    """A reader of a `MemoryFabric`; see `diaspora_parsl.fabric.base.Subscription`."""

    def __init__(self, log: _Log, topics: Sequence[str], position: Position) -> None:
        self.resyncs = 0
        self.malformed = 0
        self._log = log
        self._closed = False
        self.position: dict[str, str] = {}
        with log.changed:
            for name in topics:
                topic = log.topic(name)
                if isinstance(position, dict):
                    saved = position.get(name, str(topic.first))
                    if not saved.isdecimal():
                        raise ConfigurationError(
                            f"{saved!r} is no cursor of memory://. Write one that `position` gave."
                        )
                    self.position[name] = saved
                else:
                    self.position[name] = str(topic.first if position == "earliest" else topic.appended)

    def read(self, timeout: float) -> list[Event]:
        """See `diaspora_parsl.fabric.base.Subscription.read`; never raises."""
        deadline = time.monotonic() + timeout
        log = self._log
        with log.changed:
            while not self._closed:
                events = self._take()
                remaining = deadline - time.monotonic()
                if events or remaining <= 0:
                    return events
                log.changed.wait(remaining)
        return []

    def _take(self) -> list[Event]:
        taken: list[Event] = []
        for name, saved in self.position.items():
            topic = self._log.topic(name)
            cursor = int(saved)
            if not topic.first <= cursor <= topic.appended:
                self.resyncs += 1
                cursor = topic.first if cursor < topic.first else topic.appended
                self.position[name] = str(cursor)
            if cursor < topic.appended:
                start = cursor - topic.first
                stop = min(start + _READ_EVENTS, len(topic.events))
                taken += [topic.events[i] for i in range(start, stop)]
                self.position[name] = str(topic.first + stop)
        return taken

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Subscription.close`."""
        with self._log.changed:
            self._closed = True
            self._log.changed.notify_all()


class MemoryFabric:
    """``memory://name[?maxlen=events]``: every opener of a name in this process sees the same log.

    The log lives until the process ends or `forget` is called, so that what a closed fabric was told can still be read.

    Args:
        name: Name of the log.
        maxlen: Number of events kept per topic; the first fabric of a name decides.
    """

    def __init__(self, name: str, maxlen: int = DEFAULT_MAXLEN) -> None:
        self._name = name
        self._log = _logs.setdefault(name, _Log(maxlen))
        self._closed = False
        self._subscriptions: list[MemorySubscription] = []

    def __repr__(self) -> str:
        return f"<MemoryFabric {self.url}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`; another process has its own log."""
        return f"memory://{self._name}"

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`.

        Raises:
            FabricUnavailableError: The fabric is closed.
        """
        if self._closed:
            raise FabricUnavailableError(f"{self.url} was closed")
        with self._log.changed:
            for event in events:
                self._log.topic(event.topic).append(event)
            self._log.changed.notify_all()

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> MemorySubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        Raises:
            ConfigurationError: The position holds a cursor of another transport.
            FabricUnavailableError: The fabric is closed.
        """
        if self._closed:
            raise FabricUnavailableError(f"{self.url} was closed")
        subscription = MemorySubscription(self._log, topics, position)
        self._subscriptions.append(subscription)
        return subscription

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; subscriptions opened here are closed too."""
        self._closed = True
        while self._subscriptions:
            self._subscriptions.pop().close()


def open_url(url: str, run_dir: Path) -> MemoryFabric:  # noqa: ARG001 - signature of all transports
    """Open ``memory://[name][?maxlen=events]``; without a name it is the log called "default".

    Raises:
        FabricURLError: The URL has a path or an unknown option.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    maxlen = options.pop("maxlen", str(DEFAULT_MAXLEN))
    if parts.path not in ("", "/") or options or not maxlen.isdecimal() or int(maxlen) < 1:
        raise FabricURLError(
            f'fabric="{redacted(url)}" does not name a log. Write "memory://any-name" or "memory://x?maxlen=1000".'
        )
    return MemoryFabric(parts.netloc or "default", int(maxlen))


def forget(name: str) -> None:
    """Drop the log ``memory://name``; the next fabric of that name starts with an empty one."""
    _logs.pop(name, None)
