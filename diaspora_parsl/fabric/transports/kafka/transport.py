"""Kafka transport: one Kafka topic per topic, one message per event."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import Event, encode
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.kafka.client import Cluster, WritingLink, try_out
from diaspora_parsl.fabric.transports.kafka.consumer import KafkaSubscription
from diaspora_parsl.fabric.transports.kafka.options import parse


class KafkaFabric:
    """``kafka://[user:password@]host:port[,host:port]/prefix``: the topics of Kafka are named ``prefix.topic``.

    Every event is one message in CloudEvents' structured mode, its key the ``partitionkey``. Options in the URL:
    ``timeout`` (seconds until silent brokers count as gone, default 5), ``partitions`` and ``replication`` (of topics
    that are created here; default 1, and what the broker says), ``create=false`` (create none), and every property of
    librdkafka, such as ``security.protocol=SSL`` or ``ssl.ca.location=/path/ca.pem``.

    Args:
        url: URL as above.
        config: Properties of librdkafka that override the URL; may hold objects such as ``oauth_cb``.

    Raises:
        FabricURLError: The URL or the mapping is invalid. The brokers are contacted later.
    """

    def __init__(self, url: str, config: Mapping[str, Any] | None = None) -> None:
        options = parse(url, config)
        try_out(options)
        self._use(Cluster(options))

    def _use(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._link = WritingLink(cluster)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._subscriptions: list[KafkaSubscription] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self.url)}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`; without the mapping."""
        return self._cluster.url

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._pid != os.getpid():  # forked: another thread may have held the lock
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            yield

    def _refuse_closed(self) -> None:
        if self._closed:
            raise FabricUnavailableError(f"{redacted(self.url)} was closed")

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`; oversized events are logged and dropped.

        Raises:
            FabricUnavailableError: Some events were not acknowledged within the time-out, or the fabric is closed.
        """
        if not events:
            return
        names = {event.topic: self._cluster.name(event.topic) for event in events}
        with self._alone():
            self._refuse_closed()
            self._cluster.ensure(names)
            self._link.write((names[event.topic], encode(event), event.partitionkey) for event in events)

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> KafkaSubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        Raises:
            ConfigurationError: The position holds a cursor of another transport.
            FabricUnavailableError: "latest" could not be asked for now, or the fabric was closed.
        """
        self._refuse_closed()
        subscription = KafkaSubscription(self._cluster, topics, position)
        self._subscriptions = [one for one in self._subscriptions if not one.is_closed] + [subscription]
        return subscription

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; subscriptions opened here are closed too."""
        for subscription in self._subscriptions:
            subscription.close()
        with self._alone():
            self._closed = True
            self._link.drop()


def open_url(url: str, run_dir: Path) -> KafkaFabric:  # noqa: ARG001 - signature of all transports
    """Open ``kafka://[user:password@]host:port[,host:port]/prefix``; the brokers are contacted later.

    Raises:
        FabricURLError: The URL is invalid; the message hides its password.
    """
    return KafkaFabric(url)
