"""The words the core speaks: stimuli in, actions out. All times are seconds on one monotonic clock."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.core.failures import Failure


class Submitted(Struct, frozen=True, gc=False):
    """A task entered. ``eligible`` are the labels of the endpoints whose tags and resources fit it."""

    at: float
    task: int
    function: str
    eligible: frozenset[str]
    priority: float = 0.0
    """Lower goes first."""
    tags: tuple[str, ...] = ()
    idempotent: bool = False
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


class HeartbeatReceived(Struct, frozen=True, gc=False):
    """A heartbeat from one stream (block and node) of an endpoint."""

    at: float
    endpoint: str
    stream: str
    interval: float = 1.0
    via_site: str = ""
    """The site where it was born, if it came over a bridge."""


class StreamEnded(Struct, frozen=True, gc=False):
    """A stream said goodbye."""

    at: float
    endpoint: str
    stream: str


class FabricPolled(Struct, frozen=True, gc=False):
    """The fabric was read to its end just now: silence up to here is real silence."""

    at: float


class BridgePolled(Struct, frozen=True, gc=False):
    """A bridge told that what comes from this site can be heard; the next such word is due after ``interval`` s."""

    at: float
    site: str
    interval: float = 1.0


class PeerReport(Struct, frozen=True, gc=False):
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
    | HeartbeatReceived
    | StreamEnded
    | FabricPolled
    | BridgePolled
    | PeerReport
    | Drain
    | Resume
    | Quarantine
    | Maintenance
    | Tick
    | Stopped
)
