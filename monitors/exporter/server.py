"""The exporter: a run, or a whole fabric, as metrics for Prometheus and as spans for a tracing system."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server

from diaspora_parsl.errors import ConfigurationError

from .metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diaspora_parsl.events import Event

    from ..view.event_feed import EventFeed

#: Seconds that one read of the fabric waits.
_WAIT: Final = 0.5


class Exporter:
    """Reads a feed, and keeps what a scrape asks for. One thread.

    Args:
        feed: where events come from; the caller closes it.
        emit: Also receives every event, for spans.
    """

    def __init__(self, feed: EventFeed, emit: Callable[[Event], object] | None = None) -> None:
        self.metrics = Metrics()
        self._feed = feed
        self._emit = emit

    def run(self, wait: Callable[[float], str]) -> str:
        """Read until stopped; return the reason.

        Args:
            wait: sleeps for that many seconds or less; returns why to stop, or an empty string.
        """
        while not (reason := wait(0.0)):
            self.read(_WAIT)
            if self._feed.is_finished_run and self._feed.caught_up:
                reason = wait(_WAIT)  # nothing new will come, but may be asked for
            if reason:
                break
        return reason

    def read(self, timeout: float) -> None:
        """Take in what comes within that many seconds."""
        events = self._feed.read(timeout)
        # What was there before says nothing about now.
        self.metrics.apply(events, old=not self._feed.caught_up)
        self.metrics.is_up = self._feed.lost_since is None
        self.metrics.resyncs = self._feed.resyncs
        if self._emit is not None:
            for event in events:
                self._emit(event)


@contextlib.contextmanager
def served(metrics: Metrics, address: str, port: int) -> Iterator[int]:
    """Serve metrics over HTTP meanwhile; gives the port.

    Args:
        metrics: to be served.
        address: of the one interface to listen at.
        port: of it; 0 for any that is free.

    Raises:
        ConfigurationError: it cannot be listened to.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ConfigurationError(
            f"The exporter cannot listen at {address}:{port}: {error}. Give another --port."
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
