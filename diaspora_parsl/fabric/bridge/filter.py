"""What a link lets through, and how an event is marked that crosses: the pure part of a bridge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, Raw, structs

from diaspora_parsl.events import Event, LinkStatus, NodeHeartbeat
from diaspora_parsl.fabric.bridge.config import LinkConfig
from diaspora_parsl.fabric.dedup import Deduplicator

#: Events that a link remembers, to leave out doubles.
_SEEN: Final = 50_000
#: Sources of samples that a link remembers.
_SOURCES: Final = 50_000
#: A sample counts as due so much (share of the interval) before its time: senders are not punctual.
_EARLY: Final = 0.05
#: Samples that say when the next one is due.
_PROMISES: Final = frozenset({NodeHeartbeat.event_type(), LinkStatus.event_type()})
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encoder: Final = msgspec.json.Encoder()


class LinkFilter:
    """Decides about each event of one link, in order, by what stands in the event alone. One thread.

    The loop guard: an event does not go where it was born (``originsite``), nor back to where it was read by the
    bridge that brought it (``viasite``), nor any further after so many bridges (``hops``). In a tree the second rule
    alone is enough, without a memory that could be lost.

    Args:
        link: with the rules.
    """

    def __init__(self, link: LinkConfig) -> None:
        self._link = link
        self._seen = Deduplicator(_SEEN)
        self._young: dict[tuple[str, str, str], float] = {}
        self._old: dict[tuple[str, str, str], float] = {}
        self.refused = self.thinned = self.looped = 0

    @property
    def doubles(self) -> int:
        """Events that came twice and were left out."""
        return self._seen.doubles

    def admit(self, events: Iterable[Event]) -> list[Event]:
        """The events that go on, marked, in order."""
        link, taken = self._link, []
        here, there, most, topics = link.from_site, link.to_site, link.max_hops, frozenset(link.topics)
        for event in self._seen.drop_duplicates(events):
            hops = 0 if event.hops is UNSET else max(0, event.hops)
            # By the topic it will be written to: what was found among tasks may call itself a request.
            if event.topic not in topics:
                self.refused += 1
            elif there in (event.originsite, event.viasite) or hops >= most:
                self.looped += 1
            elif event.is_state_change or not link.sample_seconds or self._is_due(event):
                # Before its first bridge, what a publisher says of its site may be any name; from there on, that of a
                # fabric, by which guards and pools go.
                origin = event.originsite if hops else here
                taken.append(self._marked(event, origin or here, hops + 1))
        return taken

    def _marked(self, event: Event, origin: str, hops: int) -> Event:
        data = event.data
        if self._link.sample_seconds and event.type in _PROMISES:
            data = self._slowed(data)
        # Not field by field: what later versions add to the envelope must cross, too.
        return structs.replace(event, data=data, originsite=origin, viasite=self._link.from_site, hops=hops)

    def _is_due(self, event: Event) -> bool:
        """By the event's own time, so that a backlog is thinned like what comes as it happens."""
        key = (event.source, event.type, event.subject)
        try:
            now = datetime.fromisoformat(event.time).timestamp()
        except (ValueError, OverflowError):
            self.refused += 1
            return False
        last = self._young.get(key) or self._old.get(key)
        # A clock that was set back must not silence its node.
        if last is not None and abs(now - last) < self._link.sample_seconds * (1 - _EARLY):
            self.thinned += 1
            return False
        self._young[key] = now
        if len(self._young) >= _SOURCES // 2:
            self._old, self._young = self._young, {}
        return True

    def _slowed(self, data: Raw) -> Raw:
        """The same, but the next one is promised for when the link will let it through."""
        try:
            fields = _fields.decode(data)
            promised = msgspec.json.decode(fields.get("interval", Raw(b"1.0")), type=float)
        except (ValueError, RecursionError):
            return data  # readers find out for themselves
        fields["interval"] = Raw(_encoder.encode(max(promised, self._link.sample_seconds)))
        return Raw(_encoder.encode(fields))
