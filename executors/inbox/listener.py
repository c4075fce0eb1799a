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

#: What a pool reads: signs of life, what others say about endpoints, and what is asked of it.
TOPICS = (events.TOPIC_RESOURCE, events.TOPIC_ENDPOINT, events.TOPIC_CONTROL)


#: A read that brought more may not have come to the end of what there is.
_FEW: Final = 100


class Listener:
    """Turns what a `Reader` brings into stimuli; silence is measured on the local monotonic clock.

    Whoever may publish on the fabric may say what he likes, so everything here is advisory and bounded: only requests
    that are signed are followed, and no event of any kind ends or stops the pool.

    Args:
        sites: site of each endpoint of the pool, by label.
        own_source: of the pool's own events, which tell it nothing new.
        post: takes the stimuli.
        pool: name of the pool, for requests that name one.
        key: with which requests are signed; without one, none is followed.
        peer_report_time: seconds that what others say about an endpoint counts.
        secrets: what agents in blocks of an endpoint can know and others cannot, by label.
        waiting: returns how many stimuli wait for the driver.
        lost: takes an attempt whose worker died, and the node; called when an agent proved that it is in such a block.
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
        """New events were read."""
        now = time.monotonic()
        self._at_end = len(batch) <= _FEW
        for endpoint, stream in self._streams.make_room(now):
            self._post(stimuli.StreamEnded(now, endpoint, stream))
        for event in batch:
            if event.source == self._own_source:
                continue
            try:
                found = self._stimuli(event, now)
            except (ValueError, OverflowError):  # the latter of times that no calendar has
                self._malformed += 1
                if self._malformed == 1:
                    logger.warning("An event of type %s from %s is malformed; further ones are only counted.",
                                   spoken(event.type), spoken(event.source))  # fmt: skip
                continue
            for stimulus in found:
                self._post(stimulus)
        self._pace.took(len(batch))

    def on_alive(self) -> None:
        """The fabric answered just now; it was read to its end, unless that read brought a lot."""
        if self._at_end:
            self._post(stimuli.FabricPolled(time.monotonic()))
        self._at_end = True

    def _stimuli(self, event: Event, now: float) -> list[stimuli.Stimulus]:
        payload = event.payload()
        if is_request(payload):
            # Understood first: a request that makes no sense, or is for others, need not be signed to be passed over.
            asked = self._requests.stimuli(payload, event.id, event.source)
            return asked if asked and self._signed.accepts(event) else []
        match payload:
            case events.NodeHeartbeat() | events.NodeStopped() | events.WorkerDied():
                return self._of_node(payload, event, now) if self._is_ours(payload.endpoint, payload.site) else []
            case events.LinkDown() if not event.hops:
                told = map(spoken, (payload.from_site, payload.to_site, payload.bridge, payload.reason))
                logger.warning("No events from %s to %s, says the bridge %s: %s. Silence there says nothing.", *told)
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
            case events.NodeHeartbeat() if self._streams.heard(payload.endpoint, stream, now):
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
                # Only what is proven: a second attempt beside one that lives may do harm.
                if any(is_hmac_of(payload.proof, key, *about) for key in self._secrets(payload.endpoint)):
                    self._lost(payload.attempt, spoken(payload.node))
        return []

    def _is_ours(self, endpoint: str, site: str) -> bool:
        return endpoint in self._sites and site in {"", self._sites[endpoint]}
