"""Executors that report slots, blocks and health to a pool, beyond Parsl's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from msgspec import Struct
from parsl.executors.base import ParslExecutor

from diaspora_parsl.events import Payload


class Observation(Struct, frozen=True):
    """State of an executor at one time."""

    slots: int
    """Connected workers."""
    blocks_expected: bool = True
    """Whether blocks are requested or starting, so that workers may still connect."""
    blocks: frozenset[str] = frozenset()
    """Blocks of the workers."""
    managers: tuple[tuple[str, str], ...] = ()
    """Id and block of each manager that accepts tasks."""
    more: bool = False
    """Whether blocks without connected managers are requested or starting."""
    deserted: frozenset[str] = frozenset()
    """Blocks with a running job whose managers connected and left."""
    silent_since: float | None = None
    """Since when (monotonic seconds) an answer or a result is overdue."""


class ObservableExecutor(ParslExecutor):
    """Base of executors that report their state to a pool. No method may block."""

    #: Keys of a resource specification that the executor knows; None: all.
    takes: frozenset[str] | None = None

    @abstractmethod
    def observe(self) -> Observation:
        """Return the current state."""

    @abstractmethod
    def why_dead(self) -> str | None:
        """Return why the executor can never work again, or None."""

    @abstractmethod
    def most_slots(self) -> int:
        """Return the attempts it can run at a time, as far as known before it starts."""

    def connect(self, emit: Callable[[Payload], None]) -> None:
        """Receive, before `start`, a callable that publishes events; it never blocks and never raises."""
