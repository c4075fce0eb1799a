"""Settings: what the core knows of each endpoint, and the limits and time constants of a pool."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError


class EndpointSpec(Struct, frozen=True, kw_only=True):
    """What the core knows of an endpoint from the configuration."""

    label: str
    site: str = ""
    max_concurrency: int | None = None
    """Upper bound of attempts at once, whatever the endpoint reports."""
    capacity: int = 1
    """Slots it could have once scaled out: its weight when the backlog is shared out as demand."""
    revivable: bool = True
    """Whether the shell knows how to build it anew."""
    mem_per_worker: float | None = None
    """GB of memory per worker, if known."""
    prefetch_seconds: float | None = None
    """Seconds of known work bound per slot beyond what runs; None: the pool's horizon."""


class PoolSettings(Struct, frozen=True, kw_only=True):
    """Limits and time constants of a pool; durations in seconds."""

    unavailable_timeout: float = 600.0
    """How long a task waits while every endpoint that could run it is down."""
    max_attempts: int = 20
    """Attempts per task in all."""
    max_kills: int = 3
    """Workers that one task may take down with it before it counts as poison."""
    empty_grace: float = 1.0
    """How long attempts may be outstanding at an endpoint where nobody is connected."""
    stall_limit: float = 60.0
    """How long an endpoint may have demand, but neither workers nor requested blocks, before it is revived."""
    silence_limit: float = 3.0
    """How long the control channel of an endpoint may leave a question unanswered before the endpoint is suspect."""
    peer_report_time: float = 30.0
    """How long the word of others that an endpoint is in trouble counts."""
    outage_window: float = 30.0
    """Endpoints of one site that are lost within this time are an outage of the site."""
    prefetch_seconds: float = 1.0
    """Known work bound per slot beyond what runs."""
    phi_threshold: float = 8.0
    acceptable_pause: float = 2.0
    second_opinion_wait: float = 10.0
    """How long a task that raised waits for a node that is still to come before its exception is believed."""
    avoid_time: float = 30.0
    """How long a task waits for another place rather than going back to where it was lost."""
    revive_first: float = 1.0
    """Delay before the first revival; it doubles until the endpoint stays up for ``healthy_after``."""
    revive_longest: float = 300.0
    healthy_after: float = 60.0
    second_opinion: bool = True
    """Run a task once more at another place before an error of its own that may be the place's fault is believed."""
    second_opinion_timeout: float = 60.0
    """How long that waits for a place that is not up, and keeps the function from the place in doubt."""
    fade_time: float = 300.0
    """Time constant with which evidence that a function fails at a place fades."""
    retry_budget_ratio: float = 0.2
    """The retry budget: extra attempts per first attempt,"""
    retry_budget_per_second: float = 10.0
    """plus so many per second,"""
    retry_budget_max: float = 1000.0
    """of which at most so many are saved up. Hedges and second opinions beyond it are refused."""
    retry_max_delay: float = 5.0
    """How long a task that was lost with its place waits at most while the retry budget is empty."""
    hedging: bool = True
    """Whether a slow attempt of a idempotent task gets a second one elsewhere; the first result wins."""
    hedge_min_results: int = 20
    """Results of a function at an endpoint before anything there is called slow,"""
    hedge_quantile: float = 0.9
    """which is what runs longer than this quantile of the last hundred"""
    hedge_factor: float = 2.0
    """times this,"""
    hedge_min_seconds: float = 0.25
    """and longer than this."""
    hedge_max_ratio: float = 0.2
    """Hedges at the same time, as a share of all open slots."""
    history_length: int = 20_000
    """Transitions kept for `PoolCore.history`."""

    def __post_init__(self) -> None:
        """Refuse budgets that mean nothing.

        Raises:
            ConfigurationError: naming the setting and what to write.
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
