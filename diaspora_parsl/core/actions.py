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
    attribution: Attribution | None = None
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
