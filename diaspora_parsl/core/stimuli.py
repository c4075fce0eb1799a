"""Stimuli: the inputs of the core. All times are seconds on one monotonic clock."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.core.failures import Failure


class Submitted(Struct, frozen=True, gc=False):
    """A task was submitted."""

    at: float
    task: int
    function: str
    eligible: frozenset[str]
    """Labels of the endpoints whose tags and resources fit the task."""
    priority: float = 0.0
    """Lower values run first."""
    tags: tuple[str, ...] = ()
    idempotent: bool = False
    """Whether a second attempt is safe, even beside the first."""
    walltime: float | None = None
    """Upper bound of the run time in seconds, given by the user."""
    imports: frozenset[str] = frozenset()
    """Normalised names of the imported modules, without the standard library."""


class Finished(Struct, frozen=True, gc=False):
    """An attempt ended with a result."""

    at: float
    attempt: int
    node: str = ""
    """Host, block and manager, separated by blanks; empty if unknown."""


class Failed(Struct, frozen=True, gc=False):
    """An attempt ended with an exception, which is classified."""

    at: float
    attempt: int
    failure: Failure
    node: str = ""
    """As in `Finished`."""


class Orphaned(Struct, frozen=True, gc=False):
    """The worker of an attempt is gone before its executor noticed; `Failed` follows."""

    at: float
    attempt: int
    failure: Failure


class Bounced(Struct, frozen=True, gc=False):
    """A node refused an attempt that must avoid it; no user code ran."""

    at: float
    attempt: int
    node: str


class Nodes(Struct, frozen=True, gc=False):
    """The set of connected managers of an endpoint changed."""

    at: float
    endpoint: str
    generation: int
    managers: tuple[tuple[str, str], ...]
    """Id and block of each connected manager."""
    more: bool = False
    """Whether blocks run or wait whose managers have not connected."""


class Started(Struct, frozen=True, gc=False):
    """A generation of an endpoint was started."""

    at: float
    endpoint: str
    generation: int


class Observed(Struct, frozen=True, gc=False):
    """The control channel of the endpoint answered."""

    at: float
    endpoint: str
    generation: int
    slots: int
    """Number of connected workers."""
    blocks_expected: bool = False
    """Whether blocks are requested or running, so that workers may still connect."""
    until: float | None = None
    """Time at which the last connected block ends; None: unknown."""


class Environment(Struct, frozen=True, gc=False):
    """An endpoint reported its installed modules."""

    at: float
    endpoint: str
    generation: int
    modules: frozenset[str]
    """Normalised names of the modules."""


class Unanswered(Struct, frozen=True, gc=False):
    """The control channel of the endpoint has not answered since ``since``."""

    at: float
    endpoint: str
    generation: int
    since: float


class Died(Struct, frozen=True, gc=False):
    """A generation of an endpoint ended, or could not be started."""

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
    """Site of origin, if the heartbeat came over a bridge."""


class StreamEnded(Struct, frozen=True, gc=False):
    """A stream of heartbeats announced its end."""

    at: float
    endpoint: str
    stream: str


class FabricPolled(Struct, frozen=True, gc=False):
    """The fabric was read to its end: no heartbeat up to this time is missing."""

    at: float


class BridgePolled(Struct, frozen=True, gc=False):
    """A bridge reported that events of this site arrive."""

    at: float
    site: str
    interval: float = 1.0
    """Seconds until the next such report is due."""


class PeerReport(Struct, frozen=True, gc=False):
    """A peer reported the endpoint as suspect."""

    at: float
    endpoint: str
    source: str
    reason: str
    lasts: float | None = None
    """Seconds for which the report is valid; None: the value of `PoolSettings`."""


class Drain(Struct, frozen=True, gc=False):
    """Drain an endpoint: send it no new attempts, and let the running ones finish."""

    at: float
    endpoint: str
    reason: str
    until: float | None = None
    """Time at which the drain ends; None: at `Resume`."""
    request: str = ""
    """Id of the event that requested it and expects an answer; the same in the next three."""


class Resume(Struct, frozen=True, gc=False):
    """End a drain, an open maintenance window and an operator's quarantine of the endpoint."""

    at: float
    endpoint: str
    request: str = ""


class Quarantine(Struct, frozen=True, gc=False):
    """Quarantine an endpoint: send nothing until this time, and then one probe."""

    at: float
    endpoint: str
    reason: str
    until: float
    request: str = ""


class Maintenance(Struct, frozen=True, gc=False):
    """Plan a maintenance window from ``start`` to ``end``; None for both cancels every window."""

    at: float
    endpoint: str
    start: float | None
    end: float | None
    reason: str
    request: str = ""


class Tick(Struct, frozen=True, gc=False):
    """The time of a `WakeAt` has come."""

    at: float


class Stopped(Struct, frozen=True, gc=False):
    """The pool shuts down: reject every open task."""

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
