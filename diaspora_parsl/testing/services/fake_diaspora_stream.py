"""A fake of ``diaspora_stream.api`` in this process, with the pitfalls of the real module."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

_OVERFLOW_MS: Final = 2148
_FILES_BATCH: Final = 1024
_POLL_SECONDS: Final = 0.01


class Exception(RuntimeError):  # noqa: A001, N818 - the real name
    """Base error of the real module."""


class _Log:
    """A topic with one partition: metadata and data, numbered from 0."""

    def __init__(self, path: Path | None) -> None:
        self.items: list[tuple[str, bytes]] = []
        self._path = path
        self._read = 0
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def append(self, batch: list[tuple[str, bytes]]) -> int:
        """Append events; return the number of the first."""
        if self._path is None:
            self.items += batch
            return len(self.items) - len(batch)
        lines = [json.dumps([metadata, base64.b64encode(data).decode()]) + "\n" for metadata, data in batch]
        with self._path.open("ab", buffering=0) as file:
            file.write("".join(lines).encode())  # in one piece: other processes append to the file too
        self.refresh()
        return len(self.items) - len(batch)

    def refresh(self) -> None:
        """Read what other processes have written to the file."""
        if self._path is None:
            return
        with self._lock, self._path.open("rb") as file:
            file.seek(self._read)
            complete, newline, _ = file.read().rpartition(b"\n")  # the rest is being written
            self._read += len(complete) + len(newline)
            for line in complete.splitlines():
                metadata, data = json.loads(line)
                self.items.append((metadata, base64.b64decode(data)))


class MofkaServer:
    """A Mofka server, which `Driver` finds by the address in a group file.

    Args:
        folder: Folder of the group file.
    """

    _running: ClassVar[dict[str, MofkaServer]] = {}
    _ports: ClassVar[int] = 0

    def __init__(self, folder: Path) -> None:
        self.group_file = folder / "group_file"
        self.lock = threading.RLock()
        self.logs: dict[str, _Log] = {}
        self.cursors: dict[tuple[str, str], int] = {}
        #: Topic and number of events with unreadable data.
        self.damaged: set[tuple[str, int]] = set()
        #: Number of starts; handles from before the last start are invalid.
        self.life = 0
        self.is_up = False
        self._address = ""

    def start(self, *, forgets_topics: bool = False) -> None:
        """Start at a new address without cursors, and with ``forgets_topics`` without topics."""
        with self.lock:
            MofkaServer._ports += 1
            self.life += 1
            self.is_up = True
            self.cursors.clear()
            if forgets_topics:
                self.logs.clear()
            self._address = f"na+double://{MofkaServer._ports}"
            MofkaServer._running[self._address] = self
            group = {"members": [{"address": self._address, "provider_id": 1}]}
            self.group_file.write_text(json.dumps(group), encoding="utf-8")

    def kill(self) -> None:
        """End it; its group file keeps the old address."""
        with self.lock:
            self.is_up = False
            MofkaServer._running.pop(self._address, None)

    @classmethod
    def named_by(cls, group_file: str) -> MofkaServer:
        """Return the server at the address in a group file.

        Raises:
            Exception: No server has this address.
        """
        try:
            address = json.loads(Path(group_file).read_text(encoding="utf-8"))["members"][0]["address"]
            return cls._running[address]
        except (OSError, ValueError, KeyError) as error:
            raise Exception(f"cannot look up the group of {group_file}: {error!r}") from None

    def log(self, name: str) -> _Log | None:
        """Return a topic, or None."""
        return self.logs.get(name)

    def create(self, name: str, options: dict[str, Any]) -> None:
        """Create a topic.

        Raises:
            Exception: The options name no folder for the partition.
        """
        if not options.get("config", {}).get("partition", {}).get("path"):
            raise Exception("a partition of type default needs a path")
        self.logs[name] = _Log(None)


class _Files:
    """The ``files`` back end: topics in a folder that several processes may open."""

    life = 1
    is_up = True

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.cursors: dict[tuple[str, str], int] = {}
        self.damaged: set[tuple[str, int]] = set()
        self._folder = folder
        self._logs: dict[str, _Log] = {}

    def log(self, name: str) -> _Log | None:
        """Return a topic, or None."""
        path = self._folder / name / "events"
        if name not in self._logs and path.exists():
            self._logs[name] = _Log(path)
        return self._logs.get(name)

    def create(self, name: str, options: dict[str, Any]) -> None:  # noqa: ARG002 - as Mofka's
        """Create a topic."""
        self._logs[name] = _Log(self._folder / name / "events")


class _Future:
    """A future with timeouts in milliseconds; `wait` returns None after one."""

    def __init__(self, poll: Callable[[], None] | None = None) -> None:
        self._value: Any = None
        self._error: Exception | None = None
        self._is_set = False
        self._poll = poll

    def set(self, value: Any) -> None:
        """Set the value."""
        self._value, self._is_set = value, True

    def fail(self, error: Exception) -> None:
        """Set the error that `wait` raises."""
        self._error, self._is_set = error, True

    def wait(self, *, timeout_ms: int) -> Any:
        """Return the value, or None after the timeout.

        Raises:
            Exception: The error set by `fail`, or a timeout that would never end.
        """
        if timeout_ms <= 0:
            raise Exception("this time-out would wait for ever")
        seconds = 0.0 if timeout_ms >= _OVERFLOW_MS else timeout_ms / 1000
        deadline = time.monotonic() + seconds
        while not self._done() and time.monotonic() < deadline:
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        if self._error is not None:
            raise self._error
        return self._value if self._is_set else None

    def _done(self) -> bool:
        if not self._is_set and self._poll is not None:
            self._poll()
        return self._is_set


class _Answer(_Future):
    """A future of a producer, whose ``completed`` is a property."""

    @property
    def completed(self) -> bool:
        """Whether there is a value."""
        return self._is_set


class _Coming(_Future):
    """A future of a consumer, whose ``completed`` is a method."""

    def completed(self) -> bool:
        """Whether there is a value."""
        return self._done()


class Event:
    """An event from a consumer."""

    def __init__(self, consumer: Consumer, number: int, metadata: str, data: bytes) -> None:
        self.event_id = number
        self.data = [memoryview(data)]
        self._consumer = consumer
        self._metadata = metadata

    @property
    def metadata(self) -> Any:
        """The parsed metadata."""
        return json.loads(self._metadata)

    def acknowledge(self) -> None:
        """Move the cursor of the consumer name behind this event."""
        self._consumer.acknowledge(self.event_id)


class Producer:
    """Sends events in batches. Even a full batch is sent only at the next push or flush."""

    def __init__(self, topic: TopicHandle, batch_size: int, max_num_batches: int) -> None:
        self._topic = topic
        self._size = batch_size
        self._room = batch_size * max_num_batches
        self._batch: list[tuple[str, bytes, _Answer]] = []

    def push(self, metadata: str | dict[str, Any], data: bytes = b"") -> _Answer:
        """Add an event; its future returns the event number once it is stored.

        Raises:
            Exception: The batches are full while the server is down. The real module blocks here and holds the GIL.
        """
        if isinstance(metadata, str):
            json.loads(metadata)
        if len(self._batch) >= self._size and not self._send() and len(self._batch) >= self._room:
            raise Exception("push would wait for room, with the GIL")
        answer = _Answer()
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        self._batch.append((text, bytes(data), answer))
        return answer

    def flush(self) -> _Answer:
        """Send the batch; the future returns True."""
        answer = _Answer()
        if self._send():
            answer.set(True)
        return answer

    def _send(self) -> bool:
        server = self._topic.server
        with server.lock:
            if not self._topic.is_alive():
                return False  # what is in the batch is lost with this producer
            batch, self._batch = self._batch, []
            if isinstance(server, _Files) and len(batch) > _FILES_BATCH:
                for _, _, answer in batch:
                    answer.fail(Exception("too many segments"))
                return True
            log = server.log(self._topic.name)
            if batch and log is not None:
                first = log.append([(metadata, data) for metadata, data, _ in batch])
                for number, (_, _, answer) in enumerate(batch, first):
                    answer.set(number)
        return True


class Consumer:
    """Resolves pulled futures in order, including discarded ones."""

    def __init__(self, topic: TopicHandle, name: str) -> None:
        self.name = name
        self._topic = topic
        self._next = 0 if isinstance(topic.server, _Files) else topic.server.cursors.get((topic.name, name), 0)
        self._pending: list[_Coming] = []

    def pull(self) -> _Coming:
        """Return a future of the next event; with ``files`` it returns None if there is none yet."""
        future = _Coming(self._serve)
        self._pending.append(future)
        if isinstance(self._topic.server, _Files):
            self._serve()
            if self._pending:
                self._pending.pop().set(None)
        return future

    def _serve(self) -> None:
        server = self._topic.server
        with server.lock:
            log = server.log(self._topic.name)
            if not self._topic.is_alive() or log is None:
                return
            log.refresh()
            while self._pending and self._next < len(log.items):
                metadata, data = log.items[self._next]
                future = self._pending.pop(0)
                if (self._topic.name, self._next) in server.damaged:
                    future.fail(Exception("the data cannot be read"))
                else:
                    future.set(Event(self, self._next, metadata, data))
                self._next += 1

    def acknowledge(self, number: int) -> None:
        """See `Event.acknowledge`."""
        with self._topic.server.lock:
            if self._topic.is_alive():
                self._topic.server.cursors[self._topic.name, self.name] = number + 1


class TopicHandle:
    """An open topic of one partition."""

    def __init__(self, server: MofkaServer | _Files, name: str) -> None:
        self.server = server
        self.name = name
        self._life = server.life

    def is_alive(self) -> bool:
        """Return whether the server has run since the topic was opened."""
        return self.server.is_up and self.server.life == self._life

    def producer(self, name: str = "", *, batch_size: int, max_num_batches: int = 2) -> Producer:  # noqa: ARG002
        """Return a producer."""
        return Producer(self, batch_size, max_num_batches)

    def consumer(self, name: str) -> Consumer:
        """Return a consumer that starts at the cursor of its name."""
        return Consumer(self, name)


class Driver:
    """Entry point: ``backend="mofka"`` with a ``group_file``, or ``"files"`` with a ``root_path``.

    Raises:
        Exception: No server runs, or the back end is unknown.
    """

    def __init__(self, *, backend: str, options: dict[str, Any]) -> None:
        if backend == "mofka":
            self._server: MofkaServer | _Files = MofkaServer.named_by(options["group_file"])
        elif backend == "files":
            self._server = _Files(Path(options["root_path"]))
        else:
            raise Exception(f"there is no back end {backend}")
        self._life = self._server.life

    def _live_server(self) -> MofkaServer | _Files:
        if not self._server.is_up or self._server.life != self._life:
            raise Exception("the server does not answer")
        return self._server

    def topic_exists(self, name: str) -> bool:
        """Return whether a topic exists."""
        return self._live_server().log(name) is not None

    def create_topic(self, name: str, *, options: dict[str, Any]) -> None:
        """Create a topic.

        Raises:
            Exception: The topic exists.
        """
        server = self._live_server()
        with server.lock:
            if server.log(name) is not None:
                raise Exception(f"topic {name} exists already")
            server.create(name, options)

    def open_topic(self, name: str) -> TopicHandle:
        """Open a topic.

        Raises:
            Exception: The topic does not exist.
        """
        if self._live_server().log(name) is None:
            raise Exception(f"there is no topic {name}")
        return TopicHandle(self._server, name)


@contextmanager
def installed() -> Iterator[None]:
    """Make ``import diaspora_stream.api`` return this module while the block runs."""
    names = ("diaspora_stream", "diaspora_stream.api")
    before = {name: sys.modules.get(name) for name in names}
    package = ModuleType("diaspora_stream")
    sys.modules["diaspora_stream"], sys.modules["diaspora_stream.api"] = package, sys.modules[__name__]
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
