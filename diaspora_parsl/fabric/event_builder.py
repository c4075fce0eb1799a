"""Builds events from payloads."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from msgspec import UNSET, UnsetType

from diaspora_parsl.events import Event, Payload, encode_payload
from diaspora_parsl.events.trace import Traces


class EventBuilder:
    """Adds ids, sequence numbers and times to payloads. One thread at a time.

    Ids are unique and sort by time: milliseconds, a random number per builder, a counter (0.3 µs; ``uuid4`` costs
    2.5 µs). The sequence counts from 1, because an integer attribute of a CloudEvent has 32 bits. Readers recognize a
    restarted source by the time.

    Args:
        source: Source of every event, ``/site/pool/endpoint/run``.
        originsite: Site of origin for bridges, or "".
    """

    def __init__(self, source: str, originsite: str = "") -> None:
        self._source = source
        self._traces = Traces(source)
        self._origin: str | UnsetType = originsite or UNSET
        self._nonce = os.urandom(6).hex()
        self._sequence = 0
        self._second = -1
        self._prefix = ""

    def wrap(self, payload: Payload, subject: str, key: str, now: float) -> Event:
        """Return an event with the next sequence number; ``now`` is Unix time in seconds.

        Raises:
            ValueError: The event is too large for readers.
            Exception: The encoder cannot write the payload as JSON.
        """
        data = encode_payload(payload)
        self._sequence += 1
        second, micros = divmod(int(now * 1e6), 1_000_000)
        if second != self._second:  # the calendar costs 1 µs: once per second is enough
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        task = getattr(payload, "task", None)
        context = self._traces.parent(task, getattr(payload, "attempt", 0)) if isinstance(task, int) else UNSET
        return Event(
            id=f"{second * 1000 + micros // 1000:012x}-{self._nonce}-{self._sequence:x}",
            source=self._source,
            type=payload.event_type(),
            subject=subject,
            time=f"{self._prefix}.{micros:06d}Z",
            partitionkey=key or subject,
            sequence=self._sequence,
            data=data,
            originsite=self._origin,
            traceparent=context,
        )
