"""The typed payloads: what events say."""

from __future__ import annotations

from typing import ClassVar

from diaspora_parsl.events.envelope import TOPIC_CONTROL, TOPIC_ENDPOINT, TOPIC_RESOURCE, Payload

# --- the life of a task -------------------------------------------------------------------------------------------


class TaskSubmitted(Payload, frozen=True):
    """A task entered the pool."""

    task: int
    function: str
    tags: tuple[str, ...] = ()


class TaskDispatched(Payload, frozen=True):
    """An attempt of a task was sent to an endpoint, and why there."""

    task: int
    attempt: int
    endpoint: str
    site: str
    reason: str


class TaskHedged(Payload, frozen=True):
    """An attempt runs far longer than is usual there; a second one is sent elsewhere, and the first result wins."""

    task: int
    attempt: int
    """The second one."""
    endpoint: str
    """Where that goes."""
    site: str
    reason: str


class TaskRerouted(Payload, frozen=True):
    """An attempt was given up where it was; the task goes elsewhere, and why."""

    task: int
    attempt: int
    endpoint: str
    site: str
    reason: str


class TaskFinished(Payload, frozen=True):
    """The task is settled with the result of one attempt."""

    task: int
    attempt: int
    endpoint: str
    site: str
    seconds: float
    """From the dispatch of the winning attempt to its result."""
    attempts: int = 1


class TaskFailed(Payload, frozen=True):
    """The task is settled with an error: the user's own, or the pool's verdict."""

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
    """Why it is believed."""


class TaskLate(Payload, frozen=True):
    """A result of a superseded attempt came after the task was settled, and was dropped."""

    task: int
    attempt: int
    endpoint: str
    site: str


# --- the life of an endpoint --------------------------------------------------------------------------------------


class EndpointPayload(Payload, frozen=True):
    """What all endpoint events say."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    reason: str
    generation: int = 0


class EndpointUp(EndpointPayload, frozen=True):
    """The endpoint takes attempts."""

    slots: int = 0


class EndpointSuspect(EndpointPayload, frozen=True):
    """Signs of life are overdue; no new attempts unless there is no other place."""

    phi: float = 0.0


class EndpointDown(EndpointPayload, frozen=True):
    """The endpoint is taken for lost; its attempts were rerouted."""

    in_flight: int = 0


class EndpointReviving(EndpointPayload, frozen=True):
    """A new generation of the endpoint is being built, or will be after ``delay`` seconds."""

    delay: float = 0.0


class EndpointRefused(Payload, frozen=True):
    """The scheduler refused a block, or blocks died before they brought a worker; none is requested for ``pause`` s."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    reason: str
    pause: float


class EndpointDraining(EndpointPayload, frozen=True):
    """No new attempts, running ones may finish."""


class EndpointDrained(EndpointPayload, frozen=True):
    """The endpoint was drained and holds nothing more."""


# --- resources: samples and signs of life -------------------------------------------------------------------------


class NodeHeartbeat(Payload, frozen=True):
    """A sign of life of one node of one block of an endpoint, sent by its agent."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    interval: float = 1.0
    """Seconds until the next one is due."""


class NodeStopped(Payload, frozen=True):
    """The agent of a node said goodbye: silence from here on means nothing."""

    topic: ClassVar[str] = TOPIC_RESOURCE

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    reason: str = ""
    """Why: a signal's name, or what of its block ended."""


class NodeQuarantined(Payload, frozen=True):
    """A node fails what succeeds beside it: until a probe succeeds it gets no attempts, or none of one function."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    endpoint: str
    site: str
    node: str
    """The host."""
    reason: str
    block: str = ""
    manager: str = ""
    function: str = ""
    """Only this one; empty for everything."""


class NodeRestored(Payload, frozen=True):
    """A probe succeeded on a quarantined node: it takes attempts again."""

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
    """What a pool sees of one endpoint, about once a second."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str
    state: str
    slots: int
    in_flight: int
    finished: int
    rate: float
    """Results per second over the last seconds."""
    reason: str = ""
    generation: int = 0


class PoolStatus(Payload, frozen=True):
    """What a pool holds, about once a second."""

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
    """A pool began to work."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    pool: str
    endpoints: tuple[str, ...]
    run_dir: str = ""


class PoolStopped(Payload, frozen=True):
    """A pool ended; silence from here on means nothing."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    pool: str
    reason: str = ""


class FabricDropped(Payload, frozen=True):
    """Events that a publisher could neither send nor keep."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    state_changes: int
    samples: int


# --- bridges between fabrics --------------------------------------------------------------------------------------


class LinkPayload(Payload, frozen=True):
    """What all events of a bridge about one of its links say."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    bridge: str
    from_site: str
    to_site: str


class LinkUp(LinkPayload, frozen=True):
    """Events go from the one site to the other."""


class LinkDown(LinkPayload, frozen=True):
    """One of the two fabrics does not answer the bridge: what is to be sent waits where it is."""

    reason: str


class LinkStatus(LinkPayload, frozen=True):
    """What a link does, about once a second; where it is heard, whatever comes that way can be heard."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    reads: bool
    """The fabric of ``from_site`` answers."""
    writes: bool
    """The fabric of ``to_site`` answers."""
    forwarded: int
    """Events, since the bridge was started, as the other counters."""
    waiting: int
    """Read, and not yet taken by the other side."""
    refused: int = 0
    """Not on the list of topics, or no valid sample."""
    thinned: int = 0
    """Samples left out, since one per period is enough."""
    looped: int = 0
    """They had been on the other side, or had crossed too many bridges."""
    doubles: int = 0
    resyncs: int = 0
    """Times that events were trimmed away before they were read: those are lost."""
    interval: float = 1.0
    """Seconds until the next one is due."""


# --- control: what somebody asks of pools, and their answers --------------------------------------------------------


class ControlPayload(Payload, frozen=True):
    """What all requests say."""

    topic: ClassVar[str] = TOPIC_CONTROL

    endpoint: str
    site: str = ""
    pool: str = ""
    """Name of the pool that is meant; every pool that has the endpoint, if empty."""
    reason: str = ""


class EndpointDrainRequested(ControlPayload, frozen=True):
    """Send no new attempts there; those that run may finish."""

    until: str = ""
    """RFC 3339: when attempts may go there again; until it is asked for, if empty."""


class EndpointResumeRequested(ControlPayload, frozen=True):
    """Attempts may go there again: a drain, a window that is open and a quarantine by request are over."""


class EndpointQuarantineRequested(ControlPayload, frozen=True, kw_only=True):
    """Send no new attempts there, and after ``until`` only one at a time, until one succeeds."""

    until: str
    """RFC 3339."""


class MaintenanceAnnounced(Payload, frozen=True):
    """An endpoint, or a whole site, is not to be used for a time."""

    topic: ClassVar[str] = TOPIC_CONTROL

    place: str
    """Label of an endpoint, or name of a site."""
    start: str
    """RFC 3339, as ``end``."""
    end: str
    pool: str = ""
    reason: str = ""


class MaintenanceCancelled(Payload, frozen=True):
    """All windows of an endpoint, or of every endpoint of a site, are called off."""

    topic: ClassVar[str] = TOPIC_CONTROL

    place: str
    pool: str = ""
    reason: str = ""


class RequestAnswered(Payload, frozen=True):
    """A pool followed a request about one of its endpoints, which stands like this now."""

    topic: ClassVar[str] = TOPIC_CONTROL

    request: str
    """``id`` of the event that asked."""
    endpoint: str
    site: str
    state: str
    reason: str
    in_flight: int
