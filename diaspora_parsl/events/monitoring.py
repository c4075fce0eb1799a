"""Payloads of monitoring: resource samples of nodes and the state of Parsl workflows."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from diaspora_parsl.events.envelope import TOPIC_ENDPOINT, TOPIC_RESOURCE, Payload

# --- published by node agents ---------------------------------------------------------------------------------------


class NodeSampled(Payload, frozen=True):
    """Resources of a node of a block, published by its agent with each heartbeat. Sizes are bytes; -1 if unknown."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    workers: int = 0
    """Number of workers of the block on this node."""
    cores: int = 0
    load: float = -1.0
    """Load average of the last minute."""
    memory: int = -1
    """Total memory; ``memory_free`` is available."""
    memory_free: int = -1
    disk: int = -1
    """Size of the file system of the temporary directory."""
    disk_free: int = -1
    walltime: float = -1.0
    """Seconds until the batch system ends the job."""
    gpus: tuple[tuple[float, int, int], ...] = ()
    """Per GPU: utilization in per cent, memory used, total memory."""


class WorkerDied(Payload, frozen=True):
    """A worker process of a block ended unexpectedly."""

    topic: ClassVar[str] = TOPIC_RESOURCE

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    pid: int = 0
    attempt: int = 0
    """Attempt that it ran; 0 if unknown."""
    proof: str = ""
    """HMAC that proves that the sender belongs to the block; pools ignore the event without it."""


# --- published for a Parsl workflow: times are RFC 3339, UTC --------------------------------------------------------


class WorkflowStarted(Payload, frozen=True):
    """A DataFlowKernel started."""

    run: str
    """Parsl's ``run_id``."""
    name: str = ""
    release: str = ""
    """Version of the workflow."""
    parsl: str = ""
    """Version of Parsl."""
    host: str = ""
    user: str = ""
    run_dir: str = ""


class WorkflowEnded(Payload, frozen=True):
    """A DataFlowKernel ended."""

    run: str
    completed: int = 0
    failed: int = 0


class TryChanged(Payload, frozen=True):
    """A try of a Parsl task has a new status; published by the DataFlowKernel or by a radio of the worker."""

    run: str
    parsl_task: int
    """Task and try numbers of Parsl, not of a pool."""
    parsl_try: int
    status: str
    """Parsl's name of the status; ``running`` and ``running_ended`` come from the worker."""
    at: str = ""
    executor: str = ""
    function: str = ""
    fails: int = 0
    node: str = ""
    block: str = ""


class TrySampled(Payload, frozen=True):
    """Resource usage of a running try, child processes included. Sizes are bytes, times seconds."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    run: str
    parsl_task: int
    parsl_try: int
    at: str = ""
    node: str = ""
    interval: float = 0.0
    """Seconds until the next sample."""
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory: int = 0
    """Resident memory."""
    memory_virtual: int = 0
    disk_read: int = 0
    disk_written: int = 0
    children: int = 0
    more: dict[str, str | int | float | None] = msgspec.field(default_factory=dict)
    """Further measurements of Parsl, by its names."""


class BlockChanged(Payload, frozen=True):
    """A block of an executor has a new status."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    run: str
    executor: str
    block: str
    status: str
    job: str = ""
    at: str = ""
