"""Reads futures and events of the Diaspora Stream API, independent of its library."""

from __future__ import annotations

import ctypes
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import Event, decode
from diaspora_parsl.fabric.base import Position

MARK: Final = b"mark"
PULSE_TOPIC: Final = "diaspora-pulse"
_SLICE_SECONDS: Final = 0.02
_READ_EVENTS: Final = 5000
_CURSOR: Final = re.compile(r"(-1|\d+)@([\w-]+)")


class Session(Protocol):
    """One driver, as long as its server is there."""

    #: Seconds after which a silent server is considered down.
    timeout: float
    #: Monotonic time of the last answer of the server.
    contact: float
    #: Whether it is of no use any more.
    is_lost: bool

    def topic(self, name: str) -> Any:
        """Return a topic, created if missing."""
        ...

    def mark(self, topic: str) -> int:
        """Append a mark, which is no event; its number is where the log ends.

        Raises:
            FabricUnavailableError: The server did not answer.
        """
        ...


def forever(thing: object) -> None:
    """Never run the destructor of something whose server does not answer: it would wait for it, with the GIL."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def new_name() -> str:
    """Of a producer or a consumer; nobody else has it."""
    return f"diaspora-{secrets.token_hex(8)}"


class _Pull:
    """One consumer of one topic, and the future of its next event."""

    def __init__(self, topic: Any, name: str) -> None:
        self._consumer = topic.consumer(name)  # batches as they come: with a fixed size the server waits for full ones
        self._future: Any = None
        self._last: Any = None

    def next(self, milliseconds: int) -> Any:
        """The next event, or None if there is none in that time.

        One future at a time, until it has given its event: one that is abandoned swallows it.
        """
        if self._future is None:
            self._future = self._consumer.pull()
        try:
            event = self._future.wait(timeout_ms=milliseconds)
        except Exception:
            self._future = None
            raise
        if event is None and self._future.completed():
            event = self._future.wait(timeout_ms=1)  # it may have come just now
            self._future = None
            if event is None:  # `files` says at once that there is none now
                time.sleep(milliseconds / 1000)
        elif event is not None:
            self._future = None
        return event if event is not None and event.event_id is not None else None

    def took(self, event: Any) -> None:
        """Acknowledge the event before this one: that one is with the caller. The server is there, since this came."""
        if self._last is not None:
            self._last.acknowledge()  # all up to it
        self._last = event


class StreamSubscription:
    """A reader with consumers of its own; see `diaspora_parsl.fabric.base.Subscription`.

    A cursor is the number of the last event that was read, and the name of the consumer that read it. The server may
    forget how far a consumer was, so the cursor decides, and the consumer only saves the way to it.

    Args:
        run: Runs a function with the current session.
        topics: Topics to read.
        position: Start position.
    """

    def __init__(
        self, run: Callable[[Callable[[Session], Any]], Any], topics: Sequence[str], position: Position
    ) -> None:
        self.resyncs = 0
        self.malformed = 0
        self._run = run
        self._closed = False
        self._session: Session | None = None
        self._pulls: dict[str, _Pull] = {}
        self._own = set(topics)  # consumers with a name of their own
        self._names = {topic: new_name() for topic in topics}
        self._numbers = dict.fromkeys(topics, -1)
        if position == "latest":
            self._numbers |= {topic: self._mark(topic) for topic in topics}
        elif isinstance(position, dict):
            for topic, cursor in position.items():
                if not (found := _CURSOR.fullmatch(cursor)):
                    raise ConfigurationError(f"{cursor!r} is no cursor of Mofka. Give back what `position` was here.")
                if topic in self._numbers:
                    self._numbers[topic], self._names[topic] = int(found[1]), found[2]
                    self._own.discard(topic)

    @property
    def position(self) -> dict[str, str]:
        """See `diaspora_parsl.fabric.base.Subscription.position`."""
        return {topic: f"{number}@{self._names[topic]}" for topic, number in self._numbers.items()}

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def read(self, timeout: float) -> list[Event]:
        """See `diaspora_parsl.fabric.base.Subscription.read`.

        Raises:
            FabricUnavailableError: The server did not answer.
        """
        deadline = time.monotonic() + timeout
        while not self._closed:
            try:
                session = self._joined()
                events = self._take(session, min(_SLICE_SECONDS, max(0.0, deadline - time.monotonic())))
                if not events and time.monotonic() - session.contact > session.timeout:
                    # Of a server that is gone, `wait` says what it says of one that is quiet: nothing.
                    self._mark(PULSE_TOPIC)
            except FabricUnavailableError:
                if self._closed:
                    break
                raise
            if events or time.monotonic() >= deadline:
                return events
        return []

    def _mark(self, topic: str) -> int:
        number: int = self._run(lambda session: session.mark(topic))
        return number

    def _joined(self) -> Session:
        """Return the current session, with one consumer per topic."""
        session = self._session
        if session is None or session.is_lost:
            session = self._run(self._join)
            self._session = session
        return session

    def _join(self, session: Session) -> Session:
        for pull in self._pulls.values():
            forever(pull)  # of a driver that is lost
        self._pulls = {}
        for topic in self._numbers:
            end = session.mark(topic)
            if end <= self._numbers[topic]:  # restarted empty, or from an older state: what it had in between is gone
                self.resyncs += 1
                self._numbers[topic] = -1
            self._pulls[topic] = _Pull(session.topic(topic), self._names[topic])
        return session

    def _take(self, session: Session, seconds: float) -> list[Event]:
        """What there is, and if there is nothing what comes within that time."""
        taken: list[Event] = []
        for waits in (0.0, seconds):
            for topic in self._numbers:
                milliseconds = max(1, int(1000 * waits / len(self._numbers)))
                while len(taken) < _READ_EVENTS:
                    try:
                        pulled = self._pulls[topic].next(milliseconds)
                    except Exception:  # noqa: BLE001 - of any type: the server has an event, and cannot give its data
                        self.malformed += 1
                        time.sleep(milliseconds / 1000)
                        break
                    if pulled is None:
                        break
                    milliseconds = 1
                    session.contact = time.monotonic()
                    if not self._expected(session, topic, pulled.event_id):
                        break
                    self._pulls[topic].took(pulled)
                    if pulled.event_id > self._numbers[topic]:
                        self._numbers[topic] = pulled.event_id
                        self._decode(pulled, taken)
            if taken or seconds <= 0 or self._closed:
                break
        return taken

    def _expected(self, session: Session, topic: str, number: int) -> bool:
        """Whether nothing is missing before this one.

        If another reader has taken up the same cursor and acknowledged more, the server sends what comes after that: go
        through the log once more, by a name that nobody else has.
        """
        if number <= self._numbers[topic] + 1:
            return True
        if topic in self._own:  # the server has not kept it
            self.resyncs += 1
            return True
        self._own.add(topic)
        self._names[topic] = new_name()
        forever(self._pulls[topic])  # it may hold more; ending it would wait for that
        self._pulls[topic] = _Pull(session.topic(topic), self._names[topic])
        return False

    def _decode(self, pulled: Any, taken: list[Event]) -> None:
        data = pulled.data
        raw = b"".join(bytes(part) for part in data) if isinstance(data, list) else bytes(data)
        if raw == MARK:
            return
        try:
            taken.append(decode(raw))
        except ValueError:
            self.malformed += 1

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Subscription.close`; a blocked `read` notices within a moment."""
        self._closed = True
