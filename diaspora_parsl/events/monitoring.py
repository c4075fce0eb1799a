"""Payloads of monitoring: what agents see of a node, and what Parsl tells about a workflow."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from diaspora_parsl.events.envelope import TOPIC_ENDPOINT, TOPIC_RESOURCE, Payload

# --- what agents see of a node, beyond that it lives ----------------------------------------------------------------


class NodeSampled(Payload, frozen=True):
    """How a node of a block is off, as its agent sees it, beside each heartbeat. Sizes are bytes; -1: not known."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    workers: int = 0
    """Of the block, on this node."""
    cores: int = 0
    load: float = -1.0
    """Processes that run or want to, over the last minute."""
    memory: int = -1
    """In all, ``memory_free`` of which could be had."""
    memory_free: int = -1
    disk: int = -1
    """Of the node's temporary directory."""
    disk_free: int = -1
    walltime: float = -1.0
    """Seconds until the batch system ends the job."""
    gpus: tuple[tuple[float, int, int], ...] = ()
    """Of each: per cent busy, bytes used, bytes in all."""


class WorkerDied(Payload, frozen=True):
    """A worker process of a block is gone, and was not asked to go."""

    topic: ClassVar[str] = TOPIC_RESOURCE

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    pid: int = 0
    attempt: int = 0
    """What it was running, if that is known."""
    proof: str = ""
    """HMAC that proves that the sender belongs to the block; a pool acts on it only then."""


# --- what Parsl tells about a workflow: times are RFC 3339, UTC -----------------------------------------------------


class WorkflowStarted(Payload, frozen=True):
    """A DataFlowKernel began to work."""

    run: str
    """Parsl's ``run_id``."""
    name: str = ""
    release: str = ""
    """The workflow's own version."""
    parsl: str = ""
    """The version of Parsl."""
    host: str = ""
    user: str = ""
    run_dir: str = ""


class WorkflowEnded(Payload, frozen=True):
    """A DataFlowKernel ended."""

    run: str
    completed: int = 0
    failed: int = 0


class TryChanged(Payload, frozen=True):
    """A try of a task of Parsl's has a new status: told by the DataFlowKernel or, from the worker, by a radio."""

    run: str
    parsl_task: int
    """Parsl's numbers: a pool counts for itself."""
    parsl_try: int
    status: str
    """In Parsl's words; ``running`` and ``running_ended`` come from the worker."""
    at: str = ""
    executor: str = ""
    function: str = ""
    fails: int = 0
    node: str = ""
    block: str = ""


class TrySampled(Payload, frozen=True):
    """What a running try uses, child processes included. Sizes are bytes, times seconds."""

    topic: ClassVar[str] = TOPIC_RESOURCE
    is_state_change: ClassVar[bool] = False

    run: str
    parsl_task: int
    parsl_try: int
    at: str = ""
    node: str = ""
    interval: float = 0.0
    """Until the next one."""
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory: int = 0
    """Resident."""
    memory_virtual: int = 0
    disk_read: int = 0
    disk_written: int = 0
    children: int = 0
    more: dict[str, str | int | float | None] = msgspec.field(default_factory=dict)
    """What else Parsl measures, by its names."""


class BlockChanged(Payload, frozen=True):
    """A block of an executor has a new status."""

    topic: ClassVar[str] = TOPIC_ENDPOINT

    run: str
    executor: str
    block: str
    status: str
    job: str = ""
    at: str = ""
