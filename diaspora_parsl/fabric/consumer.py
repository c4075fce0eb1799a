"""Background thread that reads a fabric, handles its outages and passes events to callbacks."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from diaspora_parsl.backoff import Backoff
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import Event
from diaspora_parsl.fabric.base import Fabric, Position, Subscription
from diaspora_parsl.fabric.dedup import Deduplicator

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 5.0


class Consumer:
    """Reads topics in a background thread, from ``position`` on, until `close`.

    Callbacks run in that thread, one at a time; their exceptions are logged and do not end the consumer. ``on_alive``
    follows every successful read, even without events. It proves that the fabric answered, so only it may advance a
    clock of suspicion.

    Args:
        fabric: Open fabric, which the caller closes; or a function that opens one, called in the background until it
            succeeds. The consumer closes that fabric.
        topics: Topics to read.
        on_events: Receives the new events, never an empty list.
        on_alive: Called after every successful read, after ``on_events``.
        on_down: Receives the first error of each outage.
        on_up: Called on the first successful read, and on the first one after each outage.
        on_resync: Called when unread events were trimmed; receives the number of times so far.
        position: Start position.
        skip_older: Drop events that arrive after a later one of the same source and topic, by sequence. (A restarted
            source counts from 1 and is recognized by its newer time.)
        wait: Seconds that one read waits for events.
    """

    def __init__(
        self,
        fabric: Fabric | Callable[[], Fabric],
        topics: Sequence[str],
        on_events: Callable[[list[Event]], object],
        *,
        on_alive: Callable[[], object] | None = None,
        on_down: Callable[[Exception], object] | None = None,
        on_up: Callable[[], object] | None = None,
        on_resync: Callable[[int], object] | None = None,
        position: Position = "latest",
        skip_older: bool = False,
        wait: float = 0.5,
    ) -> None:
        self._opener = fabric if not isinstance(fabric, Fabric) else None
        self._fabric = fabric if isinstance(fabric, Fabric) else None
        self._topics = tuple(topics)
        self._on_events = on_events
        self._on_alive = on_alive
        self._on_down = on_down
        self._on_up = on_up
        self._on_resync = on_resync
        self._position: Position = position
        self._skip_older = skip_older
        self._wait = wait
        self._seen = Deduplicator()
        self._newest: dict[tuple[str, str], tuple[int, str]] = {}
        self._older = 0
        self._resyncs = 0
        self._is_up = False
        self._was_down = False
        self._subscription: Subscription | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="diaspora-reader", daemon=True)
        self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether the last read succeeded."""
        return self._is_up

    @property
    def position(self) -> Position:
        """Position at which a later consumer continues; the given position until the first read succeeds."""
        return dict(self._subscription.position) if self._subscription else self._position

    @property
    def doubles(self) -> int:
        """Number of dropped duplicates."""
        return self._seen.doubles

    @property
    def older(self) -> int:
        """Number of events dropped because a later one of their source had arrived."""
        return self._older

    def close(self, timeout: float = 3.0) -> None:
        """End the thread, within ``timeout`` seconds; idempotent, callable from a callback."""
        self._ended.set()
        subscription = self._subscription
        if subscription is not None:
            subscription.close()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("The event consumer did not end within %.1f s; a callback may be stuck.", timeout)

    def _run(self) -> None:
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        try:
            while not self._ended.is_set():
                try:
                    events = self._subscribed().read(self._wait)
                except Exception as error:  # noqa: BLE001 - an opener or a transport may do anything
                    self._went_down(error)
                    self._ended.wait(backoff.next() * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                    continue
                if self._ended.is_set():
                    break
                backoff.reset()
                self._handle(events)
        finally:
            if self._subscription is not None:
                self._subscription.close()
            if self._opener is not None and self._fabric is not None:
                self._fabric.close()

    def _subscribed(self) -> Subscription:
        if self._subscription is None:
            if self._fabric is None and self._opener is not None:
                self._fabric = self._opener()
            if self._fabric is None:
                raise FabricUnavailableError("the opener returned no fabric")
            self._subscription = self._fabric.subscribe(self._topics, self._position)
        return self._subscription

    def _handle(self, events: list[Event]) -> None:
        if not self._is_up:
            self._is_up = True
            self._was_down = False
            if self._on_up:
                self._call(self._on_up)
        subscription = self._subscription
        if subscription is not None and subscription.resyncs != self._resyncs:
            self._resyncs = subscription.resyncs
            logger.warning("Events were trimmed before they were read (%d times so far).", self._resyncs)
            if self._on_resync:
                self._call(self._on_resync, self._resyncs)
        new = self._seen.drop_duplicates(events)
        if self._skip_older:
            new = [event for event in new if self._is_newer(event)]
        if new:
            self._call(self._on_events, new)
        if self._on_alive:
            self._call(self._on_alive)

    def _is_newer(self, event: Event) -> bool:
        key = (event.source, event.topic)  # topics have no order among each other
        sequence, when = self._newest.get(key, (-1, ""))
        if event.sequence <= sequence and event.time <= when:
            self._older += 1
            return False
        self._newest[key] = (event.sequence, event.time)
        return True

    def _went_down(self, error: Exception) -> None:
        if not isinstance(error, FabricUnavailableError):
            logger.error("Reading events failed unexpectedly", exc_info=error)
        if self._is_up or not self._was_down:
            self._is_up = False
            self._was_down = True
            logger.info("The event fabric does not answer: %s", error)
            if self._on_down:
                self._call(self._on_down, error)

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        started = time.monotonic()
        try:
            callback(*arguments)
        except Exception:
            logger.exception("A callback of the event consumer failed; the consumer continues.")
        if (took := time.monotonic() - started) > 1:
            logger.warning("A callback of the event consumer took %.1f s; events waited.", took)
