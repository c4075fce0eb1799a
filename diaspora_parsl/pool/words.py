"""The words the core speaks: stimuli in, actions out. All times are seconds on one monotonic clock."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.errors import PoolError
from diaspora_parsl.events import Payload
from diaspora_parsl.failures import Failure


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
    story_length: int = 20_000
    """Transitions kept for `PoolCore.story`."""


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


class Hushed(Struct, frozen=True, gc=False):
    """A stream said goodbye."""

    at: float
    endpoint: str
    stream: str


class FabricSeen(Struct, frozen=True, gc=False):
    """The fabric was read to its end just now: silence up to here is real silence."""

    at: float


class Rumour(Struct, frozen=True, gc=False):
    """Somebody else saw the endpoint in trouble."""

    at: float
    endpoint: str
    source: str
    reason: str


class Drain(Struct, frozen=True, gc=False):
    """No new attempts for this endpoint."""

    at: float
    endpoint: str
    reason: str


class Resume(Struct, frozen=True, gc=False):
    """The endpoint takes attempts again."""

    at: float
    endpoint: str


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
    | Bounced
    | Nodes
    | Started
    | Observed
    | Unanswered
    | Died
    | Heard
    | Hushed
    | FabricSeen
    | Rumour
    | Drain
    | Resume
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
    """Settle the task with an error: this attempt's own exception, or the pool's verdict."""

    task: int
    attempt: int | None
    verdict: PoolError | None = None


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
