"""From requests on the control topic to stimuli: wall-clock times become those of the core."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeAlias, TypeGuard

from diaspora_parsl import events
from diaspora_parsl.core import stimuli

from ..endpoint import Endpoint

logger = logging.getLogger(__name__)

Request: TypeAlias = events.ControlPayload | events.MaintenanceAnnounced | events.MaintenanceCancelled


def is_request(payload: events.Payload | None) -> TypeGuard[Request]:
    """Whether something is asked of pools."""
    return isinstance(payload, events.ControlPayload | events.MaintenanceAnnounced | events.MaintenanceCancelled)


def core_time(when: datetime) -> float:
    """A moment of the calendar on the monotonic clock of the core."""
    return time.monotonic() + when.timestamp() - time.time()


def configured(endpoints: Iterable[Endpoint]) -> Iterator[stimuli.Maintenance]:
    """The windows that the configuration of a pool names, those aside that are over."""
    now = time.monotonic()
    for endpoint in endpoints:
        for window in endpoint.maintenance:
            start, end = core_time(window.start), core_time(window.end)
            if end > now:
                yield stimuli.Maintenance(now, endpoint.label, start, end, window.sentence)
            else:
                logger.info("Endpoint %s: a window of maintenance is over since %s", endpoint.label, window.end)


class Requests:
    """Understands what is asked of one pool.

    Args:
        pool: its name.
        sites: site of each of its endpoints, by label.
    """

    def __init__(self, pool: str, sites: Mapping[str, str]) -> None:
        self._pool = pool
        self._sites = sites

    def stimuli(self, payload: events.Payload, request: str, source: str) -> list[stimuli.Stimulus]:
        """What the core is to do; nothing, if the request is not for this pool.

        Args:
            payload: of the event.
            request: id of the event.
            source: of the event.

        Raises:
            ValueError: it names no proper time.
        """
        if not is_request(payload) or payload.pool not in {"", self._pool}:
            return []
        now, reason = time.monotonic(), payload.reason or f"asked for by {source}"
        if isinstance(payload, events.MaintenanceAnnounced):
            start, end = _time(payload.start), _time(payload.end)
            if end <= start:
                raise ValueError(f"the window ends at {payload.end}, before it starts")
            reason = f"maintenance until {payload.end}: {reason}"
            return [stimuli.Maintenance(now, label, start, end, reason, request) for label in self._at(payload.place)]
        if isinstance(payload, events.MaintenanceCancelled):
            return [stimuli.Maintenance(now, label, None, None, reason, request) for label in self._at(payload.place)]
        is_ours = payload.endpoint in self._sites and payload.site in {"", self._sites[payload.endpoint]}
        asked = _asked(payload, now, reason, request) if is_ours else None
        return [] if asked is None else [asked]

    def _at(self, place: str) -> list[str]:
        return [label for label, site in self._sites.items() if place in {label, site}]


def _asked(payload: events.ControlPayload, now: float, reason: str, request: str) -> stimuli.Stimulus | None:
    label = payload.endpoint
    match payload:
        case events.EndpointDrainRequested():
            until = _time(payload.until) if payload.until else None
            text = f"drained until {payload.until}: {reason}" if payload.until else f"drained: {reason}"
            return stimuli.Drain(now, label, text, until, request)
        case events.EndpointResumeRequested():
            return stimuli.Resume(now, label, request)
        case events.EndpointQuarantineRequested():
            return stimuli.Quarantine(now, label, f"quarantined: {reason}", _time(payload.until), request)
    return None


def _time(text: str) -> float:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    try:
        return core_time(when)
    except OverflowError:
        raise ValueError(f"the time {text!r} is in no calendar") from None
