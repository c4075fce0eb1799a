"""All events of a fabric, from the first one kept, across its outages."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from diaspora_parsl.errors import DiasporaParslError, FabricError
from diaspora_parsl.events import TOPICS, Event
from diaspora_parsl.fabric.base import Fabric, Position, Subscription, open_fabric

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds of outage after which the address is asked for again: a restarted server may have another one.
REOPEN_AFTER: Final = 3.0
#: Seconds of outage after which a run that left nothing but its data is taken for over, though it said no goodbye.
OVER_AFTER: Final = 15.0
_PAUSE: Final = 0.3


def is_finished_run(url: str) -> bool:
    """True for the kept data of a finished run: nothing will be added to it."""
    return url.startswith("embedded:///")


class EventFeed:
    """Reads everything, then goes on reading. One thread.

    Args:
        find: gives the address of the fabric; asked again when the fabric stays away.
        opener: opens an address.

    Raises:
        DiasporaParslError: there is no such fabric.
    """

    def __init__(self, find: Callable[[], str], opener: Callable[[str], Fabric] = open_fabric) -> None:
        self._find = find
        self._opener = opener
        self._position: Position = "earliest"
        self._fabric: Fabric | None = None
        self._subscription: Subscription | None = None
        self._reopened = 0.0
        self._opened_at = datetime.now(UTC).isoformat()[:19]
        self._earlier_resyncs = 0
        self.url = find()
        #: Monotonic time since which the fabric does not answer; None while it does.
        self.lost_since: float | None = None
        #: True once everything that was there has been read.
        self.caught_up = False
        self.last_error = ""
        self._only_data = False
        self._has_read = False

    @property
    def resyncs(self) -> int:
        """Times that events were trimmed away before they were read."""
        return self._earlier_resyncs + (self._subscription.resyncs if self._subscription else 0)

    @property
    def is_finished_run(self) -> bool:
        """True if nothing will be added to what is read."""
        return is_finished_run(self.url)

    @property
    def is_over(self) -> bool:
        """True if the fabric is gone, for good as it seems."""
        lost = self.lost_since
        return lost is not None and self._only_data and time.monotonic() - lost > OVER_AFTER

    def read(self, timeout: float) -> list[Event]:
        """Wait for the next events; an outage is noted in `lost_since`, not raised."""
        try:
            events = self._opened().read(timeout)
        except FabricError as error:
            self._lost(error)
            time.sleep(min(timeout, _PAUSE))
            return []
        self.lost_since, self._only_data = None, False
        self._has_read = self._has_read or bool(events)
        # On a busy fabric there is always something to read: nothing but new events means the same. To the second, as
        # fractions may be written in any length.
        if all(event.time[:19] > self._opened_at for event in events):
            self.caught_up = True
        return events

    def close(self) -> None:
        """Let go of the fabric; idempotent."""
        if self._subscription:
            self._earlier_resyncs += self._subscription.resyncs
            self._position = dict(self._subscription.position) or self._position
            self._subscription.close()
            self._subscription = None
        if self._fabric:
            self._fabric.close()
            self._fabric = None

    def _opened(self) -> Subscription:
        if self._subscription is None:
            self._reopened = time.monotonic()
            self._fabric = self._fabric or self._opener(self.url)
            self._subscription = self._fabric.subscribe(TOPICS, self._position)
        return self._subscription

    def _lost(self, error: FabricError) -> None:
        now = time.monotonic()
        self.last_error = str(error)
        # What comes after an outage may have waited for long: it says nothing about now.
        self.caught_up = False
        self.lost_since = now if self.lost_since is None else self.lost_since
        if now - max(self.lost_since, self._reopened) < REOPEN_AFTER or self.is_finished_run:
            return
        self._reopened = now
        try:
            url = self._find()
        except DiasporaParslError as missing:  # not found again yet: the known address stays
            self.last_error = str(missing)
            return
        # A live run whose server is just being restarted, or hangs, looks like one that left only its data.
        self._only_data = is_finished_run(url)
        if not self._only_data or not self._has_read:  # a run that ended before it was seen is read from its data
            self.close()
            self.url = url
