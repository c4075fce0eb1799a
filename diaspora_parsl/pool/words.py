"""The words the core speaks: stimuli in, actions out. All times are seconds on one monotonic clock."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError, PoolError
from diaspora_parsl.events import Payload
from diaspora_parsl.failures import Failure, Judgement


class EndpointSpec(Struct, frozen=True, kw_only=True):
    """What the core knows of an endpoint from the configuration."""

    label: str
    site: str = ""
    slots_cap: int | None = None
    """Upper bound of attempts at once, whatever the endpoint reports."""
    capacity: int = 1
    """Slots it could have once scaled out: its weight when the backlog is shared out as demand."""
    revivable: bool = True
    """Whether the shell knows how to build it anew."""
    memory: float | None = None
    """GB that each slot has, if known."""
    ahead: float | None = None
    """Seconds of known work bound per slot beyond what runs; None: the pool's horizon."""


class PoolSettings(Struct, frozen=True, kw_only=True):
    """Limits and time constants of a pool; durations in seconds."""

    down_limit: float = 600.0
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
    rumour_time: float = 30.0
    """How long the word of others that an endpoint is in trouble counts."""
    outage_window: float = 30.0
    """Endpoints of one site that are lost within this time are an outage of the site."""
    horizon: float = 1.0
    """Known work bound per slot beyond what runs."""
    phi_threshold: float = 8.0
    acceptable_pause: float = 2.0
    opinion_wait: float = 10.0
    """How long a task that raised waits for a node that is still to come before its exception is believed."""
    shun_time: float = 30.0
    """How long a task waits for another place rather than going back to where it was lost."""
    revive_first: float = 1.0
    """Delay before the first revival; it doubles until the endpoint stays up for ``healthy_after``."""
    revive_longest: float = 300.0
    healthy_after: float = 60.0
    second_opinion: bool = True
    """Run a task once more at another place before an error of its own that may be the place's fault is believed."""
    opinion_time: float = 60.0
    """How long that waits for a place that is not up, and keeps the function from the place in doubt."""
    fade_time: float = 300.0
    """Time constant with which evidence that a function fails at a place fades."""
    retry_share: float = 0.2
    """The retry budget: extra attempts per first attempt,"""
    retry_floor: float = 10.0
    """plus so many per second,"""
    retry_saved: float = 1000.0
    """of which at most so many are saved up. Hedges and second opinions beyond it are refused."""
    retry_wait: float = 5.0
    """How long a task that was lost with its place waits at most while the retry budget is empty."""
    hedging: bool = True
    """Whether a slow attempt of a repeatable task gets a second one elsewhere; the first result wins."""
    hedge_after: int = 20
    """Results of a function at an endpoint before anything there is called slow,"""
    hedge_quantile: float = 0.9
    """which is what runs longer than this quantile of the last hundred"""
    hedge_factor: float = 2.0
    """times this,"""
    hedge_floor: float = 0.25
    """and longer than this."""
    hedge_most: float = 0.2
    """Hedges at the same time, as a share of all open slots."""
    story_length: int = 20_000
    """Transitions kept for `PoolCore.story`."""

    def __post_init__(self) -> None:
        """Refuse budgets that mean nothing.

        Raises:
            ConfigurationError: naming the setting and what to write.
        """
        for name in ("retry_share", "retry_floor", "retry_saved", "retry_wait", "hedge_floor", "hedge_most"):
            if not getattr(self, name) >= 0.0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: write a number from 0 up.")
        if not (0.0 < self.hedge_quantile < 1.0 and self.hedge_factor >= 1.0 and self.hedge_after >= 1):
            raise ConfigurationError(
                f"hedge_quantile={self.hedge_quantile!r}, hedge_factor={self.hedge_factor!r}, "
                f"hedge_after={self.hedge_after!r}: write a quantile between 0 and 1, and the others from 1 up."
            )


# --- stimuli ------------------------------------------------------------------------------------------------------


class Submitted(Struct, frozen=True, gc=False):
    """A task entered. ``eligible`` are the labels of the endpoints whose tags and resources fit it."""

    at: float
    task: int
    function: str
    eligible: frozenset[str]
    priority: float = 0.0
    """Lower goes first."""
    tags: tuple[str, ...] = ()
    repeatable: bool = False
    """A second attempt does no harm, not even beside the first."""
    walltime: float | None = None
    """Seconds that it takes at most, as its user says."""
    imports: frozenset[str] = frozenset()
    """Modules that it imports, the standard library aside, by normalised names."""


class Finished(Struct, frozen=True, gc=False):
    """An attempt ended with a result."""

    at: float
    attempt: int
    node: str = ""
    """Where inside the endpoint: host, block and manager, separated by blanks; empty if that is not known."""


class Failed(Struct, frozen=True, gc=False):
    """An attempt ended with an exception, already judged."""

    at: float
    attempt: int
    failure: Failure
    node: str = ""
    """As in `Finished`."""


class Orphaned(Struct, frozen=True, gc=False):
    """The worker that ran an attempt is gone; the executor has not missed it yet, and will say so by `Failed`."""

    at: float
    attempt: int
    failure: Failure


class Bounced(Struct, frozen=True, gc=False):
    """A node refused to run an attempt, as it was told to; nothing of the task was run."""

    at: float
    attempt: int
    node: str


class Nodes(Struct, frozen=True, gc=False):
    """Which managers of an endpoint are connected: told when that changes."""

    at: float
    endpoint: str
    generation: int
    managers: tuple[tuple[str, str], ...]
    """Of each its id and its block."""
    more: bool = False
    """Blocks run or wait whose managers have not connected."""


class Started(Struct, frozen=True, gc=False):
    """A generation of an endpoint was started."""

    at: float
    endpoint: str
    generation: int


class Observed(Struct, frozen=True, gc=False):
    """What the endpoint itself says: its control channel answered."""

    at: float
    endpoint: str
    generation: int
    slots: int
    """Workers connected now."""
    blocks_expected: bool = False
    """Blocks are requested or running, so that workers may still come."""
    until: float | None = None
    """When the last of the connected blocks ends, if that is known."""


class Environment(Struct, frozen=True, gc=False):
    """What is installed at an endpoint, as far as it says."""

    at: float
    endpoint: str
    generation: int
    modules: frozenset[str]
    """By normalised names."""


class Unanswered(Struct, frozen=True, gc=False):
    """The control channel of the endpoint has not answered since ``since``."""

    at: float
    endpoint: str
    generation: int
    since: float


class Died(Struct, frozen=True, gc=False):
    """A generation of an endpoint is over for good, or could not be started."""

    at: float
    endpoint: str
    generation: int
    reason: str


class Heard(Struct, frozen=True, gc=False):
    """A heartbeat from one stream (block and node) of an endpoint."""

    at: float
    endpoint: str
    stream: str
    interval: float = 1.0
    way: str = ""
    """The site where it was born, if it came over a bridge."""


class Hushed(Struct, frozen=True, gc=False):
    """A stream said goodbye."""

    at: float
    endpoint: str
    stream: str


class FabricSeen(Struct, frozen=True, gc=False):
    """The fabric was read to its end just now: silence up to here is real silence."""

    at: float


class WaySeen(Struct, frozen=True, gc=False):
    """A bridge told that what comes from this site can be heard; the next such word is due after ``interval`` s."""

    at: float
    site: str
    interval: float = 1.0


class Rumour(Struct, frozen=True, gc=False):
    """Somebody else saw the endpoint in trouble."""

    at: float
    endpoint: str
    source: str
    reason: str
    lasts: float | None = None
    """Seconds that it counts; None: as long as the settings say."""


class Drain(Struct, frozen=True, gc=False):
    """No new attempts for this endpoint; those that run may finish."""

    at: float
    endpoint: str
    reason: str
    until: float | None = None
    """When it takes attempts again by itself; None: at `Resume`."""
    request: str = ""
    """The event that asked for it, and waits for an answer; as in the next three."""


class Resume(Struct, frozen=True, gc=False):
    """The endpoint takes attempts again: a drain, a window that is open now and a quarantine by hand are over."""

    at: float
    endpoint: str
    request: str = ""


class Quarantine(Struct, frozen=True, gc=False):
    """No new attempts until then, and after that only once a probe succeeded."""

    at: float
    endpoint: str
    reason: str
    until: float
    request: str = ""


class Maintenance(Struct, frozen=True, gc=False):
    """The endpoint is not to be used from ``start`` to ``end``; with None for both, every such plan is called off."""

    at: float
    endpoint: str
    start: float | None
    end: float | None
    reason: str
    request: str = ""


class Tick(Struct, frozen=True, gc=False):
    """The time that a `WakeAt` asked for has come."""

    at: float


class Stopped(Struct, frozen=True, gc=False):
    """The pool is shut down: everything open is rejected."""

    at: float


Stimulus = (
    Submitted
    | Finished
    | Failed
    | Orphaned
    | Bounced
    | Nodes
    | Started
    | Observed
    | Environment
    | Unanswered
    | Died
    | Heard
    | Hushed
    | FabricSeen
    | WaySeen
    | Rumour
    | Drain
    | Resume
    | Quarantine
    | Maintenance
    | Tick
    | Stopped
)

# --- actions ------------------------------------------------------------------------------------------------------


class Dispatch(Struct, frozen=True, gc=False):
    """Send one attempt of a task to an endpoint."""

    task: int
    attempt: int
    endpoint: str
    generation: int
    avoid: tuple[str, ...] = ()
    """Hosts and managers of that endpoint that must refuse it."""
    known: int = 0
    """The last failed attempt of that endpoint whose failure is taken into account here."""


class Resolve(Struct, frozen=True, gc=False):
    """Settle the task with the result of this attempt."""

    task: int
    attempt: int


class Reject(Struct, frozen=True, gc=False):
    """Settle the task with an error: this attempt's own exception, or the pool's verdict.

    The attempt may be one that ended earlier: a first error is kept while a second opinion is asked for.
    """

    task: int
    attempt: int | None
    verdict: PoolError | None = None
    judgement: Judgement | None = None
    """Why, and what it says about trying again."""


class Discard(Struct, frozen=True, gc=False):
    """Nobody wants the outcome of this attempt any more."""

    attempt: int


class Publish(Struct, frozen=True, gc=False):
    """Tell the fabric."""

    payload: Payload
    subject: int | str
    key: str


class Revive(Struct, frozen=True, gc=False):
    """Fence the old generation of the endpoint, then build and start this one."""

    endpoint: str
    generation: int
    reason: str


class Evict(Struct, frozen=True, gc=False):
    """Send a bad node of an endpoint away: nothing new for its manager; its block is ended if it has no other node."""

    endpoint: str
    generation: int
    manager: str
    block: str


class WakeAt(Struct, frozen=True, gc=False):
    """Send a `Tick` at this time, unless an earlier one is asked for."""

    at: float


Action = Dispatch | Resolve | Reject | Discard | Publish | Revive | Evict | WakeAt
