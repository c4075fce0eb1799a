"""Evidence: everything known about one endpoint."""

from __future__ import annotations

from diaspora_parsl.core.health.circuit_breaker import CircuitBreaker
from diaspora_parsl.core.health.phi_accrual import NodeHeartbeats


class Health:
    """Everything known about one endpoint."""

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
        #: When that ends by itself; infinity: never.
        self.drained_until: float | None = None
        self.dead_reason: str | None = None
        #: Why the generation before this one ended.
        self.last_death: str | None = None
        #: Deaths since it was last up for long enough.
        self.deaths = 0
        self.up_since: float | None = None
        self.last_result = float("-inf")
        self.heartbeats = NodeHeartbeats()
        #: The site where its heartbeats are born if they come over bridges; empty if they come directly.
        self.via_site = ""
        self.unanswered_since: float | None = None
        self.peer_report: tuple[float, float, str] | None = None
        #: Its silence was confirmed and its attempts were taken away.
        self.silence_confirmed = False
        self.breaker = CircuitBreaker()

    def new_generation(self, generation: int) -> None:
        """Forget what was known about the old one, but not its failures."""
        self.generation = generation
        self.started_at = None
        self.slots = 0
        self.had_slots = self.blocks_expected = self.silence_confirmed = False
        self.empty_since = self.stalled_since = self.unanswered_since = self.up_since = None
        self.last_death, self.dead_reason = self.dead_reason, None
        self.heartbeats.clear()
        self.breaker = self.breaker.for_next_generation()
