"""One direction of a bridge: reads ahead, writes batches, and moves its cursor after delivery."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event
from diaspora_parsl.fabric.base import Fabric, Position, Subscription
from diaspora_parsl.fabric.bridge.config import LinkConfig
from diaspora_parsl.fabric.bridge.cursor_store import Cursor
from diaspora_parsl.fabric.bridge.filter import LinkFilter

#: Events per write; a slow network must transfer them within the time-out of the transport.
_SLICE: Final = 2_000
#: Largest number of waiting events in one batch.
_BATCH: Final = 5_000
#: Bytes of payloads in memory above which reading pauses.
_MOST_BYTES: Final = 64 * 1024 * 1024
#: Seconds between two writes of the cursor; events of that time are sent twice after a kill.
_SAVE_SECONDS: Final = 0.2
#: Seconds of outage after which a fabric is reopened, because not every client reconnects.
_REOPEN_SECONDS: Final = 5.0


class LinkStats(NamedTuple):
    """Counters and state of one link since it was opened."""

    from_site: str
    to_site: str
    reads: bool
    """Whether the last read succeeded."""
    writes: bool
    """Whether the last write succeeded."""
    read: int
    forwarded: int
    waiting: int
    refused: int
    thinned: int
    looped: int
    doubles: int
    resyncs: int
    malformed: int
    reason: str
    """Why it does not read or write; empty if both succeed."""

    @property
    def is_up(self) -> bool:
        """Whether both fabrics answer."""
        return self.reads and self.writes


class _Batch:
    """Events in order, and the position in the source after them."""

    def __init__(self, events: list[Event], position: dict[str, str]) -> None:
        self.events = events
        self.position = position
        self.sent = 0
        self.is_sending = False


def _bytes(events: list[Event]) -> int:
    return sum(len(event.data) for event in events)


class End:
    """One of the two fabrics of a link, opened on demand and reopened in long outages. One thread at a time.

    Args:
        opener: Opens the fabric.
        clock: Returns monotonic time in seconds.
    """

    def __init__(self, opener: Callable[[], Fabric], clock: Callable[[], float] = time.monotonic) -> None:
        self._opener = opener
        self._clock = clock
        self._fabric: Fabric | None = None
        self._away_since: float | None = None
        #: Whether the last operation succeeded; None before the first one.
        self.answers: bool | None = None
        #: Reason of the last failure.
        self.reason = ""

    def fabric(self) -> Fabric:
        """Return the open fabric.

        Raises:
            DiasporaParslError: The opener failed.
        """
        if self._fabric is None:
            self._fabric = self._opener()
        return self._fabric

    def answered(self) -> None:
        """Record a successful operation."""
        self.answers, self.reason, self._away_since = True, "", None

    def failed(self, error: Exception) -> bool:
        """Record a failed operation; return whether to reopen the fabric."""
        now = self._clock()
        self.answers, self.reason = False, str(error) or type(error).__name__
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < _REOPEN_SECONDS:
            return False
        self._away_since = now
        return True

    def close(self) -> None:
        """Close the fabric; the next call of `fabric` reopens it."""
        fabric, self._fabric = self._fabric, None
        if fabric is not None:
            fabric.close()


class Link:
    """Forwards events from one fabric to another, at least once and in order.

    One thread calls `fill` and another one `drain`; each waits at most its timeout and the time-out of the transport.
    Events that `drain` could not write are written again unchanged. The cursor moves after delivery, so a killed
    process loses no events.

    Args:
        config: Configuration of the link.
        source: Opens the source fabric.
        destination: Opens the destination fabric.
        cursor: Durable cursor of the link.
        clock: Returns monotonic time in seconds.
    """

    def __init__(
        self,
        config: LinkConfig,
        source: Callable[[], Fabric],
        destination: Callable[[], Fabric],
        cursor: Cursor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.source = End(source, clock)
        self.destination = End(destination, clock)
        self._cursor = cursor
        self._clock = clock
        self._filter = LinkFilter(config)
        self._subscription: Subscription | None = None
        self._position = cursor.position
        self._resyncs = self._malformed = 0
        self._read = self._forwarded = 0
        self._changed = threading.Condition()
        self._pending: deque[_Batch] = deque()
        self._held = self._held_bytes = 0
        self._reached: dict[str, str] | None = None
        self._saved_at = float("-inf")
        self._quiet = False
        self._is_closed = False

    # --- reading --------------------------------------------------------------------------------------------------

    def fill(self, timeout: float) -> int:
        """Read once if there is room; return the number of events read.

        Raises:
            Exception: The transport of the source failed; call again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._is_closed, timeout)
            if not self._has_room() or self._is_closed:
                return 0
        try:
            subscription = self._subscribed()
            events = subscription.read(timeout)
        except Exception as error:
            if self.source.failed(error):
                self._unsubscribe()
                self.source.close()
            raise
        self.source.answered()
        self._read += len(events)
        passed = self._filter.admit(events)
        position = dict(subscription.position)
        with self._changed:
            if position != self._position or passed:
                self._position = position
                self._append(passed, position)
            self._quiet = not events
            self._changed.notify_all()
        return len(events)

    def _subscribed(self) -> Subscription:
        if self._subscription is None:
            start: Position = self._position or ("latest" if self.config.start == "latest" else "earliest")
            try:
                self._subscription = self.source.fabric().subscribe(self.config.topics, start)
            except ConfigurationError as error:
                if not isinstance(start, dict):
                    raise
                raise ConfigurationError(
                    f"{self._cursor.path} was kept for another kind of fabric ({error}). Remove it to send all events "
                    "of the fabric, or write another state folder."
                ) from error
        return self._subscription

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._resyncs += subscription.resyncs
            self._malformed += subscription.malformed
            subscription.close()

    def _append(self, events: list[Event], position: dict[str, str]) -> None:
        last = self._pending[-1] if self._pending else None
        if last is None or last.is_sending or len(last.events) + len(events) > _BATCH:
            self._pending.append(_Batch(events, position))
        else:
            last.events += events
            last.position = position
        self._held += len(events)
        self._held_bytes += _bytes(events)

    def _has_room(self) -> bool:
        return self._held < self.config.read_ahead and self._held_bytes < _MOST_BYTES

    # --- writing --------------------------------------------------------------------------------------------------

    def drain(self, timeout: float) -> int:
        """Write the next events; return the number of events written.

        Raises:
            Exception: The transport of the destination failed, or `OSError`: the cursor cannot be written. Call again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closed, timeout)
            batch = self._pending[0] if self._pending else None
            if batch is not None:
                batch.is_sending = True  # retries write the batch unchanged
        if batch is None:
            self.save()
            return 0
        events = batch.events[batch.sent : batch.sent + _SLICE]
        if events:
            self._write(events)
            batch.sent += len(events)
            self._forwarded += len(events)
        if batch.sent == len(batch.events):
            with self._changed:
                self._pending.popleft()
                self._held -= len(batch.events)
                self._held_bytes -= _bytes(batch.events)
                self._reached = batch.position
                self._changed.notify_all()
            if self._clock() - self._saved_at >= _SAVE_SECONDS:
                self.save()
        return len(events)

    def _write(self, events: list[Event]) -> None:
        try:
            self.destination.fabric().publish(events)
        except Exception as error:
            if self.destination.failed(error):
                self.destination.close()
            raise
        self.destination.answered()

    def save(self) -> None:
        """Write the cursor if it moved.

        Raises:
            OSError: The file cannot be written.
        """
        reached = self._reached
        if reached is not None:
            self._cursor.save(reached)
            self._reached, self._saved_at = None, self._clock()

    # --- both -----------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether the last read returned no events and every earlier event was delivered."""
        with self._changed:
            return self._quiet and not self._pending

    def stats(self) -> LinkStats:
        """Return counters and state."""
        subscription, link_filter = self._subscription, self._filter
        ends = ((self.config.from_site, self.source), (self.config.to_site, self.destination))
        return LinkStats(
            from_site=self.config.from_site,
            to_site=self.config.to_site,
            reads=self.source.answers is True,
            writes=self.destination.answers is not False,
            read=self._read,
            forwarded=self._forwarded,
            waiting=self._held,
            refused=link_filter.refused,
            thinned=link_filter.thinned,
            looped=link_filter.looped,
            doubles=link_filter.doubles,
            resyncs=self._resyncs + (subscription.resyncs if subscription else 0),
            malformed=self._malformed + (subscription.malformed if subscription else 0),
            reason="; ".join(f"{site}: {end.reason}" for site, end in ends if end.answers is False),
        )

    def wake(self) -> None:
        """Make `fill` and `drain` return, and start no more work; callable from any thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        subscription = self._subscription
        if subscription is not None:
            subscription.close()

    def close(self) -> None:
        """Close both fabrics; call it after `fill` and `drain` ended."""
        self._unsubscribe()
        self.source.close()
        self.destination.close()
