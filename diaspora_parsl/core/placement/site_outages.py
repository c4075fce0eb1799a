"""Site outages: after two losses at a site, suspect its other endpoints and stagger the revivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from diaspora_parsl.core.health.assessor import HealthAssessor, State, Verdict
from diaspora_parsl.core.health.correlated_failures import Sites
from diaspora_parsl.core.history import History
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.timers import Deadlines


class SiteOutages:
    """The part of `PoolCore` that correlates the losses of one site."""

    def __init__(
        self,
        assessor: HealthAssessor,
        scheduler: Scheduler,
        deadlines: Deadlines,
        history: History,
        *,
        sites: Mapping[str, str],
        window: float,
        update_health: Callable[[str], None],
    ) -> None:
        self._assessor = assessor
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._history = history
        self._sites = Sites(sites, window)
        self._update_health = update_health

    def lost(self, label: str, at: float) -> None:
        """Record a loss. Call it before the endpoint's attempts are rerouted, and update no health meanwhile."""
        reason = self._sites.failed(label, at)
        if reason is None:
            return
        for rank, other in enumerate(self._sites.others(label)):
            health = self._assessor.health[other]
            if health.dead_reason is not None:
                continue
            health.breaker.postpone_probe(at, rank)
            until = self._assessor.peer_report(other, at, reason)
            if self._scheduler.verdicts[other].accepts:
                suspect = Verdict(State.SUSPECT, reason, last_resort=True)
                self._scheduler.apply_verdict(other, suspect, health.slots)
                self._history.record_verdict(other, health, suspect, 0)
                self._deadlines.at(until, ("health", other), partial(self._update_health, other))

    def delay(self, label: str, at: float) -> float:
        """Seconds by which the revival follows those of earlier losses of the site."""
        return self._sites.delay(label, at)
