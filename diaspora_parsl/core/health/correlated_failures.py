"""Correlated failures: the outage of a site, and silence with a common cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from diaspora_parsl.core.health.evidence import Health
    from diaspora_parsl.core.health.reachability import Reachability

#: Prefix of the reason that is given for the other endpoints of the site.
SITE_OUTAGE: Final = "site outage"
#: Number of endpoints of a site that must fail within the window to be an outage.
_OUTAGE: Final = 2
#: Seconds between the probes and between the revivals of two endpoints of a site in an outage.
_SPREAD: Final = 1.0
_LONGEST_SPREAD: Final = 30.0

#: Share of the endpoints with heartbeats that must be silent for a common cause.
_NEARLY_ALL: Final = 0.8
#: Seconds within which streams stop together.
_TOGETHER: Final = 5.0
#: Intervals plus seconds since the last heartbeat after which the next is missing.
_LATE: Final = (1.5, 0.3)
#: Seconds after which common silence counts against the endpoints.
_COMMON_LIMIT: Final = 60.0


class Sites:
    """Keeps the recent failures of each site.

    Args:
        sites: Site of each endpoint by label; an endpoint without a site fails alone.
        window: Seconds within which failures belong together.
    """

    def __init__(self, sites: Mapping[str, str], window: float) -> None:
        self._sites = sites
        self._window = window
        self._endpoints: dict[str, list[str]] = {}
        for label, site in sites.items():
            if site:
                self._endpoints.setdefault(site, []).append(label)
        self._failed: dict[str, dict[str, float]] = {}

    def failed(self, label: str, at: float) -> str | None:
        """Record a lost endpoint; return the reason to suspect the rest of its site, if others failed too."""
        site = self._sites[label]
        if not site or len(self._endpoints[site]) < _OUTAGE:
            return None
        recent = self._recent(site, at)
        recent.pop(label, None)  # keep the order of the failures
        recent[label] = at
        if len(recent) < _OUTAGE:
            return None
        names = ", ".join(sorted(recent))
        return f"{SITE_OUTAGE}: {names} of {site} failed within {at - min(recent.values()):.0f} s"

    def others(self, label: str) -> list[str]:
        """Return the other endpoints of the site."""
        return [other for other in self._endpoints.get(self._sites[label], ()) if other != label]

    def delay(self, label: str, at: float) -> float:
        """Seconds by which the revival follows those of endpoints of the site that failed before."""
        recent = self._recent(self._sites[label], at)
        rank = list(recent).index(label) if label in recent else 0
        return min(_LONGEST_SPREAD, rank * _SPREAD)

    def _recent(self, site: str, at: float) -> dict[str, float]:
        recent = self._failed.setdefault(site, {})
        for label in [label for label, when in recent.items() if at - when > self._window]:
            del recent[label]
        return recent


class CommonCauseFilter:
    """Discards silence that has a common cause.

    Sites are independent. If the heartbeats of nearly all endpoints of more than one site stop together while the pool
    still polls the fabric, the common path is more likely broken than all endpoints. Local evidence overrules this. In
    Lifeguard (Dadgar, Phillips, Currey 2018), too, the observer suspects itself first.

    Args:
        health: Evidence of each endpoint by label.
        sites: Site of each endpoint by label.
        reachability: Reports the endpoints whose events cannot arrive, which do not count here.
    """

    def __init__(self, health: Mapping[str, Health], sites: Mapping[str, str], reachability: Reachability) -> None:
        self._health = health
        self._sites = sites
        self._reachability = reachability
        self._counted_at = float("-inf")
        self._silent: set[Health] = set()

    def has(self, health: Health, at: float) -> bool:
        """Whether the silence of this endpoint had a common cause when the fabric was polled at ``at``."""
        if at != self._counted_at:
            self._counted_at = at
            self._silent = self._count(at)
        return health in self._silent

    def _count(self, at: float) -> set[Health]:
        senders = 0
        silent: list[tuple[float, str, Health]] = []
        for label, health in self._health.items():
            newest = health.heartbeats.newest
            if newest is None or not health.slots or health.silence_confirmed or health.dead_reason is not None:
                continue
            if self._reachability.reachable_until(health, at) is None:
                continue
            senders += 1
            if at - newest.last > _LATE[0] * newest.mean + _LATE[1]:
                silent.append((newest.last, self._sites.get(label) or label, health))
        if not silent:
            return set()
        last = max(silent, key=lambda voice: voice[0])[0]
        together = [voice for voice in silent if last - voice[0] <= _TOGETHER]
        is_common = len(together) >= _NEARLY_ALL * senders and len({site for _, site, _ in together}) > 1
        if not is_common or at - last >= _COMMON_LIMIT:
            return set()
        return {health for _, _, health in together}
