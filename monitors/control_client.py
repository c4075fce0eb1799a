"""Asking running pools to drain, resume or quarantine an endpoint, and hearing what came of it."""

from __future__ import annotations

import getpass
import re
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events.signing import signed
from diaspora_parsl.fabric.event_builder import EventBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.fabric.base import Fabric, Subscription

#: Seconds that the log of endpoints may take to be read; it is short, a fabric that hangs is not.
_READ_LIMIT: Final = 10.0
#: Seconds to wait for the status of pools whose start is no longer in the log; each publishes one per second.
_STATUS_WAIT: Final = 2.5
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


@dataclass
class _Pool:
    name: str
    source: str
    #: Label and site of each endpoint; the site is empty until it is known.
    endpoints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request.

    Attributes:
        answers: the pools that followed it, by name, with what they said of each endpoint.
        silent: pools that are not known to have ended, and did not answer.
    """

    answers: tuple[tuple[str, ev.RequestAnswered], ...]
    silent: tuple[str, ...]

    @property
    def is_followed(self) -> bool:
        """Whether any pool did what was asked."""
        return bool(self.answers)

    def sentences(self) -> list[str]:
        """The sentence for the person who asked."""
        reported = []
        for pool, answer in self.answers:
            many = "" if answer.in_flight == 1 else "s"
            runs = f"; {answer.in_flight} attempt{many} still there" if answer.in_flight else ""
            reported.append(f"{answer.endpoint} in pool {pool} is {answer.state}: {answer.reason}{runs}")
        reported += [f"pool {pool} did not answer; perhaps it ended without saying so" for pool in self.silent]
        return reported


class Control:
    """Speaks to the pools on a fabric. One thread.

    Args:
        fabric: of a run that goes on; the caller closes it.
        key: of the run, which signs what is asked: see `diaspora_parsl.fabric.address.find_key`.
        pool: name of the only pool that is meant; all of them if empty.
        wait: seconds that pools have to answer.
    """

    def __init__(self, fabric: Fabric, key: str, pool: str = "", wait: float = 10.0) -> None:
        self._fabric = fabric
        self._key = key
        self._name = pool
        self._wait = wait
        self._pools: dict[str, _Pool] = {}
        self._ended: set[str] = set()
        self._builder = EventBuilder(f"/{socket.gethostname()}/diaspora-parsl/{getpass.getuser()}")

    def ask(self, place: str, make: Callable[[], ev.Payload], *, or_site: bool = False) -> Outcome:
        """Ask every pool that has this endpoint, and wait for what they say.

        Args:
            place: label of an endpoint.
            make: makes the payload, once it is known that the endpoint exists.
            or_site: ``place`` may be the name of a site.

        Raises:
            ConfigurationError: No running pool has such an endpoint; the message names the existing ones.
            FabricUnavailableError: the fabric does not answer.
        """
        log = self._fabric.subscribe((ev.TOPIC_ENDPOINT,), "earliest")
        try:
            self._read_to_end(log)
        finally:
            log.close()
        if not self._addressed(place, or_site=or_site):
            self._listen_for_status(place, or_site=or_site)
        asked = self._addressed(place, or_site=or_site)
        if not asked:
            raise ConfigurationError(self._no_such(place))
        answers = self._fabric.subscribe((ev.TOPIC_CONTROL,), "latest")
        try:
            event = signed(self._builder.wrap(make(), place, place, time.time()), self._key)
            self._fabric.publish([event])
            return self._hear(answers, event.id, asked)
        finally:
            answers.close()

    # --- who is there ---------------------------------------------------------------------------------------------

    def _read_to_end(self, log: Subscription) -> None:
        end = time.monotonic() + _READ_LIMIT
        began = _now_text()
        while batch := log.read(0.1):
            self._note(batch)
            if batch[-1].time[:19] > began:  # on a busy fabric there is always something
                return
            if time.monotonic() > end:
                raise FabricUnavailableError(f"the fabric could not be read within {_READ_LIMIT:.0f} s")

    def _listen_for_status(self, place: str, *, or_site: bool) -> None:
        """Find pools by their status: the start of a long run may have been trimmed away."""
        samples = self._fabric.subscribe((ev.TOPIC_RESOURCE, ev.TOPIC_ENDPOINT), "latest")
        end = time.monotonic() + _STATUS_WAIT
        try:
            while time.monotonic() < end and not self._addressed(place, or_site=or_site):
                self._note(samples.read(0.2))
        finally:
            samples.close()

    def _note(self, batch: list[ev.Event]) -> None:
        for event in batch:
            try:
                payload = event.payload()
            except ValueError:
                continue  # a follower of the events sees those
            match payload:
                case ev.PoolStarted():
                    pool = self._pools.setdefault(event.source, _Pool(payload.pool, event.source))
                    pool.name = payload.pool
                    for label in payload.endpoints:
                        pool.endpoints.setdefault(label, "")
                case ev.PoolStopped():
                    self._ended.add(event.source)
                case ev.EndpointStatus() | ev.EndpointPayload() if event.source.count("/") == 3:  # noqa: PLR2004
                    name = event.source.split("/")[2]  # /host/pool/run
                    pool = self._pools.setdefault(event.source, _Pool(name, event.source))
                    pool.endpoints[payload.endpoint] = payload.site

    def _running(self) -> list[_Pool]:
        pools = [pool for source, pool in self._pools.items() if source not in self._ended]
        return [pool for pool in pools if self._name in {"", pool.name}]

    def _addressed(self, place: str, *, or_site: bool) -> dict[str, _Pool]:
        return {
            pool.source: pool
            for pool in self._running()
            if place in pool.endpoints or (or_site and place in pool.endpoints.values())
        }

    def _no_such(self, place: str) -> str:
        running = self._running()
        if not running:
            which = f"no pool named {self._name!r}" if self._name else "no pool"
            return f"There is {which} that runs on this fabric, so there is no endpoint {place!r}."
        there = "; ".join(f"pool {pool.name} has {', '.join(sorted(pool.endpoints))}" for pool in running)
        return f"No running pool has an endpoint {place!r}. Write one of those that exist: {there}."

    # --- what they say --------------------------------------------------------------------------------------------

    def _hear(self, answers: Subscription, request: str, asked: dict[str, _Pool]) -> Outcome:
        end = time.monotonic() + self._wait
        received: list[tuple[str, ev.RequestAnswered]] = []
        waiting = set(asked)
        linger = end
        while (now := time.monotonic()) < min(end, linger):
            for event in answers.read(min(0.2, max(0.01, end - now))):
                if event.type != ev.RequestAnswered.event_type():
                    continue
                try:
                    payload = event.payload()
                except ValueError:
                    continue
                if isinstance(payload, ev.RequestAnswered) and payload.request == request:
                    pool = asked.get(event.source)
                    received.append((pool.name if pool else event.source, payload))
                    waiting.discard(event.source)
            if not waiting:  # a site has several endpoints, and each is answered for; they come together
                linger = min(linger, time.monotonic() + 0.2)
        silent = tuple(sorted(asked[source].name for source in waiting))
        return Outcome(answers=tuple(received), silent=silent)


def duration(text: str) -> timedelta:
    """The time meant by ``90s``, ``5m``, ``2h``, ``1d``.

    Raises:
        ConfigurationError: it means nothing.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise ConfigurationError(f"--for {text!r} is no duration. Write 90s, 5m, 2h or 1d.")
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise ConfigurationError(f"--for {text!r} is longer than time itself. Write 90s, 5m, 2h or 1d.") from None


def moment(text: str, option: str) -> datetime:
    """A time with its zone: RFC 3339, or from now on: ``+90s``, ``+2h``.

    Raises:
        ConfigurationError: it means nothing, or says no zone.
    """
    if text.startswith("+") and _DURATION.fullmatch(text[1:]):
        return datetime.now(UTC) + duration(text[1:])
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise ConfigurationError(
            f"{option} {text!r} is no time with a zone. Write 2026-01-31T12:00:00Z, 2026-01-31T12:00:00+01:00 or +2h."
        )
    return when


def rfc3339(when: datetime) -> str:
    """The moment as events say it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now_text() -> str:
    return datetime.now(UTC).isoformat()[:19]
