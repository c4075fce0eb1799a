"""From events on the fabric to stimuli for the core."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from diaspora_parsl import events
from diaspora_parsl.events import Event
from diaspora_parsl.executors.requests import Requests
from diaspora_parsl.pool import words

logger = logging.getLogger(__name__)

#: What a pool reads: signs of life, what others say about endpoints, and what is asked of it.
TOPICS = (events.TOPIC_RESOURCE, events.TOPIC_ENDPOINT, events.TOPIC_CONTROL)


class Listener:
    """Turns what a `Reader` brings into stimuli; silence is measured on the local monotonic clock.

    Args:
        sites: site of each endpoint of the pool, by label.
        own_source: of the pool's own events, which tell it nothing new.
        post: takes the stimuli.
        pool: name of the pool, for requests that name one.
    """

    def __init__(
        self, sites: dict[str, str], own_source: str, post: Callable[[words.Stimulus], None], pool: str = ""
    ) -> None:
        self._sites = sites
        self._own_source = own_source
        self._post = post
        self._requests = Requests(pool, sites)
        self._malformed = 0

    def on_events(self, batch: Collection[Event]) -> None:
        """New events were read."""
        now = time.monotonic()
        for event in batch:
            if event.source == self._own_source:
                continue
            try:
                payload = event.payload()
                if payload is not None and event.topic == events.TOPIC_CONTROL:
                    for request in self._requests.stimuli(payload, event.id, event.source):
                        self._post(request)
                    continue
            except ValueError:
                self._malformed += 1
                if self._malformed == 1:
                    logger.warning("An event of type %s from %s is malformed; further ones are only counted.",
                                   event.type, event.source)  # fmt: skip
                continue
            stimulus = self._stimulus(payload, event, now)
            if stimulus is not None:
                self._post(stimulus)

    def on_alive(self) -> None:
        """The fabric was read to its end just now."""
        self._post(words.FabricSeen(time.monotonic()))

    def _stimulus(self, payload: events.Payload | None, event: Event, now: float) -> words.Stimulus | None:
        if isinstance(payload, events.NodeHeartbeat) and self._is_ours(payload.endpoint, payload.site):
            interval = min(60.0, max(0.05, payload.interval))
            way = (event.originsite or "") if event.hops else ""
            return words.Heard(now, payload.endpoint, f"{payload.block}/{payload.node}", interval, way)
        if isinstance(payload, events.LinkDown) and not event.hops:
            logger.warning("No events from %s to %s: the bridge %s says %s. Silence of endpoints there says nothing.",
                           payload.from_site, payload.to_site, payload.bridge, payload.reason)  # fmt: skip
        if isinstance(payload, events.LinkStatus) and payload.reads:
            return words.WaySeen(now, payload.from_site, min(60.0, max(0.05, payload.interval)))
        if isinstance(payload, events.NodeStopped) and self._is_ours(payload.endpoint, payload.site):
            return words.Hushed(now, payload.endpoint, f"{payload.block}/{payload.node}")
        if isinstance(payload, events.EndpointDown | events.EndpointSuspect) and self._is_ours(
            payload.endpoint, payload.site
        ):
            return words.Rumour(now, payload.endpoint, event.source, payload.reason)
        return None

    def _is_ours(self, endpoint: str, site: str) -> bool:
        return endpoint in self._sites and site in {"", self._sites[endpoint]}
