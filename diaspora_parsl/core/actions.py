"""Actions: what the core asks the shell to do."""

from __future__ import annotations

from msgspec import Struct

from diaspora_parsl.core.failures import Attribution
from diaspora_parsl.errors import PoolError
from diaspora_parsl.events import Payload


class Dispatch(Struct, frozen=True, gc=False):
    """Send one attempt of a task to an endpoint."""

    task: int
    attempt: int
    endpoint: str
    generation: int
    avoid: tuple[str, ...] = ()
    """Hosts and managers of the endpoint that must refuse the attempt."""
    known: int = 0
    """Last failed attempt of the endpoint whose failure ``avoid`` takes into account."""


class Resolve(Struct, frozen=True, gc=False):
    """Settle the task with the result of this attempt."""

    task: int
    attempt: int


class Reject(Struct, frozen=True, gc=False):
    """Settle the task with an attempt's own exception or with an error of the pool.

    The attempt may have ended earlier: the pool keeps the first error while a second opinion is pending.
    """

    task: int
    attempt: int | None
    verdict: PoolError | None = None
    attribution: Attribution | None = None
    """Reason, and cost in Parsl's retries."""


class Discard(Struct, frozen=True, gc=False):
    """Drop the outcome of this attempt."""

    attempt: int


class Publish(Struct, frozen=True, gc=False):
    """Publish an event to the fabric."""

    payload: Payload
    subject: int | str
    key: str


class Revive(Struct, frozen=True, gc=False):
    """Fence the old generation of the endpoint, then build and start this one."""

    endpoint: str
    generation: int
    reason: str


class Evict(Struct, frozen=True, gc=False):
    """Evict a bad node: hold its manager, and end its block if that has no other node."""

    endpoint: str
    generation: int
    manager: str
    block: str


class WakeAt(Struct, frozen=True, gc=False):
    """Send a `Tick` at this time, unless an earlier one is due."""

    at: float


Action = Dispatch | Resolve | Reject | Discard | Publish | Revive | Evict | WakeAt
