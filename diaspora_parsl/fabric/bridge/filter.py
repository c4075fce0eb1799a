"""Filtering and marking of the events of a link, without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, Raw, structs

from diaspora_parsl.events import Event, LinkStatus, NodeHeartbeat
from diaspora_parsl.fabric.bridge.config import LinkConfig
from diaspora_parsl.fabric.dedup import Deduplicator

#: Number of events that a link remembers to drop duplicates.
_SEEN: Final = 50_000
#: Number of sample sources that a link remembers.
_SOURCES: Final = 50_000
#: Share of the interval by which a sample may arrive early, because senders are not punctual.
_EARLY: Final = 0.05
#: Event types with an ``interval``, after which the next one is due.
_WITH_INTERVAL: Final = frozenset({NodeHeartbeat.event_type(), LinkStatus.event_type()})
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encoder: Final = msgspec.json.Encoder()


class LinkFilter:
    """Selects and marks the events of one link, by their own attributes. One thread at a time.

    Loop protection: an event never goes to its site of origin (``originsite``) or back to its previous fabric
    (``viasite``), and crosses at most ``max_hops`` bridges (``hops``). In a tree the second rule is sufficient.

    Args:
        link: Configuration of the link.
    """

    def __init__(self, link: LinkConfig) -> None:
        self._link = link
        self._seen = Deduplicator(_SEEN)
        self._young: dict[tuple[str, str, str], float] = {}
        self._old: dict[tuple[str, str, str], float] = {}
        self.refused = self.thinned = self.looped = 0

    @property
    def doubles(self) -> int:
        """Number of dropped duplicates."""
        return self._seen.doubles

    def admit(self, events: Iterable[Event]) -> list[Event]:
        """Return the events to forward, marked, in order."""
        link, taken = self._link, []
        here, there, most, topics = link.from_site, link.to_site, link.max_hops, frozenset(link.topics)
        for event in self._seen.drop_duplicates(events):
            hops = 0 if event.hops is UNSET else max(0, event.hops)
            # Check the topic of the event type, because it decides where the event is written.
            if event.topic not in topics:
                self.refused += 1
            elif there in (event.originsite, event.viasite) or hops >= most:
                self.looped += 1
            elif event.is_state_change or not link.sample_seconds or self._is_due(event):
                # A publisher may set any origin, so the first bridge replaces it with the name of its fabric.
                origin = event.originsite if hops else here
                taken.append(self._marked(event, origin or here, hops + 1))
        return taken

    def _marked(self, event: Event, origin: str, hops: int) -> Event:
        data = event.data
        if self._link.sample_seconds and event.type in _WITH_INTERVAL:
            data = self._with_longer_interval(data)
        # Replace attributes only, so that attributes of later versions are forwarded too.
        return structs.replace(event, data=data, originsite=origin, viasite=self._link.from_site, hops=hops)

    def _is_due(self, event: Event) -> bool:
        """Compare the event's own time, so that a backlog is sampled like live events."""
        key = (event.source, event.type, event.subject)
        try:
            now = datetime.fromisoformat(event.time).timestamp()
        except (ValueError, OverflowError):
            self.refused += 1
            return False
        last = self._young.get(key) or self._old.get(key)
        # A clock that was set back must not suppress its node.
        if last is not None and abs(now - last) < self._link.sample_seconds * (1 - _EARLY):
            self.thinned += 1
            return False
        self._young[key] = now
        if len(self._young) >= _SOURCES // 2:
            self._old, self._young = self._young, {}
        return True

    def _with_longer_interval(self, data: Raw) -> Raw:
        """Return the data with the interval at which the link forwards samples."""
        try:
            fields = _fields.decode(data)
            interval = msgspec.json.decode(fields.get("interval", Raw(b"1.0")), type=float)
        except (ValueError, RecursionError):
            return data  # readers reject the event
        fields["interval"] = Raw(_encoder.encode(max(interval, self._link.sample_seconds)))
        return Raw(_encoder.encode(fields))
