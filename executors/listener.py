"""From events on the fabric to stimuli for the core."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from diaspora_parsl import events
from diaspora_parsl.events import Event
from diaspora_parsl.executors.requests import Requests
from diaspora_parsl.fabric.proof import is_proof
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
        secrets: what agents in blocks of an endpoint can know and others cannot, by label.
        lost: takes an attempt whose worker died, and the node; called when an agent proved that it is in such a block.
    """

    def __init__(
        self,
        sites: dict[str, str],
        own_source: str,
        post: Callable[[words.Stimulus], None],
        pool: str = "",
        *,
        secrets: Callable[[str], Collection[str]] = lambda _: (),
        lost: Callable[[int, str], None] = lambda *_: None,
    ) -> None:
        self._sites = sites
        self._own_source = own_source
        self._post = post
        self._secrets = secrets
        self._lost = lost
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
            stimulus = self._stimulus(payload, event.source, now)
            if stimulus is not None:
                self._post(stimulus)

    def on_alive(self) -> None:
        """The fabric was read to its end just now."""
        self._post(words.FabricSeen(time.monotonic()))

    def _stimulus(self, payload: events.Payload | None, source: str, now: float) -> words.Stimulus | None:
        if isinstance(payload, events.NodeHeartbeat) and self._is_ours(payload.endpoint, payload.site):
            interval = min(60.0, max(0.05, payload.interval))
            return words.Heard(now, payload.endpoint, f"{payload.block}/{payload.node}", interval)
        if isinstance(payload, events.NodeStopped) and self._is_ours(payload.endpoint, payload.site):
            return words.Hushed(now, payload.endpoint, f"{payload.block}/{payload.node}")
        if isinstance(payload, events.WorkerDied) and self._is_ours(payload.endpoint, payload.site):
            about = (payload.endpoint, payload.pid, payload.attempt)
            # Only what is proven: a second attempt beside one that lives may do harm.
            if payload.attempt and any(is_proof(payload.proof, key, *about) for key in self._secrets(payload.endpoint)):
                self._lost(payload.attempt, payload.node)
            return None
        if isinstance(payload, events.EndpointDown | events.EndpointSuspect) and self._is_ours(
            payload.endpoint, payload.site
        ):
            return words.Rumour(now, payload.endpoint, source, payload.reason)
        return None

    def _is_ours(self, endpoint: str, site: str) -> bool:
        return endpoint in self._sites and site in {"", self._sites[endpoint]}
