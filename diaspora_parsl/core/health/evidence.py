"""Evidence about one endpoint."""

from __future__ import annotations

from diaspora_parsl.core.health.circuit_breaker import CircuitBreaker
from diaspora_parsl.core.health.phi_accrual import NodeHeartbeats


class Health:
    """Evidence about one endpoint."""

    __slots__ = ("blocks_expected", "breaker", "dead_reason", "deaths", "drained_until", "draining", "empty_since",
                 "generation", "had_slots", "heartbeats", "last_death", "last_result", "peer_report",
                 "silence_confirmed", "slots", "stalled_since", "started_at", "unanswered_since", "up_since",
                 "via_site")  # fmt: skip

    def __init__(self) -> None:
        self.generation = 0
        self.started_at: float | None = None
        self.slots = 0
        self.had_slots = False
        self.blocks_expected = False
        self.empty_since: float | None = None
        self.stalled_since: float | None = None
        self.draining: str | None = None
        #: Time at which the drain ends; infinity: never.
        self.drained_until: float | None = None
        self.dead_reason: str | None = None
        #: Reason for which the last generation ended.
        self.last_death: str | None = None
        #: Number of deaths since it was last up for ``healthy_after`` seconds.
        self.deaths = 0
        self.up_since: float | None = None
        self.last_result = float("-inf")
        self.heartbeats = NodeHeartbeats()
        #: Site of origin of heartbeats that come over a bridge; empty without a bridge.
        self.via_site = ""
        self.unanswered_since: float | None = None
        self.peer_report: tuple[float, float, str] | None = None
        #: Whether overdue attempts confirmed its silence, so that they were rerouted.
        self.silence_confirmed = False
        self.breaker = CircuitBreaker()

    def new_generation(self, generation: int) -> None:
        """Reset the evidence about the old generation, but keep the number of deaths."""
        self.generation = generation
        self.started_at = None
        self.slots = 0
        self.had_slots = self.blocks_expected = self.silence_confirmed = False
        self.empty_since = self.stalled_since = self.unanswered_since = self.up_since = None
        self.last_death, self.dead_reason = self.dead_reason, None
        self.heartbeats.clear()
        self.breaker = self.breaker.for_next_generation()
