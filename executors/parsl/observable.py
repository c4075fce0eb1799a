"""Executors that know a pool: what they tell it about themselves, beyond what Parsl's interface has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from msgspec import Struct
from parsl.executors.base import ParslExecutor

from diaspora_parsl.events import Payload


class Observation(Struct, frozen=True):
    """What an executor says about itself."""

    slots: int
    """Workers connected now."""
    blocks_expected: bool = True
    """Blocks are on their way, so that workers may still come."""
    blocks: frozenset[str] = frozenset()
    """Those that the workers are in."""
    managers: tuple[tuple[str, str], ...] = ()
    """Id and block of each manager that takes tasks."""
    more: bool = False
    """Blocks are on their way whose managers have not connected, whether or not others have."""
    deserted: frozenset[str] = frozenset()
    """Blocks whose jobs run, and whose managers came and are gone."""
    silent_since: float | None = None
    """It should have answered, or given a result, since then (monotonic seconds), and has not."""


class ObservableExecutor(ParslExecutor):
    """Base of executors that tell a pool about themselves. None of the methods may block."""

    #: Keys of a resource specification that it takes; None: all.
    takes: frozenset[str] | None = None

    @abstractmethod
    def observe(self) -> Observation:
        """What it has now."""

    @abstractmethod
    def why_dead(self) -> str | None:
        """Why it can never work again, or None."""

    @abstractmethod
    def most_slots(self) -> int:
        """Attempts it could run at once, as far as is known before it is started."""

    def connect(self, tell: Callable[[Payload], None]) -> None:
        """Before `start`: how to publish events about it; never blocks, never raises."""
