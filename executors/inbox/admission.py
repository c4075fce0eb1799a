"""Limits on what a publisher on the fabric can cost or change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from diaspora_parsl.events import Event
from diaspora_parsl.events.signing import is_signed

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats of one stream that count.
STREAM_PERIOD: Final = 0.05
#: Upper bound of the streams (nodes of blocks) of a pool.
MOST_STREAMS: Final = 20_000
#: Seconds of silence after which a stream makes room for others: two of the longest intervals.
_STREAM_LIFE: Final = 120.0
#: Events per second that a pool takes from its fabric; beyond, it steps aside.
MOST_PER_SECOND: Final = 20_000
#: Stimuli that may wait for the driver while a pool reads on; beyond, events wait in the fabric.
MOST_WAITING: Final = 1_000
#: Seconds of one pause. A longer one would look like a fabric that is not read.
_LONGEST_PAUSE: Final = 0.5
#: Factor on the time for which peer reports about an endpoint count: for that long, further ones are ignored.
_DEAF: Final = 4.0
#: Seconds for which a signed request is valid, so that it cannot be replayed later; clocks differ.
REQUEST_LIFE: Final = 300.0
_SHOWN: Final = 300


class Streams:
    """Selects the heartbeats that become stimuli."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._last: dict[tuple[str, str], float] = {}
        self._looked = float("-inf")

    def accepts_heartbeat(self, endpoint: str, stream: str, now: float) -> bool:
        """Return whether this heartbeat counts."""
        key = (endpoint, stream)
        last = self._last.get(key)
        if last is None and len(self._last) >= self._most:
            return False
        if last is not None and now - last < STREAM_PERIOD:
            return False
        self._last[key] = now
        return True

    def ended(self, endpoint: str, stream: str) -> bool:
        """Forget a stream that ended, and return whether it was known."""
        return self._last.pop((endpoint, stream), None) is not None

    def make_room(self, now: float) -> list[tuple[str, str]]:
        """Forget the silent streams if there are too many, and return them."""
        if len(self._last) < self._most or now - self._looked < _STREAM_LIFE / 4:
            return []
        self._looked = now
        logger.warning("More than %d nodes publish heartbeats; the pool forgets the silent ones.", self._most)
        old = [key for key, last in self._last.items() if now - last > _STREAM_LIFE]
        for key in old:
            del self._last[key]
        return old


class PeerReports:
    """Limits for how long a peer report about an endpoint counts.

    Without a limit, any publisher could keep an endpoint from work, and so from the results that clear it.

    Args:
        lasts: Seconds for which a report counts.
    """

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self._since: dict[str, float] = {}

    def counts_for(self, endpoint: str, now: float) -> float:
        """Seconds that a rumour about this endpoint counts; 0 if it does not."""
        since = self._since.get(endpoint)
        if since is None or now - since > self._lasts * (1 + _DEAF):
            since = self._since[endpoint] = now
        return max(0.0, since + self._lasts - now)


class Signed:
    """Which requests come from somebody who has the key, now, and for the first time.

    Args:
        key: of the run; without one, none does.
        clock: Unix time in seconds.
    """

    def __init__(self, key: str, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        self._seen: dict[tuple[str, str], float] = {}
        self._refused = 0

    def accepts(self, event: Event) -> bool:
        """Whether this request is to be followed."""
        why = self._objection(event)
        if why:
            self._refused += 1
            if self._refused == 1:
                logger.warning("A request (%s) from %s is not followed: %s. Further ones are only counted.",
                               spoken(event.type), spoken(event.source), why)  # fmt: skip
        return not why

    def _objection(self, event: Event) -> str:
        if not is_signed(event, self._key):
            return "it is not signed with the key of this run"
        now = self._clock()
        at = _unix(event.time)
        if at is None or abs(now - at) > REQUEST_LIFE:
            return f"it is of {spoken(event.time)}, and it is {datetime.fromtimestamp(now, UTC):%FT%TZ} here"
        self._seen = {key: until for key, until in self._seen.items() if until > now}
        if (event.source, event.id) in self._seen:
            return "it came before"
        self._seen[event.source, event.id] = now + 2 * REQUEST_LIFE
        return ""


class Throttle:
    """Pauses the reader of a flood, so that it takes neither the interpreter nor the mailbox of the driver.

    Args:
        most: Events per second.
        waiting: Returns the number of stimuli that wait for the driver.
        sleep: takes seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self, most: float = MOST_PER_SECOND, sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic, waiting: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._most = most
        self._waiting = waiting
        self._sleep = sleep
        self._clock = clock
        self._paid_until = float("-inf")

    def took(self, events: int) -> None:
        """Return when more events may be read after this number of them, within about half a second."""
        now = self._clock()
        self._paid_until = max(self._paid_until, now - 1.0) + events / self._most
        if self._paid_until > now:
            self._sleep(min(_LONGEST_PAUSE, self._paid_until - now))
        while self._waiting() > MOST_WAITING and self._clock() - now < _LONGEST_PAUSE:
            self._sleep(_LONGEST_PAUSE / 10)


def spoken(text: str) -> str:
    """Return foreign text as one short printable line."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def _unix(text: str) -> float | None:
    try:
        when = datetime.fromisoformat(text)
        return when.timestamp() if when.tzinfo else None
    except (ValueError, OverflowError):
        return None
