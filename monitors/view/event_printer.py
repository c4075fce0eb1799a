"""Selection of events and their output as JSON lines."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import PREFIX, PoolStarted, PoolStopped, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.events import Event

    from .event_feed import EventFeed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_VERSION = re.compile(r"\.v\d+$")
_any_json = msgspec.json.Decoder()


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are meant; every condition that is given must hold.

    Attributes:
        types: patterns, one of which must match the type: whole, or without prefix and version (``task.*``).
        endpoint: the endpoint that an event is about.
        task: the task that an event is about.
        since: nothing before this moment.
    """

    types: tuple[str, ...] = ()
    endpoint: str | None = None
    task: int | None = None
    since: datetime | None = None

    def matches(self, event: Event) -> bool:
        """True if this event is meant."""
        if self.types and not any(self._is_of(event.type, pattern) for pattern in self.types):
            return False
        if self.since is not None and not self._is_young(event):
            return False
        if self.endpoint is None and self.task is None:
            return True
        about = _about(event)
        if self.task is not None and about.get("task") != self.task:
            return False
        return self.endpoint is None or self.endpoint in (about.get("endpoint"), event.subject)

    def _is_of(self, kind: str, pattern: str) -> bool:
        short = kind.removeprefix(PREFIX)
        return any(fnmatchcase(name, pattern) for name in (kind, short, _VERSION.sub("", short)))

    def _is_young(self, event: Event) -> bool:
        moment = _moment(event.time)
        return moment is not None and self.since is not None and moment >= self.since


def since_time(text: str, now: datetime) -> datetime:
    """The moment meant by ``5m``, ``90s``, ``2h``, ``1d`` (ago) or by an RFC 3339 time.

    Raises:
        ConfigurationError: it means nothing.
    """
    moment = _moment(text.strip())
    if ago := _AGO.fullmatch(text.strip()):
        with contextlib.suppress(OverflowError):  # more than time itself: said below
            moment = now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    if moment is None:
        raise ConfigurationError(f"--since {text!r} is no time. Write 90s, 5m, 2h, 1d, or 2026-01-31T12:00:00Z.")
    return moment


def print_events(
    feed: EventFeed,
    wanted: EventFilter,
    write: Callable[[bytes], object],
    *,
    follow: bool = False,
    limit: int | None = None,
) -> int:
    """Write the wanted events, one JSON document a line; returns how many.

    What comes together is put in order of time, since topics are read one after the other: all that is already there,
    and then each portion. Following ends when the run that is followed has ended and taken its fabric along.

    Args:
        feed: where events come from.
        wanted: which ones are written.
        write: takes one line.
        follow: go on with what comes.
        limit: stop after this number of events.

    Raises:
        FabricUnavailableError: the fabric does not answer, and is not followed.
    """
    reported = 0
    left = float("inf") if limit is None else limit
    runs = _Runs()
    kept: list[Event] = []
    outage = False
    while reported < left:
        events = feed.read(0.5)
        if feed.lost_since is not None:
            if not follow:
                raise FabricUnavailableError(feed.last_error)
            if runs.all_ended or feed.is_over:
                break
            outage = outage or _say("the fabric does not answer; waiting for it")
            continue
        outage = outage and not _say("the fabric is back")
        runs.note(events)
        kept += [event for event in events if wanted.matches(event)]
        if not feed.caught_up:
            continue
        kept.sort(key=lambda event: (event.time, event.sequence))
        for event in kept[: None if limit is None else limit - reported]:
            write(encode(event) + b"\n")
            reported += 1
        kept.clear()
        if not follow or feed.is_finished_run:
            break
    return reported


class _Runs:
    """Which pools have started and not ended."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._ended: set[str] = set()

    @property
    def all_ended(self) -> bool:
        return bool(self._seen) and self._seen == self._ended

    def note(self, events: list[Event]) -> None:
        for event in events:
            if event.type in (PoolStarted.event_type(), PoolStopped.event_type()):
                self._seen.add(event.source)
            if event.type == PoolStopped.event_type():
                self._ended.add(event.source)


def _about(event: Event) -> dict[str, Any]:
    """The data of an event of any type, known or not."""
    try:
        data = _any_json.decode(event.data)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _say(sentence: str) -> bool:
    print(f"diaspora-parsl: {sentence}", file=sys.stderr, flush=True)  # noqa: T201  (a program's voice)
    return True
