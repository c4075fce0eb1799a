"""Mofka and other systems behind the Diaspora Stream API; the only file that imports ``diaspora_stream``."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.events import Event, encode
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.diaspora_stream.consumer import (
    MARK,
    PULSE_TOPIC,
    StreamSubscription,
    forever,
    new_name,
)

DEFAULT_TIMEOUT: Final = 2.0
#: The ``files`` back end fails on batches of more than 1,024 events.
_BATCH: Final = 1000
#: A time-out of 2,148 ms and more overflows, one of 0 waits for ever.
_LONGEST_WAIT_MS: Final = 2000
_TCP: Final = re.compile(r"tcp://([^:/\"]+):(\d+)")

#: Metadata and data, as they are pushed.
_Item: TypeAlias = tuple[str, bytes]


class _Options(NamedTuple):
    """Parsed URL."""

    url: str
    backend: str
    path: Path
    data: Path
    prefix: str
    timeout: float


def _options(url: str) -> _Options:
    """Parse a URL.

    Raises:
        FabricURLError: The URL is invalid.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        timeout = float(query.pop("timeout", DEFAULT_TIMEOUT))
        prefix, path = query.pop("prefix", ""), Path(unquote(parts.path))
        backend = parts.scheme.partition("+")[2]
        data = Path(query.pop("data", path.parent / "mofka-data")) if backend == "mofka" else path
        reason = ""
    except ValueError as error:
        reason = str(error)
    else:
        if parts.netloc or not path.is_absolute() or path == Path("/") or query:
            reason = "it needs three slashes and a whole path, and has no other options"
        elif not 0.05 <= timeout <= 60 or not re.fullmatch(r"[\w.-]*", prefix):  # noqa: PLR2004 - in the message
            reason = "timeout is in seconds, 0.05 to 60; a prefix has letters, digits, '.', '_' and '-'"
    if reason:
        raise FabricURLError(
            f'fabric="{redacted(url)}" cannot be used ({reason}). Write "diaspora+mofka:///path/to/group_file" or '
            '"diaspora+files:///path/to/folder".'
        )
    return _Options(url, backend, path, data, prefix, timeout)


def _api() -> Any:
    """Import the package on demand.

    Raises:
        ConfigurationError: The package is missing; the message says how to install it.
    """
    try:
        return import_module("diaspora_stream.api")
    except ImportError as error:
        raise ConfigurationError(
            f"diaspora+mofka:// and diaspora+files:// need the package diaspora_stream ({error}), not on PyPI. "
            "Get it by Spack: spack repo add https://github.com/diaspora-project/diaspora-spack-packages.git, then "
            "spack install diaspora-stream-api mofka, and spack load both. Or build it from "
            "https://github.com/diaspora-project/diaspora-stream-api."
        ) from None


def _answered(future: Any, deadline: float) -> Any:
    """What a future gives; None if it gives nothing until then."""
    while True:
        remaining = max(0.001, deadline - time.monotonic())
        value = future.wait(timeout_ms=min(_LONGEST_WAIT_MS, max(1, int(remaining * 1000))))
        if value is not None and value is not False:
            return value
        if time.monotonic() >= deadline:
            return None


class _Session:
    """One driver and what was made by it. A driver whose server is gone is of no use any more: a new session is."""

    def __init__(self, options: _Options) -> None:
        self.options = options
        self.timeout = options.timeout
        self.contact = time.monotonic()
        self.is_lost = False
        self._topics: dict[str, Any] = {}
        self._producers: dict[str, Any] = {}
        api = _api()
        if options.backend == "mofka":
            self._check_address()
            wishes = {"group_file": str(options.path)}
        else:
            wishes = {"root_path": str(options.path)}
        self._driver = api.Driver(backend=options.backend, options=wishes)

    def _check_address(self) -> None:
        """Is there somebody at the address of the group file? The driver would ask with the GIL and without a limit."""
        try:
            text = self.options.path.read_text(encoding="utf-8")
        except OSError as error:
            raise FabricUnavailableError(f"the group file {self.options.path} cannot be read: {error}") from error
        if not text.strip():
            raise FabricUnavailableError(f"the group file {self.options.path} is empty: the server is not up yet")
        if found := _TCP.search(text):
            try:
                socket.create_connection((found[1], int(found[2])), self.options.timeout).close()
            except OSError as error:
                raise FabricUnavailableError(f"nobody answers at {found[0]}, named by {self.options.path}") from error

    def topic(self, name: str) -> Any:
        """Return a topic, created if missing."""
        if name not in self._topics:
            full = self.options.prefix + name
            wishes: dict[str, Any] = {"num_partitions": 1}  # order is kept per partition
            if self.options.backend == "mofka":
                # Not "memory": a killed consumer wedges that.
                wishes["config"] = {"type": "default", "partition": {"path": str(self.options.data / full)}}

            if not self._driver.topic_exists(full):
                try:
                    self._driver.create_topic(full, options=wishes)
                except Exception:
                    if not self._driver.topic_exists(full):  # else another process was first
                        raise
            self._topics[name] = self._driver.open_topic(full)
        return self._topics[name]

    def producer(self, name: str) -> Any:
        """Return the producer of a topic."""
        if name not in self._producers:
            producer = self.topic(name).producer(new_name(), batch_size=_BATCH)
            self._producers[name] = producer
        return self._producers[name]

    def push(self, by_topic: dict[str, list[_Item]]) -> dict[str, int]:
        """Append to topics; returns the number of the last one of each when the server has them all."""
        last: dict[str, int] = {}
        for start in range(0, max(map(len, by_topic.values())), _BATCH):
            deadline = time.monotonic() + self.options.timeout
            pushed: dict[str, list[Any]] = {}
            flushed = []
            for name, items in by_topic.items():
                producer = self.producer(name)
                # No more than a batch before the answer: `push` would wait for room, with the GIL.
                if chunk := items[start : start + _BATCH]:
                    pushed[name] = [producer.push(metadata, data) for metadata, data in chunk]
                    flushed.append(producer.flush())
            if None in [_answered(future, deadline) for future in flushed]:
                raise FabricUnavailableError(f"{self.options.url} does not answer")
            for name, futures in pushed.items():
                numbers = [_answered(future, deadline) for future in futures]
                if None in numbers:
                    raise FabricUnavailableError(f"{self.options.url} does not say that it has the events")
                last[name] = numbers[-1]
        self.contact = time.monotonic()
        return last

    def mark(self, topic: str) -> int:
        """Append a mark, which is no event.

        Its number is where the log ends, and the answer shows that the server is there.
        """
        return self.push({topic: [("{}", MARK)]})[topic]

    def lose(self) -> None:
        """Abandon the session without ending it, which would hang."""
        self.is_lost = True
        forever(self)

    def end(self) -> None:
        """Close everything if the server answers."""
        try:
            self.mark(PULSE_TOPIC)
        except Exception:  # noqa: BLE001 - whatever is wrong, it must not be touched any more
            self.lose()
        self._producers.clear()
        self._topics.clear()
        self._driver = None


_metadata_encoder: Final = msgspec.json.Encoder()


def _item(event: Event) -> _Item:
    """The event itself is the data, byte for byte; the metadata are what a selector may want to see."""
    reported = {"id": event.id, "source": event.source, "type": event.type}
    return _metadata_encoder.encode(reported).decode(), encode(event)


class StreamFabric:
    """``diaspora+mofka:///path/to/group_file`` and ``diaspora+files:///folder``: one topic of one partition each.

    Options in the URL: ``timeout`` (seconds until a silent server counts as gone, default 2), ``prefix`` (of the topic
    names), ``data`` (Mofka: the folder, on the server's machine, where new partitions keep their events; beside the
    group file by default).

    A publish is pushed and flushed, which Mofka answers in about a tenth of a second: publish batches.

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: the package is missing. The server is not asked here.
    """

    def __init__(self, url: str) -> None:
        self._options = _options(url)
        _api()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._session: _Session | None = None
        self._closed = False
        self._subscriptions: list[StreamSubscription] = []

    def __repr__(self) -> str:
        return f"<StreamFabric {self._options.url}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`."""
        return self._options.url

    def _run(self, call: Callable[[_Session], Any]) -> Any:
        """Run a function with the current session; an error replaces the session."""
        if self._pid != os.getpid():  # forked: the driver, and perhaps the lock, are the parent's
            self._lock, self._pid = threading.Lock(), os.getpid()
            if self._session is not None:
                self._session.lose()
        with self._lock:
            if self._closed:
                raise FabricUnavailableError(f"{self.url} was closed")
            session = None if self._session is None or self._session.is_lost else self._session
            try:
                if session is None:
                    session = self._session = _Session(self._options)
                return call(session)
            except Exception as error:
                if session is not None:
                    session.lose()
                if isinstance(error, FabricUnavailableError):
                    raise
                raise FabricUnavailableError(f"{self.url} failed: {error}") from error

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`.

        Raises:
            FabricUnavailableError: The server did not answer within the time-out.
        """
        by_topic: dict[str, list[_Item]] = {}
        for event in events:
            by_topic.setdefault(event.topic, []).append(_item(event))

        if by_topic:
            self._run(lambda session: session.push(by_topic))

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> StreamSubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        A reader after "latest" or a cursor whose consumer the server has forgotten pulls the log from its start, and
        leaves out what it need not see: nothing in the API goes to a position.

        Raises:
            ConfigurationError: The position holds a cursor of another transport.
            FabricUnavailableError: "latest" could not be asked for now, or the fabric was closed.
        """
        if self._closed:
            raise FabricUnavailableError(f"{self.url} was closed")
        subscription = StreamSubscription(self._run, topics, position)
        self._subscriptions = [one for one in self._subscriptions if not one.is_closed] + [subscription]
        return subscription

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; subscriptions opened here are closed too."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
        if self._pid == os.getpid() and self._lock.acquire(timeout=self._options.timeout):
            try:
                session, self._session = self._session, None
                if session is not None and not session.is_lost:
                    session.end()
            finally:
                self._lock.release()


def open_url(url: str, run_dir: Path) -> StreamFabric:  # noqa: ARG001 - signature of all transports
    """Open ``diaspora+mofka:///path/to/group_file`` or ``diaspora+files:///folder``; the server is contacted later.

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: the package ``diaspora_stream`` is missing; the message says how to get it.
    """
    return StreamFabric(url)
