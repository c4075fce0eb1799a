"""The health assessor: combines the evidence about each endpoint into one verdict with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from diaspora_parsl.core.health.correlated_failures import CommonCauseFilter
from diaspora_parsl.core.health.evidence import Health
from diaspora_parsl.core.health.reachability import Reachability
from diaspora_parsl.core.settings import PoolSettings

#: Seconds that a revived endpoint must keep blocks requested before it may recover.
_RECOVERY_BLOCKS_SECONDS: Final = 30.0
#: Seconds between two checks of attempts that are not overdue yet.
_RECHECK_SECONDS: Final = 0.5
#: Seconds for which a result overrules silence; short, because an endpoint may freeze right after a result.
_RESULT_OVERRULES_SECONDS: Final = 2.0
_NEVER: Final = float("inf")


class State(StrEnum):
    """State of an endpoint."""

    STARTING = "starting"
    WAITING = "waiting"
    """The endpoint works, but no worker is connected."""
    UP = "up"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"
    DRAINING = "draining"
    DRAINED = "drained"
    DOWN = "down"


class Verdict(Struct, frozen=True):
    """State of one endpoint at one time, what follows from it, and the reason."""

    state: State
    reason: str
    accepts: bool = False
    """Whether it accepts new attempts."""
    probe: bool = False
    """Whether it accepts one attempt as a probe."""
    last_resort: bool = False
    """Whether it accepts new attempts while no other endpoint does (Kubernetes: prefer-not)."""
    keeps: bool = True
    """Whether it keeps its attempts; otherwise they are rerouted."""
    fatal: bool = False
    """Whether this generation ends."""
    phi: float = 0.0
    recheck: float | None = None
    """Time at which the verdict may change without new evidence."""


class HealthAssessor:
    """Collects evidence about endpoints and computes verdicts."""

    def __init__(self, sites: Mapping[str, str], settings: PoolSettings) -> None:
        self.health = {label: Health() for label in sites}
        self.reachability = Reachability(self.health)
        self._common_cause = CommonCauseFilter(self.health, sites, self.reachability)
        self._settings = settings

    # --- evidence -------------------------------------------------------------------------------------------------

    def record_heartbeat(self, label: str, stream: str, at: float, interval: float, via_site: str = "") -> None:
        """Record a heartbeat and its site of origin, if it came over a bridge."""
        s = self._settings
        self.health[label].via_site = via_site
        self.health[label].heartbeats.beat(stream, at, interval, threshold=s.phi_threshold, pause=s.acceptable_pause)

    def fabric_polled(self, at: float) -> bool:
        """Record a poll; return False after a gap in the polls, which discards all evidence of silence."""
        return self.reachability.record_fabric_poll(at)

    def observed(self, label: str, at: float, slots: int, *, blocks_expected: bool) -> None:
        """Record an answer of the control channel."""
        health = self.health[label]
        health.unanswered_since = None
        health.blocks_expected = blocks_expected
        if slots:
            health.had_slots = True
            health.empty_since = None
        elif health.slots or health.empty_since is None:
            health.empty_since = at
            health.heartbeats.clear()  # their nodes are gone
        health.slots = slots

    def record_result(self, label: str, at: float, attempt: int | None = None) -> None:
        """Record a result, which proves that the endpoint works."""
        health = self.health[label]
        health.last_result = max(health.last_result, at)
        health.breaker.probe_succeeded(attempt)

    def record_response(self, label: str, at: float) -> None:
        """Record an error that the endpoint may have caused: it only proves that the endpoint is alive."""
        health = self.health[label]
        health.last_result = max(health.last_result, at)

    def peer_report(self, label: str, at: float, reason: str, lasts: float | None = None) -> float:
        """Record a peer's report; return the time until which it is valid."""
        until = at + (self._settings.peer_report_time if lasts is None else lasts)
        self.health[label].peer_report = (at, until, reason)
        return until

    # --- verdict --------------------------------------------------------------------------------------------------

    def verdict(self, label: str, at: float, live: int, overdue: Callable[[], bool]) -> Verdict:
        """Compute the verdict on one endpoint.

        Args:
            label: Label of the endpoint.
            at: Current time in seconds.
            live: Number of wanted attempts that it holds.
            overdue: Returns whether one of them should have ended.
        """
        health = self.health[label]
        if health.dead_reason is not None:
            return Verdict(State.DOWN, health.dead_reason, keeps=False)
        if health.started_at is None:
            verdict = Verdict(State.STARTING, "being started")
        elif health.slots == 0:
            verdict = self._empty(health, at, live)
        else:
            verdict = self._suspected(health, at, live, overdue) or self._open(health, at)
        if health.draining is None:
            return verdict
        # A draining endpoint may die, and its attempts must be rerouted.
        return Verdict(
            State.DRAINING if live and verdict.keeps else State.DRAINED,
            health.draining if verdict.keeps else f"{health.draining}; {verdict.reason}",
            keeps=verdict.keeps,
            fatal=verdict.fatal,
            recheck=verdict.recheck,
        )

    def may_recover(self, label: str, state: State, at: float) -> bool:
        """Whether tasks may wait for the endpoint; after a death, only once it is up or shows blocks."""
        if state in {State.UP, State.SUSPECT, State.QUARANTINED}:
            return True
        health = self.health[label]
        if health.draining is not None and health.drained_until != _NEVER:
            return True
        if state not in {State.STARTING, State.WAITING}:
            return False
        started = health.started_at
        return health.deaths == 0 or (
            health.blocks_expected
            and started is not None
            and at - started >= _RECOVERY_BLOCKS_SECONDS
            and not health.had_slots
        )

    def _empty(self, health: Health, at: float, live: int) -> Verdict:
        reason = "no worker is connected" if health.had_slots else "no worker has connected yet"
        unanswered = _NEVER if health.unanswered_since is None else health.unanswered_since + self._settings.stall_limit
        if at >= unanswered:
            return Verdict(State.WAITING, f"{reason}, and {_unanswered(health, at)}", keeps=False, fatal=True)
        stalled = _NEVER if health.stalled_since is None else health.stalled_since + self._settings.stall_limit
        if at >= stalled:
            reason = f"for {self._settings.stall_limit:.0f} s there was work, but no worker and no block requested"
            return Verdict(State.WAITING, reason, keeps=False, fatal=True)
        alone = _NEVER
        if live:
            alone = (at if health.empty_since is None else health.empty_since) + self._settings.empty_grace
            if at >= alone:
                reason = f"no worker is connected while {live} attempts are outstanding"
                return Verdict(State.WAITING, reason, keeps=False, fatal=not health.blocks_expected)
        return Verdict(State.WAITING, reason, recheck=_sooner(unanswered, stalled, alone))

    def _open(self, health: Health, at: float) -> Verdict:
        breaker, peer_report = health.breaker, health.peer_report
        suspect_from = _sooner(self._unanswered_suspect_at(health))
        if breaker.open_until is not None:
            reason = breaker.quarantine_reason or "attempts were lost there in a row"
            if breaker.is_half_open(at):
                return Verdict(State.QUARANTINED, f"{reason}; one probe is allowed", probe=True, recheck=suspect_from)
            resume = breaker.open_until if at < breaker.open_until else _NEVER
            return Verdict(State.QUARANTINED, reason, recheck=_sooner(resume, suspect_from))
        if peer_report is not None:
            reported_at, until, reason = peer_report
            newest = health.heartbeats.newest
            heartbeat_at = float("-inf") if newest is None else newest.last
            if at < until and health.last_result <= reported_at and heartbeat_at <= reported_at:
                return Verdict(State.SUSPECT, reason, last_resort=True, recheck=_sooner(until, suspect_from))
            health.peer_report = None
        reason = f"{health.slots} slot{'s' if health.slots != 1 else ''}"
        if health.via_site and health.heartbeats and self.reachability.reachable_until(health, at) is None:
            reason += f"; no event arrives from {health.via_site}, whose link may be cut"
        return Verdict(State.UP, reason, accepts=True, recheck=suspect_from)

    def _suspected(self, health: Health, at: float, live: int, overdue: Callable[[], bool]) -> Verdict | None:
        breaker = health.breaker
        silence = self._silence(health, at)
        if silence is None:
            health.silence_confirmed = False
            breaker.clear_silence()
            return None
        reason, phi = silence
        breaker.trip_on_silence(at)
        confirmed = live > 0 and overdue()
        if confirmed:
            health.silence_confirmed = True
            breaker.probe_lost(at)
        stale = self.reachability.stale_at(health)
        over = stale if stale > at else _NEVER
        if health.silence_confirmed and live == 0 and health.unanswered_since is not None:
            limit = health.unanswered_since + self._settings.stall_limit
            over = min(over, limit)
            if at >= limit:
                return Verdict(State.DOWN, _unanswered(health, at), keeps=False, fatal=True)
        probe = live == 0 and breaker.is_half_open(at)
        resume = breaker.open_until if breaker.open_until is not None and breaker.open_until > at else _NEVER
        recheck = _sooner(over, at + _RECHECK_SECONDS if live and not confirmed else resume)
        if health.silence_confirmed:
            return Verdict(State.DOWN, reason, keeps=not confirmed, probe=probe, phi=phi, recheck=recheck)
        last_resort = not breaker.is_tripped
        return Verdict(State.SUSPECT, reason, probe=probe, last_resort=last_resort, phi=phi, recheck=recheck)

    def _silence(self, health: Health, at: float) -> tuple[str, float] | None:
        """Return the reason and phi if the endpoint is silent and has no recent result."""
        if at < health.last_result + _RESULT_OVERRULES_SECONDS:
            return None
        reachable_until = self.reachability.reachable_until(health, at)
        newest = health.heartbeats.newest
        if newest is not None and reachable_until is not None and health.heartbeats.are_silent(reachable_until):
            if health.unanswered_since is None and self._common_cause.has(health, self.reachability.fabric_polled):
                return None
            phi = health.heartbeats.phi(reachable_until)
            return f"no heartbeat for {at - newest.last:.1f} s (phi {min(phi, 999):.0f}), and no result", phi
        if at >= self._unanswered_suspect_at(health):
            return f"{_unanswered(health, at)}, and no result came", 0.0
        return None

    def _unanswered_suspect_at(self, health: Health) -> float:
        """Time at which a silent control channel makes the endpoint suspect."""
        if health.unanswered_since is None:
            return _NEVER
        return max(
            health.unanswered_since + self._settings.silence_limit, health.last_result + _RESULT_OVERRULES_SECONDS
        )


def _unanswered(health: Health, at: float) -> str:
    since = at if health.unanswered_since is None else health.unanswered_since
    return f"its control channel has not answered for {at - since:.1f} s"


def _sooner(*times: float | None) -> float | None:
    """Return the earliest of the times that come."""
    return min((time for time in times if time is not None and time != _NEVER), default=None)
