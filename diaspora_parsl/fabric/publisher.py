"""Publisher that never blocks the workflow and never raises into it."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from diaspora_parsl.backoff import Backoff
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event, FabricDropped, Payload
from diaspora_parsl.fabric.base import Fabric, redacted
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.outbox import DEFAULT_MAX_BYTES, Outbox

logger = logging.getLogger(__name__)

_BATCH: Final = 1000
#: Events per second from which the thread waits to collect a batch; below it, every event is sent immediately.
_BUSY_RATE: Final = 1000
_RATE_SECONDS: Final = 0.02
_POLL_SECONDS: Final = 0.005
#: Events per second from which it waits longer, because a batch costs a transport more than an event.
_BURST_RATE: Final = 2000
_BURST_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 0.5
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 5.0

_Item: TypeAlias = tuple[Payload, str, str, float]


class PublisherStats(NamedTuple):
    """Counters of the events of one publisher."""

    emitted: int
    published: int
    waiting: int
    """Events in the queue, in transmission or in the outbox."""
    dropped_state_changes: int
    dropped_samples: int
    broken: int
    """Number of payloads that could not be encoded."""
    outages: int
    is_connected: bool


class Publisher:
    """Publishes events from a background thread, with an outbox for outages of the fabric.

    During an outage events wait in the outbox; they are sent first, in order, when the fabric answers again. Delivery
    is at-least-once. A full queue drops resource samples first; dropped events are counted and published as
    `FabricDropped`. In a forked child the publisher ignores events.

    Args:
        fabric: Open fabric, which the caller closes; or a function that opens one, called in the background until it
            succeeds. The publisher closes that fabric.
        source: Source of every event, ``/site/pool/endpoint/run``.
        originsite: Site of origin, for bridges.
        outbox_path: File on node-local disk; None to keep events in memory only.
        outbox_max_bytes: Largest total size of the events in the outbox, bytes.
        clock: Returns Unix time in seconds.
        capacity: Largest number of samples in the queue; the limit of state changes is ten times as large.
        gather: Seconds to collect a batch before it is sent; 0 sends immediately at low rates. A larger value costs
            less per event, but a killed process loses the collected events.

    Raises:
        ConfigurationError: The source is empty, or the capacity is below 1.
    """

    def __init__(
        self,
        fabric: Fabric | Callable[[], Fabric],
        *,
        source: str,
        originsite: str = "",
        outbox_path: str | Path | None = None,
        outbox_max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.time,
        capacity: int = 10_000,
        gather: float = 0.0,
    ) -> None:
        if not source or capacity < 1:
            raise ConfigurationError(
                f"source={source!r}, capacity={capacity}: write a source such as '/site/pool' and a capacity of 1 or "
                "more."
            )
        self._opener = fabric if not isinstance(fabric, Fabric) else None
        self._fabric = fabric if isinstance(fabric, Fabric) else None
        self._clock = clock
        self._capacity = capacity
        self._gather = gather
        self._builder = EventBuilder(source, originsite)
        self._outbox: Outbox | None = None
        self._outbox_path = Path(outbox_path) if outbox_path else None
        self._outbox_max_bytes = outbox_max_bytes
        self._queue: deque[_Item] = deque()
        self._pid = os.getpid()
        # The lock is held while the thread is idle; releasing it wakes the thread. A release never blocks, not even in
        # a signal handler, and costs 0.1 µs; `threading.Event.set` acquires another lock.
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._is_idle = False
        self._rate = 0.0
        self._rated = (time.monotonic(), 0)
        self._closing_at = 0.0
        self._is_closed = False
        self._connected = False
        self._published = self._broken = self._outages = self._taken = 0
        self._overflow_states = self._overflow_samples = 0
        self._reported = (0, 0)
        self._sending = 0
        self._retry_at = 0.0
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        _publishers.add(self)
        self._thread = threading.Thread(target=self._run, name="diaspora-publisher", daemon=True)
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the last attempt to publish succeeded."""
        return self._connected

    def stats(self) -> PublisherStats:
        """Return the counters; they are exact while nothing is emitted."""
        outbox = self._outbox
        states, samples = self._dropped()
        return PublisherStats(
            emitted=self._taken + len(self._queue) + self._overflow_states + self._overflow_samples,
            published=self._published,
            waiting=len(self._queue) + self._sending + (len(outbox) if outbox else 0),
            dropped_state_changes=states,
            dropped_samples=samples,
            broken=self._broken,
            outages=self._outages,
            is_connected=self._connected,
        )

    def emit(self, payload: Payload, subject: str, key: str = "") -> None:
        """Publish soon. Never blocks, never raises; callable from any thread.

        Args:
            payload: Payload of the event.
            subject: Id of the task or endpoint.
            key: Partition key, within which order is kept; the subject if empty.
        """
        queue = self._queue
        if len(queue) >= self._capacity and not self._has_room(payload):
            return
        queue.append((payload, subject, key, self._clock()))
        if self._is_idle:
            self._wake()

    def _wake(self) -> None:
        self._is_idle = False
        try:
            self._wakeup.release()
        except RuntimeError:
            return  # already awake

    def _has_room(self, payload: Payload) -> bool:
        if self._is_closed:
            pass
        elif payload.is_state_change and len(self._queue) < self._capacity * 10:
            return True
        if payload.is_state_change:
            self._overflow_states += 1
        else:
            self._overflow_samples += 1
        return False

    def close(self, timeout: float = 2.0) -> None:
        """Send waiting events for at most ``timeout`` seconds; the rest stays in the outbox file. Idempotent."""
        if self._pid != os.getpid() or self._is_closed:
            return
        self._is_closed = True
        self._capacity = 0  # from here on, `emit` only counts
        self._closing_at = time.monotonic() + timeout
        self._wake()
        self._thread.join(timeout)
        _publishers.discard(self)
        if self._thread.is_alive():
            logger.warning("The event publisher did not end within %.1f s; %d events wait.", timeout, len(self._queue))
        states, samples = self._dropped()
        if states or samples:
            level = logging.WARNING if states else logging.INFO  # a sample has a successor, a state change has not
            logger.log(level, "%d state changes and %d resource samples were not published.", states, samples)

    def silence(self) -> None:
        """In a forked child: release the queue, outbox and connection of the parent."""
        if self._outbox is not None:
            self._outbox.leave_to_parent()
        self._queue = deque()
        self._connected = False
        self._is_closed = True
        self._capacity = 0

    # --- the background thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._outbox = Outbox(self._outbox_path, self._outbox_max_bytes)
            while not self._closing_at:
                self._work()
                self._wait()
            self._finish()
        except Exception:
            logger.exception("The event publisher stopped; the run continues without events.")
            self._connected = False
            self._capacity = 0
            self._is_closed = True
        finally:
            if self._outbox is not None:
                self._outbox.close()
            if self._opener is not None and self._fabric is not None:
                self._fabric.close()

    def _wait(self) -> None:
        now = time.monotonic()
        then, taken = self._rated
        if now - then >= _RATE_SECONDS:
            self._rate = (self._taken - taken) / (now - then)
            self._rated = (now, self._taken)
        if self._closing_at:
            return
        if self._rate >= _BUSY_RATE:
            # Poll at high rates: a wake-up per event costs the emitter 10 to 30 µs, because the woken thread competes
            # for the GIL. At low rates a wake-up is worth its cost, because it shortens the delay.
            time.sleep(max(self._gather, _BURST_SECONDS if self._rate >= _BURST_RATE else _POLL_SECONDS))
            return
        if self._outages and not self._connected and self._has_work():
            time.sleep(min(_BURST_SECONDS, max(0.001, self._retry_at - now)))
            return
        self._is_idle = True
        if not self._queue and not self._closing_at:
            self._wakeup.acquire(timeout=_IDLE_SECONDS)
        self._is_idle = False
        if self._gather and self._queue and not self._closing_at:
            time.sleep(self._gather)

    def _has_work(self) -> bool:
        return bool(self._queue or self._outbox or self._dropped() != self._reported or self._fabric is None)

    def _work(self) -> None:
        """Send all events, or store them during an outage."""
        outbox = self._outbox
        if outbox is None:
            return
        may_try = self._connected or time.monotonic() >= self._retry_at
        if self._outages and not self._connected:  # an attempt may hang and the process may be killed
            self._keep_all(outbox)
        while True:
            if may_try and (outbox or self._fabric is None) and not self._send_kept(outbox):
                may_try = False
            if not (events := self._take()):
                break
            if not may_try or self._is_over() or not self._send(events):
                may_try = False
                outbox.keep(events)
            self._sending = 0
            self._spill(outbox)
        if self._connected:
            self._report_drops()

    def _send_kept(self, outbox: Outbox) -> bool:
        """Send the outbox, oldest first; return whether it is empty."""
        while events := outbox.peek(_BATCH):
            if not self._send(events):
                return False
            outbox.forget(len(events))
            self._spill(outbox)
            if self._is_over():
                return False
        return self._fabric is not None or self._send([])

    def _spill(self, outbox: Outbox) -> None:
        """Move a full queue to the outbox if the fabric is slower than the emitters."""
        if len(self._queue) >= self._capacity > 0:
            self._keep_all(outbox)

    def _keep_all(self, outbox: Outbox) -> None:
        while events := self._take():
            outbox.keep(events)
            self._sending = 0

    def _take(self) -> list[Event]:
        events: list[Event] = []
        queue = self._queue
        while queue and len(events) < _BATCH:
            payload, subject, key, now = queue.popleft()
            self._taken += 1
            try:
                events.append(self._builder.wrap(payload, subject, key, now))
            except Exception:
                self._broken += 1
                if self._broken == 1:
                    logger.exception("A %s cannot be published; more of this kind are only counted.", type(payload))
            self._sending = len(events)
        return events

    def _send(self, events: list[Event]) -> bool:
        try:
            if self._fabric is None and self._opener is not None:
                self._fabric = self._opener()
            if self._fabric is not None:
                self._fabric.publish(events)
        except Exception as error:  # noqa: BLE001 - a transport or an opener may raise anything
            self._went_down(error)
            return False
        if not events:
            return True
        if not self._connected:
            self._came_up()
        self._published += len(events)
        return True

    def _went_down(self, error: Exception) -> None:
        if self._connected or not self._outages:
            self._outages += 1
            self._backoff.reset()
            if self._outages == 1 and self._outbox is not None:
                logger.warning(
                    "The event fabric does not answer: %s. The run continues; events are stored in %s and sent when it "
                    "answers.",
                    error,
                    self._outbox.where,
                )
            else:
                logger.info("The event fabric is unavailable again: %s", error)
        self._connected = False
        # Jitter keeps the publishers of a pool from retrying at the same time.
        self._retry_at = time.monotonic() + self._backoff.next() * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _came_up(self) -> None:
        self._connected = True
        self._backoff.reset()
        if self._outages and self._fabric is not None:
            logger.info("The event fabric %s answers again.", redacted(self._fabric.url))

    def _dropped(self) -> tuple[int, int]:
        outbox = self._outbox
        kept = (outbox.dropped_state_changes, outbox.dropped_samples) if outbox is not None else (0, 0)
        return self._overflow_states + kept[0], self._overflow_samples + kept[1]

    def _report_drops(self) -> None:
        states, samples = self._dropped()
        if (states, samples) == self._reported:
            return
        payload = FabricDropped(
            state_changes=states - self._reported[0],
            samples=samples - self._reported[1],
        )
        if self._send([self._builder.wrap(payload, "fabric", "", self._clock())]):
            self._reported = (states, samples)

    def _is_over(self) -> bool:
        return bool(self._closing_at) and time.monotonic() >= self._closing_at

    def _finish(self) -> None:
        """Make a last attempt regardless of the backoff; store the rest."""
        outbox = self._outbox
        if outbox is None:
            return
        self._retry_at = 0.0
        if not self._is_over():
            self._work()
        self._keep_all(outbox)


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for publisher in list(_publishers):
        publisher.silence()
    _publishers.clear()


def _at_exit() -> None:
    for publisher in list(_publishers):
        publisher.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
