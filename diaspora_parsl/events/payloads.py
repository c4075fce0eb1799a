"""Typed payloads of tasks, endpoints, nodes, bridges and requests."""

from __future__ import annotations

from typing import ClassVar

from diaspora_parsl.events.envelope import TOPIC_CONTROL, TOPIC_ENDPOINT, TOPIC_RESOURCE, Payload

# --- tasks --------------------------------------------------------------------------------------------------------


class TaskSubmitted(Payload, frozen=True):
    """A task entered the pool."""

    task: int
    function: str
    tags: tuple[str, ...] = ()


class TaskDispatched(Payload, frozen=True):
    """An attempt of a task was sent to an endpoint."""

    task: int
    attempt: int
    endpoint: str
    site: str
    reason: str


class TaskHedged(Payload, frozen=True):
    """An attempt runs far longer than usual; a second attempt was sent elsewhere, and the first result wins."""

    task: int
    attempt: int
    """The second attempt."""
    endpoint: str
    """Endpoint of the second attempt."""
    site: str
    reason: str


class TaskRerouted(Payload, frozen=True):
    """An attempt was abandoned; the task is sent to another endpoint."""

    task: int
    attempt: int
    endpoint: str
    site: str
    reason: str


class TaskFinished(Payload, frozen=True):
    """The task completed with the result of one attempt."""

    task: int
    attempt: int
    endpoint: str
    site: str
    seconds: float
    """Seconds from the dispatch of the winning attempt to its result."""
    attempts: int = 1


class TaskFailed(Payload, frozen=True):
    """The task failed with the user's own exception or an error of the pool."""

    task: int
    kind: str
    """A value of `diaspora_parsl.core.failures.Kind`."""
    error: str
    """Type name of the exception."""
    message: str
    endpoint: str = ""
    site: str = ""
    attempt: int = 0
    attempts: int = 0
    reason: str = ""
    """Why the pool accepts the error."""


class TaskLate(Payload, frozen=True):
    """A result arrived after the task was settled, and was dropped."""

    task: int
    attempt: int
    endpoint: str
    site: str


# --- endpoints ----------------------------------------------------------------------------------------------------


class EndpointPayload(Payload, frozen=True):
    """Fields of all endpoint events."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    reason: str
    generation: int = 0


class EndpointUp(EndpointPayload, frozen=True):
    """The endpoint accepts attempts."""

    slots: int = 0


class EndpointSuspect(EndpointPayload, frozen=True):
    """Heartbeats are overdue; the endpoint receives new attempts only if no other endpoint is available."""

    phi: float = 0.0


class EndpointDown(EndpointPayload, frozen=True):
    """The endpoint is considered lost; its attempts were rerouted."""

    in_flight: int = 0


class EndpointReviving(EndpointPayload, frozen=True):
    """A new generation of the endpoint is being built, or will be after ``delay`` seconds."""

    delay: float = 0.0


class EndpointRefused(Payload, frozen=True):
    """The scheduler refused a block, or blocks ended before a worker started; requests pause for ``pause`` seconds."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    reason: str
    pause: float


class EndpointDraining(EndpointPayload, frozen=True):
    """The endpoint receives no new attempts; running attempts may finish."""


class EndpointDrained(EndpointPayload, frozen=True):
    """The drained endpoint has no running attempts left."""


# --- resources: samples and heartbeats ----------------------------------------------------------------------------


class NodeHeartbeat(Payload, frozen=True):
    """Heartbeat of a node of a block, published by its agent."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    interval: float = 1.0
    """Seconds until the next one is due."""


class NodeStopped(Payload, frozen=True):
    """The agent of a node ended in order; silence afterwards is no failure."""

    topic: ClassVar[str] = TOPIC_RESOURCE

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    reason: str = ""
    """Name of the signal, or the part of the block that ended."""


class NodeQuarantined(Payload, frozen=True):
    """A node fails tasks that succeed on other nodes; it receives no attempts until a probe succeeds."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    node: str
    """The host."""
    reason: str
    block: str = ""
    manager: str = ""
    function: str = ""
    """Only attempts of this function are excluded; all attempts if empty."""


class NodeRestored(Payload, frozen=True):
    """A probe succeeded on a quarantined node; it accepts attempts again."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    node: str
    """The host."""
    reason: str
    block: str = ""
    manager: str = ""
    function: str = ""
    """As in `NodeQuarantined`."""


class EndpointStatus(Payload, frozen=True):
    """State of an endpoint, published about once a second."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str
    state: str
    slots: int
    in_flight: int
    finished: int
    rate: float
    """Results per second, over the last few seconds."""
    reason: str = ""
    generation: int = 0


class PoolStatus(Payload, frozen=True):
    """State of a pool, published about once a second."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    pool: str
    waiting: int
    in_flight: int
    finished: int
    failed: int
    rerouted: int
    late: int
    hedged: int = 0


class PoolStarted(Payload, frozen=True):
    """A pool started."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    pool: str
    endpoints: tuple[str, ...]
    run_dir: str = ""


class PoolStopped(Payload, frozen=True):
    """A pool ended; silence afterwards is no failure."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    pool: str
    reason: str = ""


class FabricDropped(Payload, frozen=True):
    """Number of events that a publisher could neither send nor store."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    state_changes: int
    samples: int


# --- bridges between fabrics --------------------------------------------------------------------------------------


class LinkPayload(Payload, frozen=True):
    """Fields of all link events of a bridge."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    bridge: str
    from_site: str
    to_site: str


class LinkUp(LinkPayload, frozen=True):
    """The link forwards events."""


class LinkDown(LinkPayload, frozen=True):
    """One of the two fabrics does not answer the bridge; events wait in the source."""

    reason: str


class LinkStatus(LinkPayload, frozen=True):
    """State of a link, published about once a second; receiving it proves that the path works."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    reads: bool
    """The fabric of ``from_site`` answers."""
    writes: bool
    """The fabric of ``to_site`` answers."""
    forwarded: int
    """Number of events since the bridge started, as for the other counters."""
    waiting: int
    """Events that were read but not yet written."""
    refused: int = 0
    """Events of other topics, and invalid samples."""
    thinned: int = 0
    """Samples dropped by the sampling period."""
    looped: int = 0
    """Events that came from the destination, or crossed too many bridges."""
    doubles: int = 0
    resyncs: int = 0
    """Number of times that events were trimmed, and lost, before they were read."""
    interval: float = 1.0
    """Seconds until the next one is due."""


# --- control: requests to pools and their answers -------------------------------------------------------------------


class ControlPayload(Payload, frozen=True):
    """Fields of all requests about an endpoint."""

    topic: ClassVar[str] = TOPIC_CONTROL

    endpoint: str
    site: str = ""
    pool: str = ""
    """Name of the addressed pool; every pool with this endpoint if empty."""
    reason: str = ""


class EndpointDrainRequested(ControlPayload, frozen=True):
    """Send no new attempts to the endpoint; running attempts may finish."""

    until: str = ""
    """RFC 3339 time at which the drain ends; if empty, it ends on request."""


class EndpointResumeRequested(ControlPayload, frozen=True):
    """End a drain, an open maintenance window and a requested quarantine of the endpoint."""


class EndpointQuarantineRequested(ControlPayload, frozen=True, kw_only=True):
    """Send no new attempts to the endpoint; after ``until``, send one at a time until one succeeds."""

    until: str
    """RFC 3339."""


class MaintenanceAnnounced(Payload, frozen=True):
    """An endpoint or a site is unavailable during a maintenance window."""

    topic: ClassVar[str] = TOPIC_CONTROL

    place: str
    """Label of an endpoint or name of a site."""
    start: str
    """RFC 3339, as ``end``."""
    end: str
    pool: str = ""
    reason: str = ""


class MaintenanceCancelled(Payload, frozen=True):
    """All maintenance windows of an endpoint or a site are cancelled."""

    topic: ClassVar[str] = TOPIC_CONTROL

    place: str
    pool: str = ""
    reason: str = ""


class RequestAnswered(Payload, frozen=True):
    """A pool carried out a request; the fields give the new state of the endpoint."""

    topic: ClassVar[str] = TOPIC_CONTROL

    request: str
    """``id`` of the request."""
    endpoint: str
    site: str
    state: str
    reason: str
    in_flight: int
