"""By which way an endpoint is heard, and whether that way is open: a cut line is no dead endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from diaspora_parsl.core.health.evidence import Health

#: A way on which nothing was heard for so long (seconds) says nothing about anybody's silence.
_STALE: Final = 5.0
#: A gap between two reads of the fabric (seconds) beyond which the observer distrusts itself.
_MAX_POLL_GAP: Final = 1.5
#: The same for ways over bridges, in intervals of what their bridges tell.
_STALE_INTERVALS: Final = 2.5
_GAP_INTERVALS: Final = 2.0


class Reachability:
    """Remembers until when each way was open: that of the fabric itself, and those that lead over bridges.

    What is born at another site comes over bridges, and so do the accounts of the bridge there. As long as those come,
    the silence of an endpoint is its own; when they stop with it, the line is cut, and nobody is blamed for what he
    may well have said.

    Args:
        health: of each endpoint, by label.
    """

    def __init__(self, health: Mapping[str, Health]) -> None:
        self._health = health
        self._fabric = float("-inf")
        self._bridged: dict[str, tuple[float, float]] = {}

    @property
    def fabric_polled(self) -> float:
        """When the fabric was last read to its end."""
        return self._fabric

    def record_fabric_poll(self, at: float) -> bool:
        """The fabric was read to its end; False if the observer was away itself, and forgives everybody."""
        steady = at - self._fabric < _MAX_POLL_GAP
        self._fabric = at
        if not steady:
            self._discount_silence(at, lambda _: True)
        return steady

    def record_bridge_poll(self, site: str, at: float, interval: float) -> None:
        """A bridge told that what comes from a site can be heard, and will say so again after ``interval``."""
        used = {health.via_site for health in self._health.values()}
        if site not in used:
            return  # anybody may name any number of sites
        self._bridged = {known: poll for known, poll in self._bridged.items() if known in used}
        last, usual = self._bridged.get(site, (float("-inf"), interval))
        self._bridged[site] = (at, interval)
        if at - last >= max(_MAX_POLL_GAP, _GAP_INTERVALS * max(usual, interval)):
            self._discount_silence(at, lambda health: health.via_site == site)

    def reachable_until(self, health: Health, at: float) -> float | None:
        """Up to when this endpoint would have been heard; None if it cannot be heard now."""
        if at >= self.stale_at(health):
            return None
        return self._bridged[health.via_site][0] if health.via_site else self._fabric

    def stale_at(self, health: Health) -> float:
        """From when on it cannot be heard, if nothing is told until then."""
        own = self._fabric + _STALE
        if not health.via_site:
            return own
        seen, interval = self._bridged.get(health.via_site, (float("-inf"), 0.0))
        return min(own, seen + max(_STALE, _STALE_INTERVALS * interval))

    def _discount_silence(self, at: float, whom: Callable[[Health], bool]) -> None:
        for health in filter(whom, self._health.values()):
            health.heartbeats.discount_silence(at)
