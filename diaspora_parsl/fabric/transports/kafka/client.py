"""Handles of librdkafka by confluent-kafka; the only file of the product that imports ``confluent_kafka``."""

from __future__ import annotations

import ctypes
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from diaspora_parsl.backoff import Backoff
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.fabric.base import redacted
from diaspora_parsl.fabric.transports.kafka.options import CONSUMER, PRODUCER, KafkaOptions

try:
    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic
except ImportError as error:
    raise ConfigurationError(
        'kafka:// and octopus:// need confluent-kafka. Install it: pip install "diaspora-parsl[kafka]".'
    ) from error

#: Seconds of one wait in librdkafka, which `close` cannot interrupt and which delays error callbacks.
SLICE: Final = 0.1
#: Offsets in a query: the first stored one, and the next one to be written.
LOW: Final = -2
HIGH: Final = -1
_READ_EVENTS: Final = 1000
#: Seconds for the first try of a request, which doubles, and seconds until a broken connection is an outage.
_FIRST_TRY: Final = 0.3
_SOON_ENOUGH: Final = 0.05
#: Extra seconds for a new producer, which requests its id every half second.
_NEW_PRODUCER_SECONDS: Final = 1.0
_UNAUTHENTICATED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_ABSENT: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_TRIMMED: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_FORBIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
#: Answers of brokers, or of a handle, to whom a topic or its new leader is not known yet.
_SOON: Final = _ABSENT | {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,
}
#: Errors of the client, which carry no answer of a broker.
_LOCAL: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})

logger = logging.getLogger(__name__)
T = TypeVar("T")
Partition = tuple[str, int]


class Cluster:
    """Connection properties and topics, shared by the publisher and the readers of one fabric."""

    def __init__(self, options: KafkaOptions) -> None:
        self.url = options.url
        self.timeout = options.timeout
        self._options = options
        self._made: set[str] = set()

    def properties(self) -> dict[str, Any]:
        """Return the properties of librdkafka for a connection.

        Raises:
            FabricUnavailableError: The properties are unavailable now.
        """
        return self._options.properties

    def name(self, topic: str) -> str:
        """Return the name of a topic in Kafka."""
        return f"{self._options.prefix}.{topic}"

    def refused(self) -> None:
        """Hook that runs when the brokers refuse the credentials."""

    def ensure(self, topics: Iterable[str]) -> None:
        """Create the topics once; without permission they must exist, or writing creates them.

        Raises:
            FabricUnavailableError: The brokers did not answer.
        """
        missing = set(topics) - self._made
        if missing and self._options.create:
            self.create(missing)
        self._made |= missing

    def create(self, topics: set[str]) -> None:
        """See `ensure`."""
        partitions, replication = self._options.partitions, self._options.replication
        wanted = [NewTopic(self.name(topic), partitions, replication) for topic in sorted(topics)]
        link = Link(self, AdminClient)
        try:
            for future in link.handle().create_topics(wanted, request_timeout=self.timeout).values():
                link.ask(partial(_created, future))
        finally:
            link.drop()


def _created(future: Any, seconds: float) -> None:
    """Wait for an answer; ignore existing topics and missing permission."""
    try:
        future.result(seconds)
    except FutureTimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
    except KafkaException as error:
        if error.args[0].code() in _LOCAL | _UNAUTHENTICATED:
            raise


class Link:
    """Handle of librdkafka, created on demand and abandoned after a fork. One thread at a time."""

    def __init__(self, cluster: Cluster, kind: Any, properties: Mapping[str, Any] | None = None) -> None:
        self.made: Any = None
        self._cluster = cluster
        self._kind = kind
        self._properties = properties or {}
        self._is_down = False
        self._is_spoilt = False
        self._last: KafkaError | None = None
        _links.add(self)

    def handle(self) -> Any:
        """Return the handle.

        Raises:
            FabricUnavailableError: The connection properties are unavailable.
        """
        if self.made is None:
            properties = {**self._cluster.properties(), **self._properties, "error_cb": self._on_error}
            try:
                self.made = self._kind(properties)
            except KafkaException as error:
                raise self.unavailable(error.args[0]) from None
        return self.made

    def _on_error(self, error: KafkaError) -> None:
        """Record an error that librdkafka reports while a thread waits in it."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._is_down = True  # said once for each connection that breaks
        elif self._last is None or self._last.code() not in _UNAUTHENTICATED:
            self._last = error

    def forget(self) -> None:
        """Discard earlier errors before the next operation."""
        self.serve()
        self._is_down, self._is_spoilt, self._last = False, False, None

    @property
    def is_broken(self) -> bool:
        """Whether the handle has an error that waiting does not resolve."""
        last = self._last
        return (
            self._is_down or self._is_spoilt or (last is not None and (last.code() in _UNAUTHENTICATED or last.fatal()))
        )

    def check(self) -> None:
        """Raise if the handle is broken.

        Raises:
            FabricUnavailableError: The handle is broken.
        """
        if self.is_broken:
            raise self.unavailable()

    def drop_if_broken(self) -> None:
        """End a broken handle, because a new one connects and reports errors immediately.

        A slow handle is kept, or it would never finish connecting.
        """
        if self.is_broken:
            self.drop()

    def ask(self, question: Callable[[float], T]) -> T:
        """Send a request to the brokers, within the time-out of the fabric.

        Args:
            question: Request, called with its time-out in seconds.

        Raises:
            FabricUnavailableError: The brokers did not answer, or denied permission.
        """
        self.forget()
        reason: KafkaError | None = None
        tries, end = Backoff(_FIRST_TRY, self._cluster.timeout), time.monotonic() + self._cluster.timeout
        while (remaining := end - time.monotonic()) > 0:
            try:
                return question(min(tries.delay, remaining))
            except KafkaException as error:
                self.serve()
                self.check()
                reason = error.args[0]
                self._is_spoilt = reason.code() not in _LOCAL
                if self._is_spoilt and reason.code() not in _SOON:
                    raise self.unavailable(reason) from error
                if self._is_spoilt:
                    time.sleep(_SOON_ENOUGH)
                    continue
            tries.next()
        raise self.unavailable(reason if self._is_spoilt else None)

    def serve(self) -> None:
        """Run the error callbacks of librdkafka."""
        self.handle().poll(0)

    def unavailable(self, error: KafkaError | None = None) -> FabricUnavailableError:
        """Return the exception for an error; by default for the last reported one."""
        error = error or self._last
        where = redacted(self._cluster.url)
        if error is None:
            reason = "the connection breaks" if self._is_down else f"no answer within {self._cluster.timeout:g} s"
            return FabricUnavailableError(f"{where} cannot be reached: {reason}")
        if error.code() in _UNAUTHENTICATED:
            self._cluster.refused()
            return FabricUnavailableError(f"{where} refuses the user name or password, or the token, that it is given")
        verb = "refuses" if error.code() in _FORBIDDEN else "cannot be reached"
        return FabricUnavailableError(f"{where} {verb}: {error.str()}")

    def drop(self) -> None:
        """End the handle immediately; the next `handle` creates a new one."""
        made, self.made = self.made, None
        if isinstance(made, Producer):
            made.purge()
        if isinstance(made, Producer | Consumer):
            made.close()


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Abandon the handles after a fork, because ending one would wait for threads of the parent for ever."""
    for link in list(_links):
        made, link.made = link.made, None
        if made is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # never freed in this process


os.register_at_fork(after_in_child=_leave_to_parent)


class WritingLink(Link):
    """Producer that waits for acknowledgement of all messages."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, Producer, PRODUCER)
        self._failed: KafkaError | None = None

    def write(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Write messages (topic, value, key) in this order, and wait until the brokers have them.

        Raises:
            FabricUnavailableError: Some messages were not acknowledged within the time-out.
        """
        introduction = _NEW_PRODUCER_SECONDS if self.made is None else 0.0
        self.forget()
        self._failed = None
        end = time.monotonic() + self._cluster.timeout + introduction
        try:
            produce = self.handle().produce
            for topic, value, key in messages:
                try:
                    produce(topic, value, key, on_delivery=self._on_failure)
                except BufferError:  # its queue is full
                    self._flush(end)
                    produce(topic, value, key, on_delivery=self._on_failure)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise self.unavailable(error.args[0]) from error
                    # Raising would retry the event for ever and block later events.
                    logger.warning("An event of %d bytes is larger than Kafka allows, and is dropped.", len(value))
            self._flush(end)
        except FabricUnavailableError:
            self.handle().purge()  # or it would go on sending what the caller sends again
            self.handle().flush(0)
            self.drop_if_broken()
            raise
        except BaseException:
            self.drop()
            raise

    def _on_failure(self, error: KafkaError | None, _: object) -> None:
        if error is not None and error.code() not in _PURGED:  # those are of an earlier call
            self._failed = error

    def _flush(self, end: float) -> None:
        patience = time.monotonic() + _FIRST_TRY
        while self.handle().flush(max(min(end - time.monotonic(), SLICE), 0.0)):
            if time.monotonic() >= patience:
                self.check()
            if time.monotonic() >= end:
                raise self.unavailable()
        if self._failed is not None:
            raise self.unavailable(self._failed)


class Record(NamedTuple):
    """A message, or the information that the requested offset does not exist."""

    topic: str
    partition: int
    offset: int
    value: bytes
    is_trimmed: bool


class ReadingLink(Link):
    """Consumer with explicit assignments."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, Consumer, CONSUMER)
        self._ahead: list[Any] = []

    def serve(self) -> None:
        """See `Link.serve`; messages read meanwhile are kept."""
        message = self.handle().poll(0)
        if message is not None:
            self._ahead.append(message)

    def drop(self) -> None:
        """See `Link.drop`."""
        super().drop()
        self._ahead.clear()

    def assigned(self) -> set[Partition]:
        """Return the assigned partitions."""
        return {(one.topic, one.partition) for one in self.handle().assignment()}

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from the given offsets.

        Raises:
            FabricUnavailableError: The handle is broken.
        """
        wanted = [TopicPartition(name, number, offset) for (name, number), offset in offsets.items()]
        try:
            self.handle().assign(wanted)
        except KafkaException as error:
            raise self.unavailable(error.args[0]) from error
        self._ahead.clear()

    def take(self, seconds: float) -> list[Record]:
        """Return available records, and wait for the first one.

        Raises:
            FabricUnavailableError: The brokers deny reading.
        """
        messages, self._ahead = self._ahead, []
        if not messages:
            first = self.handle().poll(seconds)
            if first is None:
                return []
            messages = [first]
        try:
            messages += self.handle().consume(_READ_EVENTS, 0)
        except KafkaException as error:
            if all(message.error() for message in messages):  # else the next call says it again
                raise self.unavailable(error.args[0]) from error
        records = []
        forbidden = None
        for message in messages:
            trouble = message.error()
            if trouble is None or trouble.code() in _TRIMMED:
                value = b"" if trouble else message.value() or b""
                records.append(Record(message.topic(), message.partition(), message.offset(), value, bool(trouble)))
            elif trouble.code() in _FORBIDDEN:
                forbidden = trouble
            # Other troubles mend themselves; whether the brokers are there is asked when nothing comes.
        if forbidden is not None and not records:
            raise self.unavailable(forbidden)
        return records

    def partitions(self, name: str) -> list[int]:
        """Return the partitions of a topic; empty for a missing topic.

        Raises:
            FabricUnavailableError: The brokers did not answer, or denied permission.
        """
        metadata = self.ask(lambda seconds: self.handle().list_topics(name, timeout=seconds))
        topic = metadata.topics.get(name)
        if topic is None:
            raise self.unavailable()
        if topic.error is not None and topic.error.code() not in _ABSENT:
            raise self.unavailable(topic.error)
        return list(topic.partitions)

    def offsets(self, partitions: Sequence[Partition], which: int) -> dict[Partition, int]:
        """Return the `LOW` or `HIGH` offset of each partition, with one request per broker.

        Raises:
            FabricUnavailableError: A broker did not answer.
        """
        if not partitions:
            return {}
        wanted = [TopicPartition(name, partition, which) for name, partition in partitions]

        def question(seconds: float) -> dict[Partition, int]:
            answers = self.handle().offsets_for_times(wanted, timeout=seconds)
            for answer in answers:
                if answer.error is not None:
                    raise KafkaException(answer.error)
            return {(answer.topic, answer.partition): answer.offset for answer in answers}

        return self.ask(question)


def try_out(options: KafkaOptions) -> None:
    """Check the properties with handles that have no broker.

    Raises:
        FabricURLError: librdkafka rejects a property.
    """
    # A token would be asked for at once: what belongs to it shows when it is used.
    has_token = str(options.properties.get("sasl.mechanism", "")).upper() == "OAUTHBEARER"
    left_out = ("sasl.", "security.", "oauth") if has_token else ("bootstrap.",)
    kept = {name: value for name, value in options.properties.items() if not name.startswith(left_out)}
    for kind, own in ((Producer, PRODUCER), (Consumer, CONSUMER)):
        try:
            kind({**kept, "bootstrap.servers": "", **own}).close()
        except (KafkaException, TypeError, ValueError) as error:
            # Omit the error, which may quote a value, if the URL holds a secret.
            reason = f" ({error})" if redacted(options.url) == options.url else ""
            raise FabricURLError(
                f'fabric="{redacted(options.url)}" cannot be used{reason}. Write properties as librdkafka names them, '
                f"such as security.protocol=SASL_SSL."
            ) from None
