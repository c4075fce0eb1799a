"""Reachability: whether heartbeats of an endpoint can arrive, so that a cut link is not taken for a dead endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from diaspora_parsl.core.health.evidence import Health

#: Seconds without traffic after which a path cannot prove an endpoint silent.
_STALE: Final = 5.0
#: Seconds between two polls of the fabric beyond which the observer was stalled.
_MAX_POLL_GAP: Final = 1.5
#: The same two limits for paths over bridges, in intervals of the bridge's reports.
_STALE_INTERVALS: Final = 2.5
_GAP_INTERVALS: Final = 2.0


class Reachability:
    """Keeps the last time at which each path was open: the fabric itself, and the bridge to each site.

    Heartbeats of another site come over a bridge, together with the bridge's own reports. While the reports arrive, the
    endpoint itself is silent. If they stop too, the link is cut, and the silence is no evidence.

    Args:
        health: Evidence of each endpoint by label.
    """

    def __init__(self, health: Mapping[str, Health]) -> None:
        self._health = health
        self._fabric = float("-inf")
        self._bridged: dict[str, tuple[float, float]] = {}

    @property
    def fabric_polled(self) -> float:
        """Time of the last poll of the fabric."""
        return self._fabric

    def record_fabric_poll(self, at: float) -> bool:
        """Record a poll; return False after a gap in the polls, which discards all evidence of silence."""
        steady = at - self._fabric < _MAX_POLL_GAP
        self._fabric = at
        if not steady:
            self._discount_silence(at, lambda _: True)
        return steady

    def record_bridge_poll(self, site: str, at: float, interval: float) -> None:
        """Record a bridge's report that events of a site arrive; the next is due after ``interval`` seconds."""
        used = {health.via_site for health in self._health.values()}
        if site not in used:
            return  # bound the number of sites, which events name freely
        self._bridged = {known: poll for known, poll in self._bridged.items() if known in used}
        last, usual = self._bridged.get(site, (float("-inf"), interval))
        self._bridged[site] = (at, interval)
        if at - last >= max(_MAX_POLL_GAP, _GAP_INTERVALS * max(usual, interval)):
            self._discount_silence(at, lambda health: health.via_site == site)

    def reachable_until(self, health: Health, at: float) -> float | None:
        """Time up to which heartbeats of the endpoint would have arrived; None if they cannot arrive now."""
        if at >= self.stale_at(health):
            return None
        return self._bridged[health.via_site][0] if health.via_site else self._fabric

    def stale_at(self, health: Health) -> float:
        """Time from which heartbeats of the endpoint cannot arrive, without another poll or report."""
        own = self._fabric + _STALE
        if not health.via_site:
            return own
        seen, interval = self._bridged.get(health.via_site, (float("-inf"), 0.0))
        return min(own, seen + max(_STALE, _STALE_INTERVALS * interval))

    def _discount_silence(self, at: float, whom: Callable[[Health], bool]) -> None:
        for health in filter(whom, self._health.values()):
            health.heartbeats.discount_silence(at)
