"""Settings of each endpoint, and the limits and time constants of a pool."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError


class EndpointSpec(Struct, frozen=True, kw_only=True):
    """Configuration of an endpoint, as far as the core uses it."""

    label: str
    """Unique name of the endpoint in the pool."""
    site: str = ""
    """Facility that the endpoint belongs to; endpoints of one site may fail together."""
    max_concurrency: int | None = None
    """Upper bound of attempts at a time, whatever the endpoint reports; None: no bound."""
    capacity: int = 1
    """Slots of the endpoint once it has scaled out; its weight when demand is shared out."""
    revivable: bool = True
    """Whether the shell can build the endpoint again after it died."""
    mem_per_worker: float | None = None
    """GB of memory per worker; None: unknown."""
    prefetch_seconds: float | None = None
    """Seconds of known work bound per slot beyond what runs; None: the value of `PoolSettings`."""


class PoolSettings(Struct, frozen=True, kw_only=True):
    """Limits and time constants of a pool. Durations are in seconds."""

    unavailable_timeout: float = 600.0
    """Seconds that a task waits while every endpoint that could run it is down."""
    max_attempts: int = 20
    """Attempts per task in all."""
    max_kills: int = 3
    """Number of workers that one task may kill before it counts as poison."""
    empty_grace: float = 1.0
    """Seconds that attempts may be outstanding at an endpoint without a connected worker."""
    stall_limit: float = 60.0
    """Seconds that an endpoint may have demand without workers or requested blocks before it is revived."""
    silence_limit: float = 3.0
    """Seconds without an answer of the control channel after which the endpoint is suspect."""
    peer_report_time: float = 30.0
    """Seconds for which a peer's report about an endpoint is valid."""
    outage_window: float = 30.0
    """Seconds within which lost endpoints of one site count as one outage of the site."""
    prefetch_seconds: float = 1.0
    """Seconds of known work bound per slot beyond what runs."""
    phi_threshold: float = 8.0
    """Phi at which a heartbeat stream is suspect (Hayashibara et al. 2004)."""
    acceptable_pause: float = 2.0
    """Seconds by which a heartbeat may be late without raising suspicion."""
    second_opinion_wait: float = 10.0
    """Seconds that a task that raised waits for another node of its endpoint to connect."""
    avoid_time: float = 30.0
    """Seconds that a task prefers other endpoints to one that lost it."""
    revive_first: float = 1.0
    """Seconds before the first revival; each further one doubles the delay."""
    revive_longest: float = 300.0
    """Upper bound of the delay before a revival, in seconds."""
    healthy_after: float = 60.0
    """Seconds that an endpoint must stay up before its revival delay is reset."""
    second_opinion: bool = True
    """Whether a task runs once elsewhere before an exception that its endpoint may have caused is delivered."""
    second_opinion_timeout: float = 60.0
    """Seconds that a second opinion waits for an endpoint that is not up."""
    fade_time: float = 300.0
    """Time constant, in seconds, with which evidence against a function at an endpoint fades."""
    retry_budget_ratio: float = 0.2
    """Extra attempts allowed per first attempt."""
    retry_budget_per_second: float = 10.0
    """Extra attempts allowed per second, besides the ratio."""
    retry_budget_max: float = 1000.0
    """Upper bound of the saved extra attempts."""
    retry_max_delay: float = 5.0
    """Seconds that a lost task waits at most while the retry budget is empty."""
    hedging: bool = True
    """Whether a slow attempt of an idempotent task gets a second one elsewhere; the first result wins."""
    hedge_min_results: int = 20
    """Results of a function at an endpoint before its attempts there can count as slow."""
    hedge_quantile: float = 0.9
    """Quantile of the last hundred run times from which the limit of a slow attempt is computed."""
    hedge_factor: float = 2.0
    """Factor on that quantile."""
    hedge_min_seconds: float = 0.25
    """Seconds below which no attempt counts as slow."""
    hedge_max_ratio: float = 0.2
    """Hedges at a time, as a share of all open slots."""
    history_length: int = 20_000
    """Transitions kept for `PoolCore.history`."""

    def __post_init__(self) -> None:
        """Validate the budgets.

        Raises:
            ConfigurationError: a value is out of range; the message says what to write.
        """
        for name in (
            "retry_budget_ratio", "retry_budget_per_second", "retry_budget_max", "retry_max_delay", "hedge_min_seconds",
            "hedge_max_ratio",
        ):  # fmt: skip
            if not getattr(self, name) >= 0.0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: write a number from 0 up.")
        if not (0.0 < self.hedge_quantile < 1.0 and self.hedge_factor >= 1.0 and self.hedge_min_results >= 1):
            raise ConfigurationError(
                f"hedge_quantile={self.hedge_quantile!r}, "
                f"hedge_factor={self.hedge_factor!r}, "
                f"hedge_min_results={self.hedge_min_results!r}: "
                f"write a quantile between 0 and 1, and the others from 1 up."
            )
