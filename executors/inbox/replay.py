"""What the fabric still knows of a pool's endpoints when the pool starts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from diaspora_parsl import events
from diaspora_parsl.core import stimuli
from diaspora_parsl.errors import FabricError
from diaspora_parsl.events import Event
from diaspora_parsl.events.signing import is_signed
from diaspora_parsl.fabric.base import Fabric

from .admission import spoken
from .control_requests import Requests, core_time, is_request

logger = logging.getLogger(__name__)

#: Seconds that the start of a pool may wait for the past to be read.
LIMIT: Final = 2.0
#: Seconds after which the loss of an endpoint is no news.
_RECENT: Final = 600.0
#: Seconds that such a loss makes suspect, unless results or heartbeats clear it before.
_LASTS: Final = 120.0


def replay(
    fabric: Fabric,
    pool: str,
    sites: Mapping[str, str],
    post: Callable[[stimuli.Stimulus], None],
    limit: float = LIMIT,
    *,
    key: str = "",
) -> bool:
    """Read what was said of the endpoints of a pool, and post what still holds; takes at most ``limit`` seconds.

    Endpoints that somebody lost lately, and nobody saw up since, are suspect. Windows that are not over, and drains and
    quarantines with an end to come, are followed; a drain without an end binds only the pools that were there.

    Args:
        fabric: of the pool.
        pool: its name.
        sites: site of each of its endpoints, by label.
        post: takes the stimuli.
        limit: seconds.
        key: with which requests are signed; without one, none is followed.

    Returns:
        False if the fabric did not answer in time; then nothing is posted.
    """
    found: list[Event] = []
    complete = threading.Event()

    def read() -> None:
        try:
            found.extend(_read(fabric, time.monotonic() + limit))
            complete.set()
        except FabricError as error:
            logger.info("Pool %s starts without what was said before: %s", pool, error)
        except Exception:
            logger.exception("Pool %s could not read what was said before", pool)

    # A transport may hang for longer than it was asked to.
    thread = threading.Thread(target=read, name=f"pool-{pool}-recall", daemon=True)
    thread.start()
    thread.join(limit)
    if not complete.is_set():
        if thread.is_alive():
            logger.warning("Pool %s starts without what was said before: it was not read in %.0f s", pool, limit)
        return False
    for stimulus in fold(found, pool, sites, key):
        post(stimulus)
    return True


def _read(fabric: Fabric, end: float) -> list[Event]:
    log = fabric.subscribe((events.TOPIC_ENDPOINT, events.TOPIC_CONTROL), "earliest")
    began = datetime.now(UTC).isoformat()[:19]
    found: list[Event] = []
    try:
        while batch := log.read(0.05):
            found += batch
            if all(event.time[:19] > began for event in batch):  # on a busy fabric there is always something
                break
            if time.monotonic() > end:
                raise FabricError(f"there is more than can be read in {LIMIT:.0f} s")
    finally:
        log.close()
    return found


def fold(found: Iterable[Event], pool: str, sites: Mapping[str, str], key: str) -> list[stimuli.Stimulus]:
    """What of all that still holds, as stimuli."""
    losses: dict[str, tuple[float, str, str]] = {}
    plans = _Plans(Requests(pool, sites))
    for event in sorted(found, key=lambda event: (event.time, event.sequence)):
        try:
            payload = event.payload()
            at = core_time(datetime.fromisoformat(event.time))
            if is_request(payload):
                if is_signed(event, key):
                    plans.note(payload, event, at)
                continue
        except (ValueError, OverflowError):
            continue  # somebody else's mistake, which the listener tells when it is new
        if not isinstance(payload, events.EndpointPayload) or sites.get(payload.endpoint) != payload.site:
            continue
        if isinstance(payload, events.EndpointDown):
            losses[payload.endpoint] = (at, event.source, payload.reason)
        elif isinstance(payload, events.EndpointUp):
            losses.pop(payload.endpoint, None)
    now = time.monotonic()
    rumours: list[stimuli.Stimulus] = []
    for label, (at, source, reason) in losses.items():
        if now - at < _RECENT:
            text = f"down {max(0.0, now - at):.0f} s before this pool started, and not seen up since: {spoken(reason)}"
            rumours.append(stimuli.PeerReport(now, label, spoken(source), text, _LASTS))
    return [*plans.in_force(now), *rumours]


class _Plans:
    """What was asked for, as far as it may still hold."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._orders: dict[tuple[type, str], stimuli.Drain | stimuli.Quarantine] = {}
        self._windows: dict[str, list[stimuli.Maintenance]] = {}

    def note(self, payload: events.Payload, event: Event, at: float) -> None:
        for asked in self._requests.stimuli(payload, "", event.source):
            match asked:
                case stimuli.Drain() | stimuli.Quarantine():
                    self._orders[type(asked), asked.endpoint] = asked
                case stimuli.Resume():
                    self._orders.pop((stimuli.Drain, asked.endpoint), None)
                    self._orders.pop((stimuli.Quarantine, asked.endpoint), None)
                    windows = self._windows.get(asked.endpoint, [])
                    self._windows[asked.endpoint] = [w for w in windows if w.start is not None and w.start > at]
                case stimuli.Maintenance(start=None):
                    self._windows.pop(asked.endpoint, None)
                case stimuli.Maintenance():
                    self._windows.setdefault(asked.endpoint, []).append(asked)

    def in_force(self, now: float) -> list[stimuli.Stimulus]:
        """Those that are not over."""
        windows = [window for plans in self._windows.values() for window in plans]
        return [
            *(window for window in windows if window.end is not None and window.end > now),
            *(order for order in self._orders.values() if order.until is not None and order.until > now),
        ]
