"""Octopus by its web service, for sites where the ports of Kafka are closed."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import Event, decode, encode
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.kafka.options import read_cursor, write_cursor
from diaspora_parsl.fabric.transports.octopus.login import (
    Address,
    Login,
    create_topics,
    errors,
    new_reader,
    unavailable,
)

_BATCH: Final = 500
_BATCH_BYTES: Final = 1_000_000
#: Seconds that the service may wait for events in one request, which `close` cannot interrupt.
_FETCH: Final = 0.5

logger = logging.getLogger(__name__)


class RestSubscription:
    """A reader with an instance of its own at the service; see `diaspora_parsl.fabric.base.Subscription`.

    Its cursors are those of `KafkaSubscription`: every topic has one partition.

    Raises:
        ConfigurationError: The position holds a cursor of another transport, or the namespace is not the login's.
        FabricUnavailableError: "latest" could not be asked for now.
    """

    def __init__(self, login: Login, namespace: str, topics: Sequence[str], position: Position) -> None:
        self.resyncs = 0
        self.malformed = 0
        self.position: dict[str, str] = {topic: write_cursor({}) for topic in topics}
        self._login = login
        self._namespace = namespace
        self._group = f"parsl-{secrets.token_hex(8)}"
        self._consumer: Any = None
        self._pid = 0
        self._ended = threading.Event()
        self._busy = threading.Lock()
        self._next: dict[str, int] = {}
        self._ahead: list[dict[str, Any]] = []
        if isinstance(position, dict):
            saved = {topic: cursor for topic, cursor in position.items() if topic in self.position}
            self._next = {topic: read_cursor(cursor).get(0, 0) for topic, cursor in saved.items()}
            self.position |= saved
        elif position == "latest":
            try:
                with _translated_errors():
                    self._find_end()
            except BaseException:
                self._drop()
                raise

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._ended.is_set()

    def _find_end(self) -> None:
        consumer = self._open()
        consumer.seek_to_end(self._partitions())
        # Only a fetch makes the service look where the end is; what comes with it is new already.
        self._ahead = consumer.fetch(timeout_ms=1)
        self._ask_cursors(consumer)
        for record in reversed(self._ahead):
            self._next[record["topic"]] = record["offset"]
        self._emit()

    def _ask_cursors(self, consumer: Any) -> None:
        """Where the service is in the topics of which nothing came yet; it tells what was committed alone."""
        consumer.commit()
        offsets = consumer.committed(self._partitions())
        for topic, number in self._partitions():
            self._next.setdefault(topic, offsets.get((topic, number), 0))

    def _partitions(self) -> list[tuple[str, int]]:
        return [(topic, 0) for topic in self.position]

    def _open(self) -> Any:
        """Return the consumer instance, positioned at the cursors."""
        if self._consumer is None or self._pid != os.getpid():
            client = self._login.client()
            if client.namespace != self._namespace:
                raise ConfigurationError(
                    f"The web service reads the namespace of the login alone, {client.namespace}, and not "
                    f"{self._namespace}. Write octopus+https://{client.namespace}, or read by octopus://."
                )
            create_topics(client, self._namespace, self.position)
            self._consumer, self._pid = new_reader(self._group, client), os.getpid()
            self._ahead = []
            self._consumer.assign(self._partitions())
            if known := {(topic, 0): offset for topic, offset in self._next.items()}:
                self._consumer.seek(known)
        return self._consumer

    def read(self, timeout: float) -> list[Event]:
        """See `diaspora_parsl.fabric.base.Subscription.read`.

        Raises:
            FabricUnavailableError: The service did not answer, or refused the request.
        """
        deadline = time.monotonic() + timeout
        with self._busy:
            try:
                while not self._ended.is_set():
                    remaining = max(deadline - time.monotonic(), 0.0)
                    events = self._fetch(min(remaining, _FETCH))
                    if events or remaining <= _FETCH:
                        return events
            except FabricUnavailableError:
                self._forget()  # after an error the instance may be gone, or be somewhere else
                if not self._ended.is_set():
                    raise
            self._drop()
            return []

    def _fetch(self, seconds: float) -> list[Event]:
        with _translated_errors():
            consumer = self._open()
            records, self._ahead = self._ahead, []
            # With 0 it would not wait for its brokers, and there would never be anything.
            records = records or consumer.fetch(timeout_ms=max(int(seconds * 1000), 50))
            if not records and len(self._next) < len(self.position):
                self._ask_cursors(consumer)
                self._emit()
        events = []
        for record in records:
            topic, offset = record["topic"], record["offset"]
            if self._next.get(topic, offset) != offset:
                self.resyncs += 1  # trimmed, or a log that began again: the service goes to the first that it has
            self._next[topic] = offset + 1
            try:
                events.append(decode(record["value"] or b""))
            except ValueError:
                self.malformed += 1
        if records:
            self._emit()
        return events

    def _emit(self) -> None:
        for topic, offset in self._next.items():
            self.position[topic] = write_cursor({0: offset})

    def _forget(self) -> None:
        self._consumer, self._ahead = None, []

    def _drop(self) -> None:
        consumer, pid = self._consumer, self._pid
        self._forget()
        if consumer is not None and pid == os.getpid():
            try:
                consumer.close()
            except errors() as error:
                # The service ends an idle instance by itself, after five minutes.
                logger.debug("An instance at Octopus could not be ended: %s", unavailable(error))

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Subscription.close`."""
        self._ended.set()
        if self._busy.acquire(blocking=False):  # else the reading thread sees it within a moment, and lets go itself
            try:
                self._drop()
            finally:
                self._busy.release()


class OctopusRestFabric:
    """``octopus+https://namespace``: the topics of Octopus by HTTPS only.

    Options in the URL: ``timeout`` (seconds of one request, default 10) and ``service`` (base URL of an Octopus of
    your own).

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: There is no login, or a package is missing.
    """

    def __init__(self, url: str) -> None:
        self._address = Address(url)
        if self._address.others:
            raise self._address.wrong(f"{', '.join(self._address.others)} is no option")
        self._login = Login(self._address.timeout, self._address.service)
        self._client: Any = None
        self._made: set[str] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._subscriptions: list[RestSubscription] = []

    def __repr__(self) -> str:
        return f"<OctopusRestFabric {redacted(self.url)}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`; the login is not in it."""
        return self._address.url

    def _refuse_closed(self) -> None:
        if self._closed:
            raise FabricUnavailableError(f"{redacted(self.url)} was closed")

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`.

        Raises:
            FabricUnavailableError: The service did not answer, or refused some of the events.
        """
        if not events:
            return
        if self._pid != os.getpid():  # forked: another thread may have held the lock, and the connections are shared
            self._lock, self._pid, self._client = threading.Lock(), os.getpid(), None
        with self._lock:
            self._refuse_closed()
            if self._client is None:
                self._client = self._login.client()
            by_topic: dict[str, list[Event]] = {}
            for event in events:
                by_topic.setdefault(event.topic, []).append(event)
            if missing := by_topic.keys() - self._made:
                create_topics(self._client, self._address.namespace, missing)
                self._made |= missing
            for topic, of_topic in by_topic.items():
                for batch in _batches(of_topic):
                    self._send(topic, batch)

    def _send(self, topic: str, batch: list[dict[str, Any]]) -> None:
        with _translated_errors():
            answer = self._client.produce_batch(topic, batch, namespace=self._address.namespace)
        if failures := answer.get("failures"):
            reason = failures[0].get("message")
            raise FabricUnavailableError(f"Octopus did not take {len(failures)} of {len(batch)} events: {reason}")

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> RestSubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        Raises:
            ConfigurationError: The position holds a cursor of another transport, or the namespace is not the login's.
            FabricUnavailableError: "latest" could not be asked for now, or the fabric was closed.
        """
        self._refuse_closed()
        subscription = RestSubscription(self._login, self._address.namespace, topics, position)
        self._subscriptions = [one for one in self._subscriptions if not one.is_closed] + [subscription]
        return subscription

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; subscriptions opened here are closed too."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise errors of the SDK as `FabricUnavailableError`."""
    try:
        yield
    except errors() as error:
        raise unavailable(error) from error


def _batches(events: Sequence[Event]) -> Iterator[list[dict[str, Any]]]:
    """Split the events into batches of one request."""
    batch: list[dict[str, Any]] = []
    size = 0
    for event in events:
        value = encode(event)
        if batch and (len(batch) == _BATCH or size + len(value) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append({"value": value, "key": event.partitionkey})
        size += len(value)
    yield batch


def open_url(url: str, run_dir: Path) -> OctopusRestFabric:  # noqa: ARG001 - signature of all transports
    """Open ``octopus+https://namespace``; the service is contacted later.

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: There is no login, or a package is missing.
    """
    return OctopusRestFabric(url)
