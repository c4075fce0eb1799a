"""From events on the fabric to stimuli for the core."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from diaspora_parsl import events
from diaspora_parsl.core import settings, stimuli
from diaspora_parsl.events import Event
from diaspora_parsl.events.signing import is_hmac_of

from .admission import PeerReports, Signed, Streams, Throttle, spoken
from .control_requests import Requests, is_request

logger = logging.getLogger(__name__)

#: Topics of a pool: heartbeats, peer reports about endpoints, and requests.
TOPICS = (events.TOPIC_RESOURCE, events.TOPIC_ENDPOINT, events.TOPIC_CONTROL)


#: Events above which a read may not have reached the end of the log.
_FEW: Final = 100


class Listener:
    """Turns the events of a `Consumer` into stimuli; silence is measured on the local monotonic clock.

    Any process with access may publish anything, so every event is advisory and bounded: the pool follows only signed
    requests, and no event ends or stops it.

    Args:
        sites: Site of each endpoint of the pool, by label.
        own_source: Source of the pool's own events, which are skipped.
        post: Receives the stimuli.
        pool: Name of the pool, for requests that name one.
        key: Key that signs requests. Without one, the pool follows none.
        peer_report_time: Seconds for which a peer report about an endpoint counts.
        secrets: Returns the secrets that only agents in blocks of an endpoint know, by label.
        waiting: Returns the number of stimuli that wait for the driver.
        lost: Receives an attempt whose worker died, and the node, once an agent proved that it is in such a block.
    """

    def __init__(
        self,
        sites: dict[str, str],
        own_source: str,
        post: Callable[[stimuli.Stimulus], None],
        pool: str = "",
        *,
        key: str = "",
        peer_report_time: float = settings.PoolSettings().peer_report_time,
        secrets: Callable[[str], Collection[str]] = lambda _: (),
        lost: Callable[[int, str], None] = lambda *_: None,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._sites = sites
        self._own_source = own_source
        self._post = post
        self._secrets = secrets
        self._lost = lost
        self._requests = Requests(pool, sites)
        self._signed = Signed(key)
        self._streams = Streams()
        self._rumours = PeerReports(peer_report_time)
        self._pace = Throttle(waiting=waiting)
        self._malformed = 0
        self._at_end = True

    def on_events(self, batch: Collection[Event]) -> None:
        """Handle new events."""
        now = time.monotonic()
        self._at_end = len(batch) <= _FEW
        for endpoint, stream in self._streams.make_room(now):
            self._post(stimuli.StreamEnded(now, endpoint, stream))
        for event in batch:
            if event.source == self._own_source:
                continue
            try:
                found = self._stimuli(event, now)
            except (ValueError, OverflowError):  # OverflowError: a time outside the calendar
                self._malformed += 1
                if self._malformed == 1:
                    logger.warning("An event of type %s from %s is malformed; further ones are only counted.",
                                   spoken(event.type), spoken(event.source))  # fmt: skip
                continue
            for stimulus in found:
                self._post(stimulus)
        self._pace.took(len(batch))

    def on_alive(self) -> None:
        """Post that the fabric answered and was read to its end, unless the last read was long."""
        if self._at_end:
            self._post(stimuli.FabricPolled(time.monotonic()))
        self._at_end = True

    def _stimuli(self, event: Event, now: float) -> list[stimuli.Stimulus]:
        payload = event.payload()
        if is_request(payload):
            # Parsed first: an invalid request, or one for another pool, is skipped whether or not it is signed.
            asked = self._requests.stimuli(payload, event.id, event.source)
            return asked if asked and self._signed.accepts(event) else []
        match payload:
            case events.NodeHeartbeat() | events.NodeStopped() | events.WorkerDied():
                return self._of_node(payload, event, now) if self._is_ours(payload.endpoint, payload.site) else []
            case events.LinkDown() if not event.hops:
                words = map(spoken, (payload.from_site, payload.to_site, payload.bridge, payload.reason))
                logger.warning(
                    "No events arrive from %s at %s, reports the bridge %s: %s. Silence there is no evidence.",
                    *words,
                )
            case events.LinkStatus() if payload.reads:
                return [stimuli.BridgePolled(now, payload.from_site, min(60.0, max(0.05, payload.interval)))]
            case events.EndpointDown() | events.EndpointSuspect() if self._is_ours(payload.endpoint, payload.site):
                lasts = self._rumours.counts_for(payload.endpoint, now)
                if lasts > 0:
                    source, reason = spoken(event.source), spoken(payload.reason)
                    return [stimuli.PeerReport(now, payload.endpoint, source, reason, lasts)]
        return []

    def _of_node(
        self, payload: events.NodeHeartbeat | events.NodeStopped | events.WorkerDied, event: Event, now: float
    ) -> list[stimuli.Stimulus]:
        stream = f"{payload.block}/{payload.node}"
        match payload:
            case events.NodeHeartbeat() if self._streams.accepts_heartbeat(payload.endpoint, stream, now):
                via_site = (event.originsite or "") if event.hops else ""
                return [
                    stimuli.HeartbeatReceived(
                        now, payload.endpoint, stream, min(60.0, max(0.05, payload.interval)), via_site
                    )
                ]
            case events.NodeStopped() if self._streams.ended(payload.endpoint, stream):
                return [stimuli.StreamEnded(now, payload.endpoint, stream)]
            case events.WorkerDied() if payload.attempt:
                about = (payload.endpoint, payload.pid, payload.attempt)
                # Only with proof: a second attempt beside one that lives may do harm.
                if any(is_hmac_of(payload.proof, key, *about) for key in self._secrets(payload.endpoint)):
                    self._lost(payload.attempt, spoken(payload.node))
        return []

    def _is_ours(self, endpoint: str, site: str) -> bool:
        return endpoint in self._sites and site in {"", self._sites[endpoint]}
